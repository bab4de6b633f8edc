/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mm_take_all_locks: every reverse-map lock, each once, and no window open meanwhile.
 */
#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"

#define BASE 0x40000000UL

static hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

static void expect_locked(struct rw_semaphore *lock, bool locked)
{
	bool got = down_write_trylock(lock);

	expect_eq(got, !locked);
	if (got)
		up_write(lock);
}

TEST(mm_locks, takes_each_lock_once)
{
	struct phys *phys = test_phys(1);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *a = test_mapping(phys, 8), *b = test_mapping(phys, 8);
	struct address_space *unmapped = test_mapping(phys, 8);

	/* a three times, b twice, two private ones, in turns. */
	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, a, 0), 0);
	expect_eq(mm_mmap(mm, page(1), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(2), PAGE_SIZE, RW, b, 1), 0);
	expect_eq(mm_mmap(mm, page(3), PAGE_SIZE, RW, a, 0), 0);
	expect_eq(mm_mmap(mm, page(4), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(5), PAGE_SIZE, RW, b, 1), 0);
	expect_eq(mm_mmap(mm, page(6), PAGE_SIZE, RW, a, 7), 0);

	mmap_write_lock(mm);
	for (int round = 0; round < 3; round++) {
		struct anon_vma *private[2] = {find_vma(mm, page(1))->anon_vma,
					       find_vma(mm, page(4))->anon_vma};

		expect_eq(mm_take_all_locks(mm), 0);
		expect_locked(&a->i_mmap_rwsem, true);
		expect_locked(&b->i_mmap_rwsem, true);
		expect_locked(&unmapped->i_mmap_rwsem, false);
		expect_locked(&private[0] -> rwsem, true);
		expect_locked(&private[1] -> rwsem, true);
		mm_drop_all_locks(mm);
		expect_locked(&a->i_mmap_rwsem, false);
		expect_locked(&b->i_mmap_rwsem, false);
		expect_locked(&private[0] -> rwsem, false);
		expect_locked(&private[1] -> rwsem, false);
		expect(!a->all_locked && !b->all_locked && !private[0] -> all_locked);
	}
	mmap_write_unlock(mm);
	mmput(mm);
	address_space_put(a);
	address_space_put(b);
	address_space_put(unmapped);
	test_phys_done(phys);
}

TEST(mm_locks, empty_and_crowded)
{
	struct phys *phys = test_phys(1);
	struct mm_struct *mm = test_mm(phys);

	mmap_write_lock(mm);
	expect_eq(mm_take_all_locks(mm), 0);
	mm_drop_all_locks(mm);
	mmap_write_unlock(mm);

	for (uint64_t i = 0; i < 1000; i++)
		expect_eq(mm_mmap(mm, page(2 * i), PAGE_SIZE, RW, NULL, 0), 0);
	mmap_write_lock(mm);
	expect_eq(mm_take_all_locks(mm), 0);
	expect_locked(&find_vma(mm, page(0))->anon_vma->rwsem, true);
	expect_locked(&find_vma(mm, page(1998))->anon_vma->rwsem, true);
	mm_drop_all_locks(mm);
	mmap_write_unlock(mm);
	mmput(mm);
	test_phys_done(phys);
}

struct lock_race {
	struct phys *phys;
	struct mm_struct *mm[2];
	struct counting_notifier cn;
	atomic_t next_taker, stop;
	uint64_t goal;
	atomic64_t taken;
	uint64_t inside; /* plain: takers exclude each other, on different mms too */
};

static void taker(void *arg)
{
	struct lock_race *r = arg;
	struct mm_struct *mm = r->mm[atomic_fetch_add(1, &r->next_taker) & 1];

	for (uint64_t i = 0; i < r->goal; i++) {
		mmap_write_lock(mm);
		expect_eq(mm_take_all_locks(mm), 0);
		r->inside++;
		mm_drop_all_locks(mm);
		mmap_write_unlock(mm);
		atomic64_inc(&r->taken);
	}
}

