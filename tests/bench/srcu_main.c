/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of SRCU benchmarks, and who takes part in each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tests/bench/srcu.h"

const struct srcu_peer *const srcu_peers[] = {
	&srcu_floor,	 &srcu_gnomon,
#ifdef BENCH_URCU
	&srcu_urcu_memb, &srcu_urcu_mb, &srcu_urcu_bp, &srcu_urcu_qsbr,
#endif
#ifdef BENCH_CK
	&srcu_ck,
#endif
	&srcu_rwlock,	 &srcu_mutex,	NULL,
};

#define NR_PEERS (ARRAY_SIZE(srcu_peers) - 1)
#define BASE	 "urcu-memb"

static struct bench_variant readers[NR_PEERS], nesters[NR_PEERS], waiters[NR_PEERS];
static struct bench_variant callers[NR_PEERS], workers[NR_PEERS], besides[2 * NR_PEERS];
static struct srcu_beside beside_args[2 * NR_PEERS];
static char beside_names[NR_PEERS][32];

#define MANY (1 << 28)

#define READ(nr, name_, op, what_)                                                        \
	{                                                                                 \
		.name = name_, .what = what_, .threads = (nr), .cpus = (nr), .arg = (op), \
		.unit = SRCU_BLOCK, .max = MANY, .sample = srcu_sample_read,              \
		.variants = (op) == &srcu_op_nested ? nesters : readers,                  \
	}
#define IDLE(nr)                                                                           \
	{                                                                                  \
		.name = "srcu_synchronize_idle",                                           \
		.what = "synchronize; that many other threads are registered, and asleep", \
		.threads = (nr), .unit = 8, .max = MANY, .variants = waiters,              \
		.setup = srcu_idle_setup, .teardown = srcu_idle_teardown,                  \
		.sample = srcu_sample_synchronize,                                         \
	}
#define CALL(name_, sample_, who, unit_, max_, what_)                                        \
	{                                                                                    \
		.name = name_, .what = what_, .threads = 1, .unit = (unit_), .max = (max_),  \
		.variants = (who), .setup = srcu_call_setup, .teardown = srcu_call_teardown, \
		.sample = (sample_),                                                         \
	}

static struct bench benches[] = {
	READ(1, "srcu_read_pair", &srcu_op_pair, "lock, unlock"),
	READ(2, "srcu_read_pair", &srcu_op_pair, "lock, unlock"),
	READ(1, "srcu_read_deref", &srcu_op_deref, "lock, load a pointer and a word, unlock"),
	READ(2, "srcu_read_deref", &srcu_op_deref, "lock, load a pointer and a word, unlock"),
	READ(1, "srcu_read_nested", &srcu_op_nested, "a pair within a pair of one domain"),
	READ(1, "srcu_read_4_domains", &srcu_op_domains,
	     "four pairs of four domains, each within the last (liburcu: of its only one)"),
	READ(1, "srcu_read_walk_8", &srcu_op_walk_8,
	     "a pair of one of 8 domains, at random (liburcu: of its only one)"),
	READ(1, "srcu_read_walk_32", &srcu_op_walk_32, "the same, of 32"),
	READ(1, "srcu_read_walk_255", &srcu_op_walk_255, "the same, of 255"),
	{
		.name = "srcu_read_beside_synchronize",
		.what = "lock, unlock, while a thread waits for another reader who sleeps "
			"(quiet: nobody waits)",
		.threads = 1,
		.cpus = 2,
		.unit = SRCU_BLOCK,
		.max = MANY,
		.variants = besides,
		.sample = srcu_sample_beside,
	},
	{
		.name = "srcu_synchronize",
		.what = "synchronize; there is no other thread",
		.threads = 1,
		.unit = 8,
		.max = MANY,
		.variants = waiters,
		.sample = srcu_sample_synchronize,
	},
	{
		.name = "srcu_synchronize_busy",
		.what = "synchronize; a reader runs through short sections without a pause",
		.threads = 1,
		.cpus = 2,
		.unit = 1,
		.max = 1,
		.variants = waiters,
		.sample = srcu_sample_synchronize_busy,
	},
	CALL("srcu_call_enqueue", srcu_sample_enqueue, callers, SRCU_ENQUEUED, SRCU_ENQUEUED,
	     "call: what the caller pays"),
	CALL("srcu_call_total", srcu_sample_total, callers, SRCU_MAX_CALLS, SRCU_MAX_CALLS,
	     "one of 200000 calls, until all of them have run"),
	CALL("srcu_call_latency", srcu_sample_latency, workers, 1, 1,
	     "from one isolated call until its callback runs"),
	/* Last, and the most threads at the very end: some never forget how many there were. */
	IDLE(8),
	IDLE(64),
	IDLE(256),
};

