// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Soft-dirty: which pages were written since somebody last asked (kernel: clear_refs_write and
 * pagemap in fs/proc/task_mmu.c).
 *
 * A bit of each entry says so. It is set wherever a page is written, and by whatever puts another
 * page in its place: so a page that is not reported is what it was. To clear it is to take the
 * right to write as well, so that the next write is noticed: a secondary that has the page writable
 * does not ask again, so all this is one window over everything. No page is copied for it: a
 * private page that is only ours gets its right back at the next write (mm_cow.c).
 *
 * A write that is under way has looked at the entry already:
 *
 *   mm_write                                  mm_clear_soft_dirty
 *   --------                                  -------------------
 *   entry: F, writable. Pins F
 *   entry still F, writable, soft-dirty
 *                                             entry := F, read-only, clean
 *                                             F is pinned: gives both back
 *                                             (caller: copies the page)
 *   stores to F; unpins it
 *   (caller: which pages were written since?)
 *
 * Each side stores before it looks, with full barriers: either the access finds that the entry has
 * changed, and faults, or the clearing finds the pin. The same for an entry that a migration holds,
 * which may find the page busy and put it back. Who pins a page for long may write to it at any
 * time: it is reported for as long.
 *
 * Replayed by tests/unit/test_soft_dirty.c (a_write_that_is_under_way).
 *
 * What is swapped out, or in a device's memory, nobody is writing to: the one was let go by all,
 * the other was copied from a frozen frame, and its device hears of the window.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"

#define BITS_PER_WORD 64

static bool may_be_being_written(struct mm_struct *mm, pte_t pte)
{
	if (!pte_maps_frame(pte) && !pte_migration(pte))
		return false;
	return frame_is_pinned(pfn_to_frame(mm->phys, pte_pfn(pte)));
}

static void clear_entry(struct mm_struct *mm, hva_t hva, pte_t *ptep)
{
	pte_t pte = pte_load(ptep), lost;

	do {
		lost = pte & (PTE_WRITE | PTE_SOFT_DIRTY);
		if (!lost)
			return;
	} while (!change_pte(mm, hva, ptep, &pte, pte & ~lost));

	if (!may_be_being_written(mm, pte))
		return;
	set_pte_bits(mm, hva, ptep, lost);
}

static int clear_leaf(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	struct mm_struct *mm = arg;

	spin_lock(&mm->page_table_lock);
	for (unsigned int i = 0; i < nr; i++)
		clear_entry(mm, hva + i * PAGE_SIZE, &ptep[i]);
	spin_unlock(&mm->page_table_lock);
	return 0;
}

void mm_clear_soft_dirty(struct mm_struct *mm)
{
	struct mmu_notifier_range range;

	mmap_write_lock(mm);
	mutation_range_init(&range, MUTATION_SOFT_DIRTY, mm, 0, HVA_MAX);
	mmu_notifier_invalidate_range_start(&range);
	pgtable_walk_leaves(mm->pgtable, 0, HVA_MAX, clear_leaf, mm);
	mmu_notifier_invalidate_range_end(&range);
	mmap_write_unlock(mm);
}

struct collect {
	hva_t start;
	uint64_t *bitmap;
	long nr_clean;
};

/* A page without an entry may have had one: it is not known to be what it was. */
static int collect_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct collect *collect = arg;
	uint64_t page = (hva - collect->start) >> PAGE_SHIFT;
	pte_t pte = pte_load(ptep);

	if (pte_none(pte) || (pte & PTE_SOFT_DIRTY))
		return 0;
	collect->bitmap[page / BITS_PER_WORD] &= ~(1UL << page % BITS_PER_WORD);
	collect->nr_clean++;
	return 0;
}

static void set_bits(uint64_t *bitmap, uint64_t nr)
{
	for (uint64_t word = 0; word < nr / BITS_PER_WORD; word++)
		bitmap[word] = ~0UL;
	if (nr % BITS_PER_WORD)
		bitmap[nr / BITS_PER_WORD] = (1UL << nr % BITS_PER_WORD) - 1;
}

long mm_test_soft_dirty(struct mm_struct *mm, hva_t addr, uint64_t len, uint64_t *bitmap)
{
	struct collect collect = {.start = addr, .bitmap = bitmap};
	uint64_t nr_pages = len >> PAGE_SHIFT;
	long ret = -ENOMEM;

	if (!hva_range_ok(addr, len))
		return -EINVAL;
	if (len == 0)
		return 0;
	mmap_read_lock(mm);
	if (!range_has_holes(mm, addr, addr + len)) {
		set_bits(bitmap, nr_pages);
		pgtable_walk(mm->pgtable, addr, addr + len, collect_one, &collect);
		ret = (long)nr_pages - collect.nr_clean;
	}
	mmap_read_unlock(mm);
	return ret;
}
