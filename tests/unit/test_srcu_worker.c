/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The callback worker by hand: how a batch is taken, what a pass does with many domains, what it
 * leaves to kicks, and when the worker ends.
 */
#include <string.h>

#include "tests/support/srcu_worker.h"

/* ---- the queue ---- */

TEST(srcu_worker, hole_at_the_front)
{
	struct srcu_head a;

	setup();
	append_half(&a);
	expect(take_batch(d));
	expect(!hole_before);
	expect_eq(d->batch, &a);
	run_batch(d);
	expect_eq(atomic_read(&ran), 1);
	teardown();
}

/* Closed before the batch is walked as a plain list. */
TEST(srcu_worker, hole_inside_a_batch)
{
	struct srcu_head a, b;

	setup();
	/* Whatever stood there before. */
	memset(&a, 0xff, sizeof(a));
	call_srcu(&srcu, &a, count);
	append_half(&b);
	expect(take_batch(d));
	expect(!hole_before);
	expect_eq(a.next, &b);
	run_batch(d);
	expect_eq(atomic_read(&ran), 2);
	teardown();
}

/*
 * While the batch is taken, a grace period begins, and then one more is queued: the batch waits for
 * one that began after all that it has.
 */
static struct srcu_head late;
static int late_reader;

static void begin_grace_period_and_queue(void)
{
	late_reader = srcu_down_read(&srcu);
	start_poll_synchronize_srcu(&srcu);
	call_srcu(&srcu, &late, count);
}

TEST(srcu_worker, snapshot_is_behind_the_last_of_the_batch)
{
	struct srcu_head a;

	setup();
	append_half(&a);
	in_hole = begin_grace_period_and_queue;
	expect(take_batch(d));
	expect_eq(a.next, &late);
	expect_eq(d->batch_snap, srcu_snap(d));
	srcu_up_read(&srcu, late_reader);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	teardown();
}

/* What a batch leaves behind: an empty queue, busy, and a grace period that is yet to pass. */
TEST(srcu_worker, batch_is_taken_whole)
{
	struct srcu_head a, b;
	unsigned long snap;

	setup();
	expect(!take_batch(d));
	expect_eq(d->cb_busy, 0);
	call_srcu(&srcu, &a, count);
	d->cb_busy = 0; /* as one who was about to rest left it */
	expect(take_batch(d));
	expect_eq(d->cb_busy, 1);
	expect_eq(d->batch, &a);
	expect(!d->cb_first.next);
	expect_eq(d->cb_tail, &d->cb_first);
	expect(!srcu_reached(d, d->batch_snap));

	/* The next one waits for its turn: this grace period may have begun too early for it. */
	snap = d->batch_snap;
	call_srcu(&srcu, &b, count);
	expect(take_batch(d));
	expect_eq(d->batch, &a);
	expect_eq(d->batch_snap, snap);
	srcu_barrier(&srcu);
	expect_eq(last_ran, &b);
	teardown();
}

/* ---- passes ---- */

TEST(srcu_worker, one_heavy_barrier_for_all)
{
	struct srcu_struct many[3];
	struct srcu_head heads[3];

	be_the_worker();
	for (int i = 0; i < 3; i++) {
		expect_eq(init_srcu_struct(&many[i]), 0);
		call_srcu(&many[i], &heads[i], count);
	}
	expect_eq(nr_kicked(), 3);
	expect(one_pass());
	expect_eq(barriers, 1);
	expect_eq(atomic_read(&ran), 3);
	/* Is there more? They were put back to be asked, and have nothing, which costs nothing. */
	expect_eq(nr_kicked(), 3);
	expect(!one_pass());
	expect_eq(barriers, 0);
	for (int i = 0; i < 3; i++) {
		expect(!many[i].d->kicked);
		expect_eq(many[i].d->worker_waits, 0);
		expect(srcu_callbacks_idle(many[i].d));
	}

	/* In the order of the kicks, and once each. */
	for (int i = 0; i < 6; i++)
		srcu_worker_kick(many[i % 3].d);
	expect_eq(nr_kicked(), 3);
	expect_eq(take_ready(), many[0].d);
	expect_eq(many[0].d->next_served, many[1].d);
	expect_eq(many[1].d->next_served, many[2].d);
	expect(!many[2].d->next_served);

	/* One of them alone: the others are not dragged along. */
	call_srcu(&many[0], &heads[0], count);
	expect_eq(take_ready(), many[0].d);
	expect(!many[0].d->next_served);
	pass(many[0].d);
	one_pass();
	be_it_no_more();
	for (int i = 0; i < 3; i++)
		expect_eq(cleanup_srcu_struct(&many[i]), 0);
}

