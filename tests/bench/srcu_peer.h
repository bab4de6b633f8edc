/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the SRCU benchmarks know of an implementation. Each is a translation unit of its own, which
 * defines peer_lock() and peer_unlock() as its users would have them inlined, and gets its loops
 * from srcu_loops.h: the same loops for all.
 */
#ifndef TESTS_BENCH_SRCU_PEER_H
#define TESTS_BENCH_SRCU_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tests/bench/bench.h"

#define SRCU_DOMAINS 255  /* that each peer has, if it has domains at all */
#define SRCU_BLOCK   1024 /* pairs between two quiescent states; n is a multiple of it */

/*
 * The domains in the order of a walk. In the second half of a page: the counts of the first 62
 * domains lie in the first half of theirs (docs/bench.md: What depends on where things lie).
 */
extern struct srcu_walk {
	char first_half[2048];
	uint8_t domain[SRCU_BLOCK];
} srcu_walk __attribute__((aligned(4096)));

/* How many domains this sample needs, from 0. */
extern unsigned int srcu_nr_domains;

/* One deferred callback. Every peer's head fits into its first bytes. */
struct srcu_node {
	void *head[4];
	void (*ran)(struct srcu_node *node); /* told of it, or NULL */
	uint64_t done;
};

static inline void srcu_node_ran(void *head)
{
	struct srcu_node *node = head;

	node->done = 1;
	if (node->ran)
		node->ran(node);
}

/* A reader that runs through sections without a pause, and how to see that it does. */
struct srcu_busy {
	uint64_t stop __attribute__((aligned(128)));
	uint64_t sections __attribute__((aligned(128)));
};

struct srcu_peer {
	const char *name;
	clockid_t clock; /* for read costs: a lock that blocks is measured by the wall */

	/* Around everything that a thread does with the peer. */
	void (*enter)(void);
	void (*leave)(void);
	/* A registered thread will not read for some time; and again. */
	void (*offline)(void);
	void (*online)(void);

	/* @n operations; NULL: this peer has no such thing. */
	void (*pair)(uint64_t n);
	void (*deref)(uint64_t n);
	void (*nested)(uint64_t n);
	void (*domains)(uint64_t n);
	void (*walk)(uint64_t n);
	void (*synchronize)(uint64_t n);

	void (*busy)(struct srcu_busy *busy);
	/* Call @inside(@arg) in a read section. */
	void (*hold)(void (*inside)(void *arg), void *arg);

	/* Callbacks. The worker is a thread that runs them unasked. */
	bool has_worker;
	int (*call_start)(void);
	void (*call_stop)(void);
	void (*call)(struct srcu_node *nodes, uint64_t n);
	void (*barrier)(void);
};

/* For peers that need no telling. */
static inline void srcu_nothing(void)
{
}

#endif
