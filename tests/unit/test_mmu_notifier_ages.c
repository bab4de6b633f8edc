/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is not a window: whom the questions after ages reach, and who flushes secondary TLBs.
 */
#include "notifier/subscriptions.h"
#include "notifier/sync/lock.h"
#include "tests/support/notifier_fixture.h"
#include "tests/support/srcu_probe.h"

/* Is asked for ages, and told to flush. */
struct elder {
	struct mmu_notifier mn;
	bool young;
	int flushes, clears, tests, tlbs;
	hva_t start, end;
	struct park *park; /* in clear_young */
	atomic_t running;
};

static void note(struct elder *e, struct mm_struct *mm, hva_t start, hva_t end)
{
	expect(mm == e->mn.mm);
	expect(srcu_read_lock_held(&mmu_notifier_srcu)); /* or nobody knows */
	e->start = start;
	e->end = end;
}

static bool elder_clear_flush(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	struct elder *e = container_of(mn, struct elder, mn);

	might_sleep();
	note(e, mm, start, end);
	e->flushes++;
	return e->young;
}

static bool elder_clear(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	struct elder *e = container_of(mn, struct elder, mn);

	might_sleep();
	note(e, mm, start, end);
	e->clears++;
	atomic_inc_return(&e->running);
	if (e->park)
		park_enter(e->park);
	atomic_dec_return(&e->running);
	return e->young;
}

static bool elder_test(struct mmu_notifier *mn, struct mm_struct *mm, hva_t address)
{
	struct elder *e = container_of(mn, struct elder, mn);

	might_sleep();
	note(e, mm, address, 0);
	e->tests++;
	return e->young;
}

static void elder_tlb(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	struct elder *e = container_of(mn, struct elder, mn);

	note(e, mm, start, end);
	e->tlbs++;
}

static const struct mmu_notifier_ops elder_ops = {
	.clear_flush_young = elder_clear_flush,
	.clear_young = elder_clear,
	.test_young = elder_test,
	.arch_invalidate_secondary_tlbs = elder_tlb,
};

static void elder_register(struct elder *e, struct mm_struct *mm)
{
	*e = (struct elder){.mn.ops = &elder_ops};
	expect_eq(mmu_notifier_register(&e->mn, mm), 0);
}

static void needs_lockdep(void)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
}

/* ---- ages ---- */

#define ELDERS 3

/* What each of the three calls is to answer, and whom it is to ask, for each set of the young. */
TEST(mmu_notifier_ages, young_is_who_any_calls_so)
{
	struct elder e[ELDERS];
	struct recorder deaf[2]; /* have none of these ops */
	struct host h;

	host_init(&h);
	for (int i = 0; i < ELDERS; i++) {
		elder_register(&e[i], h.mm);
		if (i < 2) {
			recorder_init(&deaf[i], 'd', NULL);
			expect_eq(mmu_notifier_register(&deaf[i].mn, h.mm), 0);
		}
	}
	for (unsigned int young = 0; young < 1u << ELDERS; young++) {
		bool seen = false;

		for (int i = 0; i < ELDERS; i++) {
			e[i].young = young >> i & 1;
			e[i].flushes = e[i].clears = e[i].tests = 0;
		}
		expect_eq(mmu_notifier_clear_flush_young(h.mm, HVA, HVA + LEN), young != 0);
		for (int i = 0; i < ELDERS; i++) {
			expect_eq(e[i].flushes, 1);
			expect_eq(e[i].clears + e[i].tests, 0);
			expect_eq(e[i].start, HVA);
			expect_eq(e[i].end, HVA + LEN);
		}
		expect_eq(mmu_notifier_clear_young(h.mm, HVA + PAGE_SIZE, HVA + 3 * PAGE_SIZE),
			  young != 0);
		for (int i = 0; i < ELDERS; i++) {
			expect_eq(e[i].clears, 1);
			expect_eq(e[i].flushes + e[i].tests, 1);
			expect_eq(e[i].start, HVA + PAGE_SIZE);
			expect_eq(e[i].end, HVA + 3 * PAGE_SIZE);
		}
		/* From the newest on, to the first that says yes. */
		expect_eq(mmu_notifier_test_young(h.mm, HVA + 5 * PAGE_SIZE), young != 0);
		for (int i = ELDERS - 1; i >= 0; i--) {
			expect_eq(e[i].tests, !seen);
			if (!seen)
				expect_eq(e[i].start, HVA + 5 * PAGE_SIZE);
			seen |= e[i].young;
		}
		for (int i = 0; i < ELDERS; i++)
			expect_eq(e[i].flushes + e[i].clears + e[i].tlbs, 2);
	}
	for (int i = 0; i < ELDERS; i++)
		mmu_notifier_unregister(&e[i].mn, h.mm);
	expect_counts(&deaf[0], 0, 0, 0);
	mmu_notifier_unregister(&deaf[0].mn, h.mm);
	mmu_notifier_unregister(&deaf[1].mn, h.mm);
	host_destroy(&h);
}

