/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Spinlocks, mutexes and reader-writer semaphores: kernel names and contracts, on atomics and
 * futexes. An uncontended lock is one compare-and-swap, inline; the rest is in lock.c. Each has a
 * bare half, which is what hooks.h can take over, and what lock checking says around it.
 *
 *   spinlock_t		short sections; the holder must not sleep. Not fair.
 *   struct mutex	the holder may sleep. Not fair.
 *   rw_semaphore	the holder may sleep. First come, first served: a waiting writer stops new
 *			readers, so a thread must not take one twice for reading.
 *
 * Rules:
 *  1. The thread that takes a lock drops it. Taking is an acquire, dropping a release.
 *  2. All zeroes is an unlocked lock of each kind; there is nothing to destroy.
 *  3. Whoever takes a lock last may free its memory at once, even while the previous holder is
 *     still inside its unlock call: an unlock never touches the memory of the lock after the step
 *     that lets the next owner in.
 *  4. Locks are process private. A forked child may use each lock that no other thread of the
 *     parent held at that moment.
 */
#ifndef NOTIFIER_SYNC_LOCK_H
#define NOTIFIER_SYNC_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/hooks.h"
#include "notifier/sync/lockdep.h"

/* The lock word below spinlocks and mutexes: 0 free, 1 held, 2 held and someone may be asleep. */
struct raw_lock {
	uint32_t state;
};

#ifndef GNOMON_SYNC_HOOKS

void raw_lock_slow(struct raw_lock *lock);
void raw_lock_wake(struct raw_lock *lock);

