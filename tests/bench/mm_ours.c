// SPDX-License-Identifier: LGPL-2.1-or-later
/* Pages of a host mm, with nobody who watches it. */
#include <errno.h>
#include <stdlib.h>

#include <gnomon/mm.h>

#include "notifier/contents.h"
#include "tests/bench/mm.h"

#define HVA 0x100000000UL

static struct phys *phys;
static struct mm_struct *mm, *child;

static void must(long ret)
{
	if (ret < 0)
		abort();
}

/*
 * Frames that were used before: those that never were are the real kernel's to fault in, which
 * would be measured once more. Twice as many as there are pages, for copies.
 */
int mm_bench_setup(const struct bench *b)
{
	int ret = phys_create(&phys, 2 * MM_BENCH_PAGES + 64);

	(void)b;
	if (ret)
		return ret;
	for (pfn_t pfn = 0; pfn < phys_nr_frames(phys); pfn++)
		contents_fill_page(phys_map(phys, phys_alloc(phys)), 1);
	for (pfn_t pfn = 0; pfn < phys_nr_frames(phys); pfn++)
		phys_put(phys, pfn);
	mm = mm_alloc(phys);
	if (!mm)
		phys_destroy(phys);
	return mm ? 0 : -ENOMEM;
}

void mm_bench_teardown(const struct bench *b)
{
	(void)b;
	mmput(mm);
	phys_destroy(phys);
}

static void map(uint64_t n)
{
	must(mm_mmap(mm, HVA, n << PAGE_SHIFT, MM_PROT_READ | MM_PROT_WRITE, NULL, 0));
}

static void touch(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		must(mm_write(mm, HVA + (i << PAGE_SHIFT), &i, sizeof(i)));
}

static void read_each(uint64_t n)
{
	uint64_t word;

	for (uint64_t i = 0; i < n; i++)
		must(mm_read(mm, HVA + (i << PAGE_SHIFT), &word, sizeof(word)));
}

static void drop(uint64_t n)
{
	must(mm_madvise(mm, HVA, n << PAGE_SHIFT, MM_MADV_DONTNEED));
}

static void protect(uint64_t n, bool writable)
{
	must(mm_mprotect(mm, HVA, n << PAGE_SHIFT, MM_PROT_READ | (writable ? MM_PROT_WRITE : 0)));
}

static void fork_it(void)
{
	must(mm_fork(mm, &child));
}

static void reap(void)
{
	mmput(child);
}

static void unmap(uint64_t n)
{
	must(mm_munmap(mm, HVA, n << PAGE_SHIFT));
}

static void migrate(uint64_t n)
{
	if (mm_migrate_range(mm, HVA, n << PAGE_SHIFT) != (long)n)
		abort();
}

const struct mm_place mm_ours = {map,	  touch, read_each, drop,   protect,
				 fork_it, reap,	 unmap,	    migrate};

/* ---- what a move cannot do without ---- */

static void nothing(uint64_t n)
{
	(void)n;
}

static void copy(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		contents_copy_page(phys_map(phys, n + i), phys_map(phys, i));
		contents_fill_page(phys_map(phys, i), PHYS_POISON);
	}
}

/* They are free frames still. */
static void make_free(uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		contents_fill_page(phys_map(phys, n + i), PHYS_POISON);
}

const struct mm_place mm_copies = {.map = nothing,
				   .touch = nothing,
				   .unmap = make_free,
				   .migrate = copy};
