// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The first notifier of a process: it makes the SRCU domain of all callbacks, once, whoever comes
 * at the same time. Each case is a process of its own.
 */
#include <errno.h>

#include "notifier/srcu_internal.h"
#include "notifier/subscriptions.h"
#include "tests/support/notifier_fixture.h"

struct first {
	struct host h[2];
	struct recorder r[2];
	atomic_t next, ready, done;
};

static void register_at_once(void *arg)
{
	struct first *f = arg;
	int me = atomic_fetch_add(1, &f->next);

	/* Relaxed on purpose: nothing but the code under test orders the two. */
	atomic_inc(&f->ready);
	while (atomic_read(&f->ready) < 2)
		sched_yield();
	expect_eq(mmu_notifier_register(&f->r[me].mn, f->h[me].mm), 0);
}

static void first_init(struct first *f, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		host_init(&f->h[i]);
		recorder_init(&f->r[i], (char)('a' + i), NULL);
	}
	expect(!mmu_notifier_srcu.d);
}

static void first_done(struct first *f, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		mmu_notifier_unregister(&f->r[i].mn, f->h[i].mm);
		expect_eq(atomic_read(&f->r[i].releases), 1);
		host_destroy(&f->h[i]);
	}
}

/* Without the mutex: a data race (ThreadSanitizer), and now and then a domain that nobody has. */
TEST(mmu_notifier_first, two_at_once)
{
	static struct first f;
	struct kthread threads[2];

	first_init(&f, 2);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "first", register_at_once, &f), 0);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	first_done(&f, 2);
}

static void synchronize_when_told(void *arg)
{
	struct first *f = arg;

	/* Relaxed, as above. */
	while (!atomic_read(&f->done))
		sched_yield();
	mmu_notifier_synchronize();
}

/* Who finds the domain ready finds all of it: a data race, with the store of "ready" relaxed. */
TEST(mmu_notifier_first, one_who_synchronizes_finds_the_domain)
{
	static struct first f;
	struct kthread thread;

	first_init(&f, 1);
	expect_eq(kthread_run(&thread, "synchronize", synchronize_when_told, &f), 0);
	expect_eq(mmu_notifier_register(&f.r[0].mn, f.h[0].mm), 0);
	atomic_set(&f.done, 1);
	kthread_join(&thread);
	first_done(&f, 1);
}

/* All domains are taken: nobody can register, until one is given back. */
TEST(mmu_notifier_first, no_domain_is_left)
{
	static struct srcu_struct taken[8192];
	static struct first f;
	unsigned int nr = 0;

	first_init(&f, 1);
	while (init_srcu_struct(&taken[nr]) == 0)
		expect(++nr < ARRAY_SIZE(taken));
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(mmu_notifier_register(&f.r[0].mn, f.h[0].mm), -ENOMEM);
	expect(!mm_has_notifiers(f.h[0].mm));
	expect_eq(cleanup_srcu_struct(&taken[--nr]), 0);
	expect_eq(mmu_notifier_register(&f.r[0].mn, f.h[0].mm), 0);
	while (nr)
		expect_eq(cleanup_srcu_struct(&taken[--nr]), 0);
	first_done(&f, 1);
}

static bool young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t address)
{
	struct recorder *r = container_of(mn, struct recorder, mn);

	expect(mm == mn->mm && address == HVA);
	atomic_inc(&r->starts);
	return true;
}

static void ask_when_told(void *arg)
{
	struct first *f = arg;

	while (!atomic_read(&f->done))
		sched_yield();
	expect(mmu_notifier_test_young(f->h[0].mm, HVA));
}

/*
 * Who asks for ages holds no lock of the mm's, and finds the block and the notifier as they were
 * made: data races, with either published by a relaxed store.
 */
TEST(mmu_notifier_first, one_who_asks_finds_the_notifier)
{
	static const struct mmu_notifier_ops ops = {
		.release = recorder_release,
		.test_young = young,
	};
	static struct first f;
	struct kthread thread;

	first_init(&f, 1);
	f.r[0].mn.ops = &ops;
	expect_eq(kthread_run(&thread, "ask", ask_when_told, &f), 0);
	expect_eq(mmu_notifier_register(&f.r[0].mn, f.h[0].mm), 0);
	atomic_set(&f.done, 1);
	kthread_join(&thread);
	expect_eq(atomic_read(&f.r[0].starts), 1);
	first_done(&f, 1);
}
