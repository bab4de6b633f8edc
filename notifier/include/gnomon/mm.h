/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host mm: a simulated address space whose pages are machine frames, and every way in which it
 * moves them.
 *
 * Each operation that removes, narrows or re-targets a present mapping brackets the change with
 * mmu_notifier_invalidate_range_start/end (gnomon/mmu_notifier.h), as Linux does; docs/mm.md tables
 * them.
 *
 * Kernel sources of the contracts: include/linux/sched/mm.h (users and count), mm/memory.c (faults,
 * zaps), mm/migrate.c, mm/rmap.c, mm/mmap.c (exit_mmap, mm_take_all_locks).
 */
#ifndef GNOMON_MM_H
#define GNOMON_MM_H

#include <gnomon/decls.h>
#include <gnomon/phys.h>
#include <gnomon/types.h>

GNOMON_BEGIN_DECLS

struct mm_struct;
struct address_space;

/*
 * Lifetime. mm_users counts those who use the address space: the last mmput tears it down (release
 * notifiers, then free the pages). mm_count counts those who need the structure: the last mmdrop
 * frees it. All mm_users together hold one mm_count. Whoever makes a call about the memory of an mm
 * pins its mm_users for the duration.
 */
struct mm_struct *mm_alloc(struct phys *phys); /* mm_users == 1; NULL when out of memory */
void mmget(struct mm_struct *mm);
bool mmget_not_zero(struct mm_struct *mm);
void mmput(struct mm_struct *mm); /* may sleep; holds none of mm's locks */
void mmgrab(struct mm_struct *mm);
void mmdrop(struct mm_struct *mm);

struct phys *mm_phys(const struct mm_struct *mm);

/* The write side of mmap_lock, for the _locked calls of mmu_notifier.h. */
void mmap_write_lock(struct mm_struct *mm);
void mmap_write_unlock(struct mm_struct *mm);
void mmap_read_lock(struct mm_struct *mm);
void mmap_read_unlock(struct mm_struct *mm);

/*
 * A shared object: the page cache that shared mappings map. Its frames belong to it, not to any
 * mapping: a zap drops mappings and keeps contents. Pages are made on first touch, zeroed. NULL
 * when out of memory.
 */
struct address_space *address_space_create(struct phys *phys, uint64_t nr_pages);
void address_space_get(struct address_space *mapping);
void address_space_put(struct address_space *mapping); /* the last put frees its frames */

#define MM_PROT_READ  0x1u
#define MM_PROT_WRITE 0x2u

/*
 * Map [addr, addr + len): pages @pgoff onwards of @mapping (a shared mapping), or private
 * zero-filled memory when @mapping is NULL. Takes mmap_lock for writing. 0; -EINVAL (unaligned,
 * empty, wraps; @prot without MM_PROT_READ or with unknown bits; beyond @mapping's end, or @mapping
 * of another pool), -EEXIST (overlap), -ENOMEM.
 */
int mm_mmap(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
	    struct address_space *mapping, uint64_t pgoff);

/*
 * Drop the mappings of [addr, addr + len) (Linux: madvise(MADV_DONTNEED)): shared pages keep their
 * contents, private ones are zero at the next touch. Takes mmap_lock for reading; one blockable
 * window, MMU_NOTIFY_CLEAR, over the range. Returns the number of pages that were mapped (one that
 * is being migrated counts), or -EINVAL (unaligned, wraps), -ENOMEM (a hole in the range, before
 * anything was changed).
 */
long mm_zap_range(struct mm_struct *mm, hva_t addr, uint64_t len);

/*
 * Move the pages mapped in [addr, addr + len) to new frames, under mmap_lock for reading. Works in
 * batches of up to 64 pages: one MMU_NOTIFY_MIGRATE window for each batch, from its first page to
 * its last, then one for each other mapping of a frame, here or in another mm. Contents are copied,
 * the old frames poisoned and freed. Returns how many pages moved (a page that is busy stays where
 * it is), or -EINVAL, -ENOMEM (no frame to move any page to).
 */
long mm_migrate_range(struct mm_struct *mm, hva_t addr, uint64_t len);

/*
 * Move one frame, found by its number, wherever it is mapped: by reverse map, without mmap_lock of
 * any mm (Linux: memory failure, compaction). 0; -EBUSY (someone holds a reference, or it is being
 * migrated), -ENOENT (free, or not a page of any mapping), -ENOMEM.
 */
int migrate_frame(struct phys *phys, pfn_t pfn);

/*
 * Move page @pgoff of @mapping as migrate_frame() does, mapped anywhere or not. As above; -ENOENT
 * when the page was never touched.
 */
int migrate_mapping_page(struct address_space *mapping, uint64_t pgoff);

/*
 * Resolve @hva to a frame for a secondary MMU, faulting the page in (Linux: hva_to_pfn over
 * get_user_pages). Takes no reference: the answer may be used only under a lock that the caller's
 * invalidate_range_start takes, after the caller's own sequence check (K-15, K-16). *writable tells
 * whether the secondary may map it writable. May sleep. 0; -EFAULT (no mapping, or write to a
 * read-only one), -ENOMEM.
 */
int hva_to_pfn(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn, bool *writable);

/*
 * Host access to the memory behind an hva. Reads and writes of naturally aligned 8 bytes or less
 * are single-copy atomic; no write is ever lost in a migration's copy. All may sleep (they fault
 * pages in). 0; -EFAULT, -ENOMEM. A call that fails half way has done the pages before the failing
 * one.
 */
int mm_read(struct mm_struct *mm, hva_t hva, void *buf, size_t len);
int mm_write(struct mm_struct *mm, hva_t hva, const void *buf, size_t len);

/* 0 swapped; 1 not (*old then holds what was found); -EFAULT, -ENOMEM, -EINVAL (unaligned). Full
 * barrier. */
int mm_cmpxchg64(struct mm_struct *mm, hva_t hva, uint64_t *old, uint64_t new_value);

/*
 * For use under spinlocks (mmu_lock): never sleeps, never faults. -EAGAIN when the page is not
 * there right now; -EINVAL (unaligned).
 */
int mm_read64_atomic(struct mm_struct *mm, hva_t hva, uint64_t *value);

/* What the primary page table maps at @hva this instant, or INVALID_PFN. Never sleeps. For audits
 * and tests. */
pfn_t mm_lookup_pfn(struct mm_struct *mm, hva_t hva);

/* Counters since mm_alloc; a racy snapshot. */
struct mm_stats {
	uint64_t faults;	 /* pages that handle_mm_fault mapped */
	uint64_t pages_zapped;	 /* what mm_zap_range returned, in sum */
	uint64_t pages_migrated; /* mappings here whose page moved to a new frame */
	uint64_t migrate_busy;	 /* mappings here whose page stayed because someone held it */
};
void mm_get_stats(struct mm_struct *mm, struct mm_stats *stats);

GNOMON_END_DECLS

#endif
