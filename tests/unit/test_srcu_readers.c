/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU readers as programs have them, inline, with counts of their own: linked against a library
 * without lockdep, also in debug builds, where readers would go out of line. What they lean on is
 * tried here: the heavy barrier, signal handlers, fork, the end of threads, and running out of
 * thread numbers.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/child.h"
#include "tests/support/relax.h"
#include "tests/support/srcu_litmus.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/syscall_filter.h"
#include "tests/support/test.h"

static struct srcu_struct srcu;
static atomic_t stop;
static atomic64_t sections;

static void setup(void)
{
	expect_eq(init_srcu_struct(&srcu), 0);
}

static void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* ---- the heavy barrier ---- */

static void synchronize(uint64_t i)
{
	synchronize_srcu(&srcu);
	smp_store_release(&litmus_y, i);
}

TEST(srcu_readers, litmus)
{
	setup();
	run_srcu_litmus(&srcu, 1, test_long() ? 10000000 : 500000, synchronize);
	teardown();
}

/* ---- signal handlers ---- */

static atomic64_t signals;

static void read_in_handler(int sig)
{
	int outer = srcu_read_lock(&srcu);
	int inner = srcu_read_lock(&srcu);

	(void)sig;
	srcu_read_unlock(&srcu, outer);
	srcu_read_unlock(&srcu, inner);
	atomic64_inc(&signals);
}

static void handle_signals(void)
{
	struct sigaction action = {.sa_handler = read_in_handler, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &action, NULL);
}

static void read_all_the_time(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop)) {
		srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
		/* ThreadSanitizer delivers signals at calls only. */
		if (atomic64_add_return(1, &sections) % 1024 == 0)
			sched_yield();
	}
}

/* A count that a handler's falls into would be lost, and the domain never empty again. */
TEST(srcu_readers, handlers_lose_no_count)
{
	struct sweep sweep = sweep_start(3000);
	struct kthread reader;

	setup();
	handle_signals();
	expect_eq(kthread_run(&reader, "reader", read_all_the_time, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		expect_eq(pthread_kill(reader.handle, SIGUSR1), 0);
		poll_until(&signals, i);
		if (i % 64 == 0)
			synchronize_srcu(&srcu);
	}
	atomic_set(&stop, 1);
	kthread_join(&reader);
	synchronize_srcu(&srcu);
	teardown();
}

static atomic_t in_callbacks_way;

static void unlock_in_handler(int sig)
{
	(void)sig;
	srcu_read_unlock(&srcu, atomic_read_acquire(&in_callbacks_way));
	atomic64_inc(&signals);
}

static void count_callback(struct srcu_head *head)
{
	(void)head;
	atomic64_inc_return(&sections);
}

static void kick_all_the_time(void *arg)
{
	(void)arg;
	while (!atomic_read(&stop))
		srcu_worker_kick(srcu.d);
}

/* An unlock kicks the worker. So may the code that the handler interrupts, at any moment of it. */
TEST(srcu_readers, handlers_wake_the_worker)
{
	struct sweep sweep = sweep_start(4000);
	struct sigaction action = {.sa_handler = unlock_in_handler, .sa_flags = SA_RESTART};
	struct srcu_head head;
	struct kthread kicker;

	setup();
	sigaction(SIGUSR1, &action, NULL);
	expect_eq(srcu_workers_start(), 0);
	expect_eq(kthread_run(&kicker, "kicker", kick_all_the_time, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		atomic_set_release(&in_callbacks_way, srcu_read_lock(&srcu));
		call_srcu(&srcu, &head, count_callback);
		wait_for_blocked_grace_period(&srcu);
		expect_eq(pthread_kill(kicker.handle, SIGUSR1), 0);
		poll_until(&signals, i);
		poll_until(&sections, i);
	}
	atomic_set(&stop, 1);
	kthread_join(&kicker);
	teardown();
	srcu_workers_stop();
}

static void first_use_in_handler(void *arg)
{
	(void)arg;
	raise(SIGUSR1);
	srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
	raise(SIGUSR1);
}

TEST(srcu_readers, first_use_in_a_handler)
{
	struct sweep sweep = sweep_start(200);
	struct kthread t;

	setup();
	handle_signals();
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		expect_eq(kthread_run(&t, "first", first_use_in_handler, NULL), 0);
		kthread_join(&t);
		synchronize_srcu(&srcu);
		expect_eq(atomic64_read(&signals), 2 * i);
	}
	teardown();
}

static unsigned int numbers_used(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SRCU_MAX_THREADS / 64; i++)
		n += (unsigned int)__builtin_popcountll(READ_ONCE(srcu_numbers_used[i]));
	return n;
}

/*
 * As a handler finds it that interrupts the registration: there is no slot, and there is nobody to
 * make one. It counts in everybody's. By hand; then the registration goes on, and the unlock counts
 * elsewhere.
 */
