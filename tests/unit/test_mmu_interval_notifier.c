/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interval notifiers: the numbers, and how an interval joins and leaves in each of the three states
 * (the table in notifier/mmu_interval_notifier.c). Most of it needs one thread: windows nest.
 */
#include "tests/support/interval_fixture.h"

static int mm_count(const struct host *h)
{
	return refcount_read(&h->mm->mm_count);
}

TEST(mmu_interval_notifier, first_one)
{
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	expect_eq(mm_count(&h), 1);
	expect(!mm_has_notifiers(h.mm));
	interval_join(&i, &h, 0, PAGES);
	expect(mm_has_notifiers(h.mm));
	expect_eq(mm_count(&h), 2);
	expect(i.sub.mm == h.mm);
	expect_state(&h, 2, 0);

	/* As if invalidated in the phase before, which is over. */
	expect_eq(mmu_interval_read_begin(&i.sub), 1);
	expect(!mmu_interval_read_retry(&i.sub, 1));
	expect(!mmu_interval_check_retry(&i.sub, 1));
	window_pages(&h, 0, 1);
	expect_eq(atomic_read(&i.calls), 1);
	expect_eq(i.seq, 3);
	expect(mmu_interval_read_retry(&i.sub, 1));
	expect(mmu_interval_check_retry(&i.sub, 1));
	expect_state(&h, 4, 0);
	expect_eq(mmu_interval_read_begin(&i.sub), 3);

	interval_leave(&i);
	expect_eq(mm_count(&h), 1);
	window_pages(&h, 0, PAGES);
	expect_state(&h, 4, 0);
	host_destroy(&h);
}

/* An mm with classic subscribers only: nobody counts windows. */
TEST(mmu_interval_notifier, without_an_interval_no_number_moves)
{
	struct recorder r;
	struct interval i;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'r', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	window(h.mm);
	expect_state(&h, 2, 0);
	expect(!h.mm->notifier_subscriptions->has_itree);

	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	expect(h.mm->notifier_subscriptions->has_itree);
	window(h.mm);
	expect_state(&h, 4, 0);
	expect_counts(&r, 2, 2, 0);
	interval_leave(&i);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* N-50, N-51, N-57: a phase begins with the first window that meets any, and ends with the last. */
TEST(mmu_interval_notifier, phases)
{
	struct mmu_notifier_range miss, hit, again;
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 2);

	/* One that meets nothing is counted, and no more. */
	open_pages(&h, &miss, 4, 1);
	expect_state(&h, 2, 1);
	expect_eq(mmu_interval_read_begin(&i.sub), 1);
	close_pages(&miss);
	expect_state(&h, 2, 0);

	/* One that does, with another inside: one phase, one number. */
	open_pages(&h, &hit, 1, 3);
	expect_state(&h, 3, 1);
	open_pages(&h, &again, 0, 1);
	expect_state(&h, 3, 2);
	expect_eq(atomic_read(&i.calls), 2);
	expect_eq(i.seq, 3);
	close_pages(&hit);
	expect_state(&h, 3, 1);
	close_pages(&again);
	expect_state(&h, 4, 0);

	/* One that meets nothing keeps a phase open, whether it came before or after. */
	open_pages(&h, &miss, 4, 1);
	open_pages(&h, &hit, 0, 1);
	expect_state(&h, 5, 2);
	close_pages(&hit);
	expect_state(&h, 5, 1);
	close_pages(&miss);
	expect_state(&h, 6, 0);
	open_pages(&h, &hit, 0, 1);
	open_pages(&h, &miss, 4, 1);
	expect_state(&h, 7, 2);
	close_pages(&hit);
	expect_state(&h, 7, 1);
	open_pages(&h, &again, 1, 1);
	expect_eq(i.seq, 7);
	close_pages(&miss);
	close_pages(&again);
	expect_state(&h, 8, 0);
	interval_leave(&i);
	host_destroy(&h);
}

/* N-52, N-53: own numbers are odd, and those between phases even, so nobody waits for what is over.
 */
TEST(mmu_interval_notifier, parity)
{
	struct interval a, b;
	struct host h;

	host_init(&h);
	interval_init(&a, 'a', NULL);
	interval_init(&b, 'b', NULL);
	interval_join(&a, &h, 0, 2);
	interval_join(&b, &h, 1, 2);
	for (unsigned long n = 0; n < 50; n++) {
		unsigned long of_a = a.sub.invalidate_seq, of_b = b.sub.invalidate_seq;

		window_pages(&h, n % 3, 1); /* of a, of both, of b */
		expect_state(&h, 4 + 2 * n, 0);
		expect_eq(mmu_interval_read_begin(&a.sub), n % 3 < 2 ? 3 + 2 * n : of_a);
		expect_eq(mmu_interval_read_begin(&b.sub), n % 3 > 0 ? 3 + 2 * n : of_b);
	}
	interval_leave(&a);
	interval_leave(&b);
	host_destroy(&h);
}

