// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * mm_mremap: grow, shrink or move a mapping (kernel: mm/mremap.c).
 *
 * A move takes the entries along, whatever they are, and the pages keep their numbers: the new area
 * begins at the same page of its object, or of its family of private pages. Whatever can fail comes
 * first: the border of the old area, the new area, tables for every entry that there is. Then, in
 * one window over the old range (that is where a secondary may have the pages), entry by entry:
 *
 *   move of page 7                            migration of its frame A to B
 *   --------------                            -----------------------------
 *   locks the reverse maps for writing
 *   old entry -> none, new entry := A         waits for a reverse-map lock
 *   lets go of them
 *                                             walks: the new area's entry, A -> migration entry
 *
 * Without those locks the walk could look at the new entry before, and at the old one after the
 * move, and find A in neither. One that unmaps would see by the references that it has missed an
 * entry; but one that puts entries back would leave a migration entry behind, whose page is gone.
 * Nor does a walk find the page of one entry in two places: it visits both areas, and a moved entry
 * is none.
 *
 * Replayed by tests/unit/test_mremap_walk.c (an_entry_does_not_slip_through).
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

struct move {
	struct mm_struct *mm;
	hva_t from, to; /* page by page, so far apart */
	struct vm_area_struct *old, *new;
};

/* Each leaf of the old range has leaves where its entries go. */
static int make_tables(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	const struct move *move = arg;
	hva_t first = hva - move->from + move->to;
	hva_t last = first + (nr - 1) * PAGE_SIZE;

	(void)ptep;
	if (!pgtable_get(move->mm->pgtable, first) || !pgtable_get(move->mm->pgtable, last))
		return -ENOMEM;
	return 0;
}

/* The moved entry counts as written: who looks for what changed here finds it. */
static void move_entry(const struct move *move, pte_t *ptep, hva_t hva)
{
	hva_t to = hva - move->from + move->to;
	pte_t *target = pgtable_lookup(move->mm->pgtable, to);
	pte_t pte = set_pte(move->mm, hva, ptep, 0);

	if (pte_none(pte))
		return;
	ASSERT(target && pte_none(pte_load(target)), "a move goes to where nothing is");
	set_pte(move->mm, to, target, pte | PTE_SOFT_DIRTY);
}

static int move_leaf(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	const struct move *move = arg;

	spin_lock(&move->mm->page_table_lock);
	for (unsigned int i = 0; i < nr; i++)
		move_entry(move, &ptep[i], hva + i * PAGE_SIZE);
	spin_unlock(&move->mm->page_table_lock);
	return 0;
}

static void move_entries(struct move *move)
{
	struct mmu_notifier_range range;

	mutation_range_init(&range, MUTATION_MOVE, move->mm, move->old->start, move->old->end);
	mmu_notifier_invalidate_range_start(&range);
	vma_lock_rmaps(move->old);
	link_vma_locked(move->new);
	pgtable_walk_leaves(move->mm->pgtable, move->old->start, move->old->end, move_leaf, move);
	vma_unlock_rmaps(move->old);
	mmu_notifier_invalidate_range_end(&range);
}

/* [from, from + old_len), an area of its own, goes to where nothing is, and is new_len there. */
static int move_area(struct mm_struct *mm, hva_t from, uint64_t old_len, hva_t to, uint64_t new_len,
		     struct pgtable_node **tables)
{
	struct move move = {.mm = mm, .from = from, .to = to, .old = find_vma(mm, from)};
	int ret;

	ASSERT(move.old->start == from && move.old->end == from + old_len, "an area of its own");
	move.new = clone_vma(move.old, mm, to, to + new_len, move.old->pgoff);
	if (!move.new)
		return -ENOMEM;
	ret = pgtable_walk_leaves(mm->pgtable, from, from + old_len, make_tables, &move);
	if (ret) {
		free_vma(move.new);
		unlink_tables(mm, to, to + new_len, tables);
		return ret;
	}
	move_entries(&move);
	unlink_vma(move.old);
	free_vma(move.old);
	unlink_tables(mm, from, from + old_len, tables);
	merge_vmas(mm, to, to + new_len);
	return 0;
}

/* ---- what was asked for ---- */

struct remap {
	hva_t addr, new_addr;
	uint64_t old_len, new_len;
	unsigned int flags;
};

