/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interval notifiers and lock checking: who waits for windows under a lock that windows need is
 * reported the first time, though no window is open; and so is who may sleep where it must not.
 * Debug builds only.
 */
#include <unistd.h>

#include "notifier/sync/lock.h"
#include "tests/support/interval_fixture.h"

#ifndef CONFIG_LOCKDEP

TEST(mmu_interval_lockdep, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

static DEFINE_MUTEX(mutex);

/* Where the driver takes its lock, which sleeps. */
enum where { INVALIDATE, FIRST, SECOND };

struct locking {
	struct mmu_interval_notifier sub;
	enum where where;
	struct mmu_interval_notifier_finish finish;
	struct host h;
};

static void lock_in(struct mmu_interval_notifier *sub, enum where where)
{
	if (container_of(sub, struct locking, sub)->where != where)
		return;
	mutex_lock(&mutex);
	mutex_unlock(&mutex);
}

static bool invalidate(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		       unsigned long cur_seq)
{
	(void)range;
	mmu_interval_set_seq(sub, cur_seq);
	lock_in(sub, INVALIDATE);
	return true;
}

static bool first(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		  unsigned long cur_seq, struct mmu_interval_notifier_finish **finish)
{
	(void)range;
	mmu_interval_set_seq(sub, cur_seq);
	lock_in(sub, FIRST);
	*finish = &container_of(sub, struct locking, sub)->finish;
	return true;
}

static void second(struct mmu_interval_notifier_finish *finish)
{
	lock_in(finish->notifier, SECOND);
}

static const struct mmu_interval_notifier_ops one = {.invalidate = invalidate};
static const struct mmu_interval_notifier_ops two = {
	.invalidate_start = first,
	.invalidate_finish = second,
};

static void setup(struct locking *l, enum where where)
{
	*l = (struct locking){.where = where};
	host_init(&l->h);
	expect_eq(mmu_interval_notifier_insert(&l->sub, l->h.mm, HVA, LEN,
					       where == INVALIDATE ? &one : &two),
		  0);
}

static void teardown(struct locking *l)
{
	mmu_interval_notifier_remove(&l->sub);
	host_destroy(&l->h);
}

/* ---- N-66 ---- */

static void read_under_callback_lock(void *arg)
{
	struct locking *l = arg;

	window(l->h.mm);
	mutex_lock(&mutex);
	mmu_interval_read_begin(&l->sub);
}

static void remove_under_callback_lock(void *arg)
{
	struct locking *l = arg;

	window(l->h.mm);
	mutex_lock(&mutex);
	mmu_interval_notifier_remove(&l->sub);
}

TEST(mmu_interval_lockdep, waiting_under_a_lock_that_callbacks_take)
{
	for (enum where where = INVALIDATE; where <= SECOND; where++) {
		static void (*const wait[])(void *arg) = {
			read_under_callback_lock,
			remove_under_callback_lock,
		};
		struct locking l;

		setup(&l, where);
		for (int n = 0; n < 2; n++) {
			expect_bug(wait[n], &l,
				   "takes mmu_notifier_invalidate_range_start (region)");
			expect_bug(wait[n], &l, "while it holds mutex (mutex)");
			expect_bug(wait[n], &l,
				   "the order seen before is mmu_notifier_invalidate_range_start "
				   "-> mutex:");
			expect_bug(wait[n], &l, "then mutex, taken in lock_in()");
		}
		teardown(&l);
	}
}

/* A lock that nobody takes in a callback is fine. */
TEST(mmu_interval_lockdep, waiting_under_another_lock)
{
	static DEFINE_MUTEX(other);
	struct locking l;

	setup(&l, INVALIDATE);
	window(l.h.mm);
	mutex_lock(&other);
	mmu_interval_read_begin(&l.sub);
	teardown(&l);
	mutex_unlock(&other);
}

/* A callback that would wait for its own window. */
static bool (*wait_inside)(struct mmu_interval_notifier *sub);

static bool waiting_invalidate(struct mmu_interval_notifier *sub,
			       const struct mmu_notifier_range *range, unsigned long cur_seq)
{
	(void)range, (void)cur_seq; /* not stored, so that read_begin does not hang but for us */
	return wait_inside(sub);
}

static bool read_inside(struct mmu_interval_notifier *sub)
{
	mmu_interval_read_begin(sub);
	return true;
}

static bool remove_inside(struct mmu_interval_notifier *sub)
{
	mmu_interval_notifier_remove(sub);
	return true;
}

static const struct mmu_interval_notifier_ops waiting_ops = {.invalidate = waiting_invalidate};

/* In a child, which is to end at a BUG: if it hangs instead, this is its end. */
static void open_window(void *arg)
{
	alarm(20);
	window(((struct locking *)arg)->h.mm);
}

static void exit_mm(void *arg)
{
	alarm(20);
	mmput(((struct locking *)arg)->h.mm);
}

TEST(mmu_interval_lockdep, waiting_in_a_callback)
{
	static bool (*const wait[])(struct mmu_interval_notifier * sub) = {read_inside,
									   remove_inside};
	struct locking l = {0};

	host_init(&l.h);
	expect_eq(mmu_interval_notifier_insert(&l.sub, l.h.mm, HVA, LEN, &waiting_ops), 0);
	for (int n = 0; n < 2; n++) {
		wait_inside = wait[n];
		expect_bug(open_window, &l, "mmu_notifier_invalidate_range_start (region 0x");
		expect_bug(open_window, &l, "is held by this thread already, as region");
		/* What exit tells is a window as any other. */
		expect_bug(exit_mm, &l, "is held by this thread already, as region");
	}
	teardown(&l);
}

/* ---- N-68 ---- */

static void insert_under_mmap_lock(void *arg)
{
	struct mmu_interval_notifier sub;
	struct locking *l = arg;

	/* There is an interval already: this one would not need the lock. */
	mmap_read_lock(l->h.mm);
	(void)!mmu_interval_notifier_insert(&sub, l->h.mm, HVA, LEN, &one);
}

static void insert_without_mmap_lock(void *arg)
{
	struct mmu_interval_notifier sub;
	struct locking *l = arg;

	(void)!mmu_interval_notifier_insert_locked(&sub, l->h.mm, HVA, LEN, &one);
}

static void insert_with_it_for_reading(void *arg)
{
	struct locking *l = arg;

	mmap_read_lock(l->h.mm);
	insert_without_mmap_lock(arg);
}

TEST(mmu_interval_lockdep, insert_and_mmap_lock)
{
	struct locking l;

	setup(&l, INVALIDATE);
	expect_bug(insert_under_mmap_lock, &l, "is held by this thread already");
	expect_bug(insert_without_mmap_lock, &l, "&mm->mmap_lock");
	expect_bug(insert_with_it_for_reading, &l, "&mm->mmap_lock");
	teardown(&l);
}

static void read_under_a_spinlock(void *arg)
{
	static DEFINE_SPINLOCK(spinlock);

	spin_lock(&spinlock);
	mmu_interval_read_begin(&((struct locking *)arg)->sub);
}

static void remove_under_a_spinlock(void *arg)
{
	static DEFINE_SPINLOCK(spinlock);

	spin_lock(&spinlock);
	mmu_interval_notifier_remove(&((struct locking *)arg)->sub);
}

/* Told also when no window is open, so that there is nothing to wait for. */
TEST(mmu_interval_lockdep, waiting_under_a_spinlock)
{
	struct locking l;

	setup(&l, INVALIDATE);
	expect_bug(read_under_a_spinlock, &l, "in mmu_interval_read_begin()");
	expect_bug(remove_under_a_spinlock, &l, "in mmu_interval_notifier_remove()");
	teardown(&l);
}

/* ---- N-67 ---- */

static void open_window_nonblock(void *arg)
{
	(void)!window_nonblock(((struct locking *)arg)->h.mm);
}

TEST(mmu_interval_lockdep, sleeping_in_a_window_that_must_not_block)
{
	for (enum where where = INVALIDATE; where <= SECOND; where++) {
		struct locking l;

		setup(&l, where);
		window(l.h.mm);
		expect_bug(open_window_nonblock, &l, "mutex, in lock_in() at " __FILE__);
		expect_bug(open_window_nonblock, &l,
			   "may sleep, but this thread must not block, in mn_itree_invalidate()");
		teardown(&l);
	}
}

/* It ends with the window, refused or not. */
TEST(mmu_interval_lockdep, sleeping_behind_such_a_window)
{
	struct interval i;
	struct host h;

	host_init(&h);
	interval_init(&i, 'a', NULL);
	interval_join(&i, &h, 0, 1);
	for (int refuse = 0; refuse < 2; refuse++) {
		i.refuse = refuse;
		expect_eq(window_nonblock(h.mm), refuse ? -EAGAIN : 0);
		mutex_lock(&mutex);
		mutex_unlock(&mutex);
		mmu_interval_read_begin(&i.sub);
	}
	interval_leave(&i);
	host_destroy(&h);
}

#endif
