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
 *  3. A root that some vCPU runs on is emptied and stays.
 *  4. Leaves of a zapped table wait in the page itself (gfns[]), so that no zap is ever too large
 * for a batch.
 *
 * Everything here runs under mmu_lock.
 */
#include "shadow/shadow_internal.h"

/* Clear a leaf and take it out of its rmap; returns the frame that must be shot down. */
static pfn_t clear_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index)
{
	spte_t *sptep = &sp->spt[index];
	gfn_t gfn = sp->gfns[index];
	struct memslot *slot = gfn_to_memslot(shadow->slots, gfn);
	spte_t old;

	ASSERT(slot, "a present leaf maps a page of a slot");
	gfn_rmap_remove(slot, gfn - slot->base_gfn, sptep);
	old = xchg(sptep, 0);
	atomic64_inc(&shadow->stats.sptes_zapped);
	return spte_pfn(old);
}

void drop_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index,
	       struct zap_batch *batch)
{
	pfn_t pfn;

	lockdep_assert_held(&shadow->mmu_lock);
	ASSERT(!zap_batch_full(batch), "the caller flushes a full batch first");
	pfn = clear_leaf(shadow, sp, index);
	batch->nr_entries++;
	/* Whoever clears all leaves of a page finds one frame in them. */
	if (!batch->nr_frames || batch->frames[batch->nr_frames - 1] != pfn)
		batch->frames[batch->nr_frames++] = pfn;
}

bool zap_rmap(struct shadow *shadow, struct rmap_head *head, struct zap_batch *batch)
{
	spte_t *sptep;

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

void zap_children(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);

		if (!spte_present(spte))
			continue;
		if (sp->role.level == 1)
			sp->gfns[sp->nr_unshot++] = clear_leaf(shadow, sp, i);
		else
			zap_page(shadow, spte_to_child(shadow, spte), batch);
	}
}

void zap_page(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	spte_t *parent;

	lockdep_assert_held(&shadow->mmu_lock);
	while ((parent = rmap_first(&sp->parents))) {
		rmap_remove(&sp->parents, parent);
		WRITE_ONCE(*parent, 0);
	}
	zap_children(shadow, sp, batch);
	if (sp->root_count)
		return;
	list_del(&sp->hash_link);
	list_del(&sp->spt_link);
	list_del(&sp->link);
	WRITE_ONCE(shadow->nr_pages, shadow->nr_pages - 1);
	list_add_tail(&sp->link, &batch->retired);
}
