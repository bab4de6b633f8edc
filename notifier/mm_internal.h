/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the host mm share: the structures, who owns each field, and the lock order.
 *
 * Lock order, outermost first (docs/locking.md is the full table):
 *
 *   mm->mmap_lock -> mm_all_locks_mutex -> frame lock -> mapping->i_mmap_rwsem -> anon_vma->rwsem
 *       -> mapping->i_pages_lock -> mm->page_table_lock -> (notifier clients' spinlocks)
 *       -> phys->lock
 *
 * Several frame locks may be held at once by a migration, which takes all but the first by trylock
 * (migrate_range.c argues it).
 *
 * mmu_notifier start and end callbacks run under mmap_lock or a reverse-map rwsem, never under
 * page_table_lock.
 */
#ifndef NOTIFIER_MM_INTERNAL_H
#define NOTIFIER_MM_INTERNAL_H

#include <bsd/sys/tree.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/refcount.h"
#include "notifier/frame.h"
#include "notifier/pgtable.h"

struct notifier_subscriptions;
struct hmm;

#define NO_PAGE 0

/* A page cache with everyone who maps it. Counted; each VMA that maps it holds one reference. */
struct address_space {
	refcount_t refs;
	struct phys *phys;
	uint64_t nr_pages;
	/* Taken for reading by whoever walks i_mmap from a frame; for writing to add or remove a
	 * VMA. */
	struct rw_semaphore i_mmap_rwsem;
	struct list_head i_mmap; /* struct vm_area_struct.shared; under i_mmap_rwsem */
	bool all_locked; /* i_mmap_rwsem is held by mm_take_all_locks; under mm_all_locks_mutex */
	/*
	 * Protects stores to slots. Lock-free loads are allowed: lock the frame, or get a
	 * reference, then look again. A slot that holds a frame changes only with that frame
	 * locked.
	 */
	spinlock_t i_pages_lock;
	/*
	 * [nr_pages]: NO_PAGE, or a frame number plus one, so that lazily zero memory is an empty
	 * cache. Each holds one reference on its frame.
	 */
	uint64_t *slots;
};

/* The private pages of one VMA, and the lock by which rmap walkers reach that VMA. */
struct anon_vma {
	refcount_t
		refs; /* the VMA holds one, a walker another, for as long as it looks at the lock */
	struct rw_semaphore rwsem;
	struct list_head vmas; /* struct vm_area_struct.shared; under rwsem */
	bool all_locked;       /* rwsem is held by mm_take_all_locks; under mm_all_locks_mutex */
};

struct vm_area_struct {
	RB_ENTRY(vm_area_struct) node; /* in mm->vmas, under mmap_lock */
	struct mm_struct *mm;
	hva_t start, end;
	unsigned int prot; /* MM_PROT_* */
	uint64_t pgoff;	   /* of start, in mapping; for private memory start >> PAGE_SHIFT */
	/* Exactly one of the two is set, for life. */
	struct address_space *mapping;
	struct anon_vma *anon_vma;
	struct list_head shared; /* in mapping->i_mmap or anon_vma->vmas */
};

RB_HEAD(vma_tree, vm_area_struct);

struct mm_struct {
	struct __mm_watch watch; /* first, for gnomon/mmu_notifier.h */
	refcount_t mm_users;
	refcount_t mm_count;
	struct phys *phys; /* outlives every mm */

	/* Readers may fault and zap; a writer may change the set of VMAs and register notifiers. */
	struct rw_semaphore mmap_lock;
	struct vma_tree vmas; /* under mmap_lock */

	/*
	 * Serialises stores to present and migration entries. Entries may be *loaded* with no lock
	 * by anyone who pins mm_users: tables are freed only in exit_mmap.
	 */
	spinlock_t page_table_lock;
	struct pgtable *pgtable;

	/*
	 * Allocated under mmap_lock held for writing, at the first register; published by
	 * smp_store_release inside mm_take_all_locks; freed with the structure. Unlocked readers
	 * use smp_load_acquire and hold mm_count.
	 */
	struct notifier_subscriptions *notifier_subscriptions;

	/* hmm_mirror.c: NULL or that of the mirrors of this mm; under page_table_lock. */
	struct hmm *hmm;

	/* Counters of gnomon/mm.h, relaxed. */
	atomic64_t nr_faults, nr_zapped, nr_migrated, nr_migrate_busy;
};

/* vma.c; mmap_lock held, for reading at least. */
struct vm_area_struct *find_vma(struct mm_struct *mm, hva_t addr); /* containing addr, or NULL */
struct vm_area_struct *vma_first(struct mm_struct *mm);
struct vm_area_struct *vma_next(struct vm_area_struct *vma);
/* Page aligned, within HVA_MAX, not wrapping; an empty range is one. Needs no lock. */
bool hva_range_ok(hva_t addr, uint64_t len);
/* Exit: take every VMA out of the reverse maps; then, with the pages gone, free them all. */
void unlink_vmas(struct mm_struct *mm);
void free_vmas(struct mm_struct *mm);

/*
 * address_space.c: the frame of page @pgoff, made if there is none: locked, with a reference for
 * the caller, and in its slot for as long as it is locked. 0, -ENOMEM.
 */
int address_space_get_page(struct address_space *mapping, uint64_t pgoff, pfn_t *pfnp);
/* What the slot holds this instant, or INVALID_PFN. */
pfn_t address_space_peek(struct address_space *mapping, uint64_t pgoff);
/* Re-point the slot of @from, which is locked and frozen, to @to, which gains a reference. */
void address_space_replace(struct address_space *mapping, uint64_t pgoff, pfn_t from, pfn_t to);

/*
 * rmap.c: from a frame to its mappings. The frame is locked. Calls @fn for each VMA that covers the
 * page, whether or not it maps it now, with the reverse-map lock held for reading: neither the VMA
 * nor its mm goes away meanwhile.
 */
struct anon_vma *anon_vma_create(void);
void anon_vma_get(struct anon_vma *anon_vma);
void anon_vma_put(struct anon_vma *anon_vma);
struct anon_vma *frame_anon_vma(const struct frame *frame);
struct address_space *frame_address_space(const struct frame *frame);
void rmap_walk(struct frame *frame, void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg),
	       void *arg);

