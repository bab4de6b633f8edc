/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the host mm share: the structures, who owns each field, and the lock order.
 *
 * Lock order, outermost first (docs/locking.md is the full table):
 *
 *   ksm->mutex -> mm->mmap_lock -> mm_all_locks_mutex -> mapping->writeback_rwsem -> frame lock
 *       -> mapping->i_mmap_rwsem -> anon_vma->rwsem
 *       -> mapping->i_pages_lock -> mm->page_table_lock -> swap->lock
 *       -> (notifier clients' spinlocks) -> lru->lock -> phys->lock
 *
 * Several frame locks may be held at once by a migration, which takes all but the first by trylock
 * (migrate_range.c argues it). A fork holds mmap_lock and page_table_lock of the parent, then those
 * of the child, which nobody else knows yet.
 *
 * mmu_notifier start and end callbacks run under mmap_lock or a reverse-map rwsem, never under
 * page_table_lock.
 */
#ifndef NOTIFIER_MM_INTERNAL_H
#define NOTIFIER_MM_INTERNAL_H

#include <bsd/sys/tree.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/interval_tree.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/refcount.h"
#include "notifier/frame.h"
#include "notifier/pgtable.h"
#include "notifier/set_pte.h"

struct notifier_subscriptions;
struct hmm;
struct ksm_mm;

#define NO_PAGE 0

/* A page cache with everyone who maps it. Counted; each VMA that maps it holds one reference. */
struct address_space {
	refcount_t refs;
	struct phys *phys;
	uint64_t nr_pages;
	/* Taken for reading by whoever walks i_mmap from a frame; for writing to add, change or
	 * remove a VMA. */
	struct rw_semaphore i_mmap_rwsem;
	struct interval_tree i_mmap; /* vm_area_struct.in_mapping, by page; under i_mmap_rwsem */
	bool all_locked; /* i_mmap_rwsem is held by mm_take_all_locks; under mm_all_locks_mutex */
	/*
	 * Protects stores to slots. Lock-free loads are allowed: lock the frame, or get a
	 * reference, then look again. A slot that holds a frame changes only with that frame
	 * locked.
	 */
	spinlock_t i_pages_lock;
	/*
	 * [nr_pages]: NO_PAGE, or a frame number plus one, so that lazily zero memory is an empty
	 * cache. Each holds one reference on its frame. Of a file, with SLOT_DIRTY if the frame has
	 * what the file may not have; that changes only with the frame locked, too. Of memory, a
	 * page may be out: then it is SLOT_SWAPPED and a slot of the swap file, one of whose users
	 * it is.
	 */
	uint64_t *slots;

	/* Constant from the creation on; file_pages.c. */
	int fd; /* the file that pages come from and go to, or -1: there is nothing but the cache */
	bool read_only;	     /* the file: nobody may have a shared mapping that writes */
	uint64_t file_bytes; /* what lies beyond, in the last page, is not in the file */
	/* Taken for reading by whoever writes a page to the file; for writing while a hole is in
	 * the making (file_hole.c). */
	struct rw_semaphore writeback_rwsem;
};

#define SLOT_DIRTY   (1UL << 63)
#define SLOT_SWAPPED (1UL << 62)

static inline bool has_file(const struct address_space *mapping)
{
	return mapping->fd >= 0;
}

/*
 * The private pages of an area and of all that came from it, by a split, a move or a fork; and the
 * lock by which rmap walkers reach them. (Linux kept one for the whole family until 2.6.34; its
 * chains of today save walks that our families are too small to miss.)
 */
struct anon_vma {
	refcount_t refs; /* each VMA holds one; a walker another while it looks at the lock */
	struct rw_semaphore rwsem;
	struct interval_tree vmas; /* vm_area_struct.in_anon_vma, by page; under rwsem */
	bool all_locked; /* rwsem is held by mm_take_all_locks; under mm_all_locks_mutex */
};

/* Private: its pages are copied before they are written (mm_cow.c). */
#define VMA_PRIVATE   0x1u
#define VMA_MERGEABLE 0x2u /* madvise: equal pages may become one */

/*
 * Everything but links changes under mmap_lock held for writing; start, end and pgoff under the
 * reverse-map locks of the VMA, held for writing, as well. So each of these locks, held for
 * reading, is enough to look at them.
 */
struct vm_area_struct {
	RB_ENTRY(vm_area_struct) node; /* in mm->vmas, under mmap_lock */
	struct mm_struct *mm;
	hva_t start, end;
	unsigned int prot;  /* MM_PROT_* */
	unsigned int flags; /* VMA_* */
	/*
	 * The page that start is: of mapping, or of private memory, where it is start >> PAGE_SHIFT
	 * until the area is moved. A private page keeps its number (frame->index) when it moves.
	 */
	uint64_t pgoff;
	struct address_space *mapping; /* shared: always; private: if it shows one */
	struct anon_vma *anon_vma;     /* exactly if private */
	struct interval_tree_node in_mapping, in_anon_vma;
};

RB_HEAD(vma_tree, vm_area_struct);

#define MM_MMAP_BASE (1UL << 32) /* where places for areas are sought, upwards */
#define MM_MAX_VMAS  65530u	 /* as Linux: vm.max_map_count */

struct mm_struct {
	struct __mm_watch watch; /* first, for gnomon/mmu_notifier.h */
	refcount_t mm_users;
	refcount_t mm_count;
	struct phys *phys; /* outlives every mm */

	/* Readers may fault and zap; a writer may change the set of VMAs and register notifiers. */
	struct rw_semaphore mmap_lock;
	struct vma_tree vmas; /* under mmap_lock */
	unsigned int nr_vmas; /* under mmap_lock */

	/*
	 * Serialises stores to entries. Entries may be *loaded* by anyone who pins mm_users, inside
	 * a section of pgtable_srcu, or under one of the locks that keep a table: mmap_lock, or the
	 * reverse-map lock of its area.
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

	/* ksm.c: from the first MERGEABLE until exit; set under mmap_lock held for writing. */
	struct ksm_mm *ksm_mm;

	/* Counters of gnomon/mm.h, relaxed. */
	atomic64_t nr_faults, nr_cow, nr_zapped, nr_migrated, nr_migrate_busy;
	atomic64_t nr_swap_in, nr_swap_out;
	atomic64_t nr_to_device, nr_to_ram;
};

/*
 * vma.c: the tree, and areas as objects. mmap_lock held, for reading to look, for writing to
 * change.
 */
struct vm_area_struct *find_vma(struct mm_struct *mm, hva_t addr); /* containing addr, or NULL */
struct vm_area_struct *find_vma_above(struct mm_struct *mm, hva_t addr); /* first to end above */
struct vm_area_struct *vma_first(struct mm_struct *mm);
struct vm_area_struct *vma_last(struct mm_struct *mm);
struct vm_area_struct *vma_next(struct vm_area_struct *vma);
struct vm_area_struct *vma_prev(struct vm_area_struct *vma);
/* Page aligned, within HVA_MAX, not wrapping; an empty range is one. Needs no lock. */
bool hva_range_ok(hva_t addr, uint64_t len);
/* The page of @vma that @hva is (frame->index). */
static inline uint64_t vma_page(const struct vm_area_struct *vma, hva_t hva)
{
	return vma->pgoff + ((hva - vma->start) >> PAGE_SHIFT);
}

static inline hva_t vma_page_hva(const struct vm_area_struct *vma, uint64_t page)
{
	return vma->start + ((page - vma->pgoff) << PAGE_SHIFT);
}

static inline bool vma_is_private(const struct vm_area_struct *vma)
{
	return vma->flags & VMA_PRIVATE;
}

/*
 * An area that is nowhere yet, as @like it but [start, end) from page @pgoff on; it shares @like's
 * anon_vma, if that has one. NULL when out of memory. free_vma() is the reverse, and of an area
 * that was unlinked.
 */
struct vm_area_struct *clone_vma(const struct vm_area_struct *like, struct mm_struct *mm,
				 hva_t start, hva_t end, uint64_t pgoff);
void free_vma(struct vm_area_struct *vma);

/* The reverse-map locks of @vma, both if it has two, for writing. */
void vma_lock_rmaps(struct vm_area_struct *vma);
void vma_unlock_rmaps(struct vm_area_struct *vma);

/* Into the tree and the reverse maps, and out. The second form has the reverse-map locks. */
void link_vma(struct vm_area_struct *vma);
void link_vma_locked(struct vm_area_struct *vma);
void unlink_vma(struct vm_area_struct *vma);

/* Make @vma end at @end, above its start, with the same page at each hva that stays. */
void resize_vma(struct vm_area_struct *vma, hva_t end);

/*
 * See to it that a border between areas lies at @addr, if an area covers it. 0, -ENOMEM. Changes
 * nothing that anyone can see.
 */
int split_vma_at(struct mm_struct *mm, hva_t addr);
/* The same for whoever makes it good at once by taking an area away. */
int split_vma_at_unlimited(struct mm_struct *mm, hva_t addr);
/* The reverse, wherever areas that touch [start, end] are alike. Cannot fail. */
void merge_vmas(struct mm_struct *mm, hva_t start, hva_t end);

/* Exit: take every VMA out of the reverse maps; then, with the pages gone, free them all. */
void unlink_vmas(struct mm_struct *mm);
void free_vmas(struct mm_struct *mm);

/*
 * mmap.c, with mmap_lock held for writing. unmap_range: [start, end) maps nothing any more; tables
 * to be freed go on *tables (pgtable_free_list(), with mmap_lock dropped). 0; -ENOMEM and nothing
 * was unmapped. find_gap: the lowest place for @len bytes, or INVALID_HVA.
 */
bool mm_prot_ok(unsigned int prot);
int unmap_range(struct mm_struct *mm, hva_t start, hva_t end, struct pgtable_node **tables);
hva_t find_gap(struct mm_struct *mm, uint64_t len);
/* The tables of [start, end), which maps nothing any more, as far as no area needs them. */
void unlink_tables(struct mm_struct *mm, hva_t start, hva_t end, struct pgtable_node **tables);

/*
 * address_space.c: the frame of page @pgoff, made if there is none: locked, with a reference for
 * the caller, and in its slot for as long as it is locked. 0, -ENOMEM, -EIO.
 */
int address_space_get_page(struct address_space *mapping, uint64_t pgoff, pfn_t *pfnp);
/* The same, but only if there is one. */
bool address_space_find_page(struct address_space *mapping, uint64_t pgoff, pfn_t *pfnp);
/* What the slot holds this instant, or INVALID_PFN. */
pfn_t address_space_peek(struct address_space *mapping, uint64_t pgoff);
/* Take @pfn, which is locked, out of its slot: it is no page any more, and the slot's reference is
 * put. The caller has another, and nobody maps it. */
void address_space_delete_page(struct address_space *mapping, uint64_t pgoff, pfn_t pfn);
/* Does the file lack what the frame has? Changed by whoever has the frame locked. */
bool address_space_page_dirty(struct address_space *mapping, uint64_t pgoff);
void address_space_set_dirty(struct address_space *mapping, uint64_t pgoff, bool dirty);
/* Re-point the slot of @from, which is locked and frozen, to @to, which gains a reference. */
void address_space_replace(struct address_space *mapping, uint64_t pgoff, pfn_t from, pfn_t to);

/* The page is in swap slot @slot, one user of which is the object's from now on; as above, but the
 * slot's reference on @from ends. The caller does not touch @mapping any more. */
void address_space_swap_out(struct address_space *mapping, uint64_t pgoff, pfn_t from,
			    uint32_t slot);
/* Forget a page that is out. True if the slot is empty now; else there is a frame in it. */
bool address_space_drop_swapped(struct address_space *mapping, uint64_t pgoff);

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
/* The same for one page of one family, which the caller keeps alive. */
void rmap_walk_anon(struct anon_vma *anon_vma, uint64_t page,
		    void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg), void *arg);

