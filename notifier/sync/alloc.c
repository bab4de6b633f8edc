// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The allocator's door: malloc for objects, mmap for large sparse arrays.
 */
#include "notifier/sync/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "notifier/sync/bug.h"

/* Names in parentheses: alloc.h has macros that check first what @flags allow. */

void *(kmalloc)(size_t size, gfp_t flags)
{
	(void)flags;
	return malloc(size);
}

void *(kzalloc)(size_t size, gfp_t flags)
{
	return (kcalloc)(1, size, flags);
}

void *(kcalloc)(size_t n, size_t size, gfp_t flags)
{
	size_t bytes;

	(void)flags;
	/* calloc checks too, but the sanitizers' ends the process. */
	if (__builtin_mul_overflow(n, size, &bytes))
		return NULL;
	return calloc(1, bytes);
}

void kfree(const void *ptr)
{
	free((void *)ptr);
}

void *(kvcalloc)(size_t n, size_t size, gfp_t flags)
{
	size_t bytes;
	void *ptr;

	ASSERT(flags & GFP_KERNEL, "kvcalloc may sleep: GFP_KERNEL only");
	if (__builtin_mul_overflow(n, size, &bytes) || !bytes)
		return NULL;
	/* NORESERVE: most of such an array is never touched, so do not charge for all of it. */
	ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	return ptr == MAP_FAILED ? NULL : ptr;
}

void kvfree(void *ptr, size_t bytes)
{
	if (ptr)
		BUG_ON(munmap(ptr, bytes) != 0);
}
