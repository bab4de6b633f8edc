/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The areas of an address space: which hvas mean something, and what.
 *
 * VMAs never overlap. A VMA joins the tree and its reverse maps in one go under mmap_lock held for
 * writing, and leaves them so; what may be changed in between is in resize_vma(), and the rights.
 * Whoever holds mmap_lock, or the reverse-map lock through which it found a VMA, may use the VMA.
 *
 * A split and a merge are seen by nobody: each hva has the same page, rights and reverse maps
 * before and after. So an operation on part of an area first splits at both ends, which is all of
 * it that can fail, then works on whole areas, then merges.
 */
#include <errno.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

static int compare_vmas(const struct vm_area_struct *a, const struct vm_area_struct *b)
{
	return a->start < b->start ? -1 : a->start > b->start;
}

RB_GENERATE_INTERNAL(vma_tree, vm_area_struct, node, compare_vmas, static __attribute__((unused)))

struct vm_area_struct *find_vma_above(struct mm_struct *mm, hva_t addr)
{
	struct vm_area_struct *vma = RB_ROOT(&mm->vmas), *best = NULL;

	lockdep_assert_held(&mm->mmap_lock);
	while (vma) {
		if (addr < vma->end) {
			best = vma;
			vma = RB_LEFT(vma, node);
		} else {
			vma = RB_RIGHT(vma, node);
		}
	}
	return best;
}

struct vm_area_struct *find_vma(struct mm_struct *mm, hva_t addr)
{
	struct vm_area_struct *vma = find_vma_above(mm, addr);

	return vma && vma->start <= addr ? vma : NULL;
}

struct vm_area_struct *vma_first(struct mm_struct *mm)
{
	lockdep_assert_held(&mm->mmap_lock);
	return RB_MIN(vma_tree, &mm->vmas);
}

struct vm_area_struct *vma_last(struct mm_struct *mm)
{
	lockdep_assert_held(&mm->mmap_lock);
	return RB_MAX(vma_tree, &mm->vmas);
}

struct vm_area_struct *vma_next(struct vm_area_struct *vma)
{
	lockdep_assert_held(&vma->mm->mmap_lock);
	return RB_NEXT(vma_tree, &vma->mm->vmas, vma);
}

struct vm_area_struct *vma_prev(struct vm_area_struct *vma)
{
	lockdep_assert_held(&vma->mm->mmap_lock);
	return RB_PREV(vma_tree, &vma->mm->vmas, vma);
}

bool hva_range_ok(hva_t addr, uint64_t len)
{
	return PAGE_ALIGNED(addr) && PAGE_ALIGNED(len) && addr <= HVA_MAX && len <= HVA_MAX - addr;
}

/* ---- areas as objects ---- */

struct vm_area_struct *clone_vma(const struct vm_area_struct *like, struct mm_struct *mm,
				 hva_t start, hva_t end, uint64_t pgoff)
{
	struct vm_area_struct *vma = kzalloc(sizeof(*vma), GFP_KERNEL);

	if (!vma)
		return NULL;
	vma->mm = mm;
	vma->start = start;
	vma->end = end;
	vma->pgoff = pgoff;
	vma->prot = like->prot;
	vma->flags = like->flags;
	vma->mapping = like->mapping;
	vma->anon_vma = like->anon_vma;
	if (vma->mapping)
		address_space_get(vma->mapping);
	if (vma->anon_vma)
		anon_vma_get(vma->anon_vma);
	return vma;
}

void free_vma(struct vm_area_struct *vma)
{
	if (vma->mapping)
		address_space_put(vma->mapping);
	if (vma->anon_vma)
		anon_vma_put(vma->anon_vma);
	kfree(vma);
}

/* ---- reverse maps ---- */

void vma_lock_rmaps(struct vm_area_struct *vma)
{
	if (vma->mapping)
		down_write(&vma->mapping->i_mmap_rwsem);
	if (vma->anon_vma)
		down_write(&vma->anon_vma->rwsem);
}

void vma_unlock_rmaps(struct vm_area_struct *vma)
{
	if (vma->anon_vma)
		up_write(&vma->anon_vma->rwsem);
	if (vma->mapping)
		up_write(&vma->mapping->i_mmap_rwsem);
}

static void join(struct interval_tree *tree, struct interval_tree_node *node,
		 const struct vm_area_struct *vma)
{
	node->start = vma->pgoff;
	node->last = vma->pgoff + ((vma->end - vma->start) >> PAGE_SHIFT) - 1;
	interval_tree_insert(tree, node);
}

static void join_rmaps(struct vm_area_struct *vma)
{
	if (vma->mapping)
		join(&vma->mapping->i_mmap, &vma->in_mapping, vma);
	if (vma->anon_vma)
		join(&vma->anon_vma->vmas, &vma->in_anon_vma, vma);
}

