/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Callbacks: after a grace period, in order, all of them; with the worker and without.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "notifier/sync/util.h"
#include "tests/support/relax.h"
#include "tests/support/child.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

static struct srcu_struct srcu;

struct item {
	struct srcu_head head;
	int number;
	struct park *park;	     /* stay here, inside the callback */
	struct srcu_struct *barrier; /* call srcu_barrier on this, from the callback */
	int again;		     /* queue itself so many times more */
};

static atomic_t ran; /* callbacks that returned, nearly: they count last */
static int last_number;

static void item_func(struct srcu_head *head)
{
	struct item *item = container_of(head, struct item, head);

	if (item->park)
		park_enter(item->park);
	if (item->barrier)
		srcu_barrier(item->barrier);
	/* Plain: callbacks of a domain run one at a time. */
	expect(item->number > last_number);
	last_number = item->number;
	if (item->again) {
		item->again--;
		item->number++;
		call_srcu(&srcu, &item->head, item_func);
	}
	/* Full barrier: who sees the count may use the item again. */
	atomic_inc_return(&ran);
}

static void setup(bool worker)
{
	expect_eq(init_srcu_struct(&srcu), 0);
	if (worker)
		expect_eq(srcu_workers_start(), 0);
}

static void teardown(bool worker)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
	if (worker)
		srcu_workers_stop();
}

static void poll_ran(int nr)
{
	while (atomic_read_acquire(&ran) < nr)
		sched_yield();
}

static void run_in_order(bool worker)
{
	struct item items[300] = {0};

	setup(worker);
	for (int i = 0; i < 300; i++) {
		items[i].number = i + 1;
		call_srcu(&srcu, &items[i].head, item_func);
		if (i % 100 == 99) {
			srcu_barrier(&srcu);
			expect_eq(atomic_read(&ran), i + 1);
		}
	}
	expect_eq(last_number, 300);
	teardown(worker);
}

TEST(srcu_callback, in_order_without_worker)
{
	run_in_order(false);
}

TEST(srcu_callback, in_order_with_worker)
{
	run_in_order(true);
}

TEST(srcu_callback, barrier_of_nothing)
{
	setup(false);
	srcu_barrier(&srcu);
	teardown(false);
}

static void call_barrier(void *arg)
{
	srcu_barrier(&srcu);
	atomic_set_release((atomic_t *)arg, 1);
}

/* A callback waits for the reader; so does a barrier behind it. */
static void run_after_reader(bool worker)
{
	struct item item = {.number = 1};
	struct sitter reader;
	struct kthread waiter;
	atomic_t passed = ATOMIC_INIT(0);

	setup(worker);
	sitter_start(&reader, &srcu);
	call_srcu(&srcu, &item.head, item_func);
	expect_eq(kthread_run(&waiter, "barrier", call_barrier, &passed), 0);
	wait_for_blocked_grace_period(&srcu);
	expect_eq(atomic_read(&ran), 0);
	expect_eq(atomic_read(&passed), 0);
	sitter_stop(&reader);
	kthread_join(&waiter);
	expect_eq(atomic_read(&ran), 1);
	teardown(worker);
}

TEST(srcu_callback, after_reader_without_worker)
{
	run_after_reader(false);
}

TEST(srcu_callback, after_reader_with_worker)
{
	run_after_reader(true);
}

/* A domain that keeps the worker awake: its callback queues itself until told to stop. */
static struct busy_domain {
	struct srcu_struct ssp;
	struct srcu_head head;
	atomic_t stop;
} busy;

static void stay_busy(struct srcu_head *head)
{
	if (!atomic_read(&busy.stop))
		call_srcu(&busy.ssp, head, stay_busy);
}

/*
 * Nobody waits in this domain but the worker, who was told by the reader's unlock alone. The reader
 * leaves at every moment of the worker's way to park the domain; now and then long after.
 */
static void run_reader_wakes_worker(int64_t rounds, unsigned int spread)
{
	struct sweep sweep = sweep_start(rounds);
	struct item item = {.number = 1};

	for (int i = 1; sweep_goes_on(&sweep, i); i++) {
		int cookie = srcu_read_lock(&srcu);

		item.number = i;
		call_srcu(&srcu, &item.head, item_func);
		if (i % 64)
			relax((unsigned int)i % spread);
		else
			wait_for_blocked_grace_period(&srcu);
		srcu_read_unlock(&srcu, cookie);
		for (unsigned int n = 1; atomic_read_acquire(&ran) < i; n++) {
			cpu_relax();
			if (n % 1024 == 0)
				sched_yield();
		}
	}
}