/*
 * mm_fault.c. handle_mm_fault: with mmap_lock held for reading, and the access allowed by the VMA:
 * on 0 the page was there for it at some instant since the call. mm_fault: finds the VMA and does
 * it; 0, -EFAULT, -ENOMEM, -EIO. vma_allows: what the VMA says.
 */
int handle_mm_fault(struct vm_area_struct *vma, hva_t hva, bool write);
/* Until *@ptep is not @pte any more, a migration entry. Holds no reference, nor a reverse-map lock.
 */
void migration_entry_wait(struct mm_struct *mm, pte_t *ptep, pte_t pte);
int mm_fault(struct mm_struct *mm, hva_t hva, bool write);

static inline bool vma_allows(const struct vm_area_struct *vma, bool write)
{
	return vma->prot & (write ? MM_PROT_WRITE : MM_PROT_READ);
}

/* The rights of a new entry; a private page that others may have, too, is never writable. */
static inline pte_t vma_pte_rights(const struct vm_area_struct *vma)
{
	return (vma->prot & MM_PROT_READ ? PTE_READ : 0) |
	       (vma->prot & MM_PROT_WRITE ? PTE_WRITE : 0);
}

/*
 * Fill the entry of @hva, which is none, with @pfn: locked, and the caller's reference becomes the
 * entry's. False if another thread was faster.
 */
