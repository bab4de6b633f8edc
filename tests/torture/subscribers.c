/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The subscribers that come and go, and the registrars who bring and take them.
 *
 * Each registrar holds up to HELD of them and in each step registers one or unregisters one.
 * Memory is poisoned the moment unregister has returned; half of it goes back to the allocator at
 * once (a sanitizer, or its next owner, sees a late callback), half lies in a quarantine, where its
 * ops report whoever calls them and a late store breaks the poison.
 *
 * What is exact for a subscriber, though windows open and close all the time around it:
 *  1. An end matches a start of the same range that it saw and that is still open: it joins outside
 *     all windows, so it never sees an end alone.
 *  2. It sees every window that begins after register returned and before unregister began. The
 *     permanent subscriber that is called last has counted only windows that this one saw before.
 *  3. The windows it saw no end of were open when it left: no more than there are mutators.
 *  4. ->release once, from unregister; nothing after that returned (I4).
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "tests/torture/torture.h"

#define HELD	   4
#define MAX_OPEN   8
#define QUARANTINE 64
#define POISON	   0xa5

#define MAGIC_ALIVE 0x616c697665616c69UL

struct subscriber {
	struct mmu_notifier mn;
	uint64_t magic;
	struct torture *t;

	spinlock_t lock;
	struct {
		hva_t start, end;
	} open[MAX_OPEN]; /* under lock */
	unsigned int nr_open;
	uint64_t starts, ends;
	unsigned int noise; /* under lock: decides who yields */

	atomic_t running; /* callbacks of it, this moment */
	atomic_t releases, overlapped;

	/* A callback stays until unregister has called ->release, when the registrar asks for it.
	 */
	atomic_t linger, lingering;
	wait_queue_head_t wait;

	/* The registrar's own: what the permanent subscriber had counted around register. */
	uint64_t first_starts_before, first_starts_after, first_ends_after;
};

static struct subscriber *enter(struct mmu_notifier *mn)
{
	struct subscriber *s = container_of(mn, struct subscriber, mn);

	if (READ_ONCE(s->magic) != MAGIC_ALIVE)
		torture_fail("callback of a subscriber that is gone (magic 0x%lx)", s->magic);
	atomic_inc(&s->running);
	return s;
}

static void leave(struct subscriber *s, bool yield)
{
	/* One callback at a time does it: unregister is certain to come, and calls ->release. */
	if (atomic_read(&s->linger) && atomic_cmpxchg(&s->lingering, 0, 1) == 0) {
		wake_up_all(&s->wait);
		wait_event(s->wait, atomic_read(&s->releases));
		sched_yield();
	} else if (yield) {
		sched_yield();
	}
	if (READ_ONCE(s->magic) != MAGIC_ALIVE)
		torture_fail("a subscriber was freed under its callback (magic 0x%lx)", s->magic);
	atomic_dec(&s->running);
}

static int subscriber_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct subscriber *s = enter(mn);
	bool yield;

	spin_lock(&s->lock);
	if (s->nr_open == MAX_OPEN)
		torture_fail("%u windows open at once", s->nr_open);
	s->open[s->nr_open].start = range->start;
	s->open[s->nr_open].end = range->end;
	s->nr_open++;
	s->starts++;
	yield = s->noise++ % 8 == 0;
	spin_unlock(&s->lock);
	leave(s, yield);
	return 0;
}

static void subscriber_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct subscriber *s = enter(mn);
	unsigned int i;
	bool yield;

	spin_lock(&s->lock);
	for (i = 0; i < s->nr_open; i++) {
		if (s->open[i].start == range->start && s->open[i].end == range->end)
			break;
	}
	if (i == s->nr_open)
		torture_fail("an end of [0x%lx, 0x%lx) without its start", range->start,
			     range->end);
	s->open[i] = s->open[--s->nr_open];
	s->ends++;
	yield = s->noise++ % 8 == 0;
	spin_unlock(&s->lock);
	leave(s, yield);
}

/* Called by unregister, on the registrar's thread: so unregister has begun, and whoever is running
 * in a callback now was running when it did. */
static void subscriber_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct subscriber *s = container_of(mn, struct subscriber, mn);

	if (READ_ONCE(s->magic) != MAGIC_ALIVE || mm != s->t->g.mm)
		torture_fail("release of a subscriber that is gone");
	if (atomic_read(&s->running))
		atomic_set(&s->overlapped, 1);
	atomic_inc(&s->releases);
	wake_up_all(&s->wait);
}

static const struct mmu_notifier_ops subscriber_ops = {
	.release = subscriber_release,
	.invalidate_range_start = subscriber_start,
	.invalidate_range_end = subscriber_end,
};

static void dead_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	(void)mm;
	torture_fail("->release of %p after its unregister returned", (void *)mn);
}

static int dead_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	torture_fail("->invalidate_range_start of %p after its unregister returned", (void *)mn);
}

static void dead_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	torture_fail("->invalidate_range_end of %p after its unregister returned", (void *)mn);
}

