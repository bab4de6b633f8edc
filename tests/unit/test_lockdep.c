/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lock checking reports what it says it reports, and nothing else. Debug builds only.
 */
#include "notifier/sync/alloc.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "tests/support/test.h"

#ifndef CONFIG_LOCKDEP

TEST(lockdep, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

static DEFINE_SPINLOCK(spin);
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(sem);
static DECLARE_WAIT_QUEUE_HEAD(wq);

TEST(lockdep, follows_every_lock)
{
	expect(!lockdep_is_held(&mutex));
	mutex_lock(&mutex);
	down_read(&sem);
	spin_lock(&spin);
	lockdep_assert_held(&mutex);
	lockdep_assert_held(&spin);
	lockdep_assert_held(&sem);
	lockdep_assert_held_read(&sem);
	expect(!lockdep_is_held_kind(&sem, HELD_WRITE));
	expect_eq(current_thread()->nr_held, 3);
	/* Not in reverse order. */
	mutex_unlock(&mutex);
	expect(!lockdep_is_held(&mutex));
	lockdep_assert_held(&spin);
	up_read(&sem);
	spin_unlock(&spin);
	expect_eq(current_thread()->nr_held, 0);
	might_sleep();

	down_write(&sem);
	lockdep_assert_held_write(&sem);
	downgrade_write(&sem);
	lockdep_assert_held_read(&sem);
	up_read(&sem);

	expect(spin_trylock(&spin));
	expect_eq(current_thread()->nr_spinlocks, 1);
	spin_unlock(&spin);
	expect_eq(current_thread()->nr_held, 0);
	expect_eq(current_thread()->nr_spinlocks, 0);
}

#define DEEP 1000

TEST(lockdep, stack_grows)
{
	static struct rw_semaphore sems[DEEP];

	mutex_lock(&mutex);
	for (int i = 0; i < DEEP; i++)
		down_write_nest_lock(&sems[i], &mutex);
	expect_eq(current_thread()->nr_held, DEEP + 1);
	for (int i = 0; i < DEEP; i++) {
		lockdep_assert_held_write(&sems[i]);
		up_write(&sems[i]);
	}
	mutex_unlock(&mutex);
	expect_eq(current_thread()->nr_held, 0);
}

static void see_nothing_held(void *arg)
{
	(void)arg;
	expect(!lockdep_is_held(&mutex));
	expect_eq(current_thread()->nr_held, 0);
	spin_lock(&spin);
	spin_unlock(&spin);
}

TEST(lockdep, stacks_are_per_thread)
{
	struct kthread t;

	mutex_lock(&mutex);
	expect_eq(kthread_run(&t, "other", see_nothing_held, NULL), 0);
	kthread_join(&t);
	lockdep_assert_held(&mutex);
	mutex_unlock(&mutex);
}

static void lock_twice(void *arg)
{
	(void)arg;
	mutex_lock(&mutex);
	mutex_lock(&mutex);
}

static void spin_twice(void *arg)
{
	(void)arg;
	spin_lock(&spin);
	spin_lock(&spin);
}

static void read_twice(void *arg)
{
	(void)arg;
	down_read(&sem);
	down_read(&sem);
}

static void write_then_read(void *arg)
{
	(void)arg;
	down_write(&sem);
	down_read(&sem);
}

TEST(lockdep, reports_self_deadlock)
{
	expect_bug(lock_twice, NULL, "is held by this thread already, as mutex");
	expect_bug(spin_twice, NULL, "is held by this thread already, as spinlock");
	expect_bug(read_twice, NULL, "is held by this thread already, as rwsem for reading");
	expect_bug(write_then_read, NULL, "is held by this thread already, as rwsem for writing");
}

static void sleep_mutex(void *arg)
{
	(void)arg;
	spin_lock(&spin);
	mutex_lock(&mutex);
}

static void sleep_rwsem(void *arg)
{
	(void)arg;
	spin_lock(&spin);
	down_read(&sem);
}

static void sleep_wait(void *arg)
{
	(void)arg;
	spin_lock(&spin);
	wait_event(wq, true);
}

static void sleep_alloc(void *arg)
{
	(void)arg;
	spin_lock(&spin);
	kfree(kmalloc(8, GFP_ATOMIC));
	kfree(kmalloc(8, GFP_KERNEL));
}

TEST(lockdep, reports_sleep_under_spinlock)
{
	expect_bug(sleep_mutex, NULL, "may sleep, but this thread holds a spinlock");
	expect_bug(sleep_rwsem, NULL, "may sleep, but this thread holds a spinlock");
	expect_bug(sleep_wait, NULL, "may sleep, but this thread holds a spinlock");
	expect_bug(sleep_alloc, NULL, "may sleep, but this thread holds a spinlock");
}

static void unlock_free(void *arg)
{
	(void)arg;
	mutex_unlock(&mutex);
}

static void unlock_wrong_mode(void *arg)
{
	(void)arg;
	down_read(&sem);
	up_write(&sem);
}

static void downgrade_read(void *arg)
{
	(void)arg;
	down_read(&sem);
	downgrade_write(&sem);
}

static void assert_free(void *arg)
{
	(void)arg;
	lockdep_assert_held(&mutex);
}

static void assert_write(void *arg)
{
	(void)arg;
	down_read(&sem);
	lockdep_assert_held_write(&sem);
}

TEST(lockdep, reports_what_is_not_held)
{
	expect_bug(unlock_free, NULL, "dropped by a thread that does not hold it");
	expect_bug(unlock_wrong_mode, NULL, "rwsem for writing");
	expect_bug(downgrade_read, NULL, "downgraded by a thread that does not hold it");
	expect_bug(assert_free, NULL, "&mutex");
	expect_bug(assert_write, NULL, "&sem");
}

static void keep_mutex(void *arg)
{
	(void)arg;
	mutex_lock(&mutex);
}

static void end_with_lock(void *arg)
{
	struct kthread t;

	(void)arg;
	kthread_run(&t, "keeper", keep_mutex, NULL);
	kthread_join(&t);
}

static void *keep_mutex_foreign(void *arg)
{
	keep_mutex(arg);
	return NULL;
}

static void end_foreign_with_lock(void *arg)
{
	pthread_t t;

	(void)arg;
	pthread_create(&t, NULL, keep_mutex_foreign, NULL);
	pthread_join(t, NULL);
}

TEST(lockdep, reports_thread_that_ends_with_a_lock)
{
	expect_bug(end_with_lock, NULL, "thread ends with 1 locks held, the last a mutex");
	expect_bug(end_foreign_with_lock, NULL, "thread ends with 1 locks held");
}

#endif
