/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `balloon`: take frames out of the pool, and give them back after some milliseconds.
 * The guest is not asked; it may find no memory, and waits then, which makes us give back at once.
 *
 * Some frames are left: for those who cannot wait for us, as they do not know of us, such as a
 * migration.
 */
#include "notifier/sync/alloc.h"
#include "notifier/sync/util.h"
#include "vmm/chaos.h"

#define HOLD_MS_MASK 15
#define MAX_FRAMES   4096UL /* of a large pool: each frame is poisoned when it is given back */

/* How many of the free frames to take: any number of them, all included. */
static uint64_t how_many(const struct chaos_target *target, uint64_t bits)
{
	uint64_t nr_free = phys_nr_free(mm_phys(target->mm));

	if (nr_free <= target->spare_frames)
		return 0;
	return 1 + (bits >> 8) % min(nr_free - target->spare_frames, MAX_FRAMES);
}

void chaos_balloon(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw)
{
	struct phys *phys = mm_phys(target->mm);
	uint64_t wanted = how_many(target, draw->bits), nr = 0;
	pfn_t *frames = wanted ? kcalloc(wanted, sizeof(*frames), GFP_KERNEL) : NULL;

	if (!frames || !hoard_begin(target->holes)) {
		kfree(frames);
		chaos_refuse(worker);
		return;
	}
	while (nr < wanted && phys_nr_free(phys) > target->spare_frames &&
	       (frames[nr] = phys_alloc(phys)) != INVALID_PFN)
		nr++;
	chaos_hold(worker, draw->bits & HOLD_MS_MASK, true);
	atomic64_add(nr, &worker->pages);
	while (nr)
		phys_put(phys, frames[--nr]);
	hoard_end(target->holes);
	kfree(frames);
}