/* What docs/srcu.md promises, against the base; "beside" is against itself. */
static double goal(const struct bench *b, const struct bench_variant *v)
{
	static const struct {
		const char *bench;
		unsigned int threads;
		double ratio;
	} goals[] = {
		{"srcu_read_pair", 1, 0.85},
		{"srcu_read_pair", 2, 0.85},
		{"srcu_synchronize", 1, 0.6},
		{"srcu_synchronize_idle", 256, 0.55},
		{"srcu_call_enqueue", 1, 0.3},
		{"srcu_call_latency", 1, 0.01},
		{"srcu_read_beside_synchronize", 1, 1.2},
	};

	for (size_t i = 0; i < ARRAY_SIZE(goals) && strcmp(v->name, srcu_gnomon.name) == 0; i++)
		if (strcmp(b->name, goals[i].bench) == 0 && b->threads == goals[i].threads)
			return goals[i].ratio;
	return 0;
}

static void add(struct bench_variant *variants, const struct srcu_peer *peer)
{
	while (variants->name)
		variants++;
	*variants = (struct bench_variant){.name = peer->name, .base = BASE, .arg = peer};
}

/* Each against itself: what it pays for somebody else's waiting. */
static void add_beside(size_t i, const struct srcu_peer *peer)
{
	struct bench_variant *quiet = &besides[2 * i], *waited = quiet + 1;

	snprintf(beside_names[i], sizeof(beside_names[i]), "%s-quiet", peer->name);
	beside_args[2 * i] = (struct srcu_beside){.peer = peer};
	beside_args[2 * i + 1] = (struct srcu_beside){.peer = peer, .updater = true};
	*quiet = (struct bench_variant){beside_names[i], beside_names[i], &beside_args[2 * i]};
	*waited = (struct bench_variant){peer->name, beside_names[i], &beside_args[2 * i + 1]};
}

static void fill_in(void)
{
	size_t nr_besides = 0;

	for (size_t i = 0; i < NR_PEERS; i++) {
		const struct srcu_peer *peer = srcu_peers[i];

		add(readers, peer);
		if (peer->nested)
			add(nesters, peer);
		if (peer->synchronize)
			add(waiters, peer);
		if (peer->synchronize && peer != &srcu_floor)
			add_beside(nr_besides++, peer);
		if (peer->call)
			add(callers, peer);
		if (peer->has_worker)
			add(workers, peer);
	}
	for (size_t i = 0; i < ARRAY_SIZE(benches); i++) {
		struct bench *b = &benches[i];
		size_t room = b->variants == besides ? 2 * NR_PEERS : NR_PEERS;

		b->goal = goal;
		while (b->nr_variants < room && b->variants[b->nr_variants].name)
			b->nr_variants++;
	}
}

int main(int argc, char **argv)
{
	int status;

	if (srcu_gnomon_init() != 0) {
		fprintf(stderr, "bench: no SRCU domains\n");
		return EX_OSERR;
	}
#ifdef BENCH_CK
	srcu_ck_init();
#endif
	fill_in();
	status = bench_main(argc, argv, benches, ARRAY_SIZE(benches));
	if (srcu_gnomon_cleanup() != 0) {
		fprintf(stderr, "bench: a reader was left behind\n");
		return EX_SOFTWARE;
	}
	return status;
}
