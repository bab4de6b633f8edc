/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits for long sleeps: all that waits would also get there by asking again and again, and no
 * other test could tell. A thread that does hangs these.
 */
#include <sys/syscall.h>
#include <unistd.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "tests/support/asleep.h"
#include "tests/support/test.h"

static DEFINE_SPINLOCK(spin);
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(sem);
static DECLARE_WAIT_QUEUE_HEAD(wq);
static int happened;

struct waiter {
	struct kthread thread;
	void (*wait)(void);
	pid_t tid;
};

static void waiter_main(void *arg)
{
	struct waiter *w = arg;

	__atomic_store_n(&w->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	w->wait();
}

static void start_and_see_asleep(struct waiter *w, void (*wait)(void))
{
	pid_t tid;

	*w = (struct waiter){.wait = wait};
	expect_eq(kthread_run(&w->thread, "waiter", waiter_main, w), 0);
	while (!(tid = __atomic_load_n(&w->tid, __ATOMIC_ACQUIRE)))
		sched_yield();
	until_asleep(tid);
}

static void take_spinlock(void)
{
	spin_lock(&spin);
	spin_unlock(&spin);
}

TEST(asleep, spinlock)
{
	struct waiter w;

	spin_lock(&spin);
	start_and_see_asleep(&w, take_spinlock);
	spin_unlock(&spin);
	kthread_join(&w.thread);
}

static void take_mutex(void)
{
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
}

TEST(asleep, mutex)
{
	struct waiter w;

	mutex_lock(&mutex);
	start_and_see_asleep(&w, take_mutex);
	mutex_unlock(&mutex);
	kthread_join(&w.thread);
}

static void read_sem(void)
{
	down_read(&sem);
	up_read(&sem);
}

static void write_sem(void)
{
	down_write(&sem);
	up_write(&sem);
}

TEST(asleep, rwsem)
{
	struct waiter w[2];

	down_write(&sem);
	start_and_see_asleep(&w[0], write_sem);
	start_and_see_asleep(&w[1], read_sem);
	up_write(&sem);
	for (int i = 0; i < 2; i++)
		kthread_join(&w[i].thread);
}

static void wait_for_it(void)
{
	wait_event(wq, READ_ONCE(happened));
}

static void wait_for_it_at_most_an_hour(void)
{
	expect(wait_event_timeout(wq, READ_ONCE(happened), 3600 * 1000));
}

TEST(asleep, wait_queue)
{
	struct waiter w[2];

	start_and_see_asleep(&w[0], wait_for_it);
	start_and_see_asleep(&w[1], wait_for_it_at_most_an_hour);
	WRITE_ONCE(happened, 1);
	wake_up_all(&wq);
	for (int i = 0; i < 2; i++)
		kthread_join(&w[i].thread);
}
