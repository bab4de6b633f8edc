/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables of the primary page table: a radix tree of 512-entry nodes, levels 3 (the root) to 0
 * (the leaves that hold entries). pgtable.h has the rules for entries.
 *
 * Nodes are installed once, by compare-and-exchange, and stay until pgtable_destroy: so a lookup
 * needs no lock, and an entry's address stays good for as long as the tables live. Nodes are our
 * own memory, not machine frames: nobody but host code walks this table.
 */
#include "notifier/pgtable.h"

#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

#define PGTABLE_BITS	9
#define PGTABLE_ENTRIES (1u << PGTABLE_BITS)
#define PGTABLE_ROOT	3

struct pgtable_node {
	union {
		struct pgtable_node *child[PGTABLE_ENTRIES]; /* levels 3 to 1 */
		pte_t entry[PGTABLE_ENTRIES];		     /* level 0 */
	};
};

struct pgtable {
	struct pgtable_node root;
};

static_assert(HVA_MAX <= 1UL << (PAGE_SHIFT + PGTABLE_BITS * (PGTABLE_ROOT + 1)),
	      "the tables cover every hva");

static unsigned int level_shift(int level)
{
	return PAGE_SHIFT + PGTABLE_BITS * level;
}

static unsigned int level_index(hva_t hva, int level)
{
	return (hva >> level_shift(level)) & (PGTABLE_ENTRIES - 1);
}

struct pgtable *pgtable_create(void)
{
	return kzalloc(sizeof(struct pgtable), GFP_KERNEL);
}

static void free_children(struct pgtable_node *node, int level)
{
	for (unsigned int i = 0; i < PGTABLE_ENTRIES; i++) {
		struct pgtable_node *child = node->child[i];

		if (!child)
			continue;
		if (level > 1) {
			free_children(child, level - 1);
		} else {
			for (unsigned int j = 0; j < PGTABLE_ENTRIES; j++)
				ASSERT(pte_none(child->entry[j]), "a freed table has no entries");
		}
		kfree(child);
	}
}

void pgtable_destroy(struct pgtable *pt)
{
	if (!pt)
		return;
	free_children(&pt->root, PGTABLE_ROOT);
	kfree(pt);
}

static_assert(PGTABLE_LEAF_SIZE == PGTABLE_ENTRIES * PAGE_SIZE, "pgtable_next() stays in a leaf");

/* The leaf of @hva; or NULL, and then @level says at which level the table is missing. */
static struct pgtable_node *find_leaf(struct pgtable *pt, hva_t hva, int *level)
{
	struct pgtable_node *node = &pt->root;

	for (*level = PGTABLE_ROOT; node && *level > 0; --*level)
		/* Pairs with the cmpxchg in get_child(): the node is seen zeroed. */
		node = smp_load_acquire(&node->child[level_index(hva, *level)]);
	return node;
}

pte_t *pgtable_lookup(struct pgtable *pt, hva_t hva)
{
	struct pgtable_node *leaf;
	int level;

	if (hva >= HVA_MAX)
		return NULL;
	leaf = find_leaf(pt, hva, &level);
	return leaf ? &leaf->entry[level_index(hva, 0)] : NULL;
}

static struct pgtable_node *get_child(struct pgtable_node **slot)
{
	struct pgtable_node *child = smp_load_acquire(slot);
	struct pgtable_node *winner;

	if (child)
		return child;
	child = kzalloc(sizeof(*child), GFP_KERNEL);
	if (!child)
		return NULL;
	winner = cmpxchg(slot, NULL, child);
	if (!winner)
		return child;
	kfree(child);
	return winner;
}

pte_t *pgtable_get(struct pgtable *pt, hva_t hva)
{
	struct pgtable_node *node = &pt->root;

	ASSERT(hva < HVA_MAX, "an hva lies below HVA_MAX: %#llx", (unsigned long long)hva);
	for (int level = PGTABLE_ROOT; node && level > 0; level--)
		node = get_child(&node->child[level_index(hva, level)]);
	return node ? &node->entry[level_index(hva, 0)] : NULL;
}

int pgtable_walk(struct pgtable *pt, hva_t start, hva_t end,
		 int (*fn)(pte_t *ptep, hva_t hva, void *arg), void *arg)
{
	hva_t hva = start;

	while (hva < end) {
		int level;
		struct pgtable_node *leaf = find_leaf(pt, hva, &level);
		hva_t span_end =
			min(((hva >> level_shift(level + 1)) + 1) << level_shift(level + 1), end);

		for (; leaf && hva < span_end; hva += PAGE_SIZE) {
			int ret = fn(&leaf->entry[level_index(hva, 0)], hva, arg);

			if (ret)
				return ret;
		}
		hva = span_end;
	}
	return 0;
}
