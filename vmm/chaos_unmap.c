/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `unmap`: drop the mappings of a run of pages, as reclaim or MADV_DONTNEED on a shared
 * mapping does. The pages keep their contents in the page cache and come back at the next touch.
 *
 * A zap alone could go wrong unseen: a guest that still used the old translation would find its
 * page unchanged. So half of the pages move to another frame while they are unmapped; a stale
 * translation then reads poison, and what is written through it is lost.
 */
#include "vmm/chaos.h"

void chaos_unmap(struct chaos_worker *worker, const struct chaos_target *target)
{
	unsigned int nr;
	uint64_t moving;
	gfn_t gfn;
	long zapped;

	if (!chaos_pick(worker, target, CHAOS_MAX_PAGES, &gfn, &nr)) {
		atomic64_inc(&worker->refused);
		return;
	}
	moving = chaos_random(worker, 1 << CHAOS_MAX_PAGES);
	zapped = mm_zap_range(target->mm, target->hva + (gfn << PAGE_SHIFT),
			      (uint64_t)nr << PAGE_SHIFT);
	if (zapped <= 0) {
		atomic64_inc(&worker->refused);
		return;
	}
	atomic64_add(zapped, &worker->pages_unmapped);

	for (unsigned int i = 0; i < nr; i++) {
		if ((moving & (1u << i)) && migrate_mapping_page(target->ram, gfn + i) == 0)
			atomic64_inc(&worker->pages_migrated);
	}
}
