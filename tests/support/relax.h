/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sweeps: one thread's step is moved over another's, a little further in each round, to meet an
 * order that is too narrow to be built. No result depends on the time that passes.
 */
#ifndef TESTS_SUPPORT_RELAX_H
#define TESTS_SUPPORT_RELAX_H

#include <sched.h>
#include <stdint.h>
#include <time.h>

#include "notifier/sync/atomic.h"
#include "tests/support/test.h"

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

/*
 * How many rounds: as many as asked for, but after the first few hundred only for two seconds, and
 * after the first few dozen for twenty. Threads in lockstep need the CPU at the same time: on a
 * loaded machine a round costs slices, and where others come first it waits long for each of them.
 */
#define SWEEP_MIN 30

struct sweep {
	int64_t min, max;
	uint64_t end, late;
};

static inline struct sweep sweep_start(int64_t rounds)
{
	uint64_t now = now_ns();

	return (struct sweep){
		.min = rounds < 300 ? rounds : 300,
		.max = test_long() ? rounds * 20 : rounds,
		.end = now + (test_long() ? 30000000000 : 2000000000),
		.late = now + (test_long() ? 200000000000 : 20000000000),
	};
}

/* Is there a round @i? They count from 1. */
static inline bool sweep_goes_on(const struct sweep *sweep, int64_t i)
{
	uint64_t now;

	if (i > sweep->max)
		return false;
	if (i <= SWEEP_MIN)
		return true;
	now = now_ns();
	return now < sweep->end || (i <= sweep->min && now < sweep->late);
}

/* What the driver of a sweep stores in place of a round, so that its partner ends. */
#define SWEEP_OVER INT64_MAX

/*
 * Until *@v is at least @n, by polling: to be there at once, and yet give way on a busy machine.
 * Returns what was found.
 */
static inline int64_t poll_until(const atomic64_t *v, int64_t n)
{
	int64_t found;

	for (unsigned int i = 1; (found = atomic64_read_acquire(v)) < n; i++) {
		cpu_relax();
		if (i % 1024 == 0)
			sched_yield();
	}
	return found;
}

/*
 * Each of @nr threads calls this for @round, from 1 on: none goes on before all are there, so that
 * what follows runs at the same time where there are CPUs for it.
 */
static inline void meet(atomic64_t *arrivals, int64_t round, int nr)
{
	atomic64_inc_return(arrivals);
	poll_until(arrivals, round * nr);
}

#endif
