// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Advice about how soon pages will be needed: MM_MADV_COLD, PAGEOUT and FREE (kernel:
 * mm/madvise.c).
 *
 * Only pages that nobody else maps, as in Linux: others did not say that they need them no more.
 * A page that is busy is left as it is; it is advice.
 *
 * FREE takes the dirty bit, in a window, and leaves the page: whoever writes sets it again, and so
 * takes the page back; one that is clean when reclaim comes is dropped (page_out.c). A write that
 * is under way had the bit set before it stores, so if its pin is seen, the page counts as written:
 *
 *   mm_write                                  madvise(FREE)
 *   --------                                  -------------
 *   entry: F, writable. Pins F
 *   entry still F: dirty
 *                                             entry := F, clean
 *                                             F is pinned: stays as written
 *   stores to F; unpins it
 *
 * Had it been given up, the store would be there at first and gone later.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/lru.h"
#include "notifier/madvise.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/reclaim.h"
#include "notifier/swap.h"
#include "notifier/sync/lock.h"

/* What the entry maps, if it is its only mapping, with a reference; or INVALID_PFN. */
static pfn_t get_only_mapping(struct phys *phys, pte_t *ptep)
{
	pte_t pte = pte_load(ptep);
	pfn_t pfn = pte_pfn(pte);

	if (!pte_present(pte) || !phys_get_unless_zero(phys, pfn))
		return INVALID_PFN;
	pte = pte_load(ptep);
	if (pte_present(pte) && pte_pfn(pte) == pfn &&
	    atomic_read(&pfn_to_frame(phys, pfn)->mapcount) == 1)
		return pfn;
	phys_put(phys, pfn);
	return INVALID_PFN;
}

static int cool_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct phys *phys = arg;
	pfn_t pfn = get_only_mapping(phys, ptep);

	(void)hva;
	if (pfn != INVALID_PFN) {
		deactivate_page(phys, pfn, true);
		phys_put(phys, pfn);
	}
	return 0;
}

int madvise_cold(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	return pgtable_walk(vma->mm->pgtable, start, end, cool_one, vma->mm->phys);
}

static int put_out_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct phys *phys = arg;
	pfn_t pfn = get_only_mapping(phys, ptep);

	(void)hva;
	if (pfn != INVALID_PFN) {
		reclaim_page(phys, pfn);
		phys_put(phys, pfn);
	}
	return 0;
}

int madvise_pageout(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	return pgtable_walk(vma->mm->pgtable, start, end, put_out_one, vma->mm->phys);
}

/* ---- MM_MADV_FREE ---- */

static bool clean_entry(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn)
{
	bool cleaned = false;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	while (!cleaned && pte_present(pte) && pte_pfn(pte) == pfn)
		cleaned = change_pte(mm, hva, ptep, &pte, pte & ~(PTE_DIRTY | PTE_ACCESSED));
	spin_unlock(&mm->page_table_lock);
	return cleaned;
}

/* The frame is locked. */
static void give_up_page(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(mm->phys, pfn);

	leave_swap_cache_if_unused(mm->phys, pfn);
	/* In the cache it is others', too, who have it out. */
	if (!frame_anon_vma(frame) || frame_test(frame, FRAME_SWAPCACHE) ||
	    atomic_read(&frame->mapcount) != 1 || !clean_entry(mm, hva, ptep, pfn))
		return;
	if (frame_is_pinned(frame)) {
		frame_clear(frame, FRAME_LAZYFREE); /* of an earlier time */
		return;
	}
	frame_clear(frame, FRAME_REFERENCED);
	frame_set(frame, FRAME_LAZYFREE);
	lru_expose(mm->phys, pfn);
}

static int give_up_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct vm_area_struct *vma = arg;
	struct mm_struct *mm = vma->mm;
	pfn_t pfn;

	if (pte_swap(pte_load(ptep))) {
		zap_entry(vma, hva, ptep);
		return 0;
	}
	pfn = get_only_mapping(mm->phys, ptep);
	if (pfn == INVALID_PFN)
		return 0;
	if (trylock_frame(mm->phys, pfn)) {
		give_up_page(mm, hva, ptep, pfn);
		unlock_frame(mm->phys, pfn);
	}
	phys_put(mm->phys, pfn);
	return 0;
}

int madvise_free(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	struct mmu_notifier_range range;

	if (!vma_is_private(vma) || vma->mapping)
		return -EINVAL;
	mutation_range_init(&range, MUTATION_FREE, vma->mm, start, end);
	mmu_notifier_invalidate_range_start(&range);
	pgtable_walk(vma->mm->pgtable, start, end, give_up_one, vma);
	mmu_notifier_invalidate_range_end(&range);
	return 0;
}
