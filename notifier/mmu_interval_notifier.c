// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Interval notifiers: the tree, and the sequence by which a reader learns that it was interrupted.
 *
 * Of each mm there is a number, invalidate_seq, and how many windows are open:
 *
 *   windows	seq	the tree
 *   none	even	changes as it likes
 *   some	even	no window has met an interval yet; it may grow, and shrink
 *   some	odd	frozen: those who invalidate walk it without a lock
 *
 * A start that meets an interval makes the number odd; the end of the last window makes it even,
 * and does what had to wait. While it is odd, what is to join the tree or to leave it stands on a
 * list (deferred). The number never goes back, and no two phases in which it is odd are the same.
 *
 * An interval has a number of its own, which is always odd: that of the last phase that invalidated
 * it. If the two are equal, that phase is not over, and a reader has to wait:
 *
 *   reader					a window over the interval
 *   ------					--------------------------
 *   read_begin, lock:
 *     seq = own number, 5
 *     global number is 6: nothing is open
 *						start, lock: global number 7
 *   looks the pages up: the old ones		invalidate(): driver's lock, own number = 7
 *						takes the range out of the secondary
 *   driver's lock
 *     read_retry: own number is 7, not 5
 *     -> from the beginning
 *   read_begin: own 7, global 7: waits
 *						the pages change
 *						end, lock: global number 8; wakes
 *   looks the pages up: the new ones
 *
 * Had the reader taken the driver's lock before invalidate() did, it would have used the old pages,
 * rightly, as they are there until start returns; and invalidate() would have found them in the
 * secondary. Replayed by tests/unit/test_mmu_interval_races.c.
 *
 * Why read_begin takes the lock: own number and global number are of one moment there. Without it,
 * the reader could load its own 5, be away for the whole of phase 7, find the global number 8, and
 * think that 5 is good: read_retry would tell, as the own number is 7 by then. But it could also
 * load the global 6 first, then, late, its own 7, in the middle of phase 7: not equal, so it would
 * go on with 7, look up old pages, and find 7 again.
 */
#include <errno.h>

#include "notifier/subscriptions.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

void mn_itree_init(struct notifier_subscriptions *subscriptions)
{
	/* Such that an interval that was never invalidated can have a number below: 1. */
	subscriptions->invalidate_seq = 2;
	init_waitqueue_head(&subscriptions->wq);
}

static bool is_invalidating(const struct notifier_subscriptions *subscriptions)
{
	lockdep_assert_held(&subscriptions->lock);
	return subscriptions->invalidate_seq & 1;
}

/*
 * Under the lock; waiters look without. Release: who finds that a phase is over finds the pages as
 * that left them. Pairs with the acquire in mmu_interval_read_begin().
 */
static void set_global_seq(struct notifier_subscriptions *subscriptions, unsigned long seq)
{
	smp_store_release(&subscriptions->invalidate_seq, seq);
}

static void tree_insert(struct notifier_subscriptions *subscriptions,
			struct mmu_interval_notifier *sub)
{
	interval_tree_insert(&subscriptions->itree, &sub->interval_tree);
	sub->in_tree = true;
}

static void tree_remove(struct notifier_subscriptions *subscriptions,
			struct mmu_interval_notifier *sub)
{
	interval_tree_remove(&subscriptions->itree, &sub->interval_tree);
	sub->in_tree = false;
}

static void defer(struct notifier_subscriptions *subscriptions, struct mmu_interval_notifier *sub)
{
	sub->next_deferred = subscriptions->deferred;
	sub->pprev_deferred = &subscriptions->deferred;
	if (sub->next_deferred)
		sub->next_deferred->pprev_deferred = &sub->next_deferred;
	subscriptions->deferred = sub;
}

static void undefer(struct mmu_interval_notifier *sub)
{
	*sub->pprev_deferred = sub->next_deferred;
	if (sub->next_deferred)
		sub->next_deferred->pprev_deferred = sub->pprev_deferred;
}

/* ---- a window ---- */

static struct mmu_interval_notifier *sub_of(struct interval_tree_node *node)
{
	return node ? container_of(node, struct mmu_interval_notifier, interval_tree) : NULL;
}

/* The first that the window meets, or NULL, and the number of the phase. */
static struct mmu_interval_notifier *inv_start(struct notifier_subscriptions *subscriptions,
					       const struct mmu_notifier_range *range,
					       unsigned long *seq)
{
	struct interval_tree_node *node;

	spin_lock(&subscriptions->lock);
	subscriptions->active_invalidate_ranges++;
	node = interval_tree_first(&subscriptions->itree, range->start, range->end - 1);
	if (node)
		set_global_seq(subscriptions, subscriptions->invalidate_seq | 1);
	*seq = subscriptions->invalidate_seq;
	spin_unlock(&subscriptions->lock);
	return sub_of(node);
}

