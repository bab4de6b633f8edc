/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The callback worker by hand. Its file is part of the test that includes this one, so that one
 * thread can take its steps one at a time and look at what stands between them. No worker runs but
 * where a test starts one.
 */
#ifndef TESTS_SUPPORT_SRCU_WORKER_H
#define TESTS_SUPPORT_SRCU_WORKER_H

#include <errno.h>
#include <sched.h>

#include "tests/support/srcu_probe.h"
#include "tests/support/test.h"

static inline void waited_for_a_hole(void);
static inline bool begun(bool scanning);
static int barriers;	     /* heavy ones, in the last pass */
static bool no_more_threads; /* to be had */
static int workers;	     /* that were started */
static int naps;
static bool sleepless; /* naps are counted, and that is all */

#define sync_yield()		       (waited_for_a_hole(), (sync_yield)())
#define srcu_heavy_barrier()	       (barriers++, (srcu_heavy_barrier)())
#define kthread_run(t, n, f, a)	       (no_more_threads ? -EAGAIN : (workers++, (kthread_run)(t, n, f, a)))
#define fsleep(usecs)		       (naps++, sleepless ? (void)0 : (fsleep)(usecs))
#define srcu_scan_begin(d, snap, scan) begun((srcu_scan_begin)(d, snap, scan))
#include "notifier/srcu_callback.c"
#undef sync_yield
#undef srcu_heavy_barrier
#undef kthread_run
#undef fsleep
#undef srcu_scan_begin

static struct srcu_struct srcu;
static struct srcu_domain *d;
static atomic_t ran;
static struct srcu_head *last_ran;

static inline void count(struct srcu_head *head)
{
	last_ran = head;
	atomic_inc_return(&ran);
}

static inline void setup(void)
{
	expect_eq(init_srcu_struct(&srcu), 0);
	d = srcu.d;
}

static inline void teardown(void)
{
	expect_eq(cleanup_srcu_struct(&srcu), 0);
}

/* From here on kicks put domains on the stack, and this thread takes them off. */
static inline void be_the_worker(void)
{
	WRITE_ONCE(srcu_worker.pid, getpid());
}

static inline void be_it_no_more(void)
{
	expect(!srcu_worker.kicked);
	expect_eq(srcu_worker.nr_parked, 0);
	WRITE_ONCE(srcu_worker.pid, 0);
}

static inline bool one_pass(void)
{
	barriers = 0;
	return pass(take_ready());
}

static inline void all_passes(void)
{
	while (srcu_worker.kicked)
		one_pass();
}

static inline int nr_kicked(void)
{
	int n = 0;

	for (struct srcu_domain *k = srcu_worker.kicked; k; k = k->next_kicked) {
		expect(k->kicked);
		expect_le(++n, 100);
	}
	return n;
}

/* call_srcu() between its two steps: @head is the last, and nothing leads to it. */
static struct srcu_head *hole_before, *hole_behind;
static void (*in_hole)(void); /* what happens meanwhile */

static inline void append_half(struct srcu_head *head)
{
	*head = (struct srcu_head){.func = count};
	hole_before = xchg(&d->cb_tail, head);
	hole_behind = head;
}

static inline void waited_for_a_hole(void)
{
	void (*fn)(void) = in_hole;

	in_hole = NULL;
	if (fn)
		fn();
	if (hole_before)
		smp_store_release(&hole_before->next, hole_behind);
	hole_before = NULL;
}

/* The section that ends as soon as a scan has begun; -1: none. */
static int leaves_when_begun = -1;

static inline bool begun(bool scanning)
{
	if (leaves_when_begun >= 0)
		srcu_up_read(&srcu, leaves_when_begun);
	leaves_when_begun = -1;
	return scanning;
}

#endif
