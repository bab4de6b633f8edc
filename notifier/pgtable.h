/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The primary page table: hva -> pfn, four levels of 512 entries over a 47-bit space. This header
 * owns the bits.
 *
 * Rules:
 *  1. An entry is all zeroes (none), present, or a migration entry; never two of them.
 *  2. A present entry holds one reference on its frame, a migration entry none.
 *  3. Present entries change to anything else only inside an invalidation window that covers them
 *     (N-63).
 *  4. Entries are stored under mm->page_table_lock and loaded atomically by anyone. One exception,
 *     as in hardware: the accessed and dirty bits of a present entry may be set without the lock,
 *     by compare-and-exchange of the whole entry (pte_touch).
 *  5. Zaps are atomic exchanges, so that accessed and dirty bits set meanwhile are harvested, not
 *     lost. A migration entry keeps the write, accessed and dirty bits of the entry it stands for.
 */
#ifndef NOTIFIER_PGTABLE_H
#define NOTIFIER_PGTABLE_H

#include <assert.h>

#include <gnomon/types.h>

#include "notifier/sync/atomic.h"

typedef uint64_t pte_t;

#define PTE_PRESENT   (1UL << 0)
#define PTE_WRITE     (1UL << 1)
#define PTE_ACCESSED  (1UL << 5)
#define PTE_DIRTY     (1UL << 6)
#define PTE_MIGRATION (1UL << 9) /* not present; the pfn is the frame that is being moved */
#define PTE_PFN_MASK  0x000ffffffffff000UL

/* What a migration hands from the old entry to the new one. */
#define PTE_KEEP (PTE_WRITE | PTE_ACCESSED | PTE_DIRTY)

static_assert((PTE_PFN_MASK &
	       (PTE_PRESENT | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_MIGRATION)) == 0,
	      "flag bits lie below the frame number");

static inline bool pte_none(pte_t pte)
{
	return pte == 0;
}

static inline bool pte_present(pte_t pte)
{
	return pte & PTE_PRESENT;
}

static inline bool pte_migration(pte_t pte)
{
	return pte & PTE_MIGRATION;
}

static inline pfn_t pte_pfn(pte_t pte)
{
	return (pte & PTE_PFN_MASK) >> PAGE_SHIFT;
}

static inline pte_t pte_make(pfn_t pfn, uint64_t flags)
{
	return (pfn << PAGE_SHIFT) | flags;
}

/* Acquire: what the entry names was initialised before the entry was stored. Pairs with pte_store.
 */
static inline pte_t pte_load(pte_t *ptep)
{
	return smp_load_acquire(ptep);
}

/* Only over an entry that is not present: a present one may gain accessed and dirty bits
 * meanwhile. Under page_table_lock. */
static inline void pte_store(pte_t *ptep, pte_t pte)
{
	smp_store_release(ptep, pte);
}

/*
 * If *ptep still is @pte, which was present: record an access, or a write, through it, and return
 * true. Else look again.
 */
static inline bool pte_touch(pte_t *ptep, pte_t pte, bool write)
{
	pte_t touched = pte | PTE_ACCESSED | (write ? PTE_DIRTY : 0);

	if (touched == pte)
		return pte_load(ptep) == pte;
	return cmpxchg(ptep, pte, touched) == pte;
}

static inline bool pte_allows(pte_t pte, bool write)
{
	return pte_present(pte) && (!write || (pte & PTE_WRITE));
}

struct pgtable;

struct pgtable *pgtable_create(void);	  /* NULL when out of memory */
void pgtable_destroy(struct pgtable *pt); /* every entry was cleared */

/* The entry of @hva, or NULL where no table exists, or no hva: above HVA_MAX. Lock-free. */
pte_t *pgtable_lookup(struct pgtable *pt, hva_t hva);

/* What one leaf covers: within that, the next page's entry is the next entry. */
#define PGTABLE_LEAF_SIZE (512 * PAGE_SIZE)

/*
 * The same, for who goes on from page to page. @ptep is the entry of the page before @hva; NULL if
 * it has none, or there is no page before. Who keeps an entry's address over pages keeps the
 * tables, too: holds mmap_lock.
 */
static inline pte_t *pgtable_next(struct pgtable *pt, pte_t *ptep, hva_t hva)
{
	return ptep && hva % PGTABLE_LEAF_SIZE ? ptep + 1 : pgtable_lookup(pt, hva);
}

/* The entry of an hva below HVA_MAX, making tables on the way; may allocate, so not under a
 * spinlock. Concurrent calls agree. NULL: out of memory. */
pte_t *pgtable_get(struct pgtable *pt, hva_t hva);

/*
 * Visit the existing entries of [start, end) in order, skipping the holes of missing tables; stop
 * when @fn returns non-zero and return that.
 */
int pgtable_walk(struct pgtable *pt, hva_t start, hva_t end,
		 int (*fn)(pte_t *ptep, hva_t hva, void *arg), void *arg);

#endif