TEST(mmu_notifier_ages, nobody_is_asked)
{
	struct elder e;
	struct host h, other;

	host_init(&h);
	host_init(&other);
	for (int i = 0; i < 2; i++) {
		expect(!mmu_notifier_clear_flush_young(h.mm, HVA, HVA + LEN));
		expect(!mmu_notifier_clear_young(h.mm, HVA, HVA + LEN));
		expect(!mmu_notifier_test_young(h.mm, HVA));
		mmu_notifier_arch_invalidate_secondary_tlbs(h.mm, HVA, HVA + LEN);
		/* Now with somebody who listens elsewhere; then with one who has been here. */
		elder_register(&e, i ? h.mm : other.mm);
		e.young = true;
		if (i)
			mmu_notifier_unregister(&e.mn, h.mm);
		expect(!mmu_notifier_clear_young(h.mm, HVA, HVA + LEN));
		expect(!mmu_notifier_test_young(h.mm, HVA));
		mmu_notifier_arch_invalidate_secondary_tlbs(h.mm, HVA, HVA + LEN);
		expect_eq(e.flushes + e.clears + e.tests + e.tlbs, 0);
		if (!i)
			mmu_notifier_unregister(&e.mn, other.mm);
	}
	host_destroy(&other);
	host_destroy(&h);
}

struct ager {
	struct host *h;
	struct elder *e;
	bool young;
	int running; /* when unregister returned */
	atomic_t done;
};

static void run_clear_young(void *arg)
{
	struct ager *a = arg;

	a->young = mmu_notifier_clear_young(a->h->mm, HVA, HVA + LEN);
}

static void run_unregister_elder(void *arg)
{
	struct ager *a = arg;

	mmu_notifier_unregister(&a->e->mn, a->h->mm);
	a->running = atomic_read(&a->e->running);
	atomic_set_release(&a->done, 1);
}

/* I4, for these callbacks: whoever unregisters waits for them. */
TEST(mmu_notifier_ages, unregister_waits_for_an_age)
{
	struct kthread ask_thread, leave_thread;
	struct ager asker, leaver;
	struct park park;
	struct elder e;
	struct host h;

	host_init(&h);
	park_init(&park);
	elder_register(&e, h.mm);
	e.park = &park;
	e.young = true;
	asker = leaver = (struct ager){.h = &h, .e = &e};
	expect_eq(kthread_run(&ask_thread, "ask", run_clear_young, &asker), 0);
	park_wait(&park, 1);
	expect_eq(kthread_run(&leave_thread, "leave", run_unregister_elder, &leaver), 0);
	while (!grace_period_is_blocked(&mmu_notifier_srcu) && !atomic_read_acquire(&leaver.done))
		sched_yield();
	expect_eq(atomic_read(&leaver.done), 0);
	park_release(&park);
	kthread_join(&leave_thread);
	expect_eq(leaver.running, 0);
	kthread_join(&ask_thread);
	expect(asker.young);
	host_destroy(&h);
}

static DEFINE_SPINLOCK(page_table_lock);

static void clear_flush_under_lock(void *arg)
{
	struct host *h = arg;

	spin_lock(&page_table_lock);
	mmu_notifier_clear_flush_young(h->mm, HVA, HVA + LEN);
}

static void clear_under_lock(void *arg)
{
	struct host *h = arg;

	spin_lock(&page_table_lock);
	mmu_notifier_clear_young(h->mm, HVA, HVA + LEN);
}

static void test_under_lock(void *arg)
{
	struct host *h = arg;

	spin_lock(&page_table_lock);
	mmu_notifier_test_young(h->mm, HVA);
}

/* Said before there is anybody who would. */
TEST(mmu_notifier_ages, ages_may_sleep)
{
	struct host h;

	needs_lockdep();
	host_init(&h);
	expect_bug(clear_flush_under_lock, &h, "may sleep");
	expect_bug(clear_under_lock, &h, "may sleep");
	expect_bug(test_under_lock, &h, "may sleep");
	host_destroy(&h);
}

/* ---- TLBs ---- */

TEST(mmu_notifier_ages, tlbs_are_flushed_under_a_spinlock)
{
	static DEFINE_SPINLOCK(lock);
	struct elder e[2];
	struct recorder r;
	struct host h;

	host_init(&h);
	elder_register(&e[0], h.mm);
	recorder_init(&r, 'r', NULL);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	elder_register(&e[1], h.mm);
	spin_lock(&lock);
	mmu_notifier_arch_invalidate_secondary_tlbs(h.mm, HVA + PAGE_SIZE, HVA + 4 * PAGE_SIZE);
	spin_unlock(&lock);
	might_sleep(); /* again */
	for (int i = 0; i < 2; i++) {
		expect_eq(e[i].tlbs, 1);
		expect_eq(e[i].start, HVA + PAGE_SIZE);
		expect_eq(e[i].end, HVA + 4 * PAGE_SIZE);
	}
	/* Windows are for the others. */
	window(h.mm);
	expect_counts(&r, 1, 1, 0);
	for (int i = 0; i < 2; i++) {
		expect_eq(e[i].tlbs, 1);
		mmu_notifier_unregister(&e[i].mn, h.mm);
	}
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

static void sleeping_tlb(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mn, (void)mm, (void)start, (void)end;
	might_sleep();
}

static const struct mmu_notifier_ops sleeping_tlb_ops = {
	.arch_invalidate_secondary_tlbs = sleeping_tlb,
};

static void flush(void *arg)
{
	struct host *h = arg;

	mmu_notifier_arch_invalidate_secondary_tlbs(h->mm, HVA, HVA + LEN);
}

/* Whatever the caller holds, or does not: it would sleep one day with a spinlock held. */
TEST(mmu_notifier_ages, tlbs_never_sleep)
{
	struct mmu_notifier mn = {.ops = &sleeping_tlb_ops};
	struct host h;

	needs_lockdep();
	host_init(&h);
	expect_eq(mmu_notifier_register(&mn, h.mm), 0);
	expect_bug(flush, &h, "may sleep, but this thread must not");
	mmu_notifier_unregister(&mn, h.mm);
	host_destroy(&h);
}
