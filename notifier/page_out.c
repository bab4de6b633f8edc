// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * How one page leaves memory (kernel: shrink_folio_list in mm/vmscan.c, try_to_unmap in
 * mm/rmap.c).
 *
 * A private page, its frame locked all the way:
 *
 *   1. It gets a slot, and is the slot's cached copy from now on (swap_cache.c), unless it still is
 *      that of an earlier time.
 *   2. Each entry that maps it becomes a swap entry: a window of its own mm over that page,
 *      MMU_NOTIFY_CLEAR, held open under the reverse-map lock. If the page is pinned the entry is
 *      put back, and the page stays.
 *   3. The references must be what is left to expect, ours and the cache's; they are frozen. If
 *      somebody reads the page it stays where it is, in the cache: a fault finds it there, and the
 *      next attempt goes on from here.
 *   4. It is written, unless the slot has it from before. (Nobody may write to a page that is in
 *      the cache, so no dirty bit needs to be looked at.) Failed: as in step 3.
 *   5. It leaves the cache. Our reference is the last.
 *
 * The pin in step 2:
 *
 *   mm_write                                  swap-out of frame F
 *   --------                                  -------------------
 *   entry: F, writable. Pins F
 *   entry still F: dirty
 *                                             entry F -> slot 5: dirty
 *                                             F is pinned: entry := F
 *   stores to F; unpins it
 *
 * Each stores before it looks, with full barriers: the access finds the entry changed, or we find
 * its pin. Step 3 alone would keep the store, since F cannot be frozen; but meanwhile a fork could
 * copy the swap entry, and the child would see in F, found by way of the cache, what was stored
 * after the fork. Replayed by tests/unit/test_swap_races.c (a_write_that_is_under_way).
 *
 * A page of an object has one place besides its mappings, the object's slot, and so needs no cache:
 * its entries become none, it is frozen and written, and then the slot names the swap slot in place
 * of the frame. Who looks for the page meanwhile finds the frame, locked. If the object has a file
 * the page is written there, if it is dirty, and the slot becomes empty.
 *
 * A page that was given up (MM_MADV_FREE), and not written since, just goes: its entries become
 * none.
 */
#include <gnomon/mmu_notifier.h>

#include "notifier/file_pages.h"
#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/phys_internal.h"
#include "notifier/reclaim.h"
#include "notifier/swap.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

/* ---- who uses it ---- */

struct look {
	struct phys *phys;
	pfn_t pfn;
	bool flush;
	unsigned int nr_young;
};

static bool maps(pte_t *ptep, pfn_t pfn)
{
	pte_t pte = ptep ? pte_load(ptep) : 0;

	return pte_maps_frame(pte) && pte_pfn(pte) == pfn;
}

/* An accessed bit is a hint, and clearing one needs no window; the secondaries are asked instead.
 */
static bool clear_young(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn)
{
	bool young = false;

	spin_lock(&mm->page_table_lock);
	for (pte_t pte = pte_load(ptep);
	     !young && pte_maps_frame(pte) && pte_pfn(pte) == pfn && (pte & PTE_ACCESSED);)
		young = change_pte(mm, hva, ptep, &pte, pte & ~PTE_ACCESSED);
	spin_unlock(&mm->page_table_lock);
	return young;
}

static void look_one(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	struct look *look = arg;
	struct mm_struct *mm = vma->mm;
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	bool young;

	if (!maps(ptep, look->pfn))
		return;
	young = look->flush ? mmu_notifier_clear_flush_young(mm, hva, hva + PAGE_SIZE)
			    : mmu_notifier_clear_young(mm, hva, hva + PAGE_SIZE);
	young |= clear_young(mm, hva, ptep, look->pfn);
	look->nr_young += young;
}

unsigned int page_referenced(struct phys *phys, pfn_t pfn, bool flush)
{
	struct look look = {.phys = phys, .pfn = pfn, .flush = flush};
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (atomic_read(&frame->mapcount))
		rmap_walk(frame, look_one, &look);
	return look.nr_young;
}

/* ---- taking its mappings away ---- */

/* What comes back as it was; rights are those of the area by then. */
#define SWAP_KEEPS (PTE_SOFT_DIRTY | PTE_OWN)

struct unmap {
	struct phys *phys;
	pfn_t pfn;
	uint32_t slot;	 /* what swap entries name; NO_SLOT: entries become none */
	bool clean_only; /* an entry that was written through stays */
};

static void unmap_entry(struct unmap *u, struct mm_struct *mm, hva_t hva, pte_t *ptep)
{
	bool unmapped = false;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	/* Exchange until it sticks: accessed and dirty bits may be set meanwhile, nothing else. */
	while (!unmapped && pte_maps_frame(pte) && pte_pfn(pte) == u->pfn) {
		pte_t out =
			u->slot == NO_SLOT ? 0 : pte_make(u->slot, PTE_SWAP | (pte & SWAP_KEEPS));

		if (u->clean_only && (pte & PTE_DIRTY))
			break;
		unmapped = change_pte(mm, hva, ptep, &pte, out);
	}
	if (unmapped && frame_is_pinned(pfn_to_frame(u->phys, u->pfn))) {
		set_pte(mm, hva, ptep, pte);
		unmapped = false;
	}
	if (unmapped) {
		if (u->slot != NO_SLOT)
			swap_dup(u->phys, u->slot);
		atomic_dec(&pfn_to_frame(u->phys, u->pfn)->mapcount);
		phys_put(u->phys, u->pfn); /* the entry's; the caller has its own */
	}
	spin_unlock(&mm->page_table_lock);
	if (unmapped && u->slot != NO_SLOT)
		atomic64_inc(&mm->nr_swap_out);
}