/* Once behind each batch; a turn in vain is none. And what gathers meanwhile wakes nobody. */
TEST(srcu_worker, naps_behind_a_batch)
{
	struct srcu_head heads[2];

	setup();
	be_the_worker();
	for (int i = 0; i < 2; i++)
		call_srcu(&srcu, &heads[i], count);
	expect(one_pass());
	expect_eq(atomic_read(&ran), 2);
	expect_eq(d->cb_busy, 1);
	call_srcu(&srcu, &heads[0], count);

	/* With nothing else to do it ends. */
	srcu_worker.stop = true;
	worker_main(NULL);
	expect_eq(atomic_read(&ran), 3);
	expect_eq(d->cb_busy, 0);
	expect_eq(naps, 1);
	srcu_worker_kick(d);
	worker_main(NULL);
	expect_eq(naps, 1);
	srcu_worker.stop = false;
	be_it_no_more();
	teardown();
}

/* Until a reader is in the way, then parked; and back with the unlock. */
TEST(srcu_worker, parked_until_the_unlock)
{
	struct srcu_head head;
	int cookie;

	setup();
	be_the_worker();
	cookie = srcu_down_read(&srcu);
	call_srcu(&srcu, &head, count);
	all_passes();
	expect_eq(srcu_worker.nr_parked, 1);
	expect_eq(d->worker_waits, 1);
	expect(grace_period_is_blocked(&srcu));
	expect_eq(atomic_read(&ran), 0);

	srcu_up_read(&srcu, cookie);
	expect_eq(nr_kicked(), 1);
	expect_eq(d->worker_waits, 0);
	all_passes();
	expect_eq(atomic_read(&ran), 1);
	be_it_no_more();
	teardown();
}

/*
 * Two readers are in the way. One leaves as soon as it is armed, and disarms: that is for the
 * worker to hear of, as the other will wake nobody.
 */
TEST(srcu_worker, one_of_two_leaves_as_it_begins)
{
	struct srcu_head head;
	int cookies[2];

	setup();
	be_the_worker();
	for (int i = 0; i < 2; i++)
		cookies[i] = srcu_down_read(&srcu);
	call_srcu(&srcu, &head, count);
	one_pass();
	expect_eq(srcu_idx(d), 1); /* the other one drains now */
	/* What it said in that pass is used up: it has to say again that it waits, and in time. */
	srcu_worker_notify(d);
	expect_eq(d->worker_waits, 0);
	leaves_when_begun = cookies[0];
	all_passes();
	expect_eq(srcu_worker.nr_parked, 1);
	srcu_up_read(&srcu, cookies[1]);
	expect_eq(nr_kicked(), 1);
	all_passes();
	expect_eq(atomic_read(&ran), 1);
	be_it_no_more();
	teardown();
}

/* A kick that comes during service is one turn more, whatever the service came to. */
TEST(srcu_worker, kicked_during_service)
{
	struct srcu_head head;

	setup();
	be_the_worker();
	call_srcu(&srcu, &head, count);
	for (enum served how = SERVED_ALL; how <= MUST_WAIT; how++) {
		expect_eq(take_ready(), d);
		expect(!d->kicked);
		srcu_worker_kick(d);
		served(d, how);
		expect_eq(nr_kicked(), 1);
	}
	all_passes();
	expect_eq(atomic_read(&ran), 1);
	be_it_no_more();
	teardown();
}

/* The worker ends a grace period: it knows that, and does not kick itself. */
TEST(srcu_worker, does_not_kick_itself)
{
	struct srcu_head head;

	setup();
	be_the_worker();
	call_srcu(&srcu, &head, count);
	expect_eq(take_ready(), d);
	scan_first_half(d);
	expect(d->scanning);
	expect_eq(d->worker_waits, 1);
	srcu_heavy_barrier();
	expect_eq(scan_second_half(d), SRCU_PASSED);
	expect(!d->kicked);
	expect_eq(run_what_passed(d, SRCU_PASSED), SERVED_BATCH);
	expect_eq(run_what_passed(d, SRCU_PASSED), SERVED_ALL);
	be_it_no_more();
	teardown();
}

