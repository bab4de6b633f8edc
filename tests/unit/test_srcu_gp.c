/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Grace periods by hand: one thread takes the halves of a scan, and does between them what others
 * might have done. So each state is met, and none by luck. The readers' file is part of this one,
 * to come between the steps of an unlock as well.
 */
#include <string.h>

#include "tests/support/relax.h"
#include "tests/support/srcu_probe.h"
#include "tests/support/store_buffer.h"
#include "tests/support/test.h"

static void before_count(void);
static void before_waking(void);

#define srcu_count_slow(offset) (before_count(), (srcu_count_slow)(offset))
#define srcu_tell_waiters(d)	(before_waking(), (srcu_tell_waiters)(d))
#include "notifier/srcu.c"
#undef srcu_count_slow
#undef srcu_tell_waiters

static struct srcu_struct srcu;
static struct srcu_domain *d;
static struct srcu_scan scan;

static void setup(void)
{
	expect_eq(init_srcu_struct(&srcu), 0);
	d = srcu.d;
	memset(&scan, 0xff, sizeof(scan));
}

static void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

static enum srcu_progress whole_scan(unsigned long snap)
{
	expect(srcu_scan_begin(d, snap, &scan));
	srcu_heavy_barrier();
	return srcu_scan_end(d, &scan);
}

static bool is_armed(unsigned int idx)
{
	return READ_ONCE(__srcu_waiting[srcu_offset(d, idx)]);
}

TEST(srcu_gp, nobody_inside)
{
	unsigned long seq;

	setup();
	seq = d->gp_seq;
	expect(srcu_scan_begin(d, srcu_snap(d), &scan));
	expect_eq(d->gp_seq, seq + 1);
	srcu_heavy_barrier();
	expect_eq(srcu_scan_end(d, &scan), SRCU_PASSED);
	expect_eq(d->gp_seq, seq + 2);
	expect(!is_armed(0) && !is_armed(1));
	teardown();
}

TEST(srcu_gp, none_is_begun_that_nobody_needs)
{
	unsigned long seq;

	setup();
	seq = d->gp_seq;
	expect(!srcu_scan_begin(d, seq, &scan));
	expect_eq(d->gp_seq, seq);
	expect(!is_armed(0) && !is_armed(1));
	teardown();
}

/* Numbers of grace periods go on behind the largest. */
TEST(srcu_gp, sequence_wraps)
{
	unsigned long before, during;
	int cookie;

	setup();
	d->gp_seq = -4UL;
	cookie = srcu_down_read(&srcu);
	before = get_state_synchronize_srcu(&srcu);
	expect(!poll_state_synchronize_srcu(&srcu, before));
	during = get_state_synchronize_srcu(&srcu);
	expect_eq(during, 0);
	expect(!poll_state_synchronize_srcu(&srcu, during));
	srcu_up_read(&srcu, cookie);
	expect(poll_state_synchronize_srcu(&srcu, before));
	for (int i = 0; i < 3; i++)
		synchronize_srcu(&srcu);
	expect(poll_state_synchronize_srcu(&srcu, before));
	expect(poll_state_synchronize_srcu(&srcu, during));
	expect_eq(d->gp_seq, 4);
	teardown();
}

/* The index that drains is seen empty, so the other one drains; then one unlock wakes. */
TEST(srcu_gp, from_reader_to_wake_up)
{
	unsigned long snap;
	int cookie;

	setup();
	snap = srcu_snap(d);
	cookie = srcu_down_read(&srcu);
	expect_eq(srcu_idx(d), 0);
	expect_eq(whole_scan(snap), SRCU_AGAIN);
	expect_eq(srcu_idx(d), 1);
	expect_eq(d->need, 1);
	expect_eq(whole_scan(snap), SRCU_BLOCKED);
	expect_eq(srcu_idx(d), 1);
	expect(is_armed(0));
	srcu_up_read(&srcu, cookie);
	/* Once is enough: the next unlock has nothing to do. */
	expect(!is_armed(0));
	expect_eq(whole_scan(snap), SRCU_PASSED);
	expect(!is_armed(0) && !is_armed(1));
	teardown();
}

/*
 * The unlock looked before we armed, and its count was not here for the first sum: nobody will wake
 * us, and the sum in the second half says so.
 */
TEST(srcu_gp, unlock_that_looked_too_early)
{
	unsigned long snap;
	int cookie;

	setup();
	snap = srcu_snap(d);
	cookie = srcu_down_read(&srcu);
	expect_eq(whole_scan(snap), SRCU_AGAIN);
	memset(&scan, 0, sizeof(scan)); /* what it says must be said by begin */
	expect(srcu_scan_begin(d, snap, &scan));
	count_unlock(cookie);
	srcu_heavy_barrier();
	expect_eq(srcu_scan_end(d, &scan), SRCU_AGAIN);
	expect_eq(whole_scan(snap), SRCU_PASSED);
	teardown();
}

