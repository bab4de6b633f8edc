/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one model CPU remembers: leaves and directory entries, for ever, until told (model.h, rules
 * 1 and 2). Everything here is under the CPU's lock, so entries come from the non-sleeping
 * allocator.
 */
#include <assert.h>

#include "notifier/sync/alloc.h"
#include "tests/model/model_internal.h"

static unsigned int hash(uint64_t a, uint64_t b)
{
	return ((a * 0x9e3779b97f4a7c15UL) ^ (b * 0xc2b2ae3d27d4eb4fUL)) >> 56;
}

static_assert(TLB_BUCKETS == 256, "hash() yields eight bits");

static unsigned int prefix_shift(int level)
{
	return PAGE_SHIFT + 9 * level;
}

void tlb_init(struct model_cpu *cpu)
{
	for (unsigned int i = 0; i < TLB_BUCKETS; i++) {
		INIT_LIST_HEAD(&cpu->leaf_by_gva[i]);
		INIT_LIST_HEAD(&cpu->leaf_by_pfn[i]);
		INIT_LIST_HEAD(&cpu->large_by_pfn[i]);
		INIT_LIST_HEAD(&cpu->dirs[i]);
	}
}

static void free_leaf(struct tlb_leaf *leaf)
{
	list_del(&leaf->by_gva);
	list_del(&leaf->by_pfn);
	kfree(leaf);
}

static bool piece_gone(const struct tlb_leaf *leaf, unsigned int piece)
{
	return leaf->large && (leaf->gone[piece / 64] >> (piece % 64) & 1);
}

/* The leaf goes with its last piece. */
static void drop_piece(struct tlb_leaf *leaf, unsigned int piece)
{
	leaf->gone[piece / 64] |= 1UL << (piece % 64);
	if (++leaf->nr_gone == LARGE_PAGES)
		free_leaf(leaf);
}

void tlb_drop_leaf(struct tlb_leaf *leaf, gva_t gva)
{
	if (leaf->large)
		drop_piece(leaf, (gva >> PAGE_SHIFT) - leaf->page);
	else
		free_leaf(leaf);
}

pfn_t tlb_leaf_pfn(const struct tlb_leaf *leaf, gva_t gva)
{
	return leaf->pfn + ((gva >> PAGE_SHIFT) - leaf->page);
}

static void drop_dir(struct tlb_dir *dir)
{
	list_del(&dir->link);
	kfree(dir);
}

void tlb_destroy(struct model_cpu *cpu)
{
	struct tlb_leaf *leaf, *next_leaf;
	struct tlb_dir *dir, *next_dir;

	for (unsigned int i = 0; i < TLB_BUCKETS; i++) {
		list_for_each_entry_safe(leaf, next_leaf, &cpu->leaf_by_gva[i], by_gva)
			free_leaf(leaf);
		list_for_each_entry_safe(dir, next_dir, &cpu->dirs[i], link)
			drop_dir(dir);
	}
}

/* A leaf of each size may be known for the same address: the small one counts, as on a CPU that
 * keeps them apart and asks there first. */
struct tlb_leaf *tlb_find_leaf(struct model_cpu *cpu, pfn_t root, gva_t gva)
{
	gva_t page = gva >> PAGE_SHIFT, first = page & ~(LARGE_PAGES - 1UL);
	struct tlb_leaf *leaf;

	list_for_each_entry(leaf, &cpu->leaf_by_gva[hash(root, page)], by_gva) {
		if (leaf->root == root && leaf->page == page && !leaf->large)
			return leaf;
	}
	list_for_each_entry(leaf, &cpu->leaf_by_gva[hash(root, first)], by_gva) {
		if (leaf->root == root && leaf->page == first && leaf->large &&
		    !piece_gone(leaf, page - first))
			return leaf;
	}
	return NULL;
}

struct tlb_leaf *tlb_add_leaf(struct model_cpu *cpu, pfn_t root, gva_t gva, pfn_t pfn, pfn_t table,
			      unsigned int rights, bool large)
{
	gva_t in_page = large ? (gva >> PAGE_SHIFT) % LARGE_PAGES : 0;
	struct tlb_leaf *leaf = kmalloc(sizeof(*leaf), GFP_ATOMIC);

	BUG_ON(!leaf);
	*leaf = (struct tlb_leaf){
		.root = root,
		.page = (gva >> PAGE_SHIFT) - in_page,
		.pfn = pfn - in_page,
		.table = table,
		.rights = rights,
		.large = large,
	};
	list_add(&leaf->by_gva, &cpu->leaf_by_gva[hash(root, leaf->page)]);
	list_add(&leaf->by_pfn, large ? &cpu->large_by_pfn[hash(leaf->pfn, 0)]
				      : &cpu->leaf_by_pfn[hash(leaf->pfn, 0)]);
	return leaf;
}

