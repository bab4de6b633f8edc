/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prefetch: a fault that has mapped a page maps the neighbours that cost nothing.
 *
 * Neighbours are the entries of the same table in the same aligned group of a few; all they have to
 * be is empty, and within the machine's reach (seen from the fault's address: the table may be
 * linked at others). The way down to the table has just been compared with the guest's, and so is
 * good for them too. A leaf is made if
 *
 *  1. a walk to it would have nothing to mark: A is set in the guest's entry, and for a right to
 *     write D. So pages that the guest has never used stay out, and no D bit is missed.
 *  2. the page has no leaf yet: so no chunk for its rmap is needed, and none of it may be recycled.
 *  3. no window is open over it, and the host has it in memory. Under mmu_lock that is an exact
 *     answer, as for the audit: what takes a frame or a right from a primary entry does so in a
 *     window. Nothing is faulted in, and no sequence was there to be compared.
 *  4. for a right to write: the host's entry is writable, and dirty. A page that is writable to us
 *     is stored to without a word, so it has to be dirty to the host beforehand (mm_fault.c), or
 *     its contents are dropped as if they were those of the swap file:
 *
 *       prefetch                               host
 *       --------                               ----
 *       the host's entry is clean: makes
 *         a writable leaf
 *       (the guest stores)
 *                                              reclaim: zaps the leaf; the entry is clean still, so
 *                                                what is in the swap file will do
 *                                                ^ forbidden: the store is lost
 *
 *     Replayed by tests/unit/test_prefetch.c (clean_in_the_host). To make it dirty would have the
 *     host write pages that nobody wrote. The same for the host's other mark, by which it tells
 *     what was written since somebody asked: an entry may have its right back, and not that
 *     (not_written_since_the_host_asked).
 *  5. for a right to write: the slot is not logged, or the page would be dirty there (dirty_log.c).
 *  6. for a right to write: the page is no table of the guest's. A table comes out of step for a
 *     store, and not for none (write_protect.c).
 *
 * Nobody has used the page yet, and the leaf says so: its used bit is clear. Where that is
 * SPTE_PRESENT the leaf would be of no use, and none is made.
 *
 * Under mmu_lock, and bounded: PREFETCH_MAX entries.
 */
#include <errno.h>

#include "shadow/dirty.h"
#include "shadow/gpte.h"
#include "shadow/shadow_internal.h"

#define PREFETCH_MAX 64

int shadow_set_prefetch(struct shadow *shadow, unsigned int pages)
{
	if (pages > PREFETCH_MAX || (pages & (pages - 1)))
		return -EINVAL;
	WRITE_ONCE(shadow->prefetch, pages);
	return 0;
}

/* Of the entry @index: its page, and what the guest gives to it unmarked. *@gpte: for the audit. */
static unsigned int guest_gives(struct shadow *shadow, const struct shadow_page *sp,
				unsigned int index, gfn_t *gfn, uint64_t *gpte)
{
	unsigned int rights;

	if (sp->role.direct) {
		*gfn = sp->gfn + index;
		return leaf_rights(sp->role, sp->role.access, sp->role.pkey, sp->role.dirty);
	}
	rights = gpte_gives(shadow, sp, index, gpte);
	*gfn = gpte_gfn(*gpte, 1);
	return rights;
}

static bool in_window(const struct shadow *shadow, hva_t hva)
{
	return shadow->invalidate_in_progress && hva >= shadow->invalidate_start &&
	       hva < shadow->invalidate_end;
}

static bool write_is_free(struct shadow *shadow, const struct memslot *slot, gfn_t gfn,
			  const struct mm_page *page)
{
	if (!page->soft_dirty)
		return false;
	return (page->prot & MM_PROT_WRITE) && page->dirty && !(slot->flags & MEMSLOT_READONLY) &&
	       !slot_is_logged(slot) && !gfn_is_table(shadow, gfn);
}

static void prefetch_one(struct shadow *shadow, struct shadow_page *sp, unsigned int index)
{
	uint64_t gpte = 0, rel_gfn;
	struct rmap_desc *none = NULL;
	struct memslot *slot;
	unsigned int rights;
	struct mm_page page;
	gfn_t gfn;

	rights = guest_gives(shadow, sp, index, &gfn, &gpte);
	if (!(rights & ACC_READ))
		return;
	slot = gfn_to_memslot(shadow_memslots(shadow), gfn);
	if (!slot || (slot->flags & MEMSLOT_INVALID))
		return;
	rel_gfn = gfn - slot->base_gfn;
	if (rmap_count(&slot->rmap[rel_gfn]) || in_window(shadow, memslot_hva(slot, gfn)))
		return;
	mm_lookup_page(shadow->mm, memslot_hva(slot, gfn), &page);
	if (page.kind != MM_PAGE_PRESENT || !(page.prot & MM_PROT_READ))
		return;
	if (!write_is_free(shadow, slot, gfn, &page))
		rights &= ~ACC_WRITE;

	sp->gfns[index] = gfn;
	if (unlikely(sp->gptes) && !sp->role.direct)
		sp->gptes[index] = gpte;
	gfn_rmap_add(slot, rel_gfn, &sp->spt[index], &none);
	smp_store_release(&sp->spt[index], make_leaf_spte(page.number, rights) & ~shadow->used_bit);
	if (slot->zapped[rel_gfn]) {
		slot->zapped[rel_gfn] = 0;
		atomic64_inc(&shadow->stats.refaults);
	}
	atomic64_inc(&shadow->stats.prefetched);
}

void shadow_prefetch(struct shadow *shadow, struct shadow_page *sp, gva_t gva)
{
	unsigned int nr = READ_ONCE(shadow->prefetch);
	unsigned int first = table_index(gva, 1) & -nr;
	gva_t start = gva & -(TABLE_ENTRIES * PAGE_SIZE); /* of the table */

	lockdep_assert_held(&shadow->mmu_lock);
	if (shadow->used_bit == SPTE_PRESENT)
		return;
	for (unsigned int i = first; i < first + nr; i++) {
		if (!READ_ONCE(sp->spt[i]) &&
		    machine_reaches(shadow->machine, start + i * PAGE_SIZE))
			prefetch_one(shadow, sp, i);
	}
}
