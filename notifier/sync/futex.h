/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The futex system call, for the locks and wait queues of this folder; nobody else needs it.
 *
 * Every wait here may return for no reason (a signal, a wake-up meant for an earlier owner of the
 * address), so every caller looks at its own word again. That is what allows a waker to pass the
 * address of memory that it may no longer read: see raw_unlock().
 */
#ifndef NOTIFIER_SYNC_FUTEX_H
#define NOTIFIER_SYNC_FUTEX_H

#include "notifier/sync/hooks.h"

#ifndef GNOMON_SYNC_HOOKS

#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * Sleep while *@word == @expected, until a wake-up or until @deadline (CLOCK_MONOTONIC, absolute;
 * NULL: for ever). Leaves errno alone: locks are taken between a failing call and its errno.
 * Returns 0 or -errno, of which only -ETIMEDOUT means anything.
 */
static inline int futex_wait(const uint32_t *word, uint32_t expected,
			     const struct timespec *deadline)
{
	int saved = errno;
	int ret = 0;

	if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, deadline,
		    NULL, FUTEX_BITSET_MATCH_ANY) < 0)
		ret = -errno;
	errno = saved;
	return ret;
}

static inline void futex_wake(const uint32_t *word, int nr)
{
	int saved = errno;

	syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, nr, NULL, NULL, 0);
	errno = saved;
}

#endif /* !GNOMON_SYNC_HOOKS */

#endif
