/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking mappings away: mm_zap_range, and the step that unmapping and exit share.
 *
 * The entry goes by an atomic exchange under page_table_lock; what it named follows after the lock
 * is dropped, since a private page has to leave its anon_vma under the frame lock, which sleeps.
 *
 * Zap and migration may meet at one entry, and then the zap wins:
 *
 *   zap                                       migration of private frame A to B
 *   ---                                       ---------------------------------
 *                                             A -> migration entry (its window, its lock)
 *   migration entry -> none
 *                                             copies A to B
 *                                             restore finds no migration entry: B is mapped nowhere
 *                                             B leaves its mapping and is freed
 *   next touch: a new page of zeroes
 *
 * Had the zap passed the migration entry by, the old contents would come back. The other way round,
 * a zap that removed A just before the migration looked still holds the reference of the entry: the
 * freeze fails and A stays until the zap has dropped it.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/swap.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"

/* A cached copy of a swap slot stays that, for as long as the slot has users. */
void private_page_unmapped(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (frame_is_ksm(frame))
		ksm_page_gone(frame);
	else
		set_frame_mapping(frame, 0);
	leave_swap_cache_if_unused(phys, pfn);
}

/*
 * @pfn was mapped by an entry of @vma whose reference is now ours; its mapcount is one less. A page
 * of an object stays in its slot. A private one that nobody maps any more leaves its anon_vma,
 * before the put, even if that is not the last one: somebody may be reading it still (phys_put).
 *
 * The count is looked at again with the frame locked: from zero it grows only under that lock, so
 * of several who unmapped the page, the last to come here finds zero unless it was mapped anew.
 */
void unmapped_page(struct vm_area_struct *vma, pfn_t pfn)
{
	struct phys *phys = vma->mm->phys;
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (vma->anon_vma && !atomic_read(&frame->mapcount)) {
		lock_frame(phys, pfn);
		if (frame_is_private(frame) && !atomic_read(&frame->mapcount))
			private_page_unmapped(phys, pfn);
		unlock_frame(phys, pfn);
	}
	phys_put(phys, pfn);
}

bool zap_entry(struct vm_area_struct *vma, hva_t hva, pte_t *ptep)
{
	struct mm_struct *mm = vma->mm;
	pte_t pte;

	if (pte_none(pte_load(ptep)))
		return false;
	spin_lock(&mm->page_table_lock);
	pte = set_pte(mm, hva, ptep, 0);
	if (pte_maps_frame(pte))
		atomic_dec(&pfn_to_frame(mm->phys, pte_pfn(pte))->mapcount);
	else if (pte_device(pte))
		put_device_entry(mm, pte);
	spin_unlock(&mm->page_table_lock);

	if (pte_maps_frame(pte))
		unmapped_page(vma, pte_pfn(pte));
	else if (pte_swap(pte))
		swap_free(mm->phys, (uint32_t)pte_pfn(pte));
	return !pte_none(pte);
}

struct zap {
	struct vm_area_struct *vma;
	long nr_zapped;
};

static int zap_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct zap *zap = arg;

	if (zap_entry(zap->vma, hva, ptep))
		zap->nr_zapped++;
	return 0;
}

long zap_vma_range(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	struct zap zap = {.vma = vma};

	pgtable_walk(vma->mm->pgtable, start, end, zap_one, &zap);
	return zap.nr_zapped;
}

bool range_has_holes(struct mm_struct *mm, hva_t start, hva_t end)
{
	struct vm_area_struct *vma = find_vma(mm, start);

	while (vma && vma->end < end) {
		struct vm_area_struct *next = vma_next(vma);

		vma = next && next->start == vma->end ? next : NULL;
	}
	return !vma;
}

long mm_zap_range(struct mm_struct *mm, hva_t addr, uint64_t len)
{
	struct mmu_notifier_range range;
	hva_t end = addr + len;
	long ret = 0;

	if (!hva_range_ok(addr, len))
		return -EINVAL;
	if (len == 0)
		return 0;

	mmap_read_lock(mm);
	if (range_has_holes(mm, addr, end)) {
		ret = -ENOMEM;
		goto out;
	}

	mutation_range_init(&range, MUTATION_ZAP, mm, addr, end);
	mmu_notifier_invalidate_range_start(&range);
	for (struct vm_area_struct *vma = find_vma(mm, addr); vma && vma->start < end;
	     vma = vma_next(vma))
		ret += zap_vma_range(vma, max(addr, vma->start), min(end, vma->end));
	mmu_notifier_invalidate_range_end(&range);

	atomic64_add(ret, &mm->nr_zapped);
out:
	mmap_read_unlock(mm);
	return ret;
}