/* A section is entered and left between the sums: its unlock does not stand in for another's. */
TEST(srcu_gp, section_between_the_halves)
{
	unsigned long snap;
	int cookie;

	setup();
	snap = srcu_snap(d);
	cookie = srcu_down_read(&srcu);
	expect(srcu_scan_begin(d, snap, &scan));
	srcu_up_read(&srcu, srcu_down_read(&srcu));
	srcu_heavy_barrier();
	expect_eq(srcu_scan_end(d, &scan), SRCU_AGAIN);
	expect_eq(d->need, 1);
	srcu_up_read(&srcu, cookie);
	teardown();
}

/* The first section of a new thread, before the barrier: it is in the sum of locks. */
TEST(srcu_gp, new_thread_between_the_halves)
{
	struct sitter reader;
	unsigned long snap;

	setup();
	snap = srcu_snap(d);
	expect(srcu_scan_begin(d, snap, &scan));
	sitter_start(&reader, &srcu);
	srcu_heavy_barrier();
	expect_eq(srcu_scan_end(d, &scan), SRCU_AGAIN);
	expect_eq(d->need, 1);
	sitter_stop(&reader);
	teardown();
}

/* Between the halves others made the armed index the current one: the one that drains is not armed.
 */
TEST(srcu_gp, flipped_between_the_halves)
{
	unsigned long snap;
	int cookie;

	setup();
	snap = srcu_snap(d);
	cookie = srcu_down_read(&srcu);
	expect(srcu_scan_begin(d, snap, &scan));
	expect(is_armed(1));
	expect(!poll_state_synchronize_srcu(&srcu, snap));
	expect_eq(srcu_idx(d), 1);
	expect(!is_armed(0));
	expect_eq(srcu_scan_end(d, &scan), SRCU_AGAIN);
	expect_eq(whole_scan(snap), SRCU_BLOCKED);
	expect(is_armed(0));
	srcu_up_read(&srcu, cookie);
	expect_eq(whole_scan(snap), SRCU_PASSED);
	teardown();
}

static bool arm_before_count, was_armed_at_waking;
static int woken;

static void before_count(void)
{
	if (!arm_before_count)
		return;
	arm_before_count = false;
	expect_eq(whole_scan(d->gp_seq + 1), SRCU_BLOCKED);
}

static void before_waking(void)
{
	woken++;
	was_armed_at_waking = is_armed(0);
}

/*
 * Armed inside an unlock, before it counts: it looks after that, and so wakes. And disarms first:
 * who is woken may arm again.
 */
TEST(srcu_gp, armed_inside_an_unlock)
{
	unsigned long snap;
	int cookie;

	setup();
	snap = srcu_snap(d);
	cookie = srcu_down_read(&srcu);
	expect_eq(whole_scan(snap), SRCU_AGAIN);
	arm_before_count = true;
	srcu_up_read(&srcu, cookie);
	expect_eq(woken, 1);
	expect(!was_armed_at_waking);
	expect_eq(whole_scan(snap), SRCU_PASSED);
	/* Nobody waits: nobody is woken. */
	srcu_up_read(&srcu, srcu_down_read(&srcu));
	expect_eq(woken, 1);
	teardown();
}

/* Others ended it between the halves, and may have begun the next: the old sums are for neither. */
TEST(srcu_gp, ended_between_the_halves)
{
	unsigned long snap, seq;
	int cookie;

	setup();
	snap = srcu_snap(d);
	expect(srcu_scan_begin(d, snap, &scan));
	expect(poll_state_synchronize_srcu(&srcu, snap));
	seq = d->gp_seq;
	expect_eq(srcu_scan_end(d, &scan), SRCU_AGAIN);
	expect_eq(d->gp_seq, seq);

	snap = srcu_snap(d);
	expect(srcu_scan_begin(d, snap, &scan));
	expect(poll_state_synchronize_srcu(&srcu, snap));
	cookie = srcu_down_read(&srcu);
	snap = start_poll_synchronize_srcu(&srcu);
	seq = d->gp_seq;
	srcu_up_read(&srcu, cookie);
	/* By these the domain was empty before the grace period began that now runs. */
	expect_eq(srcu_scan_end(d, &scan), SRCU_AGAIN);
	expect_eq(d->gp_seq, seq);
	expect(poll_state_synchronize_srcu(&srcu, snap));
	teardown();
}

/* Seen empty once since it began is seen empty: who came later does not count. */
TEST(srcu_gp, what_was_seen_empty_stays_so)
{
	unsigned long snap;
	int early, late;

	setup();
	early = srcu_down_read(&srcu);
	snap = srcu_snap(d);
	expect_eq(whole_scan(snap), SRCU_AGAIN);
	late = srcu_down_read(&srcu);
	expect_ne(late, early);
	expect_eq(whole_scan(snap), SRCU_BLOCKED);
	srcu_up_read(&srcu, early);
	expect_eq(whole_scan(snap), SRCU_PASSED);

	/* The next one begins with both. */
	snap = srcu_snap(d);
	expect(!poll_state_synchronize_srcu(&srcu, snap));
	srcu_up_read(&srcu, late);
	expect(poll_state_synchronize_srcu(&srcu, snap));
	teardown();
}

