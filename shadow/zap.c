/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How entries and tables go: cleared here under mmu_lock into a batch, shot down by tlb.c once the
 * lock is dropped.
 *
 * Rules:
 *  1. A table that is unlinked anywhere is zapped whole: unlinked everywhere, its entries dropped,
 * its frame retired. A machine that keeps directory entries (or a KVM that shadows our tables,
 * docs/engines.md) may walk to it from its old place until it is retired; were it still in use
 * elsewhere, what is entered there would show at the old address.
 *  2. Zapping a table zaps its children, by rule 1.
 *  3. A root that some vCPU keeps is emptied, leaves all lists and stays until the last of them
 * lets go of it. It is not used again: its vCPUs find it obsolete.
 *  4. Leaves of a zapped table wait in the page itself (gfns[]), so that no zap is ever too large
 * for a batch.
 *
 * Everything here runs under mmu_lock.
 */
#include "shadow/huge.h"

/* Clear a leaf and take it out of its rmap; returns what must be shot down (spte_frames). */
static pfn_t clear_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index)
{
	spte_t *sptep = &sp->spt[index];
	gfn_t gfn = sp->gfns[index];
	struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), gfn);
	spte_t old;

	ASSERT(slot, "a present leaf maps a page of a slot");
	if (sp->role.level == 1)
		gfn_rmap_remove(slot, gfn - slot->base_gfn, sptep);
	else
		huge_rmap_remove(slot, gfn - slot->base_gfn, sptep);
	old = xchg(sptep, 0);
	atomic64_inc(&shadow->stats.sptes_zapped);
	return spte_frames(old);
}

void drop_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index,
	       struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	zap_batch_add(batch, clear_leaf(shadow, sp, index));
}

bool zap_rmap(struct shadow *shadow, struct rmap_head *head, struct zap_batch *batch)
{
	spte_t *sptep;

	lockdep_assert_held(&shadow->mmu_lock);
	/* The first again and again: it is found, and removed, without a search. */
	while ((sptep = rmap_first(head))) {
		struct shadow_page *sp = sptep_to_sp(shadow, sptep);

		if (zap_batch_full(batch) ||
		    (shadow->yield_after && batch->nr_entries >= shadow->yield_after))
			return false;
		ASSERT(sp, "an rmap names entries of live shadow pages");
		drop_leaf(shadow, sp, sptep - sp->spt, batch);
	}
	return true;
}

static void zap_children(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);

		if (!spte_present(spte))
			continue;
		if (spte_is_leaf(spte, sp->role.level))
			sp->gfns[sp->nr_unshot++] = clear_leaf(shadow, sp, i);
		else
			zap_page(shadow, spte_to_child(shadow, spte), batch);
	}
}

static void unlink_from_parents(struct shadow_page *sp)
{
	spte_t *parent;

	while ((parent = rmap_first(&sp->parents))) {
		rmap_remove(&sp->parents, parent);
		WRITE_ONCE(*parent, 0);
	}
}

/* Rule 3. It may be done a second time, to a root that is let go of. */
static void zapped(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	list_del_init(&sp->hash_link);
	if (!sp->zapped) {
		WRITE_ONCE(shadow->nr_pages, shadow->nr_pages - 1);
		guest_table_remove(shadow, sp);
	}
	WRITE_ONCE(sp->zapped, true);
	list_del_init(&sp->spt_link);
	list_del_init(&sp->link);
	if (!sp->root_count)
		list_add_tail(&sp->link, &batch->retired);
}

void zap_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	unlink_from_parents(sp);
	zap_children(shadow, sp, batch);
	zapped(shadow, sp, batch);
}

/* Rule 2 is kept by whoever made them all obsolete: he zaps the children too, in their turn. */
void zap_obsolete_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	ASSERT(shadow_page_obsolete(shadow, sp), "what is in use is zapped whole");
	unlink_from_parents(sp);
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);

		if (!spte_present(spte))
			continue;
		if (spte_is_leaf(spte, sp->role.level)) {
			sp->gfns[sp->nr_unshot++] = clear_leaf(shadow, sp, i);
			continue;
		}
		rmap_remove(&spte_to_child(shadow, spte)->parents, &sp->spt[i]);
		WRITE_ONCE(sp->spt[i], 0);
	}
	zapped(shadow, sp, batch);
}

void zap_any_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	if (shadow_page_obsolete(shadow, sp))
		zap_obsolete_page(shadow, sp, batch);
	else
		zap_page(shadow, sp, batch);
}
