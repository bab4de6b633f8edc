/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reverse maps against the simplest thing that could be one: an array.
 */
#include <string.h>

#include "shadow/shadow_internal.h"
#include "tests/support/test.h"

#define MAX 64

struct model {
	struct rmap_head head;
	struct rmap_desc *spare;
	bool in[MAX];
	unsigned int nr;
};

/* Never loaded: an rmap is about their addresses. */
static spte_t sptes[MAX];

static void add(struct model *m, unsigned int i)
{
	if (!m->spare)
		m->spare = rmap_desc_alloc();
	rmap_add(&m->head, &sptes[i], &m->spare);
	m->in[i] = true;
	m->nr++;
}

static void remove_one(struct model *m, unsigned int i)
{
	rmap_remove(&m->head, &sptes[i]);
	m->in[i] = false;
	m->nr--;
}

static void check(struct model *m)
{
	spte_t *first = rmap_first(&m->head);

	expect_eq(rmap_count(&m->head), m->nr);
	for (unsigned int i = 0; i < MAX; i++)
		expect_eq(rmap_contains(&m->head, &sptes[i]), m->in[i]);
	expect_eq(first == NULL, m->nr == 0);
	if (first)
		expect(m->in[first - sptes]);
	if (!m->nr)
		expect_eq(m->head.val, 0);
}

TEST(rmap, fill_and_empty_in_each_order)
{
	for (unsigned int nr = 0; nr <= MAX; nr++) {
		for (int order = 0; order < 3; order++) {
			struct model m = {0};

			for (unsigned int i = 0; i < nr; i++) {
				add(&m, i);
				check(&m);
			}
			for (unsigned int i = 0; i < nr; i++) {
				if (order == 0)
					remove_one(&m, i);
				else if (order == 1)
					remove_one(&m, nr - 1 - i);
				else
					remove_one(&m, rmap_first(&m.head) - sptes);
				check(&m);
			}
			rmap_desc_free(m.spare);
		}
	}
}

TEST(rmap, random_walk)
{
	struct model m = {0};
	uint64_t x = 88172645463325252UL;

	for (int step = 0; step < 50000; step++) {
		bool likes_to_grow;
		unsigned int i;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		i = x % MAX;
		/* Lean to one side for a while, then to the other. */
		likes_to_grow = step / 500 % 2;
		if ((x >> 32) % 4 == 0 || m.in[i] != likes_to_grow) {
			if (m.in[i])
				remove_one(&m, i);
			else
				add(&m, i);
		}
		if (step % 16 == 0)
			check(&m);
	}
	while (m.nr)
		remove_one(&m, rmap_first(&m.head) - sptes);
	check(&m);
	rmap_desc_free(m.spare);
}

/* The first two need no memory, or one chunk: what a fault's cache is sized by. */
TEST(rmap, one_chunk_at_most_for_each_addition)
{
	struct model m = {0};
	unsigned int used = 0;

	for (unsigned int i = 0; i < MAX; i++) {
		bool had = m.spare;

		add(&m, i);
		used += had && !m.spare;
	}
	expect_ge(used, 1);
	expect_le(used, MAX / 4);
	while (m.nr)
		remove_one(&m, rmap_first(&m.head) - sptes);
	rmap_desc_free(m.spare);
}

static void remove_a_stranger(void *arg)
{
	struct model *m = arg;

	rmap_remove(&m->head, &sptes[MAX - 1]);
}

TEST(rmap, removing_a_stranger_is_a_bug)
{
	for (unsigned int nr = 0; nr < 10; nr++) {
		struct model m = {0};

		for (unsigned int i = 0; i < nr; i++)
			add(&m, i);
		expect_bug(remove_a_stranger, &m, "rmap holds the entry");
		while (m.nr)
			remove_one(&m, rmap_first(&m.head) - sptes);
		rmap_desc_free(m.spare);
	}
}
