/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lock checking: each thread's stack of held locks, and the order in which classes of locks are
 * taken. docs/lockdep.md is the chapter.
 *
 * Built with CONFIG_LOCKDEP (debug builds) it catches, as a BUG at the place: an order of two
 * classes that closes a cycle with orders seen before, by whatever thread, the first time the code
 * runs; sleeping with a spinlock held; taking a lock that the thread already holds (a second read
 * lock of a fair rwsem too: a writer that waits between the two makes that a deadlock), or a
 * second one of its class without saying why that is safe; dropping a lock that it does not hold;
 * failing an assertion; and ending a thread with a lock held. Otherwise all of it is empty, and
 * struct lockdep_map has no size.
 *
 * Each lock carries a struct lockdep_map, which says its class: one for each init or DEFINE site,
 * named as the lock is written there ("mm->mmap_lock"). A lock that was never initialised (all
 * zeroes) gets the class of its name at the place where it is first taken.
 */
#ifndef NOTIFIER_SYNC_LOCKDEP_H
#define NOTIFIER_SYNC_LOCKDEP_H

#include <stdbool.h>
#include <stdint.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

enum held_kind { HELD_SPINLOCK, HELD_MUTEX, HELD_READ, HELD_WRITE, HELD_REGION };

/* A place in the code that takes a lock, and how the lock is called there. */
struct lock_site {
	const char *file;
	int line;
	const char *func;
	const char *lock;
};

/* Only its address counts. */
struct lock_class_key {
	char unused;
};

/* For the inner of two locks of a class that are nested in a known order. */
#define SINGLE_DEPTH_NESTING 1u

#ifdef CONFIG_LOCKDEP

#define LOCKDEP_SUBCLASSES 2

struct lockdep_map {
	const void *key;  /* NULL: the class is found by the name at the first acquisition */
	const char *name; /* as written, perhaps with an & */
	/* By subclass; 0: not looked up yet. Relaxed: whoever looks it up finds the same one. */
	uint16_t class[LOCKDEP_SUBCLASSES];
};

#define LOCKDEP_MAP_INIT(k, n)          \
	{                               \
		.key = (k), .name = (n) \
	}
#define __DEP_MAP_INIT(lock) , .dep = LOCKDEP_MAP_INIT(&(lock), #lock)

#define LOCK_SITE_OF(text)                                                                   \
	({                                                                                   \
		static const struct lock_site __site = {__FILE__, __LINE__, __func__, text}; \
		&__site;                                                                     \
	})
#define LOCK_CLASS_KEY                              \
	({                                          \
		static struct lock_class_key __key; \
		&__key;                             \
	})

void lockdep_init_map(struct lockdep_map *map, const char *name, const void *key);

/*
 * Before a lock is waited for (not for a trylock): is that hopeless, or might it be? @nest: the
 * lock that all takers of several locks of this class hold meanwhile, or NULL.
 */
void lockdep_check_acquire(struct lockdep_map *map, const void *lock, enum held_kind kind,
			   unsigned int subclass, const void *nest, const struct lock_site *site);
/* It is ours now; nothing is allocated but the stack itself. */
void lockdep_acquired(struct lockdep_map *map, const void *lock, enum held_kind kind,
		      unsigned int subclass, const struct lock_site *site);
/* It is about to be dropped. */
void lockdep_release(const void *lock, enum held_kind kind);
void lockdep_downgrade(const void *lock);

bool lockdep_is_held(const void *lock);
bool lockdep_is_held_kind(const void *lock, enum held_kind kind);
bool lockdep_is_held_class(struct lockdep_map *map); /* any lock of its class */

void lockdep_might_sleep(const struct lock_site *site);

/* From one to the other nothing may sleep, whatever is held: for those who promised. They nest. */
void lockdep_non_block_start(const struct lock_site *site);
void lockdep_non_block_end(void);

/* The calling thread ends: BUG if it holds a lock. */
void lockdep_thread_exit(void);

#define LOCKDEP_NAME_MAX 48

