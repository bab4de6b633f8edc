/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of one machine frame beyond its contents: private to notifier/.
 *
 * - refcount: 0 when free or frozen. Each present primary entry, each page-cache slot and each
 *   temporary user holds one. A migration freezes it (expected -> 0) while it copies, so that
 *   nobody can gain a reference: phys_get_unless_zero fails.
 * - mapcount: how many present primary entries name the frame. Changes under their
 *   page_table_lock. It grows only under the frame lock as well, or, from one that is not zero
 *   (a fork), under the reverse-map locks held for writing: so with the frame locked, zero stays
 *   zero, and a walk of the reverse map finds all.
 * - pins: who may be writing to the frame, or needs the page to stay in it for long, holds
 *   FRAME_PIN references at once (as Linux does: GUP_PIN_COUNTING_BIAS). So one look at the count
 *   tells, and a frame with that many references for other reasons counts as pinned, which costs a
 *   copy, or a page that stays where it is, and nothing else.
 * - lock: the frame lock, a sleeping lock (bit 0) with hashed wait queues. Held over every step
 *   of a migration of the frame, and by a fault while it installs the frame: so neither sees the
 *   other half way. A frame may be locked without a reference, to look: its frame structure never
 *   goes away, and whoever finds that the frame is not the one that was sought unlocks it again.
 * - mapping, index: which page of what this is. Stored, and stable, under the frame lock; set when
 *   the frame enters a mapping, cleared before the reference of one that leaves is put. The low
 *   bits of mapping say of what: a struct anon_vma; a struct ksm_page, which several private pages
 *   were merged into, and then there is no index; none set: a struct address_space, 0: no page.
 *   Who looks at those bits without the lock learns what was true an instant ago.
 * - flags: set and cleared one by one, atomically. ACTIVE and LRU, like the list node: under the
 *   lock of the lists (lru.h). SWAPCACHE, slot, DIRTY, LAZYFREE: under the frame lock. REFERENCED
 *   is a hint. All are zero in a free frame.
 */
#ifndef NOTIFIER_FRAME_H
#define NOTIFIER_FRAME_H

#include <gnomon/phys.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lockdep.h"
#include "notifier/sync/refcount.h"
#include "notifier/sync/wait.h"

#define FRAME_MAPPING_ANON 0x1UL
#define FRAME_MAPPING_KSM  0x2UL
#define FRAME_MAPPING_KIND (FRAME_MAPPING_ANON | FRAME_MAPPING_KSM)

#define FRAME_LRU	 0x01 /* on one of the lists that reclaim goes by */
#define FRAME_ACTIVE	 0x02 /* ... and not on that of pages that may go next */
#define FRAME_REFERENCED 0x04 /* was found used; once more, and it is active */
#define FRAME_SWAPCACHE	 0x08 /* is what swap slot frame->slot holds, or will: swap_cache.c */
#define FRAME_DIRTY	 0x10 /* ... and the slot does not hold it yet */
#define FRAME_LAZYFREE	 0x20 /* need not be kept while it is clean: MM_MADV_FREE */

struct frame {
	atomic_t refcount;
	atomic_t mapcount;
	atomic_t lock;
	atomic_t flags;
	uint32_t next_free; /* in the pool's FIFO, under phys->lock */
	uint32_t slot;
	uintptr_t mapping;
	uint64_t index;
	struct list_head lru;
};

struct frame *pfn_to_frame(const struct phys *phys, pfn_t pfn);

/* With the frame locked, or before anybody knows it. Others may be looking. */
static inline void set_frame_mapping(struct frame *frame, uintptr_t mapping)
{
	WRITE_ONCE(frame->mapping, mapping);
}

/* Of an anon_vma, or of several: not of an object. */
static inline bool frame_is_private(const struct frame *frame)
{
	return READ_ONCE(frame->mapping) & FRAME_MAPPING_KIND;
}

/* Equal private pages are one in this frame (ksm_page.c): nobody may write to it. */
static inline bool frame_is_ksm(const struct frame *frame)
{
	return READ_ONCE(frame->mapping) & FRAME_MAPPING_KSM;
}

#define lock_frame(phys, pfn)	 lock_frame_at(phys, pfn, LOCK_SITE_OF("frame"))
#define trylock_frame(phys, pfn) trylock_frame_at(phys, pfn, LOCK_SITE_OF("frame"))
/*
 * The lock of a frame that is no page yet, while @from is locked, and others perhaps: whoever else
 * has it just looks, and waits for nothing (migrate_range.c). To lockdep a subclass of its own.
 */
#define lock_new_frame(phys, pfn, from) \
	lock_new_frame_at(phys, pfn, from, LOCK_SITE_OF("new frame"))
void lock_frame_at(struct phys *phys, pfn_t pfn, const struct lock_site *site);
bool trylock_frame_at(struct phys *phys, pfn_t pfn, const struct lock_site *site);
void lock_new_frame_at(struct phys *phys, pfn_t pfn, pfn_t from, const struct lock_site *site);
void unlock_frame(struct phys *phys, pfn_t pfn); /* wakes all of frame_waitqueue() */
bool frame_locked(const struct frame *frame);
#ifdef CONFIG_LOCKDEP
bool frame_lock_is_held(void); /* of any frame, by this thread */
#endif

/* Where to wait for the lock of a frame, or for the end of its migration. Shared with other frames:
 * look again after each wake-up. */
wait_queue_head_t *frame_waitqueue(struct phys *phys, pfn_t pfn);

#define FRAME_PIN 1024

static inline bool frame_test(const struct frame *frame, int flag)
{
	return atomic_read(&frame->flags) & flag;
}

/* Both return what was. */
static inline bool frame_set(struct frame *frame, int flag)
{
	return atomic_fetch_or(flag, &frame->flags) & flag;
}

static inline bool frame_clear(struct frame *frame, int flag)
{
	return atomic_fetch_and(~flag, &frame->flags) & flag;
}

/*
 * The references of a page that are neither an entry's nor somebody's at work: of its place in an
 * object, and in the swap cache. With the frame locked.
 */
static inline int frame_base_refs(const struct frame *frame)
{
	bool in_object = frame->mapping && !frame_is_private(frame);

	return in_object + frame_test(frame, FRAME_SWAPCACHE);
}

/* A pin, unless the count is zero: of whoever may be writing (mm_access.c). Full barrier. */
bool frame_pin_unless_zero(struct phys *phys, pfn_t pfn);
void frame_unpin(struct phys *phys, pfn_t pfn);

static inline bool frame_is_pinned(const struct frame *frame)
{
	return atomic_read(&frame->refcount) >= FRAME_PIN;
}

/* expected -> 0, or false and nothing changed. Full barrier. Undone by unfreeze. */
bool frame_ref_freeze(struct frame *frame, int expected);
/* The same, with a little patience: references of accesses are short. */
bool frame_ref_freeze_wait(struct frame *frame, int expected);
void frame_ref_unfreeze(struct frame *frame, int count);

#endif
