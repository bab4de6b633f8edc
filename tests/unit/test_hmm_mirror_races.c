/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of a struct hmm while others are in it: create against destroy, as it is and as it was
 * before; callbacks against the last put; ->release against windows and unregister.
 */
#include "tests/support/hmm_mirror_fixture.h"

#include "tests/history/hmm_get_or_create.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/relax.h"

/* ---- create against destroy ---- */

/* The last put of an hmm, between its kref and its look at mm->hmm. */
static void start_last_put(struct caller *c, struct watcher *w, struct host *h)
{
	host_init(h);
	park_init(&park);
	expect_eq(watcher_register(w, h->mm), 0);
	*c = (struct caller){.park_before_lock = &h->mm->page_table_lock};
	caller_start(c, do_unregister, w);
	park_wait(&park, 1);
	expect(h->mm->hmm);
	expect_eq(kref_read(&h->mm->hmm->kref), 0);
}

TEST(hmm_mirror_races, create_meets_last_put)
{
	struct mmu_notifier_range update;
	struct watcher goes, comes;
	struct caller last_put;
	struct hmm *old;
	struct host h;

	start_last_put(&last_put, &goes, &h);
	old = h.mm->hmm;
	expect_eq(watcher_register(&comes, h.mm), 0);
	expect_ne(h.mm->hmm, old);
	/* The notifiers of both are called, each for its own: not two for one. */
	window(h.mm);
	expect_watched(&goes, 0, 0);
	expect_watched(&comes, 1, 0);
	expect_no_window(&comes);

	open_window(&update, h.mm, HVA, HVA + LEN);
	park_release(&park);
	kthread_join(&last_put.thread);
	close_window(&update);
	expect_no_window(&comes);
	expect_eq(h.mm->hmm, comes.mirror.hmm); /* not that of the one that went */
	window(h.mm);
	expect_watched(&comes, 3, 0);
	watcher_unregister(&comes);
	expect_eq(atomic_read(&hmms_made), 2);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* The same with what was there before: there is memory, and nobody else creates, and it fails. */
TEST(hmm_mirror_races, old_create_fails_falsely)
{
	struct caller last_put;
	struct watcher goes;
	struct hmm *hmm;
	struct host h;

	start_last_put(&last_put, &goes, &h);
	mmap_write_lock(h.mm);
	expect(!old_hmm_get_or_create(h.mm));
	expect(!old_hmm_get_or_create(h.mm)); /* and again, for as long as the put takes */
	mmap_write_unlock(h.mm);
	park_release(&park);
	kthread_join(&last_put.thread);

	/* Where it meets nobody, it works. */
	mmap_write_lock(h.mm);
	hmm = old_hmm_get_or_create(h.mm);
	expect(hmm && hmm == h.mm->hmm);
	expect_eq(old_hmm_get_or_create(h.mm), hmm);
	mmap_write_unlock(h.mm);
	hmm_put(hmm);
	hmm_put(hmm);
	fail_register = 2;
	mmap_write_lock(h.mm);
	expect(!old_hmm_get_or_create(h.mm));
	mmap_write_unlock(h.mm);
	expect(!h.mm->hmm);
	expect_no_hmm(&h);
	host_destroy(&h);
}

struct newcomer {
	struct watcher w;
	struct mm_struct *mm;
};

static void do_register(void *arg)
{
	struct newcomer *n = arg;

	expect_eq(watcher_register(&n->w, n->mm), 0);
}

/*
 * The last put looks at mm->hmm, which is its own, and clears it: what is stored in between would
 * be lost. We hold the lock for it.
 */
TEST(hmm_mirror_races, stored_under_the_lock)
{
	struct caller creator = {.locks_to_skip = 1}; /* that is its look for one */
	struct newcomer n;
	struct host h;

	host_init(&h);
	park_init(&park);
	n.mm = h.mm;
	creator.park_before_lock = &h.mm->page_table_lock;
	caller_start(&creator, do_register, &n);
	while (!atomic_read_acquire(&park.arrived) && !atomic_read_acquire(&creator.done))
		sched_yield();
	expect_eq(atomic_read(&creator.done), 0);
	spin_lock(&h.mm->page_table_lock);
	park_release(&park);
	until_others_sleep();
	expect(!READ_ONCE(h.mm->hmm));
	spin_unlock(&h.mm->page_table_lock);
	kthread_join(&creator.thread);
	expect(h.mm->hmm && h.mm->hmm == n.w.mirror.hmm);
	watcher_unregister(&n.w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* ---- callbacks against the last put ---- */

/* it has found the notifier, and has not taken its reference, when the hmm goes. */
TEST(hmm_mirror_races, callback_meets_last_put)
{
	struct caller in_window = {.park_before_get = true}, waiter = {0};
	struct watcher w;
	struct host h;

	host_init(&h);
	park_init(&park);
	expect_eq(watcher_register(&w, h.mm), 0);
	caller_start(&in_window, do_window, h.mm);
	park_wait(&park, 1);
	watcher_unregister(&w); /* waits for nobody */
	expect(!h.mm->hmm);
	caller_start(&waiter, do_synchronize, NULL);
	until_others_sleep();
	expect_eq(atomic_read(&hmms_freed), 0);
	expect_eq(atomic_read(&waiter.done), 0);

	park_release(&park);
	kthread_join(&in_window.thread);
	kthread_join(&waiter.thread);
	expect_watched(&w, 0, 0);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* It has its reference: then its put is the last, in the callback. */
TEST(hmm_mirror_races, last_put_in_a_callback)
{
	struct caller in_window = {0};
	struct watcher w;
	struct host h;

	host_init(&h);
	park_init(&park);
	expect_eq(watcher_register(&w, h.mm), 0);
	in_window.park_before_lock = &h.mm->hmm->ranges_lock;
	caller_start(&in_window, do_window, h.mm);
	park_wait(&park, 1);
	watcher_unregister(&w);
	expect(h.mm->hmm);
	park_release(&park);
	kthread_join(&in_window.thread);
	expect(!h.mm->hmm);
	expect_watched(&w, 0, 0);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* What has no reference left is nothing to release. */
TEST(hmm_mirror_races, exit_meets_last_put)
{
	struct caller last_put;
	struct watcher w;
	struct host h;

	start_last_put(&last_put, &w, &h);
	mmput(h.mm);
	expect_eq(phys_nr_free(h.phys), phys_nr_frames(h.phys));
	park_release(&park);
	kthread_join(&last_put.thread);
	expect_watched(&w, 0, 0);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

TEST(hmm_mirror_races, unregister_waits_for_a_sync)
{
	struct caller in_window = {0}, leaver = {0};
	struct watcher w;
	struct host h;

	host_init(&h);
	park_init(&park);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.sync_park = &park;
	caller_start(&in_window, do_window, h.mm);
	park_wait(&park, 1);
	caller_start(&leaver, do_unregister, &w);
	until_others_sleep();
	expect_eq(atomic_read(&leaver.done), 0);
	park_release(&park);
	kthread_join(&leaver.thread);
	kthread_join(&in_window.thread);
	expect_watched(&w, 1, 0);
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void do_range_unregister(void *arg)
{
	hmm_range_unregister(arg);
}

/* A window looks at the ranges: none leaves under it. We hold the lock for it. */
TEST(hmm_mirror_races, range_leaves_under_the_lock)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct caller leaver = {0};
	struct watcher w;
	struct host h;
	struct hmm *hmm;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	hmm = w.mirror.hmm;
	expect_eq(hmm_range_register(&range, &w.mirror), 0);
	spin_lock(&hmm->ranges_lock);
	caller_start(&leaver, do_range_unregister, &range);
	until_others_sleep();
	expect(READ_ONCE(hmm->ranges) == &range);
	expect_eq(atomic_read(&leaver.done), 0);
	spin_unlock(&hmm->ranges_lock);
	kthread_join(&leaver.thread);
	expect(!hmm->ranges);
	expect(!range.hmm);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void do_range_register(void *arg)
{
	struct caller *c = arg;

	expect_eq(hmm_range_register(c->range, c->mirror), 0);
}

/* Nor does one join: it would be valid, in a window that has just looked. */
TEST(hmm_mirror_races, range_joins_under_the_lock)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + PAGE_SIZE};
	struct caller joiner = {0};
	struct watcher w;
	struct host h;
	struct hmm *hmm;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	hmm = w.mirror.hmm;
	joiner.range = &range;
	joiner.mirror = &w.mirror;
	spin_lock(&hmm->ranges_lock);
	caller_start(&joiner, do_range_register, &joiner);
	until_others_sleep();
	expect(!READ_ONCE(hmm->ranges));
	expect_eq(atomic_read(&joiner.done), 0);
	spin_unlock(&hmm->ranges_lock);
	kthread_join(&joiner.thread);
	expect(hmm->ranges == &range);
	hmm_range_unregister(&range);
	watcher_unregister(&w);
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* ---- exit ---- */

static void enter_park(struct watcher *w)
{
	(void)w;
	park_enter(&park);
}

/* Both at once: unregister comes while ->release runs. */
TEST(hmm_mirror_races, unregister_meets_release)
{
	struct caller exiter = {0}, leaver = {0};
	struct watcher w, other;
	struct host h;

	host_init(&h);
	park_init(&park);
	expect_eq(watcher_register(&other, h.mm), 0);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.on_release = enter_park;
	caller_start(&exiter, do_mmput, h.mm);
	park_wait(&park, 1);
	caller_start(&leaver, do_unregister, &w);
	until_others_sleep();
	expect_eq(atomic_read(&leaver.done), 0);
	/* Who is not in ->release may go. */
	watcher_unregister(&other);
	expect_eq(atomic_read(&exiter.done), 0);

	park_release(&park);
	kthread_join(&leaver.thread);
	kthread_join(&exiter.thread);
	expect_watched(&w, 0, 1);
	expect_watched(&other, 0, 0);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

static void do_migrate(void *arg)
{
	struct watcher *w = arg;

	expect_eq(migrate_frame(mm_phys(w->mm), mm_lookup_pfn(w->mm, HVA)), 0);
}

/* By the reverse map, as mm_users is 0: ->release waits for what opens a window. */
static void migrate_meanwhile(struct watcher *w)
{
	struct caller mover = {0};

	caller_start(&mover, do_migrate, w);
	kthread_join(&mover.thread);
}

/* H-04; and the device is told, as it is not through with its pages. */
TEST(hmm_mirror_races, release_waits_for_a_window)
{
	struct watcher w;
	struct host h;

	host_init(&h);
	expect_eq(watcher_register(&w, h.mm), 0);
	w.on_release = migrate_meanwhile;
	mmput(h.mm);
	expect_watched(&w, 1, 1);
	watcher_unregister(&w);
	h.mm = NULL;
	expect_no_hmm(&h);
	host_destroy(&h);
}

/* ---- everything at once ---- */

struct crowd {
	struct host h;
	int rounds;
	atomic_t left;
	atomic64_t arrivals, syncs;
};

static void come_and_go(struct crowd *crowd, bool use_range)
{
	struct hmm_mirror_range range = {.start = HVA, .end = HVA + LEN};
	struct watcher w;

	expect_eq(watcher_register(&w, crowd->h.mm), 0);
	if (use_range) {
		expect_eq(hmm_range_register(&range, &w.mirror), 0);
		expect(hmm_range_wait_until_valid(&range, 1000000));
		hmm_range_unregister(&range);
	}
	hmm_mirror_unregister(&w.mirror);
	atomic64_add(atomic_read(&w.syncs), &crowd->syncs);
}

/* Each round begins with no mirror, so it makes an hmm, or two. */
static void come_and_go_together(struct crowd *crowd)
{
	for (int i = 1; i <= crowd->rounds; i++) {
		meet(&crowd->arrivals, i, 2);
		come_and_go(crowd, i % 4 == 0);
	}
	while (atomic64_read(&crowd->syncs) < 10)
		come_and_go(crowd, false);
	atomic_dec(&crowd->left);
}

static void move_pages(void *arg)
{
	struct crowd *crowd = arg;

	while (atomic_read(&crowd->left)) {
		expect_ge(mm_migrate_range(crowd->h.mm, HVA, LEN), 0);
		sched_yield();
	}
}

static void crowd_member(void *arg)
{
	struct crowd *crowd = arg;
	static atomic_t nr;

	if (atomic_inc_return(&nr) <= 2)
		come_and_go_together(crowd);
	else
		move_pages(crowd);
}

TEST(hmm_mirror_races, comings_and_goings)
{
	static struct crowd crowd;

	host_init(&crowd.h);
	crowd.rounds = (int)test_volume(500);
	atomic_set(&crowd.left, 2);
	expect_eq(srcu_workers_start(), 0);
	test_threads(4, crowd_member, &crowd);
	srcu_workers_stop();
	expect_ge(atomic_read(&hmms_made), crowd.rounds);
	expect_ge(atomic64_read(&crowd.syncs), 10);
	expect_no_hmm(&crowd.h);
	host_destroy(&crowd.h);
}
