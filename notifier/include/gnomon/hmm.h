/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hmm_range_fault(): what a range of an mm maps, for a device that mirrors it. (Linux:
 * include/linux/hmm.h, since 5.8 as it is here.) It takes no reference: what it found may be used
 * only as long as the interval notifier says so. The whole pattern, without which the answer is
 * worth nothing:
 *
 *	mmu_interval_notifier_insert(&sub, mm, start, length, &ops);
 *	range.notifier = &sub;
 *
 *	for (tries = 0; tries < MANY; tries++) {
 *		range.notifier_seq = mmu_interval_read_begin(&sub);
 *		if (!mmget_not_zero(mm))
 *			return -EFAULT;		it has no pages any more
 *		mmap_read_lock(mm);
 *		ret = hmm_range_fault(&range);
 *		mmap_read_unlock(mm);
 *		mmput(mm);
 *		if (ret == -EBUSY)
 *			continue;
 *		if (ret)
 *			return ret;
 *
 *		take the driver's lock, which ops->invalidate takes
 *		if (!mmu_interval_read_retry(&sub, range.notifier_seq)) {
 *			put range.hmm_pfns[] into the device's page table
 *			drop the driver's lock
 *			return 0;
 *		}
 *		drop the driver's lock
 *	}
 *	return -EBUSY;
 *
 * Nothing here ends the loop while somebody goes on invalidating: the driver does, by a number of
 * rounds or by the clock. docs/hmm.md argues each line.
 */
#ifndef GNOMON_HMM_H
#define GNOMON_HMM_H

#include <gnomon/decls.h>
#include <gnomon/mmu_interval_notifier.h>

GNOMON_BEGIN_DECLS

/*
 * What an entry of hmm_pfns says. The two that can be asked for are the two that then are there.
 *
 * Going in: FAULT, the page is wanted, at least to read; FAULT and WRITE, to write. WRITE alone
 * asks for nothing. Neither: what is there now, if anything.
 * Coming out: VALID, the low bits are a frame that may be read, with WRITE written as well. ERROR:
 * nothing can be there, it is a hole. 0: nothing is there now.
 */
#define HMM_PFN_VALID	  (1UL << 63)
#define HMM_PFN_WRITE	  (1UL << 62)
#define HMM_PFN_ERROR	  (1UL << 61)
#define HMM_PFN_REQ_FAULT HMM_PFN_VALID
#define HMM_PFN_REQ_WRITE HMM_PFN_WRITE

#define HMM_PFN_ORDER_SHIFT 56
#define HMM_PFN_ORDER_MASK  0x1fUL

/* Coming out: the frame is one of dev_private_owner's own memory (gnomon/device.h). */
#define HMM_PFN_DEVICE (1UL << 55)
#define HMM_PFN_MASK   (HMM_PFN_DEVICE - 1)

static inline pfn_t hmm_pfn_to_pfn(uint64_t hmm_pfn)
{
	return hmm_pfn & HMM_PFN_MASK;
}

/* The page is part of 1 << order pages that are mapped as one. Always 0: there are none such. */
static inline unsigned int hmm_pfn_to_map_order(uint64_t hmm_pfn)
{
	return (hmm_pfn >> HMM_PFN_ORDER_SHIFT) & HMM_PFN_ORDER_MASK;
}

struct hmm_range {
	struct mmu_interval_notifier *notifier; /* its interval contains the range */
	unsigned long notifier_seq;		/* of mmu_interval_read_begin() */
	hva_t start, end;			/* page aligned, end exclusive */
	uint64_t *hmm_pfns;			/* one for each page */
	/*
	 * The request for a page is (its entry & pfn_flags_mask) | default_flags. With a mask of 0
	 * entries are output only, and need not be filled in again for another try.
	 */
	uint64_t default_flags;
	uint64_t pfn_flags_mask;
	/* Whose private memory may appear in the answer, or NULL. What is in another's is as good
	 * as not there: faulted in if it is wanted, else 0. */
	void *dev_private_owner;
};

/*
 * Fill in hmm_pfns, with mmap_lock held for reading and mm_users pinned. May sleep: it faults in
 * what is asked for and is not there, and waits for pages that are being moved. Where nothing is
 * asked for it changes nothing, and a page that is being moved is 0.
 *
 * 0; -EBUSY (the interval was invalidated since read_begin: from there again), -EPERM (a write to a
 * read-only area), -EFAULT (a hole, and a page is wanted), -ENOMEM, -EIO, -EINVAL (the range is
 * empty, unaligned, ends before it starts, or is not within the interval). After an error each
 * entry is what it was or what was found, and pages may have been faulted in.
 */
int hmm_range_fault(struct hmm_range *range) __attribute__((warn_unused_result));

GNOMON_END_DECLS

#endif
