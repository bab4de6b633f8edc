/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of bench_mm share. A variant is a place with pages, ours or a mapping of this very
 * process, and a bench is what is done to @n pages of it: prepared, timed, undone.
 */
#ifndef TESTS_BENCH_MM_H
#define TESTS_BENCH_MM_H

#include "tests/bench/bench.h"

#define MM_BENCH_PAGES 4096 /* at most, in one sample */

/* All of them do it or end the program: a failure would be measured as something cheap. */
struct mm_place {
	void (*map)(uint64_t n);   /* private, zero-filled memory of @n pages, untouched */
	void (*touch)(uint64_t n); /* write a word to each page */
	void (*read)(uint64_t n);  /* read one of each */
	void (*drop)(uint64_t n);  /* madvise(MADV_DONTNEED) */
	void (*protect)(uint64_t n, bool writable);
	void (*fork)(void); /* a child that does nothing ... */
	void (*reap)(void); /* ... and is gone */
	void (*unmap)(uint64_t n);
	void (*migrate)(uint64_t n); /* NULL: not to be had */
};

extern const struct mm_place mm_ours, mm_kernel;
extern const struct mm_place mm_copies; /* migrate alone: the copying of the pages, and no more */

int mm_bench_setup(const struct bench *b);
void mm_bench_teardown(const struct bench *b);

#endif
