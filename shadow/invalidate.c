/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow MMU as a client of the host's mmu notifiers (K-14).
 *
 *   start  ends the caches of its pages' frames (pfn_cache.c), opens (or widens) the window, clears
 *	    every entry that maps a page of the range, shoots them down, and returns only when no
 *	    CPU can reach an old frame of the range (I1). While the window is open the fault path
 *	    installs nothing in it.
 *   end    closes the window and moves the sequence on, so that a fault which looked before start
 *	    throws its answer away.
 *
 * Where the range meets no slot neither takes mmu_lock.
 *
 * Windows nest and overlap; the union of their ranges is kept, and forgotten when the last one
 * closes.
 */
#include "shadow/huge.h"

#include "notifier/sync/util.h"

static void window_open(struct shadow *shadow, hva_t start, hva_t end)
{
	lockdep_assert_held(&shadow->mmu_lock);
	if (!shadow->invalidate_in_progress++) {
		shadow->invalidate_start = start;
		shadow->invalidate_end = end;
		return;
	}
	if (start < shadow->invalidate_start)
		shadow->invalidate_start = start;
	if (end > shadow->invalidate_end)
		shadow->invalidate_end = end;
}

/*
 * Where a walk over the pages of a range stands, so that it can drop mmu_lock and go on. The set of
 * slots is that of the moment when the window opened: a slot that comes later has nothing of the
 * range, as long as the window is open.
 */
struct zap_cursor {
	hva_t start, end;
	enum mmu_notifier_event event;
	const struct memslots *slots;
	unsigned int slot; /* in by_hva */
	uint64_t region;   /* huge regions of that slot before it are done; they come first */
	uint64_t rel_gfn;  /* and pages */
};

static void note_zapped(struct shadow *shadow, struct memslot *slot, uint64_t rel_gfn,
			enum mmu_notifier_event event)
{
	slot->zapped[rel_gfn] = 1;
	if (event == MMU_NOTIFY_MIGRATE)
		atomic64_inc(&shadow->stats.migrate_zapped);
}

/* The huge leaves over pages [first, last) of @slot, each as a whole. False: the batch is full. */
static bool zap_huge(struct shadow *shadow, struct memslot *slot, struct zap_cursor *cursor,
		     uint64_t first, uint64_t last, struct zap_batch *batch)
{
	uint64_t begin, end, i;

	huge_overlap(slot, first, last, &begin, &end);
	if (cursor->region < begin)
		cursor->region = begin;
	for_each_gfn(i, &slot->huge_mapped, cursor->region, end) {
		struct huge_region *region = &slot->huge[i];
		uint64_t from = huge_first(slot) + i * HUGE_PAGES;
		uint64_t to = min(from + HUGE_PAGES, last);

		cursor->region = i;
		if (!zap_rmap(shadow, &region->rmap, batch))
			return false;
		/* Of the others nothing was taken that is not there to be mapped again. */
		for (uint64_t n = max(from, first); n < to; n++)
			note_zapped(shadow, slot, n, cursor->event);
	}
	return true;
}

/* Go on from @cursor until the range is done (true) or the batch is full (false). Under mmu_lock,
 * in a section of slots_srcu. */
static bool zap_range(struct shadow *shadow, struct zap_cursor *cursor, struct zap_batch *batch)
{
	const struct memslots *slots = cursor->slots;

	for (; cursor->slot < slots->nr;
	     cursor->slot = memslots_next(slots, cursor->slot + 1, cursor->start, cursor->end),
	     cursor->region = cursor->rel_gfn = 0) {
		struct memslot *slot = slots->by_hva[cursor->slot];
		uint64_t first, last, n;

		memslot_overlap(slot, cursor->start, cursor->end, &first, &last);
		if (!zap_huge(shadow, slot, cursor, first, last, batch))
			return false;
		if (first < cursor->rel_gfn)
			first = cursor->rel_gfn;
		for_each_gfn(n, &slot->mapped, first, last) {
			if (!zap_rmap(shadow, &slot->rmap[n], batch)) {
				cursor->rel_gfn = n;
				return false;
			}
			note_zapped(shadow, slot, n, cursor->event);
		}
	}
	return true;
}

/* Open the window of @range, which meets a slot (@first is the first), and clear what maps a page
 * of it. */
