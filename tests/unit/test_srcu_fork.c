/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a forked child finds of SRCU domains: other threads' locks, waits, sections and callbacks
 * are nobody's there. The child has no thread but the one that forked; whatever it waits for must
 * be its own.
 */
#include <unistd.h>

#include "notifier/sync/util.h"
#include "tests/support/child.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

static struct srcu_struct srcu;
static atomic_t ran;

static void setup(void)
{
#ifdef __SANITIZE_THREAD__
	skip("a child that ends as the parent's thread does is a thread leak to ThreadSanitizer");
#endif
	expect_eq(init_srcu_struct(&srcu), 0);
}

static void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

static void count(struct srcu_head *head)
{
	(void)head;
	atomic_inc_return(&ran);
}

/* ---- locks and waits ---- */

static atomic_t locked, let_go;

static void hold_gp_lock(void *arg)
{
	(void)arg;
	spin_lock(&srcu.d->gp_lock);
	atomic_set_release(&locked, 1);
	while (!atomic_read_acquire(&let_go))
		sched_yield();
	spin_unlock(&srcu.d->gp_lock);
}

static void child_synchronizes(void)
{
	synchronize_srcu(&srcu);
	child_expects(!cleanup_srcu_struct(&srcu));
}

TEST(srcu_fork, grace_period_is_being_driven)
{
	struct kthread driver;

	setup();
	expect_eq(kthread_run(&driver, "driver", hold_gp_lock, NULL), 0);
	while (!atomic_read_acquire(&locked))
		sched_yield();
	in_child(child_synchronizes, 4);
	atomic_set_release(&let_go, 1);
	kthread_join(&driver);
	teardown();
}

static void child_is_not_waited_for(void)
{
	child_expects(!grace_period_is_blocked(&srcu));
	child_expects(!srcu.d->gp_wait.waiters);
	child_synchronizes();
}

