// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Pages go to the swap file and come back: what they hold, who is told, what a slot costs, and what
 * happens when there is none, or the file fails. One thread at a time; the races are in
 * test_swap_races.c and test_swap_fork.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/support/swap_fixture.h"

/* Page n holds n + 1 at its start and at its end. */
static void fill(struct mm_struct *mm, uint64_t first, uint64_t nr)
{
	for (uint64_t i = first; i < first + nr; i++) {
		test_write(mm, page(i), i + 1);
		test_write(mm, page(i + 1) - 8, i + 1);
	}
}

static void expect_filled(struct mm_struct *mm, uint64_t first, uint64_t nr)
{
	for (uint64_t i = first; i < first + nr; i++) {
		expect_eq(test_read(mm, page(i)), i + 1);
		expect_eq(test_read(mm, page(i) + 8), 0);
		expect_eq(test_read(mm, page(i + 1) - 8), i + 1);
	}
}

TEST(swap, on_and_off)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(phys_swap_off(phys), -EINVAL);
	expect_eq(phys_swap_on(phys, "/tmp", 0), -EINVAL);
	expect_eq(phys_swap_on(phys, "/tmp", 1UL << 32), -EINVAL);
	expect_eq(phys_swap_on(phys, "/no/such/place", 4), -ENOENT);
	expect_eq(phys_swap_on(phys, "/tmp", 4), 0);
	expect_eq(phys_swap_on(phys, "/tmp", 4), -EBUSY);

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 0, 1);
	expect(page_goes_out(mm, page(0)));
	expect_eq(phys_swap_off(phys), -EBUSY);
	expect_filled(mm, 0, 1);
	expect_eq(phys_swap_off(phys), 0);
	expect(!page_goes_out(mm, page(0)));
	expect_filled(mm, 0, 1);
	mmput(mm);
	test_phys_done(phys);
}

/* Whoever looked whether there was room may find that there is none any more. */
TEST(swap, the_last_slot_went_to_another)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 1);

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(1), PAGE_SIZE, RW, mapping, 0), 0);
	fill(mm, 0, 2);
	for (uint64_t i = 0; i < 2; i++) {
		pfn_t pfn = mm_lookup_pfn(mm, page(i));

		phys_get(phys, pfn);
		lock_frame(phys, pfn);
		expect(!page_out(phys, pfn));
		unlock_frame(phys, pfn);
		phys_put(phys, pfn);
		expect_eq(mm_lookup_pfn(mm, page(i)), pfn);
	}
	expect_filled(mm, 0, 2);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(swap, a_private_page_out_and_in)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	struct counting_notifier cn = {0};
	struct reclaim_stats stats;
	struct mm_stats mm_stats;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&cn, mm);
	fill(mm, 0, 4);
	for (uint64_t i = 0; i < 4; i++) {
		pfn = mm_lookup_pfn(mm, page(i));
		expect(page_goes_out(mm, page(i)));
		expect(pte_swap(entry_of(mm, page(i))));
		expect(test_page_is(phys, pfn, PHYS_POISON));
		expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), i + 1);
		expect_eq(cn.start, page(i));
		expect_eq(cn.end, page(i + 1));
		expect_eq(swap_used(phys), i + 1);
	}
	expect_eq(phys_nr_free(phys), 8);
	expect_filled(mm, 0, 4);
	expect_eq(swap_used(phys), 0);
	/* It is nobody else's: so it was given back with the right to write. */
	expect(pte_allows(entry_of(mm, page(0)), true));
	expect_eq(refs_of(phys, mm_lookup_pfn(mm, page(0))), 1);
	/* And it is in no file: out again, without having been written. */
	expect(page_goes_out(mm, page(0)));
	expect_filled(mm, 0, 1);

	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_out, 5);
	expect_eq(stats.swap_in, 5);
	expect_eq(stats.reclaimed, 5);
	expect_eq(stats.swap_errors, 0);
	mm_get_stats(mm, &mm_stats);
	expect_eq(mm_stats.pages_swapped_out, 5);
	expect_eq(mm_stats.pages_swapped_in, 5);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_swap_phys_done(phys);
}