bool install_entry(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pfn_t pfn, pte_t flags);

/*
 * frame_alloc.c: a frame for a page of a process: may sleep, and may take one from another. So not
 * under a reverse-map lock, nor in a callback. INVALID_PFN: none. For a page that comes back from
 * the swap file there is a reserve. The last: to move a page to; never sleeps.
 */
pfn_t alloc_user_frame(struct phys *phys);
pfn_t alloc_zeroed_user_frame(struct phys *phys);
pfn_t alloc_swap_in_frame(struct phys *phys);
pfn_t alloc_migration_frame(struct phys *phys);

/* mm_swap.c: the entry was @pte, a swap entry. As handle_mm_fault(), or -EIO; the caller looks
 * again. */
int swap_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte, bool write);

/* A new frame, locked by the caller, is private page @hva of @vma from now on. */
void set_anon_frame(struct vm_area_struct *vma, hva_t hva, pfn_t pfn);

/*
 * mm_cow.c: a write meets the present entry @pte of private @vma, which does not allow it. As
 * handle_mm_fault(); the caller looks again. unshare_fault: the same with nobody writing; the area
 * need not allow it, and gets no right that it has not.
 */
int cow_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte);
int unshare_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte);

/* Take a reference on the frame that @pte names, unless *ptep is another by now. */
bool get_entry_frame(struct mm_struct *mm, pte_t *ptep, pte_t pte);