static void read_while_registering(void *arg)
{
	struct thread_state *self = current_thread();
	struct park *inside = arg;
	int cookie;

	self->srcu_slot_tried = true;
	cookie = srcu_read_lock(&srcu);
	expect(!__srcu_base);
	expect(!self->srcu_slot);
	park_enter(inside);
	self->srcu_slot_tried = false;
	srcu_read_unlock(&srcu, cookie);
	expect(self->srcu_slot);
}

TEST(srcu_readers, registration_is_interrupted)
{
	struct syncer updater;
	struct park inside;
	struct kthread t;

	setup();
	park_init(&inside);
	expect_eq(kthread_run(&t, "handler", read_while_registering, &inside), 0);
	park_wait(&inside, 1);
	expect_eq(numbers_used(), 1);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	expect(!atomic_read(&updater.done));
	park_release(&inside);
	kthread_join(&updater.thread);
	kthread_join(&t);
	expect_eq(numbers_used(), 1);
	teardown();
}

/* The same by luck: the signal sweeps over the first use of each of many threads. */
struct first_use {
	atomic64_t go, there;
};

static void first_use_at_signal(void *arg)
{
	struct first_use *use = arg;

	atomic64_set_release(&use->there, 1);
	poll_until(&use->go, 1);
	srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
	poll_until(&use->go, 2);
}

TEST(srcu_readers, handler_at_the_first_use)
{
	struct sweep sweep = sweep_start(3000);

	setup();
	handle_signals();
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		struct first_use use = {0};
		struct kthread t;

		expect_eq(kthread_run(&t, "first", first_use_at_signal, &use), 0);
		poll_until(&use.there, 1);
		atomic64_set_release(&use.go, 1);
		relax((unsigned int)i % 200);
		expect_eq(pthread_kill(t.handle, SIGUSR1), 0);
		poll_until(&signals, i);
		atomic64_set_release(&use.go, 2);
		kthread_join(&t);
		expect_eq(numbers_used(), 1);
		synchronize_srcu(&srcu);
	}
	teardown();
}

/* ---- threads come and go ---- */

static void read_once(void *arg)
{
	(void)arg;
	srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
	atomic64_inc(&sections);
}

TEST(srcu_readers, numbers_are_given_back)
{
	struct sweep sweep = sweep_start(100);
	struct kthread threads[8];

	setup();
	expect_eq(numbers_used(), 1); /* everybody's */
	read_once(NULL);
	expect_eq(numbers_used(), 2);
	for (int64_t round = 1; sweep_goes_on(&sweep, round); round++) {
		for (int i = 0; i < 8; i++)
			expect_eq(kthread_run(&threads[i], "short", read_once, NULL), 0);
		synchronize_srcu(&srcu);
		for (int i = 0; i < 8; i++)
			kthread_join(&threads[i]);
		expect_eq(numbers_used(), 2);
	}
	teardown();
}

static int left_open;

static void lock_and_end(void *arg)
{
	(void)arg;
	left_open = srcu_read_lock(&srcu);
}

/* The section of a thread that has ended, its number another's by now: still waited for. */
TEST(srcu_readers, section_outlives_its_thread)
{
	struct syncer updater;
	struct kthread t;

	setup();
	expect_eq(kthread_run(&t, "locker", lock_and_end, NULL), 0);
	kthread_join(&t);
	for (int i = 0; i < 10; i++) {
		expect_eq(kthread_run(&t, "short", read_once, NULL), 0);
		kthread_join(&t);
	}
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	expect(!atomic_read(&updater.done));
	srcu_read_unlock(&srcu, left_open);
	kthread_join(&updater.thread);
	teardown();
}

static void unlock_left_open(void *arg)
{
	(void)arg;
	expect(!__srcu_base);
	srcu_read_unlock(&srcu, left_open);
}

/* Unlocked by a thread that never locked anything; then by one that cannot have a number. */
TEST(srcu_readers, unlock_by_a_stranger)
{
	struct syncer updater;
	struct kthread t;

	setup();
	for (int i = 0; i < 2; i++) {
		left_open = srcu_read_lock(&srcu);
		syncer_start(&updater, &srcu);
		wait_for_blocked_grace_period(&srcu);
		if (i == 1)
			memset(srcu_numbers_used, 0xff, sizeof(srcu_numbers_used));
		expect(!atomic_read(&updater.done));
		expect_eq(kthread_run(&t, "stranger", unlock_left_open, NULL), 0);
		kthread_join(&updater.thread);
		kthread_join(&t);
	}
	teardown();
}

static pthread_key_t late_key;

static void read_in_destructor(void *value)
{
	/* Ours has run: its key is older, and the number may be another thread's by now. */
	expect(!__srcu_base);
	expect(!current_thread()->srcu_slot);
	/* Again until the libc gives up. */
	read_once(NULL);
	pthread_setspecific(late_key, value);
}

static void end_with_destructor(void *arg)
{
	read_once(NULL);
	pthread_setspecific(late_key, arg);
}

