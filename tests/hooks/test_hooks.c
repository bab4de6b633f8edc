// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The libraries with hooks, under a scheduler that has everything in hand: what it does can be done
 * again, it finds what is wrong, and finds nothing in what is right.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/hooks/programs.h"
#include "tests/hooks/sched.h"
#include "tests/support/test.h"

static unsigned int nr_seeds(void)
{
	return test_long() ? 5000 : 300;
}

static const struct program *program(const char *name)
{
	for (unsigned int i = 0; i < nr_programs; i++)
		if (!strcmp(programs[i].name, name))
			return &programs[i];
	fail("no program %s", name);
}

/* GNOMON_SCHED_TRACE=1: every step of a schedule that failed. */
static void print_trace(const struct sched_trace *trace)
{
	for (unsigned int i = 0; getenv("GNOMON_SCHED_TRACE") && i < trace->nr_steps; i++)
		printf("%5u  thread %u  %s #%u\n", i, trace->steps[i].thread, trace->steps[i].op,
		       trace->steps[i].object);
}

static void run_right(const struct program *p)
{
	for (unsigned int seed = 1; seed <= nr_seeds(); seed++) {
		struct sched_trace *trace = sched_run(seed, p->right);

		if (trace->failed) {
			print_trace(trace);
			fail("%s, right, seed %u: %s", p->name, seed, trace->why);
		}
		sched_free(trace);
	}
}

/* Found, with its seed; and found again there, by the same steps. */
static void run_wrong(const struct program *p)
{
	unsigned int first = 0, caught = 0;

	for (unsigned int seed = 1; seed <= nr_seeds(); seed++) {
		struct sched_trace *trace = sched_run(seed, p->wrong), *again;

		if (trace->failed) {
			expect_str_contains(trace->why, p->failure);
			caught++;
		}
		if (trace->failed && !first) {
			first = seed;
			print_trace(trace);
			printf("%s: seed %u, %u steps: %s\n", p->name, seed, trace->nr_steps,
			       trace->why);
			again = sched_run(seed, p->wrong);
			expect(sched_same(trace, again));
			sched_free(again);
		}
		sched_free(trace);
	}
	printf("%s: %u of %u seeds\n", p->name, caught, nr_seeds());
	fflush(stdout);
	expect(first);
}

#define PROGRAM_TEST(name)                 \
	TEST(hooks, name##_right)          \
	{                                  \
		run_right(program(#name)); \
	}                                  \
	TEST(hooks, name##_wrong)          \
	{                                  \
		run_wrong(program(#name)); \
	}

PROGRAM_TEST(check_then_act)
PROGRAM_TEST(lost_wake_up)
PROGRAM_TEST(timeout)
PROGRAM_TEST(free_without_synchronize)
PROGRAM_TEST(free_in_callback)
PROGRAM_TEST(lock_order)
PROGRAM_TEST(unregister)

#ifdef SRCU_ABSTRACT

/* Two operations on each side, a critical section each, and not a step besides. */
TEST(hooks, abstract_srcu_has_four_operations)
{
	static const char *const expected[] = {
		"exchange", "lock",   "unlock", "lock",	  "unlock",   "exchange",
		"lock",	    "unlock", "lock",	"unlock", "exchange",
	};
	struct sched_trace *trace = sched_run(1, srcu_alone);
	unsigned int first = 0;

	expect(!trace->failed);
	while (strcmp(trace->steps[first].op, "exchange"))
		first++;
	expect_eq(trace->nr_steps - first, sizeof(expected) / sizeof(expected[0]));
	for (unsigned int i = 0; i < trace->nr_steps - first; i++)
		expect_str_eq(trace->steps[first + i].op, expected[i]);
	sched_free(trace);
}

#endif

/* A seed is a schedule: the same steps each time, and other steps for most others. */
TEST(hooks, seeds_are_schedules)
{
	const unsigned int nr = 50;

	for (unsigned int i = 0; i < nr_programs; i++) {
		struct sched_trace *traces[nr];
		unsigned int distinct = 0;

		for (unsigned int seed = 0; seed < nr; seed++) {
			struct sched_trace *again;
			unsigned int old = 0;

			traces[seed] = sched_run(seed, programs[i].right);
			again = sched_run(seed, programs[i].right);
			expect(!traces[seed]->failed);
			expect(traces[seed]->nr_steps > 5);
			expect(sched_same(traces[seed], again));
			sched_free(again);
			while (old < seed && !sched_same(traces[old], traces[seed]))
				old++;
			distinct += old == seed;
		}
		printf("%s: %u schedules for %u seeds\n", programs[i].name, distinct, nr);
		/* The smallest program has 11. */
		expect_ge(distinct, 8);
		for (unsigned int seed = 0; seed < nr; seed++)
			sched_free(traces[seed]);
	}
	fflush(stdout);
}