/* N-53: the number wraps, from the largest odd one to 0. */
TEST(mmu_interval_notifier, number_wraps)
{
	struct mmu_notifier_range range;
	struct interval_thread reader;
	struct interval first, i;
	struct host h;

	host_init(&h);
	bystander_join(&first, &h);
	h.mm->notifier_subscriptions->invalidate_seq = ULONG_MAX - 1;
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	expect_eq(mmu_interval_read_begin(&i.sub), ULONG_MAX - 2);

	open_pages(&h, &range, 0, 1);
	expect_eq(global_seq(&h), ULONG_MAX);
	interval_thread_start(&reader, &i, run_read_begin);
	until_waiting(&h, 1, &reader);
	close_pages(&range);
	kthread_join(&reader.thread);
	expect_eq(reader.seq, ULONG_MAX);
	expect_state(&h, 0, 0);
	expect_eq(mmu_interval_read_begin(&i.sub), ULONG_MAX);
	window_pages(&h, 0, 1);
	expect_state(&h, 2, 0);
	expect_eq(mmu_interval_read_begin(&i.sub), 1);
	interval_leave(&i);
	interval_leave(&first);
	host_destroy(&h);
}

/* read_begin waits for windows over its own interval only. */
TEST(mmu_interval_notifier, read_begin_beside_a_phase)
{
	struct mmu_notifier_range range;
	struct interval a, b;
	struct host h;

	host_init(&h);
	interval_init(&a, 'a', NULL);
	interval_init(&b, 'b', NULL);
	interval_join(&a, &h, 0, 2);
	interval_join(&b, &h, 4, 2);
	open_pages(&h, &range, 0, 2);
	expect_eq(global_seq(&h), 3);
	expect_eq(mmu_interval_read_begin(&b.sub), 1);
	expect(!mmu_interval_read_retry(&b.sub, 1));
	close_pages(&range);
	expect_eq(mmu_interval_read_begin(&b.sub), 1);
	interval_leave(&a);
	interval_leave(&b);
	host_destroy(&h);
}

/* ---- joining (N-54) ---- */

/* A window is open that met nobody; it may meet the newcomer, so it is as if it had. */
TEST(mmu_interval_notifier, insert_while_windows_meet_nobody)
{
	struct mmu_notifier_range range, second;
	struct interval first, i, later;
	struct interval_thread reader;
	struct host h;

	host_init(&h);
	bystander_join(&first, &h);
	open_pages(&h, &range, 0, 1);
	expect_state(&h, 2, 1);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	expect_state(&h, 3, 1);
	expect(i.sub.in_tree);
	expect_eq(i.sub.invalidate_seq, 3);

	/* So the next one is deferred, and this one is told of windows from here on. */
	interval_init(&later, 'b', NULL);
	interval_join(&later, &h, 0, 1);
	expect(!later.sub.in_tree);
	open_pages(&h, &second, 0, 1);
	expect_eq(atomic_read(&i.calls), 1);
	close_pages(&second);
	interval_thread_start(&reader, &i, run_read_begin);
	until_waiting(&h, 1, &reader);
	close_pages(&range);
	kthread_join(&reader.thread);
	expect_eq(reader.seq, 3);
	expect_state(&h, 4, 0);
	expect(later.sub.in_tree);
	interval_leave(&later);
	interval_leave(&i);
	interval_leave(&first);
	host_destroy(&h);
}

/* In a phase the tree is frozen: the newcomer joins at its end, and its readers wait for that. */
TEST(mmu_interval_notifier, insert_is_deferred)
{
	struct mmu_notifier_range range, second;
	struct interval there, i;
	struct interval_thread reader;
	struct host h;

	host_init(&h);
	interval_init(&there, 'a', NULL);
	interval_join(&there, &h, 0, 1);
	open_pages(&h, &range, 0, 1);
	interval_init(&i, 'b', NULL);
	interval_join(&i, &h, 0, PAGES);
	expect_eq(mm_count(&h), 3);
	expect(!i.sub.in_tree);
	expect_eq(i.sub.invalidate_seq, 3);

	open_pages(&h, &second, 0, PAGES);
	expect_eq(atomic_read(&there.calls), 2);
	close_pages(&second);
	interval_thread_start(&reader, &i, run_read_begin);
	until_waiting(&h, 1, &reader);
	close_pages(&range);
	kthread_join(&reader.thread);
	expect_eq(reader.seq, 3);
	expect(!mmu_interval_read_retry(&i.sub, 3));
	expect(i.sub.in_tree);
	expect_eq(atomic_read(&i.calls), 0);
	window_pages(&h, PAGES - 1, 1);
	expect_eq(atomic_read(&i.calls), 1);
	expect_eq(i.seq, 5);
	interval_leave(&there);
	interval_leave(&i);
	host_destroy(&h);
}

/* ---- leaving (N-55) ---- */

TEST(mmu_interval_notifier, remove_while_windows_meet_nobody)
{
	struct mmu_notifier_range range;
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	open_pages(&h, &range, 4, 1);
	interval_leave(&i);
	expect_eq(mm_count(&h), 1);
	expect_state(&h, 2, 1);
	close_pages(&range);
	host_destroy(&h);
}

