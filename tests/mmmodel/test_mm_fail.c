/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every allocation, of memory and of frames, that a fixed list of operations makes, fails in turn:
 * the operation returns -ENOMEM, or does without. The rest of the list goes on from there, and all
 * the while everything is what the model says; in the end all was given back.
 */
#include <stdarg.h>
#include <stdio.h>

#include <gnomon/phys.h>

#include "tests/mmmodel/world.h"
#include "tests/support/fail_alloc.h"

/* The pool is part of this test, too. */
#define phys_alloc	  pool_alloc
#define phys_alloc_zeroed pool_alloc_zeroed
#include "notifier/phys.c"
#undef phys_alloc
#undef phys_alloc_zeroed

pfn_t phys_alloc(struct phys *phys)
{
	return alloc_fails() ? INVALID_PFN : pool_alloc(phys);
}

pfn_t phys_alloc_zeroed(struct phys *phys)
{
	return alloc_fails() ? INVALID_PFN : pool_alloc_zeroed(phys);
}

#define NR_OPS	  700
#define NR_FRAMES 1024 /* never all of them */

static struct op ops[NR_OPS];
static int current;
static int64_t current_site;

void differ(const char *fmt, ...)
{
	char text[300];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "site %lld, operation %d: ", (long long)current_site, current);
	op_print(stderr, &op_format, &ops[current]);
	fail("%s", text);
}

static void record(uint64_t random)
{
	static struct world w;

	world_create(&w, NR_FRAMES, false);
	for (current = 0; current < NR_OPS; current++) {
		generate(&w, &random, &ops[current]);
		apply(&w, &ops[current]);
	}
	world_destroy(&w);
}

/* Returns whether the site was reached. */
static bool run_with_failure(int64_t site, uint64_t *gave_up)
{
	static struct world w;
	bool failed = false;

	current_site = site;
	world_create(&w, NR_FRAMES, false);
	alloc_fail_at(site);
	for (current = 0; current < NR_OPS; current++) {
		bool failed_before = failed;

		w.failing = !failed;
		w.gave_up = false;
		apply(&w, &ops[current]);
		failed = allocs.nr_sites > site;
		if (w.gave_up && (failed_before || !failed))
			differ("no memory, though no allocation failed");
		check_frames_used(&w);
		if (failed && (!failed_before || current % 16 == 0))
			check_world(&w);
		*gave_up += w.gave_up;
	}
	failed = alloc_failed();
	world_destroy(&w);
	return failed;
}

TEST(mm_fail, each_allocation_in_turn)
{
	unsigned int nr_lists = test_long() ? 20 : 2;
	uint64_t gave_up = 0;

	for (unsigned int list = 0; list < nr_lists; list++) {
		int64_t live, site = 0;

		record(list * 0x9e3779b9UL + 7);
		run_with_failure(INT64_MAX, &gave_up);
		expect_eq(gave_up, 0);
		live = atomic64_read(&allocs.live);
		for (; run_with_failure(site, &gave_up); site++)
			expect_eq(atomic64_read(&allocs.live), live);
		expect_ge(site, 100);
		/* Some are hints, or are tried again; most are not. */
		expect_ge(gave_up, site / 2);
		gave_up = 0;
	}
}
