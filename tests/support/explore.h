/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tests by random programs: rounds of operations, each in a world and a child of its own. A program
 * that fails is shrunk to a short one, which is printed, and can be done again from a file.
 *
 * Here is what such tests have in common; which operations there are, how they come about, what
 * they are done to and who judges is each test's own (struct explorer).
 */
#ifndef TESTS_SUPPORT_EXPLORE_H
#define TESTS_SUPPORT_EXPLORE_H

#include <stdint.h>

#include "tests/support/child_run.h"
#include "tests/support/op_text.h"

struct setup; /* what a world is made of, and how it is looked at: each test has its own */

/* A program. An operation that makes no sense where it stands is passed by: so any part of a list
 * is one, too. */
struct list {
	struct op *ops; /* shared with the children, who write what they are about to do */
	int nr;
};

/* What happened: operations by kind, and whatever else a test counts. */
struct tally {
	uint64_t *done, *count; /* shared with the children, who add to it */
};

struct how {
	bool generate;		   /* list->ops is written, not read; */
	uint64_t seed;		   /* from this */
	bool quiet;		   /* nothing of what the child says is seen */
	unsigned int limit;	   /* seconds; more is a hang */
	const struct tally *tally; /* NULL: nobody asks */
};

/* Numbers of an operation that are tried in place of others. */
struct simpler {
	size_t offset;
	int value;
};

struct explorer {
	const char *name;
	const struct op_format *format;
	int max_ops; /* in a round */
	struct setup *setup;

	/* For a round of this number: returns how many operations, of which so many are left. */
	int (*prepare)(struct setup *setup, uint64_t round, uint64_t left);
	/* In the child. It says where it is (child_is_at()), and ends the run if anything is wrong.
	 */
	void (*run)(struct list *list, const struct how *how, const struct setup *setup);

	/* The first line of a file, and whether this is one. */
	void (*print_setup)(FILE *f, const struct setup *setup);
	bool (*parse_setup)(const char *line, struct setup *setup);

	/* In this order, by operation, after all was left out that can be. */
	const struct simpler *simpler;
	int nr_simpler;
	/* Of rounds that are no list of operations, and cannot be done again: as much as can be
	 * said of one. */
	void (*describe)(FILE *f, const struct setup *setup);

	const char *const *counts; /* names of what is in a tally */
	int nr_counts;
	/* Does so little show anything? The exit code; 1: no, which has been said. */
	int (*floors)(uint64_t steps, const struct tally *tally);
};

/* Rounds from number @seed on, until there were @steps operations. Returns the exit code, as
 * replay() does. */
int explore(const struct explorer *e, uint64_t steps, uint64_t seed);
int replay(const struct explorer *e, const char *path);

/* ---- for shrink.c ---- */

struct list list_create(const struct explorer *e, int max);
struct verdict list_run(const struct explorer *e, struct list *list, const struct how *how);

/* Leave out, and make simpler, what the failure does not need. Returns the runs it took. */
int shrink(const struct explorer *e, struct list *list, struct verdict *verdict);

#endif