TEST(srcu_readers, destructors_may_read)
{
	struct kthread t;

	setup();
	expect_eq(pthread_key_create(&late_key, read_in_destructor), 0);
	for (int i = 0; i < 20; i++) {
		expect_eq(kthread_run(&t, "late", end_with_destructor, &late_key), 0);
		kthread_join(&t);
		synchronize_srcu(&srcu);
	}
	expect_ge(atomic64_read(&sections), 60);
	expect_eq(numbers_used(), 1);
	teardown();
}

/* ---- those who cannot count for themselves ---- */

/* Threads that run through sections at the same time: each looks whether the next one moves. */
static struct together {
	struct kthread thread;
	struct together *next;
	uint64_t pairs;
} together[3];
static atomic64_t overlaps;

static void read_together(void *arg)
{
	struct together *self = arg;
	struct sweep sweep = sweep_start(200000);
	uint64_t seen = 0, now;

	for (int64_t i = 1; sweep_goes_on(&sweep, i) && atomic64_read(&overlaps) < 5000; i++) {
		for (int n = 0; n < 64; n++)
			srcu_read_unlock(&srcu, srcu_read_lock(&srcu));
		WRITE_ONCE(self->pairs, self->pairs + 64);
		now = READ_ONCE(self->next->pairs);
		if (now != seen)
			atomic64_inc(&overlaps);
		seen = now;
	}
}

/* All in the same words: not one count is lost. */
static void run_readers_in_one_slot(void)
{
	uint64_t before[2], after[2], pairs = 0;

	srcu_sum_locks(srcu.d, before);
	for (int i = 0; i < 3; i++) {
		together[i].next = &together[(i + 1) % 3];
		expect_eq(kthread_run(&together[i].thread, "together", read_together, &together[i]),
			  0);
	}
	for (int i = 0; i < 3; i++) {
		kthread_join(&together[i].thread);
		pairs += together[i].pairs;
	}
	srcu_sum_locks(srcu.d, after);
	expect_eq(after[0] + after[1] - before[0] - before[1], pairs);
	expect(!srcu_readers_active(srcu.d));
}

static void run_readers_of_all_kinds(void)
{
	struct sitter with, without;
	struct syncer updater;

	sitter_start(&with, &srcu);
	memset(srcu_numbers_used, 0xff, sizeof(srcu_numbers_used));
	sitter_start(&without, &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	sitter_stop(&with);
	expect(!atomic_read(&updater.done));
	sitter_stop(&without);
	kthread_join(&updater.thread);
	memset(srcu_numbers_used, 0xff, sizeof(srcu_numbers_used));
	run_readers_in_one_slot();
	run_srcu_litmus(&srcu, 3, test_long() ? 200000 : 10000, synchronize);
}

TEST(srcu_readers, no_number_left)
{
	setup();
	run_readers_of_all_kinds();
	teardown();
}

/* Containers filter system calls, and old kernels do not have it. */
static void refuse_membarrier(void)
{
	filter_syscall(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM);
	expect_eq(syscall(SYS_membarrier, 0, 0, 0), -1);
}

TEST(srcu_readers, no_membarrier)
{
	refuse_membarrier();
	setup();
	read_once(NULL);
	expect(!__srcu_base);
	run_readers_of_all_kinds();
	teardown();
}

/* ---- fork ---- */

static void child_synchronizes(void)
{
	read_once(NULL);
	synchronize_srcu(&srcu);
	child_expects(numbers_used() == 2);
	child_expects(!cleanup_srcu_struct(&srcu));
}

/*
 * The threads of the parent sit in sections, of which the child hears nothing; and the grace period
 * that somebody is waiting for in the parent is nobody's in the child.
 */
TEST(srcu_readers, child_has_no_readers)
{
	struct sitter readers[3];
	struct syncer updater;

	setup();
	for (int i = 0; i < 3; i++)
		sitter_start(&readers[i], &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	in_child(child_synchronizes, 20);
	expect(!atomic_read(&updater.done));
	for (int i = 0; i < 3; i++)
		sitter_stop(&readers[i]);
	kthread_join(&updater.thread);
	teardown();
}

static void child_leaves_its_section(void)
{
	child_expects(!poll_state_synchronize_srcu(&srcu, start_poll_synchronize_srcu(&srcu)));
	srcu_read_unlock(&srcu, left_open);
	synchronize_srcu(&srcu);
}

/* A section of the thread that forks is one section in each process. */
TEST(srcu_readers, fork_inside_a_section)
{
	struct sitter other;

	setup();
	sitter_start(&other, &srcu);
	left_open = srcu_read_lock(&srcu);
	in_child(child_leaves_its_section, 20);
	expect(!poll_state_synchronize_srcu(&srcu, start_poll_synchronize_srcu(&srcu)));
	srcu_read_unlock(&srcu, left_open);
	sitter_stop(&other);
	teardown();
}
