/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults: how an entry becomes present. The only place where one does, but for migrations that put
 * back what they had taken away.
 *
 * Rule: an entry is installed with the frame locked, after a look that the frame still is the page
 * (the slot of a shared page still names it: address_space.c has that ladder; a private page is
 * new). A migration has the frame locked from before it walks the reverse map until the new frame
 * stands in the slot, so that one walk finds every mapping:
 *
 *   fault on page 7                           migration of page 7, frame A to frame B
 *   ---------------                           ------------------------------------
 *   lock A. Slot 7: A. A.refcount++           trylock A: busy, page 7 stays where it is
 *   entry := A
 *   unlock A
 *                                             lock A; walk: finds the entry, unmaps it
 *   next fault: waits for A ...               freeze A, copy, slot 7 := B, unlock A
 *   ... slot 7: B. Starts again, with B
 *
 * Were the entry installed with only the reference, behind the walk, nothing would be lost, but the
 * frozen count would be wrong and the move would fail; with neither, A would be copied and freed
 * while it is mapped.
 *
 * A migration entry means that the page is here but on its way. The fault waits without a
 * reference, which would make the freeze fail, on the queue of the frame: the migration unlocks the
 * frame after it has replaced the entry. Waiting for that with mmap_lock held for reading is fine:
 * a migration that holds frame locks never waits for mmap_lock.
 *
 * Nothing here holds a spinlock while it allocates or waits.
 */
#include <errno.h>

#include "notifier/file_pages.h"
#include "notifier/frame.h"
#include "notifier/lru.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

void migration_entry_wait(struct mm_struct *mm, pte_t *ptep, pte_t pte)
{
	wait_event(*frame_waitqueue(mm->phys, pte_pfn(pte)), pte_load(ptep) != pte);
}

void set_anon_frame(struct vm_area_struct *vma, hva_t hva, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(vma->mm->phys, pfn);

	ASSERT(frame_locked(frame), "the caller locked the frame");
	set_frame_mapping(frame, (uintptr_t)vma->anon_vma | FRAME_MAPPING_ANON);
	frame->index = vma_page(vma, hva);
	if (!frame_test(frame, FRAME_LRU))
		lru_add(vma->mm->phys, pfn, LRU_INACTIVE);
}

bool install_entry(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pfn_t pfn, pte_t flags)
{
	struct mm_struct *mm = vma->mm;
	bool installed;

	ASSERT(frame_locked(pfn_to_frame(mm->phys, pfn)), "the caller locked the frame");
	spin_lock(&mm->page_table_lock);
	installed = pte_none(pte_load(ptep));
	if (installed) {
		atomic_inc(&pfn_to_frame(mm->phys, pfn)->mapcount);
		set_pte(mm, hva, ptep, pte_make(pfn, flags | PTE_PRESENT | PTE_ACCESSED));
	}
	spin_unlock(&mm->page_table_lock);

	if (installed)
		atomic64_inc(&mm->nr_faults);
	return installed;
}

static pte_t written(bool write)
{
	return write ? PTE_DIRTY | PTE_SOFT_DIRTY : 0;
}

/* Of a new entry. Nobody knows what was here before: so it counts as written (soft_dirty.c). */
static pte_t new_entry(bool write)
{
	return PTE_SOFT_DIRTY | (write ? PTE_DIRTY : 0);
}

/* A page of the object itself: shared, or shown by a private area until somebody writes. */
static int fault_object(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, bool write)
{
	struct phys *phys = vma->mm->phys;
	pte_t flags = vma_pte_rights(vma) | new_entry(write);
	bool installed;
	pfn_t pfn;
	int ret = address_space_get_page(vma->mapping, vma_page(vma, hva), &pfn);

	if (ret)
		return ret;
	if (vma_is_private(vma) || (vma_notifies_writes(vma) && !write))
		flags &= ~(PTE_WRITE | PTE_DIRTY);
	else if (vma_notifies_writes(vma))
		address_space_set_dirty(vma->mapping, vma_page(vma, hva), true);
	installed = install_entry(vma, hva, ptep, pfn, flags);
	unlock_frame(phys, pfn);
	if (!installed)
		phys_put(phys, pfn);
	return 0;
}

