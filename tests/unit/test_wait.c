/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wait queues lose no wake-up: a lost one hangs the test. And time-outs are what they say.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "tests/support/asleep.h"
#include "tests/support/relax.h"
#include "tests/support/test.h"

/* In lines of their own: the store to one and the load of the other can be far apart. */
static wait_queue_head_t wq __attribute__((aligned(64)));
static atomic64_t turn __attribute__((aligned(64)));

static int64_t turns(void)
{
	return test_long() ? 200000 : 4000;
}

static void take_turns(void *arg)
{
	int64_t mine = *(int *)arg;

	for (int64_t t = mine; t < turns(); t += 2) {
		wait_event(wq, atomic64_read_acquire(&turn) == t);
		atomic64_set_release(&turn, t + 1);
		wake_up_all(&wq);
	}
}

/* Two threads, one condition, no lock. */
TEST(wait, ping_pong)
{
	struct kthread threads[2];
	int side[2] = {0, 1};

	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "pingpong", take_turns, &side[i]), 0);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	expect_eq(atomic64_read(&turn), turns());
	expect_eq(wq.waiters, 0);
}

/*
 * The wake-up comes at every moment of the waiter's way to sleep: before its first look, between
 * that and its entry as a waiter, between the second look and the system call, after.
 */
static atomic64_t going;

static void wait_in_turn(void *arg)
{
	(void)arg;
	for (int64_t i = 1; atomic64_read_acquire(&turn) != SWEEP_OVER; i++) {
		atomic64_set_release(&going, i);
		relax(30);
		wait_event(wq, atomic64_read_acquire(&turn) >= i);
	}
}

TEST(wait, wake_up_meets_waiter_on_its_way)
{
	struct sweep sweep = sweep_start(200000);
	struct kthread t;
	int64_t i;

	expect_eq(kthread_run(&t, "waiter", wait_in_turn, NULL), 0);
	for (i = 1; sweep_goes_on(&sweep, i); i++) {
		poll_until(&going, i);
		relax((unsigned int)(i % 150));
		atomic64_set_release(&turn, i);
		wake_up_all(&wq);
	}
	poll_until(&going, i);
	atomic64_set_release(&turn, SWEEP_OVER);
	wake_up_all(&wq);
	kthread_join(&t);
	expect_eq(wq.waiters, 0);
}

#define NR_WAITERS 8

static atomic_t released, arrived;

static void wait_for_release(void *arg)
{
	(void)arg;
	atomic_inc(&arrived);
	wake_up_all(&wq);
	wait_event(wq, atomic_read(&released));
}

TEST(wait, wakes_all)
{
	struct kthread threads[NR_WAITERS];

	for (int i = 0; i < NR_WAITERS; i++)
		expect_eq(kthread_run(&threads[i], "waiter", wait_for_release, NULL), 0);
	wait_event(wq, atomic_read(&arrived) == NR_WAITERS);
	atomic_set(&released, 1);
	wake_up_all(&wq);
	for (int i = 0; i < NR_WAITERS; i++)
		kthread_join(&threads[i]);
	expect_eq(wq.waiters, 0);
}

/* Wake-ups for other conditions of the same queue are slept through. */
TEST(wait, condition_decides)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "waiter", wait_for_release, NULL), 0);
	wait_event(wq, atomic_read(&arrived) == 1);
	for (int i = 0; i < 1000; i++)
		wake_up_all(&wq);
	atomic_set(&released, 1);
	wake_up_all(&wq);
	kthread_join(&t);
}

static int evaluated;

static bool count_true(void)
{
	evaluated++;
	return true;
}

TEST(wait, true_condition_costs_one_look)
{
	wait_event(wq, count_true());
	expect_eq(evaluated, 1);
	expect(wait_event_timeout(wq, count_true(), 0));
	expect_eq(evaluated, 2);
}

