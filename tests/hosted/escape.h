/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For guests that try to get out: one attempt after another on vCPU 0, and after each a look at
 * all that none of them may have done.
 *
 *   - The child has mapped what its TLB says, with those rights, and the stub; nothing else.
 *   - It has the three files that it began with.
 *   - Frames that no table names hold what they held.
 *   - We are still here: the attempts name our pid where they can.
 *
 * An attempt that does not end is kicked, by a thread of its own. One that costs the child its life
 * costs the machine: the next attempt gets a new one, which must work.
 */
#ifndef TESTS_HOSTED_ESCAPE_H
#define TESTS_HOSTED_ESCAPE_H

#include <pthread.h>

#include "tests/hosted/rig.h"

#define NR_CANARIES 64

struct escape {
	struct rig rig;
	unsigned int nr_cpus;
	unsigned int kicks_to_kill; /* of the engine; escape_hurry() lowers it */
	pfn_t canaries[NR_CANARIES];

	pthread_t watchdog;
	unsigned int patience; /* looks of the watchdog, 3 ms apart, that an attempt may take */
	bool stop;
	uint64_t attempt; /* its number while one is made; 0 in between */
	uint64_t kicked;  /* the number of the one that was kicked */

	unsigned int made, trapped, kicks, died; /* attempts, and how they ended */
};

/* For attempts that come to an end, however busy this machine is. Who expects others sets less. */
#define PATIENT 1000

void escape_create(struct escape *e, unsigned int nr_cpus);
void escape_destroy(struct escape *e);

/* For attempts of which many never end: they are given up soon, right or wrong. */
void escape_hurry(struct escape *e);

/*
 * Run vCPU 0 from @regs on until something comes out: an exception, a kick because nothing else
 * did, or the end of its child, for which the machine is made anew.
 */
struct engine_exit escape_attempt(struct escape *e, const struct guest_regs *regs);

/* What the head of this file says. escape_attempt() looks each time. */
void escape_check(struct escape *e);

/* child_maps.c: the mappings of the child are those of its tlb, and its files the stub's. */
void expect_child_intact(struct hosted_space *space);

/* A pseudorandom number, the same in every run. */
static inline uint64_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005ul + 1442695040888963407ul;
	return *state >> 17 ^ *state << 21;
}

#endif
