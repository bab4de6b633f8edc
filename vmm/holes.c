/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a guest may have to wait for: the argument is in holes.h. */
#include "vmm/holes.h"

#include "notifier/sync/bug.h"

void holes_init(struct holes *holes)
{
	spin_lock_init(&holes->lock);
	INIT_LIST_HEAD(&holes->list);
	holes->nr_hoards = 0;
	holes->wanted = false;
	holes->seq = 0;
	init_waitqueue_head(&holes->wait);
	init_waitqueue_head(&holes->owners);
	atomic64_set(&holes->nr_waits, 0);
	atomic64_set(&holes->nr_memory_waits, 0);
}

/* A hole that has a byte in common with [start, end), or NULL. */
static struct hole *find_hole(struct holes *holes, hva_t start, hva_t end)
{
	struct hole *hole;

	lockdep_assert_held(&holes->lock);
	list_for_each_entry(hole, &holes->list, link) {
		if (hole->start < end && start < hole->end)
			return hole;
	}
	return NULL;
}

bool hole_open(struct holes *holes, struct hole *hole, hva_t start, hva_t end)
{
	bool opened;

	hole->start = start;
	hole->end = end;
	spin_lock(&holes->lock);
	opened = !find_hole(holes, start, end);
	if (opened)
		list_add_tail(&hole->link, &holes->list);
	spin_unlock(&holes->lock);
	return opened;
}

/* Something was given back. Release: pairs with holes_seq(), and with the look of who waits. */
static void advance(struct holes *holes)
{
	lockdep_assert_held(&holes->lock);
	smp_store_release(&holes->seq, holes->seq + 1);
}

void hole_close(struct holes *holes, struct hole *hole)
{
	spin_lock(&holes->lock);
	list_del(&hole->link);
	advance(holes);
	spin_unlock(&holes->lock);
	wake_up_all(&holes->wait);
}

bool hoard_begin(struct holes *holes)
{
	bool begun;

	spin_lock(&holes->lock);
	begun = !holes->wanted;
	if (begun)
		holes->nr_hoards++;
	spin_unlock(&holes->lock);
	return begun;
}

void hoard_end(struct holes *holes)
{
	spin_lock(&holes->lock);
	ASSERT(holes->nr_hoards, "each end has its begin");
	if (!--holes->nr_hoards)
		WRITE_ONCE(holes->wanted, false);
	advance(holes);
	spin_unlock(&holes->lock);
	wake_up_all(&holes->wait);
}

bool hoard_wanted(struct holes *holes)
{
	return READ_ONCE(holes->wanted);
}

uint64_t holes_seq(struct holes *holes)
{
	return smp_load_acquire(&holes->seq);
}

static void wait_for_seq(struct holes *holes, uint64_t seq, bool (*give_up)(void *arg), void *arg)
{
	wait_event(holes->wait, holes_seq(holes) != seq || give_up(arg));
}

bool holes_wait(struct holes *holes, uint64_t seq, hva_t hva, bool (*give_up)(void *arg), void *arg)
{
	uint64_t now;
	bool ours;

	spin_lock(&holes->lock);
	ours = find_hole(holes, hva, hva + 1);
	now = holes->seq;
	spin_unlock(&holes->lock);
	if (!ours)
		return now != seq;
	atomic64_inc(&holes->nr_waits);
	wait_for_seq(holes, now, give_up, arg);
	return true;
}

bool holes_wait_memory(struct holes *holes, uint64_t seq, bool (*give_up)(void *arg), void *arg)
{
	uint64_t now;
	bool hoarded;

	spin_lock(&holes->lock);
	hoarded = holes->nr_hoards;
	if (hoarded)
		WRITE_ONCE(holes->wanted, true);
	now = holes->seq;
	spin_unlock(&holes->lock);
	if (!hoarded)
		return now != seq;
	atomic64_inc(&holes->nr_memory_waits);
	wake_up_all(&holes->owners);
	wait_for_seq(holes, now, give_up, arg);
	return true;
}

void holes_wake(struct holes *holes)
{
	wake_up_all(&holes->wait);
}
