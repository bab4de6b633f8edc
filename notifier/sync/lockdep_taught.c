// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Regions that have a place in the order of locks, and the orders that lock checking is born with.
 *
 * Reclaim runs when memory is short, which is seldom: a thread that allocates under a lock that
 * reclaim takes works for months. So each allocation that may reclaim counts as a visit to the
 * region fs_reclaim, and what reclaim does in there is taught here, before anyone did it:
 *
 *   fs_reclaim -> i_mmap_rwsem -> anon_vma	it unmaps pages by their reverse maps
 *   fs_reclaim -> invalidate_range_start	and tells notifiers so
 *
 * Then a GFP_KERNEL allocation under a reverse-map lock, or in a callback, closes a cycle the first
 * time the code runs.
 */
#include "notifier/sync/lockdep_internal.h"

struct lockdep_map lockdep_fs_reclaim = LOCKDEP_MAP_INIT(&lockdep_fs_reclaim, "fs_reclaim");
struct lockdep_map lockdep_i_mmap_rwsem =
	LOCKDEP_MAP_INIT(&lockdep_i_mmap_rwsem, "mapping->i_mmap_rwsem");
struct lockdep_map lockdep_anon_vma_rwsem =
	LOCKDEP_MAP_INIT(&lockdep_anon_vma_rwsem, "anon_vma->rwsem");
struct lockdep_map lockdep_invalidate_range_start =
	LOCKDEP_MAP_INIT(&lockdep_invalidate_range_start, "mmu_notifier_invalidate_range_start");

#ifdef CONFIG_LOCKDEP

void lockdep_teach(void)
{
	lockdep_teach_order(&lockdep_fs_reclaim, &lockdep_i_mmap_rwsem, LOCK_SITE_OF("taught"));
	lockdep_teach_order(&lockdep_i_mmap_rwsem, &lockdep_anon_vma_rwsem, LOCK_SITE_OF("taught"));
	lockdep_teach_order(&lockdep_fs_reclaim, &lockdep_invalidate_range_start,
			    LOCK_SITE_OF("taught"));
}

#endif /* CONFIG_LOCKDEP */
