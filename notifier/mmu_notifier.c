/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The notifier core: who listens to an mm, and how they are told.
 *
 * Rules (kernel: mm/mmu_notifier.c):
 *  1. Every callback runs inside a read section of one SRCU domain, shared by all mms (N-02):
 *     callbacks may sleep, and whoever unlinks a subscriber waits for a grace period before its
 *     memory may go.
 *  2. The list grows only inside mm_take_all_locks(), and every window is held open under mmap_lock
 *     or a reverse-map lock: so nobody can join between a start and its end (N-63). It may shrink
 *     at any time: a subscriber that leaves within a window gets no end.
 *  3. The subscriptions block is allocated at the first register, under mmap_lock held for writing
 *     and before all locks are taken: nothing is allocated while they are held, since an allocation
 *     may enter reclaim, which takes them (I10). Nothing speculative: under the write lock the test
 *     is exact.
 *  4. ->release runs before any page is freed, whichever of exit and unregister comes first (I5):
 *     see the ladder at mmu_notifier_unregister().
 *  5. A notifier of mmu_notifier_get() has its users counted under subscriptions->lock, under which
 *     it is found, too: so what is found has users.
 *
 * subscriptions->lock protects the links of the list for writing.
 */
#include <errno.h>
#include <limits.h>

#include "notifier/srcu_internal.h"
#include "notifier/subscriptions.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"

/*
 * One domain for all mms: an unregister waits for callbacks of every mm, in exchange for no state
 * per mm. Made by the first register of the process and kept: it has no owner to free it.
 */
struct srcu_struct mmu_notifier_srcu;
static bool srcu_ready; /* stored under srcu_init_mutex; any subscriber there ever was implies it */
static DEFINE_MUTEX(srcu_init_mutex);

static int subscriptions_srcu_init(void)
{
	int ret = 0;

	mutex_lock(&srcu_init_mutex);
	if (!srcu_ready) {
		ret = init_srcu_struct(&mmu_notifier_srcu);
		if (!ret) {
			lockdep_init_map(&mmu_notifier_srcu.d->dep, "mmu_notifier_srcu",
					 &mmu_notifier_srcu);
			/* Pairs with the acquire in mmu_notifier_synchronize(). */
			smp_store_release(&srcu_ready, true);
		}
	}
	mutex_unlock(&srcu_init_mutex);
	return ret;
}

bool mm_has_notifiers(struct mm_struct *mm)
{
	return mm_subscriptions(mm) != NULL;
}

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

/* Either its own TLB, to be flushed with the primary's, or windows (N-36). */
static bool ops_are_sane(const struct mmu_notifier_ops *ops)
{
	return !ops->arch_invalidate_secondary_tlbs ||
	       (!ops->invalidate_range_start && !ops->invalidate_range_end);
}

static struct notifier_subscriptions *alloc_subscriptions(void)
{
	struct notifier_subscriptions *subscriptions = kzalloc(sizeof(*subscriptions), GFP_KERNEL);

	if (!subscriptions)
		return NULL;
	__spin_lock_init(&subscriptions->lock, "subscriptions->lock", LOCK_CLASS_KEY);
	mn_itree_init(subscriptions);
	return subscriptions;
}

/* With all locks taken: nobody is inside a window, and nobody walks the list but in ->release. */
static void attach(struct notifier_subscriptions *subscriptions, struct mmu_notifier *subscription,
		   struct mm_struct *mm)
{
	subscription->mm = mm;
	subscription->users = 1;
	mmgrab(mm); /* dropped by unregister, or behind free_notifier */
	spin_lock(&subscriptions->lock);
	subscription_link(subscriptions, subscription);
	spin_unlock(&subscriptions->lock);
}

int __mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions,
				      *new_block = NULL;
	int ret;

	lockdep_assert_held_write(&mm->mmap_lock);
	ASSERT(refcount_read(&mm->mm_users) > 0, "the caller pins mm_users while it registers");

	if (subscription && WARN_ON(!ops_are_sane(subscription->ops)))
		return -EINVAL;
	ret = subscriptions_srcu_init();
	if (ret)
		return ret;
	if (!subscriptions) {
		subscriptions = new_block = alloc_subscriptions();
		if (!new_block)
			return -ENOMEM;
	}
	ret = mm_take_all_locks(mm);
	if (ret)
		goto out_free;

	/* Pairs with the acquire in mm_subscriptions(). */
	if (new_block)
		smp_store_release(&mm->notifier_subscriptions, new_block);
	WRITE_ONCE(mm->watch.watched, 1);
	if (subscription)
		attach(subscriptions, subscription, mm);
	else
		smp_store_release(&subscriptions->has_itree, true);

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
 * period is what waits for unregister's ->release. Replayed by tests/unit/test_mmu_notifier_exit.c,
 * and at each step of one of the two by test_mmu_notifier_steps.c.
 */
void mmu_notifier_unregister(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	ASSERT(refcount_read(&mm->mm_count) > 0, "register took an mm_count for us");

	if (READ_ONCE(subscription->pprev)) {
		struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;
		int id = srcu_read_lock(&mmu_notifier_srcu);

		if (subscription->ops->release)
			subscription->ops->release(subscription, mm);
		srcu_read_unlock(&mmu_notifier_srcu, id);

		spin_lock(&subscriptions->lock);
		subscription_unlink(subscription);
		spin_unlock(&subscriptions->lock);
	}

	synchronize_srcu(&mmu_notifier_srcu);
	mmdrop(mm); /* pairs with the mmgrab in attach() */
}