/*
 * Those who wait to join can leave at once, wherever they stand among the waiting, and come again;
 * the others join at the end.
 */
TEST(mmu_interval_notifier, remove_of_one_that_is_deferred)
{
	for (int leaves = 0; leaves < 4; leaves++) {
		struct mmu_notifier_range range;
		struct interval there, i[4];
		struct host h;

		host_init(&h);
		interval_init(&there, '-', NULL);
		interval_join(&there, &h, 0, 1);
		open_pages(&h, &range, 0, 1);
		for (int n = 0; n < 4; n++) {
			interval_init(&i[n], 'a' + n, NULL);
			interval_join(&i[n], &h, n, 1);
		}
		interval_leave(&i[leaves]);
		expect_eq(mm_count(&h), 5);
		if (leaves == 1) {
			interval_init(&i[1], 'b', NULL);
			interval_join(&i[1], &h, 1, 1);
			expect(!i[1].sub.in_tree);
		}
		close_pages(&range);

		window_pages(&h, 0, 4);
		for (int n = 0; n < 4; n++) {
			if (n == leaves && n != 1)
				continue;
			expect_eq(atomic_read(&i[n].calls), 1);
			interval_leave(&i[n]);
		}
		interval_leave(&there);
		expect_eq(mm_count(&h), 1);
		window_pages(&h, 0, 4);
		expect_state(&h, 6, 0);
		host_destroy(&h);
	}
}

/* It stays until the phase is over, and is told until then; once it is gone nothing touches it. */
TEST(mmu_interval_notifier, remove_waits_for_the_end_of_the_phase)
{
	struct mmu_notifier_range range, other, third;
	struct interval_thread leaver;
	struct interval i, stays;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_init(&stays, 's', NULL);
	interval_join(&i, &h, 0, 2);
	interval_join(&stays, &h, 0, 2);
	open_pages(&h, &range, 0, 1);
	interval_thread_start(&leaver, &i, run_remove);
	until_waiting(&h, 1, &leaver);
	open_pages(&h, &other, 4, 1);
	close_pages(&range);
	expect_state(&h, 3, 1);
	open_pages(&h, &third, 1, 1);
	expect_eq(atomic_read(&i.calls), 2);
	close_pages(&third);
	until_waiting(&h, 1, &leaver);
	expect_eq(mm_count(&h), 3);

	close_pages(&other);
	kthread_join(&leaver.thread);
	expect_state(&h, 4, 0);
	expect_eq(mm_count(&h), 2);
	window_pages(&h, 0, PAGES);
	expect_eq(atomic_read(&stays.calls), 3);
	interval_leave(&stays);
	host_destroy(&h);
}

/* I4: the callback is running; remove returns after it has. */
TEST(mmu_interval_notifier, remove_waits_for_a_callback)
{
	struct interval_thread leaver;
	struct thread_arg opener;
	struct kthread open_thread;
	struct interval i;
	struct park park;
	struct host h;

	host_init(&h);
	park_init(&park);
	interval_init(&i, 'a', NULL);
	i.park = &park;
	interval_join(&i, &h, 0, 2);
	opener = (struct thread_arg){.h = &h};
	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);
	interval_thread_start(&leaver, &i, run_remove);
	until_waiting(&h, 1, &leaver);
	park_release(&park);
	kthread_join(&leaver.thread);
	kthread_join(&open_thread);
	window(h.mm);
	expect_state(&h, 4, 0);
	host_destroy(&h);
}

/* Readers and leavers all wait for the same end; each of them is woken by it. */
TEST(mmu_interval_notifier, all_who_wait_are_woken)
{
	struct interval_thread readers[3], leavers[3];
	struct interval stays[3], leave[3], joins;
	struct mmu_notifier_range range;
	struct host h;

	host_init(&h);
	for (int n = 0; n < 3; n++) {
		interval_init(&stays[n], 's', NULL);
		interval_init(&leave[n], 'l', NULL);
		interval_join(&stays[n], &h, n, 1);
		interval_join(&leave[n], &h, n, 1);
	}
	open_pages(&h, &range, 0, PAGES);
	for (int n = 0; n < 3; n++) {
		interval_thread_start(&readers[n], &stays[n], run_read_begin);
		until_waiting(&h, 2 * n + 1, &readers[n]);
		interval_thread_start(&leavers[n], &leave[n], run_remove);
		until_waiting(&h, 2 * n + 2, &leavers[n]);
	}
	interval_init(&joins, 'j', NULL);
	interval_join(&joins, &h, 0, 1);
	close_pages(&range);
	for (int n = 0; n < 3; n++) {
		kthread_join(&readers[n].thread);
		kthread_join(&leavers[n].thread);
		expect_eq(readers[n].seq, 3);
	}

	window_pages(&h, 0, PAGES);
	expect_eq(atomic_read(&joins.calls), 1);
	interval_leave(&joins);
	for (int n = 0; n < 3; n++) {
		expect_eq(atomic_read(&stays[n].calls), 2);
		interval_leave(&stays[n]);
	}
	expect_eq(mm_count(&h), 1);
	host_destroy(&h);
}
