// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Mapping and unmapping: mm_mmap, mm_mmap_flags, mm_munmap (kernel: mm/mmap.c, mm/vma.c).
 *
 * The order of an unmap, and why:
 *  1. Split at both ends. All that can fail; nobody sees it.
 *  2. In one window over the whole range: clear the entries, let go of the pages.
 *  3. Take the areas out of their reverse maps, which waits for walkers that are at work on them,
 *     and out of the tree. A walker that comes in between 2 and 3 finds entries that are none, and
 *     faults are kept out by mmap_lock: so they stay none.
 *  4. Take out the tables that no other area needs. With mmap_lock dropped, free them, a grace
 *     period later (pgtable.c has the ladder).
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

/* ---- unmapping ---- */

void unlink_tables(struct mm_struct *mm, hva_t start, hva_t end, struct pgtable_node **tables)
{
	struct vm_area_struct *above = find_vma_above(mm, start), *below;

	lockdep_assert_held_write(&mm->mmap_lock);
	ASSERT(!above || above->start >= end, "no area is left in what was unmapped");
	below = above ? vma_prev(above) : vma_last(mm);
	pgtable_unlink_range(mm->pgtable, below ? below->end : 0, above ? above->start : HVA_MAX,
			     tables);
}

/* Whole areas from @vma on, up to @end, in one window over all of it. */
static void zap_areas(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	struct mmu_notifier_range range;

	mutation_range_init(&range, MUTATION_UNMAP, vma->mm, start, end);
	mmu_notifier_invalidate_range_start(&range);
	for (; vma && vma->start < end; vma = vma_next(vma))
		zap_vma_range(vma, vma->start, vma->end);
	mmu_notifier_invalidate_range_end(&range);
}

int unmap_range(struct mm_struct *mm, hva_t start, hva_t end, struct pgtable_node **tables)
{
	struct vm_area_struct *vma;
	int ret;

	lockdep_assert_held_write(&mm->mmap_lock);
	if (start == end)
		return 0;
	vma = find_vma(mm, start);
	if (vma && vma->start < start && vma->end > end && mm->nr_vmas >= MM_MAX_VMAS)
		return -ENOMEM; /* two would be left of one */
	ret = split_vma_at_unlimited(mm, start);
	if (!ret)
		ret = split_vma_at_unlimited(mm, end);
	if (ret) {
		merge_vmas(mm, start, end);
		return ret;
	}
	vma = find_vma_above(mm, start);
	if (!vma || vma->start >= end)
		return 0;
	zap_areas(vma, start, end);
	while (vma && vma->start < end) {
		struct vm_area_struct *next = vma_next(vma);

		unlink_vma(vma);
		free_vma(vma);
		vma = next;
	}
	unlink_tables(mm, start, end, tables);
	return 0;
}

int mm_munmap(struct mm_struct *mm, hva_t addr, uint64_t len)
{
	struct pgtable_node *tables = NULL;
	int ret;

	if (!PAGE_ALIGNED(addr) || !len || len > HVA_MAX || !hva_range_ok(addr, PAGE_ALIGN(len)))
		return -EINVAL;
	mmap_write_lock(mm);
	ret = unmap_range(mm, addr, addr + PAGE_ALIGN(len), &tables);
	mmap_write_unlock(mm);
	pgtable_free_list(tables);
	return ret;
}

/* ---- mapping ---- */

hva_t find_gap(struct mm_struct *mm, uint64_t len)
{
	hva_t at = MM_MMAP_BASE;

	for (struct vm_area_struct *vma = find_vma_above(mm, at); vma; vma = vma_next(vma)) {
		if (vma->start > at && vma->start - at >= len)
			return at;
		at = max(at, vma->end);
	}
	return len <= HVA_MAX - at ? at : INVALID_HVA;
}

