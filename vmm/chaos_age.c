/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `age`: ask the secondaries whether pages were used, as reclaim does, in each of the
 * three ways that there are.
 */
#include <gnomon/mmu_notifier.h>

#include "vmm/chaos.h"

void chaos_age(struct chaos_worker *worker, const struct chaos_target *target,
	       const struct chaos_draw *draw)
{
	hva_t start = chaos_draw_hva(target, draw), end = start + chaos_draw_len(draw);

	unsigned int nr = 0;

	switch (draw->bits % 3) {
	case 0:
		nr = draw->nr_pages * mmu_notifier_clear_flush_young(target->mm, start, end);
		break;
	case 1:
		nr = draw->nr_pages * mmu_notifier_clear_young(target->mm, start, end);
		break;
	case 2:
		for (hva_t hva = start; hva < end; hva += PAGE_SIZE)
			nr += mmu_notifier_test_young(target->mm, hva);
		break;
	}
	atomic64_add(nr, &worker->pages);
}
