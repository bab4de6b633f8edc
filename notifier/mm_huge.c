/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Do 512 pages lie in the host as one? Whoever maps 2 MiB by one entry asks (kernel:
 * host_pfn_mapping_level() of KVM; our page table has no large entries, so what would be one there
 * is looked for).
 *
 * Each entry is loaded once, without a lock, in a section of pgtable_srcu that keeps the leaf they
 * lie in. So the answer is not of one moment: an entry may change behind the look. It is good under
 * the lock that the caller's invalidate_range_start takes, while no window is open over any of the
 * pages: then what was found can only gain rights (pgtable.h, rule 3).
 *
 *   caller                                    host
 *   ------                                    ----
 *   its lock; no window is open here
 *   loads entry 0: frame 512, writable
 *                                             start: waits for the lock
 *   loads entry 511: frame 1023, writable
 *   maps frames 512 to 1023; unlocks
 *                                             has the lock: zaps what was just made
 *                                             moves page 0
 */
#include "notifier/mm_internal.h"

#define NR_ENTRIES (MM_HUGE_SIZE / PAGE_SIZE)

static_assert(MM_HUGE_SIZE == PGTABLE_LEAF_SIZE, "one leaf has all entries");

#define RIGHTS (PTE_READ | PTE_WRITE)

/* To the frames from @pfn on, all alike? */
static bool entries_alike(pte_t *ptep, pfn_t pfn, pte_t rights)
{
	for (unsigned int i = 0; i < NR_ENTRIES; i++) {
		pte_t pte = pte_load(&ptep[i]);

		if (!pte_present(pte) || pte_pfn(pte) != pfn + i || (pte & RIGHTS) != rights)
			return false;
	}
	return true;
}

/* A secondary MMU that may write will not tell each time (hva_to_pfn): so each page counts as
 * written. */
static bool touch_all(pte_t *ptep)
{
	for (unsigned int i = 0; i < NR_ENTRIES; i++) {
		pte_t pte;

		do {
			pte = pte_load(&ptep[i]);
			if (!pte_allows(pte, true))
				return false;
		} while (!pte_touch(&ptep[i], pte, true));
	}
	return true;
}

bool hva_to_huge_pfn(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn, bool *writable)
{
	int idx = pgtable_read_lock();
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva & ~(MM_HUGE_SIZE - 1));
	bool found = false;
	pte_t first;

	if (!ptep)
		goto out;
	first = pte_load(ptep);
	if (!pte_allows(first, false) || pte_pfn(first) % NR_ENTRIES)
		goto out;
	*pfn = pte_pfn(first);
	*writable = write && pte_allows(first, true);
	found = entries_alike(ptep, *pfn, first & RIGHTS) && (!*writable || touch_all(ptep));
out:
	pgtable_read_unlock(idx);
	return found;
}
