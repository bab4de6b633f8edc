// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The tree is libbsd's, which tells us of each node whose children it changed (RB_AUGMENT), but not
 * of those above. So whoever adds or takes a node goes up to the root afterwards. That reaches all
 * that are out of date: rotations on the way leave every node that was above the place above it,
 * and the others that they move are told of.
 */
#include "notifier/interval_tree.h"

#define RB_AUGMENT(node) update(node)
#include <bsd/sys/tree.h>

static void update(struct interval_tree_node *node)
{
	const struct interval_tree_node *left = RB_LEFT(node, rb), *right = RB_RIGHT(node, rb);
	uint64_t last = node->last;

	if (left && left->subtree_last > last)
		last = left->subtree_last;
	if (right && right->subtree_last > last)
		last = right->subtree_last;
	node->subtree_last = last;
}

static void update_to_root(struct interval_tree_node *node)
{
	for (; node; node = RB_PARENT(node, rb))
		update(node);
}

/* By start; then by address, as the tree takes no two that are equal. */
static int compare(const struct interval_tree_node *a, const struct interval_tree_node *b)
{
	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return (uintptr_t)a < (uintptr_t)b ? -1 : a != b;
}

RB_GENERATE_INTERNAL(interval_tree, interval_tree_node, rb, compare, static __attribute__((unused)))

void interval_tree_insert(struct interval_tree *tree, struct interval_tree_node *node)
{
	node->subtree_last = node->last;
	RB_INSERT(interval_tree, tree, node);
	update_to_root(node);
}

void interval_tree_remove(struct interval_tree *tree, struct interval_tree_node *node)
{
	/* Where a node goes, or where the one goes that takes its place: there it begins. */
	struct interval_tree_node *above = RB_PARENT(node, rb);

	if (RB_LEFT(node, rb) && RB_RIGHT(node, rb)) {
		struct interval_tree_node *heir = RB_RIGHT(node, rb);

		while (RB_LEFT(heir, rb))
			heir = RB_LEFT(heir, rb);
		above = RB_PARENT(heir, rb) == node ? heir : RB_PARENT(heir, rb);
	}
	RB_REMOVE(interval_tree, tree, node);
	update_to_root(above);
}

static bool reaches(const struct interval_tree_node *subtree, uint64_t start)
{
	return subtree && subtree->subtree_last >= start;
}

/*
 * The first in @node's subtree, which reaches @start. If the left half reaches @start, the first is
 * there or nowhere: one there ends late enough, so if it does not overlap it begins too late, and
 * so does all that stands to the right of it.
 */
static struct interval_tree_node *first_in(struct interval_tree_node *node, uint64_t start,
					   uint64_t last)
{
	for (;;) {
		if (reaches(RB_LEFT(node, rb), start)) {
			node = RB_LEFT(node, rb);
			continue;
		}
		if (node->start > last)
			return NULL;
		if (node->last >= start)
			return node;
		/* It was not in the left half, and is not this one. */
		node = RB_RIGHT(node, rb);
	}
}

struct interval_tree_node *interval_tree_first(const struct interval_tree *tree, uint64_t start,
					       uint64_t last)
{
	return reaches(RB_ROOT(tree), start) ? first_in(RB_ROOT(tree), start, last) : NULL;
}

struct interval_tree_node *interval_tree_next(struct interval_tree_node *node, uint64_t start,
					      uint64_t last)
{
	for (;;) {
		struct interval_tree_node *below;

		/* Right of here; if that reaches @start, then there or nowhere, as above. */
		if (reaches(RB_RIGHT(node, rb), start))
			return first_in(RB_RIGHT(node, rb), start, last);
		/* Up to the first that we stand left of. */
		do {
			below = node;
			node = RB_PARENT(node, rb);
		} while (node && RB_RIGHT(node, rb) == below);
		if (!node || node->start > last)
			return NULL;
		if (node->last >= start)
			return node;
	}
}
