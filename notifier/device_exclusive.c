// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Device-exclusive access: a page that a device has for itself, in the frame that it is in, so that
 * what the device does to it in several steps is atomic for everyone else (kernel:
 * make_device_exclusive in mm/rmap.c, remove_device_exclusive_entry in mm/memory.c).
 *
 * The page's entry becomes an exclusive one: not present, so whoever wants the page faults; but it
 * keeps the entry's reference and its place in mapcount, so the page is where it was to all who
 * count. The fault makes it present again, in a window that tells the device to stop.
 *
 * Only for writable private pages: these have one entry, ours. So one entry is all there is to
 * change. With the frame locked, which keeps the two ends apart:
 *
 *   device: make_device_exclusive             fault
 *   -----------------------------             -----
 *   locks F
 *   window: EXCLUSIVE, with the owner
 *   entry: F -> exclusive F
 *   (puts F into its table)                   entry: exclusive. Waits for F's lock
 *   unlocks F (put_device_exclusive)
 *   uses F                                    locks F
 *                                             window: CLEAR
 *     its invalidate takes F out of the table
 *                                             entry: F
 *                                             unlocks F
 *
 * The owner is not told of its own window as others are, or it would throw out what it is about to
 * have. A page that is exclusive already goes from one device to the next in that one window. Were
 * it faulted back first, in a window of nobody's, a device that tries again, as its sequence check
 * tells it to, would find the sequence changed by its own trying, for ever.
 *
 * An access by host code may have found the entry before: if it may write, it has a pin, and
 * is waited for, as its store would come in between two steps of the device's. One that reads has a
 * reference only, and sees what it sees.
 *
 *   mm_write                                  make_device_exclusive
 *   --------                                  ---------------------
 *   entry: F, writable. Pins F
 *   entry still F, writable, dirty
 *                                             entry: F -> exclusive F
 *                                             F is pinned: waits
 *   stores to F; unpins it
 *                                             F is not pinned: done
 *
 * Replayed by tests/unit/test_device_exclusive.c (increments_of_both), which loses increments
 * without that wait.
 *
 * What else may happen to an exclusive entry: a migration or a fork makes it an ordinary one, a
 * move takes it along, a change of rights narrows it, unmapping clears it. All in their windows,
 * so that the device has let go before, and asks again.
 */
#include <errno.h>

#include <gnomon/device.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

/* As for a migration's freeze: accesses are short, and what is held longer is held for a reason. */
#define PIN_TRIES 128

static bool may_be_taken(pte_t pte)
{
	return pte_allows(pte, true) || pte_exclusive(pte);
}

/* The only entry of @pfn, if it still is that. What the device writes is not seen. */
static bool make_exclusive(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn)
{
	bool made = false;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	while (!made && may_be_taken(pte) && pte_pfn(pte) == pfn)
		made = change_pte(mm, hva, ptep, &pte, pte_make(pfn, PTE_KEEP | PTE_EXCLUSIVE));
	if (made) {
		struct frame *frame = pfn_to_frame(mm->phys, pfn);

		ASSERT(frame_anon_vma(frame) && atomic_read(&frame->mapcount) == 1,
		       "a private page is writable for one entry only: frame %#llx",
		       (unsigned long long)pfn);
	}
	spin_unlock(&mm->page_table_lock);
	return made;
}

/* Present again, if it still is exclusive. */
static bool make_present(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn)
{
	bool made = false;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	while (!made && pte_exclusive(pte) && pte_pfn(pte) == pfn)
		made = change_pte(mm, hva, ptep, &pte,
				  pte_make(pfn, (pte & PTE_KEEP) | PTE_ACCESSED | PTE_PRESENT));
	spin_unlock(&mm->page_table_lock);
	return made;
}

static bool writers_are_gone(const struct frame *frame)
{
	for (int i = 0; i < PIN_TRIES; i++) {
		if (!frame_is_pinned(frame))
			return true;
		cpu_relax();
	}
	return false;
}

/* @pfn is locked. 0; -EAGAIN: it is not what the entry maps any more; -EBUSY. */
static int take_page(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn, void *owner)
{
	struct mmu_notifier_range range;
	int ret = 0;

	mutation_range_init_owner(&range, MUTATION_EXCLUSIVE, mm, hva, hva + PAGE_SIZE, owner);
	mmu_notifier_invalidate_range_start(&range);
	if (!make_exclusive(mm, hva, ptep, pfn)) {
		ret = -EAGAIN;
	} else if (!writers_are_gone(pfn_to_frame(mm->phys, pfn))) {
		make_present(mm, hva, ptep, pfn);
		ret = -EBUSY;
	}
	mmu_notifier_invalidate_range_end(&range);
	return ret;
}

static int fault_and_take(struct vm_area_struct *vma, hva_t hva, void *owner, pfn_t *pfnp)
{
	struct mm_struct *mm = vma->mm;
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva), pte;
	int ret;

	if (!ptep || !may_be_taken(pte_load(ptep))) {
		ret = handle_mm_fault(vma, hva, true);
		if (ret)
			return ret;
		ptep = pgtable_lookup(mm->pgtable, hva);
	}
	pte = pte_load(ptep);
	if (!may_be_taken(pte) || !get_entry_frame(mm, ptep, pte))
		return -EAGAIN;
	*pfnp = pte_pfn(pte);
	lock_frame(mm->phys, *pfnp);
	ret = take_page(mm, hva, ptep, *pfnp, owner);
	if (ret)
		put_device_exclusive(mm, *pfnp);
	return ret;
}

int make_device_exclusive(struct mm_struct *mm, hva_t addr, void *owner, pfn_t *pfn)
{
	struct vm_area_struct *vma;
	int ret;

	might_sleep();
	lockdep_assert_held(&mm->mmap_lock);
	vma = find_vma(mm, addr);
	if (!vma || !vma_allows(vma, true))
		return -EFAULT;
	if (!vma_is_private(vma))
		return -EOPNOTSUPP;
	do
		ret = fault_and_take(vma, addr & PAGE_MASK, owner, pfn);
	while (ret == -EAGAIN);
	return ret;
}

void put_device_exclusive(struct mm_struct *mm, pfn_t pfn)
{
	unlock_frame(mm->phys, pfn);
	phys_put(mm->phys, pfn);
}

void end_device_exclusive(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte)
{
	struct mm_struct *mm = vma->mm;
	struct mmu_notifier_range range;
	pfn_t pfn = pte_pfn(pte);

	if (!get_entry_frame(mm, ptep, pte))
		return;
	lock_frame(mm->phys, pfn);
	mutation_range_init(&range, MUTATION_TAKE_BACK, mm, hva, hva + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	if (make_present(mm, hva, ptep, pfn))
		atomic64_inc(&mm->nr_faults);
	mmu_notifier_invalidate_range_end(&range);
	put_device_exclusive(mm, pfn);
}

static int take_back_one(pte_t *ptep, hva_t hva, void *arg)
{
	for (;;) {
		pte_t pte = pte_load(ptep);
		int ret = 0;

		if (pte_exclusive(pte))
			end_device_exclusive(arg, hva, ptep, pte);
		else if (pte_device(pte))
			ret = device_page_to_ram(arg, hva, ptep);
		else
			return 0;
		if (ret)
			return ret;
	}
}

int take_back_from_devices(struct vm_area_struct *vma)
{
	lockdep_assert_held_write(&vma->mm->mmap_lock);
	return pgtable_walk(vma->mm->pgtable, vma->start, vma->end, take_back_one, vma);
}
