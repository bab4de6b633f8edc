/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The notifier core: who listens to an mm, and how they are told.
 *
 * Rules (kernel: mm/mmu_notifier.c):
 *  1. Every callback runs inside a read section of one SRCU domain, shared by all mms (N-02):
 * callbacks may sleep, and whoever unlinks a subscriber waits for a grace period before its memory
 * may go.
 *  2. The list grows only inside mm_take_all_locks(), and every window is held open under mmap_lock
 * or a reverse-map lock: so nobody can join between a start and its end (N-63). It may shrink at
 * any time: a subscriber that leaves within a window gets no end.
 *  3. The subscriptions block is allocated at the first register, under mmap_lock held for writing
 * and before all locks are taken: nothing is allocated while they are held, since an allocation may
 * enter reclaim, which takes them (I10). Nothing speculative: under the write lock the test is
 * exact.
 *  4. ->release runs before any page is freed, whichever of exit and unregister comes first (I5):
 * see the ladder at mmu_notifier_unregister().
 *
 * Locks: subscriptions->lock protects the links of the list for writing, nests inside everything
 * and encloses nothing.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/mm_internal.h"
#include "notifier/srcu_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

struct notifier_subscriptions {
	struct mmu_notifier *first; /* stored under lock, loaded inside an SRCU section */
	spinlock_t lock;
};

/*
 * One domain for all mms: an unregister waits for callbacks of every mm, in exchange for no state
 * per mm. Made by the first register of the process and kept: it has no owner to free it.
 */
static struct srcu_struct srcu;
static bool srcu_ready; /* stored under srcu_init_mutex; any registered mm implies it */
static DEFINE_MUTEX(srcu_init_mutex);

static int subscriptions_srcu_init(void)
{
	int ret = 0;

	mutex_lock(&srcu_init_mutex);
	if (!srcu_ready) {
		ret = init_srcu_struct(&srcu);
		srcu_ready = ret == 0;
		if (!ret)
			lockdep_init_map(&srcu.d->dep, "mmu_notifier_srcu", &srcu);
	}
	mutex_unlock(&srcu_init_mutex);
	return ret;
}

/* Acquire pairs with the release in __mmu_notifier_register(): whoever sees the block sees it
 * initialised. */
static struct notifier_subscriptions *mm_subscriptions(struct mm_struct *mm)
{
	return smp_load_acquire(&mm->notifier_subscriptions);
}

bool mm_has_notifiers(struct mm_struct *mm)
{
	return mm_subscriptions(mm) != NULL;
}

/* Acquire pairs with the release in subscription_link(): a reader that reaches a node sees its ops
 * and mm. */
#define for_each_subscription(mn, subscriptions)                     \
	for ((mn) = smp_load_acquire(&(subscriptions)->first); (mn); \
	     (mn) = smp_load_acquire(&(mn)->next))

static void subscription_link(struct notifier_subscriptions *subscriptions, struct mmu_notifier *mn)
{
	struct mmu_notifier *first = subscriptions->first;

	WRITE_ONCE(mn->next, first);
	WRITE_ONCE(mn->pprev, &subscriptions->first);
	if (first)
		WRITE_ONCE(first->pprev, &mn->next);
	smp_store_release(&subscriptions->first, mn);
}

/*
 * Unlink, or do nothing where exit has done so. mn->next stays: a reader that stands on the node
 * walks on from it.
 */
static void subscription_unlink(struct mmu_notifier *mn)
{
	struct mmu_notifier *next = mn->next;

	if (!mn->pprev)
		return;
	smp_store_release(mn->pprev, next);
	if (next)
		WRITE_ONCE(next->pprev, mn->pprev);
	WRITE_ONCE(mn->pprev, NULL);
}

int __mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	struct notifier_subscriptions *new_block = NULL;
	int ret;

	lockdep_assert_held_write(&mm->mmap_lock);
	ASSERT(refcount_read(&mm->mm_users) > 0, "the caller pins mm_users while it registers");

	ret = subscriptions_srcu_init();
	if (ret)
		return ret;

	if (!mm->notifier_subscriptions) {
		new_block = kzalloc(sizeof(*new_block), GFP_KERNEL);
		if (!new_block)
			return -ENOMEM;
		__spin_lock_init(&new_block->lock, "subscriptions->lock", LOCK_CLASS_KEY);
	}

	ret = mm_take_all_locks(mm);
	if (ret)
		goto out_free;

	subscription->mm = mm;
	mmgrab(mm); /* dropped at the end of mmu_notifier_unregister() */

	/* Pairs with the acquire in mm_subscriptions(). */
	if (new_block)
		smp_store_release(&mm->notifier_subscriptions, new_block);

	spin_lock(&mm->notifier_subscriptions->lock);
	subscription_link(mm->notifier_subscriptions, subscription);
	spin_unlock(&mm->notifier_subscriptions->lock);

	mm_drop_all_locks(mm);
	ASSERT(refcount_read(&mm->mm_users) > 0, "the caller pins mm_users while it registers");
	return 0;

out_free:
	kfree(new_block);
	return ret;
}

int mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	int ret;

	mmap_write_lock(mm);
	ret = __mmu_notifier_register(subscription, mm);
	mmap_write_unlock(mm);
	return ret;
}

