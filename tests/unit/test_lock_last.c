/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rule 3 of lock.h, one step at a time: whoever takes a lock last may free it at once, while the
 * one before is still inside its unlock.
 *
 * All but the last case run on one CPU, and who leaves runs there at SCHED_IDLE. So the step that
 * lets the next owner in is, nearly always, the leaver's last until that one is done: woken, it
 * runs instead. It paints the lock, as free() might, and looks at the paint once the leaver has
 * come to its end. That order is what makes a wrong unlock red, not what makes a right one green.
 */
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notifier/sync/futex.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/test.h"

#define PAINT 0xa5

union lock {
	struct raw_lock raw;
	spinlock_t spin;
	struct mutex mutex;
	struct rw_semaphore sem;
	unsigned char bytes[sizeof(struct rw_semaphore)];
};

enum how { BY_MUTEX, BY_WRITE, BY_READ };

static union lock lock;
static uint32_t leaver_tid, inside, left;

static void on_one_cpu(void)
{
	cpu_set_t cpus;
	int cpu = sched_getcpu();

	CPU_ZERO(&cpus);
	CPU_SET(cpu < 0 ? 0 : cpu, &cpus);
	expect_eq(sched_setaffinity(0, sizeof(cpus), &cpus), 0);
}

static void run_last(uint32_t tid)
{
	const struct sched_param param = {0};

	expect_eq(sched_setscheduler((pid_t)tid, SCHED_IDLE, &param), 0);
}

static void paint(void)
{
	/* As one who has the memory for himself: not what TSan is to complain of. */
	memset(&lock, PAINT, sizeof(lock));
}

static void expect_paint(void)
{
	for (unsigned int i = 0; i < sizeof(lock); i++)
		expect_eq(lock.bytes[i], PAINT);
}

static void wait_for(const uint32_t *word, uint32_t value)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
		sched_yield();
}

/* Does somebody sleep on the lock, or in the queue of it? */
static bool awaited(enum how how)
{
	if (how == BY_MUTEX)
		return READ_ONCE(lock.raw.state) == 2;
	return READ_ONCE(lock.sem.count) & RWSEM_WAITERS;
}

static void leaver(void *arg)
{
	enum how how = *(enum how *)arg;

	__atomic_store_n(&leaver_tid, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	if (how == BY_MUTEX)
		mutex_lock(&lock.mutex);
	else if (how == BY_READ)
		down_read(&lock.sem);
	else
		down_write(&lock.sem);
	__atomic_store_n(&inside, 1, __ATOMIC_RELEASE);
	while (!awaited(how))
		sched_yield();
	/* The one who waits is on its way to sleep: let it get there. */
	for (int i = 0; i < 100; i++)
		sched_yield();
	run_last(0);
	switch (how) {
	case BY_MUTEX:
		mutex_unlock(&lock.mutex);
		break;
	case BY_READ:
		up_read(&lock.sem);
		break;
	default:
		up_write(&lock.sem);
		break;
	}
	__atomic_store_n(&left, 1, __ATOMIC_RELEASE);
}

static void leave(enum how how)
{
	struct kthread t;

	on_one_cpu();
	expect_eq(kthread_run(&t, "leaver", leaver, &how), 0);
	wait_for(&inside, 1);
	if (how == BY_MUTEX)
		mutex_lock(&lock.mutex);
	else
		down_write(&lock.sem);
		/* Ours, and nobody else wants it: no unlock, it is gone. Lock checking is told so.
		 */
#ifdef CONFIG_LOCKDEP
	lockdep_release(&lock, how == BY_MUTEX ? HELD_MUTEX : HELD_WRITE);
#endif
	paint();
	kthread_join(&t);
	expect_paint();
}

TEST(lock_last, mutex)
{
	leave(BY_MUTEX);
}

TEST(lock_last, rwsem_after_a_reader)
{
	leave(BY_READ);
}

TEST(lock_last, rwsem_after_a_writer)
{
	leave(BY_WRITE);
}

/*
 * The ladder of lock.c. A reader on its way out comes to wait_lock, which we hold, and falls asleep
 * there. We let go of it without waking him, and queue behind another writer: as the reader still
 * holds the lock, both of us sleep until somebody wakes him. If he does not, one lets the other in,
 * and the last owner frees what the reader has yet to lock.
 */
static uint32_t writer_tid, painted;

static void reader(void *arg)
{
	(void)arg;
	__atomic_store_n(&leaver_tid, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	down_read(&lock.sem);
	__atomic_store_n(&inside, 1, __ATOMIC_RELEASE);
	wait_for(&inside, 2);
	up_read(&lock.sem);
	__atomic_store_n(&left, 1, __ATOMIC_RELEASE);
}

static void writer(void *arg)
{
	(void)arg;
	__atomic_store_n(&writer_tid, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	down_write(&lock.sem);
	up_write(&lock.sem);
}

static pid_t tid_in(const uint32_t *word)
{
	return (pid_t)__atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* One writer wakes the other before it falls asleep: so if both do, nobody will wake anybody. */
static void wake_reader(void *arg)
{
	pid_t last = *(pid_t *)arg;

	while (!__atomic_load_n(&painted, __ATOMIC_ACQUIRE) &&
	       !(is_asleep(last) && is_asleep(tid_in(&writer_tid))))
		sched_yield();
	futex_wake(&lock.sem.wait_lock.state, 1);
}

TEST(lock_last, rwsem_reader_on_its_way_out)
{
	pid_t self = (pid_t)syscall(SYS_gettid);
	struct kthread r, w, waker;

	expect_eq(kthread_run(&r, "reader", reader, NULL), 0);
	wait_for(&inside, 1);
	expect_eq(kthread_run(&w, "writer", writer, NULL), 0);
	while (!awaited(BY_READ))
		sched_yield();
	until_asleep(tid_in(&writer_tid));
	raw_lock(&lock.sem.wait_lock);
	__atomic_store_n(&inside, 2, __ATOMIC_RELEASE);
	wait_for(&lock.sem.wait_lock.state, 2);
	until_asleep(tid_in(&leaver_tid));
	__atomic_store_n(&lock.sem.wait_lock.state, 0, __ATOMIC_RELEASE);
	expect_eq(kthread_run(&waker, "waker", wake_reader, &self), 0);

	down_write(&lock.sem);
#ifdef CONFIG_LOCKDEP
	lockdep_release(&lock.sem, HELD_WRITE);
#endif
	paint();
	__atomic_store_n(&painted, 1, __ATOMIC_RELEASE);
	/* With the paint spoilt the reader may never come to an end. */
	while (!__atomic_load_n(&left, __ATOMIC_ACQUIRE)) {
		expect_paint();
		sched_yield();
	}
	kthread_join(&waker);
	kthread_join(&r);
	kthread_join(&w);
	expect_paint();
}
