/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Windows, beyond order, pairing and lifetimes, which are in test_mmu_notifier.c: owners of ranges,
 * who may refuse what, and what ops go together.
 */
#include "notifier/subscriptions.h"
#include "tests/support/hear.h"
#include "tests/support/notifier_fixture.h"

static void flush_tlb(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mm, (void)start, (void)end;
	fail("%p is told to flush", (void *)mn);
}

static const struct mmu_notifier_ops mixed_ops[] = {
	{.arch_invalidate_secondary_tlbs = flush_tlb, .invalidate_range_start = recorder_start},
	{.arch_invalidate_secondary_tlbs = flush_tlb, .invalidate_range_end = recorder_end},
	{.arch_invalidate_secondary_tlbs = flush_tlb,
	 .invalidate_range_start = recorder_start,
	 .invalidate_range_end = recorder_end},
};

/* N-36, N-11: nothing is attached, nor made. */
TEST(mmu_notifier_range, windows_and_tlbs_exclude_each_other)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	hear_start();
	for (size_t i = 0; i < ARRAY_SIZE(mixed_ops); i++) {
		recorder_init(&r, 'r', NULL);
		r.mn.ops = &mixed_ops[i];
		expect_eq(mmu_notifier_register(&r.mn, h.mm), -EINVAL);
		expect_warnings(1, "ops_are_sane");
		expect(!r.mn.pprev && !r.mn.mm);
		expect(!mm_has_notifiers(h.mm));
		expect_eq(refcount_read(&h.mm->mm_count), 1);
	}
	window(h.mm);
	expect_counts(&r, 0, 0, 0);
	host_destroy(&h);
}

static void window_of(struct mm_struct *mm, enum mmu_notifier_event event, void *owner)
{
	struct mmu_notifier_range range;

	mmap_read_lock(mm);
	mmu_notifier_range_init_owner(&range, event, 0, mm, HVA, HVA + PAGE_SIZE, owner);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
}

/* The core calls everybody; who is told what he does himself can see it. */
TEST(mmu_notifier_range, owner_arrives)
{
	struct recorder r[2];
	struct host h;

	host_init(&h);
	for (int i = 0; i < 2; i++) {
		recorder_init(&r[i], 'a' + i, NULL);
		expect_eq(mmu_notifier_register(&r[i].mn, h.mm), 0);
	}
	for (int i = 0; i < 2; i++) {
		enum mmu_notifier_event event = i ? MMU_NOTIFY_MIGRATE : MMU_NOTIFY_EXCLUSIVE;

		window_of(h.mm, event, &r[i]);
		for (int k = 0; k < 2; k++) {
			expect(r[k].last.owner == &r[i]);
			expect_eq(r[k].last.event, event);
			expect_eq(r[k].last.end, HVA + PAGE_SIZE);
		}
	}
	window(h.mm);
	for (int i = 0; i < 2; i++) {
		expect(!r[i].last.owner);
		expect_counts(&r[i], 3, 3, 0);
		mmu_notifier_unregister(&r[i].mn, h.mm);
	}
	host_destroy(&h);
}

/* No block of subscriptions, and a block without subscribers. */
TEST(mmu_notifier_range, nobody_refuses)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	window(h.mm);
	expect_eq(window_nonblock(h.mm), 0);
	expect(!mm_has_notifiers(h.mm));
	recorder_init(&r, 'r', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	expect(mm_has_notifiers(h.mm));
	window(h.mm);
	expect_eq(window_nonblock(h.mm), 0);
	expect_eq(h.mm->notifier_subscriptions->active_invalidate_ranges, 0);
	expect_counts(&r, 0, 0, 1);
	host_destroy(&h);
}

