/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Readers look at the age of what they hold when they leave. They sleep, nest, hand their sections
 * to others, are threads that come and go, and signal handlers.
 */
#include <poll.h>
#include <stdlib.h>

#include "tests/torture/srcu_torture.h"

/* A section on its way to another thread. */
struct parcel {
	struct element *e;
	int cookie;
};

static struct parcel *mailbox;

static void finish(struct element *e, int cookie)
{
	int age = atomic_read(&e->age);

	if (e->state != ALIVE || age > 1)
		atomic64_inc(&torture.did.errors);
	atomic64_inc(&torture.did.ages[age < 2 ? age : 2]);
	srcu_read_unlock(&torture.srcu, cookie);
}

static void exchange_parcel(struct parcel *mine)
{
	struct parcel *old = xchg(&mailbox, mine);

	if (!old)
		return;
	finish(old->e, old->cookie);
	free(old);
	atomic64_inc(&torture.did.handed_over);
}

void torture_empty_mailbox(void)
{
	exchange_parcel(NULL);
}

void torture_forget_mailbox(void)
{
	mailbox = NULL;
}

static void read_once(unsigned int *seed)
{
	int cookie = srcu_read_lock(&torture.srcu), inner;
	struct element *e = smp_load_acquire(&torture.slot);
	unsigned int dice = (unsigned int)rand_r(seed) % 4096;

	if (dice == 0) {
		poll(NULL, 0, 1);
		atomic64_inc(&torture.did.slept);
	} else if (dice < 64) {
		struct parcel *p = malloc(sizeof(*p));

		BUG_ON(!p);
		*p = (struct parcel){.e = e, .cookie = cookie};
		exchange_parcel(p);
		return;
	} else if (dice < 256) {
		inner = srcu_read_lock(&torture.srcu);
		relax(dice % 32);
		srcu_read_unlock(&torture.srcu, inner);
		atomic64_inc(&torture.did.nested);
	} else if (dice < 300) {
		sched_yield();
	}
	finish(e, cookie);
}

void torture_reader(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	while (!torture_stops())
		read_once(&seed);
}

static void short_reader(void *arg)
{
	read_once(arg);
}

void torture_thread_churn(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	while (!torture_stops()) {
		struct kthread t;

		BUG_ON(kthread_run(&t, "short", short_reader, &seed));
		kthread_join(&t);
		atomic64_inc(&torture.did.short_threads);
	}
}

void torture_read_in_handler(int sig)
{
	int cookie = srcu_read_lock(&torture.srcu);

	(void)sig;
	finish(smp_load_acquire(&torture.slot), cookie);
	atomic64_inc(&torture.did.signals);
}
