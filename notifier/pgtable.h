/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The primary page table: hva -> pfn, four levels of 512 entries over a 47-bit space. This header
 * owns the bits.
 *
 * Rules:
 *  1. An entry is none (all zeroes), present, or one of the kinds below that say where the page is
 *     instead; never two of them.
 *  2. A present entry, or a device-exclusive one, holds one reference on its frame and counts in
 *     its mapcount; a swap entry holds one user of its slot, a device-private entry one reference
 *     on the device's frame; a migration entry holds nothing.
 *  3. Entries are stored by set_pte.h alone, which checks that a present entry loses nothing
 *     outside of an invalidation window.
 *  4. Entries are stored under mm->page_table_lock and loaded atomically by anyone. One exception,
 *     as in hardware: the accessed and dirty bits of a present entry may be set without the lock,
 *     by compare-and-exchange of the whole entry (pte_touch).
 *  5. What takes an entry away is an atomic exchange, so that accessed and dirty bits set meanwhile
 *     are harvested, not lost. A migration entry keeps the bits of the entry it stands for.
 *
 * Tables are made at the first touch of a range and freed when it is unmapped (mm_munmap) or moved
 * away (mm_mremap), a grace period of pgtable_srcu later. So whoever looks without mmap_lock or a
 * reverse-map lock does so inside of a section of it (pgtable_read_lock), and an entry's address
 * is good for as long as the section lasts.
 */
#ifndef NOTIFIER_PGTABLE_H
#define NOTIFIER_PGTABLE_H

#include <assert.h>

#include <gnomon/srcu.h>
#include <gnomon/types.h>

#include "notifier/sync/atomic.h"

typedef uint64_t pte_t;

#define PTE_PRESENT    (1UL << 0)
#define PTE_WRITE      (1UL << 1)
#define PTE_READ       (1UL << 2) /* not in an area without MM_PROT_READ: present, but no access */
#define PTE_ACCESSED   (1UL << 5)
#define PTE_DIRTY      (1UL << 6)
#define PTE_SOFT_DIRTY (1UL << 7) /* written since the last mm_clear_soft_dirty() */

/* What an entry that is not present, and not none, stands for. */
#define PTE_KIND_MASK (7UL << 9)
#define PTE_MIGRATION (1UL << 9) /* the pfn is the frame that is being moved */
#define PTE_SWAP      (2UL << 9) /* the pfn is a slot of the swap file */
#define PTE_DEVICE    (3UL << 9) /* the pfn is a frame of a device's own pool: device-private */
#define PTE_EXCLUSIVE (4UL << 9) /* the pfn is a frame that a device has for itself */

#define PTE_PFN_MASK 0x000ffffffffff000UL

/*
 * A private page that this mm made for itself and has shared with nobody since: it may be written
 * where it is, whoever holds references to it (mm_cow.c). Goes when it is shared (fork.c); need not
 * be there, it saves a copy, but for a page that is pinned.
 */
#define PTE_OWN (1UL << 52)

/* Which device, in a PTE_DEVICE entry. */
#define PTE_DEVICE_SHIFT 53
#define PTE_DEVICE_MASK	 (0xffUL << PTE_DEVICE_SHIFT)

/* What a migration hands from the old entry to the new one. */
#define PTE_KEEP (PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_SOFT_DIRTY | PTE_OWN)

static_assert((PTE_PFN_MASK & (PTE_PRESENT | PTE_KEEP | PTE_KIND_MASK)) == 0,
	      "flag bits lie below the frame number");
static_assert((PTE_DEVICE_MASK & (PTE_PFN_MASK | PTE_PRESENT | PTE_KEEP | PTE_KIND_MASK)) == 0,
	      "the number of a device lies above");
static_assert((PTE_KIND_MASK & (PTE_PRESENT | PTE_KEEP)) == 0, "kinds have bits of their own");

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
	return (pte & PTE_KIND_MASK) == PTE_MIGRATION;
}

static inline bool pte_swap(pte_t pte)
{
	return (pte & PTE_KIND_MASK) == PTE_SWAP;
}

static inline bool pte_device(pte_t pte)
{
	return (pte & PTE_KIND_MASK) == PTE_DEVICE;
}

static inline bool pte_exclusive(pte_t pte)
{
	return (pte & PTE_KIND_MASK) == PTE_EXCLUSIVE;
}

/* It names a frame of the machine, with a reference and a place in the frame's mapcount. */
static inline bool pte_maps_frame(pte_t pte)
{
	return pte_present(pte) || pte_exclusive(pte);
}

static inline pfn_t pte_pfn(pte_t pte)
{
	return (pte & PTE_PFN_MASK) >> PAGE_SHIFT;
}

static inline pte_t pte_make(pfn_t pfn, uint64_t flags)
{
	return (pfn << PAGE_SHIFT) | flags;
}

/*
 * Acquire: what the entry names was initialised before the entry was stored. Pairs with the
 * releases in set_pte.c.
 */
static inline pte_t pte_load(pte_t *ptep)
{
	return smp_load_acquire(ptep);
}

/*
 * If *ptep still is @pte, which was present: record an access, or a write, through it, and return
 * true. Else look again.
 */
static inline bool pte_touch(pte_t *ptep, pte_t pte, bool write)
{
	pte_t touched = pte | PTE_ACCESSED | (write ? PTE_DIRTY | PTE_SOFT_DIRTY : 0);

	if (touched == pte)
		return pte_load(ptep) == pte;
	return cmpxchg(ptep, pte, touched) == pte;
}

static inline bool pte_allows(pte_t pte, bool write)
{
	return pte_present(pte) && (pte & (write ? PTE_WRITE : PTE_READ));
}

/* Those who look without a lock. Made ready by the first pgtable_create(). */
extern struct srcu_struct pgtable_srcu;

static inline int pgtable_read_lock(void)
{
	return srcu_read_lock(&pgtable_srcu);
}

static inline void pgtable_read_unlock(int idx)
{
	srcu_read_unlock(&pgtable_srcu, idx);
}

struct pgtable;
struct pgtable_node;

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

/* The same, @nr entries of one leaf at a time, from that of @hva on. */
int pgtable_walk_leaves(struct pgtable *pt, hva_t start, hva_t end,
			int (*fn)(pte_t *ptep, unsigned int nr, hva_t hva, void *arg), void *arg);

/*
 * Take out the tables that lie within [floor, ceiling) as a whole, @floor and @ceiling being where
 * the next areas begin, or 0 and HVA_MAX; all their entries are none, and nobody can fill one: the
 * caller has mmap_lock for writing, and no reverse map leads there. They go on *@list, to be freed
 * by pgtable_free_list() when the caller has let go of mmap_lock: that sleeps for a grace period.
 */
void pgtable_unlink_range(struct pgtable *pt, hva_t floor, hva_t ceiling,
			  struct pgtable_node **list);
void pgtable_free_list(struct pgtable_node *list);

#endif
