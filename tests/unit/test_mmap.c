// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Mapping and unmapping: what areas there are afterwards, what notifiers are told, what becomes of
 * pages and tables.
 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/areas.h"
#include "tests/support/asleep.h"
#include "tests/support/park.h"

#define P PAGE_SIZE

TEST(mmap, neighbours_are_one_area)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 8);

	expect_eq(mm_mmap(mm, area_page(0), 2 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(4), 2 * P, RW, NULL, 0), 0);
	expect_areas(mm, "0-2 rw p, 4-6 rw p");
	/* What closes the gap is of one family with the lower; the upper has its own. */
	expect_eq(mm_mmap(mm, area_page(2), 2 * P, RW, NULL, 0), 0);
	expect_areas(mm, "0-4 rw p, 4-6 rw p");
	expect_eq(mm_mmap(mm, area_page(6), P, MM_PROT_READ, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(10), P, RW, mapping, 3), 0);
	expect_eq(mm_mmap(mm, area_page(11), P, RW, mapping, 4), 0);
	expect_eq(mm_mmap(mm, area_page(12), P, RW, mapping, 6), 0);
	expect_eq(mm_mmap_flags(mm, area_page(13), P, RW, MM_MAP_PRIVATE, mapping, 7), 0);
	expect_areas(mm, "0-4 rw p, 4-6 rw p, 6-7 r- p, 10-12 rw s3, 12-13 rw s6, 13-14 rw p7");
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(mmap, fixed_takes_the_place_of_what_is_there)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 8);
	struct counting_notifier cn = {0};

	expect_eq(mm_mmap(mm, area_page(0), 6 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 0, 6, 100);
	counting_register(&cn, mm);
	expect_eq(mm_mmap_flags(mm, area_page(2), 2 * P, RW, 0, mapping, 0), -EEXIST);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 0);
	expect_eq(mm_mmap_flags(mm, area_page(2), 2 * P, RW, MM_MAP_FIXED, mapping, 0), 0);
	expect_areas(mm, "0-2 rw p, 2-4 rw s0, 4-6 rw p");
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 1);
	expect_eq(cn.start, area_page(2));
	expect_eq(cn.end, area_page(4));
	expect_stamps(mm, 0, 2, 100, 0);
	expect_eq(test_read(mm, area_page(2)), 0);
	expect_stamps(mm, 4, 6, 100, 0);
	/* In free space there is nothing to tell. */
	expect_eq(mm_mmap_flags(mm, area_page(8), P, RW, MM_MAP_FIXED | MM_MAP_PRIVATE, NULL, 0),
		  0);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 1);
	expect_eq(mm_mmap_flags(mm, area_page(9), P, RW, 0, NULL, 0), -EINVAL);
	expect_eq(mm_mmap_flags(mm, area_page(9), P, RW, 0x80, mapping, 0), -EINVAL);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(mmap, munmap_splits)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct counting_notifier cn = {0};

	expect_eq(mm_mmap(mm, area_page(0), 8 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(10), 2 * P, MM_PROT_READ, NULL, 0), 0);
	stamp_pages(mm, 0, 8, 1);
	counting_register(&cn, mm);
	expect_eq(mm_munmap(mm, area_page(2), 2 * P - 7), 0);
	expect_areas(mm, "0-2 rw p, 4-8 rw p, 10-12 r- p");
	expect_eq(cn.start, area_page(2));
	expect_eq(cn.end, area_page(4));
	expect_eq(phys_nr_free(phys), 16 - 6);
	expect_eq(mm_read(mm, area_page(3), &cn, 1), -EFAULT);
	expect_stamps(mm, 4, 8, 1, 0);
	/* Over areas and holes: one window. */
	expect_eq(mm_munmap(mm, area_page(7), 4 * P), 0);
	expect_areas(mm, "0-2 rw p, 4-7 rw p, 11-12 r- p");
	expect_eq(cn.start, area_page(7));
	expect_eq(cn.end, area_page(11));
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 2);
	/* Nothing there: nothing to tell. */
	expect_eq(mm_munmap(mm, area_page(2), 2 * P), 0);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_UNMAP]), 2);
	/* What fell apart grows together. */
	expect_eq(mm_mmap(mm, area_page(2), 2 * P, RW, NULL, 0), 0);
	expect_areas(mm, "0-7 rw p, 11-12 r- p");
	expect_eq(test_read(mm, area_page(2)), 0);
	expect_stamps(mm, 4, 7, 1, 0);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mmap, munmap_checks_arguments)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, area_page(0), P, RW, NULL, 0), 0);
	expect_eq(mm_munmap(mm, area_page(0) + 8, P), -EINVAL);
	expect_eq(mm_munmap(mm, area_page(0), 0), -EINVAL);
	expect_eq(mm_munmap(mm, area_page(0), -P), -EINVAL);
	expect_eq(mm_munmap(mm, HVA_MAX, P), -EINVAL);
	expect_eq(mm_munmap(mm, area_page(0), UINT64_MAX), -EINVAL);
	expect_areas(mm, "0-1 rw p");
	expect_eq(mm_munmap(mm, 0, HVA_MAX), 0);
	expect_areas(mm, "");
	mmput(mm);
	test_phys_done(phys);
}

