/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `remap`: move a run of pages to another address, and back after some milliseconds
 * (mremap). Meanwhile there is nothing where the guest's memory was, and a guest that goes there
 * waits. Nobody has the pages at their other address but us: they must stay as they are.
 *
 * The thread that moves pages away has one run away at a time, so that there always is room.
 */
#include <errno.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/wait.h"
#include "vmm/chaos.h"

#define HOLD_MS_MASK 7

static int move(struct mm_struct *mm, hva_t from, hva_t to, uint64_t len)
{
	return mm_mremap(mm, from, len, len, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to);
}

/* Areas and tables are memory of the host's; the guest waits, so there is no giving up. */
static void move_back(struct mm_struct *mm, hva_t from, hva_t to, uint64_t len)
{
	int err;

	while ((err = move(mm, from, to, len))) {
		ASSERT(err == -ENOMEM, "what was moved away is still there: %d", err);
		fsleep(1000);
	}
}

void chaos_remap(struct chaos_worker *worker, const struct chaos_target *target,
		 const struct chaos_draw *draw)
{
	const uint64_t places = CHAOS_AWAY_PAGES - CHAOS_MAX_PAGES;
	hva_t hva = chaos_draw_hva(target, draw);
	hva_t away = target->away + (((draw->bits >> 8) % places) << PAGE_SHIFT);
	uint64_t len = chaos_draw_len(draw);
	struct chaos_sums sums;
	struct hole hole;

	if (!hole_open(target->holes, &hole, hva, hva + len)) {
		chaos_refuse(worker);
		return;
	}
	if (move(target->mm, hva, away, len) == 0) {
		chaos_sum_pages(&sums, target->mm, away, draw->nr_pages);
		chaos_hold(worker, draw->bits & HOLD_MS_MASK, false);
		chaos_check_sums(worker, &sums, target->mm, away);
		move_back(target->mm, away, hva, len);
		atomic64_add(draw->nr_pages, &worker->pages);
	} else {
		chaos_refuse(worker);
	}
	hole_close(target->holes, &hole);
}