unsigned int tlb_drop_pfn(struct model_cpu *cpu, pfn_t pfn)
{
	pfn_t first = pfn & ~(LARGE_PAGES - 1UL);
	struct tlb_leaf *leaf, *next;
	unsigned int dropped = 0;

	list_for_each_entry_safe(leaf, next, &cpu->leaf_by_pfn[hash(pfn, 0)], by_pfn) {
		if (leaf->pfn != pfn)
			continue;
		free_leaf(leaf);
		dropped++;
	}
	list_for_each_entry_safe(leaf, next, &cpu->large_by_pfn[hash(first, 0)], by_pfn) {
		if (leaf->pfn != first || piece_gone(leaf, pfn - first))
			continue;
		drop_piece(leaf, pfn - first);
		dropped++;
	}
	return dropped;
}

unsigned int tlb_count_pfn(struct model_cpu *cpu, pfn_t pfn)
{
	pfn_t first = pfn & ~(LARGE_PAGES - 1UL);
	struct tlb_leaf *leaf;
	unsigned int count = 0;

	list_for_each_entry(leaf, &cpu->leaf_by_pfn[hash(pfn, 0)], by_pfn)
		count += leaf->pfn == pfn;
	list_for_each_entry(leaf, &cpu->large_by_pfn[hash(first, 0)], by_pfn)
		count += leaf->pfn == first && !piece_gone(leaf, pfn - first);
	return count;
}

struct tlb_dir *tlb_find_dir(struct model_cpu *cpu, pfn_t root, int level, gva_t gva)
{
	gva_t prefix = gva >> prefix_shift(level);
	struct tlb_dir *dir;

	list_for_each_entry(dir, &cpu->dirs[hash(root + level, prefix)], link) {
		if (dir->root == root && dir->level == level && dir->prefix == prefix)
			return dir;
	}
	return NULL;
}

void tlb_add_dir(struct model_cpu *cpu, pfn_t root, int level, gva_t gva, pfn_t table,
		 unsigned int rights)
{
	struct tlb_dir *dir = kmalloc(sizeof(*dir), GFP_ATOMIC);

	BUG_ON(!dir);
	dir->root = root;
	dir->level = level;
	dir->prefix = gva >> prefix_shift(level);
	dir->table = table;
	dir->rights = rights;
	list_add(&dir->link, &cpu->dirs[hash(root + level, dir->prefix)]);
}

void tlb_drop_dirs(struct model_cpu *cpu, pfn_t root, gva_t gva)
{
	for (int level = 1; level <= 4; level++) {
		struct tlb_dir *dir = tlb_find_dir(cpu, root, level, gva);

		if (dir)
			drop_dir(dir);
	}
}

void tlb_retire(struct model_cpu *cpu, pfn_t table)
{
	struct tlb_leaf *leaf, *next_leaf;
	struct tlb_dir *dir, *next_dir;

	for (unsigned int i = 0; i < TLB_BUCKETS; i++) {
		list_for_each_entry_safe(leaf, next_leaf, &cpu->leaf_by_gva[i], by_gva) {
			if (leaf->root == table)
				free_leaf(leaf);
		}
		list_for_each_entry_safe(dir, next_dir, &cpu->dirs[i], link) {
			if (dir->table == table || dir->root == table)
				drop_dir(dir);
		}
	}
}

bool tlb_has_leaf_of(struct model_cpu *cpu, pfn_t table)
{
	struct tlb_leaf *leaf;

	for (unsigned int i = 0; i < TLB_BUCKETS; i++) {
		list_for_each_entry(leaf, &cpu->leaf_by_gva[i], by_gva) {
			if (leaf->table == table)
				return true;
		}
	}
	return false;
}

bool tlb_knows(struct model_cpu *cpu, pfn_t table)
{
	struct tlb_dir *dir;

	if (cpu->root == table || tlb_has_leaf_of(cpu, table))
		return true;
	for (unsigned int i = 0; i < TLB_BUCKETS; i++) {
		list_for_each_entry(dir, &cpu->dirs[i], link) {
			if (dir->table == table || dir->root == table)
				return true;
		}
	}
	return false;
}
