/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a reader pays: alone, beside other readers, and while somebody waits for one of them.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/srcu.h"

#define OP(fn, domains)                                 \
	{                                               \
		offsetof(struct srcu_peer, fn), domains \
	}

const struct srcu_op srcu_op_pair = OP(pair, 1);
const struct srcu_op srcu_op_deref = OP(deref, 1);
const struct srcu_op srcu_op_nested = OP(nested, 1);
const struct srcu_op srcu_op_domains = OP(domains, 4);
const struct srcu_op srcu_op_walk_8 = OP(walk, 8);
const struct srcu_op srcu_op_walk_32 = OP(walk, 32);
const struct srcu_op srcu_op_walk_255 = OP(walk, 255);

struct srcu_walk srcu_walk;
unsigned int srcu_nr_domains = 1;

/* Always the same walk for so many domains. */
static void use_domains(unsigned int nr)
{
	unsigned int seed = 1;

	if (srcu_nr_domains == nr)
		return;
	srcu_nr_domains = nr;
	for (size_t i = 0; i < SRCU_BLOCK; i++)
		srcu_walk.domain[i] = (uint8_t)((unsigned int)rand_r(&seed) % nr);
}

int srcu_sample_read(const struct bench *b, const struct bench_variant *v, uint64_t n,
		     struct bench_sample *s)
{
	const struct srcu_peer *peer = v->arg;
	const struct srcu_op *op = b->arg;
	srcu_loop_fn *loop = srcu_loop(peer, op);
	struct bench_timer timer;

	use_domains(op->domains);
	if (b->threads > 1) {
		struct bench_job job = {
			.enter = peer->enter,
			.loop = loop,
			.leave = peer->leave,
			.clock = peer->clock,
			.unit = b->unit,
		};

		return bench_parallel(&job, b->threads, n, s);
	}
	bench_pin(0);
	peer->enter();
	loop(b->unit);
	bench_start(&timer, peer->clock);
	loop(n);
	bench_stop(&timer, s);
	peer->leave();
	bench_unpin();
	/* The other benches need one. */
	use_domains(1);
	return 0;
}

/* ---- beside a grace period that waits for a reader who sleeps ---- */

struct beside {
	const struct srcu_peer *peer;
	sem_t inside, leave;
	uint64_t calling, returned;
};

static void sleep_inside(void *arg)
{
	struct beside *beside = arg;

	sem_post(&beside->inside);
	while (sem_wait(&beside->leave) != 0)
		; /* a signal */
}

static void *sleeper_main(void *arg)
{
	struct beside *beside = arg;

	bench_pin(1);
	beside->peer->enter();
	beside->peer->hold(sleep_inside, beside);
	beside->peer->leave();
	return NULL;
}

static void *updater_main(void *arg)
{
	struct beside *beside = arg;

	bench_pin(1);
	beside->peer->enter();
	__atomic_store_n(&beside->calling, 1, __ATOMIC_RELEASE);
	beside->peer->synchronize(1);
	__atomic_store_n(&beside->returned, 1, __ATOMIC_RELEASE);
	beside->peer->leave();
	return NULL;
}

/* The updater has gone to sleep by the end of this, if it is one that sleeps. */
#define SETTLE_NS 300000

static int measure_beside(struct beside *beside, bool updater, uint64_t n, struct bench_sample *s)
{
	const struct srcu_peer *peer = beside->peer;
	struct bench_timer timer;
	uint64_t end;

	bench_pin(0);
	peer->enter();
	while (updater && !__atomic_load_n(&beside->calling, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	end = bench_now(CLOCK_MONOTONIC) + SETTLE_NS;
	do
		peer->pair(SRCU_BLOCK);
	while (bench_now(CLOCK_MONOTONIC) < end);

	bench_start(&timer, peer->clock);
	peer->pair(n);
	bench_stop(&timer, s);
	peer->leave();
	bench_unpin();
	if (!__atomic_load_n(&beside->returned, __ATOMIC_ACQUIRE))
		return 0;
	fprintf(stderr, "bench: %s: synchronize returned while a reader was inside\n", peer->name);
	return -EPROTO;
}

int srcu_sample_beside(const struct bench *b, const struct bench_variant *v, uint64_t n,
		       struct bench_sample *s)
{
	const struct srcu_beside *which = v->arg;
	struct beside beside = {.peer = which->peer};
	pthread_t sleeper, updater;
	int err;

	(void)b;
	sem_init(&beside.inside, 0, 0);
	sem_init(&beside.leave, 0, 0);
	err = bench_thread(&sleeper, sleeper_main, &beside);
	if (err)
		return err;
	while (sem_wait(&beside.inside) != 0)
		; /* a signal */
	err = which->updater ? bench_thread(&updater, updater_main, &beside) : 0;
	if (!err) {
		err = measure_beside(&beside, which->updater, n, s);
		sem_post(&beside.leave);
		if (which->updater)
			pthread_join(updater, NULL);
	} else {
		sem_post(&beside.leave);
	}
	pthread_join(sleeper, NULL);
	return err;
}
