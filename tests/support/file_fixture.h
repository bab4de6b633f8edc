/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of objects with a file below: a memfd of known contents, and system calls that fail, or
 * stop half way, when told to. file_pages.c, which makes those calls, is part of the test that
 * includes this one, in place of the library's.
 */
#ifndef TESTS_SUPPORT_FILE_FIXTURE_H
#define TESTS_SUPPORT_FILE_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/contents.h"
#include "notifier/file_pages.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

static struct {
	atomic_t read_errno, write_errno, punch_errno; /* fail with it; 0: do not */
	atomic_t interrupts;			       /* so many calls end with EINTR first */
	size_t at_most;				       /* bytes a call, if not 0 */
	bool writes_nothing;			       /* and says so, which is no error */
	struct park *after_read, *before_write;	       /* where calls stop */
	atomic_t reads, writes, punches;	       /* that were done */
	void (*after_close)(int fd);		       /* of the object's descriptor */
} file_calls;

static inline bool fails(const atomic_t *with)
{
	if (atomic_read(&file_calls.interrupts) && atomic_dec_return(&file_calls.interrupts) >= 0)
		errno = EINTR;
	else
		errno = atomic_read(with);
	return errno;
}

static inline ssize_t test_pread(int fd, void *buf, size_t len, off_t at)
{
	ssize_t n;

	if (fails(&file_calls.read_errno))
		return -1;
	if (file_calls.at_most)
		len = min(len, file_calls.at_most);
	n = pread(fd, buf, len, at);
	atomic_inc(&file_calls.reads);
	if (file_calls.after_read)
		park_enter(file_calls.after_read);
	return n;
}

static inline ssize_t test_pwrite(int fd, const void *buf, size_t len, off_t at)
{
	if (fails(&file_calls.write_errno))
		return -1;
	if (file_calls.writes_nothing) {
		errno = 0;
		return 0;
	}
	if (file_calls.before_write)
		park_enter(file_calls.before_write);
	if (file_calls.at_most)
		len = min(len, file_calls.at_most);
	atomic_inc(&file_calls.writes);
	return pwrite(fd, buf, len, at);
}

static inline int test_fallocate(int fd, int mode, off_t at, off_t len)
{
	if (fails(&file_calls.punch_errno))
		return -1;
	atomic_inc(&file_calls.punches);
	return fallocate(fd, mode, at, len);
}

static inline int test_close(int fd)
{
	int ret = close(fd);

	if (file_calls.after_close)
		file_calls.after_close(fd);
	return ret;
}

#define pread	  test_pread
#define pwrite	  test_pwrite
#define fallocate test_fallocate
#define close	  test_close
#include "notifier/file_pages.c"
#undef pread
#undef pwrite
#undef fallocate
#undef close

/* Each word of page @n of a new file is this. */
static inline uint64_t file_word(uint64_t n)
{
	return 0xf11e000000000000UL + n;
}

static inline int test_file(uint64_t nr_pages)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t page[CONTENTS_WORDS];

	expect_ge(fd, 0);
	for (uint64_t n = 0; n < nr_pages; n++) {
		contents_fill_page(page, file_word(n));
		expect_eq(pwrite(fd, page, PAGE_SIZE, n * PAGE_SIZE), PAGE_SIZE);
	}
	return fd;
}

static inline uint64_t test_file_read(int fd, uint64_t at)
{
	uint64_t word = 0;

	expect_eq(pread(fd, &word, sizeof(word), at), sizeof(word));
	return word;
}

static inline struct address_space *test_file_mapping(struct phys *phys, int fd)
{
	struct address_space *mapping = NULL;

	expect_eq(address_space_create_file(phys, fd, 0, &mapping), 0);
	expect(mapping);
	return mapping;
}

/* May the entry of @hva write, as a secondary would be told? */
static inline bool test_writable(struct mm_struct *mm, hva_t hva)
{
	bool writable;
	pfn_t pfn;

	expect_eq(hva_to_pfn(mm, hva, false, &pfn, &writable), 0);
	return writable;
}

/* A machine, a file of @nr_pages pages, and an mm that maps all of it shared at FILE_BASE. */
#define FILE_BASE 0x7f0000000000UL

struct file_rig {
	struct phys *phys;
	int fd;
	struct address_space *mapping;
	struct mm_struct *mm;
};

static inline hva_t file_page(uint64_t n)
{
	return FILE_BASE + n * PAGE_SIZE;
}

static inline struct file_rig file_rig_init(uint64_t nr_pages, uint64_t nr_frames)
{
	struct file_rig rig = {.phys = test_phys(nr_frames), .fd = test_file(nr_pages)};

	rig.mapping = test_file_mapping(rig.phys, rig.fd);
	rig.mm = test_mm(rig.phys);
	expect_eq(mm_mmap(rig.mm, FILE_BASE, nr_pages * PAGE_SIZE, RW, rig.mapping, 0), 0);
	return rig;
}

static inline void file_rig_done(struct file_rig *rig)
{
	mmput(rig->mm);
	address_space_put(rig->mapping);
	test_phys_done(rig->phys);
	close(rig->fd);
}

#endif