TEST(swap, a_page_that_was_only_read_is_zero_again)
{
	struct phys *phys = test_swap_phys(8, 1);
	struct mm_struct *mm = test_mm(phys);

	/* The slot had another page before. */
	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 1, 1);
	expect(page_goes_out(mm, page(1)));
	expect_filled(mm, 1, 1);
	expect_eq(test_read(mm, page(0)), 0);
	expect(page_goes_out(mm, page(0)));
	expect_eq(test_read(mm, page(0)), 0);
	expect_eq(test_read(mm, page(1) - 8), 0);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* Rights are those of the area when the page comes back. */
TEST(swap, rights_changed_meanwhile)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	uint64_t word = 1;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 0, 1);
	expect(page_goes_out(mm, page(0)));
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, MM_PROT_READ), 0);
	expect_filled(mm, 0, 1);
	expect_eq(mm_write(mm, page(0), &word, sizeof(word)), -EFAULT);
	expect(page_goes_out(mm, page(0)));
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, RW), 0);
	test_write(mm, page(0) + 8, 5);
	expect_eq(test_read(mm, page(0)), 1);
	mmput(mm);
	test_swap_phys_done(phys);
}

TEST(swap, moved_unmapped_zapped_while_out)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	hva_t to = page(100);

	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 0, 4);
	for (uint64_t i = 0; i < 4; i++)
		expect(page_goes_out(mm, page(i)));
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(swap_used(phys), 3);
	expect_eq(test_read(mm, page(0)), 0);
	expect_eq(mm_munmap(mm, page(3), PAGE_SIZE), 0);
	expect_eq(swap_used(phys), 2);
	expect_eq(mm_mremap(mm, page(1), PAGE_SIZE, PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &to),
		  0);
	expect_eq(swap_used(phys), 2);
	expect_eq(test_read(mm, page(100)), 2);
	expect_eq(swap_used(phys), 1);
	/* The last one is left to the exit. */
	mmput(mm);
	test_swap_phys_done(phys);
}

/* ---- pages of objects ---- */

TEST(swap, a_page_of_an_object_out_and_in)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys), *mm2 = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);
	struct counting_notifier cn = {0}, cn2 = {0};
	struct mm_stats stats;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm2, page(10), 4 * PAGE_SIZE, MM_PROT_READ, mapping, 0), 0);
	counting_register(&cn, mm);
	counting_register(&cn2, mm2);
	fill(mm, 0, 4);
	expect_eq(test_read(mm2, page(12)), 3);
	pfn = mm_lookup_pfn(mm, page(2));
	expect(page_goes_out(mm, page(2)));
	expect(test_page_is(phys, pfn, PHYS_POISON));
	expect(pte_none(entry_of(mm, page(2))));
	expect(pte_none(entry_of(mm2, page(12))));
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 1);
	expect_eq(atomic64_read(&cn2.starts[MMU_NOTIFY_CLEAR]), 1);
	mm_get_stats(mm, &stats);
	expect_eq(stats.pages_swapped_out, 0); /* nothing of this mm's own */
	expect_eq(address_space_peek(mapping, 2), INVALID_PFN);
	expect_eq(migrate_mapping_page(mapping, 2), -ENOENT);
	expect_eq(swap_used(phys), 1);
	expect_eq(test_read(mm2, page(12)), 3);
	expect_eq(swap_used(phys), 0);
	expect_filled(mm, 0, 4);
	/* One that nobody maps goes without a window; and out it may stay when the object goes. */
	expect_eq(mm_munmap(mm, page(3), PAGE_SIZE), 0);
	expect_eq(mm_munmap(mm2, page(13), PAGE_SIZE), 0);
	pfn = address_space_peek(mapping, 3);
	phys_get(phys, pfn);
	expect(reclaim_page(phys, pfn));
	phys_put(phys, pfn);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 1);
	expect_eq(swap_used(phys), 1);

	mmu_notifier_unregister(&cn.mn, mm);
	mmu_notifier_unregister(&cn2.mn, mm2);
	mmput(mm);
	mmput(mm2);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

