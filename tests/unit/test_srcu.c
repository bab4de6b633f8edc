/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU, one situation at a time: what a grace period waits for, and what it does not wait for. The
 * second kind hangs when it fails.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/relax.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

static struct srcu_struct srcu;

static void setup(void)
{
	expect_eq(init_srcu_struct(&srcu), 0);
}

static void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
	expect(!srcu.d);
}

#ifndef SRCU_ABSTRACT /* which has none of this inside */
TEST(srcu, idle_domain_has_no_grace_to_wait_for)
{
	unsigned long before;

	setup();
	before = srcu.d->gp_seq;
	for (int i = 0; i < 100; i++)
		synchronize_srcu(&srcu);
	expect_ge(srcu.d->gp_seq - before, 200);
	expect_eq(srcu.d->gp_seq & 1, 0);
	teardown();
}

#endif

TEST(srcu, cookies_are_not_negative)
{
	struct srcu_struct many[40];

	for (int i = 0; i < 40; i++) {
		int cookie;

		expect_eq(init_srcu_struct(&many[i]), 0);
		cookie = srcu_read_lock(&many[i]);
		expect_ge(cookie, 0);
		srcu_read_unlock(&many[i], cookie);
	}
	for (int i = 0; i < 40; i++)
		expect_eq(cleanup_srcu_struct(&many[i]), 0);
}

