// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * mm_fork: a second address space with the same contents (kernel: dup_mmap in kernel/fork.c,
 * copy_page_range in mm/memory.c).
 *
 * Shared areas are mapped anew and fault their pages in. The entries of private ones are copied,
 * read-only in both from then on (mm_cow.c goes on from there), each area in one window of the
 * parent, as its entries lose the right to write. Per area:
 *
 *  1. Tables for the child, as nothing may be allocated in step 2. Pages that devices have, for
 *     themselves or in their memory, are taken back.
 *  2. With the reverse-map locks held for writing: link the child's area, copy the entries. So a
 *     walk sees either none of the child's entries or all of them: there is no moment at which it
 *     has passed the child's entry while it is none, and the parent's when it is none again.
 *     A swap entry is copied as it is, and the child swaps in for itself.
 *  3. What was passed by in step 2. Pages that are on their way: the move may fail, and then it is
 *     because somebody pinned the page before it began; so wait, and look again. And pages that are
 *     pinned, by somebody who may be writing to them at this moment, by an entry that allowed it.
 *     The child gets a copy at once, as it must not see what is written to the page from now on:
 *
 *       mm_write, parent                      fork
 *       ----------------                      ----
 *       entry: F, writable. Pins F
 *       entry still F, writable: dirty
 *                                             entry := F, read-only
 *                                             F is pinned: no entry for the child
 *       stores to F; unpins it
 *                                             copies F to G; child's entry := G
 *
 *     Each stores before it looks, with full barriers: either the access finds the entry read-only,
 *     or the fork finds the pin. Replayed by tests/unit/test_fork.c (a_write_that_is_under_way).
 *     Who pins a page for long (mm_pin_page) keeps it in the same way.
 *
 * The child's mm is nobody else's until the call returns, but reverse-map walkers find its areas.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/contents.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/swap.h"
#include "notifier/mutations.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

struct area_copy {
	struct vm_area_struct *parent, *child;
	bool passed_by; /* step 2 left pages for step 3 */
};

static int make_tables(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	struct mm_struct *child = arg;

	(void)ptep, (void)nr;
	return pgtable_get(child->pgtable, hva) ? 0 : -ENOMEM;
}

/* A full barrier lies between the entry's change and the look at the pins. */
static bool is_pinned(struct mm_struct *mm, pte_t pte)
{
	const struct frame *frame = pfn_to_frame(mm->phys, pte_pfn(pte));

	/* A page of an object is only ever read by way of a private area. */
	return frame_anon_vma(frame) && frame_is_pinned(frame);
}

static void copy_entry(struct area_copy *copy, pte_t *ptep, pte_t *child_ptep, hva_t hva)
{
	struct mm_struct *parent = copy->parent->mm, *child = copy->child->mm;
	pte_t pte = pte_load(ptep);
	bool own = pte & PTE_OWN;

	if (pte_none(pte))
		return;
	ASSERT(!pte_exclusive(pte) && !pte_device(pte), "devices have nothing here: hva %#llx",
	       (unsigned long long)hva);
	if (pte_migration(pte)) {
		clear_pte_bits(parent, hva, ptep, PTE_WRITE);
		copy->passed_by = true;
		return;
	}
	pte = clear_pte_bits(parent, hva, ptep, PTE_WRITE | PTE_OWN);
	if (pte_present(pte)) {
		if (is_pinned(parent, pte)) {
			/* It stays the parent's own, and may be written by it where it is. */
			if (own)
				set_pte_bits(parent, hva, ptep, PTE_OWN);
			copy->passed_by = true;
			return;
		}
		phys_get(parent->phys, pte_pfn(pte));
		atomic_inc(&pfn_to_frame(parent->phys, pte_pfn(pte))->mapcount);
	} else if (pte_swap(pte)) {
		swap_dup(parent->phys, (uint32_t)pte_pfn(pte));
	}
	set_pte(child, hva, child_ptep, pte & ~PTE_ACCESSED);
}

static int copy_leaf(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	struct area_copy *copy = arg;
	struct mm_struct *parent = copy->parent->mm, *child = copy->child->mm;
	pte_t *child_ptep = pgtable_lookup(child->pgtable, hva);

	spin_lock(&parent->page_table_lock);
	spin_lock_nested(&child->page_table_lock, SINGLE_DEPTH_NESTING);
	for (unsigned int i = 0; i < nr; i++)
		copy_entry(copy, &ptep[i], &child_ptep[i], hva + i * PAGE_SIZE);
	spin_unlock(&child->page_table_lock);
	spin_unlock(&parent->page_table_lock);
	return 0;
}

