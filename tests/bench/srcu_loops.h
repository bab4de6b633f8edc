/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The loops that are measured, for the peer whose file includes this after defining
 *
 *   section_t					what a lock returns and the unlock takes
 *   peer_lock(domain), peer_unlock(domain, s)	domain is a constant, except in the walk
 *   peer_quiescent()				once per SRCU_BLOCK pairs
 *   PEER_NO_NESTING				if a section cannot be entered twice
 *
 * bench_barrier() keeps a body of the empty loop, and costs no instruction. noinline: a loop stays
 * a function that can be looked at (docs/bench.md).
 */
#include "tests/bench/srcu_peer.h"

#define LOOP static __attribute__((noinline))

#define BLOCKS(n) for (uint64_t block = 0; block < (n); block += SRCU_BLOCK, peer_quiescent())
#define EACH	  for (unsigned int i = 0; i < SRCU_BLOCK; i++)

LOOP void loop_pair(uint64_t n)
{
	BLOCKS(n)
	{
		EACH
		{
			section_t s = peer_lock(0);

			bench_barrier();
			peer_unlock(0, s);
			bench_barrier();
		}
	}
}

static uint64_t target = 1, *pointer = &target;
static volatile uint64_t sink;

LOOP void loop_deref(uint64_t n)
{
	uint64_t sum = 0;

	BLOCKS(n)
	{
		EACH
		{
			section_t s = peer_lock(0);

			sum += *__atomic_load_n(&pointer, __ATOMIC_RELAXED);
			peer_unlock(0, s);
			bench_barrier();
		}
	}
	sink = sum;
}

#ifndef PEER_NO_NESTING
LOOP void loop_nested(uint64_t n)
{
	BLOCKS(n)
	{
		EACH
		{
			section_t outer = peer_lock(0), inner = peer_lock(0);

			bench_barrier();
			peer_unlock(0, inner);
			peer_unlock(0, outer);
			bench_barrier();
		}
	}
}
#define PEER_NESTED loop_nested
#else
#define PEER_NESTED NULL
#endif

/* Four domains, one in the other. A peer without domains nests the one it has. */
LOOP void loop_domains(uint64_t n)
{
	BLOCKS(n)
	{
		EACH
		{
			section_t a = peer_lock(0), b = peer_lock(1), c = peer_lock(2),
				  d = peer_lock(3);

			bench_barrier();
			peer_unlock(3, d);
			peer_unlock(2, c);
			peer_unlock(1, b);
			peer_unlock(0, a);
			bench_barrier();
		}
	}
}

/*
 * Another domain each time, in an order that no prefetcher knows and all peers share. The empty asm
 * makes a peer without domains load the number too.
 */
LOOP void loop_walk(uint64_t n)
{
	BLOCKS(n)
	{
		EACH
		{
			unsigned int domain = srcu_walk.domain[i];
			section_t s;

			__asm__ __volatile__("" : "+r"(domain));
			s = peer_lock(domain);
			bench_barrier();
			peer_unlock(domain, s);
			bench_barrier();
		}
	}
}

LOOP void loop_busy(struct srcu_busy *busy)
{
	uint64_t sections = 0;

	while (!__atomic_load_n(&busy->stop, __ATOMIC_RELAXED)) {
		for (int i = 0; i < 16; i++) {
			section_t s = peer_lock(0);

			bench_barrier();
			peer_unlock(0, s);
			bench_barrier();
		}
		sections += 16;
		__atomic_store_n(&busy->sections, sections, __ATOMIC_RELAXED);
		peer_quiescent();
	}
}

static void hold(void (*inside)(void *arg), void *arg)
{
	section_t s = peer_lock(0);

	inside(arg);
	peer_unlock(0, s);
}

#define PEER_LOOPS                                                                              \
	.pair = loop_pair, .deref = loop_deref, .nested = PEER_NESTED, .domains = loop_domains, \
	.walk = loop_walk, .busy = loop_busy, .hold = hold
