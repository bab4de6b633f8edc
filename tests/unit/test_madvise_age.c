// SPDX-License-Identifier: LGPL-2.1-or-later
/* MM_MADV_COLD, PAGEOUT and FREE: which pages they are about, and what becomes of those. */
#include <errno.h>

#include "tests/support/fail_alloc.h"
#include "tests/support/step.h"
#include "tests/support/swap_fixture.h"

#define P PAGE_SIZE

struct rig {
	struct phys *phys;
	struct mm_struct *mm;
	struct counting_notifier cn;
};

/* Private pages [0, 8), page n holding n + 1. */
static void make_rig(struct rig *rig)
{
	*rig = (struct rig){.phys = test_swap_phys(64, 64)};
	rig->mm = test_mm(rig->phys);
	expect_eq(mm_mmap(rig->mm, page(0), 8 * P, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 8; i++)
		test_write(rig->mm, page(i), i + 1);
	counting_register(&rig->cn, rig->mm);
}

static void end_rig(struct rig *rig)
{
	counting_expect_paired(&rig->cn);
	mmu_notifier_unregister(&rig->cn.mn, rig->mm);
	mmput(rig->mm);
	test_swap_phys_done(rig->phys);
}

static struct reclaim_stats stats_of(struct rig *rig)
{
	struct reclaim_stats stats;

	phys_reclaim_stats(rig->phys, &stats);
	return stats;
}

static int64_t nr_windows(struct rig *rig)
{
	return atomic64_read(&rig->cn.starts[MMU_NOTIFY_CLEAR]);
}

static void expect_contents(struct mm_struct *mm)
{
	for (uint64_t i = 0; i < 8; i++)
		expect_eq(test_read(mm, page(i)), i + 1);
}

static void expect_contents_after_free(struct mm_struct *mm, uint64_t nr)
{
	for (uint64_t i = 0; i < 8; i++)
		expect_eq(test_read(mm, page(i)), i < nr ? 0 : i + 1);
}

TEST(madvise_age, cold_pages_go_first)
{
	struct rig rig;

	make_rig(&rig);
	for (uint64_t i = 0; i < 8; i++)
		lru_add(rig.phys, mm_lookup_pfn(rig.mm, page(i)), LRU_ACTIVE);
	expect_eq(mm_madvise(rig.mm, page(2), 3 * P, MM_MADV_COLD), 0);
	expect_eq(stats_of(&rig).nr_inactive, 3);
	expect_eq(nr_windows(&rig), 0);
	for (uint64_t i = 0; i < 8; i++)
		expect_eq(!(entry_of(rig.mm, page(i)) & PTE_ACCESSED), i >= 2 && i < 5);
	expect_eq(phys_reclaim(rig.phys, 3), 3);
	for (uint64_t i = 0; i < 8; i++)
		expect_eq(pte_swap(entry_of(rig.mm, page(i))), i >= 2 && i < 5);
	expect_contents(rig.mm);
	end_rig(&rig);
}

static bool young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mn, (void)mm;
	expect_eq(start, page(1));
	expect_eq(end, page(2));
	return true;
}

/* Secondaries forget, too; what they say does not matter. */
TEST(madvise_age, cold_for_secondaries)
{
	static const struct mmu_notifier_ops ops = {.clear_young = young};
	struct mmu_notifier mn = {.ops = &ops};
	struct frame *frame;
	struct rig rig;

	make_rig(&rig);
	expect_eq(mmu_notifier_register(&mn, rig.mm), 0);
	frame = pfn_to_frame(rig.phys, mm_lookup_pfn(rig.mm, page(1)));
	frame_set(frame, FRAME_REFERENCED);
	expect_eq(mm_madvise(rig.mm, page(1), P, MM_MADV_COLD), 0);
	expect(!frame_test(frame, FRAME_REFERENCED));
	mmu_notifier_unregister(&mn, rig.mm);
	end_rig(&rig);
}

TEST(madvise_age, pageout)
{
	struct address_space *mapping;
	struct mm_struct *mm2;
	struct rig rig;

	make_rig(&rig);
	mapping = test_mapping(rig.phys, 2);
	mm2 = test_mm(rig.phys);
	expect_eq(mm_mmap(rig.mm, page(8), 2 * P, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm2, page(0), P, RW, mapping, 0), 0);
	test_write(rig.mm, page(8), 9);
	test_write(rig.mm, page(9), 10);
	expect_eq(test_read(mm2, page(0)), 9);
	expect_eq(mm_madvise(rig.mm, page(6), 4 * P, MM_MADV_PAGEOUT), 0);
	/* One that another maps, too, stays: page 0 of the object. */
	expect(pte_swap(entry_of(rig.mm, page(6))));
	expect(pte_swap(entry_of(rig.mm, page(7))));
	expect_ne(mm_lookup_pfn(rig.mm, page(8)), INVALID_PFN);
	expect(pte_none(entry_of(rig.mm, page(9))));
	expect_eq(nr_windows(&rig), 3);
	expect_eq(swap_used(rig.phys), 3);
	/* What is out already is no business of it. */
	expect_eq(mm_madvise(rig.mm, page(6), 4 * P, MM_MADV_PAGEOUT), 0);
	expect_eq(stats_of(&rig).reclaimed, 3);
	expect_eq(test_read(rig.mm, page(9)), 10);
	expect_contents(rig.mm);
	mmput(mm2);
	mmu_notifier_unregister(&rig.cn.mn, rig.mm);
	mmput(rig.mm);
	address_space_put(mapping);
	test_swap_phys_done(rig.phys);
}

