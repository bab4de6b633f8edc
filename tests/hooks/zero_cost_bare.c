// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The functions of zero_cost_layer.c as one writes them with nothing but the compiler: __atomic
 * builtins on words, and a call where the ordinary case ends. No header of the sync layer.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define unlikely(x) __builtin_expect(!!(x), 0)

struct sem {
	uint32_t count, wait_lock;
	void *head, *tail;
};

void raw_lock_slow(uint32_t *lock);
void raw_lock_wake(uint32_t *lock);
void rwsem_down_slow(struct sem *sem, bool write);
void rwsem_up_slow(struct sem *sem, uint32_t drop, uint32_t keep);
void refcount_saturate(int *r, int old, const char *why) __attribute__((cold));
uint32_t wait_prepare(uint32_t *wq);
void wait_finish(uint32_t *wq);
bool wait_sleep(uint32_t *wq, uint32_t seq, const void *deadline);

static inline bool swap(uint32_t *word, uint32_t old, uint32_t new, int order)
{
	return __atomic_compare_exchange_n(word, &old, new, false, order, __ATOMIC_RELAXED);
}

#define WORD_LOCKS(kind)                                                           \
	void f_##kind##_lock(uint32_t *lock)                                       \
	{                                                                          \
		if (unlikely(!swap(lock, 0, 1, __ATOMIC_ACQUIRE)))                 \
			raw_lock_slow(lock);                                       \
	}                                                                          \
	bool f_##kind##_trylock(uint32_t *lock)                                    \
	{                                                                          \
		return swap(lock, 0, 1, __ATOMIC_ACQUIRE);                         \
	}                                                                          \
	void f_##kind##_unlock(uint32_t *lock)                                     \
	{                                                                          \
		if (unlikely(__atomic_exchange_n(lock, 0, __ATOMIC_RELEASE) == 2)) \
			raw_lock_wake(lock);                                       \
	}                                                                          \
	struct kind##_end

WORD_LOCKS(spin);
WORD_LOCKS(mutex);

void f_spin_lock_nested(uint32_t *lock)
{
	if (unlikely(!swap(lock, 0, 1, __ATOMIC_ACQUIRE)))
		raw_lock_slow(lock);
}

/* 1: a writer, 2: waiters, 4: each reader */

static inline bool read_trylock(struct sem *sem)
{
	uint32_t c = __atomic_load_n(&sem->count, __ATOMIC_RELAXED);

	while (!(c & 3))
		if (__atomic_compare_exchange_n(&sem->count, &c, c + 4, true, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return true;
	return false;
}

void f_down_read(struct sem *sem)
{
	if (unlikely(!read_trylock(sem)))
		rwsem_down_slow(sem, false);
}

bool f_down_read_trylock(struct sem *sem)
{
	return read_trylock(sem);
}

void f_up_read(struct sem *sem)
{
	uint32_t c = __atomic_load_n(&sem->count, __ATOMIC_RELAXED);

	while (!(c & 2) || c >= 8)
		if (__atomic_compare_exchange_n(&sem->count, &c, c - 4, true, __ATOMIC_RELEASE,
						__ATOMIC_RELAXED))
			return;
	rwsem_up_slow(sem, 4, 0);
}

void f_down_write(struct sem *sem)
{
	if (unlikely(!swap(&sem->count, 0, 1, __ATOMIC_ACQUIRE)))
		rwsem_down_slow(sem, true);
}

bool f_down_write_trylock(struct sem *sem)
{
	return swap(&sem->count, 0, 1, __ATOMIC_ACQUIRE);
}

void f_up_write(struct sem *sem)
{
	if (unlikely(!swap(&sem->count, 1, 0, __ATOMIC_RELEASE)))
		rwsem_up_slow(sem, 1, 0);
}

void f_downgrade_write(struct sem *sem)
{
	if (unlikely(!swap(&sem->count, 1, 4, __ATOMIC_RELEASE)))
		rwsem_up_slow(sem, 1, 4);
}

void f_asserts(uint32_t *lock, struct sem *sem)
{
	(void)lock, (void)sem;
}

static inline void get(int *refs)
{
	int old = __atomic_fetch_add(refs, 1, __ATOMIC_RELAXED);

	if (unlikely(old <= 0 || old == INT_MAX))
		refcount_saturate(refs, old, old == 0 ? "taken from zero" : "overflowed");
}

static inline bool put(int *refs)
{
	int old = __atomic_fetch_sub(refs, 1, __ATOMIC_ACQ_REL);

	if (__builtin_expect(old > 1, 1))
		return false;
	if (old == 1)
		return true;
	refcount_saturate(refs, old, "dropped below zero");
	return false;
}

void f_refcount_inc(int *refs)
{
	get(refs);
}

bool f_refcount_dec_and_test(int *refs)
{
	return put(refs);
}

void f_kref_get(int *refs)
{
	get(refs);
}

bool f_kref_put(int *refs, void (*release)(int *refs))
{
	if (!put(refs))
		return false;
	release(refs);
	return true;
}

int f_read_once(const volatile int *p)
{
	return *p;
}

void f_write_once(volatile int *p, int v)
{
	*p = v;
}

uint64_t f_load_acquire(const volatile uint64_t *p)
{
	return *p;
}

void f_store_release(volatile uint64_t *p, uint64_t v)
{
	*p = v;
}

void f_atomic_inc(int *v)
{
	__atomic_fetch_add(v, 1, __ATOMIC_RELAXED);
}

bool f_atomic_dec_and_test(int *v)
{
	return __atomic_sub_fetch(v, 1, __ATOMIC_SEQ_CST) == 0;
}

int f_cmpxchg(int *p, int old, int new)
{
	__atomic_compare_exchange_n(p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return old;
}

void f_smp_mb(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void f_cpu_relax(void)
{
	__builtin_ia32_pause();
}

/* The ordinary case: one load, one test. */
void f_wait_event(uint32_t *wq, const uint32_t *cond)
{
	while (!__atomic_load_n(cond, __ATOMIC_ACQUIRE)) {
		uint32_t seq = wait_prepare(wq);
		bool done = __atomic_load_n(cond, __ATOMIC_ACQUIRE);

		if (!done)
			wait_sleep(wq, seq, NULL);
		wait_finish(wq);
		if (done)
			break;
	}
}

extern __thread uint64_t gnomon_thread_state __attribute__((tls_model("initial-exec")));

uint64_t *f_current_thread(void)
{
	return &gnomon_thread_state;
}
