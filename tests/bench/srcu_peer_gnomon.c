/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ours, by the public header alone. Threads need not be registered.
 */
#include <gnomon/srcu.h>

#include "tests/bench/srcu_peers.h"

static struct srcu_struct domains[SRCU_DOMAINS];

typedef int section_t;

static inline int peer_lock(unsigned int domain)
{
	return srcu_read_lock(&domains[domain]);
}

static inline void peer_unlock(unsigned int domain, int cookie)
{
	srcu_read_unlock(&domains[domain], cookie);
}

#define peer_quiescent() ((void)0)
#include "tests/bench/srcu_loops.h"

LOOP void synchronize(uint64_t n)
{
	while (n--)
		synchronize_srcu(&domains[0]);
}

static void ran(struct srcu_head *head)
{
	srcu_node_ran(head);
}

LOOP void call(struct srcu_node *nodes, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		call_srcu(&domains[0], (struct srcu_head *)nodes[i].head, ran);
}

static void barrier(void)
{
	srcu_barrier(&domains[0]);
}

int srcu_gnomon_init(void)
{
	for (unsigned int i = 0; i < SRCU_DOMAINS; i++) {
		int err = init_srcu_struct(&domains[i]);

		if (err)
			return err;
	}
	return 0;
}

/* -EBUSY: a benchmark left a reader behind. */
int srcu_gnomon_cleanup(void)
{
	int err = 0;

	for (unsigned int i = 0; i < SRCU_DOMAINS; i++)
		if (cleanup_srcu_struct(&domains[i]))
			err = -1;
	return err;
}

const struct srcu_peer srcu_gnomon = {
	.name = "gnomon",
	.clock = CLOCK_THREAD_CPUTIME_ID,
	.enter = srcu_nothing,
	.leave = srcu_nothing,
	.offline = srcu_nothing,
	.online = srcu_nothing,
	PEER_LOOPS,
	.synchronize = synchronize,
	.has_worker = true,
	.call_start = srcu_workers_start,
	.call_stop = srcu_workers_stop,
	.call = call,
	.barrier = barrier,
};
