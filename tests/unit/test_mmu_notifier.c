/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The notifier core: who is called, in which order, how often, and what has already happened when
 * an unregister returns. Exit is in test_mmu_notifier_exit.c.
 */
#include "tests/support/notifier_fixture.h"

TEST(mmu_notifier, register_and_unregister)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	expect(!mm_has_notifiers(h.mm));
	window(h.mm);

	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	expect(mm_has_notifiers(h.mm));
	expect(r.mn.mm == h.mm);
	expect_counts(&r, 0, 0, 0);
	window(h.mm);
	window(h.mm);
	expect_counts(&r, 2, 2, 0);

	mmu_notifier_unregister(&r.mn, h.mm);
	expect_counts(&r, 2, 2, 1);
	window(h.mm);
	memset(&r, 0xee, sizeof(r)); /* ours again */
	window(h.mm);
	host_destroy(&h);
}

TEST(mmu_notifier, register_again)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	for (int i = 1; i <= 3; i++) {
		expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
		window(h.mm);
		mmu_notifier_unregister(&r.mn, h.mm);
		expect_counts(&r, i, i, i);
	}
	host_destroy(&h);
}

TEST(mmu_notifier, register_with_mmap_lock_held)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	mmap_write_lock(h.mm);
	expect_eq(__mmu_notifier_register(&r.mn, h.mm), 0);
	mmap_write_unlock(h.mm);
	window(h.mm);
	expect_counts(&r, 1, 1, 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* Newest first, starts as well as ends; whoever leaves leaves the others in order. */
TEST(mmu_notifier, order_of_calls)
{
	struct recorder r[3];
	char log[32] = "";
	struct host h;

	host_init(&h);
	for (int i = 0; i < 3; i++) {
		recorder_init(&r[i], 'a' + i, log);
		expect_eq(mmu_notifier_register(&r[i].mn, h.mm), 0);
	}
	window(h.mm);
	expect_str_eq(log, "cbacba");

	mmu_notifier_unregister(&r[1].mn, h.mm);
	log[0] = '\0';
	window(h.mm);
	expect_str_eq(log, "caca");

	mmu_notifier_unregister(&r[2].mn, h.mm);
	mmu_notifier_unregister(&r[0].mn, h.mm);
	host_destroy(&h);
}

TEST(mmu_notifier, what_operations_announce)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);

	expect_eq(mm_zap_range(h.mm, HVA, 2 * PAGE_SIZE), 2);
	expect_counts(&r, 1, 1, 0);
	expect_eq(r.last.event, MMU_NOTIFY_CLEAR);
	expect_eq(r.last.start, HVA);
	expect_eq(r.last.end, HVA + 2 * PAGE_SIZE);
	expect(r.last.mm == h.mm);
	expect(mmu_notifier_range_blockable(&r.last));

	expect_eq(mm_migrate_range(h.mm, HVA + 2 * PAGE_SIZE, 3 * PAGE_SIZE), 3);
	expect_counts(&r, 2, 2, 0);
	expect_eq(r.last.event, MMU_NOTIFY_MIGRATE);
	expect_eq(r.last.start, HVA + 2 * PAGE_SIZE);
	expect_eq(r.last.end, HVA + 5 * PAGE_SIZE);

	expect_eq(migrate_frame(h.phys, mm_lookup_pfn(h.mm, HVA + 5 * PAGE_SIZE)), 0);
	expect_counts(&r, 3, 3, 0);
	expect_eq(r.last.event, MMU_NOTIFY_MIGRATE);
	expect_eq(r.last.start, HVA + 5 * PAGE_SIZE);
	expect_eq(r.last.end, HVA + 6 * PAGE_SIZE);

	/* Reading and writing move nothing. */
	expect_eq(mm_write(h.mm, HVA, "x", 1), 0);
	expect_counts(&r, 3, 3, 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

TEST(mmu_notifier, every_op_is_optional)
{
	static const struct mmu_notifier_ops none;
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	r.mn.ops = &none;
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	window(h.mm);
	expect_eq(window_nonblock(h.mm), 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

TEST(mmu_notifier, only_its_own_mm)
{
	struct recorder a, b;
	struct host h, other;

	host_init(&h);
	host_init(&other);
	recorder_init(&a, 'a', NULL);
	recorder_init(&b, 'b', NULL);
	expect_eq(mmu_notifier_register(&a.mn, h.mm), 0);
	expect_eq(mmu_notifier_register(&b.mn, other.mm), 0);
	window(h.mm);
	window(h.mm);
	window(other.mm);
	expect_counts(&a, 2, 2, 0);
	expect_counts(&b, 1, 1, 0);
	mmu_notifier_unregister(&a.mn, h.mm);
	mmu_notifier_unregister(&b.mn, other.mm);
	host_destroy(&h);
	host_destroy(&other);
}

TEST(mmu_notifier, nonblock_clears_the_flag)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'a', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	expect_eq(window_nonblock(h.mm), 0);
	expect(!mmu_notifier_range_blockable(&r.last));
	window(h.mm);
	expect(mmu_notifier_range_blockable(&r.last));
	expect_counts(&r, 2, 2, 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* N-60: one refuses; all have had a start, and those with an end get it, before the caller knows.
 */
TEST(mmu_notifier, refused_start_is_paired)
{
	for (int refuser = 0; refuser < 3; refuser++) {
		struct recorder r[3];
		struct host h;

		host_init(&h);
		for (int i = 0; i < 3; i++) {
			recorder_init(&r[i], 'a' + i, NULL);
			if (i == refuser)
				r[i].mn.ops = &refuser_ops;
			expect_eq(mmu_notifier_register(&r[i].mn, h.mm), 0);
		}
		r[refuser].refuse = true;
		expect_eq(window_nonblock(h.mm), -EAGAIN);
		for (int i = 0; i < 3; i++)
			expect_counts(&r[i], 1, i != refuser, 0);

		r[refuser].refuse = false;
		expect_eq(window_nonblock(h.mm), 0);
		for (int i = 0; i < 3; i++) {
			expect_counts(&r[i], 2, i == refuser ? 0 : 2, 0);
			mmu_notifier_unregister(&r[i].mn, h.mm);
		}
		host_destroy(&h);
	}
}

TEST(mmu_notifier, several_refuse)
{
	struct recorder r[4];
	struct host h;

	host_init(&h);
	for (int i = 0; i < 4; i++) {
		recorder_init(&r[i], 'a' + i, NULL);
		if (i % 2) {
			r[i].mn.ops = &refuser_ops;
			r[i].refuse = true;
		}
		expect_eq(mmu_notifier_register(&r[i].mn, h.mm), 0);
	}
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	for (int i = 0; i < 4; i++) {
		expect_counts(&r[i], 1, i % 2 == 0, 0);
		mmu_notifier_unregister(&r[i].mn, h.mm);
	}
	host_destroy(&h);
}

/* I4: a callback is running; unregister returns after it has. */
TEST(mmu_notifier, unregister_waits_for_a_callback)
{
	struct thread_arg opener = {0}, leaver = {0};
	struct kthread open_thread, leave_thread;
	struct recorder r;
	struct park park;
	struct host h;

	host_init(&h);
	park_init(&park);
	recorder_init(&r, 'a', NULL);
	r.start_park = &park;
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	opener = (struct thread_arg){.h = &h};
	leaver = (struct thread_arg){.h = &h, .r = &r};

	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);
	expect_eq(kthread_run(&leave_thread, "unregister", run_unregister, &leaver), 0);
	wait_for_releases(&r, 1); /* unregister has begun */
	until_others_sleep();
	expect_eq(atomic_read(&leaver.done), 0);

	park_release(&park);
	kthread_join(&leave_thread);
	/* It was unlinked within its window, or, if the window won, had its end: both pair. */
	expect_le(atomic_read(&r.ends), 1);
	kthread_join(&open_thread);
	expect_counts(&r, 1, atomic_read(&r.ends), 1);
	host_destroy(&h);
}

/* The same for the other callback. */
TEST(mmu_notifier, unregister_waits_for_an_end)
{
	struct kthread open_thread, leave_thread;
	struct thread_arg opener, leaver;
	struct recorder r;
	struct park park;
	struct host h;

	host_init(&h);
	park_init(&park);
	recorder_init(&r, 'a', NULL);
	r.end_park = &park;
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	opener = (struct thread_arg){.h = &h};
	leaver = (struct thread_arg){.h = &h, .r = &r};

	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);
	expect_eq(kthread_run(&leave_thread, "unregister", run_unregister, &leaver), 0);
	wait_for_releases(&r, 1);
	until_others_sleep();
	expect_eq(atomic_read(&leaver.done), 0);
	park_release(&park);
	kthread_join(&leave_thread);
	expect_counts(&r, 1, 1, 1);
	kthread_join(&open_thread);
	host_destroy(&h);
}

/*
 *   window                             unregister b
 *   ------                             ------------
 *   start of c, start of b ...
 *                                      unlinks b, waits for the window's read section
 *   ... b returns; walks on from b
 *   start of a: must not be missed
 */
TEST(mmu_notifier, walk_goes_on_from_one_that_left)
{
	struct kthread open_thread, leave_thread;
	struct thread_arg opener, leaver;
	struct recorder r[3];
	struct park park;
	struct host h;

	host_init(&h);
	park_init(&park);
	for (int i = 0; i < 3; i++) {
		recorder_init(&r[i], 'a' + i, NULL);
		expect_eq(mmu_notifier_register(&r[i].mn, h.mm), 0);
	}
	r[1].start_park = &park;
	opener = (struct thread_arg){.h = &h};
	leaver = (struct thread_arg){.h = &h, .r = &r[1]};
	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);
	expect_eq(kthread_run(&leave_thread, "unregister", run_unregister, &leaver), 0);
	while (READ_ONCE(r[1].mn.pprev))
		sched_yield();
	expect_counts(&r[0], 0, 0, 0);

	park_release(&park);
	kthread_join(&open_thread);
	kthread_join(&leave_thread);
	expect_counts(&r[0], 1, 1, 0);
	expect_counts(&r[1], 1, 0, 1);
	expect_counts(&r[2], 1, 1, 0);
	mmu_notifier_unregister(&r[0].mn, h.mm);
	mmu_notifier_unregister(&r[2].mn, h.mm);
	host_destroy(&h);
}

/* Whoever leaves within a window gets no end, and the others do. */
TEST(mmu_notifier, unregister_within_a_window)
{
	struct mmu_notifier_range range;
	struct recorder stays, leaves;
	struct host h;

	host_init(&h);
	recorder_init(&stays, 's', NULL);
	recorder_init(&leaves, 'l', NULL);
	expect_eq(mmu_notifier_register(&stays.mn, h.mm), 0);
	expect_eq(mmu_notifier_register(&leaves.mn, h.mm), 0);

	mmap_read_lock(h.mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, h.mm, HVA, HVA + LEN);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_unregister(&leaves.mn, h.mm);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(h.mm);
	expect_counts(&leaves, 1, 0, 1);
	expect_counts(&stays, 1, 1, 0);
	mmu_notifier_unregister(&stays.mn, h.mm);
	host_destroy(&h);
}

/* N-63: nobody joins while a window is open, whichever lock holds it open. */
struct joiner {
	struct host *h;
	struct recorder *r;
	atomic_t joined;
};

static void run_register(void *arg)
{
	struct joiner *j = arg;

	expect_eq(mmu_notifier_register(&j->r->mn, j->h->mm), 0);
	atomic_set(&j->joined, 1);
}

struct frame_migration {
	struct host *h;
	int result;
};

static void run_migrate_frame(void *arg)
{
	struct frame_migration *m = arg;

	m->result = migrate_frame(m->h->phys, mm_lookup_pfn(m->h->mm, HVA));
}

TEST(mmu_notifier, register_waits_for_an_open_window)
{
	struct kthread migrate_thread, join_thread;
	struct frame_migration migration;
	struct recorder first, second;
	struct joiner joiner = {0};
	struct park park;
	struct host h;

	host_init(&h);
	park_init(&park);
	recorder_init(&first, 'f', NULL);
	recorder_init(&second, 's', NULL);
	first.start_park = &park;
	expect_eq(mmu_notifier_register(&first.mn, h.mm), 0);

	/* By reverse map: mmap_lock is not held in this window. */
	migration = (struct frame_migration){.h = &h};
	expect_eq(kthread_run(&migrate_thread, "migrate", run_migrate_frame, &migration), 0);
	park_wait(&park, 1);
	joiner = (struct joiner){.h = &h, .r = &second};
	expect_eq(kthread_run(&join_thread, "register", run_register, &joiner), 0);
	until_others_sleep();
	expect_eq(atomic_read(&joiner.joined), 0);

	park_release(&park);
	kthread_join(&migrate_thread);
	kthread_join(&join_thread);
	expect_eq(migration.result, 0);
	expect_counts(&first, 1, 1, 0);
	expect_counts(&second, 0, 0, 0);
	mmu_notifier_unregister(&first.mn, h.mm);
	mmu_notifier_unregister(&second.mn, h.mm);
	host_destroy(&h);
}