/*
 * Exit and unregister may meet in any order; in each, ->release has returned before exit goes on to
 * free pages, and before unregister returns to someone who frees the notifier:
 *
 *   exit: mmu_notifier_release()                unregister
 *   ----------------------------                ----------
 *   srcu_read_lock
 *   finds the node, calls ->release             node still linked: calls ->release inside a
 *                                                 read section of its own (the second call)
 *   unlinks it under the lock
 *   srcu_read_unlock                            unlinks nothing: pprev is NULL
 *   synchronize_srcu: waits for the             synchronize_srcu: waits for exit's section, that
 *     section in which unregister runs            is for exit's ->release and for its walk of
 *     ->release, if it does                       the list over this node
 *   -> frees pages                              -> the caller frees the notifier
 *
 * A node that unregister unlinked before exit looked is not called by exit; then exit's grace
 * period is what waits for unregister's ->release. Replayed by tests/unit/test_mmu_notifier.c.
 */
void mmu_notifier_unregister(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	ASSERT(refcount_read(&mm->mm_count) > 0, "register took an mm_count for us");

	if (READ_ONCE(subscription->pprev)) {
		struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;
		int id = srcu_read_lock(&srcu);

		if (subscription->ops->release)
			subscription->ops->release(subscription, mm);
		srcu_read_unlock(&srcu, id);

		spin_lock(&subscriptions->lock);
		subscription_unlink(subscription);
		spin_unlock(&subscriptions->lock);
	}

	synchronize_srcu(&srcu);
	mmdrop(mm); /* pairs with the mmgrab in __mmu_notifier_register() */
}

/* Called by exit_mmap with mm_users at zero, so nobody can register; rmap walkers may still open
 * windows. */
void mmu_notifier_release(struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);
	struct mmu_notifier *mn;
	int id;

	if (!subscriptions)
		return;

	id = srcu_read_lock(&srcu);
	for_each_subscription(mn, subscriptions) {
		if (mn->ops->release)
			mn->ops->release(mn, mm);
	}

	/* Inside the section: an unregister that finds its node unlinked must wait until this walk
	 * is over. */
	spin_lock(&subscriptions->lock);
	while (subscriptions->first)
		subscription_unlink(subscriptions->first);
	spin_unlock(&subscriptions->lock);
	srcu_read_unlock(&srcu, id);

	synchronize_srcu(&srcu);
}

/* The last mmdrop: every notifier held an mm_count, so none is left. */
void mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;

	if (!subscriptions)
		return;
	BUG_ON(subscriptions->first);
	kfree(subscriptions);
	mm->notifier_subscriptions = NULL;
}

/* Inside a section. */
static void call_range_end(struct notifier_subscriptions *subscriptions,
			   const struct mmu_notifier_range *range)
{
	struct mmu_notifier *mn;

	for_each_subscription(mn, subscriptions) {
		if (mn->ops->invalidate_range_end)
			mn->ops->invalidate_range_end(mn, range);
	}
}

/*
 * All subscribers are called even after one refused, so that "had a start" is the same for all of
 * them and the ends below pair exactly (N-60). The one that refused must have no end: nobody could
 * tell it which starts it had refused (N-35).
 */
static int invalidate_range_start(struct mmu_notifier_range *range)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(range->mm);
	struct mmu_notifier *mn;
	int ret = 0;
	int id;

	if (!subscriptions)
		return 0;

	id = srcu_read_lock(&srcu);
	for_each_subscription(mn, subscriptions) {
		int err;

		if (!mn->ops->invalidate_range_start)
			continue;
		/* Who may not block must not sleep either on what happens to be free today (N-67).
		 */
		if (!mmu_notifier_range_blockable(range))
			non_block_start();
		err = mn->ops->invalidate_range_start(mn, range);
		if (!mmu_notifier_range_blockable(range))
			non_block_end();
		if (likely(!err))
			continue;
		if (WARN_ON(mmu_notifier_range_blockable(range) || err != -EAGAIN))
			continue; /* a blockable start cannot be refused */
		WARN_ON(mn->ops->invalidate_range_end);
		ret = err;
	}

	if (ret)
		call_range_end(subscriptions, range);
	srcu_read_unlock(&srcu, id);
	return ret;
}

void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	might_sleep();
	/* Also with no subscriber: who waits for one, or allocates, is wrong before there is one.
	 */
	lock_map_acquire(&lockdep_invalidate_range_start);
	range->flags |= MMU_NOTIFIER_RANGE_BLOCKABLE;
	invalidate_range_start(range);
	lock_map_release(&lockdep_invalidate_range_start);
}

int mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	int ret;

	lock_map_acquire(&lockdep_invalidate_range_start);
	range->flags &= ~MMU_NOTIFIER_RANGE_BLOCKABLE;
	ret = invalidate_range_start(range);
	lock_map_release(&lockdep_invalidate_range_start);
	return ret;
}

void mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(range->mm);
	int id;

	lock_map_acquire(&lockdep_invalidate_range_start);
	if (subscriptions) {
		id = srcu_read_lock(&srcu);
		call_range_end(subscriptions, range);
		srcu_read_unlock(&srcu, id);
	}
	lock_map_release(&lockdep_invalidate_range_start);
}
