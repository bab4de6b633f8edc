/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the SRCU benchmarks: readers (srcu_read.c), those who wait for them
 * (srcu_synchronize.c), and callbacks (srcu_call.c).
 */
#ifndef TESTS_BENCH_SRCU_H
#define TESTS_BENCH_SRCU_H

#include "tests/bench/srcu_peers.h"

/* All that were built in; ends with NULL. */
extern const struct srcu_peer *const srcu_peers[];

typedef int srcu_sample_fn(const struct bench *b, const struct bench_variant *v, uint64_t n,
			   struct bench_sample *s);

/* One function of struct srcu_peer, by its place in it, and how many domains it reads. */
struct srcu_op {
	size_t offset;
	unsigned int domains;
};

typedef void srcu_loop_fn(uint64_t n);

static inline srcu_loop_fn *srcu_loop(const struct srcu_peer *peer, const struct srcu_op *op)
{
	return *(srcu_loop_fn *const *)((const char *)peer + op->offset);
}

extern const struct srcu_op srcu_op_pair, srcu_op_deref, srcu_op_nested, srcu_op_domains,
	srcu_op_walk_8, srcu_op_walk_32, srcu_op_walk_255, srcu_op_synchronize;

/* srcu_read.c */
srcu_sample_fn srcu_sample_read, srcu_sample_beside;
/* A variant of it, for a peer: with an updater that waits, or without (v->arg is one of these). */
struct srcu_beside {
	const struct srcu_peer *peer;
	bool updater;
};

/* srcu_synchronize.c. b->threads: how many idle ones setup makes. */
srcu_sample_fn srcu_sample_synchronize, srcu_sample_synchronize_busy;
int srcu_idle_setup(const struct bench *b);
void srcu_idle_teardown(const struct bench *b);

/* srcu_call.c */
#define SRCU_ENQUEUED 4096
/* Many: liburcu's worker sleeps for 10 ms between batches, which is no cost of a callback. */
#define SRCU_MAX_CALLS 200000
srcu_sample_fn srcu_sample_enqueue, srcu_sample_total, srcu_sample_latency;
int srcu_call_setup(const struct bench *b);
void srcu_call_teardown(const struct bench *b);

#endif
