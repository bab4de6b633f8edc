/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Atomics with kernel names and kernel ordering, on the compiler's __atomic builtins, which the
 * sanitizers understand.
 *
 *   READ_ONCE, WRITE_ONCE, atomic_read, atomic_set	relaxed
 *   atomic_inc, atomic_add ... (no value returned)	relaxed
 *   everything that reads and writes and returns	full barrier, also when it fails
 *   smp_load_acquire, smp_store_release		as they say
 *
 * The names collide with <stdatomic.h>: no file includes both.
 */
#ifndef NOTIFIER_SYNC_ATOMIC_H
#define NOTIFIER_SYNC_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#include "notifier/sync/hooks.h"

#ifdef ATOMIC_BOOL_LOCK_FREE
#error "include notifier/sync/atomic.h or <stdatomic.h>, not both"
#endif

#define READ_ONCE(x)	 __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

#define smp_load_acquire(p)	__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define smp_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

#define barrier() __asm__ __volatile__("" ::: "memory")

#if defined(GNOMON_SYNC_HOOKS)
/* Its flags say ThreadSanitizer, but the runtime is the embedding program. */
#elif defined(__SANITIZE_THREAD__)
#define GNOMON_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GNOMON_TSAN 1
#endif
#endif

#ifdef GNOMON_TSAN
/*
 * TSan models no fences. A read-modify-write of one shared word is a full barrier too, and shows
 * TSan more order than the fence gives: it ties all callers together, which can hide a race. Where
 * the barrier stands next to an atomic of the same protocol, prefer one full-barrier operation on
 * that. Weak: one word for the process, and no .c file for it.
 */
