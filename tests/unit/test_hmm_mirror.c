/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirrors of 2019: who is told what, ranges, failed registrations, and exit in each order.
 * What two threads do to each other in the middle of it is in test_hmm_mirror_races.c.
 */
#include "tests/support/hmm_mirror_fixture.h"

TEST(hmm_mirror, told_until_unregister)
{
	struct mmu_notifier_range last;
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.last = &last;
	expect(h.mm->hmm);
	expect_eq(mm_zap_range(h.mm, HVA + PAGE_SIZE, 2 * PAGE_SIZE), 2);
	expect_watched(&w, 1, 0);
	expect_eq(last.start, HVA + PAGE_SIZE);
	expect_eq(last.end, HVA + 3 * PAGE_SIZE);
	expect_eq(last.event, MMU_NOTIFY_CLEAR);
	expect_eq(mm_migrate_range(h.mm, HVA, PAGE_SIZE), 1);
	expect_watched(&w, 2, 0);

	watcher_unregister(&w);
	expect(!h.mm->hmm);
	window(h.mm);
	expect_watched(&w, 2, 0);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* Also R-02: the first to leave takes nothing along. */
TEST(hmm_mirror, several_share_one)
{
	for (int first = 0; first < 3; first++) {
		struct watcher w[4];
		struct host h;

		host_init(&h);
		for (int i = 0; i < 3; i++)
			expect_eq(watcher_register(&w[i], h.mm), 0);
		window(h.mm);
		watcher_unregister(&w[first]);
		window(h.mm);
		expect_eq(watcher_register(&w[3], h.mm), 0);
		window(h.mm);
		for (int i = 0; i < 3; i++)
			expect_watched(&w[i], i == first ? 1 : 3, 0);
		expect_watched(&w[3], 1, 0);
		for (int i = 0; i < 4; i++) {
			expect(h.mm->hmm);
			if (i != first)
				watcher_unregister(&w[i]);
		}
		expect_eq(atomic_read(&hmms_made), first + 1);
		expect_no_hmm(&h);
		host_destroy(&h);
	}
}

TEST(hmm_mirror, comes_back)
{
	struct watcher w;
	struct host h;

	host_init(&h);
	for (int i = 1; i <= 3; i++) {
		expect_eq(watcher_register(&w, h.mm), 0);
		expect_eq(atomic_read(&hmms_made), i);
		window(h.mm);
		expect_watched(&w, 1, 0);
		watcher_unregister(&w);
	}
	expect_no_hmm(&h);
	host_destroy(&h);
}

TEST(hmm_mirror, only_its_own_mm)
{
	struct watcher w, v;
	struct host h, other;

	host_init(&h);
	host_init(&other);
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_eq(watcher_register(&v, other.mm), 0);
	expect_ne(h.mm->hmm, other.mm->hmm);
	window(h.mm);
	expect_watched(&w, 1, 0);
	expect_watched(&v, 0, 0);
	watcher_unregister(&w);
	watcher_unregister(&v);
	expect_no_hmm(&h);
	host_destroy(&h);
	host_destroy(&other);
}

TEST(hmm_mirror, register_fails)
{
	struct hmm_mirror no_ops = {0};
	struct watcher w;
	struct host h;

	host_init(&h);
	mmap_write_lock(h.mm);
	expect_eq(hmm_mirror_register(&no_ops, h.mm), -EINVAL);
	mmap_write_unlock(h.mm);
	for (int nr = 1; nr <= 2; nr++) {
		fail_register = nr;
		expect_eq(watcher_register(&w, h.mm), -EINTR);
		expect(!h.mm->hmm);
		expect_eq(atomic_read(&hmms_made), nr);
		window(h.mm);
		expect_watched(&w, 0, 0);
		expect_no_hmm(&h);
	}
	expect_eq(watcher_register(&w, h.mm), 0);
	window(h.mm);
	expect_watched(&w, 1, 0);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* ---- windows that may not block ---- */

TEST(hmm_mirror, refuses)
{
	struct mmu_notifier_range last;
	struct watcher w, v;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.last = &last;
	expect_eq(watcher_register(&v, h.mm), 0);
	expect_eq(window_nonblock(h.mm), 0);
	expect(!mmu_notifier_range_blockable(&last));
	expect_watched(&w, 1, 0);
	expect_watched(&v, 1, 0);

	v.refuse = true;
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_watched(&w, 1, 0);
	expect_watched(&v, 2, 0);
	expect_no_window(&w);
	v.refuse = false;
	w.refuse = true;
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_no_window(&w);
	w.refuse = false;
	expect_eq(window_nonblock(h.mm), 0);
	expect_no_window(&w);
	watcher_unregister(&w);
	watcher_unregister(&v);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* Somebody is changing the set of mirrors. */
TEST(hmm_mirror, refuses_rather_than_wait)
{
	struct watcher w;
	struct host h;
	struct hmm *hmm;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	hmm = h.mm->hmm;
	expect(__down_write_trylock(&hmm->mirrors_sem));
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	__up_write(&hmm->mirrors_sem);
	expect_no_window(&w);
	expect_watched(&w, 0, 0);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* Where it may sleep, it does. */
TEST(hmm_mirror, waits_where_it_may)
{
	struct caller in_window = {0};
	struct watcher w;
	struct host h;
	struct hmm *hmm;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	hmm = h.mm->hmm;
	expect(__down_write_trylock(&hmm->mirrors_sem));
	caller_start(&in_window, do_window, h.mm);
	until_others_sleep();
	expect_eq(atomic_read(&in_window.done), 0);
	expect_watched(&w, 0, 0);
	__up_write(&hmm->mirrors_sem);
	kthread_join(&in_window.thread);
	expect_watched(&w, 1, 0);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* ---- ranges ---- */

TEST(hmm_mirror, range_is_valid_between_windows)
{
	struct hmm_mirror_range a = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct hmm_mirror_range b = {.start = HVA + PAGE_SIZE, .end = HVA + LEN}, c = b;
	struct mmu_notifier_range update;
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_eq(hmm_range_register(&a, &w.mirror), 0);
	expect_eq(hmm_range_register(&b, &w.mirror), 0);
	expect(hmm_range_valid(&a) && hmm_range_valid(&b));

	open_window(&update, h.mm, HVA, HVA + PAGE_SIZE);
	expect(!hmm_range_valid(&a) && hmm_range_valid(&b));
	expect(hmm_range_wait_until_valid(&b, 0));
	expect(!hmm_range_wait_until_valid(&a, 1));
	/* It cannot know which windows are open. */
	expect_eq(hmm_range_register(&c, &w.mirror), 0);
	expect(!hmm_range_valid(&c));
	close_window(&update);

	expect(!hmm_range_valid(&a)); /* not before somebody asks: it was seen */
	expect(hmm_range_wait_until_valid(&a, 0) && hmm_range_wait_until_valid(&c, 0));
	expect(hmm_range_valid(&a) && hmm_range_valid(&c));
	hmm_range_unregister(&b);
	window(h.mm);
	expect(!hmm_range_valid(&a) && !hmm_range_valid(&c));
	hmm_range_unregister(&c);
	hmm_range_unregister(&a);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void expect_invalid(struct watcher *w)
{
	expect(!hmm_range_valid(w->arg));
}

/* Or a driver could set up the pages again behind the sync, and find its range valid. */
TEST(hmm_mirror, range_is_invalid_before_the_sync)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.on_sync = expect_invalid;
	w.arg = &range;
	expect_eq(hmm_range_register(&range, &w.mirror), 0);
	window(h.mm);
	expect_watched(&w, 1, 0);
	hmm_range_unregister(&range);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void wait_until_valid(void *arg)
{
	expect(hmm_range_wait_until_valid(arg, 1000000));
}

TEST(hmm_mirror, range_waits_for_the_end)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct mmu_notifier_range update;
	struct caller waiter = {0};
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_eq(hmm_range_register(&range, &w.mirror), 0);
	open_window(&update, h.mm, HVA, HVA + PAGE_SIZE);
	caller_start(&waiter, wait_until_valid, &range);
	while (!READ_ONCE(range.hmm->wq.waiters))
		sched_yield();
	expect_eq(atomic_read(&waiter.done), 0);
	close_window(&update);
	kthread_join(&waiter.thread);
	expect(hmm_range_valid(&range));
	/* The mirror may go before it. */
	watcher_unregister(&w);
	expect(h.mm->hmm);
	hmm_range_unregister(&range);
	expect_no_hmm(&h);
	host_destroy(&h);
}

TEST(hmm_mirror, bad_ranges)
{
	struct hmm_mirror_range empty = {.start = HVA, .end = HVA};
	struct hmm_mirror_range unaligned = {.start = HVA, .end = HVA + 1};
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_eq(hmm_range_register(&empty, &w.mirror), -EINVAL);
	expect_eq(hmm_range_register(&unaligned, &w.mirror), -EINVAL);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* ---- exit ---- */

static void expect_pages(struct watcher *w)
{
	for (uint64_t i = 0; i < PAGES; i++)
		expect_ne(mm_lookup_pfn(w->mm, HVA + (i << PAGE_SHIFT)), INVALID_PFN);
}

TEST(hmm_mirror, exit_before_unregister)
{
	struct hmm_mirror_range late = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct watcher w[3];
	struct host h;

	host_init(&h);
	for (int i = 0; i < 3; i++) {
		expect_eq(watcher_register(&w[i], h.mm), 0);
		w[i].on_release = expect_pages;
	}
	mmput(h.mm);
	expect_eq(phys_nr_free(h.phys), phys_nr_frames(h.phys));
	for (int i = 0; i < 3; i++) {
		expect_watched(&w[i], 0, 1);
		expect_eq(hmm_range_register(&late, &w[i].mirror), -EFAULT);
		watcher_unregister(&w[i]);
		expect_watched(&w[i], 0, 1);
	}
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

TEST(hmm_mirror, unregister_before_exit)
{
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	watcher_unregister(&w);
	mmput(h.mm);
	expect_watched(&w, 0, 0);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* Who leaves has nothing in those who stay, nor they in it. */
TEST(hmm_mirror, ranges_leave_in_each_order)
{
	static const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
					{1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
		struct hmm_mirror_range ranges[3], gone;
		struct watcher w;
		struct host h;

		host_init(&h);
		expect_eq(watcher_register(&w, h.mm), 0);
		memset(&gone, 0xee, sizeof(gone));
		for (int n = 0; n < 3; n++) {
			ranges[n] = (struct hmm_mirror_range){.start = HVA, .end = HVA + LEN};
			expect_eq(hmm_range_register(&ranges[n], &w.mirror), 0);
		}
		for (int n = 0; n < 3; n++) {
			hmm_range_unregister(&ranges[orders[i][n]]);
			ranges[orders[i][n]] = gone;
			window(h.mm);
			for (int k = 0; k <= n; k++)
				expect(!memcmp(&ranges[orders[i][k]], &gone, sizeof(gone)));
			for (int k = n + 1; k < 3; k++)
				expect(hmm_range_wait_until_valid(&ranges[orders[i][k]], 0));
		}
		expect(!w.mirror.hmm->ranges);
		watcher_unregister(&w);
		expect_no_hmm(&h);
		host_destroy(&h);
	}
}

TEST(hmm_mirror, release_is_optional)
{
	static const struct hmm_mirror_ops ops = {.sync_cpu_device_pagetables = watcher_sync};
	struct watcher w, other;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&other, h.mm), 0);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.mirror.ops = &ops;
	mmput(h.mm);
	expect_watched(&w, 0, 0);
	expect_watched(&other, 0, 1);
	watcher_unregister(&w);
	watcher_unregister(&other);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* By exit; then unregister has nothing to unlink, and touches nobody else's memory. */
TEST(hmm_mirror, unlinked_once)
{
	struct watcher first, last;
	struct hmm_mirror gone;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&first, h.mm), 0);
	expect_eq(watcher_register(&last, h.mm), 0);
	mmput(h.mm);
	expect_watched(&first, 0, 1);
	expect_watched(&last, 0, 1);
	watcher_unregister(&first);
	gone = first.mirror;
	expect(!last.mirror.hmm->mirrors);
	watcher_unregister(&last);
	expect(!memcmp(&first.mirror, &gone, sizeof(gone)));
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* A range is a user of the mm: the exit is in its unregister. */
TEST(hmm_mirror, exit_in_range_unregister)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_eq(hmm_range_register(&range, &w.mirror), 0);
	mmput(h.mm);
	expect_watched(&w, 0, 0);
	hmm_range_unregister(&range);
	expect_watched(&w, 0, 1);
	watcher_unregister(&w);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}
