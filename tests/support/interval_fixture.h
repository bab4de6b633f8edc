/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of interval notifiers: an interval that records what it is told, windows that are
 * opened and closed by hand, and threads that read or leave.
 *
 * A window by hand is open under no lock. The core does not look for one; it matters only where the
 * set of subscribers could grow meanwhile, and a test that opens windows so is alone with its mm.
 */
#ifndef TESTS_SUPPORT_INTERVAL_FIXTURE_H
#define TESTS_SUPPORT_INTERVAL_FIXTURE_H

#include <gnomon/log.h>
#include <gnomon/mmu_interval_notifier.h>

#include "notifier/subscriptions.h"
#include "tests/support/notifier_fixture.h"

/* Page @n of the fixture's mapping, as an address. */
#define AT(n) (HVA + ((uint64_t)(n) << PAGE_SHIFT))

struct interval {
	struct mmu_interval_notifier sub;
	char name;
	char *log;	 /* of names, in the order of calls; one thread only */
	spinlock_t lock; /* the driver's */
	bool refuse;
	struct park *park; /* in the callback, before the driver's lock */
	atomic_t calls, releases;
	unsigned long seq; /* of the last call, and its range */
	struct mmu_notifier_range last;
	struct phys *phys; /* look at its frames when the mm exits */
	uint64_t nr_free;
	atomic_t freed_early;
};

static inline void log_name(char *log, char name)
{
	if (log)
		strncat(log, &name, 1);
}

/* What both forms of the callback do. */
static inline bool interval_told(struct interval *i, const struct mmu_notifier_range *range,
				 unsigned long cur_seq)
{
	expect(range->mm == i->sub.mm);
	expect_eq(cur_seq & 1, 1);
	log_name(i->log, i->name);
	if (i->park)
		park_enter(i->park);
	if (range->event == MMU_NOTIFY_RELEASE) {
		atomic_inc(&i->releases);
		if (i->phys && phys_nr_free(i->phys) != i->nr_free)
			atomic_inc(&i->freed_early);
	}
	if (i->refuse && !mmu_notifier_range_blockable(range))
		return false;
	spin_lock(&i->lock);
	mmu_interval_set_seq(&i->sub, cur_seq);
	i->seq = cur_seq;
	i->last = *range;
	spin_unlock(&i->lock);
	atomic_inc(&i->calls);
	return true;
}

static inline bool interval_invalidate(struct mmu_interval_notifier *sub,
				       const struct mmu_notifier_range *range,
				       unsigned long cur_seq)
{
	return interval_told(container_of(sub, struct interval, sub), range, cur_seq);
}

static const struct mmu_interval_notifier_ops interval_ops = {
	.invalidate = interval_invalidate,
};

static inline void interval_init(struct interval *i, char name, char *log)
{
	*i = (struct interval){.name = name, .log = log};
	spin_lock_init(&i->lock);
}

/* Pages [@first, @first + @nr) of the fixture's mapping. */
static inline void interval_join(struct interval *i, struct host *h, uint64_t first, uint64_t nr)
{
	expect_eq(mmu_interval_notifier_insert(&i->sub, h->mm, AT(first), nr << PAGE_SHIFT,
					       &interval_ops),
		  0);
}

/* After this, whoever touches it shows. */
static inline void interval_leave(struct interval *i)
{
	mmu_interval_notifier_remove(&i->sub);
	memset(i, 0xee, sizeof(*i));
}

/* An interval far from the mapping: with it, windows look for intervals. */
static inline void bystander_join(struct interval *i, struct host *h)
{
	interval_init(i, '-', NULL);
	interval_join(i, h, 1000, 1);
}

static inline void open_pages(struct host *h, struct mmu_notifier_range *range, uint64_t first,
			      uint64_t nr)
{
	mmu_notifier_range_init(range, MMU_NOTIFY_CLEAR, 0, h->mm, AT(first), AT(first + nr));
	mmu_notifier_invalidate_range_start(range);
}

static inline void close_pages(struct mmu_notifier_range *range)
{
	mmu_notifier_invalidate_range_end(range);
}

/* Opened and closed. */
static inline void window_pages(struct host *h, uint64_t first, uint64_t nr)
{
	struct mmu_notifier_range range;

	open_pages(h, &range, first, nr);
	close_pages(&range);
}

static inline unsigned long global_seq(const struct host *h)
{
	return READ_ONCE(h->mm->notifier_subscriptions->invalidate_seq);
}

static inline void expect_state(const struct host *h, unsigned long seq, unsigned long windows)
{
	expect_eq(global_seq(h), seq);
	expect_eq(h->mm->notifier_subscriptions->active_invalidate_ranges, windows);
}

/* ---- threads ---- */

struct interval_thread {
	struct interval *i;
	unsigned long seq; /* what read_begin returned */
	atomic_t done;
	struct kthread thread;
};

static inline void run_remove(void *arg)
{
	struct interval_thread *t = arg;

	interval_leave(t->i);
	atomic_set_release(&t->done, 1);
}

static inline void run_read_begin(void *arg)
{
	struct interval_thread *t = arg;

	t->seq = mmu_interval_read_begin(&t->i->sub);
	atomic_set_release(&t->done, 1);
}

static inline void interval_thread_start(struct interval_thread *t, struct interval *i,
					 void (*fn)(void *arg))
{
	*t = (struct interval_thread){.i = i};
	expect_eq(kthread_run(&t->thread, "interval", fn, t), 0);
}

/*
 * Until @nr threads have found that they have to wait for the end of the phase; @t is one of them.
 * They stand between two looks at what they wait for, or sleep: only the end lets them go on.
 */
static inline void until_waiting(struct host *h, uint32_t nr, struct interval_thread *t)
{
	while (READ_ONCE(h->mm->notifier_subscriptions->wq.waiters) < nr &&
	       !atomic_read_acquire(&t->done))
		sched_yield();
	expect_eq(atomic_read(&t->done), 0);
}

/* ---- warnings ---- */

static char last_warning[256];
static atomic_t nr_warnings;

static inline void note_warning(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	if (level != GNOMON_LOG_WARN)
		return;
	strncpy(last_warning, message, sizeof(last_warning) - 1);
	atomic_inc(&nr_warnings);
}

/* From here on warnings are counted, not printed; at the end there were @nr. */
static inline void warnings_begin(void)
{
	atomic_set(&nr_warnings, 0);
	gnomon_set_log(note_warning, NULL);
}

static inline void warnings_end(int nr)
{
	gnomon_set_log(NULL, NULL);
	expect_eq(atomic_read(&nr_warnings), nr);
}

#endif
