// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A hole in an object: its pages, and the file's blocks, are gone, and the next touch finds zeroes
 * (kernel: shmem_fallocate in mm/shmem.c, unmap_mapping_range in mm/memory.c).
 *
 *   1. The hole in the file. All that can fail, with nothing changed yet.
 *   2. The range is unmapped from every mapping: one window for each area, over the part of it that
 *      shows the hole, and not over what the caller named: each area has the pages at a place of
 *      its own. Copies that private areas made are theirs and stay, as in Linux.
 *   3. Page by page, with the frame locked: it is unmapped again where it came back since, and goes
 *      out of its slot. Whoever has a reference left, a device say, keeps a page of nobody.
 *
 * A fault that meets the hole comes before it or after it:
 *
 *   fault on page 7                           hole over page 7
 *   ---------------                           ----------------
 *                                             1, 2: page 7 is mapped nowhere
 *   locks F, which slot 7 names
 *   entry := F; unlocks F
 *                                             3: locks F, unmaps it once more, slot 7 := none
 *   next touch: slot 7 is empty, zeroes
 *
 * Without the second look F would be freed while it is mapped. Replayed by
 * tests/unit/test_file_hole.c (a_fault_in_between).
 *
 * A file is read with the frame in its slot, locked, so old contents cannot come in by the back:
 *
 *   fault on page 7                           hole over page 7
 *   ---------------                           ----------------
 *   slot 7 := F, locked. Reads old bytes ...
 *                                             1, 2
 *   ... entry := F; unlocks F
 *                                             3: had to wait for F: unmaps it, slot 7 := none
 *
 * (a_read_under_way, same place.) And from 1 to 3 nobody writes to the file: who does has
 * writeback_rwsem for reading, we have it for writing. Or else
 *
 *   reclaim of page 7, dirty                  hole over page 7
 *   ------------------------                  ----------------
 *                                             1: the file has zeroes
 *   locks F, unmaps it
 *   writes F to the file, slot 7 := none
 *                                             2; 3: nothing is in slot 7
 *   next touch: slot 7 is empty, reads what F was
 *
 * (reclaim_in_between: it tries the lock, as it has F locked; a_write_under_way: we wait for it.)
 */
#include "notifier/file_pages.h"

#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/madvise.h"
#include "notifier/mutations.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"

/* ---- unmapping by reverse map ---- */

/*
 * Of a shared area all is the object's, one that is being moved too; of a private area what its
 * present entries show of the object. (An entry of a private area that stands for a page on its way
 * does not tell whose that is: step 3 comes by again, with the frame locked.) A mapped frame's
 * mapping does not change, so page_table_lock is enough to look at it.
 */
static bool shows_object(const struct vm_area_struct *vma, pte_t pte)
{
	if (!vma_is_private(vma))
		return pte_maps_frame(pte) || pte_migration(pte);
	return pte_present(pte) &&
	       frame_address_space(pfn_to_frame(vma->mm->phys, pte_pfn(pte))) == vma->mapping;
}

/* Inside a window, under page_table_lock. The frame has another reference, its slot's or ours. */
static void unmap_entry(struct vm_area_struct *vma, hva_t hva, pte_t *ptep)
{
	pte_t pte = set_pte(vma->mm, hva, ptep, 0);

	if (!pte_maps_frame(pte))
		return;
	atomic_dec(&pfn_to_frame(vma->mm->phys, pte_pfn(pte))->mapcount);
	phys_put(vma->mm->phys, pte_pfn(pte));
}

static int unmap_leaf(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	struct vm_area_struct *vma = arg;

	spin_lock(&vma->mm->page_table_lock);
	for (unsigned int i = 0; i < nr; i++) {
		if (shows_object(vma, pte_load(&ptep[i])))
			unmap_entry(vma, hva + i * PAGE_SIZE, &ptep[i]);
	}
	spin_unlock(&vma->mm->page_table_lock);
	return 0;
}

/* Pages @first to @last of the object, as far as @vma has them. */
static void unmap_area(struct vm_area_struct *vma, uint64_t first, uint64_t last)
{
	struct mmu_notifier_range range;
	hva_t start, end;

	start = vma_page_hva(vma, max(first, vma->pgoff));
	end = vma_page_hva(vma, min(last + 1, vma_page(vma, vma->end)));
	mutation_range_init(&range, MUTATION_HOLE, vma->mm, start, end);
	mmu_notifier_invalidate_range_start(&range);
	pgtable_walk_leaves(vma->mm->pgtable, start, end, unmap_leaf, vma);
	mmu_notifier_invalidate_range_end(&range);
}

/* The lock keeps the areas, their mms, and their tables. */
static void unmap_mapping_range(struct address_space *mapping, uint64_t first, uint64_t last)
{
	struct interval_tree_node *node;

	down_read(&mapping->i_mmap_rwsem);
	for (node = interval_tree_first(&mapping->i_mmap, first, last); node;
	     node = interval_tree_next(node, first, last))
		unmap_area(container_of(node, struct vm_area_struct, in_mapping), first, last);
	up_read(&mapping->i_mmap_rwsem);
}

/* An entry that does not name the frame will not while that is locked. */
static void unmap_one(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	const pfn_t *pfn = arg;
	pte_t *ptep = pgtable_lookup(vma->mm->pgtable, hva);
	pte_t pte = ptep ? pte_load(ptep) : 0;

	if (pte_maps_frame(pte) && pte_pfn(pte) == *pfn)
		unmap_area(vma, vma_page(vma, hva), vma_page(vma, hva));
}

/* ---- the hole ---- */

/* Step 3. */
static void punch_page(struct address_space *mapping, uint64_t pgoff)
{
	struct frame *frame;
	pfn_t pfn;

	while (!address_space_find_page(mapping, pgoff, &pfn)) {
		if (address_space_drop_swapped(mapping, pgoff))
			return;
	}
	frame = pfn_to_frame(mapping->phys, pfn);
	if (atomic_read(&frame->mapcount))
		rmap_walk(frame, unmap_one, &pfn);
	address_space_delete_page(mapping, pgoff, pfn);
	unlock_frame(mapping->phys, pfn);
	phys_put(mapping->phys, pfn);
}

int address_space_punch_hole(struct address_space *mapping, uint64_t first, uint64_t nr_pages)
{
	int ret = 0;

	might_sleep();
	if (first > mapping->nr_pages || nr_pages > mapping->nr_pages - first)
		return -EINVAL;
	if (mapping->read_only)
		return -EACCES;
	if (!nr_pages)
		return 0;
	down_write(&mapping->writeback_rwsem);
	if (has_file(mapping))
		ret = file_punch(mapping, first, nr_pages);
	if (!ret) {
		unmap_mapping_range(mapping, first, first + nr_pages - 1);
		for (uint64_t i = 0; i < nr_pages; i++)
			punch_page(mapping, first + i);
	}
	up_write(&mapping->writeback_rwsem);
	return ret;
}

/* Unlike Linux, with mmap_lock held all the way: no lock of ours is in its way. */
int madvise_remove(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	if (!vma->mapping)
		return -EINVAL;
	if (vma_is_private(vma) || !(vma->prot & MM_PROT_WRITE))
		return -EACCES;
	return address_space_punch_hole(vma->mapping, vma_page(vma, start),
					(end - start) >> PAGE_SHIFT);
}
