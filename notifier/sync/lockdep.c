// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The stack of held locks of each thread, and what is checked against it, in debug builds. Empty
 * otherwise.
 *
 * The stack grows (taking all locks of an mm goes as deep as the mm has mappings), is touched by
 * its own thread only, and is freed when the thread ends: by lockdep_thread_exit() for threads of
 * kthread_run(), by a pthread key for the program's own. The key is made on first use: a library
 * has no constructors.
 *
 * All reports are BUGs. A lock that cannot be had is worth nothing to carry on with, and an order
 * that is wrong is found in a debug build, whose tests must turn red at the place that is wrong,
 * with a core of it; what follows would only hide it.
 */
#include "notifier/sync/lockdep_internal.h"

#ifdef CONFIG_LOCKDEP

#include <string.h>
#include <sys/mman.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"

/* As written, without an &. */
const char *lockdep_plain_name(const char *name)
{
	return *name == '&' ? name + 1 : name;
}

static const char *const kind_name[] = {
	[HELD_SPINLOCK] = "spinlock",	   [HELD_MUTEX] = "mutex",
	[HELD_READ] = "rwsem for reading", [HELD_WRITE] = "rwsem for writing",
	[HELD_REGION] = "region",
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
	BUG_ON(sync_exit_key_create(&exit_key, exit_key_destructor) != 0);
}

/*
 * While a thread is in here, it is not looked at: locks of a log hook, and of a signal handler, are
 * taken and dropped unseen. The stack is whole whenever this is not set.
 */
static bool begin(struct thread_state *self)
{
	if (self->lockdep_busy)
		return false;
	WRITE_ONCE(self->lockdep_busy, 1);
	barrier();
	return true;
}

static void end(struct thread_state *self)
{
	barrier();
	WRITE_ONCE(self->lockdep_busy, 0);
}

/* ---- reports ---- */

#define SITE_FMT       "in %s() at %s:%d"
#define SITE_ARG(site) (site)->func, (site)->file, (site)->line

/* Lines to the hook, then the trap: a chain does not fit in one. */
#define report(...) gnomon_log(GNOMON_LOG_BUG, __VA_ARGS__)

static void __attribute__((noreturn, cold)) report_end(const struct thread_state *self)
{
	char name[LOCKDEP_NAME_MAX];
	unsigned int shown = 0;

	report("  locks that thread %llu holds, innermost first:%s",
	       (unsigned long long)thread_id(), self->nr_held ? "" : " none");
	for (unsigned int i = self->nr_held; i-- > 0 && shown < LOCKDEP_MAX_CHAIN; shown++) {
		const struct held_lock *held = &self->held[i];

		lockdep_class_name(held->class, name);
		report("    %s (%s %p), taken " SITE_FMT, name, kind_name[held->kind], held->lock,
		       SITE_ARG(held->site));
	}
	if (shown < self->nr_held)
		report("    and %u more", self->nr_held - shown);
	__builtin_trap();
}

static void __attribute__((noreturn, cold))
report_inversion(const struct thread_state *self, const struct held_lock *held, uint16_t class,
		 enum held_kind kind, const struct lock_site *site, const struct order_step *chain,
		 unsigned int len)
{
	char taken_name[LOCKDEP_NAME_MAX], held_name[LOCKDEP_NAME_MAX];

	lockdep_class_name(class, taken_name);
	lockdep_class_name(held->class, held_name);
	report("BUG: lock order: thread %llu takes %s (%s) " SITE_FMT,
	       (unsigned long long)thread_id(), taken_name, kind_name[kind], SITE_ARG(site));
	report("  while it holds %s (%s), taken " SITE_FMT, held_name, kind_name[held->kind],
	       SITE_ARG(held->site));
	report("  but the order seen before is %s -> %s%s:", taken_name, len > 1 ? "... -> " : "",
	       held_name);
	for (unsigned int i = 0; i < len && i < LOCKDEP_MAX_CHAIN; i++) {
		const struct lockdep_edge *edge = &chain[i].edge;

		report("    thread %llu: %s, taken " SITE_FMT, (unsigned long long)chain[i].thread,
		       edge->held, SITE_ARG(edge->held_site));
		report("      then %s, taken " SITE_FMT, edge->taken, SITE_ARG(edge->taken_site));
	}
	if (len > LOCKDEP_MAX_CHAIN)
		report("    and %u more steps", len - LOCKDEP_MAX_CHAIN);
	report_end(self);
}

