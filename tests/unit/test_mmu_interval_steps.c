/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interval notifiers between their steps. The code is part of this file, so that something can
 * happen at a place in it that no timing would find: behind the store of the number, between the
 * two loads of read_begin, in a wait before its first look, in an allocation.
 */
#include "notifier/srcu_internal.h"
#include "notifier/sync/alloc.h"
#include "tests/support/interval_fixture.h"

static bool no_memory;
static int wakes;
static void (*when_stored)(void); /* the global number, with the lock held */
static void (*when_loaded)(void); /* the own number, by read_begin */
static void before_waiting(void);
static void waking(void);

#define call_once(hook)                   \
	({                                \
		void (*fn_)(void) = hook; \
                                          \
		hook = NULL;              \
		if (fn_)                  \
			fn_();            \
	})

#undef kzalloc
#define kzalloc(size, flags) (no_memory ? NULL : (kzalloc)(size, flags))
#include "notifier/mmu_notifier.c"

#undef READ_ONCE
#undef smp_store_release
#undef wait_event
#define READ_ONCE(x)                                                    \
	({                                                              \
		typeof(x) v_ = __atomic_load_n(&(x), __ATOMIC_RELAXED); \
                                                                        \
		call_once(when_loaded);                                 \
		v_;                                                     \
	})
#define smp_store_release(p, v)                               \
	({                                                    \
		__atomic_store_n((p), (v), __ATOMIC_RELEASE); \
		call_once(when_stored);                       \
	})
/* Polls, so that each moment is one in which somebody looks. */
#define wait_event(wq, cond)           \
	do {                           \
		before_waiting();      \
		while (!(cond))        \
			sched_yield(); \
	} while (0)
#define wake_up_all(wq) (waking(), (wake_up_all)(wq))
#include "notifier/mmu_interval_notifier.c"
#undef wake_up_all

static struct host host;
static struct interval interval;
static struct interval_thread thread;
static atomic_t waits, may_look, go, opened;

static struct notifier_subscriptions *subs(void)
{
	return host.mm->notifier_subscriptions;
}

/* After wait_event() was entered; before its condition is looked at. */
static void before_waiting(void)
{
	atomic_set_release(&waits, 1);
	while (!atomic_read_acquire(&may_look))
		sched_yield();
}

/*
 * Who wakes others does not hold the lock that they will take: it could not take it here. That the
 * lock is free would be too much to ask, since another thread may have it by now.
 */
static void waking(void)
{
	wakes++;
	spin_lock(&subs()->lock);
	spin_unlock(&subs()->lock);
}

/*
 * Until somebody else has found the lock, which we hold, taken, or @done. Nobody had tried when we
 * took it.
 */
static void until_contended(const atomic_t *done)
{
	while (!atomic_read_acquire(done) &&
	       __atomic_load_n(&subs()->lock.raw.state, __ATOMIC_RELAXED) != 2)
		sched_yield();
}

/*
 *
 *   the end of the phase, lock held		remove
 *   -------------------------------		------
 *   number: 4
 *						is the number still 3? No
 *						-> must not return: the interval is on the list
 *   takes it off the list, and out of the tree
 */
static void remover_looks(void)
{
	atomic_set_release(&may_look, 1);
	until_contended(&thread.done);
	expect_eq(atomic_read(&thread.done), 0);
	expect(subs()->deferred == &interval.sub);
}

TEST(mmu_interval_steps, remove_returns_when_the_deferred_are_done)
{
	struct mmu_notifier_range range;
	struct interval stays;

	host_init(&host);
	interval_init(&interval, 'a', NULL);
	interval_init(&stays, 's', NULL);
	interval_join(&interval, &host, 0, 1);
	interval_join(&stays, &host, 0, 1);
	open_pages(&host, &range, 0, 1);
	interval_thread_start(&thread, &interval, run_remove);
	while (!atomic_read_acquire(&waits))
		sched_yield();
	when_stored = remover_looks;
	close_pages(&range);
	expect(!when_stored);
	kthread_join(&thread.thread);
	window_pages(&host, 0, 1);
	expect_eq(atomic_read(&stays.calls), 2);
	interval_leave(&stays);
	host_destroy(&host);
}

/*
 * Both numbers of read_begin are of one moment: no phase begins, or ends, between the two loads.
 * Otherwise, if the loads trade places, as a compiler or another machine may have it:
 *
 *   read_begin					a window
 *   ----------					--------
 *   global number: 2, nothing is open
 *						start: global number 3, own number 3
 *   own number: 3. Not equal, so 3 it is
 *   looks the old pages up
 *   read_retry: own number is 3: fine		the pages change
 */
