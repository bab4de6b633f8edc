/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables that a vCPU's walks go through, kept as caches of frames (pfn_cache.c): of each level
 * the one that it goes through now. Faults that follow each other share all but the lowest, and
 * often that; each walk would look the slot and the frame of every one of them up again, once to
 * read and once under mmu_lock, and take a reference each time.
 *
 * One lock for all of a vCPU's: so a walk takes one, and not one for each level. It is never held
 * for longer than it takes to look at an entry of each.
 *
 * Rules:
 *  1. A table is cached when it is read for the second time in a row, as it costs more to cache one
 *     than to read an entry.
 *  2. What is not cached is read as ever, by mm_read() and its kin. So is what cannot be: while an
 *     invalidation of a table's page is open, or its slot is on its way.
 *  3. A walk does not ask the mm for a right to write. Where the entry of the page gives none the
 *     bits are set by mm_cmpxchg64(), which takes care of that; its window ends the cache.
 *  4. A cached table that the host asks the age of is dropped (age.c): who reads by way of a cache
 *     leaves no mark in the entry of the page, and a table that is walked all the time would be
 *     taken for old, and swapped out.
 */
#include "shadow/walk_cache.h"

#include <errno.h>

#include "notifier/contents.h"
#include "shadow/gpte.h"
#include "shadow/shadow_internal.h"

void walk_cache_init(struct walk_cache *walk_cache, struct shadow *shadow)
{
	spin_lock_init(&walk_cache->lock);
	for (int i = 0; i < TABLE_LEVELS; i++) {
		gpc_init(&walk_cache->table[i], shadow, &walk_cache->lock);
		walk_cache->missed[i] = INVALID_GFN;
	}
}

void walk_cache_destroy(struct walk_cache *cache)
{
	for (int i = 0; i < TABLE_LEVELS; i++)
		gpc_deactivate(&cache->table[i]);
}

/* The lock: the entry of table @gfn for this walk; NULL: not here. */
static uint64_t *find(const struct guest_walk *walk, int level, gfn_t gfn, bool write)
{
	const struct gfn_to_pfn_cache *gpc = &walk->cache->table[level - 1];

	if (!gpc_check(gpc, gfn) || (write && !gpc->writable))
		return NULL;
	return (uint64_t *)gpc->khva + table_index(walk->gva, level);
}

int walk_cache_read(const struct guest_walk *walk, uint64_t *gpte)
{
	gfn_t gfn = walk->table_gfn[walk->levels];
	int level = walk->levels;

	if (!walk->cache)
		return level + 1;
	spin_lock(&walk->cache->lock);
	for (; level; level--) {
		const uint64_t *entry = find(walk, level, gfn, false);

		if (!entry)
			break;
		contents_read(&gpte[level], entry, sizeof(*gpte));
		gfn = gpte_gfn(gpte[level], level);
		if (!(gpte[level] & GPTE_PRESENT) || gpte_is_leaf(gpte[level], level)) {
			level--;
			break;
		}
	}
	spin_unlock(&walk->cache->lock);
	return level + 1;
}

void walk_cache_missed(const struct guest_walk *walk, int level)
{
	struct walk_cache *cache = walk->cache;
	gfn_t gfn = walk->table_gfn[level];
	struct gfn_to_pfn_cache *gpc;

	if (!cache)
		return;
	gpc = &cache->table[level - 1];
	/* If it cannot be had now the next walk tries again: rule 2. */
	if (gpc->gfn == gfn)
		(void)gpc_refresh(gpc);
	else if (cache->missed[level - 1] == gfn)
		(void)gpc_activate(gpc, gfn);
	cache->missed[level - 1] = gfn;
}

int walk_cache_cmpxchg(const struct guest_walk *walk, int level, uint64_t old, uint64_t new_gpte)
{
	int ret = -EAGAIN;
	uint64_t *entry;

	if (!walk->cache)
		return ret;
	spin_lock(&walk->cache->lock);
	entry = find(walk, level, walk->table_gfn[level], true);
	if (entry)
		ret = cmpxchg(entry, old, new_gpte) != old;
	spin_unlock(&walk->cache->lock);
	return ret;
}