TEST(madvise_age, free)
{
	struct rig rig;

	make_rig(&rig);
	expect_eq(mm_madvise(rig.mm, page(0), 4 * P, MM_MADV_FREE), 0);
	expect_eq(nr_windows(&rig), 1);
	expect_eq(rig.cn.start, page(0));
	expect_eq(rig.cn.end, page(4));
	/* As long as there is room nothing happens, and whoever writes takes the page back. */
	expect_contents(rig.mm);
	expect_eq(mm_madvise(rig.mm, page(0), 4 * P, MM_MADV_FREE), 0);
	test_write(rig.mm, page(1), 22);
	expect_eq(phys_reclaim(rig.phys, 3), 3);
	expect_eq(stats_of(&rig).lazyfreed, 3);
	expect_eq(stats_of(&rig).swap_out, 0);
	for (uint64_t i = 0; i < 4; i++) {
		expect_eq(pte_none(entry_of(rig.mm, page(i))), i != 1);
		expect_eq(test_read(rig.mm, page(i)), i == 1 ? 22 : 0);
	}
	for (uint64_t i = 4; i < 8; i++)
		expect_eq(test_read(rig.mm, page(i)), i + 1);
	/* That one is a page like any other again. */
	expect(page_goes_out(rig.mm, page(1)));
	expect_eq(stats_of(&rig).swap_out, 1);
	expect_eq(test_read(rig.mm, page(1)), 22);
	end_rig(&rig);
}

/* Once it was written it is a page like any other, also when its entry is clean again, as it is
 * when it comes back. */
TEST(madvise_age, written_after_free)
{
	struct rig rig;
	pfn_t pfn;

	make_rig(&rig);
	expect_eq(mm_madvise(rig.mm, page(0), P, MM_MADV_FREE), 0);
	test_write(rig.mm, page(0), 22);
	pfn = mm_lookup_pfn(rig.mm, page(0));
	phys_get(rig.phys, pfn);
	expect(!page_goes_out(rig.mm, page(0)));
	phys_put(rig.phys, pfn);
	expect_eq(test_read(rig.mm, page(0)), 22);
	expect(!(entry_of(rig.mm, page(0)) & PTE_DIRTY));
	expect(page_goes_out(rig.mm, page(0)));
	expect_eq(test_read(rig.mm, page(0)), 22);
	expect_eq(stats_of(&rig).lazyfreed, 0);
	end_rig(&rig);
}

/* With no swap file these are the only private pages that can go. */
TEST(madvise_age, free_without_swap)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	uint64_t word = 1;

	expect_eq(mm_mmap(mm, page(0), 16 * P, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 8; i++)
		test_write(mm, page(i), i + 1);
	expect_eq(mm_write(mm, page(8), &word, sizeof(word)), -ENOMEM);
	expect_eq(mm_madvise(mm, page(0), 4 * P, MM_MADV_FREE), 0);
	expect_eq(phys_reclaim(phys, 1), 1);
	for (uint64_t i = 8; i < 12; i++)
		test_write(mm, page(i), i + 1);
	expect_eq(mm_write(mm, page(12), &word, sizeof(word)), -ENOMEM);
	for (uint64_t i = 4; i < 12; i++)
		expect_eq(test_read(mm, page(i)), i + 1);
	mmput(mm);
	test_phys_done(phys);
}

TEST(madvise_age, free_of_what_is_out)
{
	struct rig rig;

	make_rig(&rig);
	expect_eq(mm_madvise(rig.mm, page(0), 2 * P, MM_MADV_PAGEOUT), 0);
	expect_eq(swap_used(rig.phys), 2);
	expect_eq(mm_madvise(rig.mm, page(0), 2 * P, MM_MADV_FREE), 0);
	expect_eq(swap_used(rig.phys), 0);
	expect_eq(test_read(rig.mm, page(0)), 0);
	/* Out and in again: the page is as good as written, until it is given up. */
	test_write(rig.mm, page(0), 5);
	expect(page_goes_out(rig.mm, page(0)));
	expect_eq(test_read(rig.mm, page(0)), 5);
	expect_eq(mm_madvise(rig.mm, page(0), P, MM_MADV_FREE), 0);
	expect_eq(phys_reclaim(rig.phys, 1), 1);
	expect_eq(test_read(rig.mm, page(0)), 0);
	end_rig(&rig);
}