static void leave_rmaps(struct vm_area_struct *vma)
{
	if (vma->mapping)
		interval_tree_remove(&vma->mapping->i_mmap, &vma->in_mapping);
	if (vma->anon_vma)
		interval_tree_remove(&vma->anon_vma->vmas, &vma->in_anon_vma);
}

/* ---- changes ---- */

void link_vma_locked(struct vm_area_struct *vma)
{
	lockdep_assert_held_write(&vma->mm->mmap_lock);
	RB_INSERT(vma_tree, &vma->mm->vmas, vma);
	vma->mm->nr_vmas++;
	join_rmaps(vma);
}

void link_vma(struct vm_area_struct *vma)
{
	vma_lock_rmaps(vma);
	link_vma_locked(vma);
	vma_unlock_rmaps(vma);
}

/*
 * Once a VMA is out of its reverse maps no walker can find it. One that found it before, and holds
 * the lock, still works on its entries: taking the lock for writing waits for that walker.
 */
static void leave_rmaps_for_good(struct vm_area_struct *vma)
{
	vma_lock_rmaps(vma);
	leave_rmaps(vma);
	vma_unlock_rmaps(vma);
}

void unlink_vma(struct vm_area_struct *vma)
{
	lockdep_assert_held_write(&vma->mm->mmap_lock);
	leave_rmaps_for_good(vma);
	RB_REMOVE(vma_tree, &vma->mm->vmas, vma);
	vma->mm->nr_vmas--;
}

/* Where it begins stays, and so does its first page: an area loses its head by a split. */
static void resize_vma_locked(struct vm_area_struct *vma, hva_t end)
{
	lockdep_assert_held_write(&vma->mm->mmap_lock);
	leave_rmaps(vma);
	vma->end = end;
	join_rmaps(vma);
}

void resize_vma(struct vm_area_struct *vma, hva_t end)
{
	vma_lock_rmaps(vma);
	resize_vma_locked(vma, end);
	vma_unlock_rmaps(vma);
}

/* In one step to rmap walkers: between the two each page is in exactly one of the areas. */
int split_vma_at_unlimited(struct mm_struct *mm, hva_t addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr), *upper;

	lockdep_assert_held_write(&mm->mmap_lock);
	if (!vma || vma->start == addr)
		return 0;
	upper = clone_vma(vma, mm, addr, vma->end, vma_page(vma, addr));
	if (!upper)
		return -ENOMEM;
	vma_lock_rmaps(vma);
	resize_vma_locked(vma, addr);
	link_vma_locked(upper);
	vma_unlock_rmaps(vma);
	return 0;
}

int split_vma_at(struct mm_struct *mm, hva_t addr)
{
	const struct vm_area_struct *vma = find_vma(mm, addr);

	if (vma && vma->start < addr && mm->nr_vmas >= MM_MAX_VMAS)
		return -ENOMEM;
	return split_vma_at_unlimited(mm, addr);
}

/* Private memory that shows no object numbers its pages by where it was made: those must fit, too,
 * and the pages must be of one family. */
static bool can_merge(const struct vm_area_struct *lower, const struct vm_area_struct *upper)
{
	return lower->end == upper->start && lower->prot == upper->prot &&
	       lower->flags == upper->flags && lower->mapping == upper->mapping &&
	       lower->anon_vma == upper->anon_vma && vma_page(lower, lower->end) == upper->pgoff;
}

void merge_vmas(struct mm_struct *mm, hva_t start, hva_t end)
{
	struct vm_area_struct *vma = find_vma_above(mm, start ? start - 1 : 0);

	lockdep_assert_held_write(&mm->mmap_lock);
	while (vma && vma->end <= end) {
		struct vm_area_struct *next = vma_next(vma);

		if (!next || !can_merge(vma, next)) {
			vma = next;
			continue;
		}
		vma_lock_rmaps(vma);
		leave_rmaps(next);
		resize_vma_locked(vma, next->end);
		vma_unlock_rmaps(vma);
		RB_REMOVE(vma_tree, &mm->vmas, next);
		mm->nr_vmas--;
		free_vma(next);
	}
}

/* ---- exit ---- */

void unlink_vmas(struct mm_struct *mm)
{
	lockdep_assert_held_write(&mm->mmap_lock);
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma))
		leave_rmaps_for_good(vma);
}

void free_vmas(struct mm_struct *mm)
{
	struct vm_area_struct *vma;

	lockdep_assert_held_write(&mm->mmap_lock);
	while ((vma = RB_MIN(vma_tree, &mm->vmas))) {
		RB_REMOVE(vma_tree, &mm->vmas, vma);
		mm->nr_vmas--;
		free_vma(vma);
	}
}
