/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tree of intervals against a plain array: after each step it is a red-black tree in order,
 * each node knows the end of its subtree, and every query finds exactly what the array has, by
 * start.
 */
#include <string.h>

#include "notifier/interval_tree.h"
#include "notifier/sync/util.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"

#define MAX_NODES 200
#define RED	  1 /* of <bsd/sys/tree.h>: 0 is black */

struct model {
	struct interval_tree tree;
	struct interval_tree_node nodes[MAX_NODES];
	bool in[MAX_NODES];
	unsigned int nr;
	uint64_t seed;
};

static uint64_t random64(struct model *m)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed;
}

static int by_start(const struct interval_tree_node *a, const struct interval_tree_node *b)
{
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return a < b ? -1 : a > b;
}

/* ---- the shape ---- */

struct shape {
	unsigned int black; /* black nodes on each way down */
	unsigned int nodes;
	uint64_t last;
};

static struct shape check_below(const struct interval_tree_node *node,
				const struct interval_tree_node *parent)
{
	struct shape left, right;
	uint64_t last;

	if (!node)
		return (struct shape){.black = 1};
	expect(node->rb.rbe_parent == parent);
	if (node->rb.rbe_color == RED)
		expect(parent && parent->rb.rbe_color != RED);
	if (node->rb.rbe_left)
		expect(by_start(node->rb.rbe_left, node) < 0);
	if (node->rb.rbe_right)
		expect(by_start(node, node->rb.rbe_right) < 0);
	left = check_below(node->rb.rbe_left, node);
	right = check_below(node->rb.rbe_right, node);
	expect_eq(left.black, right.black);

	last = node->last;
	if (left.nodes && left.last > last)
		last = left.last;
	if (right.nodes && right.last > last)
		last = right.last;
	expect_eq(node->subtree_last, last);
	return (struct shape){
		.black = left.black + (node->rb.rbe_color != RED),
		.nodes = left.nodes + right.nodes + 1,
		.last = last,
	};
}

static void check_shape(const struct model *m)
{
	expect_eq(check_below(m->tree.rbh_root, NULL).nodes, m->nr);
}

/* ---- queries ---- */

/* Each node of the tree that overlaps, once, and no other: by their number, and the order. */
static unsigned int check_query(struct model *m, uint64_t start, uint64_t last)
{
	struct interval_tree_node *node, *before = NULL;
	unsigned int found = 0, expected = 0;

	for (node = interval_tree_first(&m->tree, start, last); node;
	     node = interval_tree_next(node, start, last)) {
		size_t i = node - m->nodes;

		expect(i < MAX_NODES && m->in[i]);
		expect(node->start <= last && node->last >= start);
		if (before)
			expect(by_start(before, node) < 0);
		before = node;
		found++;
	}
	for (size_t i = 0; i < MAX_NODES; i++)
		expected += m->in[i] && m->nodes[i].start <= last && m->nodes[i].last >= start;
	expect_eq(found, expected);
	return found;
}

static void add(struct model *m, size_t i, uint64_t start, uint64_t last)
{
	/* As its owner may have left it: nothing but the bounds counts. */
	memset(&m->nodes[i], 0xee, sizeof(m->nodes[i]));
	m->nodes[i].start = start;
	m->nodes[i].last = last;
	interval_tree_insert(&m->tree, &m->nodes[i]);
	m->in[i] = true;
	m->nr++;
}

static void take(struct model *m, size_t i)
{
	interval_tree_remove(&m->tree, &m->nodes[i]);
	memset(&m->nodes[i], 0xee, sizeof(m->nodes[i]));
	m->in[i] = false;
	m->nr--;
}

/* Bounds below @space, at most @length apart; @space 0: all there are. */
static void random_bounds(struct model *m, uint64_t space, uint64_t length, uint64_t *start,
			  uint64_t *last)
{
	*start = space ? random64(m) % space : random64(m);
	if (__builtin_add_overflow(*start, random64(m) % length, last))
		*last = UINT64_MAX;
}

/*
 * Grows and shrinks by turns, so that every size comes up. Small spaces make many equal starts and
 * equal intervals, long intervals make ends that are far from the node that has them.
 */
static void against_the_model(uint64_t seed, uint64_t space, uint64_t length, uint64_t steps)
{
	struct model m = {.seed = seed};
	uint64_t start, last, hits = 0;
	unsigned int most = 0;

	for (uint64_t step = 0; step < steps; step++) {
		size_t i = random64(&m) % MAX_NODES;
		bool grow = step / 500 % 2 == 0;

		if (!m.in[i] && (grow || random64(&m) % 8 == 0)) {
			random_bounds(&m, space, length, &start, &last);
			add(&m, i, start, last);
		} else if (m.in[i] && (!grow || random64(&m) % 8 == 0)) {
			take(&m, i);
		}
		most = max(most, m.nr);
		check_shape(&m);
		random_bounds(&m, space, random64(&m) % 2 ? 1 : 2 * length, &start, &last);
		hits += check_query(&m, start, last);
	}
	expect_ge(most, MAX_NODES / 2);
	expect_ge(hits, steps / 100);
	expect_eq(check_query(&m, 0, UINT64_MAX), m.nr);
	for (size_t i = 0; i < MAX_NODES; i++) {
		if (m.in[i])
			take(&m, i);
		check_shape(&m);
	}
	expect(!m.tree.rbh_root);
}

