// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Swap-in: a fault on a swap entry (kernel: do_swap_page in mm/memory.c).
 *
 * The page is found in the swap cache, or becomes the slot's cached copy and is read, its frame
 * locked either way. Then the entry is looked at again, under page_table_lock: if it still names
 * the slot, the page is what it stands for, and takes its place; the entry's use of the slot ends.
 *
 * It may be written at once only if nobody else has it, as in mm_cow.c: it was this mm's own when
 * it went out and was not shared since (PTE_OWN, which a fork takes from a swap entry, too); or
 * there is no other entry, present or swap, and no reference but the cache's and ours, since that
 * of an access that began before the page went out may be reading for another mm:
 *
 *   parent                                    child
 *   ------                                    -----
 *                                             mm_read: entry F. F.refcount++
 *   F is unmapped from both, but stays in the cache: referenced
 *                                             another thread unmaps the area
 *   fault: F. One entry, no other user of
 *     the slot, but three references:
 *     read-only. A write copies F to G
 *                                             mm_read goes on in F: what it was at the fork
 *
 * Replayed by tests/unit/test_swap_fork.c (a_reader_from_before).
 */
#include <errno.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "notifier/swap.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

static uint32_t pte_slot(pte_t pte)
{
	return (uint32_t)pte_pfn(pte);
}

static bool names_slot(pte_t *ptep, uint32_t slot)
{
	pte_t pte = pte_load(ptep);

	return pte_swap(pte) && pte_slot(pte) == slot;
}

/*
 * A new frame becomes the cached copy of @slot, and is filled. *@pfnp locked, with a reference; or
 * INVALID_PFN if somebody else was faster, or the slot is gone. 0, -ENOMEM, -EIO.
 */
static int read_page(struct phys *phys, uint32_t slot, pfn_t *pfnp)
{
	pfn_t pfn = alloc_swap_in_frame(phys);
	int ret = 0;

	*pfnp = INVALID_PFN;
	if (pfn == INVALID_PFN)
		return -ENOMEM;
	lock_frame(phys, pfn);
	if (!swap_cache_insert(phys, slot, pfn))
		goto out;
	ret = swap_read(phys, slot, pfn);
	if (ret) {
		delete_from_swap_cache(phys, pfn);
		phys_put(phys, pfn);
		goto out;
	}
	lru_add(phys, pfn, LRU_INACTIVE);
	*pfnp = pfn;
	return 0;

out:
	unlock_frame(phys, pfn);
	phys_put(phys, pfn);
	return ret;
}

/* With the frame locked, a reference of ours, no mapping, and our use of the slot over. */
static bool only_ours(struct phys *phys, pfn_t pfn, uint32_t slot)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	return !atomic_read(&frame->mapcount) && !swap_users(phys, slot) &&
	       atomic_read(&frame->refcount) == 1 + frame_base_refs(frame);
}

/* True if the entry is present now; the caller's reference is its own then. */
static bool install_swapped(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pfn_t pfn,
			    bool write)
{
	struct mm_struct *mm = vma->mm;
	struct phys *phys = mm->phys;
	struct frame *frame = pfn_to_frame(phys, pfn);
	uint32_t slot = frame->slot;
	pte_t pte, flags;
	bool found;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	found = pte_swap(pte) && pte_slot(pte) == slot;
	if (found) {
		swap_put(phys, slot); /* cached: not free, whoever uses it */
		flags = vma_pte_rights(vma) | (pte & PTE_SOFT_DIRTY);
		if (!(pte & PTE_OWN) && !only_ours(phys, pfn, slot))
			flags &= ~PTE_WRITE;
		else
			flags |= PTE_OWN | (write ? PTE_DIRTY | PTE_SOFT_DIRTY : 0);
		atomic_inc(&frame->mapcount);
		set_pte(mm, hva, ptep, pte_make(pfn, flags | PTE_PRESENT | PTE_ACCESSED));
	}
	spin_unlock(&mm->page_table_lock);
	if (found) {
		atomic64_inc(&mm->nr_faults);
		atomic64_inc(&mm->nr_swap_in);
	}
	return found;
}

/* The frame is locked and the cached copy of the slot that the entry named. */
static void map_page(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pfn_t pfn, bool write)
{
	struct phys *phys = vma->mm->phys;
	struct frame *frame = pfn_to_frame(phys, pfn);
	bool installed;

	/* All who have the slot are of one family, to which the page is the same. */
	if (names_slot(ptep, frame->slot)) {
		ASSERT(!frame->mapping || (frame_anon_vma(frame) == vma->anon_vma &&
					   frame->index == vma_page(vma, hva)),
		       "a page that was swapped comes back to where it was");
		if (!frame->mapping)
			set_anon_frame(vma, hva, pfn);
	}
	installed = install_swapped(vma, hva, ptep, pfn, write);
	if (!installed && !atomic_read(&frame->mapcount))
		private_page_unmapped(phys, pfn);
	else
		leave_swap_cache_if_unused(phys, pfn);
	unlock_frame(phys, pfn);
	if (!installed)
		phys_put(phys, pfn);
}

int swap_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte, bool write)
{
	struct phys *phys = vma->mm->phys;
	uint32_t slot = pte_slot(pte);
	pfn_t pfn = swap_cache_lock_page(phys, slot);
	int ret = 0;

	if (pfn == INVALID_PFN)
		ret = read_page(phys, slot, &pfn);
	if (pfn != INVALID_PFN)
		map_page(vma, hva, ptep, pfn, write);
	/* What failed may be another's page by now. */
	return names_slot(ptep, slot) ? ret : 0;
}