TEST(srcu, synchronize_waits_for_reader)
{
	struct sitter reader;
	struct syncer updater;

	setup();
	sitter_start(&reader, &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	expect(!atomic_read(&updater.done));
	sitter_stop(&reader);
	kthread_join(&updater.thread);
	expect(atomic_read(&updater.done));
	teardown();
}

TEST(srcu, grace_periods_wait_for_their_own_domain_only)
{
	struct srcu_struct other;
	struct sitter reader;

	setup();
	expect_eq(init_srcu_struct(&other), 0);
	sitter_start(&reader, &srcu);
	for (int i = 0; i < 10; i++)
		synchronize_srcu(&other);
	expect(poll_state_synchronize_srcu(&other, get_state_synchronize_srcu(&other)));
	expect_eq(cleanup_srcu_struct(&other), 0);
	sitter_stop(&reader);
	teardown();
}

/* The reader that came later sits on while the grace period ends: this hangs without the flip. */
TEST(srcu, later_reader_does_not_delay)
{
	struct sitter early, late;
	struct syncer updater;

	setup();
	sitter_start(&early, &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	sitter_start(&late, &srcu);
	expect(!atomic_read(&updater.done));
	sitter_stop(&early);
	kthread_join(&updater.thread);
	sitter_stop(&late);
	teardown();
}

/* The same again and again, each late reader being the next early one: the domain is never empty.
 */
TEST(srcu, chain_of_readers_does_not_starve)
{
	const int links = 200;
	struct sitter readers[2];

	setup();
	sitter_start(&readers[0], &srcu);
	for (int i = 0; i < links; i++) {
		struct syncer updater;

		syncer_start(&updater, &srcu);
		wait_for_blocked_grace_period(&srcu);
		sitter_start(&readers[(i + 1) % 2], &srcu);
		expect(!atomic_read(&updater.done));
		sitter_stop(&readers[i % 2]);
		kthread_join(&updater.thread);
	}
	sitter_stop(&readers[links % 2]);
	teardown();
}

#ifndef SRCU_ABSTRACT /* which has none of this inside */
/*
 * Readers of two generations, one in each index. Both began before the second grace period, which
 * has to wait for both, in whichever order they leave.
 */
static void run_generations(bool older_first)
{
	struct sitter older, younger;
	struct syncer first, second;
	unsigned int idx;

	setup();
	idx = srcu_idx(srcu.d);
	sitter_start(&older, &srcu);
	syncer_start(&first, &srcu);
	wait_for_blocked_grace_period(&srcu);
	expect_ne(srcu_idx(srcu.d), idx);
	sitter_start(&younger, &srcu);
	syncer_start(&second, &srcu);
	while (READ_ONCE(srcu.d->gp_wait.waiters) < 2)
		sched_yield();

	sitter_stop(older_first ? &older : &younger);
	if (older_first) {
		kthread_join(&first.thread);
		wait_for_blocked_grace_period(&srcu);
	} else {
		expect(!atomic_read(&first.done));
	}
	expect(!atomic_read(&second.done));
	sitter_stop(older_first ? &younger : &older);
	kthread_join(&second.thread);
	if (!older_first)
		kthread_join(&first.thread);
	teardown();
}

TEST(srcu, two_generations_older_leaves_first)
{
	run_generations(true);
}

TEST(srcu, two_generations_younger_leaves_first)
{
	run_generations(false);
}

/*
 * A straggler loaded cur, and was held up before its increment until after a flip: it is in the
 * index that drains, and nobody will ever see it there but the next grace period. By hand.
 */
TEST(srcu, waits_for_stragglers)
{
	struct syncer updater;
	struct srcu_domain *d;
	unsigned int old;

	setup();
	d = srcu.d;
	old = !srcu_idx(d);
	srcu_count_slow(srcu_offset(d, old));
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	expect(!atomic_read(&updater.done));
	srcu_read_unlock(&srcu, srcu_cookie(0, srcu_offset(d, old)));
	kthread_join(&updater.thread);
	teardown();
}

/*
 * The unlock that empties the index, by hand and in halves: before the second half, somebody who
 * polls ends the grace period and disarms. So the unlock finds nobody to wake, and the sleeper
 * depends on the poller.
 */
TEST(srcu, grace_period_ends_inside_an_unlock)
{
	struct syncer updater;
	struct srcu_domain *d;
	int cookie;

	setup();
	d = srcu.d;
	cookie = srcu_down_read(&srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	while (!READ_ONCE(d->gp_wait.waiters))
		sched_yield();
	count_unlock(cookie);
	expect(poll_state_synchronize_srcu(&srcu, READ_ONCE(d->gp_seq) + 1));
	expect(!grace_period_is_blocked(&srcu));
	kthread_join(&updater.thread);
	teardown();
}

#endif

TEST(srcu, nested_sections)
{
	struct syncer updater;
	int cookies[3];

	setup();
	for (int i = 0; i < 3; i++)
		cookies[i] = srcu_read_lock(&srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	/* Not in reverse order: cookies say which is which. */
	srcu_read_unlock(&srcu, cookies[0]);
	expect(srcu_read_lock_held(&srcu));
	srcu_read_unlock(&srcu, cookies[2]);
	expect(!atomic_read(&updater.done));
	srcu_read_unlock(&srcu, cookies[1]);
	kthread_join(&updater.thread);
	teardown();
}

/* One begun before the flip, nested in it one begun after. */
TEST(srcu, nested_across_a_flip)
{
	struct syncer updater;
	int outer, inner;

	setup();
	outer = srcu_read_lock(&srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	inner = srcu_read_lock(&srcu);
	expect_ne(inner, outer);
	srcu_read_unlock(&srcu, inner);
	expect(!atomic_read(&updater.done));
	srcu_read_unlock(&srcu, outer);
	kthread_join(&updater.thread);
	teardown();
}

static atomic_t handed_over;

static void take_and_hand_over(void *arg)
{
	(void)arg;
	atomic_set_release(&handed_over, srcu_read_lock(&srcu));
}

/* Locked by a thread that has ended since. */
TEST(srcu, unlock_on_another_thread)
{
	struct kthread locker;
	struct syncer updater;

	setup();
	expect_eq(kthread_run(&locker, "locker", take_and_hand_over, NULL), 0);
	kthread_join(&locker);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	expect(!atomic_read(&updater.done));
	srcu_read_unlock(&srcu, atomic_read_acquire(&handed_over));
	kthread_join(&updater.thread);
	teardown();
}

static void unlock_handed_over(void *arg)
{
	(void)arg;
	srcu_up_read(&srcu, atomic_read_acquire(&handed_over));
}

/* The thread that began the section may itself wait for it, once it is another's. */
TEST(srcu, down_read_is_nobodys)
{
	struct kthread unlocker;

	setup();
	atomic_set_release(&handed_over, srcu_down_read(&srcu));
	expect_eq(kthread_run(&unlocker, "unlocker", unlock_handed_over, NULL), 0);
	synchronize_srcu(&srcu);
	kthread_join(&unlocker);
	teardown();
}

static void not_inside(void *arg)
{
	(void)arg;
#ifdef CONFIG_LOCKDEP
	expect(!srcu_read_lock_held(&srcu));
#endif
}

TEST(srcu, read_lock_held)
{
	struct srcu_struct other;
	struct kthread t;
	int cookie;

	setup();
	expect_eq(init_srcu_struct(&other), 0);
	not_inside(NULL);
	cookie = srcu_read_lock(&srcu);
	expect(srcu_read_lock_held(&srcu));
#ifdef CONFIG_LOCKDEP
	expect(!srcu_read_lock_held(&other));
#else
	expect(srcu_read_lock_held(&other));
#endif
	expect_eq(kthread_run(&t, "other", not_inside, NULL), 0);
	kthread_join(&t);
	srcu_read_unlock(&srcu, cookie);
	not_inside(NULL);
	/* Unlocked by another thread, it is no longer ours: else the last line would be a BUG. */
	atomic_set_release(&handed_over, srcu_read_lock(&srcu));
	expect_eq(kthread_run(&t, "unlocker", unlock_handed_over, NULL), 0);
	kthread_join(&t);
	not_inside(NULL);
	synchronize_srcu(&srcu);
	expect_eq(cleanup_srcu_struct(&other), 0);
	teardown();
}

#define DEEP 500

/* More sections than debug builds have room to record for one thread. */
TEST(srcu, deep_nesting)
{
	int cookies[DEEP];

	setup();
	for (int i = 0; i < DEEP; i++)
		cookies[i] = srcu_read_lock(&srcu);
	expect(!poll_state_synchronize_srcu(&srcu, start_poll_synchronize_srcu(&srcu)));
	/* Also when none of those that are left is on record. */
	for (int i = 0; i < DEEP; i++) {
		expect(srcu_read_lock_held(&srcu));
		srcu_read_unlock(&srcu, cookies[i]);
	}
	synchronize_srcu(&srcu);
	teardown();
}

/* ---- polled ---- */

#ifndef SRCU_ABSTRACT /* which has none of this inside */
TEST(srcu, polled)
{
	unsigned long before, during, after;
	struct sitter reader, late;

	setup();
	before = get_state_synchronize_srcu(&srcu);
	synchronize_srcu(&srcu);
	expect(poll_state_synchronize_srcu(&srcu, before));

	sitter_start(&reader, &srcu);
	during = start_poll_synchronize_srcu(&srcu);
	expect(!poll_state_synchronize_srcu(&srcu, during));
	/* One grace period runs, which began before this state: it needs the next one. */
	after = get_state_synchronize_srcu(&srcu);
	expect_ne(after, during);
	sitter_start(&late, &srcu);
	expect(!poll_state_synchronize_srcu(&srcu, during));
	sitter_stop(&reader);
	expect(poll_state_synchronize_srcu(&srcu, during));
	expect(poll_state_synchronize_srcu(&srcu, before));
	expect(!poll_state_synchronize_srcu(&srcu, after));
	sitter_stop(&late);
	expect(poll_state_synchronize_srcu(&srcu, after));
	teardown();
}

/* Polling moves a grace period on, and a sleeper that had armed the readers is not forgotten. */
TEST(srcu, polling_beside_a_sleeper)
{
	struct sitter reader, late;
	struct syncer updater;
	unsigned long state;

	setup();
	sitter_start(&reader, &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	state = start_poll_synchronize_srcu(&srcu);
	sitter_start(&late, &srcu);
	sitter_stop(&reader);
	kthread_join(&updater.thread);
	expect(!poll_state_synchronize_srcu(&srcu, state));
	syncer_start(&updater, &srcu);
	while (!READ_ONCE(srcu.d->gp_wait.waiters))
		sched_yield();
	sitter_stop(&late);
	while (!poll_state_synchronize_srcu(&srcu, state))
		sched_yield();
	kthread_join(&updater.thread);
	teardown();
}

#endif

#define MANY 200

/* Each state has one section more to wait for; more of them than abstract SRCU tells apart. */
static void run_many_states(bool oldest_first)
{
	unsigned long states[MANY];
	int cookies[MANY];

	setup();
	for (int i = 0; i < MANY; i++) {
		cookies[i] = srcu_read_lock(&srcu);
		states[i] = start_poll_synchronize_srcu(&srcu);
	}
	for (int n = 0; n < MANY; n++) {
		int i = oldest_first ? n : MANY - 1 - n;

		for (int state = oldest_first ? i : 0; state < MANY; state++)
			expect(!poll_state_synchronize_srcu(&srcu, states[state]));
		srcu_read_unlock(&srcu, cookies[i]);
	}
	for (int i = 0; i < MANY; i++)
		expect(poll_state_synchronize_srcu(&srcu, states[i]));
	teardown();
}

TEST(srcu, many_states_oldest_section_leaves_first)
{
	run_many_states(true);
}

TEST(srcu, many_states_youngest_section_leaves_first)
{
	run_many_states(false);
}

/* ---- cleanup ---- */

static int warnings;
static char warning[256];

static void hear_warning(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	expect_eq(level, GNOMON_LOG_WARN);
	warnings++;
	snprintf(warning, sizeof(warning), "%s", message);
}

TEST(srcu, cleanup_refuses_readers)
{
	struct sitter reader;

	setup();
	gnomon_set_log(hear_warning, NULL);
	sitter_start(&reader, &srcu);
	expect_eq(cleanup_srcu_struct(&srcu), -EBUSY);
	expect_eq(warnings, 1);
	expect_str_contains(warning, "with a reader inside");
	/* The reader still finds its way out; and then it is as if nothing had been. */
	sitter_stop(&reader);
	synchronize_srcu(&srcu);
	teardown();
	expect_eq(warnings, 1);
}

#ifndef SRCU_ABSTRACT /* which has none of this inside */
TEST(srcu, blocks_are_reused)
{
	struct srcu_domain *first;

	setup();
	first = srcu.d;
	for (int i = 0; i < 1000; i++) {
		int cookie = srcu_read_lock(&srcu);

		srcu_read_unlock(&srcu, cookie);
		teardown();
		setup();
		expect_eq(srcu.d, first);
	}
	teardown();
}

#endif

/*
 * The reader's unlock lets the cleanup through, which hands the block to a new owner, while the
 * reader is still looking for somebody to wake. The block is memory of a domain all the time.
 */
static struct srcu_struct *published;
static atomic64_t unlocked, reused;

static void read_once(void *arg)
{
	(void)arg;
	for (int64_t i = 1; poll_until(&reused, i) != SWEEP_OVER; i++) {
		struct srcu_struct *ssp = published;
		int cookie = srcu_read_lock(ssp);

		atomic64_set_release(&unlocked, i);
		srcu_read_unlock(ssp, cookie);
	}
}

TEST(srcu, late_unlock_of_a_reused_block)
{
	struct sweep sweep = sweep_start(5000);
	struct kthread reader;

	expect_eq(kthread_run(&reader, "reader", read_once, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		struct srcu_struct *ssp = calloc(1, sizeof(*ssp));

		expect_eq(init_srcu_struct(ssp), 0);
		published = ssp;
		atomic64_set_release(&reused, i);
		poll_until(&unlocked, i);
		synchronize_srcu(ssp);
		expect_eq(cleanup_srcu_struct(ssp), 0);
		memset(ssp, 0xff, sizeof(*ssp));
		free(ssp);
	}
	atomic64_set_release(&reused, SWEEP_OVER);
	kthread_join(&reader);
}

#ifndef SRCU_ABSTRACT /* whose unlock is one step */
/*
 * The same by hand. The unlock has counted, and seen that somebody waits; before it wakes him, he
 * is through, and has cleaned up. Then the wake-up finds memory of a domain that nobody owns; or of
 * another owner, whom it must not let through, and not keep from hearing of his own readers.
 */
static unsigned int clean_up_inside_an_unlock(void)
{
	struct syncer updater;
	int cookie;

	setup();
	cookie = srcu_down_read(&srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	count_unlock(cookie);
	expect(poll_state_synchronize_srcu(&srcu, READ_ONCE(srcu.d->gp_seq) + 1));
	kthread_join(&updater.thread);
	teardown();
	return srcu_cookie_offset(cookie);
}

TEST(srcu, late_wake_up_of_a_free_block)
{
	__srcu_wake((int)clean_up_inside_an_unlock());
}

TEST(srcu, late_wake_up_of_a_reused_block)
{
	unsigned int offset = clean_up_inside_an_unlock();
	struct srcu_domain *d;
	struct sitter reader;
	struct syncer updater;

	setup();
	d = srcu.d;
	expect_eq(offset & ~8u, srcu_offset(d, 0));
	sitter_start(&reader, &srcu);
	syncer_start(&updater, &srcu);
	wait_for_blocked_grace_period(&srcu);
	while (!READ_ONCE(d->gp_wait.waiters))
		sched_yield();
	__srcu_wake((int)offset);
	__srcu_wake((int)(offset ^ 8));
	wait_for_blocked_grace_period(&srcu);
	expect(!atomic_read(&updater.done));
	sitter_stop(&reader);
	kthread_join(&updater.thread);
	teardown();
}
#endif

/* ---- misuse ---- */

static void clean_twice(void *arg)
{
	(void)arg;
	cleanup_srcu_struct(&srcu);
	cleanup_srcu_struct(&srcu);
}

TEST(srcu, misuse_is_a_bug)
{
	setup();
	expect_bug(clean_twice, NULL, "was cleaned up");
	teardown();
}

#ifdef CONFIG_LOCKDEP

static void unlock_of_other_domain(void *arg)
{
	struct srcu_struct other;

	(void)arg;
	init_srcu_struct(&other);
	srcu_read_unlock(&srcu, srcu_read_lock(&other));
}

static void unlock_nonsense(void *arg)
{
	srcu_read_unlock(&srcu, *(int *)arg);
}

static void lock_uninitialised(void *arg)
{
	struct srcu_struct none = {0};

	(void)arg;
	srcu_read_lock(&none);
}

static void unlock_twice(void *arg)
{
	int cookie = srcu_read_lock(&srcu);

	(void)arg;
	srcu_read_unlock(&srcu, cookie);
	srcu_read_unlock(&srcu, cookie);
}

static void synchronize_inside(void *arg)
{
	(void)arg;
	srcu_read_lock(&srcu);
	synchronize_srcu(&srcu);
}

static void barrier_inside(void *arg)
{
	(void)arg;
	srcu_read_lock(&srcu);
	srcu_barrier(&srcu);
}

static void synchronize_under_spinlock(void *arg)
{
	DEFINE_SPINLOCK(lock);

	(void)arg;
	spin_lock(&lock);
	synchronize_srcu(&srcu);
}

TEST(srcu, misuse_that_debug_builds_see)
{
	int cookie, minus_one = -1;

	setup();
	expect_bug(unlock_of_other_domain, NULL, "which is not of this domain");
	expect_bug(unlock_nonsense, &minus_one, "which is not of this domain");
	expect_bug(lock_uninitialised, NULL, "not initialised");
	expect_bug(unlock_twice, NULL, "unlocked twice?");
	expect_bug(synchronize_inside, NULL, "would wait for itself");
	expect_bug(barrier_inside, NULL, "would wait for itself");
	expect_bug(synchronize_under_spinlock, NULL, "may sleep");

	/* An index that the section did not have. */
	cookie = srcu_read_lock(&srcu) ^ 8;
	expect_bug(unlock_nonsense, &cookie, "not that of an open section");
	srcu_read_unlock(&srcu, cookie ^ 8);
	teardown();
}

#endif