static bool arguments_ok(struct remap *r)
{
	if ((r->flags & ~(MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED)) || !PAGE_ALIGNED(r->addr))
		return false;
	if (r->old_len > HVA_MAX || r->new_len > HVA_MAX || !r->old_len || !r->new_len)
		return false;
	r->old_len = PAGE_ALIGN(r->old_len);
	r->new_len = PAGE_ALIGN(r->new_len);
	if (!hva_range_ok(r->addr, r->old_len))
		return false;
	if (!(r->flags & MM_MREMAP_FIXED))
		return true;
	if (!(r->flags & MM_MREMAP_MAYMOVE) || !hva_range_ok(r->new_addr, r->new_len))
		return false;
	/* The two may touch, but not overlap. */
	return r->new_addr >= r->addr + r->old_len || r->addr >= r->new_addr + r->new_len;
}

/* The area of the whole old range, or an error. */
static int check_area(struct mm_struct *mm, const struct remap *r)
{
	const struct vm_area_struct *vma = find_vma(mm, r->addr);
	uint64_t first_page, nr_pages;

	if (!vma || vma->end - r->addr < r->old_len)
		return -EFAULT;
	if (!vma->mapping || r->new_len <= r->old_len)
		return 0;
	first_page = vma_page(vma, r->addr);
	nr_pages = r->new_len >> PAGE_SHIFT;
	return nr_pages <= vma->mapping->nr_pages - first_page ? 0 : -EINVAL;
}

static bool can_grow_in_place(struct mm_struct *mm, const struct remap *r)
{
	struct vm_area_struct *vma = find_vma(mm, r->addr), *next;

	if (r->addr + r->old_len != vma->end || !hva_range_ok(r->addr, r->new_len))
		return false;
	next = vma_next(vma);
	return !next || next->start >= r->addr + r->new_len;
}

static int move_to(struct mm_struct *mm, const struct remap *r, hva_t to,
		   struct pgtable_node **tables)
{
	uint64_t len = min(r->old_len, r->new_len);
	int ret;

	if (mm->nr_vmas + 3 > MM_MAX_VMAS)
		return -ENOMEM;
	ret = split_vma_at(mm, r->addr);
	if (!ret)
		ret = split_vma_at(mm, r->addr + len);
	if (!ret)
		ret = move_area(mm, r->addr, len, to, r->new_len, tables);
	if (ret)
		merge_vmas(mm, r->addr, r->addr + r->old_len);
	return ret;
}

/* A move to a fixed place replaces what is there, and drops what the new length leaves out. */
static int move_fixed(struct mm_struct *mm, const struct remap *r, struct pgtable_node **tables)
{
	int ret = unmap_range(mm, r->new_addr, r->new_addr + r->new_len, tables);

	if (!ret && r->new_len < r->old_len)
		ret = unmap_range(mm, r->addr + r->new_len, r->addr + r->old_len, tables);
	return ret ? ret : move_to(mm, r, r->new_addr, tables);
}

static int remap_locked(struct mm_struct *mm, struct remap *r, struct pgtable_node **tables)
{
	int ret = check_area(mm, r);

	if (ret)
		return ret;
	if (r->flags & MM_MREMAP_FIXED)
		return move_fixed(mm, r, tables);
	r->new_addr = r->addr;
	if (r->new_len <= r->old_len)
		return unmap_range(mm, r->addr + r->new_len, r->addr + r->old_len, tables);
	if (can_grow_in_place(mm, r)) {
		resize_vma(find_vma(mm, r->addr), r->addr + r->new_len);
		merge_vmas(mm, r->addr, r->addr + r->new_len);
		return 0;
	}
	if (!(r->flags & MM_MREMAP_MAYMOVE))
		return -ENOMEM;
	r->new_addr = find_gap(mm, r->new_len);
	return r->new_addr == INVALID_HVA ? -ENOMEM : move_to(mm, r, r->new_addr, tables);
}

int mm_mremap(struct mm_struct *mm, hva_t addr, uint64_t old_len, uint64_t new_len,
	      unsigned int flags, hva_t *new_addr)
{
	struct remap r = {addr, *new_addr, old_len, new_len, flags};
	struct pgtable_node *tables = NULL;
	int ret;

	if (!arguments_ok(&r))
		return -EINVAL;
	mmap_write_lock(mm);
	ret = remap_locked(mm, &r, &tables);
	mmap_write_unlock(mm);
	pgtable_free_list(tables);
	if (!ret)
		*new_addr = r.new_addr;
	return ret;
}
