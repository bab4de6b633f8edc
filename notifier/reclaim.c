// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Which pages go (kernel: mm/vmscan.c).
 *
 * From the tail of the inactive list (lru.h): a page that nobody has used since it was last looked
 * at goes. One that was used gets another round; found used twice in a row it is active. Pages of
 * the active list come back from its tail, a few for each of these, so that neither list dries up.
 * "Used" is what the accessed bits of all its entries say, and the secondaries of all its mms: so a
 * page that only a guest touches stays as well as one that the host does.
 *
 * Rounds get larger, from a part of the inactive list to all of it; the last takes pages whether
 * used or not, since somebody needs a frame more than any page needs to stay. Frame locks are only
 * tried: who reclaims may hold mmap_lock and be anywhere but under a lock that an rmap walk takes
 * (to lock checking: the region fs_reclaim). Nothing here allocates. Callbacks that do would come
 * back here, which lock checking reports; in_reclaim() keeps a release from following them.
 */
#include "notifier/reclaim.h"

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"

#define FIRST_PRIORITY 4 /* a sixteenth of the list; then an eighth ... */

struct scan {
	struct phys *phys;
	uint64_t want, freed;
	bool take_used;	  /* the last round */
	bool may_succeed; /* some page was only just in use, or busy */
};

bool in_reclaim(void)
{
	return current_thread()->in_reclaim;
}

static void enter_reclaim(void)
{
	might_sleep();
	ASSERT(!in_reclaim(), "reclaim does not come back to itself");
	lock_map_acquire(&lockdep_fs_reclaim);
	current_thread()->in_reclaim = true;
}

static void leave_reclaim(void)
{
	current_thread()->in_reclaim = false;
	lock_map_release(&lockdep_fs_reclaim);
}

/* ---- the inactive list ---- */

/* Was it used? Then it is not for this time. */
static bool keep_used(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	unsigned int nr_young = page_referenced(phys, pfn, true);
	bool before = frame_clear(frame, FRAME_REFERENCED);

	if (!nr_young)
		return false;
	if (before || nr_young > 1) {
		lru_add(phys, pfn, LRU_ACTIVE);
		atomic64_inc(&phys->reclaim.nr_activated);
	} else {
		frame_set(frame, FRAME_REFERENCED);
	}
	return true;
}

/* True if it is out. A reference is the caller's. */
static bool shrink_page(struct scan *scan, pfn_t pfn)
{
	struct phys *phys = scan->phys;
	bool out = false;

	if (!trylock_frame(phys, pfn)) {
		scan->may_succeed = true;
		return false;
	}
	if (page_has_way_out(phys, pfn)) {
		if (scan->take_used || !keep_used(phys, pfn))
			out = page_out(phys, pfn);
		scan->may_succeed = true;
	}
	unlock_frame(phys, pfn);
	return out;
}

static void shrink_inactive(struct scan *scan, uint64_t nr)
{
	struct phys *phys = scan->phys;
	pfn_t pfn;

	while (nr-- && scan->freed < scan->want && lru_next(phys, LRU_INACTIVE, &pfn)) {
		atomic64_inc(&phys->reclaim.nr_scanned);
		if (pfn == INVALID_PFN) { /* frozen, by a migration for one */
			scan->may_succeed = true;
			continue;
		}
		scan->freed += shrink_page(scan, pfn);
		phys_put(phys, pfn);
	}
}

/* ---- the active list ---- */

/* Its age begins anew. Whether it was used just now counts as the first of the two times. */
void deactivate_page(struct phys *phys, pfn_t pfn, bool forget)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (!trylock_frame(phys, pfn))
		return;
	if (frame->mapping && page_referenced(phys, pfn, false) && !forget)
		frame_set(frame, FRAME_REFERENCED);
	else
		frame_clear(frame, FRAME_REFERENCED);
	lru_add(phys, pfn, LRU_INACTIVE);
	atomic64_inc(&phys->reclaim.nr_deactivated);
	unlock_frame(phys, pfn);
}

static bool inactive_is_low(const struct lru *lru)
{
	return lru_nr(lru, LRU_INACTIVE) < lru_nr(lru, LRU_ACTIVE);
}

static void shrink_active(struct scan *scan, uint64_t nr)
{
	struct phys *phys = scan->phys;
	pfn_t pfn;

	while (nr-- && (scan->take_used || inactive_is_low(&phys->lru)) &&
	       lru_next(phys, LRU_ACTIVE, &pfn)) {
		if (pfn == INVALID_PFN)
			continue;
		deactivate_page(phys, pfn, false);
		phys_put(phys, pfn);
	}
}

/* ---- rounds ---- */

static void shrink_lists(struct scan *scan, int priority)
{
	const struct lru *lru = &scan->phys->lru;
	uint64_t least = RECLAIM_BATCH;

	scan->take_used = priority == 0;
	shrink_active(scan, max(lru_nr(lru, LRU_ACTIVE) >> priority, least));
	shrink_inactive(scan, max(lru_nr(lru, LRU_INACTIVE) >> priority, least));
}

uint64_t reclaim_pages(struct phys *phys, uint64_t want, bool *may_succeed)
{
	struct scan scan = {.phys = phys, .want = want};

	enter_reclaim();
	for (int priority = FIRST_PRIORITY; priority >= 0 && scan.freed < want; priority--)
		shrink_lists(&scan, priority);
	leave_reclaim();
	atomic64_add(scan.freed, &phys->reclaim.nr_reclaimed);
	*may_succeed = scan.may_succeed;
	return scan.freed;
}

bool reclaim_page(struct phys *phys, pfn_t pfn)
{
	bool out = false;

	enter_reclaim();
	if (trylock_frame(phys, pfn)) {
		out = page_has_way_out(phys, pfn) && page_out(phys, pfn);
		unlock_frame(phys, pfn);
	}
	leave_reclaim();
	atomic64_add(out, &phys->reclaim.nr_reclaimed);
	return out;
}

uint64_t phys_reclaim(struct phys *phys, uint64_t nr)
{
	bool may_succeed;

	return reclaim_pages(phys, nr, &may_succeed);
}

void phys_reclaim_stats(struct phys *phys, struct reclaim_stats *stats)
{
	struct reclaim *r = &phys->reclaim;

	*stats = (struct reclaim_stats){
		.swap_out = atomic64_read(&r->nr_swap_out),
		.swap_in = atomic64_read(&r->nr_swap_in),
		.swap_errors = atomic64_read(&r->nr_swap_errors),
		.reclaimed = atomic64_read(&r->nr_reclaimed),
		.scanned = atomic64_read(&r->nr_scanned),
		.activated = atomic64_read(&r->nr_activated),
		.deactivated = atomic64_read(&r->nr_deactivated),
		.lazyfreed = atomic64_read(&r->nr_lazyfreed),
		.direct_reclaims = atomic64_read(&r->nr_direct),
		.wakeups = atomic64_read(&r->nr_wakeups),
		.nr_active = lru_nr(&phys->lru, LRU_ACTIVE),
		.nr_inactive = lru_nr(&phys->lru, LRU_INACTIVE),
		.swap_slots = READ_ONCE(phys->swap.nr_slots),
		.swap_used = READ_ONCE(phys->swap.nr_used),
		.min = r->min,
		.low = r->low,
		.high = r->high,
	};
}
