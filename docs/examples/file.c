/* SPDX-License-Identifier: 0BSD */
/*
 * A file in an address space: its pages are what is mapped, what is written gets back to it by a
 * sync, and a copy of one's own stays out of it.
 */
#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <gnomon/mm.h>

#define SHARED_AT  0x10000UL
#define PRIVATE_AT 0x40000UL
#define NR_PAGES   4UL
#define LEN	   (NR_PAGES * PAGE_SIZE)
#define RW	   (MM_PROT_READ | MM_PROT_WRITE)

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

static struct phys *phys;
static struct mm_struct *mm;
static struct address_space *file;

static void put_text(hva_t at, const char *text)
{
	CHECK(mm_write(mm, at, text, strlen(text) + 1) == 0);
}

static void expect_text(hva_t at, const char *text)
{
	char found[16] = "";

	CHECK(mm_read(mm, at, found, sizeof(found)) == 0);
	CHECK(strcmp(found, text) == 0);
}

static void expect_in_file(int fd, const char *text)
{
	char found[16] = "";

	CHECK(pread(fd, found, sizeof(found), 0) == (ssize_t)sizeof(found));
	CHECK(strcmp(found, text) == 0);
}

static int make_file(void)
{
	char name[] = "/tmp/gnomon-XXXXXX";
	int fd = mkstemp(name);

	CHECK(fd >= 0);
	CHECK(unlink(name) == 0);
	CHECK(ftruncate(fd, (off_t)LEN) == 0);
	CHECK(pwrite(fd, "from the file", 14, 0) == 14);
	return fd;
}

int main(void)
{
	int fd = make_file();

	CHECK(phys_create(&phys, 64) == 0);
	mm = mm_alloc(phys);
	CHECK(mm);
	CHECK(address_space_create_file(phys, fd, 0, &file) == 0);
	CHECK(mm_mmap(mm, SHARED_AT, LEN, RW, file, 0) == 0);
	CHECK(mm_mmap_flags(mm, PRIVATE_AT, LEN, RW, MM_MAP_PRIVATE, file, 0) == 0);
	expect_text(SHARED_AT, "from the file");
	expect_text(PRIVATE_AT, "from the file");

	/* In both mappings, as nobody has a copy yet; in the file when it is synced. */
	put_text(SHARED_AT, "written");
	expect_text(PRIVATE_AT, "written");
	expect_in_file(fd, "from the file");
	CHECK(address_space_sync(file, 0, NR_PAGES) == 1);
	CHECK(address_space_sync(file, 0, NR_PAGES) == 0);
	expect_in_file(fd, "written");

	/* A write through the private mapping makes the copy. */
	put_text(PRIVATE_AT, "mine");
	expect_text(SHARED_AT, "written");

	/* A hole is zero for all, but for who has a copy. */
	CHECK(address_space_punch_hole(file, 0, 1) == 0);
	expect_text(SHARED_AT, "");
	expect_in_file(fd, "");
	expect_text(PRIVATE_AT, "mine");

	/* What was not synced gets to the file with the last reference. */
	put_text(SHARED_AT, "at the end");
	mmput(mm);
	address_space_put(file);
	expect_in_file(fd, "at the end");
	phys_destroy(phys);
	close(fd);
	return 0;
}
