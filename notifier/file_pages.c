// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Objects whose pages come from a file, and go back to it (kernel: mm/filemap.c; fault_dirty and
 * page_mkwrite in mm/memory.c).
 *
 * A page is read when it is first touched, and belongs to the cache from then on: what others write
 * to the file meanwhile is not seen. It goes back when somebody syncs (file_sync.c), or takes its
 * frame, and with the last put.
 *
 * Which pages are dirty is known before anyone can write to them (write-notify). A read maps a page
 * read-only, whatever the area allows. The first write then comes here, and:
 *
 *   no entry of a shared area is writable unless the slot says SLOT_DIRTY
 *
 * with the frame locked to set the one and the other. So nobody has to look through entries, and
 * the secondaries that have them, to learn what is dirty; and whoever wants a page clean takes the
 * right to write away first, in a window (file_sync.c). An entry that goes takes no knowledge with
 * it. A migration moves entry and mark together, with both frames locked.
 */
#include "notifier/file_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "notifier/frame.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"

/* ---- the file ---- */

static uint64_t pages_of(uint64_t bytes)
{
	return (bytes >> PAGE_SHIFT) + !PAGE_ALIGNED(bytes);
}

/*
 * 0, and what it is; or why it will not do. With O_APPEND each write would go to the end, wherever
 * it was meant to go.
 */
static int look_at_file(int fd, uint64_t *bytes, bool *read_only)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENODEV;
	if ((flags & O_PATH) || (flags & O_ACCMODE) == O_WRONLY)
		return -EACCES;
	*read_only = (flags & O_ACCMODE) == O_RDONLY;
	if (!*read_only && (flags & O_APPEND))
		return -EINVAL;
	*bytes = st.st_size;
	return 0;
}

int address_space_create_file(struct phys *phys, int fd, uint64_t nr_pages,
			      struct address_space **mappingp)
{
	struct address_space *mapping;
	uint64_t bytes = 0;
	bool read_only = false;
	int ret = look_at_file(fd, &bytes, &read_only);

	if (ret)
		return ret;
	if (nr_pages > pages_of(bytes))
		return -EINVAL;
	mapping = address_space_create(phys, nr_pages ? nr_pages : pages_of(bytes));
	if (!mapping)
		return -ENOMEM;
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0) {
		ret = -errno;
		address_space_put(mapping);
		return ret;
	}
	mapping->fd = fd;
	mapping->read_only = read_only;
	mapping->file_bytes = bytes;
	*mappingp = mapping;
	return 0;
}

void file_last_sync(struct address_space *mapping)
{
	long ret = address_space_sync(mapping, 0, mapping->nr_pages);

	if (ret < 0)
		pr_warn("pages of a file are lost with its last mapping: %s", strerror((int)-ret));
}

void file_close(struct address_space *mapping)
{
	close(mapping->fd);
}

int file_read_page(struct address_space *mapping, uint64_t pgoff, pfn_t pfn)
{
	char *page = phys_map(mapping->phys, pfn);
	off_t at = (off_t)(pgoff << PAGE_SHIFT);
	size_t have = 0;

	might_sleep();
	while (have < PAGE_SIZE) {
		ssize_t n = pread(mapping->fd, page + have, PAGE_SIZE - have, at + (off_t)have);

		if (n == 0)
			break;
		if (n > 0)
			have += (size_t)n;
		else if (errno != EINTR)
			return -EIO;
	}
	memset(page + have, 0, PAGE_SIZE - have);
	return 0;
}

int file_write_page(struct address_space *mapping, uint64_t pgoff, const void *page)
{
	off_t at = (off_t)(pgoff << PAGE_SHIFT);
	size_t len = min(PAGE_SIZE, mapping->file_bytes - (uint64_t)at), done = 0;

	might_sleep();
	while (done < len) {
		ssize_t n = pwrite(mapping->fd, (const char *)page + done, len - done,
				   at + (off_t)done);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0)
			return -EIO;
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

int file_punch(struct address_space *mapping, uint64_t first, uint64_t nr_pages)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	might_sleep();
	while (fallocate(mapping->fd, mode, (off_t)(first << PAGE_SHIFT),
			 (off_t)(nr_pages << PAGE_SHIFT)) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* ---- write-notify ---- */

/*
 * No reference is needed to lock the frame (address_space.c). With it locked, an entry that names
 * it shows a page of the object in its slot: who takes it out of there unmaps it before, both with
 * the frame locked. The entry may be zapped all the same, and then the mark costs a write too many.
 */
void mkwrite_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte)
{
	struct mm_struct *mm = vma->mm;
	pfn_t pfn = pte_pfn(pte);

	lock_frame(mm->phys, pfn);
	pte = pte_load(ptep);
	if (pte_present(pte) && pte_pfn(pte) == pfn) {
		address_space_set_dirty(vma->mapping, vma_page(vma, hva), true);
		spin_lock(&mm->page_table_lock);
		pte = pte_load(ptep);
		if (pte_present(pte) && pte_pfn(pte) == pfn)
			change_pte(mm, hva, ptep, &pte,
				   pte | vma_pte_rights(vma) | PTE_ACCESSED | PTE_DIRTY |
					   PTE_SOFT_DIRTY);
		spin_unlock(&mm->page_table_lock);
	}
	unlock_frame(mm->phys, pfn);
}
