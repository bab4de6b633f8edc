/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a set of memslots becomes the one that everybody reads: never while an invalidation is open.
 *
 * start and end of an invalidation take mmu_lock only if the range meets a slot (K-17): most of
 * what a host does to its memory is no business of a guest's. Each of the two finds that out for
 * itself, so both must look at the same set:
 *
 *   invalidation                         slots
 *   ------------                         -----
 *   start: meets slot 1: in_progress 1
 *                                        slot 1 is deleted, the new set is published
 *   end: meets no slot: in_progress
 *     stays 1, and every fault retries
 *     for ever                           ^ forbidden: waits until the end
 *
 * and, with a new slot instead, an end that has had no start. So invalidations are counted,
 * whatever they meet, and a set is published only while there are none, under the lock of the count
 * (K-18). Replayed by tests/unit/test_memslot_gate.c (overlap).
 *
 * Invalidations do not wait for the gate: they may be opened inside of others. So a host that is
 * never without one holds up a change of slots. Nobody may wait in here who has a window open, nor
 * inside a section of slots_srcu.
 *
 * A window may outlive the VM, or the mm: then its end does not come (K-19). From release on
 * no end takes anything back, and nobody waits, as no fault will look at the outcome any more.
 * Replayed by tests/unit/test_memslot_gate.c (exit).
 */
#include "shadow/shadow_internal.h"

#include "notifier/sync/lockdep.h"

void mn_invalidate_begin(struct shadow *shadow, hva_t start, hva_t end)
{
	spin_lock(&shadow->mn_invalidate_lock);
	open_ranges_add(&shadow->mn_open, start, end);
	WRITE_ONCE(shadow->mn_active_invalidate_count, shadow->mn_active_invalidate_count + 1);
	spin_unlock(&shadow->mn_invalidate_lock);
}

void mn_invalidate_end(struct shadow *shadow, hva_t start, hva_t end)
{
	bool last = false;

	spin_lock(&shadow->mn_invalidate_lock);
	if (!READ_ONCE(shadow->dead)) {
		unsigned long nr = shadow->mn_active_invalidate_count;

		ASSERT(nr, "each end has its start");
		open_ranges_remove(&shadow->mn_open, start, end);
		WRITE_ONCE(shadow->mn_active_invalidate_count, nr - 1);
		last = nr == 1;
	}
	spin_unlock(&shadow->mn_invalidate_lock);
	if (last)
		wake_up_all(&shadow->mn_wait);
}

bool mn_invalidation_open(struct shadow *shadow, hva_t hva)
{
	bool open;

	spin_lock(&shadow->mn_invalidate_lock);
	open = open_ranges_cover(&shadow->mn_open, hva);
	spin_unlock(&shadow->mn_invalidate_lock);
	return open;
}

static bool gate_open(struct shadow *shadow)
{
	return !READ_ONCE(shadow->mn_active_invalidate_count) || READ_ONCE(shadow->dead);
}

static void publish(struct shadow *shadow, struct memslots *slots)
{
	/* To lockdep: who takes slots_lock inside a callback would wait for itself here. */
	lock_map_visit(&lockdep_invalidate_range_start);
	spin_lock(&shadow->mn_invalidate_lock);
	while (!gate_open(shadow)) {
		spin_unlock(&shadow->mn_invalidate_lock);
		shadow_hook(shadow, SHADOW_HOOK_SLOT_WAITS);
		wait_event(shadow->mn_wait, gate_open(shadow));
		spin_lock(&shadow->mn_invalidate_lock);
	}
	smp_store_release(&shadow->slots, slots); /* pairs with shadow_memslots() */
	spin_unlock(&shadow->mn_invalidate_lock);
}

void memslots_swap(struct shadow *shadow, struct memslots *slots)
{
	struct memslots *old = shadow->slots;

	lockdep_assert_held(&shadow->slots_lock);
	ASSERT(slots != old && !(old->generation & 1), "one change at a time");
	slots->generation = old->generation + 1;
	publish(shadow, slots);
	synchronize_srcu(&shadow->slots_srcu);
	/* Release: whoever finds it even finds nobody left who reads the other. Pairs with
	 * shadow_memslots_generation(). */
	smp_store_release(&slots->generation, slots->generation + 1);
}

uint64_t shadow_memslots_generation(struct shadow *shadow)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	uint64_t generation = smp_load_acquire(&shadow_memslots(shadow)->generation);

	srcu_read_unlock(&shadow->slots_srcu, id);
	return generation;
}
