/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a deferred callback costs its caller, what it costs in all, and how late a single one is.
 */
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/srcu.h"

static struct srcu_node *nodes;

/* The workers of all peers, asleep unless their peer is measured. */
int srcu_call_setup(const struct bench *b)
{
	(void)b;
	nodes = calloc(SRCU_MAX_CALLS, sizeof(*nodes));
	if (!nodes)
		return -ENOMEM;
	for (size_t i = 0; srcu_peers[i]; i++) {
		const struct srcu_peer *peer = srcu_peers[i];
		int err = peer->call_start ? peer->call_start() : 0;

		if (!err)
			continue;
		while (i--)
			if (srcu_peers[i]->call_stop)
				srcu_peers[i]->call_stop();
		free(nodes);
		return err;
	}
	return 0;
}

void srcu_call_teardown(const struct bench *b)
{
	(void)b;
	for (size_t i = 0; srcu_peers[i]; i++)
		if (srcu_peers[i]->call_stop)
			srcu_peers[i]->call_stop();
	free(nodes);
}

/* After a barrier, every callback has run. */
static int all_done(const struct srcu_peer *peer, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		if (nodes[i].done)
			continue;
		fprintf(stderr, "bench: %s: the barrier returned before a callback ran\n",
			peer->name);
		return -EPROTO;
	}
	return 0;
}

static int sample(const struct srcu_peer *peer, uint64_t n, clockid_t clock, bool total,
		  struct bench_sample *s)
{
	struct bench_timer timer;
	int err;

	/* Also touches them all: the first use of a page is no part of a call. */
	memset(nodes, 0, n * sizeof(*nodes));
	peer->enter();
	bench_start(&timer, clock);
	peer->call(nodes, n);
	if (total)
		peer->barrier();
	bench_stop(&timer, s);
	/* A worker that takes the CPU from its caller is no disturbance but part of the cost. */
	s->disturbed = false;
	if (!total)
		peer->barrier();
	err = all_done(peer, n);
	peer->leave();
	return err;
}

int srcu_sample_enqueue(const struct bench *b, const struct bench_variant *v, uint64_t n,
			struct bench_sample *s)
{
	(void)b;
	return sample(v->arg, n, CLOCK_THREAD_CPUTIME_ID, false, s);
}

int srcu_sample_total(const struct bench *b, const struct bench_variant *v, uint64_t n,
		      struct bench_sample *s)
{
	(void)b;
	return sample(v->arg, n, CLOCK_MONOTONIC, true, s);
}

/* ---- one alone ---- */

/* Longer than any worker stays awake after its last callback (liburcu's: 10 ms). */
#define IDLE_MS 15

static uint64_t ran_at;
static sem_t ran;

static void stamp(struct srcu_node *node)
{
	(void)node;
	ran_at = bench_now(CLOCK_MONOTONIC);
	sem_post(&ran);
}

int srcu_sample_latency(const struct bench *b, const struct bench_variant *v, uint64_t n,
			struct bench_sample *s)
{
	const struct srcu_peer *peer = v->arg;

	(void)b;
	sem_init(&ran, 0, 0);
	*s = (struct bench_sample){0};
	peer->enter();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t called_at;

		peer->barrier();
		peer->offline();
		poll(NULL, 0, IDLE_MS);
		peer->online();
		memset(nodes, 0, sizeof(*nodes));
		nodes[0].ran = stamp;
		called_at = bench_now(CLOCK_MONOTONIC);
		peer->call(nodes, 1);
		peer->offline();
		while (sem_wait(&ran) != 0)
			; /* a signal */
		peer->online();
		s->ns += (double)(ran_at - called_at);
	}
	/* The node is ours again only after the callback returned. */
	peer->barrier();
	peer->leave();
	return 0;
}