/* What a private area shows of an object is the object's page; what it wrote is its own. */
TEST(swap, a_private_area_of_an_object)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 2);

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap_flags(mm, page(2), 2 * PAGE_SIZE, RW, MM_MAP_PRIVATE, mapping, 0), 0);
	fill(mm, 0, 2);
	expect_eq(test_read(mm, page(2)), 1);
	test_write(mm, page(3), 77);
	for (uint64_t i = 0; i < 4; i++)
		page_goes_out(mm, page(i));
	expect_eq(swap_used(phys), 3);
	expect(pte_none(entry_of(mm, page(2))));
	expect(pte_swap(entry_of(mm, page(3))));
	expect_filled(mm, 0, 2);
	expect_eq(test_read(mm, page(2)), 1);
	expect_eq(test_read(mm, page(3)), 77);
	expect_eq(test_read(mm, page(4) - 8), 2);
	mmput(mm);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

/* ---- who stays ---- */

TEST(swap, a_page_that_somebody_holds_stays)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 0, 2);
	/* Pinned: it is not touched at all. */
	expect_eq(mm_pin_page(mm, page(0), true, &pfn), 0);
	expect(!page_goes_out(mm, page(0)));
	expect_eq(mm_lookup_pfn(mm, page(0)), pfn);
	expect_eq(swap_used(phys), 0);
	mm_unpin_page(mm, pfn, true);
	/* Read: it is unmapped, but stays in its frame, where the next access finds it. */
	pfn = mm_lookup_pfn(mm, page(1));
	phys_get(phys, pfn);
	expect(!page_goes_out(mm, page(1)));
	expect(pte_swap(entry_of(mm, page(1))));
	expect_eq(swap_used(phys), 1);
	expect_eq(refs_of(phys, pfn), 2);
	phys_put(phys, pfn);
	expect_filled(mm, 0, 2);
	expect_eq(mm_lookup_pfn(mm, page(1)), pfn);
	expect_eq(swap_used(phys), 0);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* A page that is in the cache, mapped nowhere, moves and goes as any other. */
TEST(swap, a_page_that_is_only_cached)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 0, 2);
	for (uint64_t i = 0; i < 2; i++) {
		pfn = mm_lookup_pfn(mm, page(i));
		phys_get(phys, pfn);
		expect(!page_goes_out(mm, page(i)));
		phys_put(phys, pfn);
		expect_eq(refs_of(phys, pfn), 1);
		expect_eq(migrate_frame(phys, pfn), 0);
		expect(test_page_is(phys, pfn, PHYS_POISON));
	}
	expect_eq(swap_used(phys), 2);
	/* Out without any window, written in spite of the move; zapped. */
	expect_eq(phys_reclaim(phys, 2), 2);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(test_read(mm, page(1)), 2);
	expect_eq(swap_used(phys), 0);
	expect_eq(phys_nr_free(phys), 7);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* The last one who has the entry of it drops it: no reclaim has to come by. */
TEST(swap, a_page_that_is_only_cached_is_dropped)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys), *child = NULL;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	fill(mm, 0, 1);
	expect_eq(mm_fork(mm, &child), 0);
	pfn = mm_lookup_pfn(mm, page(0));
	phys_get(phys, pfn);
	expect(!page_goes_out(mm, page(0)));
	phys_put(phys, pfn);
	mmput(child);
	expect_eq(refs_of(phys, pfn), 1);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(refs_of(phys, pfn), 0);
	expect_eq(swap_used(phys), 0);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* ---- no room, and errors ---- */