static void copy_entries(struct area_copy *copy)
{
	struct vm_area_struct *parent = copy->parent;
	struct mmu_notifier_range range;

	mutation_range_init(&range, MUTATION_FORK, parent->mm, parent->start, parent->end);
	mmu_notifier_invalidate_range_start(&range);
	vma_lock_rmaps(parent);
	link_vma_locked(copy->child);
	pgtable_walk_leaves(parent->mm->pgtable, parent->start, parent->end, copy_leaf, copy);
	vma_unlock_rmaps(parent);
	mmu_notifier_invalidate_range_end(&range);
}

/* ---- step 3 ---- */

/*
 * @pte is what the entry was, present and read-only. Nobody faults or unmaps under our mmap_lock,
 * and what moves the page waits for our reference. 0, -ENOMEM, -EAGAIN: it was moved just now.
 */
static int copy_page(const struct area_copy *copy, pte_t pte, pte_t *ptep, pte_t *child_ptep,
		     hva_t hva)
{
	struct phys *phys = copy->child->mm->phys;
	pfn_t from = pte_pfn(pte), to;

	if (!phys_get_unless_zero(phys, from))
		return -EAGAIN;
	if ((pte_load(ptep) ^ pte) & ~PTE_ACCESSED) {
		phys_put(phys, from);
		return -EAGAIN;
	}
	to = alloc_user_frame(phys);
	if (to != INVALID_PFN) {
		contents_copy_page(phys_map(phys, to), phys_map(phys, from));
		lock_frame(phys, to);
		set_anon_frame(copy->child, hva, to);
		install_entry(copy->child, hva, child_ptep, to,
			      (pte & (PTE_READ | PTE_DIRTY | PTE_SOFT_DIRTY)) | PTE_OWN);
		unlock_frame(phys, to);
	}
	phys_put(phys, from);
	return to != INVALID_PFN ? 0 : -ENOMEM;
}

/* Nothing is writable by now: so what step 2 does needs no window any more. */
static int copy_if_passed_by(pte_t *ptep, hva_t hva, void *arg)
{
	struct area_copy *copy = arg;
	pte_t *child_ptep = pgtable_lookup(copy->child->mm->pgtable, hva);
	int ret = 0;

	while (!ret && !pte_none(pte_load(ptep)) && pte_none(pte_load(child_ptep))) {
		pte_t pte = pte_load(ptep);

		if (pte_migration(pte)) {
			migration_entry_wait(copy->parent->mm, ptep, pte);
			continue;
		}
		vma_lock_rmaps(copy->parent);
		copy_leaf(ptep, 1, hva, copy);
		vma_unlock_rmaps(copy->parent);
		pte = pte_load(ptep);
		if (pte_none(pte_load(child_ptep)) && pte_present(pte))
			ret = copy_page(copy, pte, ptep, child_ptep, hva);
		if (ret == -EAGAIN)
			ret = 0;
	}
	return ret;
}

/* ---- areas ---- */

static int copy_area(struct vm_area_struct *parent, struct mm_struct *child)
{
	struct area_copy copy = {.parent = parent};
	int ret;

	copy.child = clone_vma(parent, child, parent->start, parent->end, parent->pgoff);
	if (!copy.child)
		return -ENOMEM;
	if (!vma_is_private(parent)) {
		link_vma(copy.child);
		return 0;
	}
	ret = pgtable_walk_leaves(parent->mm->pgtable, parent->start, parent->end, make_tables,
				  child);
	if (!ret)
		ret = take_back_from_devices(parent);
	if (ret) {
		free_vma(copy.child);
		return ret;
	}
	copy_entries(&copy);
	if (copy.passed_by)
		ret = pgtable_walk(parent->mm->pgtable, parent->start, parent->end,
				   copy_if_passed_by, &copy);
	return ret;
}

int mm_fork(struct mm_struct *mm, struct mm_struct **childp)
{
	struct mm_struct *child = mm_alloc(mm->phys);
	int ret = 0;

	if (!child)
		return -ENOMEM;
	mmap_write_lock(mm);
	down_write_nest_lock(&child->mmap_lock, &mm->mmap_lock);
	if (mm->ksm_mm)
		ret = ksm_enter(child);
	for (struct vm_area_struct *vma = vma_first(mm); vma && !ret; vma = vma_next(vma))
		ret = copy_area(vma, child);
	up_write(&child->mmap_lock);
	mmap_write_unlock(mm);

	if (ret)
		mmput(child);
	else
		*childp = child;
	return ret;
}
