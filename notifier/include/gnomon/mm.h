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

/*
 * The same, with a file below it: any regular file or memfd. A page is what the file has when it is
 * first touched, and goes back with a sync, or when the frame is needed, or with the last put
 * (where an error is logged). @nr_pages of the file, from its beginning; 0: all there are. The file
 * does not grow: what lies behind its end, in the last page, is zero and is not written. The
 * descriptor is duplicated. 0; -EBADF, -ENODEV (no regular file), -EACCES (not open for reading),
 * -EINVAL (fewer pages than @nr_pages; open for writing with O_APPEND), -EMFILE, -ENOMEM.
 *
 * A file that is not open for writing can be mapped shared to be read, and private. Where a page
 * cannot be read, all that needs it says -EIO: faults, accesses, hva_to_pfn(), hmm_range_fault().
 */
int address_space_create_file(struct phys *phys, int fd, uint64_t nr_pages,
			      struct address_space **mapping);

/*
 * Write back what is dirty of @nr_pages pages from @first on. What was written before the call, by
 * any mapping, is in the file when it returns, as read(2) sees it (on disk: fsync(2)). Each mapping
 * that may write a page asks again for its next write: one window each, MMU_NOTIFY_PROTECTION_PAGE,
 * over the page. One that is pinned (mm_pin_page) is written and stays dirty, as it may be written
 * to at any time. Returns how many pages were written, or -errno of the first that could not be,
 * which stay dirty; the others are written all the same. -EINVAL: beyond the end. The caller has a
 * reference, or it is mapped. May sleep.
 */
long address_space_sync(struct address_space *mapping, uint64_t first, uint64_t nr_pages);

/*
 * Make @nr_pages pages from @first on a hole: zero at the next touch, and in the file, if there is
 * one, blocks that are not there. Unmapped everywhere: in each area that shows part of it one
 * window, MMU_NOTIFY_CLEAR, over that part (and one over a page that comes back meanwhile). Private
 * copies stay. Whoever has a page pinned keeps what is no page of anyone any more. 0; -EINVAL
 * (beyond the end), -EACCES (the file is not open for writing), or what fallocate(2) says, and then
 * nothing has changed.
 */
int address_space_punch_hole(struct address_space *mapping, uint64_t first, uint64_t nr_pages);

#define MM_PROT_NONE  0x0u
#define MM_PROT_READ  0x1u
#define MM_PROT_WRITE 0x2u /* with MM_PROT_READ only, as in hardware */

/*
 * Map [addr, addr + len): pages @pgoff onwards of @mapping (a shared mapping), or private
 * zero-filled memory when @mapping is NULL. Takes mmap_lock for writing. 0; -EINVAL (unaligned,
 * empty, wraps; @prot none of the three combinations; beyond @mapping's end, or @mapping of another
 * pool), -EACCES (shared, to be written, of a file that is not open for it), -EEXIST (overlap),
 * -ENOMEM (also with 65,530 areas, as in Linux).
 */
int mm_mmap(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
	    struct address_space *mapping, uint64_t pgoff);

/*
 * The same, and with MM_MAP_PRIVATE pages of @mapping are shown until they are written, and copied
 * then. With MM_MAP_FIXED whatever is mapped there goes first, as by mm_munmap(): and its notifiers
 * are told so.
 */
#define MM_MAP_PRIVATE 0x1u
#define MM_MAP_FIXED   0x2u
int mm_mmap_flags(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
		  unsigned int flags, struct address_space *mapping, uint64_t pgoff);

/*
 * Unmap [addr, addr + len), @len rounded up to pages; what is not mapped there does not matter. One
 * window, MMU_NOTIFY_UNMAP, over the range, if anything is mapped in it. Takes mmap_lock for
 * writing, and waits for a grace period if tables can be freed. 0; -EINVAL (@addr unaligned, empty,
 * wraps), -ENOMEM (an area had to be split) and nothing was unmapped.
 */
int mm_munmap(struct mm_struct *mm, hva_t addr, uint64_t len);

/*
 * Make the mapping at [addr, addr + old_len) @new_len long, both rounded up to pages: in place, or,
 * if it must grow and cannot, elsewhere with MM_MREMAP_MAYMOVE. With MM_MREMAP_FIXED, which needs
 * the other, at *@new_addr, in place of whatever is there. *@new_addr is where it is now. Pages
 * move with it; one window, MMU_NOTIFY_UNMAP, over the old range for a move, or over what is cut
 * off. Takes mmap_lock for writing. 0; -EINVAL (unaligned, empty, flags, overlap of old and new,
 * beyond the end of the object), -EFAULT (not one area), -ENOMEM (no room; no memory).
 */
#define MM_MREMAP_MAYMOVE 0x1u
#define MM_MREMAP_FIXED	  0x2u
int mm_mremap(struct mm_struct *mm, hva_t addr, uint64_t old_len, uint64_t new_len,
	      unsigned int flags, hva_t *new_addr);

