/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The move of one page to another frame, wherever it is mapped (kernel: mm/migrate.c).
 *
 * With the old and the new frame locked all the way:
 *
 *   1. Every entry that maps the old frame becomes a migration entry, each in a window of
 *      its own mm that is closed right after. Who wants the page now waits (mm_fault.c).
 *   2. References are frozen: the count must be what is left to expect, the caller's, the slot's,
 *      and the swap cache's. Anyone else's makes the move fail, and the entries go back to what
 * they were.
 *   3. Contents are copied: no mapping is left to write through, no reference can be had.
 *   4. A shared page's slot is re-pointed, and the swap cache. The old frame is no page any more;
 *      the new one is, on the same list of reclaim.
 *   5. Migration entries that are still there become present entries of the new frame. This removes
 *      nothing, so it needs no window. A mapping that was zapped meanwhile stays zapped.
 *   6. Unlock, which wakes those who wait; the last put poisons and frees the old frame.
 *
 * Step 2 in a ladder, against an access (mm_access.c):
 *
 *   mm_write                                  migration
 *   --------                                  ---------
 *   entry: A. A.refcount++. Entry still A
 *                                             entry A -> migration entry
 *                                             freeze A: one reference too many, fails
 *   store; A.refcount--                       (tries a little longer) freeze A: done
 *                                             copy: has the store
 *   entry: migration entry, waits             slot and entry := B, unlock
 *   entry: B ...
 *
 * Nothing is allocated after step 1 began, so nothing can fail but the freeze.
 *
 * A private page that has lost its only mapping by the end of step 5 (zap, exit) belongs to nobody:
 * it leaves its anon_vma here, and our put frees it.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/contents.h"
#include "notifier/frame.h"
#include "notifier/ksm_internal.h"
#include "notifier/lru.h"
#include "notifier/mm_internal.h"
#include "notifier/swap.h"
#include "notifier/mutations.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

/* What the page takes along; the lists and the swap cache have their own calls. */
#define MOVED_FLAGS (FRAME_REFERENCED | FRAME_DIRTY | FRAME_LAZYFREE)

int migration_prepare(struct migration *m, struct phys *phys, pfn_t from)
{
	struct frame *frame = pfn_to_frame(phys, from);

	ASSERT(frame_locked(frame), "the caller locked the frame");
	if (!frame->mapping && !frame_test(frame, FRAME_SWAPCACHE))
		return -ENOENT;
	if (frame_is_pinned(frame))
		return -EBUSY;
	m->to = alloc_migration_frame(phys);
	if (m->to == INVALID_PFN)
		return -ENOMEM;
	/* The lock of a frame that is no page yet: whoever has it just looks (migrate_range.c). */
	lock_new_frame(phys, m->to, from);
	m->from = from;
	m->nr_unmapped = 0;
	m->anon_vma = frame_anon_vma(frame);
	if (m->anon_vma)
		anon_vma_get(m->anon_vma);
	return 0;
}

void migration_unmap_entry(struct migration *m, struct mm_struct *mm, hva_t hva, pte_t *ptep)
{
	bool unmapped = false;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	/* Exchange until it sticks: accessed and dirty bits may be set meanwhile, nothing else. */
	while (!unmapped && pte_maps_frame(pte) && pte_pfn(pte) == m->from)
		unmapped = change_pte(mm, hva, ptep, &pte,
				      pte_make(m->from, (pte & PTE_KEEP) | PTE_MIGRATION));
	if (unmapped) {
		m->nr_unmapped++;
		atomic_dec(&pfn_to_frame(mm->phys, m->from)->mapcount);
		phys_put(mm->phys, m->from); /* the entry's; the migration has its own */
	}
	spin_unlock(&mm->page_table_lock);
}

/*
 * An entry that does not name the frame now will not until the migration is over, as a fault would
 * need the frame lock: so no window is opened for it.
 */
