// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Which mms of a machine have pages to merge, and what MADV_MERGEABLE and MADV_UNMERGEABLE do
 * (kernel: __ksm_enter, __ksm_exit, ksm_madvise in mm/ksm.c).
 *
 * An mm joins at its first advice, or at the fork of one that has, and leaves at exit:
 *
 *   scanner                                   exit
 *   -------                                   ----
 *   takes the mutex
 *   finds the mm on the list                  ->release; waits for the mutex
 *   takes mmap_lock, opens a window,
 *     merges a page, lets go of mmap_lock
 *   drops the mutex                           has it: the mm leaves the list, with its items
 *                                             clears the entries, frees tables and areas
 *   takes the mutex: the mm is not there
 *
 * So the scanner needs no reference, and never is the last to leave an mm. Pages that were merged
 * stay so until their entries go, and so do their sites: the families may have others who map them.
 */
#include <errno.h>

#include "notifier/ksm_internal.h"
#include "notifier/madvise.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "notifier/sync/alloc.h"

int ksm_enter(struct mm_struct *mm)
{
	struct ksm *ksm = mm->phys->ksm;
	struct ksm_mm *kmm;

	lockdep_assert_held_write(&mm->mmap_lock);
	if (!ksm)
		return -EINVAL;
	if (mm->ksm_mm)
		return 0;
	kmm = kzalloc(sizeof(*kmm), GFP_KERNEL);
	if (!kmm)
		return -ENOMEM;
	kmm->mm = mm;
	INIT_LIST_HEAD(&kmm->items);
	mm->ksm_mm = kmm;
	spin_lock(&ksm->mms_lock);
	list_add_tail(&kmm->node, &ksm->mms);
	spin_unlock(&ksm->mms_lock);
	return 0;
}

void ksm_exit(struct mm_struct *mm)
{
	struct ksm *ksm = mm->phys->ksm;
	struct ksm_mm *kmm = mm->ksm_mm;

	if (!kmm)
		return;
	mutex_lock(&ksm->mutex);
	ksm_forget(ksm, kmm);
	spin_lock(&ksm->mms_lock);
	list_del(&kmm->node);
	spin_unlock(&ksm->mms_lock);
	mutex_unlock(&ksm->mutex);
	mm->ksm_mm = NULL;
	kfree(kmm);
}

struct ksm_mm *ksm_next_mm(struct ksm *ksm, struct ksm_mm *at)
{
	struct list_head *next;

	lockdep_assert_held(&ksm->mutex);
	spin_lock(&ksm->mms_lock);
	next = at ? at->node.next : ksm->mms.next;
	spin_unlock(&ksm->mms_lock);
	return next == &ksm->mms ? NULL : list_entry(next, struct ksm_mm, node);
}

/* ---- advice ---- */

int madvise_mergeable(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	int ret;

	(void)start, (void)end;
	if (!vma->mm->phys->ksm)
		return -EINVAL;
	if (!vma_is_private(vma))
		return 0;
	ret = ksm_enter(vma->mm);
	if (!ret)
		vma->flags |= VMA_MERGEABLE;
	return ret;
}

/*
 * mmap_lock is held for writing: so no entry is made or merged, but one may be on its way to
 * another frame. With a reference, taken while the entry is what it was, the frame is the page.
 */
static int break_entry(pte_t *ptep, hva_t hva, void *arg)
{
	struct vm_area_struct *vma = arg;
	struct mm_struct *mm = vma->mm;
	bool merged = true;
	int ret = 0;

	while (merged && !ret) {
		pte_t pte = pte_load(ptep);

		if (pte_migration(pte)) {
			migration_entry_wait(mm, ptep, pte);
		} else if (!pte_present(pte)) {
			merged = false;
		} else if (get_entry_frame(mm, ptep, pte)) {
			merged = frame_is_ksm(pfn_to_frame(mm->phys, pte_pfn(pte)));
			phys_put(mm->phys, pte_pfn(pte));
			if (merged)
				ret = unshare_fault(vma, hva, ptep, pte);
		}
	}
	return ret;
}

int madvise_unmergeable(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	int ret;

	if (!(vma->flags & VMA_MERGEABLE))
		return 0;
	ret = pgtable_walk(vma->mm->pgtable, start, end, break_entry, vma);
	if (!ret)
		vma->flags &= ~VMA_MERGEABLE;
	return ret;
}
