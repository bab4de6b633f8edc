/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An allocator that fails on demand, and counts what is not given back. Its file is part of the
 * test that includes this one, in place of the library's: so that every allocation of the libraries
 * is a site at which a test can have it fail, in turn.
 */
#ifndef TESTS_SUPPORT_FAIL_ALLOC_H
#define TESTS_SUPPORT_FAIL_ALLOC_H

#include "notifier/sync/atomic.h"
#include "notifier/sync/hooks.h"
#include "tests/support/test.h"

static struct {
	atomic64_t live;  /* allocations, and those not given back yet */
	int64_t nr_sites; /* passed since alloc_fail_at(), by this one thread */
	int64_t fail_at;  /* the site that finds nothing, the first is 0; -1: none */
	const void *watched;
	atomic_t watched_freed;
} allocs = {.fail_at = -1};

static inline void *counted(void *ptr)
{
	if (ptr)
		atomic64_inc(&allocs.live);
	return ptr;
}

static inline bool alloc_fails(void)
{
	return allocs.fail_at >= 0 && allocs.nr_sites++ == allocs.fail_at;
}

static inline void note_free(const void *ptr)
{
	if (!ptr)
		return;
	atomic64_dec(&allocs.live);
	if (ptr == allocs.watched)
		atomic_inc(&allocs.watched_freed);
}

#define sync_alloc(size)	(alloc_fails() ? NULL : counted((sync_alloc)(size)))
#define sync_alloc_zeroed(size) (alloc_fails() ? NULL : counted((sync_alloc_zeroed)(size)))
#define sync_map(size)		(alloc_fails() ? NULL : counted((sync_map)(size)))
#define sync_free(ptr)		(note_free(ptr), (sync_free)(ptr))
#define sync_unmap(ptr, size)	(note_free(ptr), (sync_unmap)(ptr, size))
#include "notifier/sync/alloc.c"
#undef sync_alloc
#undef sync_alloc_zeroed
#undef sync_map
#undef sync_free
#undef sync_unmap

static inline void alloc_fail_at(int64_t site)
{
	allocs.nr_sites = 0;
	allocs.fail_at = site;
}

/* From here on nothing fails. True if the site was reached, and so did. */
static inline bool alloc_failed(void)
{
	bool failed = allocs.fail_at >= 0 && allocs.nr_sites > allocs.fail_at;

	allocs.fail_at = -1;
	return failed;
}

#endif
