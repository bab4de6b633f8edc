/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU torture. Elements are published, unpublished, and after a grace period poisoned and freed; a
 * reader looks at the age of what it holds when it leaves: 0 published, 1 unpublished, 2 a grace
 * period later, which is an error. Readers sleep, hand their sections to others, are threads that
 * come and go, and signal handlers; domains come and go beside them.
 *
 *	srcu_torture [--threads N] [--seconds S] [--seed N]
 */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "notifier/sync/util.h"
#include "tests/support/relax.h"
#include "tests/support/srcu_probe.h"

#define MAX_THREADS 256
#define ALIVE	    0x600d600d600d600dUL
#define POISON	    0xdeaddeaddeaddeadUL

struct element {
	struct srcu_head head;
	uint64_t state; /* plain: SRCU alone protects it */
	atomic_t age;
};

struct parcel {
	struct element *e;
	int cookie;
};

static struct srcu_struct srcu;
static struct element *slot;
static struct parcel *mailbox;
static atomic_t stop;
static atomic64_t ages[3], errors, handed_over, slept, short_threads, signals, domains;
static atomic64_t synchronized, polled, called;

static struct element *new_element(void)
{
	struct element *e = malloc(sizeof(*e));

	BUG_ON(!e);
	e->state = ALIVE;
	atomic_set(&e->age, 0);
	return e;
}

static void retire(struct element *e)
{
	atomic_set(&e->age, 2);
	e->state = POISON;
	free(e);
}

static void retire_callback(struct srcu_head *head)
{
	retire(container_of(head, struct element, head));
	atomic64_inc(&called);
}

/* ---- readers ---- */

static void finish(struct element *e, int cookie)
{
	int age = atomic_read(&e->age);

	if (e->state != ALIVE || age > 1)
		atomic64_inc(&errors);
	atomic64_inc(&ages[age < 2 ? age : 2]);
	srcu_read_unlock(&srcu, cookie);
}

static void exchange_parcel(struct parcel *mine)
{
	struct parcel *old = xchg(&mailbox, mine);

	if (!old)
		return;
	finish(old->e, old->cookie);
	free(old);
	atomic64_inc(&handed_over);
}

static void read_once(unsigned int *seed)
{
	int cookie = srcu_read_lock(&srcu), inner;
	struct element *e = smp_load_acquire(&slot);
	unsigned int dice = (unsigned int)rand_r(seed) % 4096;

	if (dice == 0) {
		poll(NULL, 0, 1);
		atomic64_inc(&slept);
	} else if (dice < 64) {
		struct parcel *p = malloc(sizeof(*p));

		BUG_ON(!p);
		*p = (struct parcel){.e = e, .cookie = cookie};
		exchange_parcel(p);
		return;
	} else if (dice < 256) {
		inner = srcu_read_lock(&srcu);
		relax(dice % 32);
		srcu_read_unlock(&srcu, inner);
	} else if (dice < 300) {
		sched_yield();
	}
	finish(e, cookie);
}

static void reader(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	while (!atomic_read(&stop))
		read_once(&seed);
}

static void short_reader(void *arg)
{
	read_once(arg);
}

static void thread_churn(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	while (!atomic_read(&stop)) {
		struct kthread t;

		BUG_ON(kthread_run(&t, "short", short_reader, &seed));
		kthread_join(&t);
		atomic64_inc(&short_threads);
	}
}

static void read_in_handler(int sig)
{
	int cookie = srcu_read_lock(&srcu);

	(void)sig;
	finish(smp_load_acquire(&slot), cookie);
	atomic64_inc(&signals);
}

/* ---- updaters ---- */

static struct element *replace(void)
{
	struct element *e = new_element();

	e = xchg(&slot, e);
	atomic_set(&e->age, 1);
	return e;
}

