/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking at an address space without touching it: what is an answer here was true at some instant
 * of the call. For audits, and for people.
 *
 * The page table is looked at without a lock, in a section of pgtable_srcu; areas under mmap_lock,
 * held for reading.
 */
#include "notifier/mm_internal.h"

static pte_t look(struct mm_struct *mm, hva_t hva)
{
	int idx = pgtable_read_lock();
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	pte_t pte = ptep ? pte_load(ptep) : 0;

	pgtable_read_unlock(idx);
	return pte;
}

pfn_t mm_lookup_pfn(struct mm_struct *mm, hva_t hva)
{
	pte_t pte = look(mm, hva);

	return pte_present(pte) ? pte_pfn(pte) : INVALID_PFN;
}

static enum mm_page_kind kind_of(pte_t pte)
{
	if (pte_none(pte))
		return MM_PAGE_NONE;
	if (pte_present(pte))
		return MM_PAGE_PRESENT;
	if (pte_migration(pte))
		return MM_PAGE_MIGRATING;
	if (pte_swap(pte))
		return MM_PAGE_SWAPPED;
	return pte_device(pte) ? MM_PAGE_DEVICE : MM_PAGE_EXCLUSIVE;
}

void mm_lookup_page(struct mm_struct *mm, hva_t hva, struct mm_page *page)
{
	pte_t pte = look(mm, hva);

	*page = (struct mm_page){.kind = kind_of(pte), .entry = pte, .number = pte_pfn(pte)};
	if (page->kind != MM_PAGE_PRESENT)
		return;
	page->prot = (pte & PTE_READ ? MM_PROT_READ : 0) | (pte & PTE_WRITE ? MM_PROT_WRITE : 0);
	page->accessed = pte & PTE_ACCESSED;
	page->dirty = pte & PTE_DIRTY;
	page->soft_dirty = pte & PTE_SOFT_DIRTY;
}

bool mm_lookup_area(struct mm_struct *mm, hva_t hva, struct mm_area *area)
{
	const struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = find_vma(mm, hva);
	if (vma)
		*area = (struct mm_area){
			.start = vma->start,
			.end = vma->end,
			.prot = vma->prot,
			.is_private = vma_is_private(vma),
			.shows_object = vma->mapping,
			.pgoff = vma->pgoff,
		};
	mmap_read_unlock(mm);
	return vma;
}