/*
 * Set the rights of [addr, addr + len), @len rounded up to pages. One window,
 * MMU_NOTIFY_PROTECTION_VMA, over each area, or part of one, whose rights change. Takes mmap_lock
 * for writing. 0; -EINVAL (@addr unaligned, @prot), -ENOMEM (a hole, or no memory: what lies before
 * has the new rights), -EACCES (as mm_mmap; the same).
 */
int mm_mprotect(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot);

/*
 * Advice for what is mapped in [addr, addr + len), @len rounded up to pages, area by area (Linux:
 * madvise). Holes are skipped. 0; -EINVAL (@addr unaligned, no such advice, or not for an area like
 * one of these), -ENOMEM (a hole, after all the rest was done; or no memory).
 */
enum mm_advice {
	/* Drop the mappings, as mm_zap_range() does; one window, MMU_NOTIFY_CLEAR, for each area.
	 */
	MM_MADV_DONTNEED,
	/*
	 * The contents are not needed: they may be dropped, and the page be zero, at any time until
	 * it is next written, when memory is short. What was swapped out is dropped at once.
	 * Private memory that shows no object only, else -EINVAL. One window, MMU_NOTIFY_CLEAR, for
	 * each area. A page that others map, too, is left alone, also by the next two.
	 */
	MM_MADV_FREE,
	/* The pages will not be needed soon: they go before those that are in use. */
	MM_MADV_COLD,
	/* The pages go now, as far as they can: swap.h. One window, MMU_NOTIFY_CLEAR, for each. */
	MM_MADV_PAGEOUT,
	/*
	 * Punch a hole in the object where the area shows it (address_space_punch_hole). -EINVAL:
	 * it shows none; -EACCES: it is private, or may not write.
	 */
	MM_MADV_REMOVE,
	/*
	 * Equal private pages may become one (gnomon/ksm.h); areas that are not private are passed
	 * by. -EINVAL if nobody does so on this machine. And no more: each page that was merged
	 * gets a frame of its own again, in one window, MMU_NOTIFY_CLEAR, for each; after -ENOMEM
	 * the rest of the area is as before. Both take mmap_lock for writing.
	 */
	MM_MADV_MERGEABLE,
	MM_MADV_UNMERGEABLE,
	NR_MM_MADV,
};
int mm_madvise(struct mm_struct *mm, hva_t addr, uint64_t len, enum mm_advice advice);

/*
 * Write back what shared areas of files show in [addr, addr + len), @len rounded up to pages, as
 * address_space_sync() does (Linux: msync(MS_SYNC), without the disk). Takes mmap_lock for reading.
 * 0; -EINVAL (@addr unaligned), -ENOMEM (a hole in the range: the rest was done; or it wraps), or
 * -errno of the first area of which a page could not be written, where it ends.
 */
int mm_msync(struct mm_struct *mm, hva_t addr, uint64_t len);

/*
 * A second mm with the same areas and contents. Private pages are shared until one of the two
 * writes: one window, MMU_NOTIFY_PROTECTION_PAGE, over each private area of @mm. A page that is
 * pinned is copied at once and stays that of @mm. Takes mmap_lock of @mm for writing. The child has
 * one user, the caller, and nobody's notifiers. 0, -ENOMEM.
 */
int mm_fork(struct mm_struct *mm, struct mm_struct **child);

/*
 * Keep the page at @hva in the frame that it is in (device DMA), until it is unpinned: it is not
 * moved, merged or reclaimed, and if it is pinned for writing, a fork leaves it to this mm, which
 * goes on to write in it. A page that is pinned for reading stays as it is; in a private area this
 * mm's next write may have its copy elsewhere. May be unmapped meanwhile, and is freed with the
 * last pin then. 0; -EFAULT, -ENOMEM, -EIO.
 */
int mm_pin_page(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn);
void mm_unpin_page(struct mm_struct *mm, pfn_t pfn, bool write); /* as it was pinned */

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
 * Move page @pgoff of @mapping as migrate_frame() does, mapped anywhere or not. One that is being
 * migrated is waited for, and moved again. As above; -ENOENT when the page was never touched.
 */
int migrate_mapping_page(struct address_space *mapping, uint64_t pgoff);

/*
 * Resolve @hva to a frame for a secondary MMU, faulting the page in (Linux: hva_to_pfn over
 * get_user_pages). Takes no reference: the answer may be used only under a lock that the caller's
 * invalidate_range_start takes, after the caller's own sequence check (K-15, K-16). *writable tells
 * whether the secondary may map it writable. May sleep. 0; -EFAULT (no mapping, or write to a
 * read-only one), -ENOMEM, -EIO (the page could not be read from where it is; it still is there).
 */
int hva_to_pfn(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn, bool *writable);

/*
 * Can the aligned 2 MiB around @hva be mapped by one entry? They can if all pages are there, in
 * frames that follow each other from an aligned one on, *pfn, and all with the same rights. @write:
 * the secondary wants to write; *writable: it may, and then all pages count as written. Never
 * sleeps. The answer is good only under the lock that the caller's invalidate_range_start takes,
 * while no window is open over any of these pages.
 */
