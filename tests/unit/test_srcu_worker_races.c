/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The callback worker beside those who call, wait, start and stop.
 */
#include <stdlib.h>

#include "tests/support/relax.h"
#include "tests/support/srcu_worker.h"

static void call_barrier(void *arg)
{
	(void)arg;
	srcu_barrier(&srcu);
}

/* Somebody else ran what a barrier waits for, and took more: the domain is not at rest. */
TEST(srcu_worker_races, barrier_leaves_a_batch_alone)
{
	struct srcu_head a, b;
	struct kthread waiter;

	setup();
	call_srcu(&srcu, &a, count);
	mutex_lock(&d->cb_run);
	expect_eq(kthread_run(&waiter, "waiter", call_barrier, NULL), 0);
	while (READ_ONCE(d->cb_tail) == &a)
		sched_yield();
	expect(take_batch(d));
	srcu_wait(d, d->batch_snap);
	run_batch(d);
	expect_eq(atomic_read(&ran), 1);
	call_srcu(&srcu, &b, count);
	expect(take_batch(d));
	mutex_unlock(&d->cb_run);
	kthread_join(&waiter);
	expect(!srcu_callbacks_idle(d));
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	teardown();
}

/*
 * Who runs the last callback goes to rest, while the next one is queued: either he sees it, or its
 * call_srcu() finds that nobody is busy. Nobody waits in this domain, so that one which was missed
 * stays where it is.
 *
 *	worker				here
 *	cb_busy = 0
 *					appends
 *	queue empty?			cb_busy?
 */
TEST(srcu_worker_races, the_next_one_comes_as_it_goes_to_rest)
{
	struct sweep sweep = sweep_start(50000);
	struct srcu_head head;

	setup();
	/* In its naps it does not go to rest. */
	sleepless = true;
	expect_eq(srcu_workers_start(), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		relax((unsigned int)i % 64);
		call_srcu(&srcu, &head, count);
		for (unsigned int n = 1; atomic_read_acquire(&ran) < i; n++) {
			cpu_relax();
			if (n % 1024 == 0)
				sched_yield();
		}
	}
	srcu_workers_stop();
	teardown();
}

/*
 * The same two, and nothing else, as close to each other as they come: a store of cb_busy that
 * waits in a store buffer while the queue is looked at would do.
 */
static atomic64_t arrivals;
static bool rested;

static void go_to_rest(void *arg)
{
	(void)arg;
	for (int64_t i = 1;; i += 2) {
		meet(&arrivals, i, 2);
		if (atomic_read(&ran))
			return;
		rested = rest(d);
		meet(&arrivals, i + 1, 2);
	}
}

TEST(srcu_worker_races, rest_and_call)
{
	struct sweep sweep = sweep_start(200000);
	struct kthread resting;
	struct srcu_head head;
	int64_t i;

	setup();
	be_the_worker();
	expect_eq(kthread_run(&resting, "resting", go_to_rest, NULL), 0);
	for (i = 1; sweep_goes_on(&sweep, (i + 1) / 2); i += 2) {
		d->cb_tail = &d->cb_first;
		d->cb_first.next = NULL;
		d->cb_busy = 1;
		meet(&arrivals, i, 2);
		relax((unsigned int)i / 2 % 8);
		call_srcu(&srcu, &head, count);
		meet(&arrivals, i + 1, 2);
		if (rested && !d->kicked)
			fail("round %ld: neither saw the other", (long)i / 2);
		if (d->kicked)
			expect_eq(take_ready(), d);
	}
	d->cb_tail = &d->cb_first;
	d->cb_first.next = NULL;
	d->cb_busy = 0;
	atomic_set(&ran, 1);
	meet(&arrivals, i, 2);
	kthread_join(&resting);
	be_it_no_more();
	teardown();
}

#define NR_CALLERS 2
static atomic_t callers_done;

static void start_and_stop(void *arg)
{
	(void)arg;
	while (atomic_read(&callers_done) < NR_CALLERS) {
		expect_eq(srcu_workers_start(), 0);
		sched_yield();
		srcu_workers_stop();
	}
}

static void free_and_count(struct srcu_head *head)
{
	free(head);
	atomic_inc_return(&ran);
}

static void call_many(void *arg)
{
	const int calls = *(int *)arg;

	for (int i = 0; i < calls; i++) {
		struct srcu_head *head = malloc(sizeof(*head));

		call_srcu(&srcu, head, free_and_count);
		if (i % 64 == 0)
			srcu_barrier(&srcu);
	}
	atomic_inc(&callers_done);
}

/* Workers are started and stopped by more than one, beside those who queue. */
TEST(srcu_worker_races, comes_and_goes_beside_callers)
{
	int calls = test_long() ? 100000 : 4000;
	struct kthread stoppers[2], callers[NR_CALLERS];

	setup();
	for (int i = 0; i < NR_CALLERS; i++)
		expect_eq(kthread_run(&callers[i], "caller", call_many, &calls), 0);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&stoppers[i], "stopper", start_and_stop, NULL), 0);
	for (int i = 0; i < NR_CALLERS; i++)
		kthread_join(&callers[i]);
	for (int i = 0; i < 2; i++)
		kthread_join(&stoppers[i]);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), NR_CALLERS * calls);
	expect_eq(srcu_worker.pid, 0);
	teardown();
}

/*
 * A callback leaves something behind; who finds the domain idle, and so does not wait for it, is to
 * see that whole. The order is that of cb_busy alone: said and heard says only that it is time.
 */
static int left_behind; /* plain */
static atomic_t said;

static void leave_something(struct srcu_head *head)
{
	(void)head;
	left_behind = 1;
}

static void hear(void *arg)
{
	(void)arg;
	while (!atomic_read(&said))
		sched_yield();
	srcu_barrier(&srcu);
	expect_eq(left_behind, 1);
}

TEST(srcu_worker_races, idle_hands_over_what_callbacks_did)
{
	struct srcu_head head;
	struct kthread hearer;

	setup();
	expect_eq(kthread_run(&hearer, "hearer", hear, NULL), 0);
	call_srcu(&srcu, &head, leave_something);
	srcu_barrier(&srcu);
	expect(srcu_callbacks_idle(d));
	atomic_set(&said, 1);
	kthread_join(&hearer);
	teardown();
}
