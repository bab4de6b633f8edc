// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The lists of pages by age: lru.h says what they are for.
 */
#include "notifier/lru.h"

#include "notifier/frame.h"
#include "notifier/phys_internal.h"
#include "notifier/sync/bug.h"

void lru_init(struct lru *lru)
{
	spin_lock_init(&lru->lock);
	for (int i = 0; i < NR_LRU_LISTS; i++)
		INIT_LIST_HEAD(&lru->list[i]);
}

static void count(struct lru *lru, enum lru_list which, int more)
{
	WRITE_ONCE(lru->nr[which], lru->nr[which] + more);
}

static enum lru_list list_of(const struct frame *frame)
{
	return frame_test(frame, FRAME_ACTIVE) ? LRU_ACTIVE : LRU_INACTIVE;
}

static void unlink_frame(struct lru *lru, struct frame *frame)
{
	lockdep_assert_held(&lru->lock);
	list_del(&frame->lru);
	count(lru, list_of(frame), -1);
	frame_clear(frame, FRAME_LRU | FRAME_ACTIVE);
}

static void link_frame(struct lru *lru, struct frame *frame, enum lru_list which)
{
	lockdep_assert_held(&lru->lock);
	list_add(&frame->lru, &lru->list[which]);
	count(lru, which, 1);
	frame_set(frame, FRAME_LRU | (which == LRU_ACTIVE ? FRAME_ACTIVE : 0));
}

void lru_add(struct phys *phys, pfn_t pfn, enum lru_list which)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct lru *lru = &phys->lru;

	spin_lock(&lru->lock);
	ASSERT(atomic_read(&frame->refcount), "the caller has a reference on frame %#llx",
	       (unsigned long long)pfn);
	if (frame_test(frame, FRAME_LRU))
		unlink_frame(lru, frame);
	link_frame(lru, frame, which);
	spin_unlock(&lru->lock);
}

void lru_expose(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct lru *lru = &phys->lru;

	spin_lock(&lru->lock);
	if (frame_test(frame, FRAME_LRU)) {
		unlink_frame(lru, frame);
		link_frame(lru, frame, LRU_INACTIVE);
		list_move_tail(&frame->lru, &lru->list[LRU_INACTIVE]);
	}
	spin_unlock(&lru->lock);
}

void lru_del(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);
	struct lru *lru = &phys->lru;

	/* No page joins without a reference, so one that is on no list stays so. */
	if (!frame_test(frame, FRAME_LRU))
		return;
	spin_lock(&lru->lock);
	unlink_frame(lru, frame);
	spin_unlock(&lru->lock);
}

bool lru_next(struct phys *phys, enum lru_list which, pfn_t *pfn)
{
	struct lru *lru = &phys->lru;
	struct frame *frame;

	spin_lock(&lru->lock);
	if (list_empty(&lru->list[which])) {
		spin_unlock(&lru->lock);
		return false;
	}
	frame = list_last_entry(&lru->list[which], struct frame, lru);
	list_move(&frame->lru, &lru->list[which]);
	*pfn = frame - phys->frames;
	/* Its last put, if that is on its way, waits in lru_del(). */
	if (!phys_get_unless_zero(phys, *pfn))
		*pfn = INVALID_PFN;
	spin_unlock(&lru->lock);
	return true;
}