TEST(srcu_fork, somebody_waits_for_a_reader)
{
	struct sitter reader;
	struct syncer updater;

	setup();
	sitter_start(&reader, &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	while (!READ_ONCE(srcu.d->gp_wait.waiters))
		sched_yield();
	in_child(child_is_not_waited_for, 4);
	sitter_stop(&reader);
	kthread_join(&updater.thread);
	teardown();
}

static int cookie;

static void child_waits_for_itself(void)
{
	unsigned long snap = READ_ONCE(srcu.d->gp_seq) + 1;
	struct srcu_scan scan;

	child_expects(srcu_read_lock_held(&srcu));
	child_expects(!poll_state_synchronize_srcu(&srcu, snap));
	/* Nor when it is looked at with an eye to sleeping, as the worker does. */
	child_expects(srcu_scan_begin(srcu.d, snap, &scan));
	srcu_heavy_barrier();
	child_expects(srcu_scan_end(srcu.d, &scan) != SRCU_PASSED);
	srcu_read_unlock(&srcu, cookie);
	child_expects(!srcu_track_held(srcu.d, false));
	child_synchronizes();
}

/*
 * Another thread was between the two stores with which a grace period begins: it runs, and no index
 * is left to be looked at. The section of the thread that forks is open.
 */
TEST(srcu_fork, grace_period_is_beginning)
{
	struct srcu_domain *d;

	setup();
	d = srcu.d;
	cookie = srcu_read_lock(&srcu);
	d->need = 0;
	d->gp_seq++;
	in_child(child_waits_for_itself, 4);
	d->gp_seq--;
	srcu_read_unlock(&srcu, cookie);
	teardown();
}

/* ---- sections ---- */

/* The thread that forks has never read anything, and so has no number. */
TEST(srcu_fork, by_a_thread_that_never_read)
{
	setup();
	in_child(child_synchronizes, 4);
	teardown();
}

static unsigned int numbers_used(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		n += (unsigned int)__builtin_popcountll(READ_ONCE(srcu_numbers_used[i]));
	return n;
}

static void child_counts_from_nothing(void)
{
	child_expects(numbers_used() == 2); /* everybody's, and its own */
	child_synchronizes();
}

/* Sections are over in the parent, of this thread and of another: in the child none ever was. */
TEST(srcu_fork, sections_that_are_over)
{
	struct sitter other;

	setup();
	sitter_start(&other, &srcu);
	for (int i = 0; i < 3; i++)
		srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
	expect_eq(numbers_used(), 3);
	srcu_numbers_used[1] = 1; /* and 61 more threads, of which one is left */
	in_child(child_counts_from_nothing, 4);
	srcu_numbers_used[1] = 0;
	sitter_stop(&other);
	teardown();
}

#ifdef CONFIG_LOCKDEP

#define FILLED 64
static struct srcu_struct filled[FILLED];

static void leave_sections_open(void *arg)
{
	(void)arg;
	for (int i = 0; i < FILLED; i++)
		for (int n = 0; n < 16; n++)
			srcu_read_lock(&filled[i]);
}

static bool section_is_recorded(void)
{
	int c = srcu_read_lock(&srcu);
	bool recorded = srcu_cookie_section(c) != 0;

	srcu_read_unlock(&srcu, c);
	return recorded;
}

static void child_has_room(void)
{
	child_expects(section_is_recorded());
}

/* Threads of the parent had sections, until there was no room to record one here. */
TEST(srcu_fork, sections_of_others_take_no_room)
{
	int i;

	setup();
	for (i = 0; i < FILLED; i++)
		expect_eq(init_srcu_struct(&filled[i]), 0);
	expect(section_is_recorded());
	for (i = 0; i < 5000 && section_is_recorded(); i++) {
		struct kthread t;

		expect_eq(kthread_run(&t, "sections", leave_sections_open, NULL), 0);
		kthread_join(&t);
	}
	expect(!section_is_recorded());
	in_child(child_has_room, 4);
	teardown();
}

#endif

/* ---- callbacks ---- */

struct item {
	struct srcu_head head;
	struct park inside;
};

static void stay_inside(struct srcu_head *head)
{
	park_enter(&container_of(head, struct item, head)->inside);
	atomic_inc_return(&ran);
}

static struct srcu_head second;

static void child_runs_the_second(void)
{
	srcu_barrier(&srcu);
	child_expects(atomic_read(&ran) == 1);
	child_expects(!cleanup_srcu_struct(&srcu));
}

/* The worker is inside a callback, and another is queued: the child has that one alone. */
TEST(srcu_fork, worker_is_inside_a_callback)
{
	struct item item;

	setup();
	park_init(&item.inside);
	expect_eq(srcu_workers_start(), 0);
	call_srcu(&srcu, &item.head, stay_inside);
	park_wait(&item.inside, 1);
	call_srcu(&srcu, &second, count);
	in_child(child_runs_the_second, 4);
	park_release(&item.inside);
	srcu_barrier(&srcu);
	expect_eq(atomic_read(&ran), 2);
	srcu_workers_stop();
	teardown();
}

static pid_t forked;

static void fork_in_callback(struct srcu_head *head)
{
	(void)head;
	forked = fork();
	if (!forked) {
		alarm(4);
		/* Nobody else may run callbacks here before this one has returned. */
		child_expects(!mutex_trylock(&srcu.d->cb_run));
	}
	atomic_inc_return(&ran);
}

/* The child is the callback, and goes on to whoever runs it, with what he holds. */
TEST(srcu_fork, by_a_callback)
{
	struct srcu_head head;
	int status;

	setup();
	call_srcu(&srcu, &head, fork_in_callback);
	call_srcu(&srcu, &second, count);
	srcu_barrier(&srcu);
	if (!forked) {
		child_expects(atomic_read(&ran) == 2);
		child_expects(!cleanup_srcu_struct(&srcu));
		_exit(0);
	}
	expect_eq(waitpid(forked, &status, 0), forked);
	expect_eq(status, 0);
	expect_eq(atomic_read(&ran), 2);
	teardown();
}

static struct srcu_struct other;
static struct srcu_head heads[2];

static void call_stop(void *arg)
{
	atomic_set_release(arg, 1);
	srcu_workers_stop();
}

static void child_starts_a_worker(void)
{
	child_expects(!srcu_workers_start());
	/* Both were parked, and have no reader any more. */
	while (atomic_read_acquire(&ran) != 2)
		sched_yield();
	srcu_workers_stop();
	child_expects(!cleanup_srcu_struct(&srcu) && !cleanup_srcu_struct(&other));
}

/* Two domains are parked, and somebody waits for the worker to end, which it does not before. */
TEST(srcu_fork, worker_is_being_stopped)
{
	atomic_t stopping = ATOMIC_INIT(0);
	struct sitter readers[2];
	struct kthread stopper;

	setup();
	expect_eq(init_srcu_struct(&other), 0);
	expect_eq(srcu_workers_start(), 0);
	sitter_start(&readers[0], &srcu);
	sitter_start(&readers[1], &other);
	call_srcu(&srcu, &heads[0], count);
	call_srcu(&other, &heads[1], count);
	wait_for_blocked_grace_period(&srcu);
	wait_for_blocked_grace_period(&other);
	expect_eq(kthread_run(&stopper, "stopper", call_stop, &stopping), 0);
	/* A thread that starts allocates, and ASan's allocator is not taken over a fork. */
	while (!atomic_read_acquire(&stopping))
		sched_yield();
	/* On its way or inside: the child copes with either. */
	for (int i = 0; i < 20; i++) {
		in_child(child_starts_a_worker, 4);
		sched_yield();
	}
	sitter_stop(&readers[0]);
	sitter_stop(&readers[1]);
	kthread_join(&stopper);
	expect_eq(atomic_read(&ran), 2);
	expect_eq(cleanup_srcu_struct(&other), 0);
	teardown();
}