/* Two mms map the same objects, in opposite order. */
TEST(mm_locks, takers_do_not_deadlock)
{
	struct lock_race r = {.phys = test_phys(1), .goal = test_volume(5000)};
	struct address_space *a = test_mapping(r.phys, 1), *b = test_mapping(r.phys, 1);

	for (int i = 0; i < 2; i++) {
		r.mm[i] = test_mm(r.phys);
		expect_eq(mm_mmap(r.mm[i], page(0), PAGE_SIZE, RW, i ? b : a, 0), 0);
		expect_eq(mm_mmap(r.mm[i], page(1), PAGE_SIZE, RW, i ? a : b, 0), 0);
	}
	test_threads(4, taker, &r);
	expect_eq(atomic64_read(&r.taken), 4 * r.goal);
	expect_eq(r.inside, 4 * r.goal);
	mmput(r.mm[0]);
	mmput(r.mm[1]);
	address_space_put(a);
	address_space_put(b);
	test_phys_done(r.phys);
}

#define RACED_PAGES 16

static void open_windows_by_frame(void *arg)
{
	struct lock_race *r = arg;

	for (pfn_t pfn = 0; !atomic_read(&r->stop); pfn = (pfn + 1) % phys_nr_frames(r->phys))
		migrate_frame(r->phys, pfn);
}

static void open_windows_by_range(void *arg)
{
	struct lock_race *r = arg;

	for (uint64_t n = 0; !atomic_read(&r->stop); n++) {
		for (uint64_t i = 0; i < 2 * RACED_PAGES; i++)
			test_increment(r->mm[0], page(i));
		if (n & 1)
			expect_ge(mm_zap_range(r->mm[0], page(0), RACED_PAGES * PAGE_SIZE), 0);
		else
			expect_ge(mm_migrate_range(r->mm[0], page(0), 2 * RACED_PAGES * PAGE_SIZE),
				  0);
	}
}

static uint64_t windows(const struct lock_race *r)
{
	return atomic64_read(&r->cn.starts[MMU_NOTIFY_CLEAR]) +
	       atomic64_read(&r->cn.starts[MMU_NOTIFY_MIGRATE]);
}

/* With all locks held no window is open, and none opens (N-72). */
TEST(mm_locks, no_window_is_open_meanwhile)
{
	struct lock_race r = {.phys = test_phys(4 * RACED_PAGES), .goal = test_volume(2000)};
	struct address_space *mapping = test_mapping(r.phys, RACED_PAGES);
	struct kthread threads[2];
	uint64_t held, windows_between = 0, last;

	r.mm[0] = test_mm(r.phys);
	expect_eq(mm_mmap(r.mm[0], page(0), RACED_PAGES * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(r.mm[0], page(RACED_PAGES), RACED_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&r.cn, r.mm[0]);
	expect_eq(kthread_run(&threads[0], "frames", open_windows_by_frame, &r), 0);
	expect_eq(kthread_run(&threads[1], "ranges", open_windows_by_range, &r), 0);

	/* Until the two sides have met often enough. */
	last = 0;
	for (held = 0; held < r.goal || windows_between < 50; held++) {
		uint64_t before;

		mmap_write_lock(r.mm[0]);
		expect_eq(mm_take_all_locks(r.mm[0]), 0);
		before = windows(&r);
		windows_between += before != last;
		expect_eq(atomic64_read(&r.cn.open), 0);
		for (int i = 0; i < 100; i++)
			cpu_relax();
		expect_eq(windows(&r), before);
		expect_eq(atomic64_read(&r.cn.open), 0);
		last = before;
		mm_drop_all_locks(r.mm[0]);
		mmap_write_unlock(r.mm[0]);
	}
	atomic_set(&r.stop, 1);
	kthread_join(&threads[0]);
	kthread_join(&threads[1]);

	counting_expect_paired(&r.cn);
	mmu_notifier_unregister(&r.cn.mn, r.mm[0]);
	mmput(r.mm[0]);
	address_space_put(mapping);
	test_phys_done(r.phys);
}
