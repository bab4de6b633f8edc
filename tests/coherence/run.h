/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program, run in a forked child on a world of its own: so a difference, a BUG, a crash and a
 * hang are all just the end of that run.
 */
#ifndef TESTS_COHERENCE_RUN_H
#define TESTS_COHERENCE_RUN_H

#include "tests/coherence/ops.h"
#include "tests/support/child_run.h"

struct list {
	struct op *ops; /* shared with the children, who write what they are about to do */
	int nr;
	int cpus;
	unsigned long budget; /* of shadow pages; 0: none */
};

struct how {
	bool generate;	     /* list->ops is written, not read; */
	uint64_t seed;	     /* from this */
	bool threads;	     /* not a list, but so many steps of each of list->cpus threads */
	bool audit;	     /* after each change */
	bool quiet;	     /* nothing of what the child says is seen, nor counted */
	unsigned int limit;  /* seconds; more is a hang */
	unsigned int broken; /* SHADOW_BREAK_* */
};

struct list list_create(int max);
struct verdict run_list(struct list *list, const struct how *how);

/* Of all runs that were not quiet, besides what is counted by kind. */
enum count {
	COUNT_STORES,	   /* that landed in memory */
	COUNT_FAULTS,	   /* of the guest's */
	COUNT_DEVICE,	   /* accesses to no memory */
	COUNT_REFUSED,	   /* by the host */
	COUNT_EMULATED,	   /* stores to tables, carried out for the guest */
	COUNT_LET_THROUGH, /* and done by itself */
	COUNT_STALE,	   /* done by what the tables said before */
	COUNT_INSIDE,	   /* operations in the middle of another */
	COUNT_SWAPPED,	   /* pages */
	COUNT_MERGED,
	COUNT_MIGRATED,
	COUNT_UNSYNC, /* tables that a store put out of step */
	COUNT_SYNCED,
	COUNT_RECYCLED, /* shadow pages */
	NR_COUNTS
};
extern const char *const count_names[NR_COUNTS];
uint64_t run_count(enum count count);
uint64_t run_count_op(enum op_kind kind);

/* shrink.c: leave out what the failure does not need. Returns the runs it took. */
int shrink(struct list *list, struct verdict *verdict, int seconds, unsigned int broken,
	   bool audit);

void list_print(FILE *f, const struct list *list);
/* False: not such a file, which has been said. */
bool list_read(const char *path, struct list *list);

#endif
