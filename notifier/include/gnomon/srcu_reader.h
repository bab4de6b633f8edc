/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Private part of <gnomon/srcu.h>: SRCU readers as they are inlined into programs. Nothing here is
 * an interface but the two functions at the end; docs/srcu.md explains the design.
 *
 * A reader counts in memory of its own thread, with one instruction that is not a locked one. It is
 * the updater that pays for the order, with membarrier(2). So all that stands between a count and
 * the section is a compiler barrier, the "memory" of the asm; notifier/srcu_gp.c says what each one
 * pairs with, under the names in [brackets].
 *
 * A thread without a base takes the calls out of line. That is how it is told that it has none yet,
 * that it cannot have one (no number left, no membarrier), and that the library is a debug build
 * which tracks sections: so one header serves every build of the library.
 */
#ifndef GNOMON_SRCU_READER_H
#define GNOMON_SRCU_READER_H

#include <stdint.h>

#include <gnomon/srcu.h>

GNOMON_BEGIN_DECLS

/* From a section's count of locks to its count of unlocks. */
#define __SRCU_UNLOCK 16u

/*
 * By cookie, is somebody to be woken by an unlock with it? Not in the srcu_struct, which may be
 * gone by the time that an unlock looks here. Two domains to a cache line that is rarely written.
 */
#define __SRCU_MAX_COOKIE (4096u * 32)
extern uint8_t __srcu_waiting[__SRCU_MAX_COOKIE];

/* This thread's counts of all domains, or NULL. Initial-exec: one load, also from a library. */
extern __thread char *__srcu_base __attribute__((tls_model("initial-exec")));

int __srcu_read_lock_slow(struct srcu_struct *ssp);
void __srcu_read_unlock_slow(struct srcu_struct *ssp, int cookie);
void __srcu_wake(int cookie);

#ifdef __SANITIZE_THREAD__
#define __SRCU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SRCU_TSAN 1
#endif
#endif

/*
 * One instruction, so that a signal handler on the same thread never falls between its load and its
 * store: compilers do not make that of an atomic store of an atomic load plus one. ThreadSanitizer
 * sees neither asm nor membarrier: for it, the path of machines that have none.
 */
static inline void __srcu_count(char *word)
{
#if defined(GNOMON_SYNC_HOOKS)
	/* Its two steps, where a scheduler sees them; nobody has signal handlers there. */
	uint64_t *count = (uint64_t *)(void *)word;

	__atomic_store_n(count, __atomic_load_n(count, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
#elif defined(__SRCU_TSAN)
	__atomic_fetch_add((uint64_t *)(void *)word, 1, __ATOMIC_SEQ_CST);
#else
	__asm__ __volatile__("incq %0" : "+m"(*(uint64_t *)(void *)word) : : "memory", "cc");
#endif
}

static inline int srcu_read_lock(struct srcu_struct *ssp)
{
	char *base = __srcu_base;
	uint32_t cookie;

	if (__builtin_expect(!base, 0))
		return __srcu_read_lock_slow(ssp);
	cookie = __atomic_load_n(&ssp->cur, __ATOMIC_RELAXED);
	/* [enter] */
	__srcu_count(base + cookie);
	return (int)cookie;
}

static inline void srcu_read_unlock(struct srcu_struct *ssp, int cookie)
{
	char *base = __srcu_base;

	if (__builtin_expect(!base, 0)) {
		__srcu_read_unlock_slow(ssp, cookie);
		return;
	}
	/* [leave], [wake]. After the count *ssp may be gone. */
	__srcu_count(base + (uint32_t)cookie + __SRCU_UNLOCK);
	if (__builtin_expect(__atomic_load_n(&__srcu_waiting[(uint32_t)cookie], __ATOMIC_RELAXED),
			     0))
		__srcu_wake(cookie);
}

GNOMON_END_DECLS

#endif
