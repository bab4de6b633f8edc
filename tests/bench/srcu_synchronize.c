/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it costs to wait for readers when there is nobody, when there are many threads that could
 * read and do not, and when one reads all the time.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "tests/bench/srcu.h"

const struct srcu_op srcu_op_synchronize = {offsetof(struct srcu_peer, synchronize), 1};

int srcu_sample_synchronize(const struct bench *b, const struct bench_variant *v, uint64_t n,
			    struct bench_sample *s)
{
	const struct srcu_peer *peer = v->arg;
	struct bench_timer timer;

	(void)b;
	bench_pin(0);
	peer->enter();
	peer->pair(SRCU_BLOCK);
	peer->synchronize(1);
	bench_start(&timer, CLOCK_MONOTONIC);
	peer->synchronize(n);
	bench_stop(&timer, s);
	peer->leave();
	bench_unpin();
	return 0;
}

/* ---- idle threads: registered with every peer, readers once, now asleep ---- */

static struct {
	pthread_t *threads;
	unsigned int nr, ready;
	bool leave;
	pthread_mutex_t lock;
	pthread_cond_t changed;
} idle = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *idle_main(void *arg)
{
	(void)arg;
	for (size_t i = 0; srcu_peers[i]; i++) {
		srcu_peers[i]->enter();
		srcu_peers[i]->pair(SRCU_BLOCK);
		srcu_peers[i]->offline();
	}
	pthread_mutex_lock(&idle.lock);
	idle.ready++;
	pthread_cond_broadcast(&idle.changed);
	while (!idle.leave)
		pthread_cond_wait(&idle.changed, &idle.lock);
	pthread_mutex_unlock(&idle.lock);
	for (size_t i = 0; srcu_peers[i]; i++) {
		srcu_peers[i]->online();
		srcu_peers[i]->leave();
	}
	return NULL;
}

int srcu_idle_setup(const struct bench *b)
{
	int err = 0;

	idle.threads = calloc(b->threads, sizeof(*idle.threads));
	if (!idle.threads)
		return -ENOMEM;
	idle.nr = idle.ready = 0;
	idle.leave = false;
	while (!err && idle.nr < b->threads) {
		err = bench_thread(&idle.threads[idle.nr], idle_main, NULL);
		if (!err)
			idle.nr++;
	}
	pthread_mutex_lock(&idle.lock);
	while (idle.ready < idle.nr)
		pthread_cond_wait(&idle.changed, &idle.lock);
	pthread_mutex_unlock(&idle.lock);
	if (err)
		srcu_idle_teardown(b);
	return err;
}

void srcu_idle_teardown(const struct bench *b)
{
	(void)b;
	pthread_mutex_lock(&idle.lock);
	idle.leave = true;
	pthread_cond_broadcast(&idle.changed);
	pthread_mutex_unlock(&idle.lock);
	for (unsigned int i = 0; i < idle.nr; i++)
		pthread_join(idle.threads[i], NULL);
	free(idle.threads);
}

/* ---- a busy reader ---- */

/*
 * A call counts only if the reader was seen to move just before it and just after. On a machine
 * with other work, the reader is often not on a CPU; then a membarrier interrupts nobody and costs
 * a twentieth. A mean over both kinds would say how loaded the machine is.
 */
#define SEEN_BEFORE_NS 20000000
#define SEEN_AFTER_NS  5000
#define CALLS	       32
#define ATTEMPTS       (8 * CALLS)

struct reader {
	const struct srcu_peer *peer;
	struct srcu_busy busy;
	pthread_t thread;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	bench_pin(1);
	r->peer->enter();
	r->peer->busy(&r->busy);
	r->peer->leave();
	return NULL;
}

static bool moves(struct reader *r, uint64_t within_ns)
{
	uint64_t end = bench_now(CLOCK_MONOTONIC) + within_ns;
	uint64_t was = __atomic_load_n(&r->busy.sections, __ATOMIC_RELAXED);

	do {
		for (int i = 0; i < 64; i++) {
			if (__atomic_load_n(&r->busy.sections, __ATOMIC_RELAXED) != was)
				return true;
			__builtin_ia32_pause();
		}
	} while (bench_now(CLOCK_MONOTONIC) < end);
	return false;
}

static size_t time_calls(struct reader *r, double *ns)
{
	struct bench_sample call;
	struct bench_timer timer;
	size_t nr = 0;

	for (int i = 0; nr < CALLS && i < ATTEMPTS && !bench_interrupted(); i++) {
		if (!moves(r, SEEN_BEFORE_NS)) {
			sched_yield();
			continue;
		}
		bench_start(&timer, CLOCK_MONOTONIC);
		r->peer->synchronize(1);
		bench_stop(&timer, &call);
		if (!call.disturbed && moves(r, SEEN_AFTER_NS))
			ns[nr++] = call.ns;
	}
	return nr;
}

int srcu_sample_synchronize_busy(const struct bench *b, const struct bench_variant *v, uint64_t n,
				 struct bench_sample *s)
{
	struct reader reader = {.peer = v->arg};
	double ns[CALLS];
	size_t nr;
	int err;

	(void)b;
	err = bench_thread(&reader.thread, reader_main, &reader);
	if (err)
		return err;
	bench_pin(0);
	reader.peer->enter();
	nr = time_calls(&reader, ns);
	reader.peer->leave();
	bench_unpin();
	__atomic_store_n(&reader.busy.stop, 1, __ATOMIC_RELAXED);
	pthread_join(reader.thread, NULL);

	/* The median: one call across which the reader was away and came back is no matter. */
	s->ns = nr ? bench_quantile(ns, nr, 0.5) * (double)n : 1;
	s->disturbed = nr < CALLS / 2;
	return 0;
}
