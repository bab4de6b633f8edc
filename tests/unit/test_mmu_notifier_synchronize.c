/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmu_notifier_synchronize: whoever calls it may unload the code of its ops afterwards. That takes
 * two things (A10, R-20): no callback runs, and what free_notifier was queued has returned. Each
 * test shows what one of the two alone does not do.
 *
 * The file of the callback worker is part of this program, for the test that stops it between two
 * of its steps.
 */
#include "tests/support/got_notifier.h"
#include "tests/support/srcu_worker.h"

/* A thread that calls mmu_notifier_synchronize(), and looks around at once. */
struct waiter {
	struct kthread thread;
	struct got *got; /* or NULL */
	int frees, running;
	atomic_t done;
};

static void waiter_main(void *arg)
{
	struct waiter *w = arg;

	mmu_notifier_synchronize();
	w->frees = atomic_read(&gots.frees);
	w->running = w->got ? atomic_read(&w->got->running) : 0;
	atomic_set_release(&w->done, 1);
}

static void waiter_start(struct waiter *w, struct got *got)
{
	*w = (struct waiter){.got = got};
	expect_eq(kthread_run(&w->thread, "synchronize", waiter_main, w), 0);
}

/* Until it sleeps for who runs callbacks; or, if it is wrong, has returned. */
static void wait_until_it_waits_for_callbacks(struct waiter *w)
{
	const struct raw_lock *cb_run = &mmu_notifier_srcu.d->cb_run.raw;

	while (READ_ONCE(cb_run->state) != 2 && !atomic_read_acquire(&w->done))
		sched_yield();
}

TEST(mmu_notifier_synchronize, with_nobody_ever)
{
	mmu_notifier_synchronize();
	expect(!mmu_notifier_srcu.d);
}

/* With nobody who would run callbacks: a grace period is over, and free_notifier has yet to come.
 */
TEST(mmu_notifier_synchronize, runs_what_is_queued)
{
	struct host h;

	host_init(&h);
	mmu_notifier_put(&got_get(0, h.mm)->mn);
	synchronize_srcu(&mmu_notifier_srcu);
	expect_lives(1, 0);
	mmu_notifier_synchronize();
	expect_lives(1, 1);
	/* With nothing to wait for. */
	mmu_notifier_synchronize();
	expect_all_dead();
	host_destroy(&h);
}

static struct park callback_park;

static void park_in_callback(struct srcu_head *head)
{
	(void)head;
	park_enter(&callback_park);
}

/* A callback that takes its time stands before free_notifier, on the worker. */
TEST(mmu_notifier_synchronize, behind_a_callback_that_is_held)
{
	struct srcu_head head;
	struct waiter w;
	struct got *got;
	struct host h;

	host_init(&h);
	park_init(&callback_park);
	got = got_get(0, h.mm);
	expect_eq(srcu_workers_start(), 0);
	mmu_notifier_call_srcu(&head, park_in_callback);
	park_wait(&callback_park, 1);
	mmu_notifier_put(&got->mn);

	/* The kernel's body, which returns: */
	synchronize_srcu(&mmu_notifier_srcu);
	expect_lives(1, 0);

	waiter_start(&w, got);
	wait_until_it_waits_for_callbacks(&w);
	expect_eq(atomic_read(&w.done), 0);
	expect_lives(1, 0);
	park_release(&callback_park);
	kthread_join(&w.thread);
	expect_eq(w.frees, 1);
	srcu_workers_stop();
	expect_all_dead();
	host_destroy(&h);
}

static atomic_t in_free, leave_free;

/* By turns, not in a park: free_notifier must not sleep. */
static void stay_in_free(struct got *got)
{
	(void)got;
	atomic_set_release(&in_free, 1);
	while (!atomic_read_acquire(&leave_free))
		sched_yield();
}

/* "Has returned" is more than "has begun". */
TEST(mmu_notifier_synchronize, within_free_notifier)
{
	struct waiter w;
	struct got *got;
	struct host h;

	host_init(&h);
	gots.on_free = stay_in_free;
	got = got_get(0, h.mm);
	expect_eq(srcu_workers_start(), 0);
	mmu_notifier_put(&got->mn);
	while (!atomic_read_acquire(&in_free))
		sched_yield();

	synchronize_srcu(&mmu_notifier_srcu);
	expect_lives(1, 0);

	waiter_start(&w, NULL);
	wait_until_it_waits_for_callbacks(&w);
	expect_eq(atomic_read(&w.done), 0);
	atomic_set_release(&leave_free, 1);
	kthread_join(&w.thread);
	expect_eq(w.frees, 1);
	srcu_workers_stop();
	expect_all_dead();
	host_destroy(&h);
}

