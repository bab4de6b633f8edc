/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A list of operations, run in a forked child on a world of its own: so a difference, a BUG, a
 * crash and a hang are all just the end of that run, and the next begins anew.
 */
#ifndef TESTS_MMMODEL_RUN_H
#define TESTS_MMMODEL_RUN_H

#include "tests/mmmodel/ops.h"
#include "tests/support/child_run.h"

struct list {
	struct op *ops; /* shared with the children, who write what they are about to do */
	int nr;
	uint64_t nr_frames;
	bool swap;
};

struct how {
	bool generate;	    /* list->ops is written, not read; */
	uint64_t seed;	    /* from this */
	int check_every;    /* operations between two looks at everything */
	bool quiet;	    /* nothing of what the child says is seen */
	unsigned int limit; /* seconds; more is a hang */
	bool planted;	    /* world.h */
};

struct list list_create(int max, uint64_t nr_frames);
struct verdict run_list(struct list *list, const struct how *how);
/* How often each kind was done, in all runs that were not quiet. */
uint64_t run_count(enum op_kind kind);
/* Pages that were swapped in, were dropped after MM_MADV_FREE, gave their place to an equal one. */
uint64_t run_swapped_in(void);
uint64_t run_given_up(void);
uint64_t run_merged(void);

/* shrink.c: leave out, and make simpler, what the failure does not need. Returns the runs it took.
 */
int shrink(struct list *list, struct verdict *verdict, int seconds, bool planted);

void list_print(FILE *f, const struct list *list);
/* False: not such a file, which has been said. */
bool list_read(const char *path, struct list *list);

#endif
