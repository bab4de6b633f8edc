// SPDX-License-Identifier: LGPL-2.1-or-later
/* Growing, shrinking and moving: areas, contents, errors, and a migration meanwhile. */
#include <errno.h>

#include "tests/support/areas.h"
#include "tests/support/fail_alloc.h"

#define P PAGE_SIZE

static int remap(struct mm_struct *mm, uint64_t from, uint64_t old, uint64_t new,
		 unsigned int flags, uint64_t *to)
{
	hva_t at = area_page(*to);
	int ret = mm_mremap(mm, area_page(from), old * P, new *P, flags, &at);

	*to = (at - AREAS_BASE) / P;
	return ret;
}

TEST(mremap, in_place)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct counting_notifier cn = {0};
	uint64_t to = 0;

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(8), P, MM_PROT_READ, NULL, 0), 0);
	stamp_pages(mm, 0, 4, 50);
	counting_register(&cn, mm);
	expect_eq(remap(mm, 0, 4, 4, 0, &to), 0);
	expect_eq(remap(mm, 0, 4, 7, 0, &to), 0);
	expect_areas(mm, "0-7 rw p, 8-9 r- p");
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 0);
	stamp_pages(mm, 4, 7, 50);
	expect_eq(remap(mm, 0, 7, 9, 0, &to), -ENOMEM);
	expect_eq(remap(mm, 4, 3, 1, 0, &to), 0);
	expect_areas(mm, "0-5 rw p, 8-9 r- p");
	expect_eq(to, 4);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 1);
	expect_eq(cn.start, area_page(5));
	expect_eq(cn.end, area_page(7));
	expect_stamps(mm, 0, 5, 50, 0);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_phys_done(phys);
}

/* What it grows up to may be joined to it. */
TEST(mremap, grows_up_to_its_like)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	uint64_t to = 0;

	expect_eq(mm_mmap(mm, area_page(0), 8 * P, RW, NULL, 0), 0);
	expect_eq(mm_munmap(mm, area_page(4), 2 * P), 0);
	expect_areas(mm, "0-4 rw p, 6-8 rw p");
	expect_eq(remap(mm, 0, 4, 6, 0, &to), 0);
	expect_areas(mm, "0-8 rw p");
	mmput(mm);
	test_phys_done(phys);
}

TEST(mremap, moves_pages_and_their_numbers)
{
	struct phys *phys = test_phys(32);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 8);
	struct counting_notifier cn = {0};
	uint64_t to = 20;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(6), 4 * P, RW, mapping, 2), 0);
	stamp_pages(mm, 0, 4, 50);
	stamp_pages(mm, 6, 10, 50);
	counting_register(&cn, mm);
	pfn = mm_lookup_pfn(mm, area_page(1));
	expect_eq(remap(mm, 1, 2, 3, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to), 0);
	expect_areas(mm, "0-1 rw p, 3-4 rw p, 6-10 rw s2, 20-23 rw p");
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 1);
	expect_eq(cn.start, area_page(1));
	expect_eq(cn.end, area_page(3));
	expect_eq(mm_lookup_pfn(mm, area_page(20)), pfn);
	expect_stamps(mm, 20, 22, 50, 19);
	expect_eq(test_read(mm, area_page(22)), 0);
	expect_eq(mm_lookup_pfn(mm, area_page(1)), INVALID_PFN);
	/* They can be found from their frames, where they are now. */
	expect_eq(migrate_frame(phys, pfn), 0);
	expect_ne(mm_lookup_pfn(mm, area_page(20)), pfn);
	expect_stamps(mm, 20, 22, 50, 19);

	to = 7;
	expect_eq(remap(mm, 20, 3, 2, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to), 0);
	expect_areas(mm, "0-1 rw p, 3-4 rw p, 6-7 rw s2, 7-9 rw p, 9-10 rw s5");
	expect_stamps(mm, 7, 9, 50, 6);
	to = 1;
	expect_eq(remap(mm, 7, 2, 2, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to), 0);
	expect_areas(mm, "0-4 rw p, 6-7 rw s2, 9-10 rw s5"); /* back, and one area again */
	expect_stamps(mm, 0, 4, 50, 0);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(mremap, finds_a_place)
{
	struct phys *phys = test_phys(32);
	struct mm_struct *mm = test_mm(phys);
	hva_t at = 0;

	expect_eq(mm_mmap(mm, area_page(0), 2 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(2), P, MM_PROT_READ, NULL, 0), 0);
	stamp_pages(mm, 0, 2, 9);
	expect_eq(mm_mremap(mm, area_page(0), 2 * P, 5 * P, 0, &at), -ENOMEM);
	expect_eq(mm_mremap(mm, area_page(0), 2 * P, 5 * P, MM_MREMAP_MAYMOVE, &at), 0);
	expect_eq(at, MM_MMAP_BASE);
	expect_eq(test_read(mm, at + P), 10);
	expect_eq(mm_mmap(mm, area_page(0), 2 * P, RW, NULL, 0), 0);
	expect_eq(mm_mremap(mm, area_page(0), 2 * P, 3 * P, MM_MREMAP_MAYMOVE, &at), 0);
	expect_eq(at, MM_MMAP_BASE + 5 * P);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mremap, checks_arguments)
{
	struct phys *phys = test_phys(32);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);
	const unsigned int fixed = MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED;
	uint64_t to = 20;
	hva_t at = 0;

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(6), 4 * P, RW, mapping, 0), 0);
	expect_eq(mm_mremap(mm, area_page(0) + 1, P, P, 0, &at), -EINVAL);
	expect_eq(remap(mm, 0, 4, 0, 0, &to), -EINVAL);
	expect_eq(remap(mm, 0, 0, 4, 0, &to), -EINVAL);
	expect_eq(remap(mm, 0, 4, 4, 8, &to), -EINVAL);
	expect_eq(remap(mm, 0, 4, 4, MM_MREMAP_FIXED, &to), -EINVAL);
	to = 3;
	expect_eq(remap(mm, 0, 4, 4, fixed, &to), -EINVAL);
	at = area_page(20) + 1;
	expect_eq(mm_mremap(mm, area_page(0), 4 * P, 4 * P, fixed, &at), -EINVAL);
	expect_eq(remap(mm, 0, 5, 6, MM_MREMAP_MAYMOVE, &to), -EFAULT);
	expect_eq(remap(mm, 4, 1, 2, MM_MREMAP_MAYMOVE, &to), -EFAULT);
	expect_eq(mm_mremap(mm, UINT64_MAX & PAGE_MASK, P, P, 0, &at), -EINVAL);
	expect_eq(remap(mm, 6, 4, 5, MM_MREMAP_MAYMOVE, &to), -EINVAL); /* beyond the object */
	expect_eq(mm_mremap(mm, area_page(0), 4 * P, HVA_MAX, MM_MREMAP_MAYMOVE, &at), -ENOMEM);
	expect_areas(mm, "0-4 rw p, 6-10 rw s0");
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* A move may make three areas of one. */
TEST(mremap, too_many_areas)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	const uint64_t apart = 1UL << 20;
	uint64_t to = 2 * apart;

	expect_eq(mm_mmap(mm, area_page(0), 3 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 0, 3, 50);
	for (uint64_t i = 0; i < MM_MAX_VMAS - 3; i++)
		expect_eq(mm_mmap(mm, area_page(apart + 2 * i), P, RW, NULL, 0), 0);
	expect_eq(remap(mm, 1, 1, 1, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to), -ENOMEM);
	expect_stamps(mm, 0, 3, 50, 0);
	expect_eq(mm_munmap(mm, area_page(apart), P), 0);
	expect_eq(remap(mm, 1, 1, 1, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to), 0);
	expect_eq(test_read(mm, area_page(2 * apart)), 51);
	mmput(mm);
	test_phys_done(phys);
}

