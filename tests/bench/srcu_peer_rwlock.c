/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A readers-writer lock with its default attributes: readers may nest, and writers wait.
 */
#include "tests/bench/srcu_peers.h"

static pthread_rwlock_t domains[SRCU_DOMAINS] = {
	[0 ... SRCU_DOMAINS - 1] = PTHREAD_RWLOCK_INITIALIZER,
};

typedef int section_t;

static inline int peer_lock(unsigned int domain)
{
	return pthread_rwlock_rdlock(&domains[domain]);
}

static inline void peer_unlock(unsigned int domain, int section)
{
	(void)section;
	pthread_rwlock_unlock(&domains[domain]);
}

#define peer_quiescent() ((void)0)
#include "tests/bench/srcu_loops.h"

const struct srcu_peer srcu_rwlock = {
	.name = "pthread_rwlock",
	.clock = CLOCK_MONOTONIC,
	.enter = srcu_nothing,
	.leave = srcu_nothing,
	.offline = srcu_nothing,
	.online = srcu_nothing,
	PEER_LOOPS,
};
