/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `merge`: same-page merging of a run of pages with copies of them.
 *
 * Guests have few pages that are equal, so we make some: an address space of our own for a moment,
 * with copies of the run in it. Both ask for merging, and after two rounds equal pages are one
 * frame in both. Then for some milliseconds whoever writes gets a copy: the guest, and we, who
 * write rubbish to some of ours, which the guest would notice. The others of ours must stay as they
 * were, whatever the guest writes. In the end the guest gets what is still merged back for itself.
 *
 * The run is listed as a hole, though the guest can reach all of it: nobody may move a part of it
 * away while areas begin and end there. It waits for nothing, as it is refused nothing.
 */
#include <errno.h>
#include <limits.h>

#include <gnomon/ksm.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "notifier/sync/wait.h"
#include "vmm/chaos.h"

#define HOLD_MS_MASK 7
#define WRITE_SHIFT  8 /* one bit of draw->bits for each page: we write to our copy */
#define ROUNDS	     3 /* seen for the first time; unchanged since; and whatever was busy then */

static bool copy_pages(const struct chaos_target *target, const struct chaos_draw *draw,
		       struct mm_struct *copy)
{
	char page[PAGE_SIZE];

	for (unsigned int i = 0; i < draw->nr_pages; i++) {
		hva_t hva = chaos_draw_hva(target, draw) + i * PAGE_SIZE;

		if (mm_read(target->mm, hva, page, sizeof(page)) ||
		    mm_write(copy, hva, page, sizeof(page)))
			return false;
	}
	return true;
}

/* An address space with copies of the run, at the same place, or NULL. */
static struct mm_struct *make_copy(const struct chaos_target *target, const struct chaos_draw *draw)
{
	struct mm_struct *copy = mm_alloc(mm_phys(target->mm));
	hva_t hva = chaos_draw_hva(target, draw);
	uint64_t len = chaos_draw_len(draw);

	if (!copy)
		return NULL;
	if (mm_mmap(copy, hva, len, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) == 0 &&
	    copy_pages(target, draw, copy) && mm_madvise(copy, hva, len, MM_MADV_MERGEABLE) == 0)
		return copy;
	mmput(copy);
	return NULL;
}

/* The pages that somebody has meanwhile written to are not merged. */
static uint64_t merge(const struct chaos_target *target)
{
	uint64_t merged = 0;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		long nr = ksm_scan(target->ksm, ULONG_MAX);

		if (nr > 0)
			merged += nr;
	}
	return merged;
}

static void write_rubbish(struct mm_struct *copy, hva_t hva, const struct chaos_draw *draw)
{
	for (unsigned int i = 0; i < draw->nr_pages; i++) {
		uint64_t rubbish = draw->bits + i;

		if (draw->bits & (1ULL << (WRITE_SHIFT + i)))
			mm_write(copy, hva + i * PAGE_SIZE + (draw->bits >> 32) % 512 * 8, &rubbish,
				 sizeof(rubbish)); /* no memory: then it is not written */
	}
}

/* Each page needs a frame, and areas are put together again: there is no giving up. */
static void unmerge(struct mm_struct *mm, hva_t hva, uint64_t len)
{
	int err;

	while ((err = mm_madvise(mm, hva, len, MM_MADV_UNMERGEABLE))) {
		ASSERT(err == -ENOMEM, "what was merged is still there: %d", err);
		fsleep(1000);
	}
}

static bool merge_with(struct chaos_worker *worker, const struct chaos_target *target,
		       const struct chaos_draw *draw, struct mm_struct *copy)
{
	hva_t hva = chaos_draw_hva(target, draw);
	uint64_t len = chaos_draw_len(draw), merged = 0;
	struct chaos_sums sums;

	if (mm_madvise(target->mm, hva, len, MM_MADV_MERGEABLE) == 0) {
		merged = merge(target);
		write_rubbish(copy, hva, draw);
		chaos_sum_pages(&sums, copy, hva, draw->nr_pages);
		chaos_hold(worker, draw->bits & HOLD_MS_MASK, false);
		chaos_check_sums(worker, &sums, copy, hva);
		atomic64_add(merged, &worker->pages);
	}
	unmerge(target->mm, hva, len);
	return merged;
}

void chaos_merge(struct chaos_worker *worker, const struct chaos_target *target,
		 const struct chaos_draw *draw)
{
	hva_t hva = chaos_draw_hva(target, draw);
	struct mm_struct *copy = NULL;
	bool merged = false;
	struct hole run;

	if (hole_open(target->holes, &run, hva, hva + chaos_draw_len(draw))) {
		copy = make_copy(target, draw);
		if (copy)
			merged = merge_with(worker, target, draw, copy);
		hole_close(target->holes, &run);
	}
	if (copy)
		mmput(copy);
	if (!merged)
		chaos_refuse(worker);
}
