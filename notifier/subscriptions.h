/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who subscribed to an mm: what the files of the notifier core share.
 *
 *   mmu_notifier.c		how subscribers come and go
 *   mmu_notifier_range.c	how they are told
 *   mmu_interval_notifier.c	those with an interval: both
 */
#ifndef NOTIFIER_SUBSCRIPTIONS_H
#define NOTIFIER_SUBSCRIPTIONS_H

#include <gnomon/mmu_interval_notifier.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/interval_tree.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

/*
 * One for each mm that anybody ever subscribed to, until its last mmdrop (N-01). ->lock nests
 * inside everything and encloses nothing.
 */
struct notifier_subscriptions {
	/* Stored under lock, loaded inside a section of mmu_notifier_srcu. */
	struct mmu_notifier *first;
	/* There is, or was, an interval. Stored with all locks taken, so it holds for a window. */
	bool has_itree;
	spinlock_t lock;

	/* All under lock, but see mmu_interval_notifier.c for the tree. */
	unsigned long invalidate_seq; /* odd: the tree is frozen, and somebody is invalidating */
	unsigned long active_invalidate_ranges;
	struct interval_tree itree;
	struct mmu_interval_notifier *deferred; /* to come or to go when invalidate_seq is even */
	wait_queue_head_t wq;			/* for invalidate_seq to move on */
};

/* Inside a section of it all classic callbacks run. */
extern struct srcu_struct mmu_notifier_srcu;

/*
 * Acquire pairs with the release in __mmu_notifier_register(): whoever sees the block sees it
 * initialised.
 */
static inline struct notifier_subscriptions *mm_subscriptions(struct mm_struct *mm)
{
	return smp_load_acquire(&mm->notifier_subscriptions);
}

/*
 * Acquire pairs with the release in subscription_link(): a reader that reaches a node sees its ops
 * and mm. Inside a section of mmu_notifier_srcu.
 */
#define for_each_subscription(mn, subscriptions)                     \
	for ((mn) = smp_load_acquire(&(subscriptions)->first); (mn); \
	     (mn) = smp_load_acquire(&(mn)->next))

/* mmu_interval_notifier.c */
void mn_itree_init(struct notifier_subscriptions *subscriptions);
/* 0 or, for a range that is not blockable, -EAGAIN; and then it has ended already. */
int mn_itree_invalidate(struct notifier_subscriptions *subscriptions,
			const struct mmu_notifier_range *range);
void mn_itree_inv_end(struct notifier_subscriptions *subscriptions);
void mn_itree_release(struct notifier_subscriptions *subscriptions, struct mm_struct *mm);

#endif