static void unmap_one(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	struct migration *m = arg;
	struct mm_struct *mm = vma->mm;
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	pte_t pte = ptep ? pte_load(ptep) : 0;
	struct mmu_notifier_range range;

	if (!pte_maps_frame(pte) || pte_pfn(pte) != m->from)
		return;
	mutation_range_init(&range, MUTATION_MIGRATE, mm, hva, hva + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	migration_unmap_entry(m, mm, hva, ptep);
	mmu_notifier_invalidate_range_end(&range);
}

/* Steps 2 to 4. The old frame ends with our reference alone. */
static bool move_page(struct migration *m, struct phys *phys)
{
	struct frame *from = pfn_to_frame(phys, m->from), *to = pfn_to_frame(phys, m->to);
	struct address_space *mapping = frame_address_space(from);

	if (!frame_ref_freeze_wait(from, 1 + frame_base_refs(from)))
		return false;
	contents_copy_page(phys_map(phys, m->to), phys_map(phys, m->from));
	set_frame_mapping(to, from->mapping);
	to->index = from->index;
	frame_set(to, atomic_read(&from->flags) & MOVED_FLAGS);
	if (mapping)
		address_space_replace(mapping, from->index, m->from, m->to);
	if (frame_test(from, FRAME_SWAPCACHE))
		swap_cache_replace(phys, m->from, m->to);
	if (frame_is_ksm(to))
		ksm_page_moved(frame_ksm_page(to), m->to);
	set_frame_mapping(from, 0);
	lru_add(phys, m->to, frame_test(from, FRAME_ACTIVE) ? LRU_ACTIVE : LRU_INACTIVE);
	frame_ref_unfreeze(from, 1);
	return true;
}

struct restore {
	const struct migration *m;
	pfn_t target;
};

/* A migration entry that names our frame is ours: only its locker makes them. */
static void restore_one(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	const struct restore *restore = arg;
	const struct migration *m = restore->m;
	struct mm_struct *mm = vma->mm;
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);
	bool ours;
	pte_t pte;

	if (!ptep)
		return;
	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	ours = pte_migration(pte) && pte_pfn(pte) == m->from;
	if (ours) {
		phys_get(mm->phys, restore->target);
		atomic_inc(&pfn_to_frame(mm->phys, restore->target)->mapcount);
		set_pte(mm, hva, ptep, pte_make(restore->target, (pte & PTE_KEEP) | PTE_PRESENT));
	}
	spin_unlock(&mm->page_table_lock);
	if (ours)
		atomic64_inc(restore->target == m->to ? &mm->nr_migrated : &mm->nr_migrate_busy);
}

int migration_complete(struct migration *m, struct phys *phys)
{
	struct restore restore = {.m = m, .target = m->from};
	struct frame *frame = pfn_to_frame(phys, m->from);
	bool moved;

	/* A locked frame gains no mapping, so zero stays zero. */
	if (atomic_read(&frame->mapcount))
		rmap_walk(frame, unmap_one, m);

	moved = move_page(m, phys);
	if (moved) {
		restore.target = m->to;
		frame = pfn_to_frame(phys, m->to);
	}
	if (m->nr_unmapped)
		rmap_walk(frame, restore_one, &restore);
	if (frame_is_private(frame) && !atomic_read(&frame->mapcount))
		private_page_unmapped(phys, restore.target);

	/* From here on neither address_space nor anon_vma is touched by way of the frames. */
	unlock_frame(phys, m->to);
	unlock_frame(phys, m->from);
	phys_put(phys, m->to);
	phys_put(phys, m->from);
	if (m->anon_vma)
		anon_vma_put(m->anon_vma);
	return moved ? 0 : -EBUSY;
}

/* @pfn with a reference, both given up. */
static int migrate_locked(struct phys *phys, pfn_t pfn)
{
	struct migration m;
	int ret = migration_prepare(&m, phys, pfn);

	if (!ret)
		return migration_complete(&m, phys);
	unlock_frame(phys, pfn);
	phys_put(phys, pfn);
	return ret;
}

/* With a reference, and locked; or an answer why not. */
static int get_and_trylock(struct phys *phys, pfn_t pfn)
{
	if (!phys_get_unless_zero(phys, pfn))
		return frame_locked(pfn_to_frame(phys, pfn)) ? -EBUSY : -ENOENT;
	if (trylock_frame(phys, pfn))
		return 0;
	phys_put(phys, pfn);
	return -EBUSY;
}

int migrate_frame(struct phys *phys, pfn_t pfn)
{
	int ret;

	might_sleep();
	if (pfn >= phys_nr_frames(phys))
		return -ENOENT;
	ret = get_and_trylock(phys, pfn);
	return ret ? ret : migrate_locked(phys, pfn);
}

int migrate_mapping_page(struct address_space *mapping, uint64_t pgoff)
{
	pfn_t pfn;

	might_sleep();
	if (pgoff >= mapping->nr_pages || !address_space_find_page(mapping, pgoff, &pfn))
		return -ENOENT;
	return migrate_locked(mapping->phys, pfn);
}