/* The tree is frozen by the window that we are in. */
static struct mmu_interval_notifier *inv_next(struct mmu_interval_notifier *sub,
					      const struct mmu_notifier_range *range)
{
	return sub_of(interval_tree_next(&sub->interval_tree, range->start, range->end - 1));
}

static void apply_deferred(struct notifier_subscriptions *subscriptions)
{
	struct mmu_interval_notifier *sub;

	while ((sub = subscriptions->deferred)) {
		undefer(sub);
		if (sub->in_tree)
			tree_remove(subscriptions, sub);
		else
			tree_insert(subscriptions, sub);
	}
}

void mn_itree_inv_end(struct notifier_subscriptions *subscriptions)
{
	bool phase_ends;

	spin_lock(&subscriptions->lock);
	ASSERT(subscriptions->active_invalidate_ranges, "a window ends once, and had a start");
	phase_ends =
		--subscriptions->active_invalidate_ranges == 0 && is_invalidating(subscriptions);
	if (phase_ends) {
		set_global_seq(subscriptions, subscriptions->invalidate_seq + 1);
		apply_deferred(subscriptions);
	}
	spin_unlock(&subscriptions->lock);
	/* After the lock: who wakes takes it. The block stays, as we are in the mm. */
	if (phase_ends)
		wake_up_all(&subscriptions->wq);
}

/* The tokens of the first passes, in their order. */
struct finishes {
	struct mmu_interval_notifier_finish *first, **last;
};

static bool first_pass(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		       unsigned long seq, struct finishes *finishes)
{
	struct mmu_interval_notifier_finish *finish = NULL;

	if (!sub->ops->invalidate_start)
		return sub->ops->invalidate(sub, range, seq);
	if (!sub->ops->invalidate_start(sub, range, seq, &finish)) {
		WARN_ON(finish);
		return false;
	}
	if (finish) {
		finish->notifier = sub;
		finish->next = NULL;
		*finishes->last = finish;
		finishes->last = &finish->next;
	}
	return true;
}

static void second_passes(struct mmu_interval_notifier_finish *finish)
{
	while (finish) {
		/* It is the driver's again as soon as it is called. */
		struct mmu_interval_notifier_finish *next = finish->next;

		finish->notifier->ops->invalidate_finish(finish);
		finish = next;
	}
}

int mn_itree_invalidate(struct notifier_subscriptions *subscriptions,
			const struct mmu_notifier_range *range)
{
	bool blockable = mmu_notifier_range_blockable(range), refused = false;
	struct mmu_interval_notifier *sub;
	struct finishes finishes = {.last = &finishes.first};
	unsigned long seq;

	if (!blockable)
		non_block_start();
	for (sub = inv_start(subscriptions, range, &seq); sub && !refused;
	     sub = inv_next(sub, range)) {
		if (first_pass(sub, range, seq, &finishes))
			continue;
		/* A blockable window cannot be refused. */
		refused = !WARN_ON(blockable);
	}
	/* Also when refused: what was begun is not left half done (N-39). */
	second_passes(finishes.first);
	if (!blockable)
		non_block_end();
	if (!refused)
		return 0;
	/* Who is refused opens nothing, and so will not end it (N-56). */
	mn_itree_inv_end(subscriptions);
	return -EAGAIN;
}

void mn_itree_release(struct notifier_subscriptions *subscriptions, struct mm_struct *mm)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_RELEASE, MMU_NOTIFIER_RANGE_BLOCKABLE, mm, 0,
				UINT64_MAX);
	/* To those who wait for windows it is one, like those of mmu_notifier_range.c. */
	lock_map_acquire(&lockdep_invalidate_range_start);
	mn_itree_invalidate(subscriptions, &range);
	mn_itree_inv_end(subscriptions);
	lock_map_release(&lockdep_invalidate_range_start);
}

/* ---- coming and going ---- */

/*
 * With no window open the interval is as if invalidated in the phase before. In a phase, or with
 * windows open of which nobody knows whether they meet it, it is as if invalidated by them.
 */
static void join(struct notifier_subscriptions *subscriptions, struct mmu_interval_notifier *sub)
{
	spin_lock(&subscriptions->lock);
	if (!subscriptions->active_invalidate_ranges) {
		WARN_ON(is_invalidating(subscriptions));
		tree_insert(subscriptions, sub);
		sub->invalidate_seq = subscriptions->invalidate_seq - 1;
	} else {
		if (is_invalidating(subscriptions)) {
			defer(subscriptions, sub);
		} else {
			set_global_seq(subscriptions, subscriptions->invalidate_seq | 1);
			tree_insert(subscriptions, sub);
		}
		sub->invalidate_seq = subscriptions->invalidate_seq;
	}
	spin_unlock(&subscriptions->lock);
}

