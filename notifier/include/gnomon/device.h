/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a device that follows an address space (gnomon/hmm.h) may ask for beyond looking: a page for
 * itself.
 *
 * Kernel sources of the contracts: include/linux/rmap.h (make_device_exclusive).
 */
#ifndef GNOMON_DEVICE_H
#define GNOMON_DEVICE_H

#include <gnomon/decls.h>
#include <gnomon/mm.h>

GNOMON_BEGIN_DECLS

/*
 * Take the page at @addr away from everyone else, so that what the device does to it in several
 * steps is atomic to all: faulted in for writing, as a page of a private area. One window,
 * MMU_NOTIFY_EXCLUSIVE, over the page, whose owner is @owner. It lasts until somebody wants the
 * page, or does anything else to it: then there is another window, as a rule MMU_NOTIFY_CLEAR,
 * which has no owner.
 *
 * With mmap_lock held, mm_users pinned, no lock that an invalidate_range_start takes. May sleep. 0,
 * and the frame is *@pfn; it is locked, and nobody gets the page back, until
 * put_device_exclusive(), before which the device puts it into its table. A zap may come in between
 * nevertheless: so the same sequence check as for hmm_range_fault() (gnomon/hmm.h) comes first.
 * Only, a window of this event and one's own owner is passed over whole, without
 * mmu_interval_set_seq(), or the check never succeeds; the page stays in its frame, so nothing that
 * was found by looking becomes wrong by it.
 *
 * -EFAULT (no area, or no right to write), -EOPNOTSUPP (an area of a shared object), -EBUSY (the
 * page is pinned, and somebody may be writing to it), -ENOMEM.
 */
int make_device_exclusive(struct mm_struct *mm, hva_t addr, void *owner, pfn_t *pfn)
	__attribute__((warn_unused_result));
void put_device_exclusive(struct mm_struct *mm, pfn_t pfn);

GNOMON_END_DECLS

#endif
