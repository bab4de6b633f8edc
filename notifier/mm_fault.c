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

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

static void migration_entry_wait(struct mm_struct *mm, pte_t *ptep, pte_t pte)
{
	wait_event(*frame_waitqueue(mm->phys, pte_pfn(pte)), pte_load(ptep) != pte);
}

/*
 * The frame is locked, and the caller's reference becomes the entry's. False if another thread was
 * faster: every way to fill an empty entry goes through here.
 */
static bool install_entry(struct vm_area_struct *vma, pte_t *ptep, pfn_t pfn, bool write)
{
	struct mm_struct *mm = vma->mm;
	uint64_t flags = PTE_PRESENT | PTE_ACCESSED;
	bool installed;

	if (vma->prot & MM_PROT_WRITE)
		flags |= PTE_WRITE;
	if (write)
		flags |= PTE_DIRTY;

	spin_lock(&mm->page_table_lock);
	installed = pte_none(pte_load(ptep));
	if (installed) {
		atomic_inc(&pfn_to_frame(mm->phys, pfn)->mapcount);
		pte_store(ptep, pte_make(pfn, flags));
	}
	spin_unlock(&mm->page_table_lock);

	if (installed)
		atomic64_inc(&mm->nr_faults);
	return installed;
}

static int fault_shared(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, bool write)
{
	struct phys *phys = vma->mm->phys;
	uint64_t pgoff = vma->pgoff + ((hva - vma->start) >> PAGE_SHIFT);
	bool installed;
	pfn_t pfn;
	int ret = address_space_get_page(vma->mapping, pgoff, &pfn);

	if (ret)
		return ret;
	installed = install_entry(vma, ptep, pfn, write);
	unlock_frame(phys, pfn);
	if (!installed)
		phys_put(phys, pfn);
	return 0;
}

static int fault_private(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, bool write)
{
	struct phys *phys = vma->mm->phys;
	pfn_t pfn = phys_alloc_zeroed(phys);
	struct frame *frame;
	bool installed;

	if (pfn == INVALID_PFN)
		return -ENOMEM;
	frame = pfn_to_frame(phys, pfn);
	lock_frame(phys, pfn);
	frame->mapping = (uintptr_t)vma->anon_vma | FRAME_MAPPING_ANON;
	frame->index = hva >> PAGE_SHIFT;
	installed = install_entry(vma, ptep, pfn, write);
	if (!installed)
		frame->mapping = 0;
	unlock_frame(phys, pfn);
	if (!installed)
		phys_put(phys, pfn);
	return 0;
}

int handle_mm_fault(struct vm_area_struct *vma, hva_t hva, bool write)
{
	struct mm_struct *mm = vma->mm;
	pte_t *ptep;
	int ret;

	lockdep_assert_held(&mm->mmap_lock);
	ptep = pgtable_get(mm->pgtable, hva);
	if (!ptep)
		return -ENOMEM;

	for (;;) {
		pte_t pte = pte_load(ptep);

		if (pte_present(pte)) {
			/* There is no copy-on-write yet: entries have the rights of their VMA. */
			ASSERT(pte_allows(pte, write), "the VMA's rights are the entry's");
			return 0;
		}
		if (pte_migration(pte)) {
			migration_entry_wait(mm, ptep, pte);
			continue;
		}
		ret = vma->mapping ? fault_shared(vma, hva, ptep, write)
				   : fault_private(vma, hva, ptep, write);
		/* The last free frame may have gone to another fault on this very page. */
		if (ret && pte_none(pte_load(ptep)))
			return ret;
	}
}

int mm_fault(struct mm_struct *mm, hva_t hva, bool write)
{
	struct vm_area_struct *vma;
	int ret = -EFAULT;

	mmap_read_lock(mm);
	vma = find_vma(mm, hva);
	if (vma && (!write || (vma->prot & MM_PROT_WRITE)))
		ret = handle_mm_fault(vma, hva, write);
	mmap_read_unlock(mm);
	return ret;
}

/*
 * One load of one entry is the answer. It was true at an instant after the caller took its sequence
 * snapshot, and the caller's re-check finds out whether an invalidation came since. A secondary MMU
 * that may write will not tell each time: so a writable answer counts as a write (dirty).
 */
int hva_to_pfn(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn, bool *writable)
{
	for (;;) {
		pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
		pte_t pte = ptep ? pte_load(ptep) : 0;
		int ret;

		if (pte_allows(pte, write)) {
			if (!pte_touch(ptep, pte, pte & PTE_WRITE))
				continue;
			*pfn = pte_pfn(pte);
			*writable = pte & PTE_WRITE;
			return 0;
		}
		ret = mm_fault(mm, hva, write);
		if (ret)
			return ret;
	}
}

pfn_t mm_lookup_pfn(struct mm_struct *mm, hva_t hva)
{
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	pte_t pte = ptep ? pte_load(ptep) : 0;

	return pte_present(pte) ? pte_pfn(pte) : INVALID_PFN;
}
