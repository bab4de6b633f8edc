/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What those who write programs share (generate.c, plan.c). */
#ifndef TESTS_COHERENCE_GENERATE_H
#define TESTS_COHERENCE_GENERATE_H

#include "tests/coherence/steps.h"

static inline unsigned int below(uint64_t *random, unsigned int n)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return (*random >> 16) % n;
}

/* A page of the pool that belongs at @level; 0: at any. */
int some_table(uint64_t *random, int level);
/* An entry of @level, into @op: a table, a page, or a large page. */
void some_entry(uint64_t *random, int level, struct op *op);
/* The entry on the way of @cpu to @gva, of level @stop or where the way ends too early: its level,
 * and where it is into @op. */
int entry_of_gva(struct world *w, int cpu, int gva, int stop, struct op *op);
/* The page of host memory that @gva may lead to; -1: none. */
int page_of_gva(struct world *w, int cpu, int gva);

/* The next operation of a plan; false: there is none now. */
bool planned(struct world *w, uint64_t *random, struct op *op);

#endif
