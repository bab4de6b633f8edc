/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Concurrency Kit's epochs. A thread needs a record for each domain; records are never freed, only
 * used again. Nobody but the caller runs callbacks: it has to poll.
 */
#include <ck_epoch.h>
#include <stdlib.h>

#include "tests/bench/srcu_peers.h"

#define POLL_EVERY 256

static ck_epoch_t domains[SRCU_DOMAINS];
static __thread ck_epoch_record_t *records[SRCU_DOMAINS];

typedef int section_t;

static inline int peer_lock(unsigned int domain)
{
	ck_epoch_begin(records[domain], NULL);
	return 0;
}

static inline void peer_unlock(unsigned int domain, int section)
{
	(void)section;
	ck_epoch_end(records[domain], NULL);
}

#define peer_quiescent() ((void)0)
#include "tests/bench/srcu_loops.h"

void srcu_ck_init(void)
{
	for (unsigned int i = 0; i < SRCU_DOMAINS; i++)
		ck_epoch_init(&domains[i]);
}

static void enter(void)
{
	for (unsigned int i = 0; i < srcu_nr_domains; i++) {
		records[i] = ck_epoch_recycle(&domains[i], NULL);
		if (records[i])
			continue;
		records[i] = aligned_alloc(CK_MD_CACHELINE, sizeof(*records[i]));
		if (!records[i])
			abort();
		ck_epoch_register(&domains[i], records[i], NULL);
	}
}

static void leave(void)
{
	for (unsigned int i = 0; i < srcu_nr_domains; i++)
		ck_epoch_unregister(records[i]);
}

LOOP void synchronize(uint64_t n)
{
	while (n--)
		ck_epoch_synchronize(records[0]);
}

static void ran(ck_epoch_entry_t *entry)
{
	srcu_node_ran(entry);
}

LOOP void call(struct srcu_node *nodes, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		ck_epoch_call(records[0], (ck_epoch_entry_t *)nodes[i].head, ran);
		if (i % POLL_EVERY == POLL_EVERY - 1)
			ck_epoch_poll(records[0]);
	}
}

static void barrier(void)
{
	ck_epoch_barrier(records[0]);
}

const struct srcu_peer srcu_ck = {
	.name = "ck_epoch",
	.clock = CLOCK_THREAD_CPUTIME_ID,
	.enter = enter,
	.leave = leave,
	.offline = srcu_nothing,
	.online = srcu_nothing,
	PEER_LOOPS,
	.synchronize = synchronize,
	.call = call,
	.barrier = barrier,
};
