/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `migrate`: move pages that are mapped. By turns through the two doors that Linux has
 * too: by range, under mmap_lock (migrate_pages, NUMA balancing), and by frame number through the
 * reverse map without mmap_lock of anyone (compaction, memory failure). A page that somebody holds,
 * and a pool without a free frame, are ordinary and only counted.
 */
#include "vmm/chaos.h"

static void migrate_by_range(struct chaos_worker *worker, const struct chaos_target *target)
{
	unsigned int nr;
	gfn_t gfn;
	long moved;

	if (!chaos_pick(worker, target, CHAOS_MAX_PAGES, &gfn, &nr)) {
		atomic64_inc(&worker->refused);
		return;
	}
	moved = mm_migrate_range(target->mm, target->hva + (gfn << PAGE_SHIFT),
				 (uint64_t)nr << PAGE_SHIFT);
	if (moved > 0)
		atomic64_add(moved, &worker->pages_migrated);
	else
		atomic64_inc(&worker->refused);
}

static void migrate_by_frame(struct chaos_worker *worker, const struct chaos_target *target)
{
	unsigned int nr;
	gfn_t gfn;
	pfn_t pfn;

	if (!chaos_pick(worker, target, 1, &gfn, &nr)) {
		atomic64_inc(&worker->refused);
		return;
	}
	/*
	 * Nothing holds the frame between the two calls. It may be freed, or be a shadow table by
	 * now: migrate_frame sorts that out, and a page of the guest's that took its place may
	 * move as well as any other.
	 */
	pfn = mm_lookup_pfn(target->mm, target->hva + (gfn << PAGE_SHIFT));
	if (pfn != INVALID_PFN && migrate_frame(mm_phys(target->mm), pfn) == 0)
		atomic64_inc(&worker->pages_migrated);
	else
		atomic64_inc(&worker->refused);
}

void chaos_migrate(struct chaos_worker *worker, const struct chaos_target *target)
{
	if (worker->turn & 1)
		migrate_by_frame(worker, target);
	else
		migrate_by_range(worker, target);
}