static void __attribute__((noreturn, cold))
report_recursion(const struct thread_state *self, const struct held_lock *held, const void *lock,
		 uint16_t class, enum held_kind kind, const struct lock_site *site)
{
	char name[LOCKDEP_NAME_MAX];

	lockdep_class_name(class, name);
	if (held->lock == lock)
		report("BUG: %s (%s %p), taken " SITE_FMT
		       ", is held by this thread already, as %s taken " SITE_FMT,
		       name, kind_name[kind], lock, SITE_ARG(site), kind_name[held->kind],
		       SITE_ARG(held->site));
	else
		report("BUG: %s (%s %p), taken " SITE_FMT
		       ": this thread holds another one of its class (%p), taken " SITE_FMT
		       ", and nothing says in which order",
		       name, kind_name[kind], lock, SITE_ARG(site), held->lock,
		       SITE_ARG(held->site));
	report_end(self);
}

/* ---- the stack ---- */

/* A section may have ended on another thread, and its word may be another's by now. */
static bool is_held(const struct held_lock *held)
{
	return !held->token || READ_ONCE(*held->token) == held->value;
}

/* Innermost first: locks are mostly dropped in reverse order. */
static struct held_lock *find_held(const struct thread_state *self, const void *lock)
{
	for (unsigned int i = self->nr_held; i-- > 0;)
		if (self->held[i].lock == lock && is_held(&self->held[i]))
			return &self->held[i];
	return NULL;
}

static struct held_lock *find_held_kind(const struct thread_state *self, const void *lock,
					enum held_kind kind)
{
	for (unsigned int i = self->nr_held; i-- > 0;)
		if (self->held[i].lock == lock && self->held[i].kind == kind)
			return &self->held[i];
	return NULL;
}

/* Of the stack, and of the windows behind it, for which a thread variable has no room. */
static size_t stack_bytes(unsigned int max_held)
{
	return max_held * sizeof(struct held_lock) +
	       THREAD_MAX_WINDOWS * sizeof(struct open_window);
}

static void free_stack(struct thread_state *self)
{
	if (self->held)
		BUG_ON(munmap(self->held, stack_bytes(self->max_held)) != 0);
	self->held = NULL;
	self->windows = NULL;
	self->max_held = 0;
}

/* Not through alloc.h, which checks its callers' locks, and which may be told to fail; nor from
 * malloc, which signal handlers must not call. */
static void grow(struct thread_state *self)
{
	unsigned int max_held = self->max_held ? 2 * self->max_held : 128;
	struct held_lock *held = mmap(NULL, stack_bytes(max_held), PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct open_window *windows;

	ASSERT(held != MAP_FAILED, "no memory for the stack of held locks, %u deep", max_held);
	windows = (struct open_window *)(held + max_held);
	if (self->held) {
		memcpy(held, self->held, self->nr_held * sizeof(*held));
		memcpy(windows, self->windows, self->nr_windows * sizeof(*windows));
	} else {
		sync_once(&exit_key_once, make_exit_key);
		sync_exit_key_set(exit_key, self);
	}
	free_stack(self);
	self->held = held;
	self->windows = windows;
	self->max_held = max_held;
}

/* Sections that ended elsewhere; with @all those too that will. */
static void drop_sections(struct thread_state *self, bool all)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < self->nr_held; i++)
		if (!self->held[i].token || (!all && is_held(&self->held[i])))
			self->held[nr++] = self->held[i];
	self->nr_held = nr;
}

