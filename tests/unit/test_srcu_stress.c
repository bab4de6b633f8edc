/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU under load, with two oracles: the age of what a reader holds (rcutorture's: an element that
 * was unpublished may be held through one grace period at most, and is poisoned and freed after
 * it), and a two-thread litmus that does little else than what a missing barrier would break.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

#define NR_READERS 3
#define NR_SLOTS   2
#define ALIVE	   0x600d600d600d600dUL
#define POISON	   0xdeaddeaddeaddeadUL

struct element {
	struct srcu_head head;
	uint64_t state; /* ALIVE or POISON; plain: SRCU alone protects it */
	atomic_t age;	/* 0 published, 1 unpublished, 2 a grace period later */
};

static struct srcu_struct srcu;
static struct element *slots[NR_SLOTS];
static atomic_t stop;
static atomic64_t sections, handed_over, aged, grace_periods, callbacks;

static struct element *new_element(void)
{
	struct element *e = malloc(sizeof(*e));

	e->state = ALIVE;
	atomic_set(&e->age, 0);
	return e;
}

static void retire(struct element *e)
{
	expect_eq(e->state, ALIVE);
	atomic_set(&e->age, 2);
	e->state = POISON;
	free(e);
}

static void retire_callback(struct srcu_head *head)
{
	retire(container_of(head, struct element, head));
	atomic64_inc(&callbacks);
}

/* ---- readers ---- */

/* A section on its way to another thread. */
struct parcel {
	struct element *e;
	int cookie;
};

static struct parcel *mailbox;

static void finish(struct element *e, int cookie)
{
	int age;

	expect_eq(e->state, ALIVE);
	age = atomic_read(&e->age);
	expect_le(age, 1);
	if (age)
		atomic64_inc(&aged);
	srcu_read_unlock(&srcu, cookie);
	atomic64_inc(&sections);
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

static void read_all_the_time(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	for (unsigned int i = 0; !atomic_read(&stop); i++) {
		int cookie = srcu_read_lock(&srcu), inner = -1;
		struct element *e = smp_load_acquire(&slots[i % NR_SLOTS]);

		expect_eq(e->state, ALIVE);
		switch (rand_r(&seed) % 64) {
		case 0:
			sched_yield();
			break;
		case 1:
			inner = srcu_read_lock(&srcu);
			sched_yield();
			break;
		case 2: {
			struct parcel *p = malloc(sizeof(*p));

			*p = (struct parcel){.e = e, .cookie = cookie};
			exchange_parcel(p);
			continue;
		}
		default:
			break;
		}
		if (inner >= 0)
			srcu_read_unlock(&srcu, inner);
		finish(e, cookie);
	}
}

/* ---- updaters: one for each way to wait ---- */

static struct element *replace(int slot)
{
	struct element *e = new_element();

	e = xchg(&slots[slot], e);
	atomic_set(&e->age, 1);
	atomic64_inc(&grace_periods);
	return e;
}

static void update_synchronize(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop)) {
		struct element *e = replace(0);

		synchronize_srcu(&srcu);
		retire(e);
	}
}

static void update_polled(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop)) {
		struct element *e = replace(1);
		unsigned long state = start_poll_synchronize_srcu(&srcu);

		while (!poll_state_synchronize_srcu(&srcu, state))
			sched_yield();
		retire(e);
	}
}

static void update_callback(void *arg)
{
	(void)arg;
	for (int i = 0; !atomic_read(&stop); i++) {
		struct element *e = replace(i % NR_SLOTS);

		call_srcu(&srcu, &e->head, retire_callback);
		if (i % 16 == 0)
			srcu_barrier(&srcu);
	}
}

static void run_age(bool worker)
{
	void (*const updaters[])(void *) = {update_synchronize, update_polled, update_callback};
	const int64_t want = test_long() ? 2000000 : 30000;
	struct kthread threads[NR_READERS + ARRAY_SIZE(updaters)];
	size_t n = 0;

	expect_eq(init_srcu_struct(&srcu), 0);
	if (worker)
		expect_eq(srcu_workers_start(), 0);
	for (int i = 0; i < NR_SLOTS; i++)
		slots[i] = new_element();
	for (size_t i = 0; i < NR_READERS; i++)
		expect_eq(kthread_run(&threads[n++], "reader", read_all_the_time, (void *)(i + 1)),
			  0);
	for (size_t i = 0; i < ARRAY_SIZE(updaters); i++)
		expect_eq(kthread_run(&threads[n++], "updater", updaters[i], NULL), 0);

	/* Until enough of everything happened, not for a time. */
	while (atomic64_read(&sections) < want || atomic64_read(&handed_over) < want / 200 ||
	       atomic64_read(&aged) < 10 || atomic64_read(&grace_periods) < want / 100 ||
	       atomic64_read(&callbacks) < want / 200)
		sched_yield();
	atomic_set(&stop, 1);
	/* The last parcel holds a grace period up. */
	exchange_parcel(NULL);
	for (size_t i = 0; i < NR_READERS; i++)
		kthread_join(&threads[i]);
	exchange_parcel(NULL);
	for (size_t i = NR_READERS; i < n; i++)
		kthread_join(&threads[i]);

	expect_eq(cleanup_srcu_struct(&srcu), 0);
	if (worker)
		srcu_workers_stop();
	for (int i = 0; i < NR_SLOTS; i++)
		retire(slots[i]);
}

