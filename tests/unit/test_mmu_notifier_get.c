/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notifiers that are shared: how get finds them, how put counts, and when free_notifier comes. What
 * synchronize promises is in test_mmu_notifier_synchronize.c, get that runs out of memory in
 * test_mmu_notifier_fail.c.
 *
 * No worker runs but where a test starts one: so what is queued stays so until somebody waits.
 */
#include <limits.h>

#include <gnomon/signal.h>

#include "tests/support/got_notifier.h"
#include "tests/support/hear.h"

/* R-02 as well: the first who leaves takes nothing from the second. */
TEST(mmu_notifier_get, found_and_counted)
{
	struct got *got;
	struct host h;

	host_init(&h);
	got = got_get(0, h.mm);
	expect_lives(1, 0);
	expect_eq(got->mn.users, 1);
	expect(got_get(0, h.mm) == got);
	expect_lives(1, 0);
	expect_eq(got->mn.users, 2);
	expect_eq(mm_count_of(h.mm), 2);
	window(h.mm);
	expect_eq(atomic_read(&got->starts), 1);

	mmu_notifier_put(&got->mn);
	expect_eq(got->mn.users, 1);
	window(h.mm);
	expect_eq(atomic_read(&got->starts), 2);
	expect_eq(atomic_read(&got->ends), 2);
	expect(got_get(0, h.mm) == got);
	mmu_notifier_put(&got->mn);

	mmu_notifier_put(&got->mn);
	window(h.mm);
	expect_eq(atomic_read(&got->starts), 2);
	expect_eq(atomic_read(&got->releases), 0); /* that is for exit alone */
	expect_all_dead();
	expect_lives(1, 1);
	host_destroy(&h);
}

TEST(mmu_notifier_get, one_for_each_ops_and_mm)
{
	struct got *got[2][2];
	struct host h[2];

	for (int i = 0; i < 2; i++) {
		host_init(&h[i]);
		for (unsigned int driver = 0; driver < 2; driver++)
			got[i][driver] = got_get(driver, h[i].mm);
	}
	expect_lives(4, 0);
	for (int i = 0; i < 2; i++)
		for (unsigned int driver = 0; driver < 2; driver++)
			expect(got_get(driver, h[i].mm) == got[i][driver]);
	expect_lives(4, 0);

	mmu_notifier_put(&got[0][0]->mn);
	mmu_notifier_put(&got[0][0]->mn);
	window(h[0].mm);
	window(h[1].mm);
	expect_eq(atomic_read(&got[0][0]->starts), 0);
	expect_eq(atomic_read(&got[0][1]->starts), 1);
	expect_eq(atomic_read(&got[1][0]->starts), 1);
	expect_eq(atomic_read(&got[1][1]->starts), 1);
	for (int i = 1; i < 4; i++) {
		mmu_notifier_put(&got[i / 2][i % 2]->mn);
		mmu_notifier_put(&got[i / 2][i % 2]->mn);
	}
	expect_all_dead();
	host_destroy(&h[0]);
	host_destroy(&h[1]);
}

TEST(mmu_notifier_get, with_mmap_lock_held)
{
	struct mmu_notifier *mn;
	struct host h;

	host_init(&h);
	mmap_write_lock(h.mm);
	mn = mmu_notifier_get_locked(&got_ops[0], h.mm);
	expect(!IS_ERR(mn));
	expect(mmu_notifier_get_locked(&got_ops[0], h.mm) == mn);
	mmap_write_unlock(h.mm);
	window(h.mm);
	expect_eq(atomic_read(&to_got(mn)->starts), 1);
	/* Needs no lock, and minds none. */
	mmap_write_lock(h.mm);
	mmu_notifier_put(mn);
	mmu_notifier_put(mn);
	mmap_write_unlock(h.mm);
	expect_all_dead();
	host_destroy(&h);
}

TEST(mmu_notifier_get, error_of_alloc_notifier)
{
	struct mmu_notifier *mn;
	struct host h;

	host_init(&h);
	gots.alloc_error = -ENOSPC;
	mn = mmu_notifier_get(&got_ops[0], h.mm);
	expect(IS_ERR(mn));
	expect_eq(PTR_ERR(mn), -ENOSPC);
	expect_lives(0, 0);
	expect(!mm_has_notifiers(h.mm));
	expect_eq(mm_count_of(h.mm), 1);

	/* It is asked only when there is none. */
	gots.alloc_error = 0;
	mn = &got_get(0, h.mm)->mn;
	gots.alloc_error = -ENOSPC;
	expect(&got_get(0, h.mm)->mn == mn);
	mmu_notifier_put(mn);
	mmu_notifier_put(mn);
	expect_all_dead();
	host_destroy(&h);
}

