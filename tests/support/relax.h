/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two ways to let a little time pass, for tests that sweep one thread's step over another's: the
 * order that is looked for is narrow, and each round tries another moment. No result depends on it.
 */
#ifndef TESTS_SUPPORT_RELAX_H
#define TESTS_SUPPORT_RELAX_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "notifier/sync/atomic.h"

static inline void relax(unsigned int n)
{
	while (n--)
		cpu_relax();
}

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void relax_until(uint64_t ns)
{
	while (now_ns() < ns)
		cpu_relax();
}

/* Until *@v is at least @n, by polling: to be there at once, and yet give way on a busy machine. */
static inline void poll_until(const atomic64_t *v, int64_t n)
{
	for (unsigned int i = 1; atomic64_read_acquire(v) < n; i++) {
		cpu_relax();
		if (i % 1024 == 0)
			sched_yield();
	}
}

#endif
