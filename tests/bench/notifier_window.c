/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A start and an end with so many subscribers, whose callbacks are empty: against a bare loop over
 * the same list that makes the same calls.
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
	return *(const unsigned int *)b->arg;
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

/* Held open under mmap_lock, which is taken once for all of them. */
static __attribute__((noinline)) void windows(uint64_t n)
{
	struct mmu_notifier_range range;

	mmap_read_lock(host.mm);
	for (uint64_t i = 0; i < n; i++) {
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, host.mm, NOTIFIER_HVA,
					NOTIFIER_HVA + PAGE_SIZE);
		mmu_notifier_invalidate_range_start(&range);
		bench_barrier();
		mmu_notifier_invalidate_range_end(&range);
		bench_barrier();
	}
	mmap_read_unlock(host.mm);
}

static struct mmu_notifier *first_subscriber(void)
{
	struct notifier_subscriptions *subscriptions = host.mm->notifier_subscriptions;

	return subscriptions ? subscriptions->first : NULL;
}

static __attribute__((noinline)) void walks(uint64_t n)
{
	struct mmu_notifier *first = first_subscriber(), *mn;
	struct mmu_notifier_range range;

	for (uint64_t i = 0; i < n; i++) {
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, host.mm, NOTIFIER_HVA,
					NOTIFIER_HVA + PAGE_SIZE);
		for (mn = first; mn; mn = mn->next)
			mn->ops->invalidate_range_start(mn, &range);
		bench_barrier();
		for (mn = first; mn; mn = mn->next)
			mn->ops->invalidate_range_end(mn, &range);
		bench_barrier();
	}
}

static __attribute__((noinline)) void walks_in_srcu(uint64_t n)
{
	struct mmu_notifier *first = first_subscriber(), *mn;
	struct mmu_notifier_range range;
	int id;

	for (uint64_t i = 0; i < n; i++) {
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, host.mm, NOTIFIER_HVA,
					NOTIFIER_HVA + PAGE_SIZE);
		id = srcu_read_lock(&mmu_notifier_srcu);
		for (mn = first; mn; mn = mn->next)
			mn->ops->invalidate_range_start(mn, &range);
		srcu_read_unlock(&mmu_notifier_srcu, id);
		bench_barrier();
		id = srcu_read_lock(&mmu_notifier_srcu);
		for (mn = first; mn; mn = mn->next)
			mn->ops->invalidate_range_end(mn, &range);
		srcu_read_unlock(&mmu_notifier_srcu, id);
		bench_barrier();
	}
}

const struct notifier_op notifier_window = {windows};
const struct notifier_op notifier_walk = {walks};
const struct notifier_op notifier_walk_in_srcu = {walks_in_srcu};