__attribute__((weak)) int gnomon_smp_mb_word;
static inline void smp_mb(void)
{
	__atomic_fetch_add(&gnomon_smp_mb_word, 1, __ATOMIC_SEQ_CST);
}
#else
static inline void smp_mb(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

/* After an operation that is a full barrier anyway on x86, our only machine: says who relies on it.
 */
static inline void smp_mb__after_atomic(void)
{
	barrier();
}

#ifndef GNOMON_SYNC_HOOKS
static inline void cpu_relax(void)
{
	__builtin_ia32_pause();
}
#endif

#define xchg(p, v) __atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

/* Returns what was found: the swap happened if that equals @old. */
#define cmpxchg(p, old, new)                                                                     \
	({                                                                                       \
		__typeof__(*(p)) __cmpxchg_old = (old);                                          \
		__atomic_compare_exchange_n((p), &__cmpxchg_old, (new), false, __ATOMIC_SEQ_CST, \
					    __ATOMIC_SEQ_CST);                                   \
		__cmpxchg_old;                                                                   \
	})

/* True if swapped; else *oldp is what was found. */
#define try_cmpxchg(p, oldp, new) \
	__atomic_compare_exchange_n((p), (oldp), (new), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	int64_t counter;
} atomic64_t;

#define ATOMIC_INIT(i)	 ((atomic_t){i})
#define ATOMIC64_INIT(i) ((atomic64_t){i})

/* One family for both widths: @A is the prefix and type stem, @T the type of the value. */
#define __DEFINE_ATOMIC_OPS(A, T)                                            \
	static inline T A##_read(const A##_t *v)                             \
	{                                                                    \
		return READ_ONCE(v->counter);                                \
	}                                                                    \
	static inline void A##_set(A##_t *v, T i)                            \
	{                                                                    \
		WRITE_ONCE(v->counter, i);                                   \
	}                                                                    \
	static inline T A##_read_acquire(const A##_t *v)                     \
	{                                                                    \
		return smp_load_acquire(&v->counter);                        \
	}                                                                    \
	static inline void A##_set_release(A##_t *v, T i)                    \
	{                                                                    \
		smp_store_release(&v->counter, i);                           \
	}                                                                    \
	static inline void A##_add(T i, A##_t *v)                            \
	{                                                                    \
		__atomic_fetch_add(&v->counter, i, __ATOMIC_RELAXED);        \
	}                                                                    \
	static inline void A##_sub(T i, A##_t *v)                            \
	{                                                                    \
		__atomic_fetch_sub(&v->counter, i, __ATOMIC_RELAXED);        \
	}                                                                    \
	static inline void A##_inc(A##_t *v)                                 \
	{                                                                    \
		A##_add(1, v);                                               \
	}                                                                    \
	static inline void A##_dec(A##_t *v)                                 \
	{                                                                    \
		A##_sub(1, v);                                               \
	}                                                                    \
	static inline T A##_fetch_add(T i, A##_t *v)                         \
	{                                                                    \
		return __atomic_fetch_add(&v->counter, i, __ATOMIC_SEQ_CST); \
	}                                                                    \
	static inline T A##_fetch_sub(T i, A##_t *v)                         \
	{                                                                    \
		return __atomic_fetch_sub(&v->counter, i, __ATOMIC_SEQ_CST); \
	}                                                                    \
	static inline T A##_fetch_or(T i, A##_t *v)                          \
	{                                                                    \
		return __atomic_fetch_or(&v->counter, i, __ATOMIC_SEQ_CST);  \
	}                                                                    \
	static inline T A##_fetch_and(T i, A##_t *v)                         \
	{                                                                    \
		return __atomic_fetch_and(&v->counter, i, __ATOMIC_SEQ_CST); \
	}                                                                    \
	static inline T A##_add_return(T i, A##_t *v)                        \
	{                                                                    \
		return __atomic_add_fetch(&v->counter, i, __ATOMIC_SEQ_CST); \
	}                                                                    \
	static inline T A##_sub_return(T i, A##_t *v)                        \
	{                                                                    \
		return __atomic_sub_fetch(&v->counter, i, __ATOMIC_SEQ_CST); \
	}                                                                    \
	static inline T A##_inc_return(A##_t *v)                             \
	{                                                                    \
		return A##_add_return(1, v);                                 \
	}                                                                    \
	static inline T A##_dec_return(A##_t *v)                             \
	{                                                                    \
		return A##_sub_return(1, v);                                 \
	}                                                                    \
	static inline bool A##_dec_and_test(A##_t *v)                        \
	{                                                                    \
		return A##_sub_return(1, v) == 0;                            \
	}                                                                    \
	static inline bool A##_sub_and_test(T i, A##_t *v)                   \
	{                                                                    \
		return A##_sub_return(i, v) == 0;                            \
	}                                                                    \
	static inline T A##_xchg(A##_t *v, T i)                              \
	{                                                                    \
		return xchg(&v->counter, i);                                 \
	}                                                                    \
	static inline T A##_cmpxchg(A##_t *v, T old, T new)                  \
	{                                                                    \
		return cmpxchg(&v->counter, old, new);                       \
	}                                                                    \
	static inline bool A##_try_cmpxchg(A##_t *v, T *old, T new)          \
	{                                                                    \
		return try_cmpxchg(&v->counter, old, new);                   \
	}                                                                    \
	/* Add @i unless the value is @u; true if added. */                  \
	static inline bool A##_add_unless(A##_t *v, T i, T u)                \
	{                                                                    \
		T c = A##_read(v);                                           \
                                                                             \
		do {                                                         \
			if (c == u)                                          \
				return false;                                \
		} while (!A##_try_cmpxchg(v, &c, c + i));                    \
		return true;                                                 \
	}                                                                    \
	static inline bool A##_inc_not_zero(A##_t *v)                        \
	{                                                                    \
		return A##_add_unless(v, 1, 0);                              \
	}                                                                    \
	struct A##_ops_end

__DEFINE_ATOMIC_OPS(atomic, int);
__DEFINE_ATOMIC_OPS(atomic64, int64_t);

#endif
