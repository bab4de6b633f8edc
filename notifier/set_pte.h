/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only door through which entries of a primary page table change (but for accessed and dirty
 * bits, which pte_touch() sets).
 *
 * What it is for: a change that takes something from a *present* entry (the page, a right, the
 * record that it was written) must happen inside of an open invalidation window that covers it, and
 * that is held open under mmap_lock, i_mmap_rwsem or anon_vma->rwsem (N-63), or else a secondary
 * may go on with what the entry said before. Debug builds check that at each change: the window is
 * one that this thread opened. The same goes for an entry of a page that a device has, for itself
 * or in its memory: the device is that secondary. What only gives (none to present, read-only to
 * writable) and what only forgets an access needs none: a secondary learns of it when it next asks.
 *
 * All under mm->page_table_lock.
 */
#ifndef NOTIFIER_SET_PTE_H
#define NOTIFIER_SET_PTE_H

#include <gnomon/mmu_notifier.h>

#include "notifier/pgtable.h"

/* Exchange: returns what was there, accessed and dirty bits up to the last moment included. */
pte_t set_pte(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t pte);

/*
 * If *@ptep still is *@old, replace it by @pte; else false, and *@old is what is there. For a
 * new entry that was made from the old one, which may gain accessed and dirty bits at any time.
 */
bool change_pte(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t *old, pte_t pte);

/* Take @bits from *@ptep, or give them, whatever else it gains meanwhile. Returns what it is now.
 */
pte_t clear_pte_bits(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t bits);
pte_t set_pte_bits(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t bits);

/* Does going from @old to @pte take something that a secondary may have? */
bool pte_change_needs_window(pte_t old, pte_t pte);

/* window_check.c: windows of the calling thread. Nothing in a release. */
#ifdef CONFIG_LOCKDEP
void note_window_open(const struct mmu_notifier_range *range);
void note_window_closed(const struct mmu_notifier_range *range);
bool window_covers(const struct mm_struct *mm, hva_t start, hva_t end);
#else
static inline void note_window_open(const struct mmu_notifier_range *range)
{
	(void)range;
}

static inline void note_window_closed(const struct mmu_notifier_range *range)
{
	(void)range;
}
#endif

#endif
