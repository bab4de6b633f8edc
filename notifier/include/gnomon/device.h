/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a device that follows an address space (gnomon/hmm.h) may ask for beyond looking: a page for
 * itself, where it is; and pages in its own memory, where nobody else can use them.
 *
 * Kernel sources of the contracts: include/linux/rmap.h (make_device_exclusive),
 * include/linux/memremap.h (device-private memory), include/linux/migrate.h (migrate_vma_*).
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

/*
 * Memory of a device: frames of its own, which no CPU reaches by an address of an mm. A page that
 * is in one is device-private. Its device gets the frame from hmm_range_fault(), with
 * HMM_PFN_DEVICE, if dev_private_owner of the range is the memory's owner; whoever else wants the
 * page gets it back in RAM.
 */
struct device_memory;

/*
 * How the device copies a page at @hva of @mm, between its frame @pfn and RAM. The windows of these
 * moves, MMU_NOTIFY_MIGRATE, have the memory's owner, and so the device need not drop at a window
 * of its own what it has in its table (but must call mmu_interval_set_seq() as always). Instead, it
 * drops here what it has of this page, and copies then. Nobody else writes to either side. Called
 * with mmap_lock held and no window open; may sleep, but not fault pages in.
 */
struct device_memory_ops {
	void (*copy_to_device)(struct device_memory *dev, struct mm_struct *mm, hva_t hva,
			       pfn_t pfn, const void *ram);
	void (*copy_to_ram)(struct device_memory *dev, struct mm_struct *mm, hva_t hva, pfn_t pfn,
			    void *ram);
};

/*
 * Add a device with @nr_frames frames to the machine whose RAM is @ram. @owner, not NULL, is whose
 * windows are told apart. 0; -EINVAL (no owner, an operation is missing, no frames), -ENOSPC (16
 * devices are there), -ENOMEM, or as phys_create().
 */
int device_memory_create(struct phys *ram, uint64_t nr_frames, const struct device_memory_ops *ops,
			 void *owner, struct device_memory **dev);

/* No page is in it any more (a BUG otherwise). Waits for faults that just brought one back. */
void device_memory_destroy(struct device_memory *dev);

void *device_memory_owner(const struct device_memory *dev);
uint64_t device_memory_nr_free(const struct device_memory *dev);
/* PAGE_SIZE bytes. What is in no use is poisoned, as in RAM. */
void *device_memory_map(const struct device_memory *dev, pfn_t pfn);

/*
 * Move pages of [addr, addr + len) into the memory of @dev: private ones that nobody else maps and
 * nobody holds; others stay. Takes mmap_lock for reading; one window, MMU_NOTIFY_MIGRATE, for each
 * batch of up to 64 pages. Returns how many moved; -EINVAL (unaligned, wraps, @dev of another
 * machine), -ENOMEM (no frame of the device for any page).
 */
long mm_migrate_to_device(struct mm_struct *mm, hva_t addr, uint64_t len,
			  struct device_memory *dev);

/*
 * Bring back whatever of [addr, addr + len) is in the memory of devices, as any access does, and a
 * fork. A window, MMU_NOTIFY_MIGRATE with the owner of the memory, for each page. Returns how many;
 * -EINVAL (unaligned, wraps), -ENOMEM (no frame for the first).
 */
long mm_migrate_to_ram(struct mm_struct *mm, hva_t addr, uint64_t len);

GNOMON_END_DECLS

#endif
