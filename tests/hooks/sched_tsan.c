// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What gcc and clang call for memory accesses with -fsanitize=thread, in place of libtsan: atomics
 * are points to switch at, plain accesses are checked to be to memory that is there. This file is
 * itself built without that flag.
 */
#include <string.h>

#include "tests/hooks/sched.h"

void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller)
{
	(void)caller;
}

void __tsan_func_exit(void)
{
}

#define PLAIN(n)                                \
	void __tsan_read##n(void *p)            \
	{                                       \
		sched_check(p, n, "read");      \
	}                                       \
	void __tsan_write##n(void *p)           \
	{                                       \
		sched_check(p, n, "write");     \
	}                                       \
	void __tsan_unaligned_read##n(void *p)  \
	{                                       \
		sched_check(p, n, "read");      \
	}                                       \
	void __tsan_unaligned_write##n(void *p) \
	{                                       \
		sched_check(p, n, "write");     \
	}                                       \
	struct plain_##n##_end

PLAIN(1);
PLAIN(2);
PLAIN(4);
PLAIN(8);
PLAIN(16);

void __tsan_read_range(void *p, long size)
{
	sched_check(p, (size_t)size, "read");
}

void __tsan_write_range(void *p, long size)
{
	sched_check(p, (size_t)size, "write");
}

/* clang's; gcc calls libc. */

void *__tsan_memcpy(void *to, const void *from, size_t size)
{
	sched_check(from, size, "read");
	sched_check(to, size, "write");
	return memcpy(to, from, size);
}

void *__tsan_memmove(void *to, const void *from, size_t size)
{
	sched_check(from, size, "read");
	sched_check(to, size, "write");
	return memmove(to, from, size);
}

void *__tsan_memset(void *to, int value, size_t size)
{
	sched_check(to, size, "write");
	return memset(to, value, size);
}

/* Sequentially consistent, whatever was asked for: one runs at a time. */
#define POINT(op, p)                            \
	do {                                    \
		sched_point(op, p, NULL, NULL); \
		sched_check(p, sizeof(*p), op); \
	} while (0)

#define FETCH(bits, name)                                                              \
	uint##bits##_t __tsan_atomic##bits##_fetch_##name(volatile uint##bits##_t *p,  \
							  uint##bits##_t v, int order) \
	{                                                                              \
		(void)order;                                                           \
		POINT("fetch_" #name, p);                                              \
		return __atomic_fetch_##name(p, v, __ATOMIC_SEQ_CST);                  \
	}

#define ATOMIC(bits)                                                                              \
	uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int order)    \
	{                                                                                         \
		(void)order;                                                                      \
		POINT("load", p);                                                                 \
		return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                      \
	}                                                                                         \
	void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int order) \
	{                                                                                         \
		(void)order;                                                                      \
		POINT("store", p);                                                                \
		__atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                         \
	}                                                                                         \
	uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t *p,                 \
						      uint##bits##_t v, int order)                \
	{                                                                                         \
		(void)order;                                                                      \
		POINT("exchange", p);                                                             \
		return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                               \
	}                                                                                         \
	bool __tsan_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t *p,            \
							   uint##bits##_t *old, uint##bits##_t v, \
							   int yes, int no)                       \
	{                                                                                         \
		(void)yes, (void)no;                                                              \
		POINT("cmpxchg", p);                                                              \
		return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST,            \
						   __ATOMIC_SEQ_CST);                             \
	}                                                                                         \
	bool __tsan_atomic##bits##_compare_exchange_weak(volatile uint##bits##_t *p,              \
							 uint##bits##_t *old, uint##bits##_t v,   \
							 int yes, int no)                         \
	{                                                                                         \
		return __tsan_atomic##bits##_compare_exchange_strong(p, old, v, yes, no);         \
	}                                                                                         \
	uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(volatile uint##bits##_t *p,     \
								  uint##bits##_t old,             \
								  uint##bits##_t v, int yes,      \
								  int no)                         \
	{                                                                                         \
		__tsan_atomic##bits##_compare_exchange_strong(p, &old, v, yes, no);               \
		return old;                                                                       \
	}                                                                                         \
	FETCH(bits, add)                                                                          \
	FETCH(bits, sub)                                                                          \
	FETCH(bits, and)                                                                          \
	FETCH(bits, or)                                                                           \
	FETCH(bits, xor)                                                                          \
	struct atomic_##bits##_end

ATOMIC(8);
ATOMIC(16);
ATOMIC(32);
ATOMIC(64);

void __tsan_atomic_thread_fence(int order)
{
	(void)order;
	sched_point("fence", NULL, NULL, NULL);
}

void __tsan_atomic_signal_fence(int order)
{
	(void)order;
}