TEST(mmu_notifier_get, too_many_users)
{
	struct mmu_notifier *mn;
	struct got *got;
	struct host h;

	host_init(&h);
	got = got_get(0, h.mm);
	got->mn.users = UINT_MAX - 1;
	expect(got_get(0, h.mm) == got);
	expect_eq(got->mn.users, UINT_MAX);
	mn = mmu_notifier_get(&got_ops[0], h.mm);
	expect(IS_ERR(mn));
	expect_eq(PTR_ERR(mn), -EOVERFLOW);
	expect_eq(got->mn.users, UINT_MAX);
	expect_lives(1, 0);

	/* As before when one of them leaves. */
	mmu_notifier_put(&got->mn);
	expect(got_get(0, h.mm) == got);
	got->mn.users = 1;
	mmu_notifier_put(&got->mn);
	expect_all_dead();
	host_destroy(&h);
}

/*
 * Detached at once; freed only when callbacks that were running have returned. got_free() expects
 * that none runs.
 */
TEST(mmu_notifier_get, freed_behind_a_callback)
{
	struct kthread open_thread;
	struct thread_arg opener;
	struct park park;
	struct got *got;
	struct host h;

	host_init(&h);
	park_init(&park);
	gots.start_park = &park;
	got = got_get(0, h.mm);
	opener = (struct thread_arg){.h = &h};
	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);

	mmu_notifier_put(&got->mn);
	window(h.mm); /* does not stay in the park: nobody is called */
	expect_eq(atomic_read(&got->starts), 1);
	expect_eq(srcu_workers_start(), 0);
	wait_for_blocked_grace_period(&mmu_notifier_srcu);
	expect_lives(1, 0);

	park_release(&park);
	kthread_join(&open_thread);
	/* Nobody waits for it but us. */
	while (!atomic_read_acquire(&gots.frees))
		sched_yield();
	srcu_workers_stop();
	expect_all_dead();
	expect_lives(1, 1);
	host_destroy(&h);
}

static void put_it(struct got *got)
{
	mmu_notifier_put(&got->mn);
}

/* By exit, with one user and with two. */
TEST(mmu_notifier_get, put_by_release)
{
	for (int users = 1; users <= 2; users++) {
		struct got *got;
		struct host h;

		host_init(&h);
		gots.on_release = put_it;
		got = got_get(0, h.mm);
		if (users == 2)
			expect(got_get(0, h.mm) == got);
		expect_lives(users, users - 1);
		mmput(h.mm);
		expect_eq(atomic_read(&got->releases), 1);
		mmu_notifier_synchronize();
		expect_lives(users, 1);
		if (users == 2) {
			expect_eq(got->mn.users, 1);
			mmu_notifier_put(&got->mn);
			mmu_notifier_synchronize();
			expect_lives(2, 2);
		}
		h.mm = NULL;
		host_destroy(&h);
	}
	expect_all_dead();
}

/* Of two in the list each puts itself, while exit walks over them. */
TEST(mmu_notifier_get, all_put_by_release)
{
	struct got *got[2];
	struct host h;

	host_init(&h);
	gots.on_release = put_it;
	for (unsigned int driver = 0; driver < 2; driver++)
		got[driver] = got_get(driver, h.mm);
	mmput(h.mm);
	expect_eq(atomic_read(&got[0]->releases), 1);
	expect_eq(atomic_read(&got[1]->releases), 1);
	expect_all_dead();
	expect_lives(2, 2);
	h.mm = NULL;
	host_destroy(&h);
}

static struct park release_park;

static void stay_in_release(struct got *got)
{
	if (got->mn.ops == &got_ops[1])
		park_enter(&release_park);
}

/*
 * R-05, with put: exit stands on the node that is put, unlinked and queued under it. It is freed
 * when exit has left it, and exit goes on to the one behind it.
 */
TEST(mmu_notifier_get, put_meets_exit_in_release)
{
	struct kthread exit_thread;
	struct thread_arg exiter;
	struct got *first, *behind;
	struct host h;

	host_init(&h);
	park_init(&release_park);
	gots.on_release = stay_in_release;
	behind = got_get(0, h.mm);
	first = got_get(1, h.mm);
	exiter = (struct thread_arg){.h = &h};
	expect_eq(kthread_run(&exit_thread, "exit", run_exit, &exiter), 0);
	park_wait(&release_park, 1);

	mmu_notifier_put(&first->mn);
	expect_eq(srcu_workers_start(), 0);
	while (!grace_period_is_blocked(&mmu_notifier_srcu) && !atomic_read_acquire(&gots.frees))
		sched_yield();
	expect_lives(2, 0);
	expect_eq(atomic_read(&behind->releases), 0);
	park_release(&release_park);
	kthread_join(&exit_thread);
	expect_eq(atomic_read(&first->releases), 1);
	expect_eq(atomic_read(&behind->releases), 1);
	mmu_notifier_put(&behind->mn);
	srcu_workers_stop();
	expect_all_dead();
	h.mm = NULL;
	host_destroy(&h);
}