static void invalidate_slots(struct shadow *shadow, const struct mmu_notifier_range *range,
			     const struct memslots *slots, unsigned int first)
{
	struct zap_cursor cursor = {.start = range->start,
				    .end = range->end,
				    .event = range->event,
				    .slots = slots,
				    .slot = first};
	struct zap_batch batch;
	bool done;

	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	window_open(shadow, range->start, range->end);
	for (;;) {
		done = (shadow->broken & SHADOW_BREAK_ZAP) || zap_range(shadow, &cursor, &batch);
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		/* Also on the way through a long range: the lock is never dropped with a flush owed
		 * and forgotten. */
		zap_batch_flush(shadow, &batch);
		if (done)
			break;
		shadow_hook(shadow, SHADOW_HOOK_ZAP_YIELD);
		spin_lock(&shadow->mmu_lock);
	}
}

/*
 * Blockable or not makes no difference: what we may wait for (mmu_lock, another CPU's shootdown) is
 * bounded and takes none of the host mm's locks.
 */
static int shadow_invalidate_range_start(struct mmu_notifier *subscription,
					 const struct mmu_notifier_range *range)
{
	struct shadow *shadow = notifier_to_shadow(subscription);
	const struct memslots *slots;
	unsigned int first;
	int id;

	atomic64_inc(&shadow->stats.invalidations);
	id = srcu_read_lock(&shadow->slots_srcu);
	mn_invalidate_begin(shadow, range->start, range->end);
	shadow_hook(shadow, SHADOW_HOOK_INVALIDATE_COUNTED);
	gfn_to_pfn_cache_invalidate_start(shadow, range->start, range->end);
	/* Is it any business of ours? The same answer as at the end (memslot_gate.c). */
	slots = shadow_memslots(shadow);
	first = memslots_next(slots, 0, range->start, range->end);
	if (first < slots->nr)
		invalidate_slots(shadow, range, slots, first);
	srcu_read_unlock(&shadow->slots_srcu, id);
	return 0;
}

static void window_close(struct shadow *shadow)
{
	spin_lock(&shadow->mmu_lock);
	/* Dead: the slots may not be those that start saw, and nobody looks any more. */
	if (!shadow->dead) {
		/*
		 * seq first: a fault that sees in_progress at zero under the lock sees the new seq
		 * as well. Release pairs with the acquire in handle_fault(): a fault that starts
		 * from the new seq reads the primary page table as the host left it.
		 */
		smp_store_release(&shadow->invalidate_seq, shadow->invalidate_seq + 1);
		ASSERT(shadow->invalidate_in_progress, "each end has its start");
		shadow->invalidate_in_progress--;
	}
	spin_unlock(&shadow->mmu_lock);
}

static void shadow_invalidate_range_end(struct mmu_notifier *subscription,
					const struct mmu_notifier_range *range)
{
	struct shadow *shadow = notifier_to_shadow(subscription);
	int id = srcu_read_lock(&shadow->slots_srcu);
	const struct memslots *slots = shadow_memslots(shadow);

	if (memslots_next(slots, 0, range->start, range->end) < slots->nr)
		window_close(shadow);
	mn_invalidate_end(shadow, range->start, range->end);
	srcu_read_unlock(&shadow->slots_srcu, id);
}

/* The mm goes away, or we are being unregistered: nothing is mapped any more, nothing will be, and
 * no CPU runs. */
static void shadow_release(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	struct shadow *shadow = notifier_to_shadow(subscription);
	struct zap_batch batch;
	int id;

	(void)mm;
	shadow->machine->ops->halt(shadow->machine, "the guest's address space is gone");
	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	spin_lock(&shadow->mmu_lock);
	WRITE_ONCE(shadow->dead, true);
	/* Roots stay until their vCPUs let go of them. */
	while (!list_empty(&shadow->pages))
		zap_page(shadow, list_first_entry(&shadow->pages, struct shadow_page, link),
			 &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
	srcu_read_unlock(&shadow->slots_srcu, id);
	wake_up_all(&shadow->mn_wait); /* the gate is open for good */
	/*
	 * Faults and emulated accesses read the mm, and pin nothing but their section: those that
	 * began before are over now, later ones find us dead. So exit may free what they looked at.
	 */
	synchronize_srcu(&shadow->slots_srcu);
}

const struct mmu_notifier_ops shadow_mmu_notifier_ops = {
	.release = shadow_release,
	.invalidate_range_start = shadow_invalidate_range_start,
	.invalidate_range_end = shadow_invalidate_range_end,
	.clear_flush_young = shadow_clear_flush_young,
	.clear_young = shadow_clear_young,
	.test_young = shadow_test_young,
};