TEST(srcu_callback, reader_wakes_sleeping_worker)
{
	setup(true);
	run_reader_wakes_worker(2000, 2000);
	teardown(true);
}

TEST(srcu_callback, reader_wakes_busy_worker)
{
	setup(true);
	expect_eq(init_srcu_struct(&busy.ssp), 0);
	call_srcu(&busy.ssp, &busy.head, stay_busy);
	run_reader_wakes_worker(200000, 100);
	atomic_set(&busy.stop, 1);
	expect_eq(cleanup_srcu_struct(&busy.ssp), 0);
	teardown(true);
}

/* The same, but the grace period that the callback needs is ended by others. */
TEST(srcu_callback, synchronize_wakes_worker)
{
	struct item item = {.number = 1};

	setup(true);
	for (int i = 1; i <= 200; i++) {
		struct sitter reader;
		struct syncer updater;

		item.number = i;
		sitter_start(&reader, &srcu);
		call_srcu(&srcu, &item.head, item_func);
		syncer_start(&updater, &srcu);
		wait_for_blocked_grace_period(&srcu);
		sitter_stop(&reader);
		kthread_join(&updater.thread);
		poll_ran(i);
	}
	teardown(true);
}

#ifndef SRCU_ABSTRACT /* which has none of this inside */
/* As in test_srcu.c: the unlock is done by halves, and the worker depends on whoever polls. */
TEST(srcu_callback, poller_wakes_worker)
{
	struct item item = {.number = 1};
	struct srcu_domain *d;
	int cookie;

	setup(true);
	d = srcu.d;
	cookie = srcu_down_read(&srcu);
	call_srcu(&srcu, &item.head, item_func);
	wait_for_blocked_grace_period(&srcu);
	count_unlock(cookie);
	expect(poll_state_synchronize_srcu(&srcu, READ_ONCE(d->gp_seq) + 1));
	poll_ran(1);
	teardown(true);
}

#endif

/* A reader of one domain delays neither callbacks nor barriers of another (I7). */
TEST(srcu_callback, domains_do_not_delay_each_other)
{
	struct item stuck = {.number = 2}, free_to_run = {.number = 1};
	struct srcu_struct other;
	struct sitter reader;

	setup(true);
	expect_eq(init_srcu_struct(&other), 0);
	sitter_start(&reader, &srcu);
	call_srcu(&srcu, &stuck.head, item_func);
	wait_for_blocked_grace_period(&srcu); /* the worker has met the reader */
	call_srcu(&other, &free_to_run.head, item_func);
	srcu_barrier(&other);
	expect_eq(atomic_read(&ran), 1);
	expect_eq(last_number, 1);
	expect_eq(cleanup_srcu_struct(&other), 0);
	sitter_stop(&reader);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	teardown(true);
}

static bool callback_queue_empty(void)
{
#ifdef SRCU_ABSTRACT
	return !abstract_srcu_awaited(&srcu);
#else
	return READ_ONCE(srcu.d->cb_tail) == &srcu.d->cb_first;
#endif
}

/* The grace period is long over; the callback runs, and has not returned. */
static void run_barrier_waits_for_return(bool worker)
{
	struct park inside;
	struct item item = {.number = 1, .park = &inside};
	struct kthread first, second;
	atomic_t passed[2] = {ATOMIC_INIT(0), ATOMIC_INIT(0)};

	setup(worker);
	park_init(&inside);
	call_srcu(&srcu, &item.head, item_func);
	expect_eq(kthread_run(&first, "barrier", call_barrier, &passed[0]), 0);
	park_wait(&inside, 1);
	/* Also one that comes when there is nothing left in the queue. */
	expect_eq(kthread_run(&second, "barrier", call_barrier, &passed[1]), 0);
	while (callback_queue_empty())
		sched_yield();
	expect_eq(atomic_read(&passed[0]), 0);
	expect_eq(atomic_read(&passed[1]), 0);
	park_release(&inside);
	kthread_join(&first);
	kthread_join(&second);
	expect_eq(atomic_read(&ran), 1);
	teardown(worker);
}

TEST(srcu_callback, barrier_waits_for_return_without_worker)
{
	run_barrier_waits_for_return(false);
}

TEST(srcu_callback, barrier_waits_for_return_with_worker)
{
	run_barrier_waits_for_return(true);
}

/* Callbacks may queue callbacks, also themselves, and cleanup waits for those too. */
static void run_again(bool worker)
{
	struct item item = {.number = 1, .again = 20};

	setup(worker);
	call_srcu(&srcu, &item.head, item_func);
	teardown(worker);
	expect_eq(atomic_read(&ran), 21);
}