/* As Linux: a process has at most so many areas, and a split that goes beyond fails first. */
TEST(mmap, too_many_areas)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);

	for (uint64_t i = 0; i < MM_MAX_VMAS - 1; i++)
		expect_eq(mm_mmap(mm, area_page(2 * i), P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, AREAS_BASE + (1UL << 40), 3 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, AREAS_BASE + (1UL << 41), P, RW, NULL, 0), -ENOMEM);
	expect_eq(mm_munmap(mm, AREAS_BASE + (1UL << 40) + P, P), -ENOMEM);
	expect_eq(mm_mprotect(mm, AREAS_BASE + (1UL << 40) + P, P, MM_PROT_READ), -ENOMEM);
	test_write(mm, AREAS_BASE + (1UL << 40) + P, 7);
	expect_eq(mm_munmap(mm, area_page(0), P), 0);
	expect_eq(mm_munmap(mm, AREAS_BASE + (1UL << 40) + P, P), 0);
	mmput(mm);
	test_phys_done(phys);
}

/* ---- tables ---- */

static bool has_table(struct mm_struct *mm, hva_t hva)
{
	return pgtable_lookup(mm->pgtable, hva);
}

#define LEAF (1UL << 21) /* what a table of entries covers */

TEST(mmap, tables_go_with_the_last_area_in_them)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	const hva_t base = 16 * LEAF;

	expect_eq(mm_mmap(mm, base, P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, base + LEAF - P, 2 * LEAF, RW, NULL, 0), 0);
	for (hva_t at = base; at < base + 3 * LEAF; at += LEAF - P)
		test_write(mm, at, 1);
	expect(has_table(mm, base) && has_table(mm, base + LEAF) && has_table(mm, base + 2 * LEAF));
	expect_eq(mm_munmap(mm, base + LEAF - P, 2 * LEAF), 0);
	expect(has_table(mm, base) && !has_table(mm, base + LEAF) &&
	       !has_table(mm, base + 2 * LEAF));
	expect_eq(mm_munmap(mm, base, P), 0);
	expect(!has_table(mm, base));
	mmput(mm);
	test_phys_done(phys);
}

struct unmapper {
	struct mm_struct *mm;
	hva_t hva;
	atomic_t tid, done;
};

static void unmap(void *arg)
{
	struct unmapper *u = arg;

	atomic_set_release(&u->tid, (int)syscall(SYS_gettid));
	expect_eq(mm_munmap(u->mm, u->hva, P), 0);
	atomic_set_release(&u->done, 1);
}

/* The ladder of pgtable.c: who stands on an entry of a table keeps the table, and nothing else. */
TEST(mmap, tables_wait_for_those_who_look)
{
	struct phys *phys = test_phys(4);
	struct unmapper u = {.mm = test_mm(phys), .hva = 16 * LEAF};
	struct kthread thread;
	pte_t *ptep;
	int idx;

	expect_eq(mm_mmap(u.mm, u.hva, P, RW, NULL, 0), 0);
	test_write(u.mm, u.hva, 1);
	idx = pgtable_read_lock();
	ptep = pgtable_lookup(u.mm->pgtable, u.hva);
	expect_eq(kthread_run(&thread, "unmap", unmap, &u), 0);
	while (!atomic_read_acquire(&u.tid))
		sched_yield();
	until_asleep(atomic_read(&u.tid));
	expect(!atomic_read(&u.done));
	expect_eq(pte_load(ptep), 0);
	/* mmap_lock is free: the area is gone, and there may be another. */
	expect_eq(mm_mmap(u.mm, u.hva, P, RW, NULL, 0), 0);
	test_write(u.mm, u.hva, 2);
	expect_eq(pte_load(ptep), 0);
	pgtable_read_unlock(idx);
	kthread_join(&thread);
	expect_eq(test_read(u.mm, u.hva), 2);
	mmput(u.mm);
	test_phys_done(phys);
}

struct lookers {
	struct mm_struct *mm;
	atomic_t stop, looks;
};

static void look(void *arg)
{
	struct lookers *l = arg;
	uint64_t word;

	while (!atomic_read(&l->stop)) {
		for (unsigned int i = 0; i < 8; i++) {
			int ret = mm_read64_atomic(l->mm, 16 * LEAF + i * LEAF, &word);

			expect(ret == -EAGAIN || (ret == 0 && word <= i));
		}
		atomic_inc(&l->looks);
	}
}

/* Without the section in mm_access.c a table is read after it was freed (asan). */
TEST(mmap, tables_go_and_come_under_those_who_look)
{
	struct phys *phys = test_phys(64);
	struct lookers l = {.mm = test_mm(phys)};
	struct kthread threads[2];
	uint64_t rounds = test_volume(2000);

	for (unsigned int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "look", look, &l), 0);
	for (uint64_t round = 0; round < rounds || atomic_read(&l.looks) < 1000; round++) {
		uint64_t i = round % 8;

		expect_eq(mm_mmap(l.mm, 16 * LEAF + i * LEAF, P, RW, NULL, 0), 0);
		test_write(l.mm, 16 * LEAF + i * LEAF, i);
		expect_eq(mm_munmap(l.mm, 16 * LEAF + i * LEAF, P), 0);
	}
	atomic_set(&l.stop, 1);
	for (unsigned int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	mmput(l.mm);
	test_phys_done(phys);
}