TEST(wait, timeout)
{
	uint64_t start = now_ns();

	expect(!wait_event_timeout(wq, false, 0));
	expect(!wait_event_timeout(wq, false, 30));
	expect_ge(now_ns() - start, 30000000);
	expect_eq(wq.waiters, 0);
}

TEST(wait, sleep)
{
	uint64_t start = now_ns();

	fsleep(0);
	fsleep(30000);
	expect_ge(now_ns() - start, 30000000);
}

static void nothing(int signo)
{
	(void)signo;
}

static void interrupt_sleeper(void *arg)
{
	pid_t tid = *(pid_t *)arg;

	until_asleep(tid);
	expect_eq(syscall(SYS_tgkill, getpid(), tid, SIGUSR1), 0);
}

TEST(wait, sleep_goes_on_after_a_signal)
{
	const struct sigaction action = {.sa_handler = nothing};
	pid_t tid = (pid_t)syscall(SYS_gettid);
	uint64_t start = now_ns();
	struct kthread t;

	expect_eq(sigaction(SIGUSR1, &action, NULL), 0);
	expect_eq(kthread_run(&t, "signals", interrupt_sleeper, &tid), 0);
	fsleep(1500000);
	expect_ge(now_ns() - start, 1500000000);
	kthread_join(&t);
}

/* Long before the time is up: the time-out is longer than a test may run. */
TEST(wait, timeout_is_cut_short_by_wake_up)
{
	struct kthread t;
	int side = 0;

	expect_eq(kthread_run(&t, "waker", take_turns, &side), 0);
	for (int64_t i = 1; i < turns(); i += 2) {
		expect(wait_event_timeout(wq, atomic64_read_acquire(&turn) == i, 3600 * 1000));
		atomic64_set_release(&turn, i + 1);
		wake_up_all(&wq);
	}
	kthread_join(&t);
	expect_eq(atomic64_read(&turn), turns());
}

/* False until the fifth look; after each, a wake-up for somebody else, before we can sleep. */
static bool fifth_look(void)
{
	bool done = ++evaluated >= 5;

	wake_up_all(&wq);
	return done;
}

/* A wake-up between the look and the sleep ends the sleep, and is no time-out. */
TEST(wait, wake_up_before_sleep_counts)
{
	wait_event(wq, fifth_look());
	expect_eq(evaluated, 5);
	evaluated = 0;
	expect(wait_event_timeout(wq, fifth_look(), 3600 * 1000));
	expect_eq(evaluated, 5);
}

/* The second look, after entry as a waiter, is the last if it finds the condition true. */
static bool second_look(void)
{
	return ++evaluated >= 2;
}

TEST(wait, second_look_is_enough)
{
	wait_event(wq, second_look());
	expect_eq(evaluated, 2);
	expect_eq(wq.waiters, 0);
	evaluated = 0;
	expect(wait_event_timeout(wq, second_look(), 3600 * 1000));
	expect_eq(evaluated, 2);
	expect_eq(wq.waiters, 0);
}

static void wake_sleeper(void *arg)
{
	until_asleep(*(int *)arg);
	wake_up_all(&wq);
}

/* What errno was when the sleep began is no reason for its end. */
TEST(wait, woken_up_is_no_timeout)
{
	int tid = (int)syscall(SYS_gettid);
	struct timespec deadline;
	struct kthread t;
	uint32_t seq;

	wait_deadline(&deadline, 3600 * 1000000ULL);
	seq = wait_prepare(&wq);
	expect_eq(kthread_run(&t, "waker", wake_sleeper, &tid), 0);
	errno = ETIMEDOUT;
	expect(wait_sleep(&wq, seq, &deadline));
	expect_eq(errno, ETIMEDOUT);
	wait_finish(&wq);
	kthread_join(&t);
}

/* --- the barriers, without sleep --- */

static atomic64_t handed;
static int plain;

static void take_plain(void *arg)
{
	(void)arg;
	while (!atomic64_read(&handed))
		sched_yield();
	wait_prepare(&wq);
	expect_eq(plain, 1);
	wait_finish(&wq);
}