/*
 * The other half. A callback runs and nothing is queued: a barrier alone has nothing to wait for.
 * (Its notifier is put later: so the code of its ops may not go, but that of others may.)
 */
TEST(mmu_notifier_synchronize, waits_for_callbacks_that_run)
{
	struct kthread open_thread;
	struct thread_arg opener;
	struct park park;
	struct waiter w;
	struct got *got;
	struct host h;

	host_init(&h);
	park_init(&park);
	gots.start_park = &park;
	got = got_get(0, h.mm);
	opener = (struct thread_arg){.h = &h};
	expect_eq(kthread_run(&open_thread, "window", run_window, &opener), 0);
	park_wait(&park, 1);

	srcu_barrier(&mmu_notifier_srcu);
	expect_eq(atomic_read(&got->running), 1);

	waiter_start(&w, got);
	while (!grace_period_is_blocked(&mmu_notifier_srcu) && !atomic_read_acquire(&w.done))
		sched_yield();
	expect_eq(atomic_read(&w.done), 0);
	park_release(&park);
	kthread_join(&w.thread);
	expect_eq(w.running, 0);
	kthread_join(&open_thread);
	mmu_notifier_put(&got->mn);
	expect_all_dead();
	host_destroy(&h);
}

/*
 * The worker has found that the grace period of free_notifier is over, and is away, before it runs
 * it: to synchronize_srcu() all is done. Whoever waits for it runs it himself.
 */
TEST(mmu_notifier_synchronize, worker_stopped_before_it_runs_callbacks)
{
	enum srcu_progress progress = SRCU_AGAIN;
	struct got *got;
	struct host h;

	host_init(&h);
	got = got_get(0, h.mm);
	d = mmu_notifier_srcu.d;
	be_the_worker();
	mmu_notifier_put(&got->mn);
	expect_eq(take_ready(), d);
	/* The steps of a pass, but the last. */
	while (progress != SRCU_PASSED || !srcu_reached(d, d->batch_snap)) {
		scan_first_half(d);
		expect(d->batch);
		srcu_heavy_barrier();
		progress = scan_second_half(d);
		expect(progress != SRCU_BLOCKED);
	}

	synchronize_srcu(&mmu_notifier_srcu);
	expect_lives(1, 0);
	mmu_notifier_synchronize();
	expect_lives(1, 1);

	/* It comes back, and finds nothing. */
	expect_eq(run_what_passed(d, progress), SERVED_ALL);
	expect_lives(1, 1);
	all_passes();
	be_it_no_more();
	expect_all_dead();
	host_destroy(&h);
}

/* ---- where it must not be called ---- */

static struct host misused;
static DEFINE_MUTEX(mutex);

static void synchronize_in_release(struct got *got)
{
	(void)got;
	mmu_notifier_synchronize();
}

static void exit_that_synchronizes(void *arg)
{
	(void)arg;
	gots.on_release = synchronize_in_release;
	got_get(0, misused.mm);
	mmput(misused.mm);
}

static void free_that_synchronizes(void *arg)
{
	(void)arg;
	gots.on_free = synchronize_in_release;
	mmu_notifier_put(&got_get(0, misused.mm)->mn);
	mmu_notifier_synchronize();
}

static void lock_and_unlock(struct got *got)
{
	(void)got;
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
}

/* The order was seen once, and is wrong now, though nobody is in the way. */
static void under_a_lock_of_callbacks(void *arg)
{
	(void)arg;
	gots.on_start = lock_and_unlock;
	got_get(0, misused.mm);
	window(misused.mm);
	mutex_lock(&mutex);
	mmu_notifier_synchronize();
}

static void lock_in_callback(struct srcu_head *head)
{
	(void)head;
	lock_and_unlock(NULL);
}

/* Not of free_notifier: whatever that takes spins, and who holds it may not sleep. */
static void under_a_lock_of_call_srcu(void *arg)
{
	struct srcu_head head;

	(void)arg;
	got_get(0, misused.mm);
	mmu_notifier_call_srcu(&head, lock_in_callback);
	mmu_notifier_synchronize();
	mutex_lock(&mutex);
	mmu_notifier_synchronize();
}

TEST(mmu_notifier_synchronize, where_it_would_wait_for_itself)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	host_init(&misused);
	expect_bug(exit_that_synchronizes, NULL, "inside a read section of the same domain");
	expect_bug(free_that_synchronizes, NULL,
		   "this thread must not block, in call_free_notifier() at");
	expect_bug(under_a_lock_of_callbacks, NULL,
		   "the order seen before is mmu_notifier_srcu -> mutex:");
	expect_bug(under_a_lock_of_call_srcu, NULL,
		   "the order seen before is srcu_callbacks -> mutex:");
	host_destroy(&misused);
}
