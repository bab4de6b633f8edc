// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Writing dirty pages of a file back: address_space_sync, mm_msync, and one page for whoever wants
 * its frame (kernel: page_mkclean in mm/rmap.c, write_cache_pages in mm/page-writeback.c).
 *
 * With the frame locked all the way:
 *
 *   1. Every entry that may write loses the right, each in a window of its own mm. What secondaries
 *      wrote by them is in the frame when the window's start returns. The next write comes to
 *      mkwrite_fault(), and waits for the frame.
 *   2. Is the frame pinned? Then somebody who found the entry writable may not have stored yet.
 *   3. The contents go to the file.
 *   4. The mark goes, unless 2 said yes, or 3 failed.
 *
 * Step 2 in a ladder, against an access (mm_access.c):
 *
 *   mm_write                                  sync
 *   --------                                  ----
 *   entry: F, writable. Pins F
 *   entry still F, writable: dirty
 *                                             entry := read-only, clean
 *                                             F is pinned: stays dirty
 *                                             writes F to the file
 *   stores to F; unpins it
 *                                             (next sync) F is dirty: writes F, with the store
 *
 * Each side stores before it looks, with full barriers: either the access finds the entry
 * read-only, or the sync finds the pin. Replayed by tests/unit/test_file_sync.c
 * (a_write_that_is_under_way). A page that is pinned for long is written each time.
 *
 * Step 4 comes last, not first, for the sake of another sync: who finds a page clean relies on the
 * file having it.
 *
 *   sync A                                    sync B
 *   ------                                    ------
 *   mark := clean; writes ...
 *                                             page is clean: returns, "the file has it"
 *   ... is done, or fails
 */
#include "notifier/file_pages.h"

#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/contents.h"
#include "notifier/frame.h"
#include "notifier/mutations.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

/*
 * An entry that may not write now will not until the frame is unlocked, so no window is opened for
 * it; a private area has no other.
 */
static void mkclean_one(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	const pte_t writes = PTE_WRITE | PTE_DIRTY;
	const pfn_t *pfn = arg;
	struct mm_struct *mm = vma->mm;
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	pte_t pte = ptep ? pte_load(ptep) : 0;
	struct mmu_notifier_range range;

	if (!pte_present(pte) || pte_pfn(pte) != *pfn || !(pte & writes))
		return;
	mutation_range_init(&range, MUTATION_SYNC, mm, hva, hva + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	while (pte_present(pte) && pte_pfn(pte) == *pfn && (pte & writes) &&
	       !change_pte(mm, hva, ptep, &pte, pte & ~writes))
		;
	spin_unlock(&mm->page_table_lock);
	mmu_notifier_invalidate_range_end(&range);
}

/* As address_space_writeback_page(), of a page that may be mapped, under writeback_rwsem. */
static int write_back(struct address_space *mapping, struct frame *frame, pfn_t pfn)
{
	uint64_t copy[CONTENTS_WORDS];
	bool pinned;
	int ret;

	ASSERT(frame_locked(frame) && frame_address_space(frame) == mapping,
	       "a page of the object, locked by the caller");
	if (atomic_read(&frame->mapcount))
		rmap_walk(frame, mkclean_one, &pfn);
	smp_mb(); /* also if another took the entries away: pairs with frame_pin_unless_zero() */
	pinned = frame_is_pinned(frame);
	contents_copy_page(copy,
			   phys_map(mapping->phys, pfn)); /* who has it pinned may be storing */
	ret = file_write_page(mapping, frame->index, copy);
	if (ret)
		return ret;
	if (pinned)
		return -EBUSY;
	address_space_set_dirty(mapping, frame->index, false);
	return 0;
}

int address_space_writeback_page(struct address_space *mapping, struct frame *frame, pfn_t pfn)
{
	int ret;

	ASSERT(!atomic_read(&frame->mapcount), "the caller unmapped the page");
	/* With the frame locked it is too late to wait. */
	if (!down_read_trylock(&mapping->writeback_rwsem))
		return -EAGAIN;
	ret = write_back(mapping, frame, pfn);
	up_read(&mapping->writeback_rwsem);
	return ret;
}

/* 1 if it was written, 0 if there was nothing to write, -errno. */
static int sync_dirty_page(struct address_space *mapping, uint64_t pgoff)
{
	int ret = 0;
	pfn_t pfn;

	if (!address_space_find_page(mapping, pgoff, &pfn))
		return 0;
	if (address_space_page_dirty(mapping, pgoff)) {
		ret = write_back(mapping, pfn_to_frame(mapping->phys, pfn), pfn);
		if (ret == 0 || ret == -EBUSY)
			ret = 1;
	}
	unlock_frame(mapping->phys, pfn);
	phys_put(mapping->phys, pfn);
	return ret;
}

static int sync_page(struct address_space *mapping, uint64_t pgoff)
{
	int ret;

	if (!address_space_page_dirty(mapping, pgoff))
		return 0;
	down_read(&mapping->writeback_rwsem);
	ret = sync_dirty_page(mapping, pgoff);
	up_read(&mapping->writeback_rwsem);
	return ret;
}

long address_space_sync(struct address_space *mapping, uint64_t first, uint64_t nr_pages)
{
	long written = 0;
	int err = 0;

	might_sleep();
	if (first > mapping->nr_pages || nr_pages > mapping->nr_pages - first)
		return -EINVAL;
	for (uint64_t i = 0; has_file(mapping) && i < nr_pages; i++) {
		int ret = sync_page(mapping, first + i);

		if (ret > 0)
			written += ret;
		else if (!err)
			err = ret;
	}
	return err ? err : written;
}

/* What of [start, end) is in @vma. */
static long sync_area(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	start = max(start, vma->start);
	end = min(end, vma->end);
	if (!vma_notifies_writes(vma))
		return 0;
	return address_space_sync(vma->mapping, vma_page(vma, start), (end - start) >> PAGE_SHIFT);
}

int mm_msync(struct mm_struct *mm, hva_t addr, uint64_t len)
{
	struct vm_area_struct *vma;
	bool hole = false;
	hva_t end, at;
	long ret = 0;

	if (!PAGE_ALIGNED(addr))
		return -EINVAL;
	if (len > HVA_MAX || !hva_range_ok(addr, PAGE_ALIGN(len)))
		return -ENOMEM;
	end = addr + PAGE_ALIGN(len);

	mmap_read_lock(mm);
	at = addr;
	for (vma = find_vma_above(mm, addr); vma && vma->start < end && ret >= 0;
	     vma = vma_next(vma)) {
		hole |= vma->start > at;
		ret = sync_area(vma, addr, end);
		at = vma->end;
	}
	mmap_read_unlock(mm);
	if (ret < 0)
		return (int)ret;
	return hole || at < end ? -ENOMEM : 0;
}
