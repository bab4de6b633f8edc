/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * register and get that fail: with no memory at each place that wants some, in turn, and by a
 * signal. Nothing is attached, leaked, or held then, and the next try succeeds.
 */
#include <gnomon/signal.h>

#include "tests/support/fail_alloc.h"
#include "tests/support/got_notifier.h"

struct before {
	int64_t live;
	int mm_count;
	struct notifier_subscriptions *subscriptions;
	struct mmu_notifier *first;
	bool has_itree, srcu_ready;
};

static struct before look(struct mm_struct *mm)
{
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;

	return (struct before){
		.live = atomic64_read(&allocs.live),
		.mm_count = mm_count_of(mm),
		.subscriptions = subscriptions,
		.first = subscriptions ? subscriptions->first : NULL,
		.has_itree = subscriptions && subscriptions->has_itree,
		.srcu_ready = mmu_notifier_srcu.d,
	};
}

/* All as it was. */
static void expect_unchanged(struct mm_struct *mm, const struct before *before)
{
	struct before now = look(mm);

	expect_eq(now.live, before->live);
	expect_eq(now.mm_count, before->mm_count);
	expect(now.subscriptions == before->subscriptions);
	expect(now.first == before->first);
	expect_eq(now.has_itree, before->has_itree);
	/* No lock is held: */
	mmap_write_lock(mm);
	expect_eq(mm_take_all_locks(mm), 0);
	mm_drop_all_locks(mm);
	mmap_write_unlock(mm);
	window(mm);
}

/* The block of the mm. (The domain of SRCU has room in the pool that the tables of the mm began.)
 */