static void push(struct thread_state *self, struct held_lock entry)
{
	if (self->nr_held == self->max_held)
		drop_sections(self, false);
	if (self->nr_held == self->max_held)
		grow(self);
	self->held[self->nr_held++] = entry;
	if (entry.kind == HELD_SPINLOCK)
		self->nr_spinlocks++;
}

static void pop(struct thread_state *self, struct held_lock *held)
{
	if (held->kind == HELD_SPINLOCK)
		self->nr_spinlocks--;
	for (struct held_lock *last = &self->held[--self->nr_held]; held < last; held++)
		held[0] = held[1];
}

/* ---- checks ---- */

/* No sleeping under a spinlock, nor for those who promised. */
static void check_sleep(const struct thread_state *self, const struct lock_site *site)
{
	if (unlikely(self->nr_non_block)) {
		report("BUG: %s, " SITE_FMT
		       ", may sleep, but this thread must not block, " SITE_FMT,
		       lockdep_plain_name(site->lock), SITE_ARG(site),
		       SITE_ARG(self->non_block_site));
		report_end(self);
	}
	if (likely(!self->nr_spinlocks))
		return;
	for (unsigned int i = self->nr_held; i-- > 0;) {
		const struct held_lock *held = &self->held[i];

		if (held->kind != HELD_SPINLOCK)
			continue;
		report("BUG: %s, " SITE_FMT ", may sleep, but this thread holds a spinlock (%p), "
		       "taken " SITE_FMT,
		       site->lock, SITE_ARG(site), held->lock, SITE_ARG(held->site));
		report_end(self);
	}
	BUG();
}

/* From every lock that is held, not only the innermost: a chain in a report is then short. */
static void check_order(const struct thread_state *self, const void *lock, uint16_t class,
			enum held_kind kind, const void *nest, const struct lock_site *site)
{
	struct order_step chain[LOCKDEP_MAX_CHAIN];

	for (unsigned int i = self->nr_held; i-- > 0;) {
		const struct held_lock *held = &self->held[i];
		unsigned int len;

		if (!class || !held->class || !is_held(held))
			continue;
		if (held->class == class) {
			if (!nest)
				report_recursion(self, held, lock, class, kind, site);
			continue;
		}
		if (likely(lockdep_order_known(held->class, class)))
			continue;
		len = lockdep_order_add(held, class, site, chain);
		if (len)
			report_inversion(self, held, class, kind, site, chain, len);
	}
}

void lockdep_init_map(struct lockdep_map *map, const char *name, const void *key)
{
	*map = (struct lockdep_map){.key = key, .name = name};
}

void lockdep_check_acquire(struct lockdep_map *map, const void *lock, enum held_kind kind,
			   unsigned int subclass, const void *nest, const struct lock_site *site)
{
	struct thread_state *self = current_thread();
	struct held_lock *held;
	uint16_t class;

	if (!begin(self))
		return;
	if (kind != HELD_SPINLOCK && kind != HELD_REGION)
		check_sleep(self, site);
	class = lockdep_class(map, subclass, site->lock);
	held = find_held(self, lock);
	if (held)
		report_recursion(self, held, lock, class, kind, site);
	ASSERT(!nest || find_held(self, nest),
	       "lock %p makes it safe to take %s, so this thread holds it", nest,
	       lockdep_plain_name(site->lock));
	check_order(self, lock, class, kind, nest, site);
	end(self);
}

void lockdep_acquired(struct lockdep_map *map, const void *lock, enum held_kind kind,
		      unsigned int subclass, const struct lock_site *site)
{
	struct thread_state *self = current_thread();

	if (!begin(self))
		return;
	push(self, (struct held_lock){
			   .lock = lock,
			   .site = site,
			   .class = lockdep_class(map, subclass, site->lock),
			   .kind = (uint8_t)kind,
		   });
	end(self);
}

