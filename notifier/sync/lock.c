// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The contended side of the locks of lock.h.
 *
 * raw_lock: 0 free, 1 held, 2 held and someone may be asleep. A sleeper leaves 2 behind even when
 * it gets the lock, because it cannot know whether it was the last: at worst a wake-up for nobody.
 *
 * rw_semaphore: a queue of waiters on their own stacks, first come first served. The lock is handed
 * to them: whoever makes room, or queues, runs rwsem_grant() under wait_lock, which counts in those
 * at the head, and wakes them when wait_lock is dropped. So
 *
 *  1. While RWSEM_WAITERS is set only rwsem_grant() adds holders: nobody overtakes the queue.
 *  2. A waiter returns only after its ->granted is set, which is after the last use of the
 *     semaphore by the one who granted it: the waiter may free the semaphore (lock.h, rule 3).
 *  3. Whoever may let a waiter in holds wait_lock while it leaves. An up_read() that dropped its
 *     count first could find wait_lock freed:
 *
 *	R: up_read			C: down_write			W: queued writer
 *	count -= READER
 *					queues, grants to W
 *									up_write: grants to C
 *					returns, frees the semaphore
 *	takes wait_lock: use after free
 */
#include "notifier/sync/lock.h"

#ifndef GNOMON_SYNC_HOOKS

#include <limits.h>
#include <stddef.h>

#include "notifier/sync/futex.h"

/*
 * About the length of a short critical section: 2 to 5 us on the machines we know. Longer only
 * wastes a CPU that the holder may need; the test machines have two.
 */
#define SPIN_LIMIT 100

void raw_lock_slow(struct raw_lock *lock)
{
	for (int i = 0; i < SPIN_LIMIT; i++) {
		if (READ_ONCE(lock->state) == 0 && raw_trylock(lock))
			return;
		cpu_relax();
	}
	/* Acquire; pairs with the exchange in raw_unlock. */
	while (__atomic_exchange_n(&lock->state, 2, __ATOMIC_ACQUIRE) != 0)
		futex_wait(&lock->state, 2, NULL);
}

void raw_lock_wake(struct raw_lock *lock)
{
	futex_wake(&lock->state, 1);
}

struct rwsem_waiter {
	struct rwsem_waiter *next;
	uint32_t granted; /* futex word: 0 queued, 1 the lock is ours */
	bool write;
};

/*
 * Count in every waiter that fits, from the head. Called with wait_lock held; returns those
 * waiters, to be woken by rwsem_wake() after wait_lock is dropped.
 */
static struct rwsem_waiter *rwsem_grant(struct rw_semaphore *sem)
{
	struct rwsem_waiter *granted = NULL, **tail = &granted;
	struct rwsem_waiter *w;

	while ((w = sem->head)) {
		uint32_t c = READ_ONCE(sem->count);
		uint32_t holders = c & ~RWSEM_WAITERS;
		uint32_t want;

		if (w->write ? holders != 0 : (holders & RWSEM_WRITER) != 0)
			break;
		want = holders + (w->write ? RWSEM_WRITER : RWSEM_READER);
		if (w->next)
			want |= RWSEM_WAITERS;
		/*
		 * Readers may leave meanwhile. Acquire pairs with the release of every holder that
		 * left, on behalf of the waiter, who then acquires ->granted.
		 */
		if (!try_cmpxchg(&sem->count, &c, want))
			continue;
		sem->head = w->next;
		if (!sem->head)
			sem->tail = NULL;
		w->next = NULL;
		*tail = w;
		tail = &w->next;
	}
	return granted;
}

static void rwsem_wake(struct rwsem_waiter *w)
{
	while (w) {
		struct rwsem_waiter *next = w->next;

		/* Pairs with the acquire in rwsem_down_slow. From here on w may be gone: only its
		 * address is used, and a stray wake-up there is legal (futex.h). */
		smp_store_release(&w->granted, 1);
		futex_wake(&w->granted, 1);
		w = next;
	}
}

/* A little patience before the queue, which costs two system calls: only while nobody queues. */
static bool rwsem_spin(struct rw_semaphore *sem, bool write)
{
	for (int i = 0; i < SPIN_LIMIT; i++) {
		uint32_t c = READ_ONCE(sem->count);

		if (c & RWSEM_WAITERS)
			return false;
		if (write ? __down_write_trylock(sem) : __down_read_trylock(sem))
			return true;
		cpu_relax();
	}
	return false;
}

void rwsem_down_slow(struct rw_semaphore *sem, bool write)
{
	struct rwsem_waiter self = {.write = write};
	struct rwsem_waiter *granted;

	if (rwsem_spin(sem, write))
		return;

	raw_lock(&sem->wait_lock);
	if (sem->tail)
		sem->tail->next = &self;
	else
		sem->head = &self;
	sem->tail = &self;
	/* From here on every holder that leaves room comes to wait_lock. One who left just before
	 * did not, so look once ourselves. */
	__atomic_fetch_or(&sem->count, RWSEM_WAITERS, __ATOMIC_SEQ_CST);
	granted = rwsem_grant(sem);
	raw_unlock(&sem->wait_lock);
	rwsem_wake(granted);

	/* Pairs with the release in rwsem_wake. */
	while (!smp_load_acquire(&self.granted))
		futex_wait(&self.granted, 0, NULL);
}

/* Leave @drop and enter @keep in one step, with a queue to look after. */
void rwsem_up_slow(struct rw_semaphore *sem, uint32_t drop, uint32_t keep)
{
	struct rwsem_waiter *granted;

	raw_lock(&sem->wait_lock);
	/* Release; pairs with the acquire of whoever gets in, here or in lock.h. */
	__atomic_fetch_sub(&sem->count, drop - keep, __ATOMIC_SEQ_CST);
	granted = rwsem_grant(sem);
	raw_unlock(&sem->wait_lock);
	rwsem_wake(granted);
}

#endif /* !GNOMON_SYNC_HOOKS */