#define MM_HUGE_SIZE (512 * PAGE_SIZE)
bool hva_to_huge_pfn(struct mm_struct *mm, hva_t hva, bool write, pfn_t *pfn, bool *writable);

/*
 * Host access to the memory behind an hva. Reads and writes of naturally aligned 8 bytes or less
 * are single-copy atomic; no write is ever lost in a migration's copy. All may sleep (they fault
 * pages in). 0; -EFAULT, -ENOMEM, -EIO. A call that fails half way has done the pages before the
 * failing one.
 */
int mm_read(struct mm_struct *mm, hva_t hva, void *buf, size_t len);
int mm_write(struct mm_struct *mm, hva_t hva, const void *buf, size_t len);

/* 0 swapped; 1 not (*old then holds what was found); -EFAULT, -ENOMEM, -EIO, -EINVAL (unaligned).
 * Full barrier. */
int mm_cmpxchg64(struct mm_struct *mm, hva_t hva, uint64_t *old, uint64_t new_value);

/*
 * For use under spinlocks (mmu_lock): never sleeps, never faults. -EAGAIN when the page is not
 * there right now; -EINVAL (unaligned).
 */
int mm_read64_atomic(struct mm_struct *mm, hva_t hva, uint64_t *value);

/* What the primary page table maps at @hva this instant, or INVALID_PFN. Never sleeps. For audits
 * and tests. */
pfn_t mm_lookup_pfn(struct mm_struct *mm, hva_t hva);

/* What the entry of a page says. */
enum mm_page_kind {
	MM_PAGE_NONE,	   /* no page: never touched, or dropped since */
	MM_PAGE_PRESENT,   /* number is its frame */
	MM_PAGE_MIGRATING, /* on its way to another frame than number */
	MM_PAGE_SWAPPED,   /* number is its slot of the swap file */
	MM_PAGE_DEVICE,	   /* in a device's own memory, frame number of that */
	MM_PAGE_EXCLUSIVE, /* in frame number, which a device has for itself */
};

struct mm_page {
	enum mm_page_kind kind;
	uint64_t number;
	uint64_t entry;	      /* all of it, as it is in the table */
	unsigned int prot;    /* MM_PROT_*: what it grants now. The rest for PRESENT only */
	bool accessed, dirty; /* since somebody took the bit away */
	bool soft_dirty;      /* since mm_clear_soft_dirty() */
};

/* The entry of @hva this instant. Never sleeps. */
void mm_lookup_page(struct mm_struct *mm, hva_t hva, struct mm_page *page);

struct mm_area {
	hva_t start, end;
	unsigned int prot; /* MM_PROT_* */
	bool is_private;
	bool shows_object;
	uint64_t pgoff; /* the page of the object that start shows */
};

/* The area that @hva lies in; false: in none. Takes mmap_lock for reading. */
bool mm_lookup_area(struct mm_struct *mm, hva_t hva, struct mm_area *area);

/*
 * Which pages were written? mm_clear_soft_dirty() begins anew (Linux: 4 to clear_refs): takes
 * mmap_lock for writing, and every right to write, in one blockable window, MMU_NOTIFY_SOFT_DIRTY,
 * over everything. The next write to a page faults, and gives it back.
 *
 * mm_test_soft_dirty() sets bit n of @bitmap, in words of 64, if page n of [addr, addr + len) was
 * written since, and clears it if not. Written is also what came since, by a fault or a move, what
 * is pinned for writing, and what has no page now: so that a page that is not reported is what it
 * was when mm_clear_soft_dirty() returned. (But for one of a shared object that was written by way
 * of another mapping.) Takes mmap_lock for reading. Returns how many are reported; -EINVAL
 * (unaligned, wraps), -ENOMEM (a hole in the range).
 */
void mm_clear_soft_dirty(struct mm_struct *mm);
long mm_test_soft_dirty(struct mm_struct *mm, hva_t addr, uint64_t len, uint64_t *bitmap);

/* Counters since mm_alloc; a racy snapshot. */
struct mm_stats {
	uint64_t faults;	    /* pages that handle_mm_fault mapped */
	uint64_t cow_copies;	    /* private pages that were copied for a write */
	uint64_t pages_zapped;	    /* what mm_zap_range returned, in sum */
	uint64_t pages_migrated;    /* mappings here whose page moved to a new frame */
	uint64_t migrate_busy;	    /* mappings here whose page stayed because someone held it */
	uint64_t pages_swapped_in;  /* mappings here that a fault made of swap entries */
	uint64_t pages_swapped_out; /* and the reverse */
	uint64_t pages_to_device;   /* that went to the memory of a device (gnomon/device.h) */
	uint64_t pages_to_ram;	    /* that came back from there */
};
void mm_get_stats(struct mm_struct *mm, struct mm_stats *stats);

GNOMON_END_DECLS

#endif
