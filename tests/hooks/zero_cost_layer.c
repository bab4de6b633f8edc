// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * One function for each operation of the sync layer that must cost what it does and nothing more.
 * zero_cost_bare.c has the same functions, by hand; check-zero-cost compares what the compiler
 * makes of the two in a release.
 */
#include "notifier/sync/lock.h"
#include "notifier/sync/refcount.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"

#ifndef CONFIG_LOCKDEP
_Static_assert(sizeof(struct lockdep_map) == 0, "nothing in a lock");
_Static_assert(sizeof(spinlock_t) == 4, "one word");
_Static_assert(sizeof(struct mutex) == 4, "one word");
_Static_assert(sizeof(struct rw_semaphore) == 24, "two words and a queue");
_Static_assert(sizeof(wait_queue_head_t) == 8, "two words");
#endif

void f_spin_lock(spinlock_t *lock)
{
	spin_lock(lock);
}

void f_spin_lock_nested(spinlock_t *lock)
{
	spin_lock_nested(lock, SINGLE_DEPTH_NESTING);
}

bool f_spin_trylock(spinlock_t *lock)
{
	return spin_trylock(lock);
}

void f_spin_unlock(spinlock_t *lock)
{
	spin_unlock(lock);
}

void f_mutex_lock(struct mutex *lock)
{
	mutex_lock(lock);
}

bool f_mutex_trylock(struct mutex *lock)
{
	return mutex_trylock(lock);
}

void f_mutex_unlock(struct mutex *lock)
{
	mutex_unlock(lock);
}

void f_down_read(struct rw_semaphore *sem)
{
	down_read(sem);
}

bool f_down_read_trylock(struct rw_semaphore *sem)
{
	return down_read_trylock(sem);
}

void f_up_read(struct rw_semaphore *sem)
{
	up_read(sem);
}

void f_down_write(struct rw_semaphore *sem)
{
	down_write(sem);
}

bool f_down_write_trylock(struct rw_semaphore *sem)
{
	return down_write_trylock(sem);
}

void f_up_write(struct rw_semaphore *sem)
{
	up_write(sem);
}

void f_downgrade_write(struct rw_semaphore *sem)
{
	downgrade_write(sem);
}

/* Assertions and annotations of debug builds, which are nothing at all here. */
void f_asserts(spinlock_t *lock, struct rw_semaphore *sem)
{
	(void)lock, (void)sem;
	lockdep_assert_held(lock);
	lockdep_assert_held_read(sem);
	lockdep_assert_held_write(sem);
	might_lock(lock);
	might_sleep();
	non_block_start();
	non_block_end();
}

void f_refcount_inc(refcount_t *r)
{
	refcount_inc(r);
}

bool f_refcount_dec_and_test(refcount_t *r)
{
	return refcount_dec_and_test(r);
}

void f_kref_get(struct kref *kref)
{
	kref_get(kref);
}

bool f_kref_put(struct kref *kref, void (*release)(struct kref *kref))
{
	return kref_put(kref, release);
}

int f_read_once(const int *p)
{
	return READ_ONCE(*p);
}

void f_write_once(int *p, int v)
{
	WRITE_ONCE(*p, v);
}

uint64_t f_load_acquire(const uint64_t *p)
{
	return smp_load_acquire(p);
}

void f_store_release(uint64_t *p, uint64_t v)
{
	smp_store_release(p, v);
}

void f_atomic_inc(atomic_t *v)
{
	atomic_inc(v);
}

bool f_atomic_dec_and_test(atomic_t *v)
{
	return atomic_dec_and_test(v);
}

int f_cmpxchg(int *p, int old, int new)
{
	return cmpxchg(p, old, new);
}

void f_smp_mb(void)
{
	smp_mb();
}

void f_cpu_relax(void)
{
	cpu_relax();
}

void f_wait_event(wait_queue_head_t *wq, const uint32_t *cond)
{
	wait_event(*wq, smp_load_acquire(cond));
}

uint64_t *f_current_thread(void)
{
	return &current_thread()->id;
}
