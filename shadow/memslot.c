/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memslots: which hva a guest page lives at, with the per-page state of the shadow MMU.
 *
 * There are two sets (memslot_set.c): one is published and immutable, the other is what the next
 * change is written to. A writer, under slots_lock, makes it a copy with the change, and swaps
 * (memslot_gate.c), which ends with a grace period of slots_srcu. Readers (faults, invalidations,
 * emulated accesses) hold a section of slots_srcu, in which they may sleep. In a section they may
 * see the set change once, as a swap that comes later waits for them.
 *
 *   create                 swap
 *   read-only or not       swap; zap the slot, to RAM with the tables in it
 *   logged                 swap; protect what is mapped (dirty_log.c)
 *   not logged any more    swap
 *   delete, move           swap to an INVALID copy; zap; swap to the new one, or none
 *
 * Between the two swaps a fault on the slot is tried again, and an emulated access finds no slot.
 * All that a change may lack is allocated before its first swap: so there is nothing to revert.
 *
 * Why INVALID first: who looked the slot up before the first swap is waited for, and installs what
 * the zap then finds; who looks after it installs nothing. A zap of a slot that is still good would
 * leave what a fault puts there behind it:
 *
 *   fault                                  delete
 *   -----                                  ------
 *   finds the slot, and the frame
 *                                          zaps what there is
 *   mmu_lock: installs the leaf            publishes the set without the slot
 *                                          waits for the fault; frees the rmap that has the leaf
 *     ^ forbidden
 *
 * Replayed by tests/unit/test_memslot_races.c (delete).
 *
 * The copies of a slot share its per-page state, also over a move: all of it is by page of the
 * slot, and empty in between.
 */
#include <errno.h>

#include "shadow/dirty.h"
#include "shadow/huge.h"

#include "notifier/sync/alloc.h"

struct memslots *shadow_memslots(struct shadow *shadow)
{
	return smp_load_acquire(&shadow->slots); /* pairs with the release in memslot_gate.c */
}

struct memslot *gpa_to_memslot(struct shadow *shadow, gpa_t gpa)
{
	return gfn_to_memslot(shadow_memslots(shadow), gpa >> PAGE_SHIFT);
}

hva_t gpa_to_hva(struct shadow *shadow, gpa_t gpa)
{
	const struct memslot *slot = gpa_to_memslot(shadow, gpa);

	if (!slot || (slot->flags & MEMSLOT_INVALID))
		return INVALID_HVA;
	return memslot_gpa_hva(slot, gpa);
}

int gpa_to_hva_for(struct shadow *shadow, gpa_t gpa, bool write, hva_t *hva)
{
	const struct memslot *slot = gpa_to_memslot(shadow, gpa);

	if (!slot || (write && (slot->flags & MEMSLOT_READONLY)))
		return -ENXIO;
	if (slot->flags & MEMSLOT_INVALID)
		return -EAGAIN;
	*hva = memslot_gpa_hva(slot, gpa);
	return 0;
}

static void memslot_free(struct memslot *slot)
{
	dirty_log_drop(slot, NULL);
	gfn_set_destroy(&slot->tables);
	gfn_set_destroy(&slot->mapped);
	gfn_set_destroy(&slot->huge_mapped);
	kvfree(slot->huge, nr_huge(slot) * sizeof(*slot->huge));
	kvfree(slot->rmap, slot->npages * sizeof(*slot->rmap));
	kvfree(slot->zapped, slot->npages * sizeof(*slot->zapped));
	kfree(slot);
}