static struct park holding;

static void hold_cb_run(void *arg)
{
	(void)arg;
	mutex_lock(&d->cb_run);
	park_enter(&holding);
	mutex_unlock(&d->cb_run);
}

/* Somebody else runs callbacks: he kicks when he is done, and nobody waits for him. */
TEST(srcu_worker, passes_by_when_others_run_callbacks)
{
	struct srcu_head head;
	struct kthread holder;

	setup();
	be_the_worker();
	call_srcu(&srcu, &head, count);
	park_init(&holding);
	expect_eq(kthread_run(&holder, "holder", hold_cb_run, NULL), 0);
	park_wait(&holding, 1);
	expect_eq(take_ready(), d);
	d->scanning = true; /* of a turn long ago */
	scan_first_half(d);
	expect(!d->scanning);
	expect(!d->batch);
	expect_eq(run_what_passed(d, SRCU_AGAIN), MUST_WAIT);
	park_release(&holding);
	kthread_join(&holder);
	srcu_worker_kick(d);
	all_passes();
	expect_eq(atomic_read(&ran), 1);
	be_it_no_more();
	teardown();
}

/* A second half without its first would take sums that are no half of anything. */
TEST(srcu_worker, no_second_half_alone)
{
	unsigned long seq;

	setup();
	expect(srcu_scan_begin(d, srcu_snap(d), &d->scan));
	seq = d->gp_seq;
	scan_first_half(d); /* nothing is queued */
	expect(!d->scanning);
	expect_eq(d->worker_waits, 0);
	expect_eq(scan_second_half(d), SRCU_AGAIN);
	expect_eq(d->gp_seq, seq);
	teardown();
}

/* A grace period of which the worker was not told, but ended it: who slept for it wakes. */
TEST(srcu_worker, wakes_who_waits_for_its_grace_period)
{
	struct srcu_head head;
	struct syncer updater;
	int cookie;

	setup();
	be_the_worker();
	cookie = srcu_down_read(&srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	while (!READ_ONCE(d->gp_wait.waiters))
		sched_yield();
	count_unlock(cookie);
	call_srcu(&srcu, &head, count);
	all_passes();
	kthread_join(&updater.thread);
	expect_eq(atomic_read(&ran), 1);
	be_it_no_more();
	teardown();
}

/* ---- the end of the worker ---- */

TEST(srcu_worker, ends_when_told_and_idle)
{
	setup();
	be_the_worker();
	srcu_worker_kick(d);
	srcu_worker.stop = true;
	expect(may_end());
	expect_eq(take_ready(), d);
	served(d, MUST_WAIT);
	expect(!may_end());
	srcu_worker_kick(d);
	expect_eq(take_ready(), d);
	expect(may_end());
	expect(!take_ready());
	srcu_worker.stop = false;
	be_it_no_more();
	teardown();
}

TEST(srcu_worker, one_that_sleeps_when_idle)
{
	expect_eq(srcu_workers_start(), 0);
	expect_eq(srcu_workers_start(), 0);
	expect_eq(workers, 1);
	while (!READ_ONCE(srcu_worker.wait.waiters))
		sched_yield();
	srcu_workers_stop();
	/* Nobody is there to be stopped, nor to stop the next one. */
	srcu_workers_stop();
	expect(!srcu_worker.stop);
	expect_eq(srcu_worker.pid, 0);
}

TEST(srcu_worker, no_thread_to_be_had)
{
	struct srcu_head head;

	setup();
	no_more_threads = true;
	expect_eq(srcu_workers_start(), -EAGAIN);
	call_srcu(&srcu, &head, count);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 1);
	srcu_workers_stop();
	no_more_threads = false;
	expect_eq(srcu_workers_start(), 0);
	srcu_workers_stop();
	teardown();
}

static uint64_t ran_on;

static void note_thread(struct srcu_head *head)
{
	ran_on = thread_id();
	count(head);
}

TEST(srcu_worker, callbacks_run_on_it)
{
	setup();
	expect_eq(srcu_workers_start(), 0);
	for (int i = 1; i <= 50; i++) {
		struct srcu_head head;

		call_srcu(&srcu, &head, note_thread);
		while (atomic_read_acquire(&ran) != i)
			sched_yield();
		expect_ne(ran_on, thread_id());
	}
	srcu_workers_stop();
	teardown();
}