static void run_opener(void *arg)
{
	struct mmu_notifier_range range;

	while (!atomic_read_acquire(&go))
		sched_yield();
	open_pages(arg, &range, 0, 1);
	atomic_set_release(&opened, 1);
	close_pages(&range);
}

static void window_begins(void)
{
	atomic_set_release(&go, 1);
	until_contended(&opened);
	expect_eq(atomic_read(&opened), 0);
}

TEST(mmu_interval_steps, read_begin_sees_one_moment)
{
	struct kthread opener;

	host_init(&host);
	interval_init(&interval, 'a', NULL);
	interval_join(&interval, &host, 0, 1);
	expect_eq(kthread_run(&opener, "opener", run_opener, &host), 0);
	when_loaded = window_begins;
	expect_eq(mmu_interval_read_begin(&interval.sub), 1);
	expect(!when_loaded);
	kthread_join(&opener);
	expect(mmu_interval_read_retry(&interval.sub, 1));
	atomic_set(&may_look, 1);
	expect_eq(mmu_interval_read_begin(&interval.sub), 3);
	interval_leave(&interval);
	host_destroy(&host);
}

/*
 * Who waited for the end of a phase finds what was written in it, from the number alone: the lock
 * of the queue orders nothing for one who never slept on it. For the sanitizer to see.
 *
 *   read_begin, from its wait on		a window
 *   -------------------------		--------
 *						the pages change
 *						end: global number 4, a release
 *   global number: 4, an acquire
 *   looks the pages up
 */
static unsigned long pages;

static void run_reader(void *arg)
{
	run_read_begin(arg);
	expect_eq(pages, 1);
}

TEST(mmu_interval_steps, read_begin_finds_what_the_phase_left)
{
	struct mmu_notifier_range range;

	host_init(&host);
	interval_init(&interval, 'a', NULL);
	interval_join(&interval, &host, 0, 1);
	open_pages(&host, &range, 0, 1);
	interval_thread_start(&thread, &interval, run_reader);
	while (!atomic_read_acquire(&waits))
		sched_yield();
	atomic_set_release(&may_look, 1);
	pages = 1;
	close_pages(&range);
	kthread_join(&thread.thread);
	interval_leave(&interval);
	host_destroy(&host);
}

/* N-51: the last end of a phase wakes, with the lock dropped; no other end does. */
TEST(mmu_interval_steps, who_wakes)
{
	struct mmu_notifier_range outer, range;

	host_init(&host);
	interval_init(&interval, 'a', NULL);
	interval_join(&interval, &host, 0, 1);
	window_pages(&host, 1, 1);
	expect_eq(wakes, 0);
	open_pages(&host, &outer, 0, 1);
	open_pages(&host, &range, 0, 1);
	close_pages(&range);
	expect_eq(wakes, 0);
	close_pages(&outer);
	expect_eq(wakes, 1);
	interval.refuse = true;
	expect_eq(window_nonblock(host.mm), -EAGAIN);
	expect_eq(wakes, 2);
	interval_leave(&interval);
	host_destroy(&host);
}

/* The first insert has a block to allocate; those behind it need nothing. */
TEST(mmu_interval_steps, insert_without_memory)
{
	struct interval other;

	host_init(&host);
	interval_init(&interval, 'a', NULL);
	no_memory = true;
	expect_eq(mmu_interval_notifier_insert(&interval.sub, host.mm, HVA, LEN, &interval_ops),
		  -ENOMEM);
	mmap_write_lock(host.mm);
	expect_eq(mmu_interval_notifier_insert_locked(&interval.sub, host.mm, HVA, LEN,
						      &interval_ops),
		  -ENOMEM);
	mmap_write_unlock(host.mm);
	expect(!mm_has_notifiers(host.mm));
	expect_eq(refcount_read(&host.mm->mm_count), 1);
	no_memory = false;
	interval_join(&interval, &host, 0, 1);
	no_memory = true;
	interval_init(&other, 'b', NULL);
	interval_join(&other, &host, 0, 1);
	window(host.mm);
	expect_eq(atomic_read(&interval.calls) + atomic_read(&other.calls), 2);
	interval_leave(&interval);
	interval_leave(&other);
	host_destroy(&host);
}