TEST(srcu_callback, again_without_worker)
{
	run_again(false);
}

TEST(srcu_callback, again_with_worker)
{
	run_again(true);
}

/* From inside a section, and under a spinlock: it does not sleep. */
TEST(srcu_callback, call_srcu_anywhere)
{
	struct item item = {.number = 1};
	DEFINE_SPINLOCK(lock);
	int cookie;

	setup(true);
	cookie = srcu_read_lock(&srcu);
	spin_lock(&lock);
	call_srcu(&srcu, &item.head, item_func);
	srcu_read_unlock(&srcu, cookie);
	spin_unlock(&lock);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 1);
	teardown(true);
}

/* ---- the worker comes and goes ---- */

TEST(srcu_callback, start_and_stop)
{
	struct item items[50] = {0};

	setup(false);
	srcu_workers_stop(); /* of nothing */
	for (int i = 0; i < 50; i++) {
		items[i].number = i + 1;
		call_srcu(&srcu, &items[i].head, item_func);
		if (i % 10 == 4) {
			/* Finds the callbacks that were queued before it started. */
			expect_eq(srcu_workers_start(), 0);
			expect_eq(srcu_workers_start(), 0);
			poll_ran(i + 1);
		}
		if (i % 10 == 7) {
			/* Runs what is queued. */
			srcu_workers_stop();
			expect_eq(atomic_read(&ran), i + 1);
		}
	}
	teardown(false);
	expect_eq(atomic_read(&ran), 50);
}

static void call_stop(void *arg)
{
	srcu_workers_stop();
	atomic_set_release((atomic_t *)arg, 1);
}

/* The worker does not end before a parked domain had its turn. */
TEST(srcu_callback, stop_waits_for_parked_domains)
{
	struct item item = {.number = 1};
	struct sitter reader;
	struct kthread stopper;

	expect_eq(init_srcu_struct(&srcu), 0);
	for (int i = 1; i <= 50; i++) {
		atomic_t stopped = ATOMIC_INIT(0);

		expect_eq(srcu_workers_start(), 0);
		item.number = i;
		sitter_start(&reader, &srcu);
		call_srcu(&srcu, &item.head, item_func);
		wait_for_blocked_grace_period(&srcu);
		expect_eq(kthread_run(&stopper, "stopper", call_stop, &stopped), 0);
		/* A chance to do it wrong. */
		for (int n = 0; n < i; n++)
			sched_yield();
		expect_eq(atomic_read(&stopped), 0);
		sitter_stop(&reader);
		kthread_join(&stopper);
		expect_eq(atomic_read(&ran), i);
	}
	teardown(false);
}

/* A barrier runs callbacks itself, and is in the middle of one, when a worker is started. */
TEST(srcu_callback, worker_started_beside_a_barrier)
{
	struct park inside;
	struct item parked = {.number = 2, .park = &inside}, next = {.number = 3};
	struct item behind = {.number = 1};
	struct srcu_struct other;
	atomic_t passed = ATOMIC_INIT(0);
	struct kthread waiter;

	setup(false);
	expect_eq(init_srcu_struct(&other), 0);
	park_init(&inside);
	call_srcu(&srcu, &parked.head, item_func);
	expect_eq(kthread_run(&waiter, "barrier", call_barrier, &passed), 0);
	park_wait(&inside, 1);
	expect_eq(srcu_workers_start(), 0);
	call_srcu(&srcu, &next.head, item_func);
	/* Served in order: once this ran, the worker has tried, and parked the domain. */
	call_srcu(&other, &behind.head, item_func);
	while (atomic_read_acquire(&ran) < 1)
		sched_yield();
	park_release(&inside);
	kthread_join(&waiter);
	/* Nobody asks for it: the barrier told the worker when it left. */
	poll_ran(3);
	expect_eq(cleanup_srcu_struct(&other), 0);
	teardown(true);
}

#ifndef SRCU_ABSTRACT /* which has none of this inside */
static atomic_t signals;

static void count_signal(int sig)
{
	(void)sig;
	atomic_inc(&signals);
}

static sigset_t worker_mask;
static cpu_set_t worker_cpus;

static void look_around(struct srcu_head *head)
{
	(void)head;
	pthread_sigmask(SIG_SETMASK, NULL, &worker_mask);
	sched_getaffinity(0, sizeof(worker_cpus), &worker_cpus);
	atomic_inc_return(&ran);
}

/* On the worker: no barrier, which would run it here. */
static void look_around_on_worker(void)
{
	static struct srcu_head head;

	call_srcu(&srcu, &head, look_around);
	poll_ran(1);
}

