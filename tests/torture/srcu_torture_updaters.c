/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Elements are published, unpublished, and after a grace period poisoned and freed, by each of the
 * ways to wait for one; and domains come and go, and are held up, beside that.
 */
#include <poll.h>
#include <stdlib.h>

#include "tests/torture/srcu_torture.h"

struct element *new_element(void)
{
	struct element *e = malloc(sizeof(*e));

	BUG_ON(!e);
	e->state = ALIVE;
	atomic_set(&e->age, 0);
	return e;
}

struct element *replace_element(void)
{
	struct element *e = new_element();

	e = xchg(&torture.slot, e);
	atomic_set(&e->age, 1);
	return e;
}

void retire_element(struct element *e)
{
	atomic_set(&e->age, 2);
	e->state = POISON;
	free(e);
}

static void retire_callback(struct srcu_head *head)
{
	retire_element(container_of(head, struct element, head));
	atomic64_inc(&torture.did.called);
}

void torture_updater(void *arg)
{
	struct srcu_struct *ssp = &torture.srcu;

	(void)arg;
	for (int i = 0; !torture_stops(); i++) {
		struct element *e = replace_element();

		if (i % 3 == 0) {
			synchronize_srcu(ssp);
			atomic64_inc(&torture.did.synchronized);
			retire_element(e);
		} else if (i % 3 == 1) {
			unsigned long state = start_poll_synchronize_srcu(ssp);

			while (!poll_state_synchronize_srcu(ssp, state))
				sched_yield();
			atomic64_inc(&torture.did.polled);
			retire_element(e);
		} else {
			call_srcu(ssp, &e->head, retire_callback);
			if (i % 16 == 2) {
				srcu_barrier(ssp);
				atomic64_inc(&torture.did.barriers);
			}
		}
	}
}

void torture_domain_churn(void *arg)
{
	(void)arg;
	while (!torture_stops()) {
		struct element *e = new_element();
		/* Not on this stack, which is another thread's in the child of a fork. */
		struct srcu_struct *mine = malloc(sizeof(*mine));

		BUG_ON(!mine || init_srcu_struct(mine));
		srcu_read_unlock(mine, srcu_read_lock(mine));
		call_srcu(mine, &e->head, retire_callback);
		BUG_ON(cleanup_srcu_struct(mine));
		free(mine);
		atomic64_inc(&torture.did.domains);
	}
}

/* ---- a reader that sleeps for a second ---- */

static int64_t done_elsewhere(void)
{
	return atomic64_read(&torture.did.synchronized) + atomic64_read(&torture.did.called);
}

static void nap_over(struct srcu_head *head)
{
	free(head);
	atomic64_inc(&torture.did.naps);
}

/*
 * With a callback, and somebody in synchronize_srcu(), behind it. What the other domains do
 * meanwhile is counted.
 */
void torture_napper(void *arg)
{
	struct syncer syncer;

	(void)arg;
	while (!torture_stops()) {
		struct srcu_head *head = malloc(sizeof(*head));
		int cookie = srcu_read_lock(&torture.sleepy);
		int64_t before = done_elsewhere(), worst;

		BUG_ON(!head);
		call_srcu(&torture.sleepy, head, nap_over);
		syncer_start(&syncer, &torture.sleepy);
		for (int i = 0; i < 10 && !torture_stops(); i++)
			poll(NULL, 0, 100);
		before = done_elsewhere() - before;
		srcu_read_unlock(&torture.sleepy, cookie);
		kthread_join(&syncer.thread);
		srcu_barrier(&torture.sleepy);

		worst = atomic64_read(&torture.did.beside_worst_nap);
		/* The last one may have been cut short. */
		if (torture_stops())
			break;
		atomic64_set(&torture.did.beside_nap, before);
		if (!worst || before < worst)
			atomic64_set(&torture.did.beside_worst_nap, before);
	}
}
