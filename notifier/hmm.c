// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * hmm_range_fault(): a walk over the primary page table, and faults where pages are wanted.
 *
 * The walk holds nothing that keeps a page where it is. It looks at the sequence of the interval
 * before it begins and after each fault, only to give up early on what is out of date already: a
 * fault may have slept for long. Whether the answer is good is not known here: that takes the
 * driver's lock (gnomon/hmm.h).
 *
 *   driver				this walk			zap of page 1
 *   ------				---------			-------------
 *   read_begin: seq 5
 *					page 0: a frame
 *					page 1: faults, sleeps
 *									start: page 0 and 1,
 *									  own number 7
 *									clears the entries
 *					page 1: a frame; 7, not 5
 *					-> -EBUSY. Page 0 was good, and is not
 *   read_begin: waits for the end
 *
 * Why a fault is not repeated for ever: whoever takes away an entry that we have just seen present
 * has told the interval before, so the look at the sequence finds it. Pairs: the number is stored
 * before the entry is cleared by an atomic exchange, and we look at it after an acquire of the
 * entry.
 *
 * Why a result with WRITE makes the entry dirty, and any result accessed: the device will use the
 * page without a word, and interval notifiers are not asked for ages. When the entry is taken away
 * it must say all that may have been done through the secondary; as for hva_to_pfn(), a little too
 * much is right and a little too little is a lost write.
 *
 * An area without MM_PROT_READ is as good as a hole.
 */
#include <gnomon/hmm.h>

#include <errno.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/lock.h"

static_assert((HMM_PFN_MASK & (PTE_PFN_MASK >> PAGE_SHIFT)) == PTE_PFN_MASK >> PAGE_SHIFT,
	      "a frame number fits below the flags");

static bool range_ok(const struct hmm_range *range)
{
	const struct interval_tree_node *interval = &range->notifier->interval_tree;

	/* A sequence says nothing of what lies outside of its interval. */
	return range->start < range->end && hva_range_ok(range->start, range->end - range->start) &&
	       range->start >= interval->start && range->end - 1 <= interval->last;
}

static bool is_stale(const struct hmm_range *range)
{
	return mmu_interval_check_retry(range->notifier, range->notifier_seq);
}

/* True if the entry of @hva is present and has the rights; *@result then tells of it. */
static bool look(struct mm_struct *mm, hva_t hva, bool write, uint64_t *result)
{
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	pte_t pte;

	if (!ptep)
		return false;
	do {
		pte = pte_load(ptep);
		if (!pte_allows(pte, write))
			return false;
	} while (!pte_touch(ptep, pte, pte & PTE_WRITE));
	*result = pte_pfn(pte) | HMM_PFN_VALID | (pte & PTE_WRITE ? HMM_PFN_WRITE : 0);
	return true;
}

/* A page that is wanted. */
static int fault_page(struct hmm_range *range, struct vm_area_struct *vma, hva_t hva, bool write,
		      uint64_t *result)
{
	if (!vma || !vma_allows(vma, false))
		return -EFAULT;
	if (!vma_allows(vma, write))
		return -EPERM;
	while (!look(vma->mm, hva, write, result)) {
		int ret = handle_mm_fault(vma, hva, write);

		if (ret)
			return ret;
		if (is_stale(range))
			return -EBUSY;
	}
	return 0;
}

/* @vma is the area of @hva, or NULL. */
static int one_page(struct hmm_range *range, struct vm_area_struct *vma, hva_t hva)
{
	uint64_t *entry = &range->hmm_pfns[(hva - range->start) >> PAGE_SHIFT];
	uint64_t request = (*entry & range->pfn_flags_mask) | range->default_flags;

	if (request & HMM_PFN_REQ_FAULT)
		return fault_page(range, vma, hva, request & HMM_PFN_REQ_WRITE, entry);
	if (!vma || !vma_allows(vma, false))
		*entry = HMM_PFN_ERROR;
	else if (!look(vma->mm, hva, false, entry))
		*entry = 0;
	return 0;
}

int hmm_range_fault(struct hmm_range *range)
{
	struct mm_struct *mm = range->notifier->mm;
	struct vm_area_struct *vma = NULL;
	int ret = 0;

	might_sleep();
	lockdep_assert_held(&mm->mmap_lock);
	if (!range_ok(range))
		return -EINVAL;
	if (is_stale(range))
		return -EBUSY;
	for (hva_t hva = range->start; hva < range->end && !ret; hva += PAGE_SIZE) {
		if (!vma || hva >= vma->end)
			vma = find_vma(mm, hva);
		ret = one_page(range, vma, hva);
	}
	return ret;
}