static bool arguments_ok(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
			 unsigned int flags, struct address_space *mapping, uint64_t pgoff)
{
	uint64_t nr_pages = len >> PAGE_SHIFT;

	if (!hva_range_ok(addr, len) || len == 0)
		return false;
	if (!mm_prot_ok(prot) || (flags & ~(MM_MAP_PRIVATE | MM_MAP_FIXED)))
		return false;
	if (!mapping)
		return flags & MM_MAP_PRIVATE;
	return mapping->phys == mm->phys && pgoff <= mapping->nr_pages &&
	       nr_pages <= mapping->nr_pages - pgoff;
}

bool mm_prot_ok(unsigned int prot)
{
	/* As in hardware: what can be written can be read. */
	return prot == MM_PROT_NONE || prot == MM_PROT_READ ||
	       prot == (MM_PROT_READ | MM_PROT_WRITE);
}

/* The anon_vma of a neighbour that @vma could be one with, if it had it. */
static struct anon_vma *neighbours_anon_vma(const struct vm_area_struct *vma,
					    const struct vm_area_struct *other)
{
	if (!other || (other->end != vma->start && other->start != vma->end))
		return NULL;
	if (other->prot != vma->prot || other->flags != vma->flags ||
	    other->mapping != vma->mapping)
		return NULL;
	/* Pages are numbered as if the two were one. */
	if (other->pgoff - (other->start >> PAGE_SHIFT) != vma->pgoff - (vma->start >> PAGE_SHIFT))
		return NULL;
	return other->anon_vma;
}

/* Pages of the new area belong to a family: that of a neighbour, or a new one. 0, -ENOMEM. */
static int give_anon_vma(struct vm_area_struct *vma)
{
	struct vm_area_struct *above = find_vma_above(vma->mm, vma->start);
	struct vm_area_struct *below = above ? vma_prev(above) : vma_last(vma->mm);

	vma->anon_vma = neighbours_anon_vma(vma, below);
	if (!vma->anon_vma)
		vma->anon_vma = neighbours_anon_vma(vma, above);
	if (vma->anon_vma)
		anon_vma_get(vma->anon_vma);
	else
		vma->anon_vma = anon_vma_create();
	return vma->anon_vma ? 0 : -ENOMEM;
}

/* Makes room at [addr, addr + len), or says that there is none. */
static int make_room(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int flags,
		     struct pgtable_node **tables)
{
	struct vm_area_struct *above = find_vma_above(mm, addr);

	if (!above || above->start >= addr + len)
		return mm->nr_vmas < MM_MAX_VMAS ? 0 : -ENOMEM;
	if (!(flags & MM_MAP_FIXED))
		return -EEXIST;
	return unmap_range(mm, addr, addr + len, tables);
}

int mm_mmap_flags(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
		  unsigned int flags, struct address_space *mapping, uint64_t pgoff)
{
	struct vm_area_struct like = {.prot = prot, .mapping = mapping};
	struct pgtable_node *tables = NULL;
	struct vm_area_struct *vma;
	int ret;

	if (!arguments_ok(mm, addr, len, prot, flags, mapping, pgoff))
		return -EINVAL;
	if (mapping && mapping->read_only && !(flags & MM_MAP_PRIVATE) && (prot & MM_PROT_WRITE))
		return -EACCES;
	if (flags & MM_MAP_PRIVATE)
		like.flags = VMA_PRIVATE;
	vma = clone_vma(&like, mm, addr, addr + len, mapping ? pgoff : addr >> PAGE_SHIFT);
	if (!vma)
		return -ENOMEM;

	mmap_write_lock(mm);
	ret = vma_is_private(vma) ? give_anon_vma(vma) : 0;
	if (!ret)
		ret = make_room(mm, addr, len, flags, &tables);
	if (!ret) {
		link_vma(vma);
		merge_vmas(mm, addr, addr + len);
	}
	mmap_write_unlock(mm);

	pgtable_free_list(tables);
	if (ret)
		free_vma(vma);
	return ret;
}

int mm_mmap(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
	    struct address_space *mapping, uint64_t pgoff)
{
	return mm_mmap_flags(mm, addr, len, prot, mapping ? 0 : MM_MAP_PRIVATE, mapping, pgoff);
}
