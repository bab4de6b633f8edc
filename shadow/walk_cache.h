/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's tables that a vCPU walks through, one of each level, as caches (walk_cache.c). */
#ifndef SHADOW_WALK_CACHE_H
#define SHADOW_WALK_CACHE_H

#include "shadow/pfn_cache.h"
#include "shadow/spte.h"

struct guest_walk;

struct walk_cache {
	spinlock_t lock;			     /* of all of them */
	struct gfn_to_pfn_cache table[TABLE_LEVELS]; /* [level - 1] */
	gfn_t missed[TABLE_LEVELS]; /* [level - 1]: read last without the cache; its vCPU's thread
				     */
};

void walk_cache_init(struct walk_cache *walk_cache, struct shadow *shadow);
void walk_cache_destroy(struct walk_cache *cache);

/*
 * Read the entries of @walk, whose root is known, from the root down: into walk->gpte[], up to
 * the first that ends the walk. Returns the last level that was read; one above the root's: none.
 */
int walk_cache_read(const struct guest_walk *walk, uint64_t *gpte);
/* The table of @level was read without: should it be cached? Sleeps. */
void walk_cache_missed(const struct guest_walk *walk, int level);
/* Compare-and-exchange of the entry of @level: 0; 1: it is not @old; -EAGAIN: not here. */
int walk_cache_cmpxchg(const struct guest_walk *walk, int level, uint64_t old, uint64_t new_gpte);

#endif
