// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * mm_mprotect: the rights of a range (kernel: mm/mprotect.c).
 *
 * Rights that go are taken out of each entry at once, in a window; rights that come are given by
 * the next fault, which knows whether a private page may be written in place. An entry that stands
 * for a page that is being moved loses rights, too: it becomes present again with what it has left.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"

static int narrow_leaf(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	struct vm_area_struct *vma = arg;
	pte_t lost = (PTE_READ | PTE_WRITE) & ~vma_pte_rights(vma);

	spin_lock(&vma->mm->page_table_lock);
	for (unsigned int i = 0; i < nr; i++)
		clear_pte_bits(vma->mm, hva + i * PAGE_SIZE, &ptep[i], lost);
	spin_unlock(&vma->mm->page_table_lock);
	return 0;
}

static void protect_area(struct vm_area_struct *vma, unsigned int prot)
{
	struct mmu_notifier_range range;

	mutation_range_init(&range, MUTATION_PROTECT, vma->mm, vma->start, vma->end);
	mmu_notifier_invalidate_range_start(&range);
	vma->prot = prot;
	pgtable_walk_leaves(vma->mm->pgtable, vma->start, vma->end, narrow_leaf, vma);
	mmu_notifier_invalidate_range_end(&range);
}

/* What of [start, end) lies in one area, which begins there or before. Sets *@next behind it. */
static int protect_part(struct mm_struct *mm, hva_t start, hva_t end, unsigned int prot,
			hva_t *next)
{
	struct vm_area_struct *vma = find_vma(mm, start);
	int ret;

	if (!vma)
		return -ENOMEM;
	if (vma->mapping && vma->mapping->read_only && !vma_is_private(vma) &&
	    (prot & MM_PROT_WRITE))
		return -EACCES;
	*next = min(vma->end, end);
	if (vma->prot == prot)
		return 0;
	ret = split_vma_at(mm, start);
	if (!ret)
		ret = split_vma_at(mm, *next);
	if (!ret)
		protect_area(find_vma(mm, start), prot);
	return ret;
}

int mm_mprotect(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot)
{
	int ret = 0;
	hva_t end;

	if (!PAGE_ALIGNED(addr) || !mm_prot_ok(prot))
		return -EINVAL;
	if (!len)
		return 0;
	if (len > HVA_MAX || !hva_range_ok(addr, PAGE_ALIGN(len)))
		return -ENOMEM;
	end = addr + PAGE_ALIGN(len);

	mmap_write_lock(mm);
	for (hva_t at = addr; at < end && !ret;)
		ret = protect_part(mm, at, end, prot, &at);
	merge_vmas(mm, addr, end);
	mmap_write_unlock(mm);
	return ret;
}