/* Both passes of two, or the one. */
static bool ops_are_whole(const struct mmu_interval_notifier_ops *ops)
{
	if (ops->invalidate_start || ops->invalidate_finish)
		return ops->invalidate_start && ops->invalidate_finish;
	return ops->invalidate;
}

/* What needs no look at the mm's subscribers. */
static int prepare(struct mmu_interval_notifier *sub, struct mm_struct *mm, hva_t start,
		   uint64_t length, const struct mmu_interval_notifier_ops *ops)
{
	uint64_t last;

	if (!length || __builtin_add_overflow(start, length - 1, &last))
		return -EOVERFLOW;
	if (WARN_ON(!ops_are_whole(ops)))
		return -EINVAL;
	if (WARN_ON(refcount_read(&mm->mm_users) == 0))
		return -EINVAL;
	*sub = (struct mmu_interval_notifier){
		.interval_tree = {.start = start, .last = last},
		.ops = ops,
		.mm = mm,
	};
	return 0;
}

/* Nobody takes it back: once there was an interval, windows look for more. */
static bool has_itree(struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);

	return subscriptions && smp_load_acquire(&subscriptions->has_itree);
}

int mmu_interval_notifier_insert(struct mmu_interval_notifier *sub, struct mm_struct *mm,
				 hva_t start, uint64_t length,
				 const struct mmu_interval_notifier_ops *ops)
{
	int ret = prepare(sub, mm, start, length, ops);

	might_lock(&mm->mmap_lock);
	if (!ret && !has_itree(mm))
		ret = mmu_notifier_register(NULL, mm);
	if (ret)
		return ret;
	mmgrab(mm); /* dropped by remove */
	join(mm->notifier_subscriptions, sub);
	return 0;
}

int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *sub, struct mm_struct *mm,
					hva_t start, uint64_t length,
					const struct mmu_interval_notifier_ops *ops)
{
	int ret = prepare(sub, mm, start, length, ops);

	lockdep_assert_held_write(&mm->mmap_lock);
	if (!ret && !has_itree(mm))
		ret = __mmu_notifier_register(NULL, mm);
	if (ret)
		return ret;
	mmgrab(mm); /* dropped by remove */
	join(mm->notifier_subscriptions, sub);
	return 0;
}

/*
 * Has the phase ended, with all that it put off? Under the lock: the number moves first and the
 * deferred ones are taken one by one after it, so who only looked at the number could free the
 * interval under apply_deferred().
 */
static bool phase_is_over(struct notifier_subscriptions *subscriptions, unsigned long seq)
{
	bool over;

	spin_lock(&subscriptions->lock);
	over = subscriptions->invalidate_seq != seq;
	spin_unlock(&subscriptions->lock);
	return over;
}

void mmu_interval_notifier_remove(struct mmu_interval_notifier *sub)
{
	struct mm_struct *mm = sub->mm;
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;
	unsigned long seq = 0; /* to wait for the end of */

	might_sleep();
	spin_lock(&subscriptions->lock);
	if (!is_invalidating(subscriptions)) {
		ASSERT(sub->in_tree, "an interval that was inserted is removed once");
		tree_remove(subscriptions, sub);
	} else if (!sub->in_tree) {
		undefer(sub); /* it was yet to come: nobody has seen it */
	} else {
		defer(subscriptions, sub);
		seq = subscriptions->invalidate_seq;
	}
	spin_unlock(&subscriptions->lock);

	/* Also if there is nothing to wait for today. */
	lock_map_visit(&lockdep_invalidate_range_start);
	if (seq)
		wait_event(subscriptions->wq, phase_is_over(subscriptions, seq));
	mmdrop(mm); /* pairs with the mmgrab in insert */
}

unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *sub)
{
	struct notifier_subscriptions *subscriptions = sub->mm->notifier_subscriptions;
	unsigned long seq;
	bool is_open;

	might_sleep();
	spin_lock(&subscriptions->lock);
	/* Stored under the driver's lock, which we do not have. */
	seq = READ_ONCE(sub->invalidate_seq);
	is_open = seq == subscriptions->invalidate_seq;
	spin_unlock(&subscriptions->lock);

	lock_map_visit(&lockdep_invalidate_range_start);
	/*
	 * The number of a phase is odd, and those between are even: so it always moves on from what
	 * we wait for, also after it has wrapped. seq may be old again by then: read_retry tells.
	 */
	if (is_open)
		wait_event(subscriptions->wq,
			   smp_load_acquire(&subscriptions->invalidate_seq) != seq);
	return seq;
}