/* Handlers run on the program's threads, and its mask is as it was. */
TEST(srcu_callback, worker_takes_no_signals)
{
	signal(SIGUSR1, count_signal);
	setup(true);
	look_around_on_worker();
	expect_eq(sigismember(&worker_mask, SIGUSR1), 1);
	expect_eq(sigismember(&worker_mask, SIGINT), 1);
	raise(SIGUSR1);
	expect_eq(atomic_read(&signals), 1);
	teardown(true);
}

/* Who starts the worker may be bound to a CPU, for work of its own there. */
TEST(srcu_callback, worker_has_the_programs_cpus)
{
	cpu_set_t all, one;
	int cpu = 0;

	expect_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	if (CPU_COUNT(&all) < 2)
		skip("there is only one CPU to run on");
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	expect_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	setup(true);
	look_around_on_worker();
	expect(CPU_EQUAL(&worker_cpus, &all));
	expect_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	expect(CPU_EQUAL(&all, &one));
	teardown(true);
}

/* ---- fork ---- */

/* Starts a worker that runs callback number @nr. */
static void child_starts_worker(__attribute__((unused)) int nr)
{
#ifndef GNOMON_TSAN /* which cannot start threads after such a fork */
	struct item item = {.number = nr};

	child_expects(!srcu_workers_start());
	call_srcu(&srcu, &item.head, item_func);
	poll_ran(nr);
	srcu_workers_stop();
#endif
}

/* A barrier runs callbacks by itself, and a new worker may start. */
static void child_has_no_worker(void)
{
	struct item item = {.number = 2};

	srcu_workers_stop();
	call_srcu(&srcu, &item.head, item_func);
	child_expects(atomic_read(&ran) == 1);
	srcu_barrier(&srcu);
	child_expects(atomic_read(&ran) == 2);
	child_starts_worker(3);
	child_expects(!cleanup_srcu_struct(&srcu));
}

TEST(srcu_callback, forked_child_has_no_worker)
{
	struct item items[2] = {{.number = 1}, {.number = 2}};

	setup(true);
	/*
	 * The worker has to have run: a thread that starts allocates, and ASan's allocator, unlike
	 * libc's, is not taken over a fork, so that the child would find it locked for ever.
	 */
	call_srcu(&srcu, &items[0].head, item_func);
	poll_ran(1);
	in_child(child_has_no_worker, 20);
	call_srcu(&srcu, &items[1].head, item_func);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	teardown(true);
}

/* The stack of a thread that the child does not have is that of a new thread there. */
static __attribute__((unused)) void overwrite_stack(void *arg)
{
	volatile char room[32768];

	(void)arg;
	for (size_t i = 0; i < sizeof(room); i++)
		room[i] = (char)0xa5;
}

static void child_runs_callbacks(void)
{
#ifndef GNOMON_TSAN
	struct kthread t;

	child_expects(!kthread_run(&t, "stack", overwrite_stack, NULL));
	kthread_join(&t);
#endif
	srcu_barrier(&srcu);
	child_expects(atomic_read(&ran) == 1);
	child_expects(!cleanup_srcu_struct(&srcu));
}

/* A barrier waits for a reader, with a mark in the queue that lies on its stack. */
TEST(srcu_callback, fork_beside_a_barrier)
{
	struct item item = {.number = 1};
	atomic_t passed = ATOMIC_INIT(0);
	struct sitter reader;
	struct kthread waiter;

	setup(false);
	sitter_start(&reader, &srcu);
	call_srcu(&srcu, &item.head, item_func);
	expect_eq(kthread_run(&waiter, "barrier", call_barrier, &passed), 0);
	wait_for_blocked_grace_period(&srcu);
	in_child(child_runs_callbacks, 20);
	sitter_stop(&reader);
	kthread_join(&waiter);
	expect_eq(atomic_read(&ran), 1);
	teardown(false);
}

/* The reader is gone, and so is the worker. */
static void child_inherits_parked(void)
{
	srcu_barrier(&srcu);
	child_expects(atomic_read(&ran) == 1);
	child_starts_worker(2);
	child_expects(!cleanup_srcu_struct(&srcu));
}

/* The worker waits for a reader when somebody forks, and a kick is half done on another thread. */
TEST(srcu_callback, fork_beside_a_parked_domain)
{
	struct item item = {.number = 1};
	struct sitter reader;

	setup(true);
	sitter_start(&reader, &srcu);
	call_srcu(&srcu, &item.head, item_func);
	wait_for_blocked_grace_period(&srcu);
	WRITE_ONCE(srcu.d->kicked, 1);
	in_child(child_inherits_parked, 20);
	/* The other half: the worker may have wanted to push the domain itself meanwhile. */
	WRITE_ONCE(srcu.d->kicked, 0);
	srcu_worker_kick(srcu.d);
	sitter_stop(&reader);
	poll_ran(1);
	teardown(true);
}
#endif

