/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memslots: which hva a guest page lives at, with the per-page state of the shadow MMU.
 *
 * The set is immutable once published: a writer, under slots_lock, copies it, adds to the copy,
 * publishes that and waits for a grace period of slots_srcu before it frees the old one. Readers
 * (faults, invalidations, emulated accesses) hold a section of slots_srcu, in which they may sleep.
 */
#include <errno.h>
#include <string.h>

#include "shadow/shadow_internal.h"

#include "notifier/sync/alloc.h"

struct memslots *shadow_memslots(struct shadow *shadow)
{
	return smp_load_acquire(&shadow->slots); /* pairs with the release in publish() */
}

struct memslot *gfn_to_memslot(const struct memslots *slots, gfn_t gfn)
{
	unsigned int low = 0, high = slots->nr;

	while (low < high) {
		unsigned int mid = low + (high - low) / 2;
		struct memslot *slot = slots->slot[mid];

		if (gfn < slot->base_gfn)
			high = mid;
		else if (gfn - slot->base_gfn >= slot->npages)
			low = mid + 1;
		else
			return slot;
	}
	return NULL;
}

hva_t gpa_to_hva(struct shadow *shadow, gpa_t gpa)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), gpa >> PAGE_SHIFT);

	if (!slot)
		return INVALID_HVA;
	return memslot_hva(slot, gpa >> PAGE_SHIFT) + (gpa & ~PAGE_MASK);
}

static void memslot_free(struct memslot *slot)
{
	gfn_set_destroy(&slot->mapped);
	kvfree(slot->rmap, slot->npages * sizeof(*slot->rmap));
	kvfree(slot->zapped, slot->npages * sizeof(*slot->zapped));
	kfree(slot);
}

static struct memslot *memslot_alloc(unsigned int id, gfn_t base_gfn, uint64_t npages, hva_t hva)
{
	struct memslot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);

	if (!slot)
		return NULL;
	slot->id = id;
	slot->base_gfn = base_gfn;
	slot->npages = npages;
	slot->hva = hva;
	slot->rmap = kvcalloc(npages, sizeof(*slot->rmap), GFP_KERNEL);
	if (!slot->rmap)
		goto out_slot;
	slot->zapped = kvcalloc(npages, sizeof(*slot->zapped), GFP_KERNEL);
	if (!slot->zapped)
		goto out_rmap;
	if (gfn_set_init(&slot->mapped, npages))
		goto out_zapped;
	return slot;

out_zapped:
	kvfree(slot->zapped, npages * sizeof(*slot->zapped));
out_rmap:
	kvfree(slot->rmap, npages * sizeof(*slot->rmap));
out_slot:
	kfree(slot);
	return NULL;
}

/* @slots with @slot in its place: 0, or -EEXIST where id or range is taken, -ENOSPC. */
static int insert_sorted(struct memslots *slots, struct memslot *slot)
{
	unsigned int at = 0;

	for (unsigned int i = 0; i < slots->nr; i++) {
		const struct memslot *other = slots->slot[i];

		if (other->id == slot->id)
			return -EEXIST;
		if (slot->base_gfn < other->base_gfn + other->npages &&
		    other->base_gfn < slot->base_gfn + slot->npages)
			return -EEXIST;
		if (other->base_gfn < slot->base_gfn)
			at = i + 1;
	}
	memmove(&slots->slot[at + 1], &slots->slot[at], (slots->nr - at) * sizeof(slots->slot[0]));
	slots->slot[at] = slot;
	slots->nr++;
	return 0;
}

int shadow_create_memslot(struct shadow *shadow, unsigned int id, gfn_t base_gfn, uint64_t npages,
			  hva_t hva)
{
	const uint64_t max_pages = HVA_MAX >> PAGE_SHIFT;
	const uint64_t max_gfn = SPTE_PFN_MASK >> PAGE_SHIFT;
	struct memslots *old_slots, *new_slots;
	struct memslot *slot;
	int ret = -ENOMEM;

	if (id >= MEMSLOT_MAX || !npages || npages > max_pages || !PAGE_ALIGNED(hva) ||
	    hva > HVA_MAX - (npages << PAGE_SHIFT) || base_gfn > max_gfn ||
	    npages > max_gfn - base_gfn)
		return -EINVAL;

	new_slots = kzalloc(sizeof(*new_slots), GFP_KERNEL);
	if (!new_slots)
		return -ENOMEM;
	slot = memslot_alloc(id, base_gfn, npages, hva);
	if (!slot)
		goto out_slots;

	mutex_lock(&shadow->slots_lock);
	old_slots = shadow->slots;
	*new_slots = *old_slots;
	ret = insert_sorted(new_slots, slot);
	if (ret) {
		mutex_unlock(&shadow->slots_lock);
		goto out_slot;
	}
	smp_store_release(&shadow->slots, new_slots); /* pairs with shadow_memslots() */
	synchronize_srcu(&shadow->slots_srcu);
	mutex_unlock(&shadow->slots_lock);
	kfree(old_slots);
	return 0;

out_slot:
	memslot_free(slot);
out_slots:
	kfree(new_slots);
	return ret;
}

void memslots_destroy(struct shadow *shadow)
{
	struct memslots *slots = shadow->slots;

	for (unsigned int i = 0; i < slots->nr; i++)
		memslot_free(slots->slot[i]);
	kfree(slots);
	shadow->slots = NULL;
}
