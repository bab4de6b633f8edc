/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one door to the allocator for the libraries, so that reclaim and failure injection have a
 * place to stand. All of it may fail: NULL, and the caller unwinds.
 */
#ifndef NOTIFIER_SYNC_ALLOC_H
#define NOTIFIER_SYNC_ALLOC_H

#include <stddef.h>

#include "notifier/sync/lockdep.h"

typedef unsigned int gfp_t;

#define GFP_ATOMIC 0x0u /* never sleeps: the only choice under a spinlock */
#define GFP_KERNEL                                                                     \
	0x1u /* may sleep, and one day enter reclaim: under no lock that reclaim takes \
	      */

void *kmalloc(size_t size, gfp_t flags) __attribute__((malloc, alloc_size(1)));
void *kzalloc(size_t size, gfp_t flags) __attribute__((malloc, alloc_size(1)));
/* NULL also when n * size overflows. */
void *kcalloc(size_t n, size_t size, gfp_t flags) __attribute__((malloc, alloc_size(1, 2)));
void kfree(const void *ptr); /* NULL is fine */

/*
 * Large, sparsely used arrays: zero pages that the host provides as they are touched. Sleeps
 * (GFP_KERNEL only). Freed with the size that was asked for, n * size.
 */
void *kvcalloc(size_t n, size_t size, gfp_t flags) __attribute__((alloc_size(1, 2)));
void kvfree(void *ptr, size_t bytes);

#ifdef CONFIG_LOCKDEP
/* What an allocation might do; checked where it is written, so that a report names the place. */
#define might_alloc(flags)                                   \
	({                                                   \
		if ((flags)&GFP_KERNEL) {                    \
			might_sleep();                       \
			lock_map_visit(&lockdep_fs_reclaim); \
		}                                            \
	})
#define kmalloc(size, flags)	 (might_alloc(flags), (kmalloc)(size, flags))
#define kzalloc(size, flags)	 (might_alloc(flags), (kzalloc)(size, flags))
#define kcalloc(n, size, flags)	 (might_alloc(flags), (kcalloc)(n, size, flags))
#define kvcalloc(n, size, flags) (might_alloc(flags), (kvcalloc)(n, size, flags))
#endif

#endif
