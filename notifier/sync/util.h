/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The few macros that everything uses and that belong to no part.
 */
#ifndef NOTIFIER_SYNC_UTIL_H
#define NOTIFIER_SYNC_UTIL_H

#include <stddef.h>

#define __stringify_1(x) #x
#define __stringify(x)	 __stringify_1(x)

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Each argument is evaluated once; both must have one type, as a cast is where such bugs hide. */
#define min(a, b)                                      \
	({                                             \
		__auto_type __min_a = (a);             \
		__auto_type __min_b = (b);             \
		(void)(&__min_a == &__min_b);          \
		__min_a < __min_b ? __min_a : __min_b; \
	})

#define max(a, b)                                      \
	({                                             \
		__auto_type __max_a = (a);             \
		__auto_type __max_b = (b);             \
		(void)(&__max_a == &__max_b);          \
		__max_a > __max_b ? __max_a : __max_b; \
	})

#define container_of(ptr, type, member)                                  \
	({                                                               \
		__typeof__(((type *)0)->member) *__member_ptr = (ptr);   \
		(type *)((char *)__member_ptr - offsetof(type, member)); \
	})

#endif