/* The structure stays for who has a user's share, though its pages are gone. */
TEST(mmu_notifier_get, put_after_exit)
{
	struct got *got;
	struct host h;

	host_init(&h);
	got = got_get(0, h.mm);
	mmput(h.mm);
	expect_eq(atomic_read(&got->releases), 1);
	expect_eq(phys_nr_free(h.phys), phys_nr_frames(h.phys));
	expect(!mmget_not_zero(got->mn.mm));
	expect_eq(mm_count_of(got->mn.mm), 1);
	mmu_notifier_put(&got->mn);
	expect_lives(1, 0);
	expect_all_dead();
	h.mm = NULL;
	host_destroy(&h);
}

static int count_in_free;

static void look_at_count(struct got *got)
{
	count_in_free = mm_count_of(got->mn.mm);
}

/* free_notifier may still use ->mm. */
TEST(mmu_notifier_get, mm_count_is_held_for_free_notifier)
{
	struct mm_struct *mm;
	struct host h;

	host_init(&h);
	mm = h.mm;
	gots.on_free = look_at_count;
	mmgrab(mm); /* ours, to look at it */
	mmu_notifier_put(&got_get(0, mm)->mn);
	mmput(mm);
	expect_eq(mm_count_of(mm), 2);
	mmu_notifier_synchronize();
	expect_eq(count_in_free, 2);
	expect_eq(mm_count_of(mm), 1);
	mmdrop(mm);
	expect_all_dead();
	h.mm = NULL;
	host_destroy(&h);
}

/* Who comes between the last put and the free gets a new one. */
TEST(mmu_notifier_get, again_before_the_free)
{
	struct got *old, *new;
	struct host h;

	host_init(&h);
	old = got_get(0, h.mm);
	mmu_notifier_put(&old->mn);
	expect_lives(1, 0);
	new = got_get(0, h.mm);
	expect(new != old);
	expect_lives(2, 0);
	expect_eq(mm_count_of(h.mm), 3);
	window(h.mm);
	expect_eq(atomic_read(&old->starts), 0);
	expect_eq(atomic_read(&new->starts), 1);
	mmu_notifier_synchronize();
	expect_lives(2, 1);
	window(h.mm);
	expect_eq(atomic_read(&new->starts), 2);
	expect(got_get(0, h.mm) == new);
	mmu_notifier_put(&new->mn);
	mmu_notifier_put(&new->mn);
	expect_all_dead();
	host_destroy(&h);
}

/* Once too often: nothing is queued twice, nor does the count turn over. */
TEST(mmu_notifier_get, put_once_too_often)
{
	struct got *got;
	struct host h;

	host_init(&h);
	hear_start();
	got = got_get(0, h.mm);
	mmu_notifier_put(&got->mn);
	expect_warnings(0, NULL);
	for (int i = 0; i < 2; i++) {
		mmu_notifier_put(&got->mn);
		expect_warnings(1, "!subscription->users");
		expect_eq(got->mn.users, 0);
	}
	expect_eq(mm_count_of(h.mm), 2);
	expect_all_dead();
	expect_lives(1, 1);
	expect_eq(mm_count_of(h.mm), 1);
	window(h.mm);
	host_destroy(&h);
}

static DEFINE_MUTEX(mutex);

/* Taken by nobody else: that it might have slept is enough. */
static void sleep_in_free(struct got *got)
{
	(void)got;
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
}

static void put_and_wait(void *arg)
{
	struct host *h = arg;

	gots.on_free = sleep_in_free;
	mmu_notifier_put(&got_get(0, h->mm)->mn);
	mmu_notifier_synchronize();
}

static void put_with_a_worker(void *arg)
{
	expect_eq(srcu_workers_start(), 0);
	put_and_wait(arg);
	srcu_workers_stop();
}

static void get_in_vain(void *arg)
{
	struct host *h = arg;

	gots.on_free = sleep_in_free;
	set_signal_pending();
	(void)!mmu_notifier_get(&got_ops[0], h->mm);
}

/* Whoever calls it: who waits for callbacks, the worker, a get that failed. */
TEST(mmu_notifier_get, free_notifier_must_not_sleep)
{
	static const char report[] =
		"may sleep, but this thread must not block, in call_free_notifier() at";
	struct host h;

#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	host_init(&h);
	expect_bug(put_and_wait, &h, report);
	expect_bug(put_with_a_worker, &h, report);
	expect_bug(get_in_vain, &h, report);
	host_destroy(&h);
}

static void get_without_free(void *arg)
{
	static const struct mmu_notifier_ops no_free = {.alloc_notifier = got_alloc};
	struct host *h = arg;

	(void)!mmu_notifier_get(&no_free, h->mm);
}

static void get_without_alloc(void *arg)
{
	static const struct mmu_notifier_ops no_alloc = {.free_notifier = got_free};
	struct host *h = arg;

	(void)!mmu_notifier_get(&no_alloc, h->mm);
}

TEST(mmu_notifier_get, needs_both)
{
	struct host h;

	host_init(&h);
	expect_bug(get_without_free, &h, "get and put need both");
	expect_bug(get_without_alloc, &h, "get and put need both");
	host_destroy(&h);
}