/* Who polls will look again; unlocks need not care. */
TEST(srcu_gp, pollers_do_not_arm)
{
	unsigned long snap;
	int cookie;

	setup();
	cookie = srcu_down_read(&srcu);
	snap = start_poll_synchronize_srcu(&srcu);
	for (int i = 0; i < 5; i++) {
		expect(!poll_state_synchronize_srcu(&srcu, snap));
		expect(!is_armed(0) && !is_armed(1));
	}
	srcu_up_read(&srcu, cookie);
	expect(poll_state_synchronize_srcu(&srcu, snap));
	teardown();
}

/* To start is to do what can be done. */
TEST(srcu_gp, start_does_what_it_can)
{
	unsigned long snap;

	setup();
	snap = start_poll_synchronize_srcu(&srcu);
	expect(srcu_reached(d, snap));
	teardown();
}

/*
 * One thread reads, another runs the grace period, a third only hears that it is over and reuses
 * what was read. What it may rely on is [leave], through the two of them. For ThreadSanitizer: the
 * flags say when, and order nothing.
 */
static int data; /* plain */
static atomic_t snapped, has_read, over;

static void read_data(void *arg)
{
	int cookie;

	(void)arg;
	while (!atomic_read(&snapped))
		sched_yield();
	cookie = srcu_read_lock(&srcu);
	expect_ge(data, 0);
	srcu_read_unlock(&srcu, cookie);
	atomic_set(&has_read, 1);
}

static void run_grace_period(void *arg)
{
	(void)arg;
	while (!atomic_read(&has_read))
		sched_yield();
	synchronize_srcu(&srcu);
	atomic_set(&over, 1);
}

static void run_hand_over(unsigned int idx)
{
	struct kthread reader, updater;
	unsigned long snap;

	setup();
	srcu.cur = srcu_offset(d, idx);
	expect_eq(kthread_run(&reader, "reader", read_data, NULL), 0);
	expect_eq(kthread_run(&updater, "updater", run_grace_period, NULL), 0);
	snap = get_state_synchronize_srcu(&srcu);
	atomic_set(&snapped, 1);
	while (!atomic_read(&over))
		sched_yield();
	expect(poll_state_synchronize_srcu(&srcu, snap));
	data = 1;
	kthread_join(&reader);
	kthread_join(&updater);
	teardown();
}

TEST(srcu_gp, hands_over_what_readers_left)
{
	run_hand_over(0);
}

TEST(srcu_gp, hands_over_what_readers_left_in_the_other)
{
	run_hand_over(1);
}

/*
 * [poll], both ends of it and nothing else: who finds gp_seq even has unpublished before the sums
 * of the grace period that made it odd.
 *
 *	updater				grace period
 *	unpublished = 1			gp_seq odd
 *	gp_seq odd?			sums; unpublished?
 *
 * The updater's store is to wait in a store buffer: behind others, to lines that are in no cache.
 */
static atomic64_t arrivals;
static atomic_t no_more;
static uint64_t unpublished __attribute__((aligned(64)));
static bool seen_by_sums __attribute__((aligned(64)));

static void begin_grace_periods(void *arg)
{
	(void)arg;
	for (int64_t i = 1;; i += 2) {
		meet(&arrivals, i, 2);
		if (atomic_read(&no_more))
			return;
		relax((unsigned int)i / 2 % 16);
		expect(srcu_scan_begin(d, READ_ONCE(d->gp_seq) + 2, &scan));
		seen_by_sums = READ_ONCE(unpublished);
		meet(&arrivals, i + 1, 2);
	}
}

TEST(srcu_gp, snap_and_begin)
{
	struct sweep sweep = sweep_start(100000);
	struct kthread other;
	int64_t i;

	setup();
	expect_eq(kthread_run(&other, "grace period", begin_grace_periods, NULL), 0);
	for (i = 1; sweep_goes_on(&sweep, (i + 1) / 2); i += 2) {
		unsigned long seq = d->gp_seq, snap;

		WRITE_ONCE(unpublished, 0);
		store_buffer_evict();
		meet(&arrivals, i, 2);
		store_buffer_fill();
		WRITE_ONCE(unpublished, 1);
		snap = srcu_snap(d);
		meet(&arrivals, i + 1, 2);
		if (snap == seq + 2 && !seen_by_sums)
			fail("round %ld: neither saw the other", (long)i / 2);
		expect(poll_state_synchronize_srcu(&srcu, seq + 2));
	}
	atomic_set(&no_more, 1);
	meet(&arrivals, i, 2);
	kthread_join(&other);
	teardown();
}
