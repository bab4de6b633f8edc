// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Frames for pages of processes: with the watermarks in mind, and others' pages if need be (kernel:
 * __alloc_pages_slowpath in mm/page_alloc.c).
 *
 * A process leaves "min" frames alone. They are for page tables of machines, which are taken by
 * phys_alloc() where nobody can wait, and without which no page that is there can be used; and for
 * a thread that is making room.
 *
 * Direct reclaim may free a frame and see it go to another thread, so it goes on for as long as it
 * makes progress. Without progress it depends: if no page has a way out, waiting is in vain. If
 * some were busy or just in use, then others are at work on them, and some frame will be free soon.
 */
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "notifier/reclaim.h"
#include "notifier/sync/lockdep.h"

#define WAIT_MS 10

static bool above_min(const struct phys *phys)
{
	return phys_nr_free(phys) > phys->reclaim.min;
}

/* False: it is in vain. */
static bool make_room(struct phys *phys, unsigned int *tries)
{
	bool may_succeed;

	atomic64_inc(&phys->reclaim.nr_direct);
	if (reclaim_pages(phys, RECLAIM_BATCH, &may_succeed)) {
		*tries = 0;
		atomic_set(&phys->reclaim.failures, 0);
		return true;
	}
	if (!may_succeed)
		return above_min(phys); /* somebody gave one back meanwhile */
	if (++*tries == RECLAIM_TRIES)
		return false;
	wait_event_timeout(phys->reclaim.freed, above_min(phys), WAIT_MS);
	return true;
}

static pfn_t alloc_user(struct phys *phys, bool zero)
{
	unsigned int tries = 0;
	pfn_t pfn;

	might_sleep();
	if (in_reclaim())
		return phys_alloc_above(phys, 0, zero);
	lock_map_visit(&lockdep_fs_reclaim);
	do
		pfn = phys_alloc_above(phys, phys->reclaim.min, zero);
	while (pfn == INVALID_PFN && make_room(phys, &tries));
	return pfn;
}

pfn_t alloc_user_frame(struct phys *phys)
{
	return alloc_user(phys, false);
}

pfn_t alloc_zeroed_user_frame(struct phys *phys)
{
	return alloc_user(phys, true);
}

/*
 * When all frames and all of the swap file are full of pages, none of them can go, and so none
 * could come: those that are out would be lost to their owner, although there is a place for each.
 * So this may take of the reserve. What it costs comes back: the slot that is free then is room for
 * another page.
 */
pfn_t alloc_swap_in_frame(struct phys *phys)
{
	pfn_t pfn = alloc_user(phys, false);

	return pfn != INVALID_PFN ? pfn : phys_alloc_above(phys, phys->reclaim.min / 2, false);
}

/* A move gives a frame back for each that it takes, so it need not take any from others. */
pfn_t alloc_migration_frame(struct phys *phys)
{
	return phys_alloc_above(phys, phys->reclaim.min, false);
}