static const struct mmu_notifier_ops dead_ops = {
	.release = dead_release,
	.invalidate_range_start = dead_start,
	.invalidate_range_end = dead_end,
};

struct registrar {
	struct torture *t;
	struct rng rng;
	struct subscriber *held[HELD];
	struct subscriber *quarantine[QUARANTINE];
	unsigned int at;
};

/* All but the ops is poison, and must still be. */
static void check_poison(const struct subscriber *s)
{
	const unsigned char *bytes = (const unsigned char *)s;

	for (size_t i = 0; i < sizeof(*s); i++) {
		if (i >= offsetof(struct subscriber, mn.ops) &&
		    i < offsetof(struct subscriber, mn.ops) + sizeof(s->mn.ops))
			continue;
		if (bytes[i] != POISON)
			torture_fail("byte %zu of a subscriber was written after its unregister "
				     "returned",
				     i);
	}
}

static void bury(struct registrar *r, struct subscriber *s)
{
	memset(s, POISON, sizeof(*s));
	if (rng_below(&r->rng, 2)) {
		kfree(s);
		return;
	}
	s->mn.ops = &dead_ops;
	r->at = (r->at + 1) % QUARANTINE;
	if (r->quarantine[r->at]) {
		check_poison(r->quarantine[r->at]);
		kfree(r->quarantine[r->at]);
	}
	r->quarantine[r->at] = s;
}

static struct subscriber *bring(struct registrar *r)
{
	struct subscriber *s = kzalloc(sizeof(*s), GFP_KERNEL);

	ASSERT(s, "out of memory");
	s->mn.ops = &subscriber_ops;
	s->magic = MAGIC_ALIVE;
	s->t = r->t;
	s->noise = rng_next(&r->rng);
	spin_lock_init(&s->lock);
	init_waitqueue_head(&s->wait);
	s->first_starts_before = atomic64_read(&permanent_first.starts);
	if (mmu_notifier_register(&s->mn, r->t->g.mm))
		torture_fail("register failed");
	s->first_starts_after = atomic64_read(&permanent_first.starts);
	s->first_ends_after = atomic64_read(&permanent_first.ends);
	return s;
}

/* Mutators are at work, so a callback will come; not for ever, in case the oracle has to speak. */
#define LINGER_MS 200

static void take(struct registrar *r, struct subscriber *s)
{
	struct torture *t = r->t;
	uint64_t starts_before, ends_before, starts_after;

	if (rng_below(&r->rng, 6) == 0) {
		atomic_set(&s->linger, 1);
		if (!wait_event_timeout(s->wait, atomic_read(&s->lingering), LINGER_MS))
			atomic64_inc(&t->short_waits);
	}

	ends_before = atomic64_read(&permanent_first.ends);
	starts_before = atomic64_read(&permanent_first.starts);
	mmu_notifier_unregister(&s->mn, t->g.mm);
	starts_after = atomic64_read(&permanent_first.starts);

	/* No lock: nobody else is here any more. */
	if (atomic_read(&s->running))
		torture_fail("unregister returned while a callback was running");
	if (atomic_read(&s->releases) != 1)
		torture_fail("%d releases", atomic_read(&s->releases));
	if (s->starts - s->ends != s->nr_open || s->nr_open > NR_MUTATORS)
		torture_fail("%lu starts, %lu ends, %u open", s->starts, s->ends, s->nr_open);
	if (s->starts < starts_before - s->first_starts_after)
		torture_fail("missed a start: saw %lu of at least %lu", s->starts,
			     starts_before - s->first_starts_after);
	if (s->starts > starts_after - s->first_starts_before + NR_MUTATORS)
		torture_fail("saw %lu starts of at most %lu", s->starts,
			     starts_after - s->first_starts_before + NR_MUTATORS);
	if ((int64_t)s->ends < (int64_t)(ends_before - s->first_ends_after))
		torture_fail("missed an end: saw %lu of at least %lu", s->ends,
			     ends_before - s->first_ends_after);
	if (atomic_read(&s->overlapped))
		atomic64_inc(&t->overlapped);
	atomic64_inc(&t->pairs);
	bury(r, s);
}

void registrar_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct registrar r = {.t = thread->t};

	rng_init(&r.rng, r.t->opt.seed, 100 + thread->nr);
	while ((uint64_t)atomic64_read(&r.t->pairs) < r.t->opt.pairs &&
	       torture_phase(r.t) == PHASE_RUN) {
		struct subscriber **slot = &r.held[rng_below(&r.rng, HELD)];

		if (*slot) {
			take(&r, *slot);
			*slot = NULL;
		} else {
			*slot = bring(&r);
		}
	}
	for (unsigned int i = 0; i < HELD; i++) {
		if (r.held[i])
			take(&r, r.held[i]);
	}
	for (unsigned int i = 0; i < QUARANTINE; i++) {
		if (!r.quarantine[i])
			continue;
		check_poison(r.quarantine[i]);
		kfree(r.quarantine[i]);
	}
}