void mmu_notifier_unregister_no_release(struct mmu_notifier *subscription, struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;

	ASSERT(refcount_read(&mm->mm_count) > 0, "register took an mm_count for us");
	spin_lock(&subscriptions->lock);
	subscription_unlink(subscription);
	spin_unlock(&subscriptions->lock);
	mmdrop(mm); /* pairs with the mmgrab in attach() */
}

void mmu_notifier_call_srcu(struct srcu_head *rcu, void (*func)(struct srcu_head *rcu))
{
	call_srcu(&mmu_notifier_srcu, rcu, func);
}

/* ---- get and put ---- */

/* The notifier of @ops, with a user more; ERR_PTR(-EOVERFLOW); NULL: there is none. */
static struct mmu_notifier *find_get(struct notifier_subscriptions *subscriptions,
				     const struct mmu_notifier_ops *ops)
{
	struct mmu_notifier *mn;

	spin_lock(&subscriptions->lock);
	for (mn = subscriptions->first; mn && mn->ops != ops; mn = mn->next)
		;
	if (mn && mn->users == UINT_MAX)
		mn = ERR_PTR(-EOVERFLOW);
	else if (mn)
		mn->users++;
	spin_unlock(&subscriptions->lock);
	return mn;
}

/*
 * Of a get that failed as well, where it could sleep: what sleeps there would sleep in a callback
 * of SRCU, too, when the last user puts.
 */
static void call_free_notifier(struct mmu_notifier *subscription)
{
	non_block_start();
	subscription->ops->free_notifier(subscription);
	non_block_end();
}

struct mmu_notifier *mmu_notifier_get_locked(const struct mmu_notifier_ops *ops,
					     struct mm_struct *mm)
{
	struct mmu_notifier *subscription = NULL;
	int ret;

	lockdep_assert_held_write(&mm->mmap_lock);
	ASSERT(ops->alloc_notifier && ops->free_notifier, "get and put need both");
	/* mmap_lock makes it exact: what is not found now is nobody else's to add. */
	if (mm->notifier_subscriptions)
		subscription = find_get(mm->notifier_subscriptions, ops);
	if (subscription)
		return subscription;

	subscription = ops->alloc_notifier(mm);
	if (IS_ERR(subscription))
		return subscription;
	subscription->ops = ops;
	ret = __mmu_notifier_register(subscription, mm);
	if (!ret)
		return subscription;
	call_free_notifier(subscription);
	return ERR_PTR(ret);
}

struct mmu_notifier *mmu_notifier_get(const struct mmu_notifier_ops *ops, struct mm_struct *mm)
{
	struct mmu_notifier *subscription;

	mmap_write_lock(mm);
	subscription = mmu_notifier_get_locked(ops, mm);
	mmap_write_unlock(mm);
	return subscription;
}

static void free_subscription(struct srcu_head *rcu)
{
	struct mmu_notifier *subscription = container_of(rcu, struct mmu_notifier, rcu);
	struct mm_struct *mm = subscription->mm;

	call_free_notifier(subscription);
	mmdrop(mm); /* pairs with the mmgrab in attach() */
}

void mmu_notifier_put(struct mmu_notifier *subscription)
{
	struct notifier_subscriptions *subscriptions = subscription->mm->notifier_subscriptions;
	bool last = false;

	spin_lock(&subscriptions->lock);
	if (!WARN_ON(!subscription->users)) {
		last = --subscription->users == 0;
		if (last)
			subscription_unlink(subscription);
	}
	spin_unlock(&subscriptions->lock);
	if (last)
		call_srcu(&mmu_notifier_srcu, &subscription->rcu, free_subscription);
}

/*
 * Two things to wait for, and neither is the other's: a grace period says that no callback runs,
 * but what was queued behind one may run later; and a barrier says that what was queued has
 * returned, but need not wait for readers if nothing was.
 */
void mmu_notifier_synchronize(void)
{
	/*
	 * Not under srcu_init_mutex: its holder allocates, so to lockdep all who take it may wait
	 * for callbacks, by way of reclaim, and that is what a report would speak of. Whatever was
	 * put before this call was registered before, and sees it ready.
	 */
	if (!smp_load_acquire(&srcu_ready))
		return;
	synchronize_srcu(&mmu_notifier_srcu);
	srcu_barrier(&mmu_notifier_srcu);
}

/* ---- the end of an mm ---- */

static void release_list(struct notifier_subscriptions *subscriptions, struct mm_struct *mm)
{
	struct mmu_notifier *mn;
	int id;

	id = srcu_read_lock(&mmu_notifier_srcu);
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
	srcu_read_unlock(&mmu_notifier_srcu, id);

	synchronize_srcu(&mmu_notifier_srcu);
}

/*
 * Called by exit_mmap with mm_users at zero, so nobody can register; rmap walkers may still open
 * windows. Those with an interval first, as in a window (N-61).
 */
void mmu_notifier_release(struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);

	if (!subscriptions)
		return;
	if (subscriptions->has_itree)
		mn_itree_release(subscriptions, mm);
	release_list(subscriptions, mm);
}

/* The last mmdrop: every notifier held an mm_count, so none is left. */
void mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;

	if (!subscriptions)
		return;
	BUG_ON(subscriptions->first);
	BUG_ON(subscriptions->itree.rbh_root || subscriptions->deferred);
	kfree(subscriptions);
	mm->notifier_subscriptions = NULL;
}