static inline bool raw_trylock(struct raw_lock *lock)
{
	uint32_t expected = 0;

	return __atomic_compare_exchange_n(&lock->state, &expected, 1, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

static inline void raw_lock(struct raw_lock *lock)
{
	if (unlikely(!raw_trylock(lock)))
		raw_lock_slow(lock);
}

static inline void raw_unlock(struct raw_lock *lock)
{
	/* From here on the memory may be gone (rule 3): only its address goes to the futex. */
	if (unlikely(__atomic_exchange_n(&lock->state, 0, __ATOMIC_RELEASE) == 2))
		raw_lock_wake(lock);
}

#endif /* !GNOMON_SYNC_HOOKS */

/* ---- spinlock_t ---- */

typedef struct {
	struct raw_lock raw;
	struct lockdep_map dep;
} spinlock_t;

#define DEFINE_SPINLOCK(name) spinlock_t name = {.raw = {0} __DEP_MAP_INIT(name)}

static inline void __spin_lock_init(spinlock_t *lock, const char *name, const void *key)
{
	lock->raw.state = 0;
	lockdep_init_map(&lock->dep, name, key);
}

#define spin_lock_init(lock) __spin_lock_init(lock, #lock, LOCK_CLASS_KEY)

static inline void spin_lock_at(spinlock_t *lock, unsigned int subclass,
				const struct lock_site *site)
{
	lockdep_check_acquire(&lock->dep, lock, HELD_SPINLOCK, subclass, NULL, site);
	raw_lock(&lock->raw);
	lockdep_acquired(&lock->dep, lock, HELD_SPINLOCK, subclass, site);
}

static inline bool spin_trylock_at(spinlock_t *lock, const struct lock_site *site)
{
	if (!raw_trylock(&lock->raw))
		return false;
	lockdep_acquired(&lock->dep, lock, HELD_SPINLOCK, 0, site);
	return true;
}

#define spin_lock(lock)			 spin_lock_at(lock, 0, LOCK_SITE_OF(#lock))
#define spin_lock_nested(lock, subclass) spin_lock_at(lock, subclass, LOCK_SITE_OF(#lock))
#define spin_trylock(lock)		 spin_trylock_at(lock, LOCK_SITE_OF(#lock))

static inline void spin_unlock(spinlock_t *lock)
{
	lockdep_release(lock, HELD_SPINLOCK);
	raw_unlock(&lock->raw);
}

/* ---- struct mutex ---- */

struct mutex {
	struct raw_lock raw;
	struct lockdep_map dep;
};

#define DEFINE_MUTEX(name) struct mutex name = {.raw = {0} __DEP_MAP_INIT(name)}

static inline void __mutex_init(struct mutex *lock, const char *name, const void *key)
{
	lock->raw.state = 0;
	lockdep_init_map(&lock->dep, name, key);
}

#define mutex_init(lock) __mutex_init(lock, #lock, LOCK_CLASS_KEY)

static inline void mutex_lock_at(struct mutex *lock, unsigned int subclass,
				 const struct lock_site *site)
{
	lockdep_check_acquire(&lock->dep, lock, HELD_MUTEX, subclass, NULL, site);
	raw_lock(&lock->raw);
	lockdep_acquired(&lock->dep, lock, HELD_MUTEX, subclass, site);
}

static inline bool mutex_trylock_at(struct mutex *lock, const struct lock_site *site)
{
	if (!raw_trylock(&lock->raw))
		return false;
	lockdep_acquired(&lock->dep, lock, HELD_MUTEX, 0, site);
	return true;
}

#define mutex_lock(lock)		  mutex_lock_at(lock, 0, LOCK_SITE_OF(#lock))
#define mutex_lock_nested(lock, subclass) mutex_lock_at(lock, subclass, LOCK_SITE_OF(#lock))
#define mutex_trylock(lock)		  mutex_trylock_at(lock, LOCK_SITE_OF(#lock))

static inline void mutex_unlock(struct mutex *lock)
{
	lockdep_release(lock, HELD_MUTEX);
	raw_unlock(&lock->raw);
}

/* ---- struct rw_semaphore ---- */

struct rwsem_waiter;

/*
 * count: RWSEM_WRITER while a writer holds it, else RWSEM_READER for each reader; RWSEM_WAITERS
 * exactly while the queue is not empty, and then every newcomer queues too. Changes under
 * wait_lock: the queue, RWSEM_WAITERS, and every count that somebody else holds on a waiter's
 * behalf.
 */
struct rw_semaphore {
	uint32_t count;
	struct raw_lock wait_lock;
	struct rwsem_waiter *head, *tail;
	struct lockdep_map dep;
};

#define RWSEM_WRITER  0x1u
#define RWSEM_WAITERS 0x2u
#define RWSEM_READER  0x4u

#define DECLARE_RWSEM(name) struct rw_semaphore name = {.count = 0 __DEP_MAP_INIT(name)}

static inline void __init_rwsem(struct rw_semaphore *sem, const char *name, const void *key)
{
	*sem = (struct rw_semaphore){0};
	lockdep_init_map(&sem->dep, name, key);
}

#define init_rwsem(sem) __init_rwsem(sem, #sem, LOCK_CLASS_KEY)
/* With a class that has a name elsewhere too. */
#define init_rwsem_class(sem, key) __init_rwsem(sem, #sem, key)

#ifndef GNOMON_SYNC_HOOKS

void rwsem_down_slow(struct rw_semaphore *sem, bool write);
void rwsem_up_slow(struct rw_semaphore *sem, uint32_t drop, uint32_t keep);

static inline bool __down_read_trylock(struct rw_semaphore *sem)
{
	uint32_t c = READ_ONCE(sem->count);

	while (!(c & (RWSEM_WRITER | RWSEM_WAITERS)))
		if (__atomic_compare_exchange_n(&sem->count, &c, c + RWSEM_READER, true,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
	return false;
}

static inline bool __down_write_trylock(struct rw_semaphore *sem)
{
	uint32_t expected = 0;

	return __atomic_compare_exchange_n(&sem->count, &expected, RWSEM_WRITER, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static inline void __down_read(struct rw_semaphore *sem)
{
	if (unlikely(!__down_read_trylock(sem)))
		rwsem_down_slow(sem, false);
}

static inline void __down_write(struct rw_semaphore *sem)
{
	if (unlikely(!__down_write_trylock(sem)))
		rwsem_down_slow(sem, true);
}

static inline void __up_read(struct rw_semaphore *sem)
{
	uint32_t c = READ_ONCE(sem->count);

	/* The last reader lets a waiter in, and so has to hold wait_lock while it leaves (rule 3).
	 */
	while (!(c & RWSEM_WAITERS) || c >= 2 * RWSEM_READER)
		if (__atomic_compare_exchange_n(&sem->count, &c, c - RWSEM_READER, true,
						__ATOMIC_RELEASE, __ATOMIC_RELAXED))
			return;
	rwsem_up_slow(sem, RWSEM_READER, 0);
}

static inline void __up_write(struct rw_semaphore *sem)
{
	uint32_t expected = RWSEM_WRITER;

	if (unlikely(!__atomic_compare_exchange_n(&sem->count, &expected, 0, false,
						  __ATOMIC_RELEASE, __ATOMIC_RELAXED)))
		rwsem_up_slow(sem, RWSEM_WRITER, 0);
}

static inline void __downgrade_write(struct rw_semaphore *sem)
{
	uint32_t expected = RWSEM_WRITER;

	if (unlikely(!__atomic_compare_exchange_n(&sem->count, &expected, RWSEM_READER, false,
						  __ATOMIC_RELEASE, __ATOMIC_RELAXED)))
		rwsem_up_slow(sem, RWSEM_WRITER, RWSEM_READER);
}

#endif /* !GNOMON_SYNC_HOOKS */

static inline void down_read_at(struct rw_semaphore *sem, const struct lock_site *site)
{
	lockdep_check_acquire(&sem->dep, sem, HELD_READ, 0, NULL, site);
	__down_read(sem);
	lockdep_acquired(&sem->dep, sem, HELD_READ, 0, site);
}

static inline bool down_read_trylock_at(struct rw_semaphore *sem, const struct lock_site *site)
{
	if (!__down_read_trylock(sem))
		return false;
	lockdep_acquired(&sem->dep, sem, HELD_READ, 0, site);
	return true;
}

static inline void down_write_at(struct rw_semaphore *sem, const void *nest,
				 const struct lock_site *site)
{
	lockdep_check_acquire(&sem->dep, sem, HELD_WRITE, 0, nest, site);
	__down_write(sem);
	lockdep_acquired(&sem->dep, sem, HELD_WRITE, 0, site);
}

static inline bool down_write_trylock_at(struct rw_semaphore *sem, const struct lock_site *site)
{
	if (!__down_write_trylock(sem))
		return false;
	lockdep_acquired(&sem->dep, sem, HELD_WRITE, 0, site);
	return true;
}

#define down_read(sem)		down_read_at(sem, LOCK_SITE_OF(#sem))
#define down_read_trylock(sem)	down_read_trylock_at(sem, LOCK_SITE_OF(#sem))
#define down_write(sem)		down_write_at(sem, NULL, LOCK_SITE_OF(#sem))
#define down_write_trylock(sem) down_write_trylock_at(sem, LOCK_SITE_OF(#sem))
/* One of several of its class, whose takers all hold @nest: so they do not meet. */
#define down_write_nest_lock(sem, nest) down_write_at(sem, nest, LOCK_SITE_OF(#sem))

static inline void up_read(struct rw_semaphore *sem)
{
	lockdep_release(sem, HELD_READ);
	__up_read(sem);
}

static inline void up_write(struct rw_semaphore *sem)
{
	lockdep_release(sem, HELD_WRITE);
	__up_write(sem);
}

/* From write to read with nobody in between; readers at the head of the queue come in. */
static inline void downgrade_write(struct rw_semaphore *sem)
{
	lockdep_downgrade(sem);
	__downgrade_write(sem);
}

/* ---- assertions, debug builds only ---- */

/* This path takes the lock at times: check as if it did now. */
#ifdef CONFIG_LOCKDEP
#define __might_lock(lock, kind) \
	lockdep_check_acquire(&(lock)->dep, lock, kind, 0, NULL, LOCK_SITE_OF(#lock))
#define might_lock(lock)                                                \
	__might_lock(lock, _Generic((lock), spinlock_t *                \
				    : HELD_SPINLOCK, struct mutex *     \
				    : HELD_MUTEX, struct rw_semaphore * \
				    : HELD_WRITE))
#define might_lock_read(sem) __might_lock(sem, HELD_READ)
#else
#define might_lock(lock)     ((void)sizeof(lock))
#define might_lock_read(sem) ((void)sizeof(sem))
#endif

#define __lock_ptr(lock) \
	_Generic((lock),                                                                           \
		spinlock_t *: (lock),                                                              \
		const spinlock_t *: (lock),                                                        \
		struct mutex *: (lock),                                                            \
		const struct mutex *: (lock),                                                      \
		struct rw_semaphore *: (lock),                                                     \
		const struct rw_semaphore *: (lock))

/* By this thread, in any mode. */
#define lockdep_assert_held(lock) __lockdep_assert(lockdep_is_held(__lock_ptr(lock)), lock)
#define lockdep_assert_held_write(sem) \
	__lockdep_assert(lockdep_is_held_kind((const struct rw_semaphore *)(sem), HELD_WRITE), sem)
#define lockdep_assert_held_read(sem) \
	__lockdep_assert(lockdep_is_held_kind((const struct rw_semaphore *)(sem), HELD_READ), sem)

#endif
