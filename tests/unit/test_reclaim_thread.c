// SPDX-License-Identifier: LGPL-2.1-or-later
/* The thread: when it works, when it stops, and when it gives up. */
#include <errno.h>
#include <unistd.h>

#include "tests/support/asleep.h"
#include "tests/support/park.h"
#include "tests/support/swap_fixture.h"
#include "tests/support/syscall_filter.h"

static void wait_for_free(struct phys *phys, uint64_t nr)
{
	wait_event(phys->reclaim.freed, phys_nr_free(phys) >= nr);
}

TEST(reclaim_thread, starts_and_stops)
{
	struct phys *phys = test_phys(64);

	phys_reclaim_stop(phys);
	for (int i = 0; i < 10; i++) {
		expect_eq(phys_reclaim_start(phys), 0);
		expect_eq(phys_reclaim_start(phys), -EBUSY);
		phys_reclaim_stop(phys);
	}
	test_phys_done(phys);
}

struct stopper {
	struct phys *phys;
	struct park park;
	atomic_t tid, stopped;
};

static void stay(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct stopper *stopper = cn->arg;

	(void)range;
	cn->on_start = NULL;
	park_enter(&stopper->park);
}

static void stop(void *arg)
{
	struct stopper *stopper = arg;

	atomic_set(&stopper->tid, gettid());
	phys_reclaim_stop(stopper->phys);
	atomic_set(&stopper->stopped, 1);
}

/* Whoever stops it may free what it works on: so it has ended by then. */
TEST(reclaim_thread, is_waited_for)
{
	struct stopper stopper = {.phys = test_swap_phys(64, 64)};
	struct counting_notifier cn = {.on_start = stay, .arg = &stopper};
	struct mm_struct *mm = test_mm(stopper.phys);
	struct kthread thread;

	park_init(&stopper.park);
	expect_eq(mm_mmap(mm, page(0), 64 * PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&cn, mm);
	expect_eq(phys_reclaim_start(stopper.phys), 0);
	for (uint64_t i = 0; i < 64 - 1; i++)
		test_write(mm, page(i), i);
	park_wait(&stopper.park, 1);
	expect_eq(kthread_run(&thread, "stop", stop, &stopper), 0);
	while (!atomic_read(&stopper.tid) || !atomic_read(&stopper.phys->reclaim.stop))
		sync_yield();
	until_asleep(atomic_read(&stopper.tid));
	expect_eq(atomic_read(&stopper.stopped), 0);
	park_release(&stopper.park);
	kthread_join(&thread);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_swap_phys_done(stopper.phys);
}

TEST(reclaim_thread, without_a_thread)
{
	struct phys *phys;

#ifdef __SANITIZE_ADDRESS__
	skip("AddressSanitizer's look for leaks begins with a clone");
#endif
	phys = test_phys(64);
	filter_syscall(SYS_clone3, SECCOMP_RET_ERRNO | EAGAIN);
	filter_syscall(SYS_clone, SECCOMP_RET_ERRNO | EAGAIN);
	expect_eq(phys_reclaim_start(phys), -EAGAIN);
	phys_reclaim_stop(phys);
	test_phys_done(phys);
}

/* Nobody who takes frames ever has to reclaim: it is done before, from low to high. */
TEST(reclaim_thread, works_from_low_to_high)
{
	struct phys *phys = test_swap_phys(2048, 8192);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;
	uint64_t low, high;

	phys_reclaim_stats(phys, &stats);
	low = stats.low;
	high = stats.high;
	/* One that ran before, and one that had given up, make no difference. */
	expect_eq(phys_reclaim_start(phys), 0);
	phys_reclaim_stop(phys);
	atomic_set(&phys->reclaim.failures, RECLAIM_TRIES);
	expect_eq(phys_reclaim_start(phys), 0);
	expect_eq(mm_mmap(mm, page(0), 8192 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 2048 - low; i++)
		test_write(mm, page(i), i);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.wakeups, 0);
	atomic_set(&phys->reclaim.failures, RECLAIM_TRIES - 1);
	for (uint64_t i = 2048 - low; i < 4096; i++) {
		test_write(mm, page(i), i);
		if (phys_nr_free(phys) < low)
			wait_for_free(phys, high);
	}
	while (atomic_read(&phys->reclaim.failures))
		sync_yield();
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.direct_reclaims, 0);
	expect_ge(stats.wakeups, 1);
	expect_ge(stats.reclaimed, 2048);
	expect_ge(stats.reclaimed, stats.wakeups * (high - low));
	for (uint64_t i = 0; i < 4096; i++) {
		expect_eq(test_read(mm, page(i)), i);
		if (phys_nr_free(phys) < low)
			wait_for_free(phys, high);
	}
	phys_reclaim_stop(phys);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* Without swap there is nothing that it could do; with it, and somebody's progress, there is. */
TEST(reclaim_thread, gives_up_and_begins_again)
{
	struct phys *phys = test_phys(2048);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;
	uint64_t low, high, i, word = 1;

	phys_reclaim_stats(phys, &stats);
	low = stats.low;
	high = stats.high;
	expect_eq(phys_reclaim_start(phys), 0);
	expect_eq(mm_mmap(mm, page(0), 8192 * PAGE_SIZE, RW, NULL, 0), 0);
	for (i = 0; phys_nr_free(phys) >= low; i++)
		test_write(mm, page(i), i);
	while (atomic_read(&phys->reclaim.failures) < RECLAIM_TRIES)
		sync_yield();
	for (int n = 0; n < 8; n++)
		test_write(mm, page(i++), 1);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.wakeups, RECLAIM_TRIES);
	expect_eq(stats.reclaimed, 0);

	expect_eq(phys_swap_on(phys, "/tmp", 8192), 0);
	do {
		expect_eq(mm_write(mm, page(i++), &word, sizeof(word)), 0);
		phys_reclaim_stats(phys, &stats);
	} while (!stats.direct_reclaims);
	test_write(mm, page(i++), 1);
	wait_for_free(phys, high);
	phys_reclaim_stop(phys);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* Whoever takes page tables where nobody can wait finds frames, since the thread is told of it. */
TEST(reclaim_thread, is_woken_by_whoever_takes_a_frame)
{
	struct phys *phys = test_swap_phys(2048, 8192);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;
	pfn_t pfn[512];

	phys_reclaim_stats(phys, &stats);
	expect_eq(phys_reclaim_start(phys), 0);
	expect_eq(mm_mmap(mm, page(0), 8192 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 2048 - stats.low; i++)
		test_write(mm, page(i), i);
	for (int n = 0; n < 512; n++) {
		pfn[n] = phys_alloc(phys);
		expect_ne(pfn[n], INVALID_PFN);
		if (phys_nr_free(phys) < stats.low)
			wait_for_free(phys, stats.high);
	}
	for (int n = 0; n < 512; n++)
		phys_put(phys, pfn[n]);
	phys_reclaim_stop(phys);
	mmput(mm);
	test_swap_phys_done(phys);
}
