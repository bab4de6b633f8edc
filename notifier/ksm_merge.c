// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A page becomes a merged page, or gives its place to one (kernel: try_to_merge_one_page in
 * mm/ksm.c). With the page's frame locked all the way, so that nobody can make its entries writable
 * again (mm_cow.c) or move it:
 *
 *   1. The entry loses the right to write, in a window of one page, if it has it. All others that
 *      map the page have it read-only already, or it would have been copied for us.
 *   2. Has anybody a reference, beyond those of the entries, and ours? Then somebody may be
 * writing: not now.
 *   3. The contents are compared. They cannot change any more.
 *   4. In a second window the entry goes, references are looked for again, and the entry comes back
 *      as one of the merged page: or as it was.
 *
 * Step 2 in a ladder, against a store (mm_access.c):
 *
 *   mm_write                                  merge of F into K
 *   --------                                  -----------------
 *   entry: F, writable. Pins F
 *   entry still F, writable: dirty
 *                                             entry := F, read-only
 *                                             a reference too many: writable again, not now
 *   stores to F; unpins it
 *
 * Without step 2 the contents are compared before the store, the entry is K, and the store lands in
 * a page that nobody has. Both sides store before they look, with full barriers, so one of them
 * sees the other. Replayed by tests/unit/test_ksm_races.c (a_write_that_is_under_way).
 *
 * In step 4 it is who pins the page for reading, which a read-only entry allows: the page has to
 * stay where it is from then on (mm_pin_page). The entry is a migration entry meanwhile, so that
 * nobody gains the page, new or old, before it is decided which; who wants it waits for the frame
 * lock.
 *
 * The count is exact enough: the family's lock, held for reading, keeps out forks, which alone
 * could add to mappings and references; and an unmapping that goes on elsewhere takes from the
 * mapcount first, so that there may seem to be a reference too many, never one too few.
 *
 * A page that becomes a merged page takes steps 1 and 2 only: its entries stay.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/contents.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/swap.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"

/* Where a page is mapped, in a mergeable area, with mmap_lock held for reading. */
struct place {
	struct vm_area_struct *vma;
	hva_t hva;
	pte_t *ptep;
	pfn_t pfn;
};

static bool find_place(const struct ksm_item *item, pfn_t pfn, struct place *place)
{
	struct vm_area_struct *vma = find_vma(item->mm, item->hva);

	if (!vma || !(vma->flags & VMA_MERGEABLE))
		return false;
	*place = (struct place){vma, item->hva, pgtable_lookup(item->mm->pgtable, item->hva), pfn};
	return place->ptep;
}

/* A reference, then the entry again: as mm_access.c has it. */
pfn_t ksm_get_entry_page(struct mm_struct *mm, pte_t *ptep)
{
	pte_t pte = pte_load(ptep), again;
	pfn_t pfn = pte_pfn(pte);
	const struct frame *frame;

	if (!pte_present(pte) || !phys_get_unless_zero(mm->phys, pfn))
		return INVALID_PFN;
	again = pte_load(ptep);
	frame = pfn_to_frame(mm->phys, pfn);
	if (pte_present(again) && pte_pfn(again) == pfn &&
	    (frame_anon_vma(frame) || frame_is_ksm(frame)))
		return pfn;
	phys_put(mm->phys, pfn);
	return INVALID_PFN;
}

pfn_t ksm_get_page(const struct ksm_item *item)
{
	struct phys *phys = item->mm->phys;
	pfn_t pfn = INVALID_PFN;
	struct place place;

	mmap_read_lock(item->mm);
	if (find_place(item, INVALID_PFN, &place))
		pfn = ksm_get_entry_page(item->mm, place.ptep);
	mmap_read_unlock(item->mm);
	if (pfn != INVALID_PFN && frame_is_ksm(pfn_to_frame(phys, pfn))) {
		phys_put(phys, pfn);
		pfn = INVALID_PFN;
	}
	return pfn;
}

