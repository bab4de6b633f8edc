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

/* A walk, at one of its pages: what is found for a page leads to what is found for the next. */
struct walk {
	struct hmm_range *range;
	struct mm_struct *mm;
	hva_t hva;
	struct vm_area_struct *vma; /* of hva, or NULL */
	pte_t *ptep;		    /* of hva, or NULL; good for as long as we hold mmap_lock */
};

static void to_page(struct walk *walk, hva_t hva)
{
	walk->hva = hva;
	if (!walk->vma || hva >= walk->vma->end)
		walk->vma = find_vma(walk->mm, hva);
	walk->ptep = pgtable_next(walk->mm->pgtable, walk->ptep, hva);
}

static uint64_t hmm_pfn(pte_t pte)
{
	return pte_pfn(pte) | HMM_PFN_VALID | (pte & PTE_WRITE ? HMM_PFN_WRITE : 0);
}

/*
 * A page in the memory of who asks: no reason to fault. Only this entry has it, so if it is @wanted
 * a right that the area has and the entry lost (mm_mprotect, mm_clear_soft_dirty) is given back.
 */
static bool look_at_device(const struct walk *walk, pte_t need, bool wanted, uint64_t *result)
{
	pte_t give = wanted ? need | PTE_READ : 0;
	pte_t pte = device_entry_for(walk->vma, walk->hva, walk->ptep,
				     walk->range->dev_private_owner, give);

	if (!(pte & need))
		return false;
	*result = hmm_pfn(pte) | HMM_PFN_DEVICE;
	return true;
}

/* True if the entry is present and has the rights; *@result then tells of it. */
static bool look(const struct walk *walk, bool write, bool wanted, uint64_t *result)
{
	pte_t pte;

	if (!walk->ptep)
		return false;
	if (pte_device(pte_load(walk->ptep)))
		return look_at_device(walk, write ? PTE_WRITE : PTE_READ, wanted, result);
	do {
		pte = pte_load(walk->ptep);
		if (!pte_allows(pte, write))
			return false;
	} while (!pte_touch(walk->ptep, pte, pte & PTE_WRITE));
	*result = hmm_pfn(pte);
	return true;
}

/* A page that is wanted. */
static int fault_page(struct walk *walk, bool write, uint64_t *result)
{
	if (!walk->vma || !vma_allows(walk->vma, false))
		return -EFAULT;
	if (!vma_allows(walk->vma, write))
		return -EPERM;
	while (!look(walk, write, true, result)) {
		int ret = handle_mm_fault(walk->vma, walk->hva, write);

		if (ret)
			return ret;
		if (is_stale(walk->range))
			return -EBUSY;
		/* The first fault of a leaf makes it. */
		walk->ptep = pgtable_lookup(walk->mm->pgtable, walk->hva);
	}
	return 0;
}

static int one_page(struct walk *walk)
{
	struct hmm_range *range = walk->range;
	uint64_t *entry = &range->hmm_pfns[(walk->hva - range->start) >> PAGE_SHIFT];
	uint64_t request = (*entry & range->pfn_flags_mask) | range->default_flags;

	if (request & HMM_PFN_REQ_FAULT)
		return fault_page(walk, request & HMM_PFN_REQ_WRITE, entry);
	if (!walk->vma || !vma_allows(walk->vma, false))
		*entry = HMM_PFN_ERROR;
	else if (!look(walk, false, false, entry))
		*entry = 0;
	return 0;
}

int hmm_range_fault(struct hmm_range *range)
{
	struct walk walk = {.range = range, .mm = range->notifier->mm};
	int ret = 0;

	might_sleep();
	lockdep_assert_held(&walk.mm->mmap_lock);
	if (!range_ok(range))
		return -EINVAL;
	if (is_stale(range))
		return -EBUSY;
	for (hva_t hva = range->start; hva < range->end && !ret; hva += PAGE_SIZE) {
		to_page(&walk, hva);
		ret = one_page(&walk);
	}
	return ret;
}
