/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirrors of 2019, misused: what is reported, and how it goes on where it does.
 */
#include "tests/support/hmm_mirror_fixture.h"

static void register_without_lock(void *arg)
{
	struct host *h = arg;
	struct hmm_mirror mirror = {.ops = &watcher_ops};

	(void)!hmm_mirror_register(&mirror, h->mm);
}

static void find_without_lock(void *arg)
{
	struct host *h = arg;

	(void)!hmm_get_or_create(h->mm);
}

TEST(hmm_mirror_misuse, register_wants_mmap_lock)
{
	struct watcher w;
	struct host h;

#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	host_init(&h);
	expect_bug(register_without_lock, &h, "hmm_mirror_register(): ");
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_bug(find_without_lock, &h, "hmm_get_or_create(): ");
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void register_after_exit(void *arg)
{
	struct watcher first, late;
	struct host *h = arg;

	expect_eq(watcher_register(&first, h->mm), 0);
	mmput(h->mm);
	(void)!watcher_register(&late, h->mm); /* there is an hmm to be found */
}

TEST(hmm_mirror_misuse, register_needs_mm_users)
{
	struct host h;

	host_init(&h);
	expect_bug(register_after_exit, &h, "hmm_mirror_register(): the caller pins mm_users");
	host_destroy(&h);
}

static struct watcher of[2]; /* of two mms */

static void unregister_it(struct watcher *w)
{
	watcher_unregister(w);
}

static void unregister_in_a_callback(void *arg)
{
	(void)arg;
	of[0].on_sync = unregister_it;
	window(of[0].mm);
}

/* Those of one hmm are those of all; and a callback has one. */
TEST(hmm_mirror_misuse, locks_have_classes)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#else
	struct host h[2];
	struct hmm *hmm[2];

	for (int i = 0; i < 2; i++) {
		host_init(&h[i]);
		expect_eq(watcher_register(&of[i], h[i].mm), 0);
		hmm[i] = of[i].mirror.hmm;
		expect(hmm[i]->mirrors_sem.dep.key && hmm[i]->ranges_lock.dep.key);
	}
	expect(hmm[0]->mirrors_sem.dep.key == hmm[1]->mirrors_sem.dep.key);
	expect(hmm[0]->ranges_lock.dep.key == hmm[1]->ranges_lock.dep.key);
	expect_bug(unregister_in_a_callback, NULL, "BUG: hmm->mirrors_sem (rwsem for writing 0x");
	for (int i = 0; i < 2; i++)
		watcher_unregister(&of[i]);
	for (int i = 0; i < 2; i++) {
		expect_no_hmm(&h[i]);
		host_destroy(&h[i]);
	}
#endif
}

static DEFINE_MUTEX(drivers_mutex);
static DEFINE_SPINLOCK(drivers_spinlock);
static struct hmm_mirror_range waited_for = {.start = HVA, .end = HVA + PAGE_SIZE};

static void lock_drivers_mutex(struct watcher *w)
{
	(void)w;
	mutex_lock(&drivers_mutex);
	mutex_unlock(&drivers_mutex);
}

static void wait_under_the_drivers_mutex(void *arg)
{
	(void)arg;
	mutex_lock(&drivers_mutex);
	hmm_range_wait_until_valid(&waited_for, 1);
}

static void unregister_under_a_spinlock(void *arg)
{
	spin_lock(&drivers_spinlock);
	watcher_unregister(arg);
}

/* Both are told the first time, though there is nothing to wait for. */
TEST(hmm_mirror_misuse, waiting_where_one_must_not)
{
	struct watcher w;
	struct host h;

#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.on_sync = lock_drivers_mutex;
	window(h.mm);
	expect_eq(hmm_range_register(&waited_for, &w.mirror), 0);
	expect_bug(wait_under_the_drivers_mutex, NULL,
		   "takes mmu_notifier_invalidate_range_start (region)");
	expect_bug(unregister_under_a_spinlock, &w, "in hmm_mirror_unregister()");
	hmm_range_unregister(&waited_for);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* A refusal that is none is a warning: the window is open, and the others are told. */
TEST(hmm_mirror_misuse, refuses_what_may_block)
{
	struct watcher told, refuses;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&told, h.mm), 0);
	expect_eq(watcher_register(&refuses, h.mm), 0);
	refuses.refuse = true;
	window(h.mm);
	expect_eq(atomic_read(&warnings), 1);
	expect_watched(&refuses, 1, 0);
	expect_watched(&told, 1, 0);
	expect_no_window(&told);
	atomic_set(&warnings, 0);
	watcher_unregister(&told);
	watcher_unregister(&refuses);
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void end_without_start(void *arg)
{
	struct mmu_notifier_range update;
	struct host *h = arg;

	mmu_notifier_range_init(&update, MMU_NOTIFY_CLEAR, 0, h->mm, HVA, HVA + LEN);
	mmap_read_lock(h->mm);
	mmu_notifier_invalidate_range_end(&update);
	mmap_read_unlock(h->mm);
}

TEST(hmm_mirror_misuse, end_without_a_start)
{
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	expect_bug(end_without_start, &h, "each end had a start");
	window(h.mm);
	expect_no_window(&w);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* It cannot be, as a range is a user of the mm. */
TEST(hmm_mirror_misuse, exit_with_a_range)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.mirror.hmm->ranges = &range;
	mmput(h.mm);
	expect_eq(atomic_read(&warnings), 1);
	atomic_set(&warnings, 0);
	w.mirror.hmm->ranges = NULL;
	watcher_unregister(&w);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}