static void open_window(const struct place *place, enum mm_mutation what,
			struct mmu_notifier_range *range)
{
	mutation_range_init(range, what, place->vma->mm, place->hva, place->hva + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(range);
}

static bool maps_page(const struct place *place, pte_t pte)
{
	return pte_present(pte) && pte_pfn(pte) == place->pfn;
}

/* By anybody but its entries, the swap cache and the scanner. */
static bool is_held(const struct place *place)
{
	const struct frame *frame = pfn_to_frame(place->vma->mm->phys, place->pfn);
	int references = atomic_read_acquire(&frame->refcount); /* before the mapcount */

	return references != atomic_read(&frame->mapcount) + frame_base_refs(frame) + 1;
}

/* Steps 1 and 2, under page_table_lock. */
static bool take_bits(const struct place *place, pte_t bits)
{
	struct mm_struct *mm = place->vma->mm;
	pte_t pte = pte_load(place->ptep), taken;

	do {
		if (!maps_page(place, pte))
			return false;
		taken = pte & bits;
	} while (!change_pte(mm, place->hva, place->ptep, &pte, pte & ~bits));
	if (!is_held(place))
		return true;
	set_pte_bits(mm, place->hva, place->ptep, taken);
	return false;
}

/* @bits: PTE_WRITE, and more. With the frame locked an entry that is read-only stays so. */
static bool write_protect_page(const struct place *place, pte_t bits)
{
	struct mm_struct *mm = place->vma->mm;
	pte_t pte = pte_load(place->ptep);
	struct mmu_notifier_range range;
	bool protected;

	if (!maps_page(place, pte))
		return false;
	if (pte & PTE_WRITE)
		open_window(place, MUTATION_MERGE_PROTECT, &range);
	spin_lock(&mm->page_table_lock);
	protected = take_bits(place, bits);
	spin_unlock(&mm->page_table_lock);
	if (pte & PTE_WRITE)
		mmu_notifier_invalidate_range_end(&range);
	return protected;
}

/* Step 4, under page_table_lock, @to being locked as well: its mapcount grows. */
static bool exchange_entry(const struct place *place, pfn_t to)
{
	struct mm_struct *mm = place->vma->mm;
	pte_t pte = pte_load(place->ptep);

	do {
		if (!maps_page(place, pte))
			return false;
		ASSERT(!(pte & PTE_WRITE), "the entries of a locked page stay read-only");
	} while (!change_pte(mm, place->hva, place->ptep, &pte,
			     pte_make(place->pfn, (pte & PTE_KEEP) | PTE_MIGRATION)));
	if (is_held(place)) {
		set_pte(mm, place->hva, place->ptep, pte);
		return false;
	}
	phys_get(mm->phys, to);
	atomic_inc(&pfn_to_frame(mm->phys, to)->mapcount);
	atomic_dec(&pfn_to_frame(mm->phys, place->pfn)->mapcount);
	pte &= PTE_KEEP & ~PTE_OWN;
	set_pte(mm, place->hva, place->ptep, pte_make(to, pte | PTE_PRESENT));
	return true;
}

static bool replace_page(const struct place *place, pfn_t to)
{
	struct mm_struct *mm = place->vma->mm;
	struct mmu_notifier_range range;
	bool replaced;

	if (!maps_page(place, pte_load(place->ptep)))
		return false;
	open_window(place, MUTATION_MERGE, &range);
	spin_lock(&mm->page_table_lock);
	replaced = exchange_entry(place, to);
	spin_unlock(&mm->page_table_lock);
	mmu_notifier_invalidate_range_end(&range);
	return replaced;
}

/* ---- with the frame locked ---- */

static bool make_locked(const struct place *place, struct ksm_page *page, struct ksm_site **site)
{
	struct phys *phys = place->vma->mm->phys;
	struct anon_vma *anon_vma = frame_anon_vma(pfn_to_frame(phys, place->pfn));
	bool made;

	if (!anon_vma)
		return false;
	leave_swap_cache_if_unused(phys, place->pfn);
	if (frame_test(pfn_to_frame(phys, place->pfn), FRAME_SWAPCACHE))
		return false; /* who has the swap entry expects a private page of that family */
	down_read(&anon_vma->rwsem);
	made = write_protect_page(place, PTE_WRITE | PTE_OWN);
	up_read(&anon_vma->rwsem);
	if (!made)
		return false;
	ksm_page_make(page, phys, place->pfn, *site);
	*site = NULL;
	return true;
}

/* The site comes before the entry (ksm_page.c). */
static bool replace_with_site(const struct place *place, struct ksm_page *page, pfn_t to,
			      struct ksm_site **site)
{
	const struct frame *frame = pfn_to_frame(place->vma->mm->phys, place->pfn);
	bool added = ksm_page_add_site(page, *site, frame_anon_vma(frame), frame->index);
	bool replaced = replace_page(place, to);

	if (added && !replaced)
		ksm_page_remove_site(page, *site);
	if (added)
		*site = NULL;
	return replaced;
}

/* The second frame lock is had by trylock: nobody waits for one with another in hand. */
static bool merge_locked(const struct place *place, struct ksm_page *page, struct ksm_site **site)
{
	struct phys *phys = place->vma->mm->phys;
	struct anon_vma *anon_vma = frame_anon_vma(pfn_to_frame(phys, place->pfn));
	bool merged;
	pfn_t to;

	if (!anon_vma || !trylock_ksm_page(page, phys, &to))
		return false;
	down_read(&anon_vma->rwsem);
	merged = write_protect_page(place, PTE_WRITE) &&
		 !contents_compare_pages(phys_map(phys, place->pfn), phys_map(phys, to)) &&
		 replace_with_site(place, page, to, site);
	up_read(&anon_vma->rwsem);
	unlock_frame(phys, to);
	return merged;
}

/* ---- for the scanner ---- */

int ksm_make(const struct ksm_item *item, pfn_t pfn, struct ksm_page *page)
{
	struct ksm_site *site = kmalloc(sizeof(*site), GFP_KERNEL);
	struct phys *phys = item->mm->phys;
	struct place place;
	bool made = false;

	if (!site)
		return -ENOMEM;
	mmap_read_lock(item->mm);
	if (find_place(item, pfn, &place)) {
		lock_frame(phys, pfn);
		made = make_locked(&place, page, &site);
		unlock_frame(phys, pfn);
	}
	mmap_read_unlock(item->mm);
	kfree(site);
	return made;
}

int ksm_merge(const struct ksm_item *item, pfn_t pfn, struct ksm_page *page)
{
	struct ksm_site *site = kmalloc(sizeof(*site), GFP_KERNEL);
	struct phys *phys = item->mm->phys;
	struct place place;
	bool merged = false;

	if (!site)
		return -ENOMEM;
	mmap_read_lock(item->mm);
	if (find_place(item, pfn, &place)) {
		lock_frame(phys, pfn);
		merged = merge_locked(&place, page, &site);
		unlock_frame(phys, pfn);
		if (merged)
			unmapped_page(place.vma, pfn);
	}
	mmap_read_unlock(item->mm);
	kfree(site);
	return merged;
}
