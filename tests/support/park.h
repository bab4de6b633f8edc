/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A place to park threads in: how a test brings two of them into the one order that it is about,
 * with no sleeping and no luck. A hook or a callback calls park_enter(); the test waits until it is
 * there, does what must happen meanwhile, and releases it.
 */
#ifndef TESTS_SUPPORT_PARK_H
#define TESTS_SUPPORT_PARK_H

#include "notifier/sync/atomic.h"
#include "notifier/sync/wait.h"

struct park {
	wait_queue_head_t wait;
	atomic_t arrived;
	atomic_t open;
};

static inline void park_init(struct park *park)
{
	init_waitqueue_head(&park->wait);
	atomic_set(&park->arrived, 0);
	atomic_set(&park->open, 0);
}

/* Stay here until the park is released; walk through if it was already. */
static inline void park_enter(struct park *park)
{
	atomic_inc_return(&park->arrived);
	wake_up_all(&park->wait);
	wait_event(park->wait, atomic_read_acquire(&park->open));
}

/* Until @nr threads have arrived, since park_init(). */
static inline void park_wait(struct park *park, int nr)
{
	wait_event(park->wait, atomic_read_acquire(&park->arrived) >= nr);
}

static inline void park_release(struct park *park)
{
	atomic_set_release(&park->open, 1);
	wake_up_all(&park->wait);
}

#endif
