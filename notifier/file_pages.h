/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of file-backed objects share: pages from and to the file (file_pages.c), writing
 * back (file_sync.c), holes (file_hole.c).
 */
#ifndef NOTIFIER_FILE_PAGES_H
#define NOTIFIER_FILE_PAGES_H

#include "notifier/mm_internal.h"

/* A shared area of a file: its entries may write only while the page is dirty (write-notify). */
static inline bool vma_notifies_writes(const struct vm_area_struct *vma)
{
	return vma->mapping && has_file(vma->mapping) && !vma_is_private(vma);
}

/*
 * A write meets the present entry @pte of an area that notifies writes, which does not allow it:
 * the page is dirty from now on, and the entry writable, unless it is another by now. The caller
 * looks again.
 */
void mkwrite_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte);

/* Page @pgoff as the file has it, into the locked frame. What the file lacks is zero. 0, -EIO. */
int file_read_page(struct address_space *mapping, uint64_t pgoff, pfn_t pfn);

/* The bytes of page @pgoff to the file, as far as it reaches. 0, -errno. */
int file_write_page(struct address_space *mapping, uint64_t pgoff, const void *page);

/* Zeroes in the file, without the blocks. 0, -errno. */
int file_punch(struct address_space *mapping, uint64_t first, uint64_t nr_pages);

/* The last put: what is dirty is written, or said to be lost; and with all pages gone, so that
 * nobody writes one any more, the descriptor is closed. */
void file_last_sync(struct address_space *mapping);
void file_close(struct address_space *mapping);

/*
 * For whoever wants to drop the frame of a dirty page (reclaim). It is locked, and mapped nowhere:
 * the file gets its contents. 0 and the page is clean; -EBUSY: it is pinned, so the file has
 * something, and the page stays dirty; -EAGAIN (a hole is in the making) or another -errno, and it
 * stays dirty. May sleep.
 */
int address_space_writeback_page(struct address_space *mapping, struct frame *frame, pfn_t pfn);

#endif