static struct memslot *memslot_alloc(struct shadow *shadow, const struct memslot_region *region)
{
	struct memslot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);
	uint64_t npages = region->npages;

	if (!slot)
		return NULL;
	slot->id = region->id;
	slot->flags = region->flags;
	slot->base_gfn = region->base_gfn;
	slot->npages = npages;
	slot->hva = region->hva;
	slot->rmap = kvcalloc(npages, sizeof(*slot->rmap), GFP_KERNEL);
	if (!slot->rmap)
		goto out_slot;
	slot->zapped = kvcalloc(npages, sizeof(*slot->zapped), GFP_KERNEL);
	if (!slot->zapped)
		goto out_rmap;
	if (gfn_set_init(&slot->mapped, npages))
		goto out_zapped;
	if (gfn_set_init(&slot->tables, npages))
		goto out_mapped;
	if (nr_huge(slot)) {
		slot->huge = kvcalloc(nr_huge(slot), sizeof(*slot->huge), GFP_KERNEL);
		if (!slot->huge)
			goto out_tables;
		if (gfn_set_init(&slot->huge_mapped, nr_huge(slot)))
			goto out_huge;
	}
	if (dirty_log_prepare(shadow, NULL, slot))
		goto out_huge_mapped;
	return slot;

out_huge_mapped:
	gfn_set_destroy(&slot->huge_mapped);
out_huge:
	kvfree(slot->huge, nr_huge(slot) * sizeof(*slot->huge));
out_tables:
	gfn_set_destroy(&slot->tables);
out_mapped:
	gfn_set_destroy(&slot->mapped);
out_zapped:
	kvfree(slot->zapped, npages * sizeof(*slot->zapped));
out_rmap:
	kvfree(slot->rmap, npages * sizeof(*slot->rmap));
out_slot:
	kfree(slot);
	return NULL;
}

/* The same slot, with @flags; shares the per-page state: to free one of the two,
 * memslot_discard(). */
static struct memslot *memslot_copy(struct shadow *shadow, const struct memslot *slot,
				    unsigned int flags)
{
	struct memslot *copy = kmalloc(sizeof(*copy), GFP_KERNEL);

	if (!copy)
		return NULL;
	*copy = *slot;
	copy->flags = flags;
	if (dirty_log_prepare(shadow, slot, copy)) {
		kfree(copy);
		return NULL;
	}
	return copy;
}

static void memslot_discard(struct memslot *slot, const struct memslot *stays)
{
	dirty_log_drop(slot, stays);
	kfree(slot);
}

/* Publish the set with @new in the place of @old: nobody has @old afterwards. */
static void replace(struct shadow *shadow, struct memslot *old, struct memslot *new)
{
	struct memslots *slots = shadow->memslots[shadow->slots == shadow->memslots[0]];

	*slots = *shadow->slots;
	memslots_replace(slots, old, new);
	memslots_swap(shadow, slots);
}

static int create(struct shadow *shadow, const struct memslot_region *region)
{
	struct memslot *slot = memslot_alloc(shadow, region);

	if (!slot)
		return -ENOMEM;
	replace(shadow, NULL, slot);
	return 0;
}

static int change_flags(struct shadow *shadow, struct memslot *old, unsigned int flags)
{
	struct memslot *new = memslot_copy(shadow, old, flags);

	if (!new)
		return -ENOMEM;
	WRITE_ONCE(shadow->narrowed, new);
	replace(shadow, old, new);
	/* From RAM to ROM its leaves go, as they may be writable. From ROM to RAM what was made of
	 * tables in it: no walk has set A and D there, and what is in step is not walked again. */
	if ((old->flags ^ flags) & MEMSLOT_READONLY)
		shadow_zap_slot(shadow, new, !(flags & MEMSLOT_READONLY));
	if (slot_is_logged(new) && !slot_is_logged(old))
		dirty_log_begin(shadow, new);
	/* Under mmu_lock, who sees this finds nothing of what went under it before. */
	WRITE_ONCE(shadow->narrowed, NULL);
	memslot_discard(old, new);
	return 0;
}

/* @old goes, and @new, if any, comes. */
static int replace_mapped(struct shadow *shadow, struct memslot *old, struct memslot *new)
{
	struct memslot *invalid = memslot_copy(shadow, old, old->flags | MEMSLOT_INVALID);

	if (!invalid)
		return -ENOMEM;
	replace(shadow, old, invalid);
	shadow_hook(shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP);
	if (shadow->zap_policy == SHADOW_ZAP_ALL)
		shadow_zap_all_fast(shadow);
	else
		shadow_zap_slot(shadow, invalid, true);
	shadow_hook(shadow, SHADOW_HOOK_SLOT_AFTER_ZAP);
	replace(shadow, invalid, new);
	memslot_discard(invalid, old);
	return 0;
}

