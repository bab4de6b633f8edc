/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intervals, found by overlap: a red-black tree by start, in which each node knows the largest end
 * of its subtree. O(log n) for insert, remove and the first hit, and for each further hit.
 *
 * Walking changes nothing and needs no lock where nobody changes the tree.
 */
#ifndef NOTIFIER_INTERVAL_TREE_H
#define NOTIFIER_INTERVAL_TREE_H

#include <gnomon/mmu_interval_notifier.h>

struct interval_tree {
	struct interval_tree_node *rbh_root; /* as RB_HEAD() has it; NULL: empty */
};

/* @node has start and last, start <= last. The same interval may be in the tree many times. */
void interval_tree_insert(struct interval_tree *tree, struct interval_tree_node *node);
void interval_tree_remove(struct interval_tree *tree, struct interval_tree_node *node);

/* What overlaps [start, last], by start; NULL: nothing (more). */
struct interval_tree_node *interval_tree_first(const struct interval_tree *tree, uint64_t start,
					       uint64_t last);
struct interval_tree_node *interval_tree_next(struct interval_tree_node *node, uint64_t start,
					      uint64_t last);

#endif
