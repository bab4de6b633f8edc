/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lock checking reports what it says it reports, and nothing else. Debug builds only.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>

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

/* What was mapped at @p is no more. The sanitizers map things of their own, perhaps there. */
static void expect_unmapped(const void *p)
{
	expect(p);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
	expect_eq(madvise((void *)((uintptr_t)p & ~4095ul), 4096, MADV_NORMAL), -1);
	expect_eq(errno, ENOMEM);
#endif
}

static const void *small_stack, *big_stack;

static void fill_a_stack(void *arg)
{
	static struct rw_semaphore sems[DEEP];

	(void)arg;
	mutex_lock(&mutex);
	small_stack = current_thread()->held;
	for (int i = 0; i < DEEP; i++)
		down_write_nest_lock(&sems[i], &mutex);
	big_stack = current_thread()->held;
	expect_unmapped(small_stack);
	for (int i = 0; i < DEEP; i++)
		up_write(&sems[i]);
	mutex_unlock(&mutex);
}

/* The one it grew out of at once, the last when its thread ends. */
TEST(lockdep, stack_is_freed)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "deep", fill_a_stack, NULL), 0);
	kthread_join(&t);
	expect_unmapped(big_stack);
}

static void lock_without_memory(void *arg)
{
	const struct rlimit none = {0, 0};

	(void)arg;
	setrlimit(RLIMIT_AS, &none);
	mutex_lock(&mutex);
}

TEST(lockdep, stack_needs_memory)
{
	expect_bug(lock_without_memory, NULL, "no memory for the stack of held locks, 128 deep");
}

/* Made after the first lock was taken, so it is destroyed after the stack was. */
static pthread_key_t late_key;
static int late_locks;

static void lock_late(void *arg)
{
	(void)arg;
	expect(!current_thread()->held);
	mutex_lock(&mutex);
	expect(lockdep_is_held(&mutex));
	mutex_unlock(&mutex);
	small_stack = current_thread()->held;
	late_locks++;
}

static void *end_late(void *arg)
{
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	pthread_setspecific(late_key, arg);
	return NULL;
}

TEST(lockdep, locks_of_a_late_destructor)
{
	pthread_t t;

	mutex_lock(&mutex);
	mutex_unlock(&mutex);
	expect_eq(pthread_key_create(&late_key, lock_late), 0);
	expect_eq(pthread_create(&t, NULL, end_late, &late_key), 0);
	pthread_join(t, NULL);
	expect_eq(late_locks, 1);
	expect_unmapped(small_stack);
}

/* --- sections, which may end elsewhere --- */

static struct lockdep_map section = LOCKDEP_MAP_INIT(&section, "section");
static uint64_t tokens[DEEP];

static void enter(int i)
{
	tokens[i] = 1;
	lockdep_section_enter(&section, &tokens[i], 1, LOCK_SITE_OF("section"));
}

/* Those that ended make room; neither do those that are open, nor locks. */
TEST(lockdep, sections_that_ended_elsewhere)
{
	mutex_lock(&mutex);
	enter(0);
	for (int i = 1; i < DEEP; i++) {
		enter(i);
		tokens[i] = 2;
	}
	expect_eq(current_thread()->max_held, 128);
	lockdep_assert_held(&mutex);
	expect(lockdep_is_held(&section));
	lockdep_section_leave(&tokens[0]);
	expect(!lockdep_is_held(&section));
	lockdep_assert_held(&mutex);
	mutex_unlock(&mutex);
}

TEST(lockdep, section_ends_under_others)
{
	mutex_lock(&mutex);
	enter(0);
	enter(1);
	spin_lock(&spin);
	lockdep_section_leave(&tokens[0]);
	lockdep_section_leave(&tokens[2]); /* not ours: nothing happens */
	lockdep_assert_held(&spin);
	lockdep_assert_held(&mutex);
	expect(lockdep_is_held(&section));
	expect_eq(current_thread()->nr_held, 3);
	spin_unlock(&spin);
	lockdep_section_leave(&tokens[1]);
	expect(!lockdep_is_held(&section));
	mutex_unlock(&mutex);
	expect_eq(current_thread()->nr_held, 0);
}

static void leave_open(void *arg)
{
	(void)arg;
	enter(0);
}

/* That is no lock held. */
TEST(lockdep, section_outlives_its_thread)
{
	struct kthread t;

	expect_eq(kthread_run(&t, "opener", leave_open, NULL), 0);
	kthread_join(&t);
}

static void wait_in_open_section(void *arg)
{
	enter(0);
	if (arg)
		tokens[0] = 2;
	lock_map_visit(&section);
	lockdep_might_sleep(LOCK_SITE_OF("might_sleep"));
	spin_lock(&spin);
	might_sleep();
}

/* The order of one that ended is none. */
TEST(lockdep, only_open_sections_count)
{
	expect_bug(wait_in_open_section, NULL, "is held by this thread already");
	expect_bug(wait_in_open_section, "", "may sleep, but this thread holds a spinlock");
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

static void sleep_a_while(void *arg)
{
	(void)arg;
	spin_lock(&spin);
	fsleep(0);
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
	expect_bug(sleep_a_while, NULL, "may sleep, but this thread holds a spinlock");
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

static void block_again(void *arg)
{
	(void)arg;
	non_block_start();
	non_block_end();
	non_block_end();
}

TEST(lockdep, reports_non_block_end_without_start)
{
	expect_bug(block_again, NULL, "non_block_end() has its non_block_start()");
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

/* Made before the first lock was taken, so it is destroyed before the stack is. */
static pthread_key_t early_key;

static void unlock_early(void *arg)
{
	(void)arg;
	mutex_unlock(&mutex);
}

static void keep_until_the_end(void *arg)
{
	mutex_lock(&mutex);
	pthread_setspecific(early_key, arg);
}

static void unlock_too_late(void *arg)
{
	struct kthread t;

	pthread_key_create(&early_key, unlock_early);
	kthread_run(&t, "late", keep_until_the_end, arg);
	kthread_join(&t);
}

/* kthread_run: @fn must have dropped every lock when it returns. */
TEST(lockdep, reports_thread_that_unlocks_too_late)
{
	expect_bug(unlock_too_late, "", "thread ends with 1 locks held, the last a mutex");
}

TEST(lockdep, reports_thread_that_ends_with_a_lock)
{
	expect_bug(end_with_lock, NULL, "thread ends with 1 locks held, the last a mutex");
	expect_bug(end_foreign_with_lock, NULL, "thread ends with 1 locks held");
}

#endif
