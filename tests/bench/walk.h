/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest and a process of the host do alike: go through so much memory. In assembly, so that
 * they do it by the same instructions, whatever each was compiled with. Read by both sides
 * (guest.c, shadow_kvm.c).
 */
#ifndef TESTS_BENCH_WALK_H
#define TESTS_BENCH_WALK_H

#include <stdint.h>

enum walk_job {
	WALK_TOUCH, /* store to each page */
	WALK_FILL,  /* give the first word of each line a value */
	WALK_LINES, /* sum up those words, one line after the other */
	WALK_PAGES, /* one word of each page, pages in an order that no prefetch guesses */
};

#define WALK_LINE 64ul
#define WALK_PAGE 4096ul

static inline uint64_t walk_touch(char *at, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += WALK_PAGE)
		__asm__ volatile("movq %1, (%0)" : : "r"(at + i), "r"(i) : "memory");
	return 0;
}

static inline uint64_t walk_fill(char *at, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i += WALK_LINE)
		__asm__ volatile("movq %1, (%0)" : : "r"(at + i), "r"(i * 3) : "memory");
	return 0;
}

static inline uint64_t walk_lines(const char *at, uint64_t bytes)
{
	const char *end = at + bytes;
	uint64_t sum = 0;

	__asm__ volatile(".p2align 5\n"
			 "1:	addq	(%0), %1\n"
			 "	addq	$64, %0\n"
			 "	cmpq	%2, %0\n"
			 "	jb	1b"
			 : "+r"(at), "+r"(sum)
			 : "r"(end)
			 : "memory", "cc");
	return sum;
}

/* @bytes is a power of two. Another line in each page: else all would meet in one set of a cache.
 */
static inline uint64_t walk_pages(const char *at, uint64_t bytes)
{
	uint64_t sum = 0, n = bytes / WALK_PAGE, page = 0, offset, line;

	__asm__ volatile(".p2align 5\n"
			 "1:	movq	%2, %3\n"
			 "	movq	%0, %4\n"
			 "	shlq	$12, %3\n"
			 "	andq	$63, %4\n"
			 "	shlq	$6, %4\n"
			 "	orq	%4, %3\n"
			 "	addq	(%5,%3), %1\n"
			 "	addq	$40503, %2\n"
			 "	andq	%6, %2\n"
			 "	decq	%0\n"
			 "	jnz	1b"
			 : "+r"(n), "+r"(sum), "+r"(page), "=&r"(offset), "=&r"(line)
			 : "r"(at), "r"(bytes / WALK_PAGE - 1)
			 : "memory", "cc");
	return sum;
}

#endif
