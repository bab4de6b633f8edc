// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * How subscribers are told: windows, ages, and TLBs.
 *
 * Rules (kernel: mm/mmu_notifier.c):
 *  1. Those with an interval come first, at the start as well as at the end (N-61). If one of them
 *     refuses, the list is not called.
 *  2. Whoever had a start has an end, whoever refused and in whichever of the two (N-60): so a
 *     refusal by the list ends the whole window, for the intervals as well. (The kernel leaves
 *     theirs open: docs/kernel-map.md.)
 *  3. Classic callbacks run inside a section of mmu_notifier_srcu, and none if there is nobody.
 */
#include <errno.h>

#include "notifier/set_pte.h"
#include "notifier/subscriptions.h"
#include "notifier/sync/bug.h"

/* A walk is worth a section of SRCU. Those who are in it hold a lock that keeps it from growing. */
static bool list_is_empty(struct notifier_subscriptions *subscriptions)
{
	return !READ_ONCE(subscriptions->first);
}

/* ---- windows ---- */

/*
 * What an error of a start is worth: -EAGAIN, or nothing where it is a bug. A function of its own:
 * beside a warning the compiler lays out as unlikely what follows it, too, which in the loops below
 * is the step to the next subscriber.
 */
static __attribute__((cold, noinline)) int refusal(const struct mmu_notifier *mn,
						   const struct mmu_notifier_range *range, int err)
{
	if (WARN_ON(mmu_notifier_range_blockable(range) || err != -EAGAIN))
		return 0; /* a blockable start cannot be refused */
	/* It would get ends of windows that it refused, and could not tell which (N-35). */
	WARN_ON(mn->ops->invalidate_range_end);
	return err;
}

/* Cannot be refused, so there is nothing to remember from one subscriber to the next. */
static void list_range_start(struct notifier_subscriptions *subscriptions,
			     const struct mmu_notifier_range *range)
{
	struct mmu_notifier *mn;
	int id;

	id = srcu_read_lock(&mmu_notifier_srcu);
	for_each_subscription(mn, subscriptions) {
		int err = 0;

		if (mn->ops->invalidate_range_start)
			err = mn->ops->invalidate_range_start(mn, range);
		if (unlikely(err))
			refusal(mn, range, err);
	}
	srcu_read_unlock(&mmu_notifier_srcu, id);
}

/*
 * All subscribers are called even after one refused, so that "had a start" is the same for all of
 * them and the ends pair exactly.
 */
static int list_range_start_nonblock(struct notifier_subscriptions *subscriptions,
				     const struct mmu_notifier_range *range)
{
	struct mmu_notifier *mn;
	int ret = 0;
	int id;

	id = srcu_read_lock(&mmu_notifier_srcu);
	/* Who may not block must not sleep either on what happens to be free today (N-67). */
	non_block_start();
	for_each_subscription(mn, subscriptions) {
		int err = 0;

		if (mn->ops->invalidate_range_start)
			err = mn->ops->invalidate_range_start(mn, range);
		if (unlikely(err))
			ret |= refusal(mn, range, err);
	}
	non_block_end();
	srcu_read_unlock(&mmu_notifier_srcu, id);
	return ret;
}

static void list_range_end(struct notifier_subscriptions *subscriptions,
			   const struct mmu_notifier_range *range)
{
	struct mmu_notifier *mn;
	int id;

	id = srcu_read_lock(&mmu_notifier_srcu);
	for_each_subscription(mn, subscriptions) {
		if (mn->ops->invalidate_range_end)
			mn->ops->invalidate_range_end(mn, range);
	}
	srcu_read_unlock(&mmu_notifier_srcu, id);
}

/* Also with no subscriber: who waits for one, or allocates, is wrong before there is one. */
void __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(range->mm);

	might_sleep();
	lock_map_acquire(&lockdep_invalidate_range_start);
	if (subscriptions && subscriptions->has_itree)
		mn_itree_invalidate(subscriptions, range);
	if (subscriptions && !list_is_empty(subscriptions))
		list_range_start(subscriptions, range);
	lock_map_release(&lockdep_invalidate_range_start);
	note_window_open(range);
}

static void end_window(struct notifier_subscriptions *subscriptions,
		       const struct mmu_notifier_range *range)
{
	if (subscriptions->has_itree)
		mn_itree_inv_end(subscriptions);
	if (!list_is_empty(subscriptions))
		list_range_end(subscriptions, range);
}

int __mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(range->mm);
	int ret = 0;

	lock_map_acquire(&lockdep_invalidate_range_start);
	if (subscriptions && subscriptions->has_itree)
		ret = mn_itree_invalidate(subscriptions, range);
	if (!ret && subscriptions && !list_is_empty(subscriptions)) {
		ret = list_range_start_nonblock(subscriptions, range);
		/* An end like any: nobody has joined since, and who left in between gets none. */
		if (ret)
			end_window(subscriptions, range);
	}
	lock_map_release(&lockdep_invalidate_range_start);
	if (!ret)
		note_window_open(range);
	return ret;
}

void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(range->mm);

	note_window_closed(range);
	lock_map_acquire(&lockdep_invalidate_range_start);
	if (subscriptions)
		end_window(subscriptions, range);
	lock_map_release(&lockdep_invalidate_range_start);
}

/* ---- ages ---- */

bool mmu_notifier_clear_flush_young(struct mm_struct *mm, hva_t start, hva_t end)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);
	struct mmu_notifier *mn;
	bool young = false;
	int id;

	might_sleep();
	if (!subscriptions)
		return false;
	id = srcu_read_lock(&mmu_notifier_srcu);
	for_each_subscription(mn, subscriptions) {
		if (mn->ops->clear_flush_young)
			young |= mn->ops->clear_flush_young(mn, mm, start, end);
	}
	srcu_read_unlock(&mmu_notifier_srcu, id);
	return young;
}

bool mmu_notifier_clear_young(struct mm_struct *mm, hva_t start, hva_t end)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);
	struct mmu_notifier *mn;
	bool young = false;
	int id;

	might_sleep();
	if (!subscriptions)
		return false;
	id = srcu_read_lock(&mmu_notifier_srcu);
	for_each_subscription(mn, subscriptions) {
		if (mn->ops->clear_young)
			young |= mn->ops->clear_young(mn, mm, start, end);
	}
	srcu_read_unlock(&mmu_notifier_srcu, id);
	return young;
}

bool mmu_notifier_test_young(struct mm_struct *mm, hva_t address)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);
	struct mmu_notifier *mn;
	bool young = false;
	int id;

	might_sleep();
	if (!subscriptions)
		return false;
	id = srcu_read_lock(&mmu_notifier_srcu);
	for_each_subscription(mn, subscriptions) {
		if (mn->ops->test_young)
			young = mn->ops->test_young(mn, mm, address);
		if (young)
			break;
	}
	srcu_read_unlock(&mmu_notifier_srcu, id);
	return young;
}

/* ---- TLBs ---- */

void mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm, hva_t start, hva_t end)
{
	struct notifier_subscriptions *subscriptions = mm_subscriptions(mm);
	struct mmu_notifier *mn;
	int id;

	if (!subscriptions || list_is_empty(subscriptions))
		return;
	id = srcu_read_lock(&mmu_notifier_srcu);
	non_block_start();
	for_each_subscription(mn, subscriptions) {
		if (mn->ops->arch_invalidate_secondary_tlbs)
			mn->ops->arch_invalidate_secondary_tlbs(mn, mm, start, end);
	}
	non_block_end();
	srcu_read_unlock(&mmu_notifier_srcu, id);
}