TEST(mmu_notifier_fail, register_without_memory)
{
	struct before before;
	struct recorder r;
	struct host h;
	int64_t site;
	int ret;

	host_init(&h);
	recorder_init(&r, 'r', NULL);
	for (site = 0;; site++) {
		before = look(h.mm);
		alloc_fail_at(site);
		ret = mmu_notifier_register(&r.mn, h.mm);
		if (!alloc_failed())
			break;
		expect_eq(ret, -ENOMEM);
		expect_unchanged(h.mm, &before);
		expect(!mm_has_notifiers(h.mm));
		expect(!r.mn.pprev);
	}
	expect_eq(ret, 0);
	expect_ge(site, 1);
	window(h.mm);
	expect_counts(&r, 1, 1, 0);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* The same of what only prepares. */
TEST(mmu_notifier_fail, register_of_nobody_without_memory)
{
	struct before before;
	struct host h;
	int64_t site;
	int ret;

	host_init(&h);
	for (site = 0;; site++) {
		before = look(h.mm);
		alloc_fail_at(site);
		ret = mmu_notifier_register(NULL, h.mm);
		if (!alloc_failed())
			break;
		expect_eq(ret, -ENOMEM);
		expect_unchanged(h.mm, &before);
	}
	expect_eq(ret, 0);
	expect_ge(site, 1);
	host_destroy(&h);
}

/* With a block there is nothing to allocate: nor is anything, speculatively (seed 000). */
TEST(mmu_notifier_fail, second_register_allocates_nothing)
{
	struct recorder r[2];
	struct host h;

	host_init(&h);
	recorder_init(&r[0], 'a', NULL);
	recorder_init(&r[1], 'b', NULL);
	expect_eq(mmu_notifier_register(&r[0].mn, h.mm), 0);
	alloc_fail_at(0);
	expect_eq(mmu_notifier_register(&r[1].mn, h.mm), 0);
	expect_eq(mmu_notifier_register(NULL, h.mm), 0);
	mmu_notifier_unregister(&r[0].mn, h.mm);
	expect_eq(mmu_notifier_register(&r[0].mn, h.mm), 0);
	expect(!alloc_failed());
	mmu_notifier_unregister(&r[0].mn, h.mm);
	mmu_notifier_unregister(&r[1].mn, h.mm);
	host_destroy(&h);
}

static uint64_t freed_by;
static int count_at_free;

static void note_free_notifier(struct got *got)
{
	freed_by = thread_id();
	count_at_free = mm_count_of(got->alloc_mm);
}

/* free_notifier is called before get returns, once, by the same thread; and nothing is queued. */
TEST(mmu_notifier_fail, get_without_memory)
{
	struct before before;
	struct mmu_notifier *mn;
	struct host h;
	int failures = 0;

	host_init(&h);
	gots.on_free = note_free_notifier;
	for (;;) {
		before = look(h.mm);
		freed_by = 0;
		alloc_fail_at(failures);
		mn = mmu_notifier_get(&got_ops[0], h.mm);
		if (!alloc_failed())
			break;
		failures++;
		expect(IS_ERR(mn));
		expect_eq(PTR_ERR(mn), -ENOMEM);
		expect_lives(failures, failures);
		expect_eq(freed_by, thread_id());
		expect_eq(count_at_free, 1);
		expect(!mmu_notifier_srcu.d || srcu_callbacks_idle(mmu_notifier_srcu.d));
		expect_unchanged(h.mm, &before);
	}
	expect_ge(failures, 1);
	expect(!IS_ERR(mn));
	window(h.mm);
	expect_eq(atomic_read(&to_got(mn)->starts), 1);
	mmu_notifier_put(mn);
	expect_all_dead();
	host_destroy(&h);
}

/* The block, made for nothing, is given back; or, if there is one, stays as it is. */
TEST(mmu_notifier_fail, get_interrupted)
{
	struct before before;
	struct mmu_notifier *mn;
	struct got *other = NULL;
	struct host h;

	host_init(&h);
	for (int i = 0; i < 2; i++) {
		before = look(h.mm);
		set_signal_pending();
		mn = mmu_notifier_get(&got_ops[0], h.mm);
		expect(IS_ERR(mn));
		expect_eq(PTR_ERR(mn), -EINTR);
		expect(signal_pending()); /* for the caller to clear */
		clear_signal_pending();
		expect_unchanged(h.mm, &before);
		expect_lives(2 * i + 1, i + 1);
		if (!i)
			other = got_get(1, h.mm);
	}
	/* Whoever is found is found, signal or not. */
	set_signal_pending();
	expect(mmu_notifier_get(&got_ops[1], h.mm) == &other->mn);
	clear_signal_pending();
	mmu_notifier_put(&other->mn);
	mmu_notifier_put(&other->mn);
	expect_all_dead();
	host_destroy(&h);
}

/* Ops that make no sense, by way of get. */
static void got_tlb(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mn, (void)mm, (void)start, (void)end;
}

TEST(mmu_notifier_fail, get_of_mixed_ops)
{
	struct mmu_notifier_ops mixed = got_ops[0];
	struct mmu_notifier *mn;
	struct before before;
	struct host h;

	host_init(&h);
	mixed.arch_invalidate_secondary_tlbs = got_tlb;
	before = look(h.mm);
	mn = mmu_notifier_get(&mixed, h.mm);
	expect(IS_ERR(mn));
	expect_eq(PTR_ERR(mn), -EINVAL);
	expect_lives(1, 1);
	expect_unchanged(h.mm, &before);
	expect_all_dead();
	host_destroy(&h);
}

/*
 * What the core holds of an mm is given back behind free_notifier, and not before: the structure
 * with its block is still allocated there, and is freed when synchronize returns.
 */
static int mm_freed_at_free;

static void look_for_mm(struct got *got)
{
	(void)got;
	mm_freed_at_free = atomic_read(&allocs.watched_freed);
}

TEST(mmu_notifier_fail, mm_outlives_free_notifier)
{
	struct got *got;
	struct host h;

	host_init(&h);
	gots.on_free = look_for_mm;
	got = got_get(0, h.mm);
	allocs.watched = h.mm;
	mmput(h.mm);
	expect_eq(atomic_read(&allocs.watched_freed), 0);
	mmu_notifier_put(&got->mn);
	expect_eq(atomic_read(&allocs.watched_freed), 0);
	mmu_notifier_synchronize();
	expect_eq(mm_freed_at_free, 0);
	expect_eq(atomic_read(&allocs.watched_freed), 1);
	expect_all_dead();
	h.mm = NULL;
	host_destroy(&h);
}

/* What the first registration made for an mm goes with the mm, and nothing else does. */
TEST(mmu_notifier_fail, the_block_goes_with_the_mm)
{
	struct mm_struct *mm[2];
	struct recorder r;
	struct host h;
	int64_t live;

	host_init(&h);
	for (int i = 0; i < 2; i++) {
		live = atomic64_read(&allocs.live);
		mm[i] = mm_alloc(h.phys);
		expect(mm[i]);
		recorder_init(&r, 'r', NULL);
		if (i) {
			expect_eq(mmu_notifier_register(&r.mn, mm[i]), 0);
			mmu_notifier_unregister(&r.mn, mm[i]);
		}
		mmput(mm[i]);
		expect_eq(atomic64_read(&allocs.live), live);
	}
	host_destroy(&h);
}
