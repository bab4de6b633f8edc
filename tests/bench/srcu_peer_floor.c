/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nothing at all: what the loops themselves cost.
 */
#include "tests/bench/srcu_peers.h"

typedef int section_t;

static inline int peer_lock(unsigned int domain)
{
	return (int)domain;
}

static inline void peer_unlock(unsigned int domain, int section)
{
	(void)domain, (void)section;
}

#define peer_quiescent() ((void)0)
#include "tests/bench/srcu_loops.h"

LOOP void synchronize(uint64_t n)
{
	while (n--)
		bench_barrier();
}

const struct srcu_peer srcu_floor = {
	.name = "floor",
	.clock = CLOCK_THREAD_CPUTIME_ID,
	.enter = srcu_nothing,
	.leave = srcu_nothing,
	.offline = srcu_nothing,
	.online = srcu_nothing,
	PEER_LOOPS,
	.synchronize = synchronize,
};
