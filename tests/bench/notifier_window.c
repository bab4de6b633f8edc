/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A start and an end with so many subscribers, whose callbacks are empty: against a bare loop over
 * the same list that makes the same calls, within two sections of the same domain. Starts and ends
 * are functions there, too, as they are in any library; "inlined" has them in the caller's text.
 */
#include <errno.h>
#include <stdlib.h>

#include "notifier/subscriptions.h"
#include "tests/bench/notifier.h"

static struct notifier_host host;
static struct mmu_notifier *subscribers;

static int empty_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	return 0;
}

static void empty_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
}

static const struct mmu_notifier_ops empty_ops = {
	.invalidate_range_start = empty_start,
	.invalidate_range_end = empty_end,
};

static unsigned int nr_subscribers(const struct bench *b)
{
	return ((const struct notifier_case *)b->arg)->nr;
}

static void leave(unsigned int nr)
{
	while (nr--)
		mmu_notifier_unregister(&subscribers[nr], host.mm);
	free(subscribers);
	notifier_host_destroy(&host);
}

int notifier_window_setup(const struct bench *b)
{
	int ret = notifier_host_init(&host, 1);

	if (ret)
		return ret;
	subscribers = calloc(nr_subscribers(b) + 1, sizeof(*subscribers));
	if (!subscribers) {
		notifier_host_destroy(&host);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < nr_subscribers(b); i++) {
		subscribers[i].ops = &empty_ops;
		ret = mmu_notifier_register(&subscribers[i], host.mm);
		if (ret) {
			leave(i);
			return ret;
		}
	}
	return 0;
}

void notifier_window_teardown(const struct bench *b)
{
	leave(nr_subscribers(b));
}

struct mm_struct *notifier_window_mm(void)
{
	return host.mm;
}

static inline struct mmu_notifier *first_subscriber(const struct mmu_notifier_range *range)
{
	return range->mm->notifier_subscriptions->first;
}

/* ---- what stands for a start, and for an end ---- */

static inline void starts(const struct mmu_notifier_range *range)
{
	for (struct mmu_notifier *mn = first_subscriber(range); mn; mn = mn->next)
		mn->ops->invalidate_range_start(mn, range);
}

static inline void ends(const struct mmu_notifier_range *range)
{
	for (struct mmu_notifier *mn = first_subscriber(range); mn; mn = mn->next)
		mn->ops->invalidate_range_end(mn, range);
}

static inline void starts_in_srcu(const struct mmu_notifier_range *range)
{
	int id = srcu_read_lock(&mmu_notifier_srcu);

	starts(range);
	srcu_read_unlock(&mmu_notifier_srcu, id);
}

static inline void ends_in_srcu(const struct mmu_notifier_range *range)
{
	int id = srcu_read_lock(&mmu_notifier_srcu);

	ends(range);
	srcu_read_unlock(&mmu_notifier_srcu, id);
}

#define CALLED(name)                                         \
	static __attribute__((noinline)) void called_##name( \
		const struct mmu_notifier_range *range)      \
	{                                                    \
		name(range);                                 \
	}

CALLED(starts)
CALLED(ends)
CALLED(starts_in_srcu)
CALLED(ends_in_srcu)

NOTIFIER_WINDOWS(fills, (void)0, (void)0)
NOTIFIER_WINDOWS(windows, mmu_notifier_invalidate_range_start(&range),
		 mmu_notifier_invalidate_range_end(&range))

NOTIFIER_WINDOWS(walks, called_starts(&range), called_ends(&range))
NOTIFIER_WINDOWS(walks_in_srcu, called_starts_in_srcu(&range), called_ends_in_srcu(&range))
NOTIFIER_WINDOWS(inlined, starts_in_srcu(&range), ends_in_srcu(&range))

const struct notifier_op notifier_fill = {fills};
const struct notifier_op notifier_window = {windows};
const struct notifier_op notifier_walk = {walks};
const struct notifier_op notifier_walk_in_srcu = {walks_in_srcu};
const struct notifier_op notifier_inlined = {inlined};
