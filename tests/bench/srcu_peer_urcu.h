/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * liburcu, for the file of each flavour: the flavour's header, included before this with
 * URCU_API_MAP, maps the plain names to its own. _LGPL_SOURCE: its readers are inline, as fast as
 * anybody may have them. There are no domains: all are one.
 */
#include "tests/bench/srcu_peers.h"

#include <errno.h>

typedef int section_t;

static inline int peer_lock(unsigned int domain)
{
	(void)domain;
	rcu_read_lock();
	return 0;
}

static inline void peer_unlock(unsigned int domain, int section)
{
	(void)domain, (void)section;
	rcu_read_unlock();
}

#define peer_quiescent() rcu_quiescent_state()
#include "tests/bench/srcu_loops.h"

/* These may be macros, and inline. */
static void enter(void)
{
	rcu_register_thread();
}

static void leave(void)
{
	rcu_unregister_thread();
}

static void offline(void)
{
	rcu_thread_offline();
}

static void online(void)
{
	rcu_thread_online();
}

LOOP void synchronize(uint64_t n)
{
	while (n--)
		synchronize_rcu();
}

static struct call_rcu_data *worker;

static int call_start(void)
{
	worker = create_call_rcu_data(0, -1);
	set_thread_call_rcu_data(worker);
	return worker ? 0 : -ENOMEM;
}

static void call_stop(void)
{
	set_thread_call_rcu_data(NULL);
	call_rcu_data_free(worker);
}

static void ran(struct rcu_head *head)
{
	srcu_node_ran(head);
}

LOOP void call(struct srcu_node *nodes, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		call_rcu((struct rcu_head *)nodes[i].head, ran);
}

static void barrier(void)
{
	rcu_barrier();
}

const struct srcu_peer PEER = {
	.name = PEER_NAME,
	.clock = CLOCK_THREAD_CPUTIME_ID,
	.enter = enter,
	.leave = leave,
	.offline = offline,
	.online = online,
	PEER_LOOPS,
	.synchronize = synchronize,
	.has_worker = true,
	.call_start = call_start,
	.call_stop = call_stop,
	.call = call,
	.barrier = barrier,
};
