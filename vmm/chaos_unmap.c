/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `unmap`: drop the mappings of a run of pages, as reclaim or MADV_DONTNEED on a shared
 * mapping does. The pages keep their contents in the page cache and come back at the next touch.
 *
 * A zap alone could go wrong unseen: a guest that still used the old translation would find its
 * page unchanged. So half of the pages move to another frame while they are unmapped; a stale
 * translation then reads poison, and what is written through it is lost.
 *
 * Private pages are kept by the swap file, and come back in other frames.
 */
#include "vmm/chaos.h"

void chaos_unmap(struct chaos_worker *worker, const struct chaos_target *target,
		 const struct chaos_draw *draw)
{
	long zapped = target->ram ? mm_zap_range(target->mm, chaos_draw_hva(target, draw),
						 chaos_draw_len(draw))
				  : chaos_page_out(target, draw);

	if (zapped <= 0) {
		chaos_refuse(worker);
		return;
	}
	atomic64_add(zapped, &worker->pages);

	for (unsigned int i = 0; target->ram && i < draw->nr_pages; i++) {
		if ((draw->bits & (1ULL << i)) &&
		    migrate_mapping_page(target->ram, draw->gfn + i) == 0)
			atomic64_inc(&worker->pages_migrated);
	}
}
