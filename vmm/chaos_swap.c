/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `swap`: write a run of pages to the swap file and drop them (MADV_PAGEOUT). They come
 * back at the next touch, most in another frame. What is in use at this moment stays.
 *
 * With private RAM `unmap` does the same: that is the only way to unmap such a page and keep it.
 */
#include "vmm/chaos.h"

static unsigned int nr_present(const struct chaos_target *target, const struct chaos_draw *draw)
{
	hva_t hva = chaos_draw_hva(target, draw);
	unsigned int nr = 0;

	for (unsigned int i = 0; i < draw->nr_pages; i++)
		nr += mm_lookup_pfn(target->mm, hva + i * PAGE_SIZE) != INVALID_PFN;
	return nr;
}

unsigned int chaos_page_out(const struct chaos_target *target, const struct chaos_draw *draw)
{
	unsigned int before = nr_present(target, draw), after;

	/* Where a part of the run is away just now the rest has been done. */
	mm_madvise(target->mm, chaos_draw_hva(target, draw), chaos_draw_len(draw), MM_MADV_PAGEOUT);
	after = nr_present(target, draw);
	return after < before ? before - after : 0;
}

void chaos_swap(struct chaos_worker *worker, const struct chaos_target *target,
		const struct chaos_draw *draw)
{
	unsigned int nr = chaos_page_out(target, draw);

	if (nr)
		atomic64_add(nr, &worker->pages);
	else
		chaos_refuse(worker);
}
