// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The allocator's door: the heap for objects, pages for large sparse arrays.
 */
#include "notifier/sync/alloc.h"

#include "notifier/sync/bug.h"
#include "notifier/sync/hooks.h"

/* Names in parentheses: alloc.h has macros that check first what @flags allow. */

void *(kmalloc)(size_t size, gfp_t flags)
{
	(void)flags;
	return sync_alloc(size);
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
	return sync_alloc_zeroed(bytes);
}

void kfree(const void *ptr)
{
	sync_free((void *)ptr);
}

void *(kvcalloc)(size_t n, size_t size, gfp_t flags)
{
	size_t bytes;

	ASSERT(flags & GFP_KERNEL, "kvcalloc may sleep: GFP_KERNEL only");
	if (__builtin_mul_overflow(n, size, &bytes) || !bytes)
		return NULL;
	return sync_map(bytes);
}

void kvfree(void *ptr, size_t bytes)
{
	if (ptr)
		BUG_ON(sync_unmap(ptr, bytes) != 0);
}
