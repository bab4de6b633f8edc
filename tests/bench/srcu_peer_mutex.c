/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mutex, as readers would use it that know of nothing better.
 */
#include "tests/bench/srcu_peers.h"

static pthread_mutex_t domains[SRCU_DOMAINS] = {
	[0 ... SRCU_DOMAINS - 1] = PTHREAD_MUTEX_INITIALIZER,
};

typedef int section_t;

static inline int peer_lock(unsigned int domain)
{
	return pthread_mutex_lock(&domains[domain]);
}

static inline void peer_unlock(unsigned int domain, int section)
{
	(void)section;
	pthread_mutex_unlock(&domains[domain]);
}

#define PEER_NO_NESTING
#define peer_quiescent() ((void)0)
#include "tests/bench/srcu_loops.h"

const struct srcu_peer srcu_mutex = {
	.name = "pthread_mutex",
	.clock = CLOCK_MONOTONIC,
	.enter = srcu_nothing,
	.leave = srcu_nothing,
	.offline = srcu_nothing,
	.online = srcu_nothing,
	PEER_LOOPS,
};
