// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Wait queues: the argument is in wait.h.
 */
#include "notifier/sync/wait.h"

#include <errno.h>
#include <limits.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/futex.h"

uint32_t wait_prepare(wait_queue_head_t *wq)
{
	/* Full barrier between this and the look at the condition. Pairs with wake_up_all. */
	__atomic_fetch_add(&wq->waiters, 1, __ATOMIC_SEQ_CST);
	return smp_load_acquire(&wq->seq);
}

void wait_finish(wait_queue_head_t *wq)
{
	__atomic_fetch_sub(&wq->waiters, 1, __ATOMIC_SEQ_CST);
}

/* False once @deadline has passed. */
bool wait_sleep(wait_queue_head_t *wq, uint32_t seq, const struct timespec *deadline)
{
	return futex_wait(&wq->seq, seq, deadline) != -ETIMEDOUT;
}

void wait_deadline(struct timespec *deadline, uint64_t usecs)
{
	sync_clock(deadline);
	deadline->tv_sec += (time_t)(usecs / 1000000);
	deadline->tv_nsec += (long)(usecs % 1000000) * 1000;
	if (deadline->tv_nsec >= 1000000000) {
		deadline->tv_sec++;
		deadline->tv_nsec -= 1000000000;
	}
}

void fsleep(unsigned long usecs)
{
	const uint32_t nobody_wakes = 0;
	struct timespec deadline;

	might_sleep();
	wait_deadline(&deadline, usecs);
	while (futex_wait(&nobody_wakes, 0, &deadline) != -ETIMEDOUT)
		; /* a signal */
}

void wake_up_all(wait_queue_head_t *wq)
{
	/*
	 * A full barrier between the caller's condition and the count. Pairs with wait_prepare. An
	 * addition of nothing, not a fence: see smp_mb() for TSan.
	 */
	if (!__atomic_fetch_add(&wq->waiters, 0, __ATOMIC_SEQ_CST))
		return;
	__atomic_fetch_add(&wq->seq, 1, __ATOMIC_SEQ_CST);
	futex_wake(&wq->seq, INT_MAX);
}
