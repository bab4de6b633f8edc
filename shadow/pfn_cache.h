/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest page that host code comes back to: slot and frame are looked up once, and known until the
 * host says otherwise (Linux: struct gfn_to_pfn_cache). No reference is held: the host moves, swaps
 * and frees the frame as it likes, and waits only for who is at it this instant.
 */
#ifndef SHADOW_PFN_CACHE_H
#define SHADOW_PFN_CACHE_H

#include <gnomon/types.h>

#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"

struct shadow;

struct gfn_to_pfn_cache {
	struct shadow *shadow;
	struct list_head list; /* shadow->gpc_list, while it is active; gpc_lock */
	struct mutex
		refresh_lock; /* changes what page it is of, and looks that up: one at a time */
	/*
	 * What follows, and the contents of the frame: whoever has found the cache good goes to the
	 * frame before he lets go. The owner's: caches that are used together may share one.
	 */
	spinlock_t *lock;
	gfn_t gfn;	     /* INVALID_GFN: not active */
	hva_t uhva;	     /* of the page; an invalidation peeks at it without the lock */
	uint64_t generation; /* of the set of slots that gave it */
	unsigned long invalidate_seq; /* invalidations that may have been of this page */
	void *khva;		      /* of the frame */
	bool valid;
	bool writable;
};

void gpc_init(struct gfn_to_pfn_cache *gpc, struct shadow *shadow, spinlock_t *lock);

/*
 * The cache is of @gfn from here on; or again: its page is looked up afresh. 0, and the cache is
 * good until an invalidation or a change of the slots; -EAGAIN: an invalidation of the page is
 * open, or the slot is on its way; -ENXIO: no slot, or the mm is at its end; or as hva_to_pfn(). In
 * a section of slots_srcu, with no lock that mmap_lock encloses; sleeps.
 */
int gpc_activate(struct gfn_to_pfn_cache *gpc, gfn_t gfn);
int gpc_refresh(struct gfn_to_pfn_cache *gpc);
/* Of no page any more. */
void gpc_deactivate(struct gfn_to_pfn_cache *gpc);

/*
 * gpc->lock, in a section of slots_srcu: is @gpc good, and of @gfn? Then its frame may be read, and
 * if gpc->writable written, under the same lock. The writer does what else a write takes: marks the
 * page as written, and tells the shadow MMU (shadow_gpte_written(), without the lock).
 */
bool gpc_check(const struct gfn_to_pfn_cache *gpc, gfn_t gfn);

/*
 * The caches of pages in [start, end) are bad, and nobody is at their frames. The invalidation is
 * counted as open already (mn_invalidate_begin), and mmu_lock is not held.
 */
void gfn_to_pfn_cache_invalidate_start(struct shadow *shadow, hva_t start, hva_t end);

#endif