TEST(srcu_stress, age_with_worker)
{
	run_age(true);
}

TEST(srcu_stress, age_without_worker)
{
	run_age(false);
}

/*
 * Litmus. The updater counts x up, waits for a grace period, and says in y which x is over. A
 * section that loaded x finds y no further: more would say that a grace period ended that began
 * after the section, and did not wait for it.
 */
static uint64_t litmus_x, litmus_y;

static void litmus_reader(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop)) {
		int cookie = srcu_read_lock(&srcu);
		uint64_t x = READ_ONCE(litmus_x);
		uint64_t y;

		for (int i = 0; i < 20; i++)
			cpu_relax();
		y = smp_load_acquire(&litmus_y);
		srcu_read_unlock(&srcu, cookie);
		if (y > x)
			fail("a section that saw %lu saw the end of the grace period that followed "
			     "%lu",
			     (unsigned long)x, (unsigned long)y);
		atomic64_inc(&sections);
	}
}

TEST(srcu_stress, litmus)
{
	const uint64_t want = test_long() ? 5000000 : 100000;
	struct kthread reader;

	expect_eq(init_srcu_struct(&srcu), 0);
	expect_eq(kthread_run(&reader, "litmus", litmus_reader, NULL), 0);
	for (uint64_t i = 1; i <= want || atomic64_read(&sections) < (int64_t)want; i++) {
		WRITE_ONCE(litmus_x, i);
		synchronize_srcu(&srcu);
		smp_store_release(&litmus_y, i);
	}
	atomic_set(&stop, 1);
	kthread_join(&reader);
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/*
 * The same for the two sums of a scan: this thread is inside, the other runs through the same
 * index. A scan that took the other's unlock for ours would call the index empty.
 */
static void pass_through(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop)) {
		srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
		atomic64_inc(&sections);
	}
}

TEST(srcu_stress, sums_are_not_mixed_up)
{
	const int64_t want = test_long() ? 5000000 : 100000;
	struct kthread reader;

	expect_eq(init_srcu_struct(&srcu), 0);
	expect_eq(kthread_run(&reader, "through", pass_through, NULL), 0);
	for (int64_t i = 0; i < want || atomic64_read(&sections) < want; i++) {
		int cookie = srcu_read_lock(&srcu);
		unsigned long state = start_poll_synchronize_srcu(&srcu);

		expect(!poll_state_synchronize_srcu(&srcu, state));
		srcu_read_unlock(&srcu, cookie);
		while (!poll_state_synchronize_srcu(&srcu, state))
			sched_yield();
	}
	atomic_set(&stop, 1);
	kthread_join(&reader);
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* ---- many domains, made and cleaned up while others are used ---- */

static void domain_churn(void *arg)
{
	long rounds = *(long *)arg;

	for (long i = 0; i < rounds; i++) {
		struct srcu_struct mine;
		struct element *e = new_element();
		int cookie;

		expect_eq(init_srcu_struct(&mine), 0);
		cookie = srcu_read_lock(&mine);
		call_srcu(&mine, &e->head, retire_callback);
		srcu_read_unlock(&mine, cookie);
		if (i % 3 == 0)
			synchronize_srcu(&mine);
		expect_eq(cleanup_srcu_struct(&mine), 0);
	}
}

TEST(srcu_stress, domain_churn)
{
	long rounds = test_long() ? 100000 : 3000;
	struct kthread threads[4];

	expect_eq(srcu_workers_start(), 0);
	for (int i = 0; i < 4; i++)
		expect_eq(kthread_run(&threads[i], "churn", domain_churn, &rounds), 0);
	for (int i = 0; i < 4; i++)
		kthread_join(&threads[i]);
	srcu_workers_stop();
	expect_eq(atomic64_read(&callbacks), 4 * rounds);
}
