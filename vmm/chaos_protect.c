/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `protect`: take the right to write, or all rights, from a run of pages for some
 * milliseconds (mprotect). A guest that goes there waits.
 *
 * A guest that could still write would do so unseen, as the pages stay where they are. So what can
 * still be read is read before and after: nobody can have written to it in between.
 */
#include <errno.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/wait.h"
#include "vmm/chaos.h"

#define HOLD_MS_MASK 7
#define READ_ONLY    8 /* of draw->bits */

/* Splitting an area back may want memory of the host's; the guest waits, so there is no giving up.
 */
static void mend(struct mm_struct *mm, hva_t hva, uint64_t len)
{
	int err;

	while ((err = mm_mprotect(mm, hva, len, MM_PROT_READ | MM_PROT_WRITE))) {
		ASSERT(err == -ENOMEM, "what was protected is still there: %d", err);
		fsleep(1000);
	}
}

void chaos_protect(struct chaos_worker *worker, const struct chaos_target *target,
		   const struct chaos_draw *draw)
{
	hva_t hva = chaos_draw_hva(target, draw);
	uint64_t len = chaos_draw_len(draw);
	bool read_only = draw->bits & READ_ONLY;
	struct chaos_sums sums;
	struct hole hole;

	if (!hole_open(target->holes, &hole, hva, hva + len)) {
		chaos_refuse(worker);
		return;
	}
	if (mm_mprotect(target->mm, hva, len, read_only ? MM_PROT_READ : MM_PROT_NONE) == 0) {
		chaos_sum_pages(&sums, target->mm, hva, draw->nr_pages);
		chaos_hold(worker, draw->bits & HOLD_MS_MASK, false);
		chaos_check_sums(worker, &sums, target->mm, hva);
		atomic64_add(draw->nr_pages, &worker->pages);
	} else {
		chaos_refuse(worker); /* and some of it may be protected */
	}
	mend(target->mm, hva, len);
	hole_close(target->holes, &hole);
}