TEST(madvise_age, free_leaves_to_others_what_is_theirs)
{
	struct address_space *mapping;
	struct mm_struct *child = NULL;
	struct rig rig;
	pfn_t pfn;

	make_rig(&rig);
	mapping = test_mapping(rig.phys, 4);
	expect_eq(mm_mmap(rig.mm, page(8), 2 * P, RW, mapping, 0), 0);
	expect_eq(mm_mmap_flags(rig.mm, page(10), 2 * P, RW, MM_MAP_PRIVATE, mapping, 0), 0);
	expect_eq(mm_madvise(rig.mm, page(8), P, MM_MADV_FREE), -EINVAL);
	expect_eq(mm_madvise(rig.mm, page(10), P, MM_MADV_FREE), -EINVAL);

	expect_eq(mm_pin_page(rig.mm, page(7), true, &pfn), 0);
	expect_eq(mm_fork(rig.mm, &child), 0);
	expect(page_goes_out(rig.mm, page(0)));
	expect(page_goes_out(rig.mm, page(1)));
	expect_eq(test_read(rig.mm, page(1)), 2); /* in the cache, and out for the child */
	expect_eq(mm_madvise(rig.mm, page(0), 8 * P, MM_MADV_FREE), 0);
	phys_reclaim(rig.phys, 64);
	expect_eq(stats_of(&rig).lazyfreed, 0);
	expect_eq(test_read(rig.mm, page(0)), 0);
	for (uint64_t i = 1; i < 8; i++)
		expect_eq(test_read(rig.mm, page(i)), i + 1);
	expect_contents(child);
	mm_unpin_page(rig.mm, pfn, true);
	mmput(child);
	mmu_notifier_unregister(&rig.cn.mn, rig.mm);
	mmput(rig.mm);
	address_space_put(mapping);
	test_swap_phys_done(rig.phys);
}

/* A child that comes after has what is there, until it is dropped: from both, or neither. */
TEST(madvise_age, free_and_then_a_fork)
{
	struct mm_struct *child = NULL;
	struct rig rig;

	make_rig(&rig);
	expect_eq(mm_madvise(rig.mm, page(0), 2 * P, MM_MADV_FREE), 0);
	expect_eq(mm_fork(rig.mm, &child), 0);
	test_write(child, page(1), 7);
	expect_eq(phys_reclaim(rig.phys, 2), 2);
	expect_eq(stats_of(&rig).lazyfreed, 2);
	expect_eq(test_read(rig.mm, page(0)), 0);
	expect_eq(test_read(child, page(0)), 0);
	expect_eq(test_read(rig.mm, page(1)), 0);
	expect_eq(test_read(child, page(1)), 7);
	mmput(child);
	end_rig(&rig);
}

/* What is allocated along the way is given back: asked the second time, when all that is kept for
 * good is there. */
TEST(madvise_age, leaves_nothing)
{
	int64_t live = 0;

	for (int round = 0; round < 3; round++) {
		struct rig rig;

		make_rig(&rig);
		expect_eq(mm_madvise(rig.mm, page(0), 4 * P, MM_MADV_FREE), 0);
		expect_eq(phys_reclaim(rig.phys, 6), 6);
		expect_contents_after_free(rig.mm, 4);
		end_rig(&rig);
		if (round == 2)
			expect_eq(atomic64_read(&allocs.live), live);
		live = atomic64_read(&allocs.live);
	}
}

struct stepped {
	struct step step;
	struct mm_struct *mm;
	unsigned int at;
	bool tried;
	uint64_t seen; /* what was there when it was given up */
};

static void free_here(struct step *step)
{
	struct stepped *s = step->arg;

#ifdef CONFIG_LOCKDEP
	/* Not within lock checking, which would not see our locks. */
	if (current_thread()->lockdep_busy)
		return;
#endif
	if (s->tried || step->nr < s->at)
		return;
	s->at = step->nr;
	s->tried = step->over = true;
	s->seen = *(uint64_t *)phys_map(mm_phys(s->mm), mm_lookup_pfn(s->mm, page(0)));
	expect_eq(mm_madvise(s->mm, page(0), P, MM_MADV_FREE), 0);
}

/* A write that is not over when the page is given up takes it back. Without the look at pins in
 * give_up_page() the store is dropped with the page, after it was done. */
TEST(madvise_age, a_write_that_is_under_way)
{
	struct stepped s = {.step = {.at_each = free_here, .arg = &s}};
	struct phys *phys;
	uint64_t word = 2;
	unsigned int nr[3] = {0};

	step_skip();
	phys = test_swap_phys(8, 8);
	s.mm = test_mm(phys);
	expect_eq(mm_mmap(s.mm, page(0), P, RW, NULL, 0), 0);
	do {
		test_write(s.mm, page(0), 1);
		s.tried = false;
		step_begin(&s.step);
		mm_write(s.mm, page(0), &word, sizeof(word));
		step_end();
		if (s.tried) {
			expect(page_goes_out(s.mm, page(0)));
			word = test_read(s.mm, page(0));
			/* If the store was done already, it may be given up with the page. */
			expect(word == 2 || (word == 0 && s.seen == 2));
			word = 2;
			nr[s.seen]++;
		}
		s.at += test_long() ? 3 : 29;
	} while (s.tried);
	expect_ge(nr[1], 5);
	expect_ge(nr[2], 1);
	mmput(s.mm);
	test_swap_phys_done(phys);
}