/* One order that was seen: @taken while @held was held, and the first places to do so. */
struct lockdep_edge {
	char held[LOCKDEP_NAME_MAX], taken[LOCKDEP_NAME_MAX];
	const struct lock_site *held_site, *taken_site;
};

/*
 * Regions: code that is ordered like a lock. lock_map_acquire() is for what waits for others in the
 * region, lock_map_acquire_read() for what is waited for, but never waits at the door: so it has a
 * place as the outer lock only. lock_map_visit() is both steps of the first: it may wait, here.
 */
void lockdep_map_acquire(struct lockdep_map *map, const struct lock_site *site);
void lockdep_map_acquire_read(struct lockdep_map *map, const struct lock_site *site);
void lockdep_map_release(struct lockdep_map *map);

/*
 * The same as lock_map_acquire_read(), for a section that may end on another thread: it is open
 * while *@token is @value. Both may be called in a signal handler.
 */
void lockdep_section_enter(struct lockdep_map *map, const uint64_t *token, uint64_t value,
			   const struct lock_site *site);
void lockdep_section_leave(const uint64_t *token);

/* What @map stands for ends, and another may begin in its place: forget its orders. */
void lockdep_forget(struct lockdep_map *map);

/* Each order seen so far, in no order. @fn may take locks; what it sees is a moment's copy. */
void lockdep_dump(void (*fn)(const struct lockdep_edge *edge, void *arg), void *arg);

#define might_sleep() lockdep_might_sleep(LOCK_SITE_OF("might_sleep"))

#define non_block_start() lockdep_non_block_start(LOCK_SITE_OF("non_block_start"))
#define non_block_end()	  lockdep_non_block_end()

#define lock_map_acquire(map)	   lockdep_map_acquire(map, LOCK_SITE_OF(#map))
#define lock_map_acquire_read(map) lockdep_map_acquire_read(map, LOCK_SITE_OF(#map))
#define lock_map_release(map)	   lockdep_map_release(map)

#define __lockdep_assert(cond, lock) \
	ASSERT(cond, "lock %s (%p) must be held here by this thread", #lock, (const void *)(lock))

#else

struct lockdep_map {
};

#define LOCKDEP_MAP_INIT(k, n) \
	{                      \
	}
#define __DEP_MAP_INIT(lock)

#define LOCK_SITE_OF(text) ((const struct lock_site *)NULL)
#define LOCK_CLASS_KEY	   NULL

static inline void lockdep_init_map(struct lockdep_map *map, const char *name, const void *key)
{
	(void)map, (void)name, (void)key;
}

static inline void lockdep_check_acquire(struct lockdep_map *map, const void *lock,
					 enum held_kind kind, unsigned int subclass,
					 const void *nest, const struct lock_site *site)
{
	(void)map, (void)lock, (void)kind, (void)subclass, (void)nest, (void)site;
}

static inline void lockdep_acquired(struct lockdep_map *map, const void *lock, enum held_kind kind,
				    unsigned int subclass, const struct lock_site *site)
{
	(void)map, (void)lock, (void)kind, (void)subclass, (void)site;
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

static inline void non_block_start(void)
{
}

static inline void non_block_end(void)
{
}

static inline void lock_map_acquire(struct lockdep_map *map)
{
	(void)map;
}

static inline void lock_map_acquire_read(struct lockdep_map *map)
{
	(void)map;
}

static inline void lock_map_release(struct lockdep_map *map)
{
	(void)map;
}

static inline void lockdep_forget(struct lockdep_map *map)
{
	(void)map;
}

static inline void might_sleep(void)
{
}

#define __lockdep_assert(cond, lock) ((void)sizeof(lock))

#endif

/* lockdep_taught.c: regions, and the classes of locks that are ordered from the start. */
extern struct lockdep_map lockdep_fs_reclaim;
extern struct lockdep_map lockdep_i_mmap_rwsem;
extern struct lockdep_map lockdep_anon_vma_rwsem;
extern struct lockdep_map lockdep_invalidate_range_start;

#define lock_map_visit(map)            \
	do {                           \
		lock_map_acquire(map); \
		lock_map_release(map); \
	} while (0)

#endif
