/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries that map 2 MiB (huge.c): the regions of a slot that they map, and what the rest of the
 * shadow MMU asks of them.
 */
#ifndef SHADOW_HUGE_H
#define SHADOW_HUGE_H

#include "shadow/shadow_internal.h"

#define HUGE_PAGES 512

/*
 * An aligned 2 MiB of a slot's host memory, all inside the slot. By host address, since that stays
 * when a slot is moved.
 */
struct huge_region {
	struct rmap_head rmap; /* its huge leaves; as that of a page */
	/* Pages that are to be told young once more (age.c): a bit each, of no meaning while the
	 * rmap is empty. Changed atomically by anyone. */
	uint64_t young[HUGE_PAGES / 64];
};

/* The pages of @slot before its first region, and how many regions there are. */
static inline uint64_t huge_first(const struct memslot *slot)
{
	return -(slot->hva >> PAGE_SHIFT) & (HUGE_PAGES - 1);
}

static inline uint64_t nr_huge(const struct memslot *slot)
{
	uint64_t first = huge_first(slot);

	return slot->npages > first ? (slot->npages - first) / HUGE_PAGES : 0;
}

/* The region that page @rel_gfn of @slot is in, or NULL. */
static inline struct huge_region *huge_region(const struct memslot *slot, uint64_t rel_gfn)
{
	uint64_t first = huge_first(slot);
	uint64_t nr = (rel_gfn - first) / HUGE_PAGES;

	return rel_gfn >= first && nr < nr_huge(slot) ? &slot->huge[nr] : NULL;
}

/* The regions that pages [first, last) of @slot touch: [*begin, *end). */
static inline void huge_overlap(const struct memslot *slot, uint64_t first, uint64_t last,
				uint64_t *begin, uint64_t *end)
{
	uint64_t skip = huge_first(slot), nr = nr_huge(slot);

	*begin = first > skip ? (first - skip) / HUGE_PAGES : 0;
	*end = last > skip ? (last - skip + HUGE_PAGES - 1) / HUGE_PAGES : 0;
	if (*end > nr)
		*end = nr;
}

/* May there be a huge leaf of @slot at all? Who makes a slot one of those that may not zaps what
 * there is (huge_zap). */
static inline bool memslot_allows_huge(const struct memslot *slot)
{
	return !((slot->hva >> PAGE_SHIFT ^ slot->base_gfn) & (HUGE_PAGES - 1)) &&
	       !(slot->flags & (MEMSLOT_READONLY | MEMSLOT_LOG_DIRTY));
}

/* A resolved fault, of which a huge page of the guest's is the whole translation. */
struct huge_fault {
	const struct guest_walk *walk;
	struct memslot *slot;
	pfn_t pfn;	     /* of the page */
	unsigned int rights; /* to it */
};

/* mmu_lock for all that follow. */

/*
 * Install, or widen, the leaf of @fault in @sp, a table of HUGE_LEVEL. False: it is not for that,
 * or there is a table; true: *@ret is the answer. Takes *@spare as rmap_add() does.
 */
bool huge_install(struct shadow *shadow, struct shadow_page *sp, const struct huge_fault *fault,
		  struct rmap_desc **spare, struct zap_batch *batch, enum ret_pf *ret);

/* Has @batch room for huge_forbid()? */
bool huge_forbid_fits(struct shadow *shadow, gfn_t gfn, const struct zap_batch *batch);
/* @gfn is a table of the guest's now: the huge leaves over it go, and none comes while it is. */
void huge_forbid(struct shadow *shadow, gfn_t gfn, struct zap_batch *batch);

/* The huge leaves of the regions of @slot from *@region on, which grows. False: the batch is full
 * before all are gone. */
bool huge_zap(struct shadow *shadow, struct memslot *slot, uint64_t *region,
	      struct zap_batch *batch);

/* A huge leaf whose first page is @rel_gfn: into the rmap of its region, and out of it. */
void huge_rmap_add(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep, struct rmap_desc **spare);
void huge_rmap_remove(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep);

#endif