static void updater(void *arg)
{
	(void)arg;
	for (int i = 0; !atomic_read(&stop); i++) {
		struct element *e = replace();

		if (i % 3 == 0) {
			synchronize_srcu(&srcu);
			atomic64_inc(&synchronized);
			retire(e);
		} else if (i % 3 == 1) {
			unsigned long state = start_poll_synchronize_srcu(&srcu);

			while (!poll_state_synchronize_srcu(&srcu, state))
				sched_yield();
			atomic64_inc(&polled);
			retire(e);
		} else {
			call_srcu(&srcu, &e->head, retire_callback);
			if (i % 16 == 2)
				srcu_barrier(&srcu);
		}
	}
}

static void domain_churn(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop)) {
		struct element *e = new_element();
		struct srcu_struct mine;

		BUG_ON(init_srcu_struct(&mine));
		srcu_read_unlock(&mine, srcu_read_lock(&mine));
		call_srcu(&mine, &e->head, retire_callback);
		BUG_ON(cleanup_srcu_struct(&mine));
		atomic64_inc(&domains);
	}
}

static long count(atomic64_t *v)
{
	return (long)atomic64_read(v);
}

static int report(int threads)
{
	printf("%d readers: sections by age %ld %ld %ld; slept %ld, handed over %ld, "
	       "signals %ld, short threads %ld\n",
	       threads, count(&ages[0]), count(&ages[1]), count(&ages[2]), count(&slept),
	       count(&handed_over), count(&signals), count(&short_threads));
	printf("synchronized %ld, polled %ld, called back %ld, domains %ld; errors %ld\n",
	       count(&synchronized), count(&polled), count(&called), count(&domains),
	       count(&errors));
	if (!count(&ages[1]) || !count(&handed_over) || !count(&signals) ||
	    !count(&short_threads) || !count(&synchronized) || !count(&polled) || !count(&called) ||
	    !count(&domains)) {
		printf("something never happened: this run shows nothing\n");
		return 1;
	}
	return count(&errors) ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"threads", 1, NULL, 't'},
						{"seconds", 1, NULL, 's'},
						{"seed", 1, NULL, 'r'},
						{NULL, 0, NULL, 0}};
	void (*const others[])(void *) = {thread_churn, updater, updater, domain_churn};
	struct kthread threads[MAX_THREADS + ARRAY_SIZE(others)];
	struct sigaction action = {.sa_handler = read_in_handler, .sa_flags = SA_RESTART};
	int n = 4, seconds = getenv("GNOMON_TEST_LONG") ? 60 : 4, opt;
	uintptr_t seed = 1;
	uint64_t end;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 't')
			n = atoi(optarg);
		else if (opt == 's')
			seconds = atoi(optarg);
		else if (opt == 'r')
			seed = strtoul(optarg, NULL, 0);
		else
			return 64;
	}
	if (n < 1 || n > MAX_THREADS)
		return 64;

	BUG_ON(init_srcu_struct(&srcu));
	BUG_ON(srcu_workers_start());
	slot = new_element();
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < n; i++)
		BUG_ON(kthread_run(&threads[i], "reader", reader, (void *)(seed + (uintptr_t)i)));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		BUG_ON(kthread_run(&threads[(size_t)n + i], "other", others[i], (void *)seed));
	end = now_ns() + (uint64_t)seconds * 1000000000;
	while (now_ns() < end) {
		poll(NULL, 0, 1);
		for (int i = 0; i < n; i++)
			pthread_kill(threads[i].handle, SIGUSR1);
	}

	atomic_set(&stop, 1);
	/* The last parcel holds grace periods up, and thread churn may post one more. */
	for (int i = 0; i < n; i++)
		kthread_join(&threads[i]);
	kthread_join(&threads[n]);
	exchange_parcel(NULL);
	for (size_t i = 1; i < ARRAY_SIZE(others); i++)
		kthread_join(&threads[(size_t)n + i]);
	BUG_ON(cleanup_srcu_struct(&srcu));
	srcu_workers_stop();
	retire(slot);
	return report(n);
}
