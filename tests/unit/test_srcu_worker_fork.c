/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a forked child puts in order of callbacks and their worker: by hand, in one process, with
 * states as the threads of a parent leave them.
 */
#include <string.h>

#include "tests/support/srcu_worker.h"

TEST(srcu_worker_fork, child_forgets_the_parents_worker)
{
	struct srcu_struct other;

	setup();
	expect_eq(init_srcu_struct(&other), 0);
	be_the_worker();
	srcu_worker_kick(other.d);
	expect_eq(take_ready(), other.d);
	served(other.d, MUST_WAIT);
	srcu_worker_kick(d);
	srcu_worker.stop = true;
	srcu_worker.control.raw.state = 1;
	srcu_worker.wait.waiters = 1;

	srcu_callbacks_forked(d);
	srcu_callbacks_forked(other.d);
	srcu_worker_forked();
	expect(!d->kicked && !d->parked);
	expect(!other.d->kicked && !other.d->parked);
	expect(!srcu_worker.kicked);
	expect_eq(srcu_worker.nr_parked, 0);
	expect(!srcu_worker.stop);
	expect_eq(srcu_worker.control.raw.state, 0);
	expect_eq(srcu_worker.wait.waiters, 0);
	be_it_no_more();
	expect_eq(cleanup_srcu_struct(&other), 0);
	teardown();
}

/* Two are queued, a third is being queued by another thread, and the worker said it waits. */
TEST(srcu_worker_fork, child_keeps_what_was_queued)
{
	struct srcu_head a, b, c;

	setup();
	call_srcu(&srcu, &a, count);
	call_srcu(&srcu, &b, count);
	append_half(&c);
	d->worker_waits = 1;
	d->cb_busy = 0;

	srcu_callbacks_forked(d);
	expect_eq(d->cb_tail, &b);
	expect_eq(d->cb_busy, 1);
	expect_eq(d->worker_waits, 0);
	hole_before = NULL;
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	expect_eq(last_ran, &b);
	srcu_callbacks_forked(d);
	expect_eq(d->cb_busy, 0);
	teardown();
}

/* Between the two stores of take_batch(): found twice. Its grace period was not even asked for. */
TEST(srcu_worker_fork, child_forked_inside_take_batch)
{
	struct srcu_head a, b;

	setup();
	call_srcu(&srcu, &a, count);
	call_srcu(&srcu, &b, count);
	d->batch = d->cb_first.next;
	d->batch_snap = d->gp_seq;

	srcu_callbacks_forked(d);
	expect(!d->cb_first.next);
	expect_eq(d->cb_tail, &d->cb_first);
	expect(!srcu_reached(d, d->batch_snap));
	expect_eq(d->cb_busy, 1);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	teardown();
}

/* A batch, and a queue that is another one. */
TEST(srcu_worker_fork, child_has_a_batch_and_a_queue)
{
	struct srcu_head a, b;

	setup();
	call_srcu(&srcu, &a, count);
	expect(take_batch(d));
	call_srcu(&srcu, &b, count);
	srcu_callbacks_forked(d);
	expect_eq(d->cb_tail, &b);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	expect_eq(last_ran, &b);
	teardown();
}

/* Other threads wait in barriers, by marks on their stacks; one waits in this thread's. */
TEST(srcu_worker_fork, child_drops_the_marks_of_others)
{
	struct barrier_mark marks[5];
	struct srcu_head items[4];
	const int mine = 3;

	setup();
	for (int i = 0; i < 5; i++) {
		marks[i] = (struct barrier_mark){.owner = i == mine ? thread_id() : ~0ULL};
		if (i == 2) {
			call_srcu(&srcu, &items[1], count);
			expect(take_batch(d));
		}
		enqueue(d, &marks[i].head, barrier_reached);
		if (i == 0)
			call_srcu(&srcu, &items[0], count);
		else if (i >= 3)
			call_srcu(&srcu, &items[i - 1], count);
	}
	srcu_callbacks_forked(d);
	for (int i = 0; i < 5; i++)
		if (i != mine)
			memset(&marks[i], 0xff, sizeof(marks[i])); /* other stacks now */
	expect_eq(d->batch, &items[0]);
	expect_eq(items[0].next, &items[1]);
	expect(!items[1].next);
	expect_eq(d->cb_first.next, &marks[mine].head);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 4);
	expect_eq(last_ran, &items[3]);
	expect(marks[mine].done);
	teardown();
}

TEST(srcu_worker_fork, child_has_nothing_but_marks)
{
	struct barrier_mark mark = {.owner = ~0ULL};

	setup();
	enqueue(d, &mark.head, barrier_reached);
	expect(take_batch(d));
	srcu_callbacks_forked(d);
	expect(srcu_callbacks_idle(d));
	teardown();
}