static int delete (struct shadow *shadow, struct memslot *old)
{
	int ret = replace_mapped(shadow, old, NULL);

	if (!ret)
		memslot_free(old);
	return ret;
}

static int move(struct shadow *shadow, struct memslot *old, const struct memslot_region *region)
{
	struct memslot *new = memslot_copy(shadow, old, region->flags);
	int ret;

	if (!new)
		return -ENOMEM;
	new->base_gfn = region->base_gfn;
	ret = replace_mapped(shadow, old, new);
	if (ret)
		memslot_discard(new, old);
	else
		memslot_discard(old, new);
	return ret;
}

/* Can it be a slot, whatever other slots there are? */
static bool region_valid(const struct memslot_region *region)
{
	const uint64_t max_pages = HVA_MAX >> PAGE_SHIFT;
	const uint64_t max_gfn = SPTE_PFN_MASK >> PAGE_SHIFT;

	return !(region->flags & ~(MEMSLOT_READONLY | MEMSLOT_LOG_DIRTY)) &&
	       region->npages <= max_pages && PAGE_ALIGNED(region->hva) &&
	       region->hva <= HVA_MAX - (region->npages << PAGE_SHIFT) &&
	       region->base_gfn <= max_gfn && region->npages <= max_gfn - region->base_gfn;
}

/* Another slot than its own has part of its gfns. */
static bool gfns_taken(const struct memslots *slots, const struct memslot_region *region)
{
	for (unsigned int i = 0; i < slots->nr; i++) {
		const struct memslot *other = slots->by_gfn[i];

		if (other->id != region->id && region->base_gfn < other->base_gfn + other->npages &&
		    other->base_gfn < region->base_gfn + region->npages)
			return true;
	}
	return false;
}

static int set_memslot(struct shadow *shadow, const struct memslot_region *region)
{
	struct memslot *old = shadow->slots->by_id[region->id];

	if (!region->npages)
		return old ? delete (shadow, old) : -EINVAL;
	if (!region_valid(region) ||
	    (old && (old->npages != region->npages || old->hva != region->hva)))
		return -EINVAL;
	if (gfns_taken(shadow->slots, region))
		return -EEXIST;
	if (!old)
		return create(shadow, region);
	if (old->base_gfn != region->base_gfn)
		return move(shadow, old, region);
	return old->flags != region->flags ? change_flags(shadow, old, region->flags) : 0;
}

int shadow_set_memslot(struct shadow *shadow, const struct memslot_region *region)
{
	int ret;

	if (region->id >= MEMSLOT_MAX)
		return -EINVAL;
	mutex_lock(&shadow->slots_lock);
	ret = set_memslot(shadow, region);
	mutex_unlock(&shadow->slots_lock);
	return ret;
}

int shadow_create_memslot(struct shadow *shadow, unsigned int id, gfn_t base_gfn, uint64_t npages,
			  hva_t hva)
{
	const struct memslot_region region = {.id = id,
					      .base_gfn = base_gfn,
					      .npages = npages,
					      .hva = hva};
	int ret = -EEXIST;

	if (id >= MEMSLOT_MAX || !npages)
		return -EINVAL;
	mutex_lock(&shadow->slots_lock);
	if (!shadow->slots->by_id[id])
		ret = set_memslot(shadow, &region);
	mutex_unlock(&shadow->slots_lock);
	return ret;
}

void shadow_set_zap_policy(struct shadow *shadow, enum shadow_zap_policy policy)
{
	mutex_lock(&shadow->slots_lock);
	shadow->zap_policy = policy;
	mutex_unlock(&shadow->slots_lock);
}

void memslots_destroy(struct shadow *shadow)
{
	for (unsigned int i = 0; i < shadow->slots->nr; i++)
		memslot_free(shadow->slots->by_gfn[i]);
	kfree(shadow->memslots[0]);
	kfree(shadow->memslots[1]);
}
