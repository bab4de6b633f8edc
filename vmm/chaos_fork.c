/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `fork`: a child of the guest's address space, which lives for some milliseconds. The
 * guest loses the right to write to all of its memory, and copies each page that it writes to.
 *
 * What must hold: the child's pages stay as they were at the fork, whatever the guest writes; what
 * the child writes only the child sees. The first is looked at here. For the second the child
 * writes rubbish to some pages: the guest would notice.
 *
 * As long as the child lives each page that the guest writes to costs a frame: so a child is a
 * hoard, and goes early if the guest needs memory.
 */
#include "notifier/sync/util.h"
#include "vmm/chaos.h"

#define HOLD_MS_MASK 15
#define WRITE_SHIFT  8 /* one bit of draw->bits for each page: the child writes to it */

static void scribble(struct mm_struct *child, hva_t hva, uint64_t bits)
{
	uint64_t rubbish[PAGE_SIZE / sizeof(uint64_t)];

	for (size_t i = 0; i < ARRAY_SIZE(rubbish); i++)
		rubbish[i] = bits ^ (hva + i);
	/* No memory, or a hole at the time of the fork: then it is not written. */
	mm_write(child, hva, rubbish, sizeof(rubbish));
}

static void live(struct chaos_worker *worker, struct mm_struct *child, hva_t hva,
		 const struct chaos_draw *draw)
{
	struct chaos_sums sums;

	for (unsigned int i = 0; i < draw->nr_pages; i++) {
		if (draw->bits & (1ULL << (WRITE_SHIFT + i)))
			scribble(child, hva + i * PAGE_SIZE, draw->bits);
	}
	chaos_sum_pages(&sums, child, hva, draw->nr_pages);
	chaos_hold(worker, draw->bits & HOLD_MS_MASK, true);
	chaos_check_sums(worker, &sums, child, hva);
	atomic64_add(draw->nr_pages, &worker->pages);
}

void chaos_fork(struct chaos_worker *worker, const struct chaos_target *target,
		const struct chaos_draw *draw)
{
	struct mm_struct *child;

	if (!hoard_begin(target->holes)) {
		chaos_refuse(worker);
		return;
	}
	if (mm_fork(target->mm, &child) == 0) {
		live(worker, child, chaos_draw_hva(target, draw), draw);
		mmput(child);
	} else {
		chaos_refuse(worker);
	}
	hoard_end(target->holes);
}
