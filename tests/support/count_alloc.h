/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An allocator that knows how many bytes the libraries have: of the heap, with what the heap itself
 * takes for each piece, and of large sparse arrays those pages that were touched. Its file is part
 * of the program that includes this one, in place of the library's. Frames of the pool are none of
 * it: tables and guest memory do not count.
 */
#ifndef TESTS_SUPPORT_COUNT_ALLOC_H
#define TESTS_SUPPORT_COUNT_ALLOC_H

#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/hooks.h"

#define COUNT_ALLOC_MAPS 256
#define COUNT_ALLOC_PAGE 4096UL

static struct {
	atomic64_t heap;
	/* Made and gone on one thread: slots come and go there. */
	struct {
		void *ptr;
		size_t size;
	} map[COUNT_ALLOC_MAPS];
} count_alloc;

/* A piece of the heap has a word in front. */
static inline void *count_piece(void *ptr)
{
	if (ptr)
		atomic64_add((int64_t)(malloc_usable_size(ptr) + sizeof(size_t)),
			     &count_alloc.heap);
	return ptr;
}

static inline void uncount_piece(void *ptr)
{
	if (ptr)
		atomic64_sub((int64_t)(malloc_usable_size(ptr) + sizeof(size_t)),
			     &count_alloc.heap);
}

/* @from -> @ptr: NULL is a free place in the list. */
static inline void count_map(void *from, void *ptr, size_t size)
{
	for (unsigned int i = 0; i < COUNT_ALLOC_MAPS; i++) {
		if (count_alloc.map[i].ptr != from)
			continue;
		count_alloc.map[i].ptr = ptr;
		count_alloc.map[i].size = size;
		return;
	}
	abort();
}

static inline void *count_new_map(size_t size)
{
	void *ptr = sync_map(size);

	if (ptr)
		count_map(NULL, ptr, size);
	return ptr;
}

static inline int uncount_map(void *ptr, size_t size)
{
	count_map(ptr, NULL, 0);
	return sync_unmap(ptr, size);
}

#define sync_alloc(size)	count_piece((sync_alloc)(size))
#define sync_alloc_zeroed(size) count_piece((sync_alloc_zeroed)(size))
#define sync_free(ptr)		(uncount_piece(ptr), (sync_free)(ptr))
#define sync_map(size)		count_new_map(size)
#define sync_unmap(ptr, size)	uncount_map(ptr, size)
#include "notifier/sync/alloc.c"
#undef sync_alloc
#undef sync_alloc_zeroed
#undef sync_free
#undef sync_map
#undef sync_unmap

static inline int64_t count_touched(void *ptr, size_t size)
{
	static unsigned char in_memory[4096];
	int64_t touched = 0;

	for (size_t at = 0; at < size; at += sizeof(in_memory) * COUNT_ALLOC_PAGE) {
		size_t len = size - at < sizeof(in_memory) * COUNT_ALLOC_PAGE
				     ? size - at
				     : sizeof(in_memory) * COUNT_ALLOC_PAGE;

		if (mincore((char *)ptr + at, len, in_memory))
			abort();
		for (size_t i = 0; i < (len + COUNT_ALLOC_PAGE - 1) / COUNT_ALLOC_PAGE; i++)
			touched += in_memory[i] & 1;
	}
	return touched * (int64_t)COUNT_ALLOC_PAGE;
}

static inline int64_t count_alloc_bytes(void)
{
	int64_t bytes = atomic64_read(&count_alloc.heap);

	for (unsigned int i = 0; i < COUNT_ALLOC_MAPS; i++)
		if (count_alloc.map[i].ptr)
			bytes += count_touched(count_alloc.map[i].ptr, count_alloc.map[i].size);
	return bytes;
}

#endif
