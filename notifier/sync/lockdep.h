/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lock checking: each thread's stack of held locks, and what can be asserted from it.
 *
 * Built with CONFIG_LOCKDEP (debug builds) it catches, as a BUG at the place: sleeping with a
 * spinlock held, taking a lock that the thread already holds (a second read lock of a fair rwsem
 * too: a writer that waits between the two makes that a deadlock), dropping a lock that it does not
 * hold, failing an assertion, and ending a thread with a lock held. Otherwise all of it is empty.
 */
#ifndef NOTIFIER_SYNC_LOCKDEP_H
#define NOTIFIER_SYNC_LOCKDEP_H

#include <stdbool.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

enum held_kind { HELD_SPINLOCK, HELD_MUTEX, HELD_READ, HELD_WRITE };

/* Where a lock was taken, for messages. */
#define LOCK_SITE __FILE__ ":" __stringify(__LINE__)

#ifdef CONFIG_LOCKDEP

/* Before a lock is waited for (not for a trylock): is that hopeless? */
void lockdep_check_acquire(const void *lock, enum held_kind kind, const char *site);
/* It is ours now; nothing is allocated but the stack itself. */
void lockdep_acquired(const void *lock, enum held_kind kind, const char *site);
/* It is about to be dropped. */
void lockdep_release(const void *lock, enum held_kind kind);
void lockdep_downgrade(const void *lock);

bool lockdep_is_held(const void *lock);
bool lockdep_is_held_kind(const void *lock, enum held_kind kind);

void lockdep_might_sleep(const char *site);

/* The calling thread ends: BUG if it holds a lock. */
void lockdep_thread_exit(void);

#define might_sleep() lockdep_might_sleep(LOCK_SITE)

#define __lockdep_assert(cond, lock) \
	ASSERT(cond, "lock %s (%p) must be held here by this thread", #lock, (const void *)(lock))

#else

static inline void lockdep_check_acquire(const void *lock, enum held_kind kind, const char *site)
{
	(void)lock, (void)kind, (void)site;
}

static inline void lockdep_acquired(const void *lock, enum held_kind kind, const char *site)
{
	(void)lock, (void)kind, (void)site;
}

static inline void lockdep_release(const void *lock, enum held_kind kind)
{
	(void)lock, (void)kind;
}

static inline void lockdep_downgrade(const void *lock)
{
	(void)lock;
}

static inline void lockdep_thread_exit(void)
{
}

static inline void might_sleep(void)
{
}

#define __lockdep_assert(cond, lock) ((void)sizeof(lock))

#endif

#endif