#define MOVED 12

struct mover {
	struct phys *phys;
	struct mm_struct *mm;
	atomic_t stop;
	atomic64_t migrated;
};

/* Any frame of the pool, and not by the mm: by reverse map. */
static void migrate(void *arg)
{
	struct mover *m = arg;
	pfn_t pfn = 0;

	while (!atomic_read(&m->stop)) {
		if (migrate_frame(m->phys, pfn) == 0)
			atomic64_inc(&m->migrated);
		pfn = (pfn + 1) % phys_nr_frames(m->phys);
	}
}

/*
 * Moves and migrations of the same pages, many of each. What exactly must not happen is brought
 * about in test_mremap_walk.c.
 */
TEST(mremap, a_walk_finds_what_is_being_moved)
{
	struct phys *phys = test_phys(64);
	struct mover m = {.phys = phys, .mm = test_mm(phys)};
	struct address_space *mapping = test_mapping(phys, MOVED);
	uint64_t places[2] = {0, 40}, rounds = test_volume(1500);
	struct kthread thread;

	expect_eq(mm_mmap(m.mm, area_page(0), MOVED * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(m.mm, area_page(100), MOVED * P, RW, mapping, 0), 0);
	stamp_pages(m.mm, 0, MOVED, 1000);
	stamp_pages(m.mm, 100, 100 + MOVED, 1000);
	expect_eq(kthread_run(&thread, "migrate", migrate, &m), 0);
	for (uint64_t round = 0; round < rounds || atomic64_read(&m.migrated) < 1000; round++) {
		for (uint64_t base = 0; base <= 100; base += 100) {
			uint64_t from = base + places[round % 2], to = base + places[1 - round % 2];

			expect_eq(remap(m.mm, from, MOVED, MOVED,
					MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to),
				  0);
			expect_stamps(m.mm, to, to + MOVED, 1000, (int64_t)(to - base));
		}
	}
	atomic_set(&m.stop, 1);
	kthread_join(&thread);
	mmput(m.mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* A move that finds no memory for its tables gives those back that it has made by then. */
TEST(mremap, a_move_that_fails_leaves_no_table)
{
	const uint64_t far = 1UL << 27; /* in pages: other tables at every level but the root */
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	uint64_t to = far;
	int64_t site = 0, live;
	bool failed;
	int ret;

	expect_eq(mm_mmap(mm, area_page(510), 4 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 510, 514, 50);
	live = atomic64_read(&allocs.live);
	do {
		to = far + 510;
		alloc_fail_at(site++);
		ret = remap(mm, 510, 4, 4, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to);
		failed = alloc_failed();
		if (failed) {
			expect_eq(ret, -ENOMEM);
			expect_eq(atomic64_read(&allocs.live), live);
			expect_areas(mm, "510-514 rw p");
			expect_stamps(mm, 510, 514, 50, 0);
		}
	} while (failed);
	expect_eq(ret, 0);
	expect_ge(site, 6);
	expect_stamps(mm, far + 510, far + 514, 50, far);
	mmput(mm);
	test_phys_done(phys);
}
