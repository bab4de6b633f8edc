// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The stack of held locks of each thread, in debug builds. Empty otherwise.
 *
 * The stack lives in malloc memory (taking all locks of an mm goes as deep as the mm has
 * mappings), touched by its own thread only, and is freed when the thread ends: by
 * lockdep_thread_exit() for threads of kthread_run(), by a pthread key for the program's own. The
 * key is made on first use: a library has no constructors.
 */
#include "notifier/sync/lockdep.h"

#ifdef CONFIG_LOCKDEP

#include <pthread.h>
#include <stdlib.h>

#include "notifier/sync/thread.h"

struct held_lock {
	const void *lock;
	const char *site; /* where it was taken */
	enum held_kind kind;
};

static const char *const kind_name[] = {
	[HELD_SPINLOCK] = "spinlock",
	[HELD_MUTEX] = "mutex",
	[HELD_READ] = "rwsem for reading",
	[HELD_WRITE] = "rwsem for writing",
};

static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;

static void exit_key_destructor(void *unused)
{
	(void)unused;
	lockdep_thread_exit();
}

static void make_exit_key(void)
{
	BUG_ON(pthread_key_create(&exit_key, exit_key_destructor) != 0);
}

/* Innermost first: locks are mostly dropped in reverse order. */
static struct held_lock *find_held(const void *lock)
{
	struct thread_state *self = current_thread();

	for (unsigned int i = self->nr_held; i-- > 0;)
		if (self->held[i].lock == lock)
			return &self->held[i];
	return NULL;
}

static struct held_lock *find_held_kind(const void *lock, enum held_kind kind)
{
	struct thread_state *self = current_thread();

	for (unsigned int i = self->nr_held; i-- > 0;)
		if (self->held[i].lock == lock && self->held[i].kind == kind)
			return &self->held[i];
	return NULL;
}

static void grow(struct thread_state *self)
{
	unsigned int max_held = self->max_held ? 2 * self->max_held : 32;
	/* Not through alloc.h, which checks its callers' locks, and which may be told to fail. */
	struct held_lock *held = realloc(self->held, max_held * sizeof(*held));

	ASSERT(held, "no memory for the stack of held locks, %u deep", max_held);
	if (!self->held) {
		pthread_once(&exit_key_once, make_exit_key);
		pthread_setspecific(exit_key, self);
	}
	self->held = held;
	self->max_held = max_held;
}

void lockdep_check_acquire(const void *lock, enum held_kind kind, const char *site)
{
	struct held_lock *held;

	if (kind != HELD_SPINLOCK)
		lockdep_might_sleep(site);
	held = find_held(lock);
	if (held)
		gnomon_bug(__FILE__, __LINE__, __func__,
			   "%s %p taken at %s is held by this thread already, as %s since %s",
			   kind_name[kind], lock, site, kind_name[held->kind], held->site);
}

void lockdep_acquired(const void *lock, enum held_kind kind, const char *site)
{
	struct thread_state *self = current_thread();

	if (self->nr_held == self->max_held)
		grow(self);
	self->held[self->nr_held++] = (struct held_lock){.lock = lock, .site = site, .kind = kind};
	if (kind == HELD_SPINLOCK)
		self->nr_spinlocks++;
}

void lockdep_release(const void *lock, enum held_kind kind)
{
	struct thread_state *self = current_thread();
	struct held_lock *held = find_held_kind(lock, kind);

	ASSERT(held, "%s %p is dropped by a thread that does not hold it", kind_name[kind], lock);
	for (struct held_lock *last = &self->held[--self->nr_held]; held < last; held++)
		held[0] = held[1];
	if (kind == HELD_SPINLOCK)
		self->nr_spinlocks--;
}

void lockdep_downgrade(const void *lock)
{
	struct held_lock *held = find_held_kind(lock, HELD_WRITE);

	ASSERT(held, "rwsem %p is downgraded by a thread that does not hold it for writing", lock);
	held->kind = HELD_READ;
}

bool lockdep_is_held(const void *lock)
{
	return find_held(lock) != NULL;
}

bool lockdep_is_held_kind(const void *lock, enum held_kind kind)
{
	return find_held_kind(lock, kind) != NULL;
}

void lockdep_might_sleep(const char *site)
{
	struct thread_state *self = current_thread();

	if (likely(!self->nr_spinlocks))
		return;
	for (unsigned int i = self->nr_held; i-- > 0;)
		if (self->held[i].kind == HELD_SPINLOCK)
			gnomon_bug(__FILE__, __LINE__, __func__,
				   "%s may sleep, but this thread holds a spinlock (%p) since %s",
				   site, self->held[i].lock, self->held[i].site);
	BUG();
}

void lockdep_thread_exit(void)
{
	struct thread_state *self = current_thread();

	if (self->nr_held) {
		struct held_lock *last = &self->held[self->nr_held - 1];

		gnomon_bug(__FILE__, __LINE__, __func__,
			   "thread ends with %u locks held, the last a %s (%p) since %s",
			   self->nr_held, kind_name[last->kind], last->lock, last->site);
	}
	free(self->held);
	self->held = NULL;
	self->max_held = 0;
}

#endif /* CONFIG_LOCKDEP */
