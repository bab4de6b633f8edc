/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Domains do not delay each other (I7). Somebody stays in one domain, in a section or in a
 * callback, and does not leave before a number of things are done in another: shown by counts. A
 * delay hangs, at the first of them.
 */
#include <poll.h>
#include <stdio.h>

#include "tests/support/relax.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

static struct srcu_struct a, b;
static atomic64_t ran; /* callbacks of b */

static int64_t wanted(void)
{
	return test_long() ? 100000 : 2000;
}

static void setup(void)
{
	expect_eq(init_srcu_struct(&a), 0);
	expect_eq(init_srcu_struct(&b), 0);
	expect_eq(srcu_workers_start(), 0);
}

static void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&a), 0);
	expect_eq(cleanup_srcu_struct(&b), 0);
	srcu_workers_stop();
}

struct call {
	struct srcu_head head;
	atomic64_t *ran;
};

static void count_call(struct srcu_head *head)
{
	atomic64_inc_return(container_of(head, struct call, head)->ran);
}

/* What was done meanwhile, one domain on. */
struct tally {
	int64_t synchronized, called, barriers;
};

/* Once around: a section, a grace period, a callback that the worker ran unasked, and a barrier. */
static void use_once(struct srcu_struct *ssp, struct tally *tally)
{
	struct call call = {.ran = &ran};
	int64_t before = atomic64_read(&ran);

	srcu_read_unlock(ssp, srcu_read_lock(ssp));
	synchronize_srcu(ssp);
	tally->synchronized++;
	call_srcu(ssp, &call.head, count_call);
	if (tally->called % 2)
		poll_until(&ran, before + 1);
	srcu_barrier(ssp);
	expect_eq(atomic64_read(&ran), before + 1);
	tally->called++;
	tally->barriers++;
}

static void use_many_times(struct srcu_struct *ssp, const char *beside)
{
	struct tally tally = {0};

	for (int64_t i = 0; i < wanted(); i++)
		use_once(ssp, &tally);
	printf("beside %s: %ld synchronized, %ld callbacks, %ld barriers\n", beside,
	       (long)tally.synchronized, (long)tally.called, (long)tally.barriers);
	expect_ge(tally.synchronized, 1000);
	expect_ge(tally.called, 1000);
}

/*
 * A reader stays in @stuck; somebody waits for it, and a callback does, and a barrier behind that.
 * In @free all goes on. Which of the two domains is older, and so first in every list, should not
 * matter.
 */
static void barrier_main(void *arg)
{
	srcu_barrier(arg);
}

static void run_beside_reader(struct srcu_struct *stuck, struct srcu_struct *free)
{
	atomic64_t late = ATOMIC64_INIT(0);
	struct call call = {.ran = &late};
	struct sitter reader;
	struct syncer updater;
	struct kthread waiter;

	setup();
	sitter_start(&reader, stuck);
	call_srcu(stuck, &call.head, count_call);
	wait_for_blocked_grace_period(stuck); /* the worker has met the reader */
	use_many_times(free, "a reader and a callback behind it");
	syncer_start(&updater, stuck);
	expect_eq(kthread_run(&waiter, "barrier", barrier_main, stuck), 0);
	while (READ_ONCE(stuck->d->gp_wait.waiters) < 2)
		sched_yield();
	use_many_times(free, "a reader, a synchronize and a barrier");

	/* The reader was there all the time. */
	expect_eq(atomic_read(&updater.done), 0);
	expect_eq(atomic64_read(&late), 0);
	sitter_stop(&reader);
	kthread_join(&updater.thread);
	kthread_join(&waiter);
	expect_eq(atomic64_read(&late), 1);
	teardown();
}

TEST(srcu_domains, reader_in_the_older_one)
{
	run_beside_reader(&a, &b);
}

TEST(srcu_domains, reader_in_the_younger_one)
{
	run_beside_reader(&b, &a);
}

/* The reader sleeps for a second, or as long as it takes to do enough meanwhile. */
struct sleeper {
	struct kthread thread;
	struct park inside, enough;
};

static void sleep_inside(void *arg)
{
	struct sleeper *s = arg;
	int cookie = srcu_read_lock(&a);

	park_enter(&s->inside);
	poll(NULL, 0, 1000);
	park_enter(&s->enough);
	srcu_read_unlock(&a, cookie);
}

TEST(srcu_domains, reader_that_sleeps_for_a_second)
{
	int rounds = test_long() ? 10 : 1;

	setup();
	for (int i = 0; i < rounds; i++) {
		struct sleeper sleeper;
		struct tally tally = {0};
		struct syncer updater;

		park_init(&sleeper.inside);
		park_init(&sleeper.enough);
		expect_eq(kthread_run(&sleeper.thread, "sleeper", sleep_inside, &sleeper), 0);
		park_wait(&sleeper.inside, 1);
		syncer_start(&updater, &a);
		wait_for_blocked_grace_period(&a);
		park_release(&sleeper.inside);
		while (!atomic_read(&updater.done)) {
			use_once(&b, &tally);
			if (tally.called == 1000)
				park_release(&sleeper.enough);
		}
		kthread_join(&sleeper.thread);
		kthread_join(&updater.thread);
		printf("while a reader slept for 1 s: %ld synchronized, %ld callbacks\n",
		       (long)tally.synchronized, (long)tally.called);
		expect_ge(tally.called, 1000);
	}
	teardown();
}

/* ---- a callback that does not return ---- */

static struct park in_callback;

static void park_func(struct srcu_head *head)
{
	(void)head;
	park_enter(&in_callback);
}

/*
 * The worker is stuck in it. What nobody waits for has to wait, in any domain; but who waits for
 * callbacks runs them, and no grace period needs the worker.
 */
TEST(srcu_domains, callback_that_does_not_return)
{
	struct srcu_struct c;
	struct srcu_head head;
	struct call unasked = {.ran = &ran};

	setup();
	park_init(&in_callback);
	call_srcu(&a, &head, park_func);
	park_wait(&in_callback, 1);
	for (int64_t i = 1; i <= wanted(); i++) {
		struct call call = {.ran = &ran};

		synchronize_srcu(&a);
		synchronize_srcu(&b);
		call_srcu(&b, &call.head, count_call);
		srcu_barrier(&b);
		expect_eq(atomic64_read(&ran), i);
		expect_eq(init_srcu_struct(&c), 0);
		expect_eq(cleanup_srcu_struct(&c), 0);
	}
	call_srcu(&b, &unasked.head, count_call);
	printf("beside a callback: %ld callbacks\n", (long)wanted());
	park_release(&in_callback);
	poll_until(&ran, wanted() + 1);
	teardown();
}