void lockdep_map_acquire(struct lockdep_map *map, const struct lock_site *site)
{
	lockdep_check_acquire(map, map, HELD_REGION, 0, NULL, site);
	lockdep_acquired(map, map, HELD_REGION, 0, site);
}

void lockdep_map_acquire_read(struct lockdep_map *map, const struct lock_site *site)
{
	lockdep_acquired(map, map, HELD_REGION, 0, site);
}

void lockdep_map_release(struct lockdep_map *map)
{
	lockdep_release(map, HELD_REGION);
}

void lockdep_section_enter(struct lockdep_map *map, const uint64_t *token, uint64_t value,
			   const struct lock_site *site)
{
	struct thread_state *self = current_thread();

	if (!begin(self))
		return;
	push(self, (struct held_lock){
			   .lock = map,
			   .site = site,
			   .class = lockdep_class(map, 0, site->lock),
			   .kind = HELD_REGION,
			   .token = token,
			   .value = value,
		   });
	end(self);
}

void lockdep_section_leave(const uint64_t *token)
{
	struct thread_state *self = current_thread();

	if (!begin(self))
		return;
	for (unsigned int i = self->nr_held; i-- > 0;) {
		if (self->held[i].token == token) {
			pop(self, &self->held[i]);
			break;
		}
	}
	end(self);
}

void lockdep_release(const void *lock, enum held_kind kind)
{
	struct thread_state *self = current_thread();
	struct held_lock *held;

	if (!begin(self))
		return;
	held = find_held_kind(self, lock, kind);
	ASSERT(held, "%s %p is dropped by a thread that does not hold it", kind_name[kind], lock);
	pop(self, held);
	end(self);
}

void lockdep_downgrade(const void *lock)
{
	struct thread_state *self = current_thread();
	struct held_lock *held;

	if (!begin(self))
		return;
	held = find_held_kind(self, lock, HELD_WRITE);
	ASSERT(held, "rwsem %p is downgraded by a thread that does not hold it for writing", lock);
	held->kind = HELD_READ;
	end(self);
}

bool lockdep_is_held(const void *lock)
{
	return find_held(current_thread(), lock) != NULL;
}

bool lockdep_is_held_kind(const void *lock, enum held_kind kind)
{
	return find_held_kind(current_thread(), lock, kind) != NULL;
}

bool lockdep_is_held_class(struct lockdep_map *map)
{
	const struct thread_state *self = current_thread();
	uint16_t class = lockdep_class(map, 0, NULL);

	for (unsigned int i = 0; i < self->nr_held; i++) {
		if (self->held[i].class == class)
			return true;
	}
	return false;
}

void lockdep_might_sleep(const struct lock_site *site)
{
	struct thread_state *self = current_thread();

	if (!begin(self))
		return;
	check_sleep(self, site);
	end(self);
}

void lockdep_non_block_start(const struct lock_site *site)
{
	struct thread_state *self = current_thread();

	if (!self->nr_non_block++)
		self->non_block_site = site;
}

void lockdep_non_block_end(void)
{
	struct thread_state *self = current_thread();

	ASSERT(self->nr_non_block, "non_block_end() has its non_block_start()");
	self->nr_non_block--;
}

void lockdep_thread_exit(void)
{
	struct thread_state *self = current_thread();

	if (!begin(self))
		return;
	/* A section may outlive the thread that began it. */
	drop_sections(self, true);
	if (self->nr_held) {
		struct held_lock *last = &self->held[self->nr_held - 1];

		report("BUG: thread ends with %u locks held, the last a %s (%p), taken " SITE_FMT,
		       self->nr_held, kind_name[last->kind], last->lock, SITE_ARG(last->site));
		report_end(self);
	}
	free_stack(self);
	end(self);
}

#endif /* CONFIG_LOCKDEP */