/* N-11: no subscriber is there, nor a count taken; and it may be done twice. */
TEST(mmu_notifier_range, register_of_nobody_prepares)
{
	struct recorder r;
	struct host h;

	host_init(&h);
	for (int i = 0; i < 2; i++) {
		expect_eq(mmu_notifier_register(NULL, h.mm), 0);
		expect(mm_has_notifiers(h.mm));
		expect(!h.mm->notifier_subscriptions->first);
		expect(h.mm->notifier_subscriptions->has_itree);
		expect_eq(refcount_read(&h.mm->mm_count), 1);
		window(h.mm);
		expect_eq(window_nonblock(h.mm), 0);
	}
	recorder_init(&r, 'r', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	window(h.mm);
	expect_eq(mmu_notifier_register(NULL, h.mm), 0);
	window(h.mm);
	expect_counts(&r, 2, 2, 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* Says what it is told to say, and has an end, or not. */
static int answer;

static int answer_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	recorder_start(mn, range);
	return answer;
}

static const struct mmu_notifier_ops answer_ops = {.invalidate_range_start = answer_start};
static const struct mmu_notifier_ops answer_ops_with_end = {
	.invalidate_range_start = answer_start,
	.invalidate_range_end = recorder_end,
};

/* R-03, misuse: what is no refusal opens the window, and is reported. */
TEST(mmu_notifier_range, refusals_that_are_none)
{
	struct recorder bad, good;
	struct host h;

	host_init(&h);
	hear_start();
	recorder_init(&good, 'g', NULL);
	recorder_init(&bad, 'b', NULL);
	bad.mn.ops = &answer_ops;
	expect_eq(mmu_notifier_register(&good.mn, h.mm), 0);
	expect_eq(mmu_notifier_register(&bad.mn, h.mm), 0);

	answer = -EAGAIN; /* where it may sleep */
	window(h.mm);
	expect_warnings(1, "err != -EAGAIN");
	expect_counts(&good, 1, 1, 0);
	answer = -EIO; /* no such answer */
	expect_eq(window_nonblock(h.mm), 0);
	expect_warnings(1, "err != -EAGAIN");
	expect_counts(&good, 2, 2, 0);
	answer = -EAGAIN; /* right */
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_warnings(0, NULL);
	expect_counts(&good, 3, 3, 0);
	expect_counts(&bad, 3, 0, 0);

	mmu_notifier_unregister(&bad.mn, h.mm);
	mmu_notifier_unregister(&good.mn, h.mm);
	host_destroy(&h);
}

/* Who refuses and has an end is told so: it gets ends of windows that it refused. */
TEST(mmu_notifier_range, refuser_with_an_end)
{
	struct recorder bad;
	struct host h;

	host_init(&h);
	hear_start();
	recorder_init(&bad, 'b', NULL);
	bad.mn.ops = &answer_ops_with_end;
	expect_eq(mmu_notifier_register(&bad.mn, h.mm), 0);
	answer = 0;
	expect_eq(window_nonblock(h.mm), 0);
	expect_warnings(0, NULL);
	answer = -EAGAIN;
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_warnings(1, "invalidate_range_end");
	expect_counts(&bad, 2, 2, 0);
	mmu_notifier_unregister(&bad.mn, h.mm);
	host_destroy(&h);
}

static int sleeping_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	might_sleep();
	return 0;
}

static const struct mmu_notifier_ops sleeping_ops = {.invalidate_range_start = sleeping_start};

static void run_window_nonblock(void *arg)
{
	struct host *h = arg;

	(void)!window_nonblock(h->mm);
}

/* N-67: in a window that may not block nobody sleeps, not even on what is free today. */
TEST(mmu_notifier_range, nonblock_never_sleeps)
{
	struct mmu_notifier mn = {.ops = &sleeping_ops};
	struct host h;

#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	host_init(&h);
	expect_eq(mmu_notifier_register(&mn, h.mm), 0);
	window(h.mm);
	expect_bug(run_window_nonblock, &h, "may sleep, but this thread must not");
	mmu_notifier_unregister(&mn, h.mm);
	host_destroy(&h);
}
