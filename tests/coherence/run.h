/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program on a world of its own, and what is counted of it. */
#ifndef TESTS_COHERENCE_RUN_H
#define TESTS_COHERENCE_RUN_H

#include "tests/coherence/ops.h"
#include "tests/support/explore.h"

struct setup {
	int cpus;
	unsigned long budget; /* of shadow pages; 0: none */
	bool threads;	      /* not a list, but so many steps of each of the CPUs, a thread each */
	bool audit;	      /* after each change */
	unsigned int broken;  /* SHADOW_BREAK_* */
};

void run(struct list *list, const struct how *how, const struct setup *setup);

/* What is counted besides operations. */
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

#endif
