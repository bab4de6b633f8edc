/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wait queues: sleep until a condition holds. Lost-wakeup free with no lock around the condition.
 *
 *   waiter					waker
 *   waiters++		(full barrier)		make the condition true
 *   s = seq		(acquire)		full barrier
 *   condition? -> leave			waiters == 0? -> nothing to do
 *   sleep while seq == s			seq++ (release), wake all
 *
 * A waker that saw no waiter came before the waiter's increment, whose look at the condition then
 * finds it true. One that saw a waiter bumps seq: the waiter took s before that, and its sleep ends
 * or never begins, or after, and then sees the condition.
 *
 * The condition is evaluated many times, without a lock. What it reads, others write with
 * WRITE_ONCE, an atomic or smp_store_release; a waiter that goes on to read what was published
 * before the condition loads it with smp_load_acquire, or takes a lock. wake_up_all() touches the
 * queue after the condition became true: the queue must outlive that.
 */
#ifndef NOTIFIER_SYNC_WAIT_H
#define NOTIFIER_SYNC_WAIT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "notifier/sync/lockdep.h"

typedef struct {
	uint32_t seq;
	uint32_t waiters;
} wait_queue_head_t;

#define DECLARE_WAIT_QUEUE_HEAD(name) wait_queue_head_t name = {0}

static inline void init_waitqueue_head(wait_queue_head_t *wq)
{
	*wq = (wait_queue_head_t){0};
}

/* Full barrier before the look for waiters, whether or not there are any. Never sleeps. */
void wake_up_all(wait_queue_head_t *wq);

/* The steps of the macros below. */
uint32_t wait_prepare(wait_queue_head_t *wq);
void wait_finish(wait_queue_head_t *wq);
bool wait_sleep(wait_queue_head_t *wq, uint32_t seq, const struct timespec *deadline);
void wait_deadline(struct timespec *deadline, uint64_t usecs);

/* For @usecs microseconds, or somewhat longer. Nobody can wake the caller sooner. */
void fsleep(unsigned long usecs);

/* @wq is the queue itself, not its address, as in the kernel. @cond must not leave the macro. */
#define wait_event(wq, cond)                                         \
	do {                                                         \
		might_sleep();                                       \
		while (!(cond)) {                                    \
			uint32_t __wait_seq = wait_prepare(&(wq));   \
			bool __wait_done = (cond);                   \
			if (!__wait_done)                            \
				wait_sleep(&(wq), __wait_seq, NULL); \
			wait_finish(&(wq));                          \
			if (__wait_done)                             \
				break;                               \
		}                                                    \
	} while (0)

/* The same for @ms milliseconds at most: true if @cond held, false if the time passed without. */
#define wait_event_timeout(wq, cond, ms)                                                   \
	({                                                                                 \
		struct timespec __wait_end;                                                \
		bool __wait_done;                                                          \
		bool __wait_late = false;                                                  \
		might_sleep();                                                             \
		wait_deadline(&__wait_end, 1000ULL * (ms));                                \
		while (!(__wait_done = (cond)) && !__wait_late) {                          \
			uint32_t __wait_seq = wait_prepare(&(wq));                         \
			__wait_done = (cond);                                              \
			if (!__wait_done)                                                  \
				__wait_late = !wait_sleep(&(wq), __wait_seq, &__wait_end); \
			wait_finish(&(wq));                                                \
			if (__wait_done)                                                   \
				break;                                                     \
		}                                                                          \
		__wait_done;                                                               \
	})

#endif
