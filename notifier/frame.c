/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * References to a frame, the frame lock, and freezing (frame.h has the rules of each field).
 *
 * Every operation on refcount that can fail or reach zero is a full barrier. Two users lean on it:
 *
 *   access (mm_access.c)                      migration (migrate.c)
 *   --------------------                      ---------------------
 *   load entry: frame F                       entry F -> migration entry   (exchange)
 *   F.refcount++ unless zero                  freeze: F.refcount expected -> 0
 *   load entry again: still F?                copy F
 *
 * Each side stores, then looks at what the other one stores: at least one of them sees the other.
 * Either the access finds the migration entry and lets go, or the freeze finds the reference and
 * fails; never is F accessed while it is copied.
 */
#include "notifier/frame.h"

#include "notifier/lru.h"
#include "notifier/phys_internal.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lockdep.h"
#include "notifier/sync/wait.h"

#define FRAME_LOCKED 0x1

struct frame *pfn_to_frame(const struct phys *phys, pfn_t pfn)
{
	ASSERT(pfn < phys->nr_frames, "frame %#llx is one of the pool's %#llx",
	       (unsigned long long)pfn, (unsigned long long)phys->nr_frames);
	return &phys->frames[pfn];
}

void phys_get(struct phys *phys, pfn_t pfn)
{
	int now = atomic_inc_return(&pfn_to_frame(phys, pfn)->refcount);

	ASSERT(now > 1, "phys_get is for those who have a reference: frame %#llx",
	       (unsigned long long)pfn);
}

bool phys_get_unless_zero(struct phys *phys, pfn_t pfn)
{
	return atomic_inc_not_zero(&pfn_to_frame(phys, pfn)->refcount);
}

bool frame_pin_unless_zero(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	int old = atomic_read(&frame->refcount);

	while (old) {
		int found = atomic_cmpxchg(&frame->refcount, old, old + FRAME_PIN);

		if (found == old)
			return true;
		old = found;
	}
	return false;
}

/*
 * The last put may be that of a passer-by: one who had gained a reference from an entry that was
 * just changing (mm_access.c), and who lets go after the owner did. So whoever takes the frame out
 * of its mapping clears frame->mapping before it puts its own reference.
 */
static void put_references(struct phys *phys, pfn_t pfn, int nr)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	int now = atomic_sub_return(nr, &frame->refcount);

	ASSERT(now >= 0, "frame %#llx was put more often than it was got", (unsigned long long)pfn);
	if (now)
		return;
	ASSERT(!frame->mapping && !atomic_read(&frame->mapcount) &&
		       !frame_test(frame, FRAME_SWAPCACHE),
	       "frame %#llx left its mapping before its last put", (unsigned long long)pfn);
	lru_del(phys, pfn);
	atomic_set(&frame->flags, 0);
	phys_free_frame(phys, pfn);
}

void phys_put(struct phys *phys, pfn_t pfn)
{
	put_references(phys, pfn, 1);
}

void frame_unpin(struct phys *phys, pfn_t pfn)
{
	put_references(phys, pfn, FRAME_PIN);
}

bool frame_ref_freeze(struct frame *frame, int expected)
{
	return atomic_cmpxchg(&frame->refcount, expected, 0) == expected;
}

/* No new one can come to a page that is mapped nowhere: so wait a moment for the last to leave.
 * What is held longer than that is held for a reason. */
#define FREEZE_TRIES 128

bool frame_ref_freeze_wait(struct frame *frame, int expected)
{
	for (int i = 0; i < FREEZE_TRIES; i++) {
		if (frame_ref_freeze(frame, expected))
			return true;
		cpu_relax();
	}
	return false;
}

void frame_ref_unfreeze(struct frame *frame, int count)
{
	int now = atomic_add_return(count, &frame->refcount);

	ASSERT(now == count, "a frozen frame gained %d references", now - count);
}

/* Neighbours are locked together, by batches: so they get different queues. */
wait_queue_head_t *frame_waitqueue(struct phys *phys, pfn_t pfn)
{
	return &phys->waitqueues[pfn % PHYS_NR_WAITQUEUES];
}

bool frame_locked(const struct frame *frame)
{
	return atomic_read(&frame->lock) & FRAME_LOCKED;
}

/* To lockdep a frame lock is a mutex; all are of one class, and none has a map of its own. */
static struct lockdep_map frame_lock_map = LOCKDEP_MAP_INIT(&frame_lock_map, "frame_lock");

#ifdef CONFIG_LOCKDEP
bool frame_lock_is_held(void)
{
	return lockdep_is_held_class(&frame_lock_map);
}
#endif

static bool try_lock(struct frame *frame)
{
	return !(atomic_fetch_or(FRAME_LOCKED, &frame->lock) & FRAME_LOCKED);
}

bool trylock_frame_at(struct phys *phys, pfn_t pfn, const struct lock_site *site)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	if (!try_lock(frame))
		return false;
	lockdep_acquired(&frame_lock_map, frame, HELD_MUTEX, 0, site);
	return true;
}

static void lock(struct phys *phys, pfn_t pfn, unsigned int subclass, const void *nest,
		 const struct lock_site *site)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	lockdep_check_acquire(&frame_lock_map, frame, HELD_MUTEX, subclass, nest, site);
	wait_event(*frame_waitqueue(phys, pfn), try_lock(frame));
	lockdep_acquired(&frame_lock_map, frame, HELD_MUTEX, subclass, site);
}

void lock_frame_at(struct phys *phys, pfn_t pfn, const struct lock_site *site)
{
	lock(phys, pfn, 0, NULL, site);
}

void lock_new_frame_at(struct phys *phys, pfn_t pfn, pfn_t from, const struct lock_site *site)
{
	lock(phys, pfn, SINGLE_DEPTH_NESTING, pfn_to_frame(phys, from), site);
}

void unlock_frame(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	ASSERT(frame_locked(frame), "frame %#llx is locked by the caller", (unsigned long long)pfn);
	lockdep_release(frame, HELD_MUTEX);
	atomic_fetch_and(~FRAME_LOCKED, &frame->lock);
	wake_up_all(frame_waitqueue(phys, pfn));
}