TEST(swap, full)
{
	struct phys *phys = test_swap_phys(8, 3);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 1);
	uint64_t word = 1;
	int ret = 0;
	uint64_t i;

	expect_eq(mm_mmap(mm, page(0), 64 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(64), PAGE_SIZE, RW, mapping, 0), 0);
	for (i = 0; !ret && i < 64; i++)
		ret = mm_write(mm, page(i), &word, sizeof(word));
	expect_eq(ret, -ENOMEM);
	expect_eq(i, 8 + 3 + 1);
	expect_eq(mm_write(mm, page(64), &word, sizeof(word)), -ENOMEM);
	/* What is in memory is there; what is out has no frame to come to, until one goes. */
	for (uint64_t p = 0; p < 11; p++)
		ret += mm_read(mm, page(p), &word, sizeof(word)) == 0;
	expect_eq(ret, -ENOMEM + 8);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	for (uint64_t p = 1; p < 11; p++)
		expect_eq(test_read(mm, page(p)), 1);
	/* One more is one too many again. */
	test_write(mm, page(64), 9);
	expect_eq(mm_read(mm, page(0), &word, sizeof(word)), -ENOMEM);
	expect_eq(test_read(mm, page(64)), 9);
	mmput(mm);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

/* Out it stays, until there is a frame that it can come to. */
TEST(swap, no_frame_for_a_page_of_an_object)
{
	struct phys *phys = test_swap_phys(4, 4);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 1);
	uint64_t word = 7;
	pfn_t taken[4];

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, mapping, 0), 0);
	fill(mm, 0, 1);
	expect(page_goes_out(mm, page(0)));
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		taken[i] = phys_alloc(phys);
		expect_ne(taken[i], INVALID_PFN);
	}
	expect_eq(mm_write(mm, page(0), &word, sizeof(word)), -ENOMEM);
	expect_eq(swap_used(phys), 1);
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		phys_put(phys, taken[i]);
	expect_filled(mm, 0, 1);
	mmput(mm);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

/* The swap file becomes another file, as a disk that fails would. */
static int break_file(struct phys *phys, const char *path, int flags)
{
	int saved = dup(phys->swap.fd), broken = open(path, flags | O_CLOEXEC);

	expect_ge(saved, 0);
	expect_ge(broken, 0);
	expect_ge(dup2(broken, phys->swap.fd), 0);
	close(broken);
	return saved;
}

static void mend_file(struct phys *phys, int saved)
{
	expect_ge(dup2(saved, phys->swap.fd), 0);
	close(saved);
}

TEST(swap, a_page_that_cannot_be_written_stays)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 1);
	struct reclaim_stats stats;
	int saved;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(1), PAGE_SIZE, RW, mapping, 0), 0);
	fill(mm, 0, 2);
	saved = break_file(phys, "/dev/full", O_RDWR);
	expect(!page_goes_out(mm, page(0)));
	expect(!page_goes_out(mm, page(1)));
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_errors, 2);
	expect_eq(stats.swap_out, 0);
	expect_filled(mm, 0, 2);
	mend_file(phys, saved);
	/* Written now, although nobody wrote to it since. */
	expect(page_goes_out(mm, page(0)));
	expect(page_goes_out(mm, page(1)));
	expect_filled(mm, 0, 2);
	mmput(mm);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

TEST(swap, a_page_that_cannot_be_read_is_not_lost)
{
	struct phys *phys = test_swap_phys(8, 16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 1);
	uint64_t word = 1;
	bool writable;
	pfn_t pfn;
	int saved;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(1), PAGE_SIZE, RW, mapping, 0), 0);
	fill(mm, 0, 2);
	expect(page_goes_out(mm, page(0)));
	expect(page_goes_out(mm, page(1)));
	saved = break_file(phys, "/dev/null", O_RDWR); /* too short */
	for (uint64_t i = 0; i < 2; i++) {
		expect_eq(mm_read(mm, page(i), &word, sizeof(word)), -EIO);
		expect_eq(mm_write(mm, page(i), &word, sizeof(word)), -EIO);
		expect_eq(mm_cmpxchg64(mm, page(i), &word, 1), -EIO);
		expect_eq(hva_to_pfn(mm, page(i), false, &pfn, &writable), -EIO);
	}
	expect_eq(phys_nr_free(phys), 8);
	expect_eq(swap_used(phys), 2);
	mend_file(phys, saved);
	expect_filled(mm, 0, 2);
	mmput(mm);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}
