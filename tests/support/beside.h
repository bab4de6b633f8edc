/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A call in a thread of its own, beside somebody who has the lock that it needs. What is waited for
 * with a mutex is seen to sleep (beside_sleeps); the holder of a spinlock looks a few times whether
 * anything of what it guards changes:
 *
 *	spin_lock(lock);
 *	beside_start(&b, call, arg);
 *	for_each_look()
 *		expect_eq(READ_ONCE(guarded), before);
 *	spin_unlock(lock);
 *	kthread_join(&b.thread);
 */
#ifndef TESTS_SUPPORT_BESIDE_H
#define TESTS_SUPPORT_BESIDE_H

#include <sched.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/test.h"

struct beside {
	void (*call)(void *arg);
	void *arg;
	struct kthread thread;
	atomic_t began, over;
};

static inline void beside_run(void *arg)
{
	struct beside *b = arg;

	atomic_set(&b->began, 1);
	b->call(b->arg);
	atomic_set(&b->over, 1);
}

/* Returns when it is about to be called. */
static inline void beside_start(struct beside *b, void (*call)(void *arg), void *arg)
{
	*b = (struct beside){.call = call, .arg = arg};
	expect_eq(kthread_run(&b->thread, "beside", beside_run, b), 0);
	while (!atomic_read(&b->began))
		sched_yield();
}

static inline void beside_sleeps(struct beside *b)
{
	until_others_sleep();
	expect(!atomic_read(&b->over));
}

#define for_each_look() for (unsigned int look_ = 0; look_ < 20; look_++, sched_yield())

#endif
