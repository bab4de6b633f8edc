/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A set of memslots: the three ways to find a slot, and how a set that is not published is changed.
 *
 *   by_id   an array
 *   by_gfn  sorted, disjoint: binary search
 *   by_hva  sorted by start, and may overlap, as two slots may show the same host memory. A binary
 *           search tree is laid over the array: the root of [low, high) is the middle, and
 *           max_end[] of it is the largest end of all slots in [low, high). So a search knows where
 *           nothing can reach as far as it looks:
 *
 *             hva   [--0--] [-1-]  [---------2---------]  [-3-]   [4]
 *             tree                2 (end of 4)
 *                        1 (end of 1)        4 (end of 4)
 *                    0 (its own)           3
 */
#include <string.h>

#include "shadow/shadow_internal.h"

struct memslot *gfn_to_memslot(const struct memslots *slots, gfn_t gfn)
{
	unsigned int low = 0, high = slots->nr;

	while (low < high) {
		unsigned int mid = low + (high - low) / 2;
		struct memslot *slot = slots->by_gfn[mid];

		if (gfn < slot->base_gfn)
			high = mid;
		else if (gfn - slot->base_gfn >= slot->npages)
			low = mid + 1;
		else
			return slot;
	}
	return NULL;
}

static hva_t memslot_end(const struct memslot *slot)
{
	return slot->hva + (slot->npages << PAGE_SHIFT);
}

/* The first from @from on in the tree over [low, high) that meets [start, end), or slots->nr. */
static unsigned int next_in(const struct memslots *slots, unsigned int low, unsigned int high,
			    unsigned int from, hva_t start, hva_t end)
{
	unsigned int mid = low + (high - low) / 2;
	unsigned int found;

	if (low >= high || high <= from || slots->max_end[mid] <= start)
		return slots->nr;
	found = next_in(slots, low, mid, from, start, end);
	if (found < slots->nr)
		return found;
	if (slots->by_hva[mid]->hva >= end)
		return slots->nr; /* as are all behind it */
	if (mid >= from && memslot_end(slots->by_hva[mid]) > start)
		return mid;
	return next_in(slots, mid + 1, high, from, start, end);
}

unsigned int memslots_next(const struct memslots *slots, unsigned int from, hva_t start, hva_t end)
{
	return next_in(slots, 0, slots->nr, from, start, end);
}

static hva_t build_tree(struct memslots *slots, unsigned int low, unsigned int high)
{
	unsigned int mid = low + (high - low) / 2;
	hva_t max, below;

	if (low >= high)
		return 0;
	max = memslot_end(slots->by_hva[mid]);
	below = build_tree(slots, low, mid);
	if (below > max)
		max = below;
	below = build_tree(slots, mid + 1, high);
	if (below > max)
		max = below;
	slots->max_end[mid] = max;
	return max;
}

static void remove_at(struct memslot **array, unsigned int nr, const struct memslot *slot)
{
	unsigned int at = 0;

	while (at < nr && array[at] != slot)
		at++;
	ASSERT(at < nr, "slot %u is in the set", slot->id);
	memmove(&array[at], &array[at + 1], (nr - at - 1) * sizeof(array[0]));
}

static void insert_at(struct memslot **array, unsigned int nr, unsigned int at,
		      struct memslot *slot)
{
	memmove(&array[at + 1], &array[at], (nr - at) * sizeof(array[0]));
	array[at] = slot;
}

void memslots_replace(struct memslots *slots, struct memslot *old, struct memslot *new)
{
	unsigned int at;

	if (old) {
		remove_at(slots->by_gfn, slots->nr, old);
		remove_at(slots->by_hva, slots->nr, old);
		slots->by_id[old->id] = NULL;
		slots->nr--;
	}
	if (new) {
		ASSERT(!slots->by_id[new->id], "slot %u is not in the set", new->id);
		for (at = 0; at < slots->nr && slots->by_gfn[at]->base_gfn < new->base_gfn; at++)
			;
		insert_at(slots->by_gfn, slots->nr, at, new);
		for (at = 0; at < slots->nr && slots->by_hva[at]->hva < new->hva; at++)
			;
		insert_at(slots->by_hva, slots->nr, at, new);
		slots->by_id[new->id] = new;
		slots->nr++;
	}
	build_tree(slots, 0, slots->nr);
}

/* Does a search for what @slot meets find it? */
static bool found_by_hva(const struct memslots *slots, const struct memslot *slot)
{
	unsigned int i;

	for_each_memslot_in(i, slots, slot->hva, memslot_end(slot))
	{
		if (slots->by_hva[i] == slot)
			return true;
	}
	return false;
}

bool memslots_sound(const struct memslots *slots)
{
	unsigned int nr = 0;

	for (unsigned int id = 0; id < MEMSLOT_MAX; id++) {
		const struct memslot *slot = slots->by_id[id];

		if (!slot)
			continue;
		nr++;
		if (slot->id != id || gfn_to_memslot(slots, slot->base_gfn) != slot ||
		    gfn_to_memslot(slots, slot->base_gfn + slot->npages - 1) != slot ||
		    !found_by_hva(slots, slot))
			return false;
	}
	return nr == slots->nr;
}