/*
 * device_exclusive.c, with mmap_lock held. end_device_exclusive: the exclusive entry @pte becomes
 * present, unless it is another by now: the caller looks again. take_back_from_devices: all that
 * devices have of @vma, in their memory as well; with mmap_lock held for writing, so that they get
 * nothing meanwhile. 0, -ENOMEM.
 */
void end_device_exclusive(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte);
int take_back_from_devices(struct vm_area_struct *vma);

/*
 * migrate_device.c. device_page_to_ram: with mmap_lock held, the page of *ptep, if that is a
 * device-private entry, comes back. 0, and the caller looks again; -ENOMEM. put_device_entry: @pte,
 * which was one, is gone; under page_table_lock. device_entry_for: *ptep, if it is one and the
 * device is @owner's, who is going to use it, with the rights @give added; else 0.
 */
int device_page_to_ram(struct vm_area_struct *vma, hva_t hva, pte_t *ptep);
void put_device_entry(struct mm_struct *mm, pte_t pte);
pte_t device_entry_for(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, void *owner, pte_t give);

/*
 * mm_zap.c: clear the entry of @hva in @vma, inside a window over it, and let go of its page. True
 * if there was one. May sleep (a private page's frame lock). unmapped_page: an entry of @vma that
 * mapped @pfn is gone, and the frame's mapcount with it: the rest. private_page_gone: a page that
 * nobody maps, locked, is none any more, if it was private.
 */
bool zap_entry(struct vm_area_struct *vma, hva_t hva, pte_t *ptep);
void unmapped_page(struct vm_area_struct *vma, pfn_t pfn);
/* A private page, locked and with a reference of the caller's, was found to have no mapping. */
void private_page_unmapped(struct phys *phys, pfn_t pfn);
/* All of [start, end), which lies in @vma; returns how many there were. */
long zap_vma_range(struct vm_area_struct *vma, hva_t start, hva_t end);
/* Is part of [start, end) in no area? With mmap_lock held. */
bool range_has_holes(struct mm_struct *mm, hva_t start, hva_t end);

/*
 * migrate.c: the move of one frame, in three steps, so that a batch can be unmapped in one window.
 *
 * prepare: @from is locked, with a reference, both the caller's; on 0 both belong to the migration.
 * -ENOENT (not a page of any mapping), -EBUSY (pinned), -ENOMEM. unmap_entry: turn one entry of it
 * into a migration entry, inside a window. complete: the rest, windows for all other mappings
 * included. 0, or -EBUSY and @from is where it was.
 */
struct migration {
	pfn_t from, to;
	struct anon_vma *anon_vma; /* kept alive; NULL for a shared page */
	unsigned int nr_unmapped;  /* migration entries made */
};

int migration_prepare(struct migration *m, struct phys *phys, pfn_t from);
void migration_unmap_entry(struct migration *m, struct mm_struct *mm, hva_t hva, pte_t *ptep);
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