/* ---- many callers ---- */

#define NR_CALLERS 4

struct numbered {
	struct srcu_head head;
	int caller;
	long number;
};

static long next_number[NR_CALLERS]; /* plain: callbacks run one at a time */

static void check_number(struct srcu_head *head)
{
	struct numbered *n = container_of(head, struct numbered, head);

	expect_eq(n->number, next_number[n->caller]);
	next_number[n->caller]++;
	free(n);
}

static long calls(void)
{
	return test_long() ? 200000 : 10000;
}

static void call_many(void *arg)
{
	int caller = *(int *)arg;

	for (long i = 0; i < calls(); i++) {
		struct numbered *n = malloc(sizeof(*n));

		n->caller = caller;
		n->number = i;
		call_srcu(&srcu, &n->head, check_number);
		if (i % 1000 == 0) {
			srcu_barrier(&srcu);
			/* Ours are done; plain, as the barrier orders it. */
			expect_eq(next_number[caller], i + 1);
		}
		if (caller == 0 && i % 500 == 0) {
			int cookie = srcu_read_lock(&srcu);

			sched_yield();
			srcu_read_unlock(&srcu, cookie);
		}
	}
}

static void run_many(bool worker)
{
	struct kthread callers[NR_CALLERS];
	int ids[NR_CALLERS];

	setup(worker);
	for (int i = 0; i < NR_CALLERS; i++) {
		ids[i] = i;
		expect_eq(kthread_run(&callers[i], "caller", call_many, &ids[i]), 0);
	}
	for (int i = 0; i < NR_CALLERS; i++)
		kthread_join(&callers[i]);
	srcu_barrier(&srcu);
	for (int i = 0; i < NR_CALLERS; i++)
		expect_eq(next_number[i], calls());
	teardown(worker);
}

TEST(srcu_callback, many_callers_without_worker)
{
	run_many(false);
}

TEST(srcu_callback, many_callers_with_worker)
{
	run_many(true);
}

/* ---- misuse ---- */

static void barrier_in_own_callback(void *arg)
{
	struct item item = {.number = 1, .barrier = &srcu};

	(void)arg;
	call_srcu(&srcu, &item.head, item_func);
	srcu_barrier(&srcu);
}

TEST(srcu_callback, barrier_in_own_callback_is_a_bug)
{
	setup(false);
	expect_bug(barrier_in_own_callback, NULL, "by one of its own callbacks");
	teardown(false);
}

#ifndef SRCU_ABSTRACT /* which looks at the innermost one only */
/* Also when it comes by way of another domain's callback, in which it is allowed. */
static void barrier_in_own_callback_through_others(void *arg)
{
	struct srcu_struct other;
	struct item outer = {.number = 2, .barrier = &other},
		    inner = {.number = 1, .barrier = &srcu};

	(void)arg;
	init_srcu_struct(&other);
	call_srcu(&srcu, &outer.head, item_func);
	call_srcu(&other, &inner.head, item_func);
	srcu_barrier(&srcu);
}

TEST(srcu_callback, nested_misuse_is_a_bug)
{
	setup(false);
	expect_bug(barrier_in_own_callback_through_others, NULL, "by one of its own callbacks");
	teardown(false);
}
#endif

static void stop_func(struct srcu_head *head)
{
	(void)head;
	srcu_workers_stop();
}

static void stop_in_callback(void *arg)
{
	static struct srcu_head head;

	(void)arg;
	call_srcu(&srcu, &head, stop_func);
	srcu_barrier(&srcu);
}

TEST(srcu_callback, stop_in_callback_is_a_bug)
{
	setup(false);
	expect_bug(stop_in_callback, NULL, "srcu_workers_stop() by a callback");
	teardown(false);
}

/* Of another domain it is allowed. */
TEST(srcu_callback, barrier_in_others_callback)
{
	struct srcu_struct other;
	struct item outer = {.number = 2, .barrier = &other}, inner = {.number = 1};

	setup(false);
	expect_eq(init_srcu_struct(&other), 0);
	call_srcu(&srcu, &outer.head, item_func);
	call_srcu(&other, &inner.head, item_func);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	expect_eq(cleanup_srcu_struct(&other), 0);
	teardown(false);
}