static int fault_zeroes(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, bool write)
{
	struct phys *phys = vma->mm->phys;
	pfn_t pfn = alloc_zeroed_user_frame(phys);
	bool installed;

	if (pfn == INVALID_PFN)
		return -ENOMEM;
	lock_frame(phys, pfn);
	set_anon_frame(vma, hva, pfn);
	installed = install_entry(vma, hva, ptep, pfn,
				  vma_pte_rights(vma) | new_entry(write) | PTE_OWN);
	if (!installed)
		set_frame_mapping(pfn_to_frame(phys, pfn), 0);
	unlock_frame(phys, pfn);
	if (!installed)
		phys_put(phys, pfn);
	return 0;
}

static int fault_none(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, bool write)
{
	int ret = vma->mapping ? fault_object(vma, hva, ptep, write)
			       : fault_zeroes(vma, hva, ptep, write);

	/* The last free frame may have gone to another fault on this very page. */
	return pte_none(pte_load(ptep)) ? ret : 0;
}

/* The entry is present, without a right that the area has. */
static int fault_rights(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte, bool write)
{
	struct mm_struct *mm = vma->mm;

	if (write && vma_is_private(vma))
		return cow_fault(vma, hva, ptep, pte);
	if (write && vma_notifies_writes(vma)) {
		mkwrite_fault(vma, hva, ptep, pte);
		return 0;
	}
	/* mm_mprotect() gave the area more than it had, and the entry nothing. */
	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	if (pte_present(pte)) {
		pte_t more = vma_pte_rights(vma);

		if (vma_is_private(vma) || vma_notifies_writes(vma))
			more &= ~PTE_WRITE;
		change_pte(mm, hva, ptep, &pte, pte | more | PTE_ACCESSED | written(write));
	}
	spin_unlock(&mm->page_table_lock);
	return 0;
}

int handle_mm_fault(struct vm_area_struct *vma, hva_t hva, bool write)
{
	struct mm_struct *mm = vma->mm;
	int ret = 0;
	pte_t *ptep;

	lockdep_assert_held(&mm->mmap_lock);
	ASSERT(vma_allows(vma, write), "the caller looked whether the area allows it");
	hva &= PAGE_MASK;
	ptep = pgtable_get(mm->pgtable, hva);
	if (!ptep)
		return -ENOMEM;

	while (!ret) {
		pte_t pte = pte_load(ptep);

		if (pte_allows(pte, write))
			return 0;
		if (pte_present(pte))
			ret = fault_rights(vma, hva, ptep, pte, write);
		else if (pte_migration(pte))
			migration_entry_wait(mm, ptep, pte);
		else if (pte_exclusive(pte))
			end_device_exclusive(vma, hva, ptep, pte);
		else if (pte_swap(pte))
			ret = swap_fault(vma, hva, ptep, pte, write);
		else if (pte_device(pte))
			ret = device_page_to_ram(vma, hva, ptep);
		else
			ret = fault_none(vma, hva, ptep, write);
	}
	return ret;
}

int mm_fault(struct mm_struct *mm, hva_t hva, bool write)
{
	struct vm_area_struct *vma;
	int ret = -EFAULT;

	mmap_read_lock(mm);
	vma = find_vma(mm, hva);
	if (vma && vma_allows(vma, write))
		ret = handle_mm_fault(vma, hva, write);
	mmap_read_unlock(mm);
	return ret;
}

/*
 * One load of one entry is the answer. It was true at an instant after the caller took its sequence
 * snapshot, and the caller's re-check finds out whether an invalidation came since. A secondary MMU
 * that may write will not tell each time: so a writable answer counts as a write (dirty).
 *
 * True if the entry has the answer. No lock: the section keeps the table.
 */
static bool lookup_fast(struct mm_struct *mm, hva_t hva, bool write, pte_t *result)
{
	int idx = pgtable_read_lock();
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	bool found = false;

	while (ptep && !found) {
		*result = pte_load(ptep);
		if (!pte_allows(*result, write))
			break;
		found = pte_touch(ptep, *result, *result & PTE_WRITE);
	}
	pgtable_read_unlock(idx);
	return found;
}

int hva_to_pfn(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn, bool *writable)
{
	pte_t pte;

	while (!lookup_fast(mm, hva, write, &pte)) {
		int ret = mm_fault(mm, hva, write);

		if (ret)
			return ret;
	}
	*pfn = pte_pfn(pte);
	*writable = pte & PTE_WRITE;
	return 0;
}