/* One who came after a wake-up that saw nobody sees what was before it. Oracle: ThreadSanitizer. */
TEST(wait, waiter_after_wake_up_sees_all)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "waiter", take_plain, NULL), 0);
	plain = 1;
	wake_up_all(&wq);
	atomic64_set(&handed, 1);
	kthread_join(&t);
}

/*
 * Either the waiter finds the condition true, or the waker finds the waiter and moves the sequence
 * on; a waiter that has the new sequence sees what was before the wake-up.
 */
static struct {
	atomic64_t round __attribute__((aligned(64)));
	atomic64_t condition __attribute__((aligned(64)));
	atomic64_t done __attribute__((aligned(64))); /* twice the round; and one, out again */
	atomic64_t checked;
	bool saw;
	int64_t plain;
} meeting;

static void come_to_wait(void *arg)
{
	for (int64_t i = 1; poll_until(&meeting.round, i) != SWEEP_OVER; i++) {
		uint32_t before = READ_ONCE(wq.seq), seq;

		seq = wait_prepare(&wq);
		meeting.saw = atomic64_read(&meeting.condition) == i;
		if (seq != before)
			expect_eq(meeting.plain, i);
		atomic64_set_release(&meeting.done, 2 * i);
		poll_until(&meeting.checked, i);
		wait_finish(&wq);
		atomic64_set_release(&meeting.done, 2 * i + 1);
	}
	(void)arg;
}

TEST(wait, waiter_and_waker_do_not_miss_each_other)
{
	struct sweep sweep = sweep_start(5000);
	struct kthread t;

	expect_eq(kthread_run(&t, "waiter", come_to_wait, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		uint32_t before = READ_ONCE(wq.seq);
		bool woke;

		atomic64_set_release(&meeting.round, i);
		relax((unsigned int)(i % 20));
		meeting.plain = i;
		atomic64_set(&meeting.condition, i);
		wake_up_all(&wq);
		woke = READ_ONCE(wq.seq) != before;
		poll_until(&meeting.done, 2 * i);
		expect(meeting.saw || woke);
		atomic64_set_release(&meeting.checked, i);
		poll_until(&meeting.done, 2 * i + 1);
	}
	atomic64_set_release(&meeting.round, SWEEP_OVER);
	kthread_join(&t);
}

/* Locks are taken between a failing call and its errno. */
TEST(wait, errno_is_left_alone)
{
	errno = EXDEV;
	expect(!wait_event_timeout(wq, false, 1));
	expect_eq(errno, EXDEV);
}

static int64_t to_ns(const struct timespec *t)
{
	return t->tv_sec * 1000000000LL + t->tv_nsec;
}

/* A deadline is a time like any other: its nanoseconds are less than a second. */
TEST(wait, deadline)
{
	for (unsigned long ms = 0; ms < 3000; ms++) {
		struct timespec before, deadline, after;
		int64_t from;

		clock_gettime(CLOCK_MONOTONIC, &before);
		wait_deadline(&deadline, ms * 1000);
		clock_gettime(CLOCK_MONOTONIC, &after);
		expect_ge(deadline.tv_nsec, 0);
		expect_le(deadline.tv_nsec, 999999999);
		from = to_ns(&deadline) - (int64_t)ms * 1000000;
		expect_ge(from, to_ns(&before));
		expect_le(from, to_ns(&after));
	}
}

TEST(wait, init)
{
	wait_queue_head_t q = {7, 7};

	init_waitqueue_head(&q);
	expect_eq(q.seq, 0);
	expect_eq(q.waiters, 0);
}

/* With nobody there a wake-up is one look. */
TEST(wait, wake_up_of_nobody_changes_nothing)
{
	wake_up_all(&wq);
	expect_eq(wq.seq, 0);
	expect_eq(wq.waiters, 0);
}
