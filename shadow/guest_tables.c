/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages of a slot are tables of the guest's: slot->tables, a bit for each.
 *
 * Every leaf that is to be writable asks (write_protect.c). Pages that are no tables are nearly all
 * there are, and for these the answer is in one word, which the neighbours share. Without it a
 * bucket of shadow pages is walked, to find that none is of this gfn: they are cold, and the more
 * of them the longer the walk. (Linux: gfn_write_track, a count for each page.)
 *
 * A member has a shadow page, published and not yet zapped, that is not direct. There may be
 * several, in other roles: the last to go takes the bit. While a slot has members it stays, and its
 * copies share the bits; so the slot of a page is always found.
 *
 * All under mmu_lock.
 */
#include "shadow/shadow_internal.h"

/* Does @sp keep a bit set, and where: the slot of its gfn. NULL: none, and a dummy root has none
 * either. */
static struct memslot *slot_of_table(struct shadow *shadow, const struct shadow_page *sp)
{
	struct memslot *slot;

	lockdep_assert_held(&shadow->mmu_lock);
	if (sp->role.direct || sp->gfn == INVALID_GFN)
		return NULL;
	slot = gfn_to_memslot(shadow_memslots(shadow), sp->gfn);
	ASSERT(slot, "a table of the guest's is in a slot");
	return slot;
}

void guest_table_add(struct shadow *shadow, const struct shadow_page *sp)
{
	struct memslot *slot = slot_of_table(shadow, sp);

	if (slot)
		gfn_set_add(&slot->tables, sp->gfn - slot->base_gfn);
}

void guest_table_remove(struct shadow *shadow, const struct shadow_page *sp)
{
	struct memslot *slot = slot_of_table(shadow, sp);

	if (slot && !guest_table_find(shadow, sp->gfn))
		gfn_set_remove(&slot->tables, sp->gfn - slot->base_gfn);
}

bool gfn_is_table(struct shadow *shadow, gfn_t gfn)
{
	const struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), gfn);

	lockdep_assert_held(&shadow->mmu_lock);
	return slot && gfn_set_has(&slot->tables, gfn - slot->base_gfn);
}

struct shadow_page *guest_table_find(struct shadow *shadow, gfn_t gfn)
{
	struct shadow_page *sp;

	list_for_each_entry(sp, shadow_page_bucket(shadow, gfn), hash_link) {
		if (sp->gfn == gfn && !sp->role.direct)
			return sp;
	}
	return NULL;
}
