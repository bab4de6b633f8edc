/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simplest secondary MMU that keeps the contract: it drops, in each start, what it has of the
 * range. So whatever it has left, at any time, is what the primary has (check.c).
 */
#include <stdlib.h>

#include "notifier/frame.h"
#include "notifier/sync/util.h"
#include "tests/mmmodel/world.h"

static void drop(struct secondary *secondary, hva_t start, hva_t end)
{
	for (int i = 0; i < NR_PAGES; i++) {
		if (place_hva(i) >= start && place_hva(i) < end)
			secondary->entry[i].valid = false;
	}
}

static int range_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct secondary *secondary = container_of(mn, struct secondary, mn);

	if (range->start >= range->end || !PAGE_ALIGNED(range->start) || !PAGE_ALIGNED(range->end))
		differ("a window over %#llx to %#llx", (unsigned long long)range->start,
		       (unsigned long long)range->end);
	if (secondary->released)
		differ("a window after release");
	secondary->open++;
	drop(secondary, range->start, range->end);
	return 0;
}

static void range_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct secondary *secondary = container_of(mn, struct secondary, mn);

	(void)range;
	if (--secondary->open < 0)
		differ("a window was closed that was not open");
}

static void release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct secondary *secondary = container_of(mn, struct secondary, mn);

	/* No page is freed before. */
	for (int i = 0; i < NR_PAGES; i++) {
		const struct frame *frame;

		if (!secondary->entry[i].valid)
			continue;
		frame = pfn_to_frame(mm_phys(mm), secondary->entry[i].pfn);
		if (!atomic_read(&frame->refcount) || !frame->mapping)
			differ("the frame of place %d is freed before release", i);
	}
	secondary->released = true;
	drop(secondary, 0, HVA_MAX);
}

void secondary_attach(struct world *w, struct mspace *s)
{
	static const struct mmu_notifier_ops ops = {
		.release = release,
		.invalidate_range_start = range_start,
		.invalidate_range_end = range_end,
	};
	struct secondary *secondary = calloc(1, sizeof(*secondary));
	int ret;

	if (!secondary)
		abort();
	secondary->mn.ops = &ops;
	ret = mmu_notifier_register(&secondary->mn, s->real);
	if (ret && !gave_up(w, ret))
		differ("register: returned %d", ret);
	if (ret)
		return free(secondary);
	s->secondary = secondary;
}

void secondary_detach(struct mspace *s)
{
	struct secondary *secondary = s->secondary;

	if (!secondary)
		return;
	if (!secondary->released)
		differ("an exit without a release");
	if (secondary->open)
		differ("%d windows are open at the end", secondary->open);
	mmu_notifier_unregister(&secondary->mn, secondary->mn.mm);
	free(secondary);
	s->secondary = NULL;
}