/*
 * mm_fault.c. handle_mm_fault: with mmap_lock held for reading, and @write allowed by the VMA:
 * on 0 the page was mapped at some instant since the call. mm_fault: finds the VMA and does it; 0,
 * -EFAULT, -ENOMEM.
 */
int handle_mm_fault(struct vm_area_struct *vma, hva_t hva, bool write);
int mm_fault(struct mm_struct *mm, hva_t hva, bool write);

/*
 * mm_zap.c: clear one entry of @vma, inside a window over it, and let go of its page. True if there
 * was one, present or migrating. May sleep (a private page's frame lock).
 */
bool zap_entry(struct vm_area_struct *vma, pte_t *ptep);

/*
 * migrate.c: the move of one frame, in three steps, so that a batch can be unmapped in one window.
 *
 * prepare: @from is locked, with a reference, both the caller's; on 0 both belong to the migration.
 * -ENOENT (not a page of any mapping), -ENOMEM. unmap_entry: turn one entry of it into a migration
 * entry, inside a window. complete: the rest, windows for all other mappings included. 0, or -EBUSY
 * and @from is where it was.
 */
struct migration {
	pfn_t from, to;
	struct anon_vma *anon_vma; /* kept alive; NULL for a shared page */
	unsigned int nr_unmapped;  /* migration entries made */
};

int migration_prepare(struct migration *m, struct phys *phys, pfn_t from);
void migration_unmap_entry(struct migration *m, struct mm_struct *mm, pte_t *ptep);
int migration_complete(struct migration *m, struct phys *phys);

/*
 * mm_locks.c: take, or drop, every lock that a window can be held open under: with mmap_lock held
 * for writing, mm_all_locks_mutex and the rwsem of each VMA's address_space and anon_vma, each
 * once. Nothing may be allocated while they are held (I10). 0 or -EINTR with none held.
 */
int mm_take_all_locks(struct mm_struct *mm);
void mm_drop_all_locks(struct mm_struct *mm);

/* mmu_notifier.c: called by exit (before any page is freed) and by the last mmdrop. */
void mmu_notifier_release(struct mm_struct *mm);
void mmu_notifier_subscriptions_destroy(struct mm_struct *mm);

#endif
