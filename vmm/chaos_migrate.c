/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `migrate`: move pages that are mapped. By turns through the two doors that Linux has
 * too: by range, under mmap_lock (migrate_pages, NUMA balancing), and by frame number through the
 * reverse map without mmap_lock of anyone (compaction, memory failure). A page that somebody holds,
 * and a pool without a free frame, are ordinary and only counted.
 */
#include "vmm/chaos.h"

static long migrate_by_range(const struct chaos_target *target, const struct chaos_draw *draw)
{
	return mm_migrate_range(target->mm, chaos_draw_hva(target, draw), chaos_draw_len(draw));
}

static long migrate_by_frame(const struct chaos_target *target, const struct chaos_draw *draw)
{
	/*
	 * Nothing holds the frame between the two calls. It may be freed, or be a shadow table by
	 * now: migrate_frame sorts that out, and a page of the guest's that took its place may
	 * move as well as any other.
	 */
	pfn_t pfn = mm_lookup_pfn(target->mm, chaos_draw_hva(target, draw));

	return pfn != INVALID_PFN && migrate_frame(mm_phys(target->mm), pfn) == 0;
}

void chaos_migrate(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw)
{
	long moved =
		worker->turn & 1 ? migrate_by_frame(target, draw) : migrate_by_range(target, draw);

	if (moved <= 0) {
		chaos_refuse(worker);
		return;
	}
	atomic64_add(moved, &worker->pages);
	atomic64_add(moved, &worker->pages_migrated);
}
