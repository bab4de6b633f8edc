// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The swap cache: which frame is the copy in memory of which slot (kernel: mm/swap_state.c). By it
 * those who swap the same page in, or out and in, meet at one frame lock:
 *
 *   swap-out of frame A                       fault on an entry that is swapped just now
 *   -------------------                       ------------------------------------------
 *   locks A; slot 5's cached copy is A
 *   entry := slot 5
 *                                             entry: slot 5. Cached: A. Locks A ... waits
 *   A to the file; out of the cache; freed
 *   unlocks A                                 has the lock. Cached: none
 *                                             a new frame B is slot 5's cached copy; reads it
 *
 * and if A was not written after all, the fault finds it in the cache, as it was. No reference is
 * needed to lock a frame, only to use it (address_space.c): while a frame is the cached copy, and
 * locked, the cache's reference keeps it.
 */
#include "notifier/frame.h"
#include "notifier/phys_internal.h"
#include "notifier/swap.h"
#include "notifier/sync/bug.h"

static void enter(struct swap_slot *s, uint32_t slot, struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	ASSERT(frame_locked(frame) && !s->cached, "a locked frame becomes slot %#x's only copy",
	       slot);
	phys_get(phys, pfn);
	s->cached = pfn + 1;
	frame->slot = slot;
	frame_set(frame, FRAME_SWAPCACHE);
}

bool add_to_swap(struct phys *phys, pfn_t pfn)
{
	struct swap *swap = &phys->swap;
	uint32_t slot;

	spin_lock(&swap->lock);
	slot = __swap_alloc(swap);
	if (slot != NO_SLOT) {
		enter(__swap_slot(swap, slot), slot, phys, pfn);
		frame_set(pfn_to_frame(phys, pfn), FRAME_DIRTY);
	}
	spin_unlock(&swap->lock);
	return slot != NO_SLOT;
}

bool swap_cache_insert(struct phys *phys, uint32_t slot, pfn_t pfn)
{
	struct swap *swap = &phys->swap;
	struct swap_slot *s;
	bool inserted;

	spin_lock(&swap->lock);
	/* The caller saw an entry that named it, but that may be gone, and the slot, and the file.
	 */
	inserted = slot < swap->nr_slots;
	if (inserted) {
		s = __swap_slot(swap, slot);
		inserted = s->users && !s->cached;
		if (inserted)
			enter(s, slot, phys, pfn);
	}
	spin_unlock(&swap->lock);
	return inserted;
}

void delete_from_swap_cache(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct swap *swap = &phys->swap;
	struct swap_slot *s;

	ASSERT(frame_locked(frame) && frame_test(frame, FRAME_SWAPCACHE),
	       "frame %#llx is in the swap cache, and locked", (unsigned long long)pfn);
	spin_lock(&swap->lock);
	s = __swap_slot(swap, frame->slot);
	ASSERT(s->cached == pfn + 1, "slot %#x and its cached copy agree", frame->slot);
	s->cached = 0;
	if (!s->users)
		__swap_slot_unused(swap, frame->slot);
	spin_unlock(&swap->lock);
	frame_clear(frame, FRAME_SWAPCACHE | FRAME_DIRTY);
}

void leave_swap_cache_if_unused(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (!frame_test(frame, FRAME_SWAPCACHE) || swap_users(phys, frame->slot))
		return;
	delete_from_swap_cache(phys, pfn);
	phys_put(phys, pfn);
}

void swap_cache_replace(struct phys *phys, pfn_t from, pfn_t to)
{
	struct frame *old = pfn_to_frame(phys, from);
	struct swap *swap = &phys->swap;
	struct swap_slot *s;

	spin_lock(&swap->lock);
	s = __swap_slot(swap, old->slot);
	ASSERT(s->cached == from + 1, "slot %#x and its cached copy agree", old->slot);
	s->cached = 0;
	enter(s, old->slot, phys, to);
	spin_unlock(&swap->lock);
	frame_clear(old, FRAME_SWAPCACHE);
}

static pfn_t cached_frame(struct phys *phys, uint32_t slot)
{
	struct swap *swap = &phys->swap;
	uint32_t cached = 0;

	spin_lock(&swap->lock);
	if (slot < swap->nr_slots)
		cached = __swap_slot(swap, slot)->cached;
	spin_unlock(&swap->lock);
	return cached ? cached - 1 : INVALID_PFN;
}

pfn_t swap_cache_lock_page(struct phys *phys, uint32_t slot)
{
	for (;;) {
		pfn_t pfn = cached_frame(phys, slot);

		if (pfn == INVALID_PFN)
			return pfn;
		lock_frame(phys, pfn);
		if (cached_frame(phys, slot) == pfn) {
			phys_get(phys, pfn);
			return pfn;
		}
		unlock_frame(phys, pfn);
	}
}

/*
 * The frame may be anything by the time it is locked: another page, or in the cache for another
 * slot. Whatever it is, if it is cached and nobody uses its slot, it may leave.
 */
void swap_free(struct phys *phys, uint32_t slot)
{
	pfn_t pfn = swap_put(phys, slot);

	if (pfn == INVALID_PFN)
		return;
	pfn = swap_cache_lock_page(phys, slot);
	if (pfn == INVALID_PFN)
		return;
	leave_swap_cache_if_unused(phys, pfn);
	unlock_frame(phys, pfn);
	phys_put(phys, pfn);
}
