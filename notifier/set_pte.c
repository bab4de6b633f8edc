// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Storing entries of the primary page table, and the check that goes with it (set_pte.h).
 */
#include "notifier/set_pte.h"

#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

/*
 * What a device has, for itself or in its memory, is not present, but it uses it.
 * The dirty bits are a right, too: while they are set a secondary may write without asking again,
 * so whoever clears them has to take its writable entry away. The accessed bit is a hint.
 */
bool pte_change_needs_window(pte_t old, pte_t pte)
{
	const pte_t page = PTE_PRESENT | PTE_KIND_MASK | PTE_PFN_MASK | PTE_DEVICE_MASK;
	const pte_t rights = PTE_READ | PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY;

	if (!pte_maps_frame(old) && !pte_device(old))
		return false;
	return ((old ^ pte) & page) || (old & rights & ~pte);
}

#ifdef CONFIG_LOCKDEP
static void check_change(struct mm_struct *mm, hva_t hva, pte_t old, pte_t pte)
{
	if (!pte_change_needs_window(old, pte))
		return;
	ASSERT(window_covers(mm, hva, hva + PAGE_SIZE),
	       "an entry that loses something (%#llx to %#llx, at hva %#llx) is inside an open "
	       "invalidation window of this thread",
	       (unsigned long long)old, (unsigned long long)pte, (unsigned long long)hva);
	ASSERT(lockdep_is_held(&mm->mmap_lock) || lockdep_is_held_class(&lockdep_i_mmap_rwsem) ||
		       lockdep_is_held_class(&lockdep_anon_vma_rwsem),
	       "a window is held open under mmap_lock or a reverse-map lock (hva %#llx)",
	       (unsigned long long)hva);
}
#else
static void check_change(struct mm_struct *mm, hva_t hva, pte_t old, pte_t pte)
{
	(void)mm, (void)hva, (void)old, (void)pte;
}
#endif

/* Release, as full barriers: pairs with pte_load(). */

pte_t set_pte(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t pte)
{
	pte_t old;

	lockdep_assert_held(&mm->page_table_lock);
	old = xchg(ptep, pte);
	check_change(mm, hva, old, pte);
	return old;
}

bool change_pte(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t *old, pte_t pte)
{
	lockdep_assert_held(&mm->page_table_lock);
	check_change(mm, hva, *old, pte);
	return try_cmpxchg(ptep, old, pte);
}

pte_t clear_pte_bits(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t bits)
{
	pte_t pte = pte_load(ptep);

	while ((pte & bits) && !change_pte(mm, hva, ptep, &pte, pte & ~bits))
		;
	return pte_load(ptep);
}

pte_t set_pte_bits(struct mm_struct *mm, hva_t hva, pte_t *ptep, pte_t bits)
{
	pte_t pte = pte_load(ptep);

	while (!change_pte(mm, hva, ptep, &pte, pte | bits))
		;
	return pte_load(ptep);
}