static void unmap_one(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	struct unmap *u = arg;
	struct mm_struct *mm = vma->mm;
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	struct mmu_notifier_range range;

	if (!maps(ptep, u->pfn))
		return;
	mutation_range_init(&range, MUTATION_PAGE_OUT, mm, hva, hva + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	unmap_entry(u, mm, hva, ptep);
	mmu_notifier_invalidate_range_end(&range);
}

/* True if no mapping is left, which is so unless the page is pinned. The locked frame gains none.
 */
static bool unmap(struct unmap *u)
{
	struct frame *frame = pfn_to_frame(u->phys, u->pfn);

	if (atomic_read(&frame->mapcount))
		rmap_walk(frame, unmap_one, u);
	return !atomic_read(&frame->mapcount);
}

/* ---- private pages ---- */

static bool drop_lazyfree(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct unmap u = {.phys = phys, .pfn = pfn, .slot = NO_SLOT, .clean_only = true};
	struct anon_vma *anon_vma = frame_anon_vma(frame);
	bool gone;

	/* The reverse-map lock lives in it, and the last of its areas may go when its page has. */
	anon_vma_get(anon_vma);
	gone = unmap(&u);
	if (gone)
		private_page_unmapped(phys, pfn);
	else
		frame_clear(frame, FRAME_LAZYFREE);
	anon_vma_put(anon_vma);
	if (gone)
		atomic64_inc(&phys->reclaim.nr_lazyfreed);
	return gone;
}

/* Steps 3 to 5. */
static bool write_and_free(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (!frame_ref_freeze_wait(frame, 1 + frame_base_refs(frame)))
		return false;
	if (frame_test(frame, FRAME_DIRTY) && swap_users(phys, frame->slot) &&
	    swap_write(phys, frame->slot, pfn)) {
		frame_ref_unfreeze(frame, 2);
		return false;
	}
	delete_from_swap_cache(phys, pfn);
	frame_ref_unfreeze(frame, 1);
	return true;
}

static bool unmap_to_swap(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct unmap u = {.phys = phys, .pfn = pfn, .slot = frame->slot};
	struct anon_vma *anon_vma = frame_anon_vma(frame);
	bool unmapped;

	anon_vma_get(anon_vma);
	unmapped = unmap(&u);
	if (unmapped)
		private_page_unmapped(phys, pfn);
	anon_vma_put(anon_vma);
	return unmapped;
}

static bool private_page_out(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	bool out = false;

	if (frame_test(frame, FRAME_LAZYFREE) && drop_lazyfree(phys, pfn))
		return true;
	if (!frame_test(frame, FRAME_SWAPCACHE) && !add_to_swap(phys, pfn))
		return false;
	if (!frame->mapping || unmap_to_swap(phys, pfn))
		out = !frame_test(frame, FRAME_SWAPCACHE) || write_and_free(phys, pfn);
	if (!out)
		leave_swap_cache_if_unused(phys, pfn);
	return out;
}

/* ---- pages of objects ---- */

/* The file has the page, or gets it now. Readers that came before keep it where it is. */
static bool file_page_out(struct address_space *mapping, struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct unmap u = {.phys = phys, .pfn = pfn, .slot = NO_SLOT};
	const int refs = 1 + frame_base_refs(frame);

	if (!unmap(&u))
		return false;
	if (address_space_page_dirty(mapping, frame->index) &&
	    address_space_writeback_page(mapping, frame, pfn))
		return false;
	/* Nobody gains a reference by an entry any more: so one look is enough. */
	if (!frame_ref_freeze_wait(frame, refs))
		return false;
	frame_ref_unfreeze(frame, refs);
	address_space_delete_page(mapping, frame->index, pfn);
	return true;
}

static bool memory_page_out(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct unmap u = {.phys = phys, .pfn = pfn, .slot = NO_SLOT};
	uint32_t slot = swap_alloc(phys);

	if (slot == NO_SLOT)
		return false;
	if (!unmap(&u) || !frame_ref_freeze_wait(frame, 1 + frame_base_refs(frame)))
		goto stays;
	if (swap_write(phys, slot, pfn)) {
		frame_ref_unfreeze(frame, 1 + frame_base_refs(frame));
		goto stays;
	}
	address_space_swap_out(frame_address_space(frame), frame->index, pfn, slot);
	set_frame_mapping(frame, 0);
	frame_ref_unfreeze(frame, 1);
	return true;

stays:
	swap_put(phys, slot);
	return false;
}

/* ---- either ---- */

bool page_has_way_out(struct phys *phys, pfn_t pfn)
{
	const struct frame *frame = pfn_to_frame(phys, pfn);
	const struct address_space *mapping = frame_address_space(frame);

	if (frame_is_pinned(frame))
		return false;
	if (mapping)
		return has_file(mapping) || swap_has_room(phys);
	if (frame_anon_vma(frame))
		return frame_test(frame, FRAME_SWAPCACHE | FRAME_LAZYFREE) || swap_has_room(phys);
	/* Not a page yet, or not any more, or of a kind that stays; or cached and mapped nowhere.
	 */
	return !frame->mapping && frame_test(frame, FRAME_SWAPCACHE);
}

bool page_out(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct address_space *mapping = frame_address_space(frame);

	ASSERT(frame_locked(frame), "the caller locked the frame");
	if (!mapping)
		return private_page_out(phys, pfn);
	return has_file(mapping) ? file_page_out(mapping, phys, pfn) : memory_page_out(phys, pfn);
}
