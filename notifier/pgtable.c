/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables of the primary page table: a radix tree of 512-entry nodes, levels 3 (the root) to 0
 * (the leaves that hold entries). pgtable.h has the rules for entries.
 *
 * Nodes are installed by compare-and-exchange, so a lookup needs no lock. They are taken out by
 * whoever unmaps what they cover, and freed a grace period of pgtable_srcu later:
 *
 *   lookup                                    munmap
 *   ------                                    ------
 *   enters a section of pgtable_srcu
 *   loads the child pointer: a leaf           clears the entries, takes the leaf out
 *   loads its entry: none                     lets go of mmap_lock
 *   leaves the section                        synchronize_srcu: waits for that section
 *                                             frees the leaf
 *
 * Replayed by tests/unit/test_mmap_tables.c. Whoever may *fill* an entry holds mmap_lock for
 * reading, or a reverse-map lock by which it found the area, and so excludes the one who unmaps.
 *
 * Nodes are our own memory, not machine frames: nobody but host code walks this table.
 */
#include "notifier/pgtable.h"

#include "notifier/srcu_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"

#define PGTABLE_BITS	9
#define PGTABLE_ENTRIES (1u << PGTABLE_BITS)
#define PGTABLE_ROOT	3

struct pgtable_node {
	union {
		struct pgtable_node *child[PGTABLE_ENTRIES]; /* levels 3 to 1 */
		pte_t entry[PGTABLE_ENTRIES];		     /* level 0 */
	};
	struct pgtable_node *next_unlinked; /* pgtable_unlink_range()'s list */
};

struct pgtable {
	struct pgtable_node root;
};

/* One domain for all tables: sections are short, and nobody waits in one. Kept, as it has no owner
 * to free it. */
struct srcu_struct pgtable_srcu;
static bool srcu_ready; /* under srcu_init_mutex */
static DEFINE_MUTEX(srcu_init_mutex);

static int pgtable_srcu_init(void)
{
	int ret = 0;

	mutex_lock(&srcu_init_mutex);
	if (!srcu_ready) {
		ret = init_srcu_struct(&pgtable_srcu);
		srcu_ready = !ret;
		if (!ret)
			lockdep_init_map(&pgtable_srcu.d->dep, "pgtable_srcu", &pgtable_srcu);
	}
	mutex_unlock(&srcu_init_mutex);
	return ret;
}

/* Log2 of the number of bytes that one entry at @level covers. */
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
	if (pgtable_srcu_init())
		return NULL;
	return kzalloc(sizeof(struct pgtable), GFP_KERNEL);
}

/* A leaf, or a node whose children are gone. */
static void free_node(struct pgtable_node *node)
{
	for (unsigned int i = 0; i < PGTABLE_ENTRIES; i++)
		ASSERT(pte_none(node->entry[i]), "a freed table has no entries");
	kfree(node);
}

static void free_children(struct pgtable_node *node, int level)
{
	for (unsigned int i = 0; i < PGTABLE_ENTRIES; i++) {
		struct pgtable_node *child = node->child[i];

		if (!child)
			continue;
		if (level > 1)
			free_children(child, level - 1);
		node->child[i] = NULL;
		free_node(child);
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

int pgtable_walk_leaves(struct pgtable *pt, hva_t start, hva_t end,
			int (*fn)(pte_t *ptep, unsigned int nr, hva_t hva, void *arg), void *arg)
{
	hva_t hva = start;

	while (hva < end) {
		int level;
		struct pgtable_node *leaf = find_leaf(pt, hva, &level);
		hva_t span_end =
			min(((hva >> level_shift(level + 1)) + 1) << level_shift(level + 1), end);
		int ret = 0;

		if (leaf)
			ret = fn(&leaf->entry[level_index(hva, 0)], (span_end - hva) >> PAGE_SHIFT,
				 hva, arg);
		if (ret)
			return ret;
		hva = span_end;
	}
	return 0;
}

struct entry_visit {
	int (*fn)(pte_t *ptep, hva_t hva, void *arg);
	void *arg;
};

static int visit_entries(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	const struct entry_visit *visit = arg;
	int ret = 0;

	for (unsigned int i = 0; i < nr && !ret; i++)
		ret = visit->fn(&ptep[i], hva + i * PAGE_SIZE, visit->arg);
	return ret;
}

int pgtable_walk(struct pgtable *pt, hva_t start, hva_t end,
		 int (*fn)(pte_t *ptep, hva_t hva, void *arg), void *arg)
{
	struct entry_visit visit = {fn, arg};

	return pgtable_walk_leaves(pt, start, end, visit_entries, &visit);
}

/* In what a node at @level covers, from @base on. */
static void unlink_below(struct pgtable_node *node, int level, hva_t base, hva_t floor,
			 hva_t ceiling, struct pgtable_node **list)
{
	hva_t span = 1UL << level_shift(level);

	for (unsigned int i = 0; i < PGTABLE_ENTRIES; i++) {
		struct pgtable_node *child = node->child[i];
		hva_t start = base + i * span;

		if (!child || start + span <= floor || start >= ceiling)
			continue;
		if (level > 1)
			unlink_below(child, level - 1, start, floor, ceiling, list);
		if (start < floor || start + span > ceiling)
			continue;
		WRITE_ONCE(node->child[i], NULL);
		child->next_unlinked = *list;
		*list = child;
	}
}

void pgtable_unlink_range(struct pgtable *pt, hva_t floor, hva_t ceiling,
			  struct pgtable_node **list)
{
	unlink_below(&pt->root, PGTABLE_ROOT, 0, floor, ceiling, list);
}

void pgtable_free_list(struct pgtable_node *list)
{
	if (!list)
		return;
	synchronize_srcu(&pgtable_srcu);
	while (list) {
		struct pgtable_node *next = list->next_unlinked;

		free_node(list);
		list = next;
	}
}