TEST(interval_tree, short_intervals)
{
	against_the_model(0x1234567, 1000, 20, test_volume(20000));
}

TEST(interval_tree, long_intervals)
{
	against_the_model(0x2345678, 1000, 1000, test_volume(20000));
}

TEST(interval_tree, many_are_equal)
{
	against_the_model(0x3456789, 4, 3, test_volume(20000));
}

/* All 64 bits count, and ends saturate at the last address there is. */
TEST(interval_tree, whole_address_range)
{
	against_the_model(0x456789a, 0, UINT64_MAX, test_volume(20000));
	against_the_model(0x56789ab, 0, 1ULL << 60, test_volume(20000));
}

TEST(interval_tree, empty)
{
	struct model m = {0};

	check_query(&m, 0, UINT64_MAX);
	expect(!interval_tree_first(&m.tree, 0, 0));
	expect(!interval_tree_first(&m.tree, UINT64_MAX, UINT64_MAX));
	add(&m, 0, 5, 5);
	take(&m, 0);
	expect(!interval_tree_first(&m.tree, 0, UINT64_MAX));
}

/* Both bounds belong to both, the interval and the query. */
TEST(interval_tree, bounds_are_inclusive)
{
	struct model m = {0};

	add(&m, 0, 10, 19);
	add(&m, 1, 30, 30);
	expect_eq(check_query(&m, 0, 9), 0);
	expect_eq(check_query(&m, 0, 10), 1);
	expect_eq(check_query(&m, 10, 10), 1);
	expect_eq(check_query(&m, 19, 19), 1);
	expect_eq(check_query(&m, 19, 29), 1);
	expect_eq(check_query(&m, 20, 29), 0);
	expect_eq(check_query(&m, 20, 30), 1);
	expect_eq(check_query(&m, 30, UINT64_MAX), 1);
	expect_eq(check_query(&m, 31, UINT64_MAX), 0);
	expect_eq(check_query(&m, 19, 30), 2);
}

TEST(interval_tree, ends_of_the_address_range)
{
	struct model m = {0};

	add(&m, 0, 0, 0);
	add(&m, 1, UINT64_MAX, UINT64_MAX);
	add(&m, 2, 0, UINT64_MAX);
	add(&m, 3, 1, UINT64_MAX - 1);
	check_shape(&m);
	expect_eq(check_query(&m, 0, 0), 2);
	expect_eq(check_query(&m, 1, 1), 2);
	expect_eq(check_query(&m, 1, UINT64_MAX - 1), 2);
	expect_eq(check_query(&m, UINT64_MAX, UINT64_MAX), 2);
	expect_eq(check_query(&m, 0, UINT64_MAX), 4);
	expect(interval_tree_first(&m.tree, UINT64_MAX, UINT64_MAX) == &m.nodes[2]);
	expect(interval_tree_next(&m.nodes[2], UINT64_MAX, UINT64_MAX) == &m.nodes[1]);
	expect(!interval_tree_next(&m.nodes[1], UINT64_MAX, UINT64_MAX));
}

/* A window may go on from an interval that it does not meet, with other bounds than it began. */
TEST(interval_tree, next_from_anywhere)
{
	struct model m = {0};

	for (size_t i = 0; i < 100; i++)
		add(&m, i, 10 * i, 10 * i + 4);
	check_shape(&m);
	for (size_t i = 0; i < 99; i++) {
		expect(interval_tree_next(&m.nodes[i], 0, UINT64_MAX) == &m.nodes[i + 1]);
		expect(interval_tree_next(&m.nodes[i], 984, 990) == &m.nodes[i < 98 ? 98 : 99]);
		expect(!interval_tree_next(&m.nodes[i], 0, 10 * i));
	}
	expect(!interval_tree_next(&m.nodes[99], 0, UINT64_MAX));
}

/* The same interval again and again: each is found, once, and leaves alone. */
TEST(interval_tree, equal_intervals)
{
	struct model m = {0};

	for (size_t i = 0; i < MAX_NODES; i++)
		add(&m, (i * 77) % MAX_NODES, 100, 200);
	check_shape(&m);
	expect_eq(check_query(&m, 200, 300), MAX_NODES);
	expect_eq(check_query(&m, 0, 99), 0);
	for (size_t i = 0; i < MAX_NODES; i++) {
		take(&m, (i * 33) % MAX_NODES);
		check_shape(&m);
		expect_eq(check_query(&m, 0, 100), m.nr);
	}
}
