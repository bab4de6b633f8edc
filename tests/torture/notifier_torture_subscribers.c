/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Subscribers that look at everything they are told. What each of them holds:
 *
 *   it is alive		no callback after it was left to be freed (its memory is poisoned)
 *   its starts and ends	an end has had its start; and at exit, when no window can be open, a
 *				subscriber that was there all along has had as many of the one as of
 *				the other
 *   it is freed once		by free_notifier, or by us; what was allocated is freed at the end
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/sync/wait.h"
#include "tests/torture/notifier_torture.h"

#define ALIVE  0x600d600d600d600dUL
#define POISON 0xde

static atomic64_t nr_alive; /* subscribers, shared ones and intervals */

struct subscriber {
	struct mmu_notifier mn;
	uint64_t state;
	enum kind kind;
	bool permanent;
	atomic64_t starts, ends;
	atomic_t releases;
	struct srcu_head rcu;
};

static struct subscriber *subscriber_of(struct mmu_notifier *mn)
{
	struct subscriber *s = container_of(mn, struct subscriber, mn);

	if (READ_ONCE(s->state) != ALIVE)
		torture_error("a callback of a subscriber that is gone", s);
	return s;
}

static struct subscriber *subscriber_alloc(enum kind kind)
{
	struct subscriber *s = calloc(1, sizeof(*s));

	if (!s)
		abort();
	s->state = ALIVE;
	s->kind = kind;
	atomic64_inc(&nr_alive);
	return s;
}

static void subscriber_free(struct subscriber *s)
{
	if (s->state != ALIVE)
		torture_error("freed twice", s);
	memset(s, POISON, sizeof(*s));
	free(s);
	atomic64_dec(&nr_alive);
}

/* No rng here: callbacks run on whichever thread. Any number that changes will do. */
static bool now_and_then(uint64_t n, unsigned int every)
{
	return n * 0x9e3779b97f4a7c15UL >> 40 < (1UL << 24) / every;
}

static void sleep_now_and_then(const struct mmu_notifier_range *range, uint64_t n)
{
	if (!mmu_notifier_range_blockable(range) || !now_and_then(n, 300))
		return;
	fsleep(20);
	atomic64_inc(&torture.did.slept);
}

static int on_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct subscriber *s = subscriber_of(mn);
	uint64_t n = (uint64_t)atomic64_inc_return(&s->starts);

	atomic64_inc(&torture.did.callbacks);
	if (range->mm != mn->mm)
		torture_error("told of another mm", s);
	if (range->start >= range->end)
		torture_error("an empty range", s);
	if (s->kind == MAY_REFUSE && !mmu_notifier_range_blockable(range) && now_and_then(n, 2)) {
		atomic64_inc(&torture.did.refused);
		return -EAGAIN;
	}
	sleep_now_and_then(range, n);
	return 0;
}

static void on_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct subscriber *s = subscriber_of(mn);
	int64_t ends = atomic64_inc_return(&s->ends);

	atomic64_inc(&torture.did.callbacks);
	if (ends > atomic64_read(&s->starts))
		torture_error("an end without a start", s);
	sleep_now_and_then(range, (uint64_t)ends);
}

static void on_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct subscriber *s = subscriber_of(mn);

	atomic64_inc(&torture.did.callbacks);
	if (mm != mn->mm)
		torture_error("released for another mm", s);
	/* From exit, and from an unregister that meets it. */
	if (atomic_inc_return(&s->releases) > 2)
		torture_error("released three times", s);
	if (s->permanent && atomic64_read(&s->starts) != atomic64_read(&s->ends))
		torture_error("at exit its starts are not its ends", s);
}

static bool on_clear(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	struct subscriber *s = subscriber_of(mn);

	atomic64_inc(&torture.did.callbacks);
	if (mm != mn->mm || start >= end)
		torture_error("asked for the age of something else", s);
	return now_and_then((uint64_t)atomic64_read(&s->starts), 2);
}

static bool on_test(struct mmu_notifier *mn, struct mm_struct *mm, hva_t address)
{
	return on_clear(mn, mm, address, address + PAGE_SIZE);
}

static const struct mmu_notifier_ops ops[NR_KINDS] = {
	[KEEPS_COUNT] = {.release = on_release,
			 .clear_flush_young = on_clear,
			 .clear_young = on_clear,
			 .test_young = on_test,
			 .invalidate_range_start = on_start,
			 .invalidate_range_end = on_end},
	[MAY_REFUSE] = {.release = on_release, .invalidate_range_start = on_start},
};

int subscriber_register(struct mm_struct *mm, enum kind kind, struct subscriber **subscriber)
{
	struct subscriber *s = subscriber_alloc(kind);
	int ret;

	s->mn.ops = &ops[kind];
	ret = mmu_notifier_register(&s->mn, mm);
	if (!ret) {
		*subscriber = s;
		return 0;
	}
	if (ret != -EINTR)
		torture_error(strerror(-ret), s);
	subscriber_free(s);
	return ret;
}

static void free_later(struct srcu_head *rcu)
{
	subscriber_free(container_of(rcu, struct subscriber, rcu));
}

void subscriber_leave(struct subscriber *s, bool wait)
{
	struct mm_struct *mm = s->mn.mm;

	if (wait) {
		mmu_notifier_unregister(&s->mn, mm);
		if (!atomic_read(&s->releases))
			torture_error("left without a release", s);
		subscriber_free(s);
	} else {
		mmu_notifier_unregister_no_release(&s->mn, mm);
		mmu_notifier_call_srcu(&s->rcu, free_later);
	}
}

static const struct mmu_notifier_ops permanent_ops;

static struct mmu_notifier *permanent_alloc(struct mm_struct *mm)
{
	struct subscriber *s = subscriber_alloc(KEEPS_COUNT);

	(void)mm;
	s->permanent = true;
	return &s->mn;
}

/* Exit is its end: a put from ->release, as drivers do. */
static void permanent_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	on_release(mn, mm);
	mmu_notifier_put(mn);
}

static void on_free(struct mmu_notifier *mn)
{
	struct subscriber *s = subscriber_of(mn);

	atomic64_inc(&torture.did.frees);
	subscriber_free(s);
}

static const struct mmu_notifier_ops permanent_ops = {.release = permanent_release,
						      .invalidate_range_start = on_start,
						      .invalidate_range_end = on_end,
						      .alloc_notifier = permanent_alloc,
						      .free_notifier = on_free};

void permanent_register(struct mm_struct *mm)
{
	struct mmu_notifier *mn = mmu_notifier_get(&permanent_ops, mm);

	if (IS_ERR(mn))
		torture_error("no permanent subscriber", mm);
}

/* ---- shared ---- */

static struct mmu_notifier *shared_alloc(struct mm_struct *mm)
{
	(void)mm;
	return &subscriber_alloc(KEEPS_COUNT)->mn;
}

#define SHARED_OPS                                                                  \
	{                                                                           \
		.release = on_release, .clear_young = on_clear,                     \
		.invalidate_range_start = on_start, .invalidate_range_end = on_end, \
		.alloc_notifier = shared_alloc, .free_notifier = on_free,           \
	}

static const struct mmu_notifier_ops families[NR_FAMILIES] = {SHARED_OPS, SHARED_OPS, SHARED_OPS};

struct mmu_notifier *shared_get(struct mm_struct *mm, unsigned int family)
{
	struct mmu_notifier *mn = mmu_notifier_get(&families[family], mm);

	if (IS_ERR(mn)) {
		if (PTR_ERR(mn) != -EINTR)
			torture_error(strerror((int)-PTR_ERR(mn)), mm);
		return NULL;
	}
	if (mn->ops != &families[family] || mn->mm != mm)
		torture_error("got somebody else's", mn);
	return mn;
}

void shared_put(struct mmu_notifier *mn)
{
	subscriber_of(mn);
	mmu_notifier_put(mn);
}

/* ---- intervals ---- */

struct interval {
	struct mmu_interval_notifier sub;
	uint64_t state;
	struct mutex lock; /* the driver's: pfns, and around set_seq and read_retry */
	hva_t start;
	uint64_t pages;
	pfn_t pfns[MM_PAGES]; /* the secondary page table; INVALID_PFN: nothing */
	atomic_t first_passes;
};

struct token {
	struct mmu_interval_notifier_finish finish;
	uint64_t state;
};

static struct interval *interval_of(struct mmu_interval_notifier *sub)
{
	struct interval *interval = container_of(sub, struct interval, sub);

	atomic64_inc(&torture.did.callbacks);
	if (READ_ONCE(interval->state) != ALIVE)
		torture_error("a callback of an interval that is gone", interval);
	return interval;
}

/*
 * What is in the secondary, with the driver's lock held, is what the primary has: who changes that
 * has been here first, and taken it out.
 */
static void check_secondary(const struct interval *interval)
{
	for (uint64_t i = 0; i < interval->pages; i++) {
		hva_t hva = interval->start + (i << PAGE_SHIFT);

		if (interval->pfns[i] != INVALID_PFN &&
		    mm_lookup_pfn(interval->sub.mm, hva) != interval->pfns[i])
			torture_error("the secondary kept a page that is gone", interval);
	}
}

/* Trylock: who may not block must not wait for one who sleeps. */
static bool driver_lock(struct interval *interval, const struct mmu_notifier_range *range)
{
	if (!mmu_notifier_range_blockable(range))
		return mutex_trylock(&interval->lock);
	mutex_lock(&interval->lock);
	return true;
}

static bool on_invalidate(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			  unsigned long seq)
{
	struct interval *interval = interval_of(sub);

	if (range->mm != sub->mm)
		torture_error("an interval is told of another mm", interval);
	if (!driver_lock(interval, range)) {
		atomic64_inc(&torture.did.refused);
		return false;
	}
	mmu_interval_set_seq(sub, seq);
	check_secondary(interval);
	for (uint64_t i = 0; i < interval->pages; i++) {
		hva_t hva = interval->start + (i << PAGE_SHIFT);

		if (hva >= range->start && hva < range->end)
			interval->pfns[i] = INVALID_PFN;
	}
	mutex_unlock(&interval->lock);
	sleep_now_and_then(range, seq);
	return true;
}

static bool on_first_pass(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			  unsigned long seq, struct mmu_interval_notifier_finish **finish)
{
	struct interval *interval = interval_of(sub);
	struct token *token;

	if (!on_invalidate(sub, range, seq))
		return false;
	token = malloc(sizeof(*token));
	if (!token)
		abort();
	token->state = ALIVE;
	atomic_inc(&interval->first_passes);
	*finish = &token->finish;
	return true;
}

static void on_second_pass(struct mmu_interval_notifier_finish *finish)
{
	struct interval *interval = interval_of(finish->notifier);
	struct token *token = container_of(finish, struct token, finish);

	if (token->state != ALIVE)
		torture_error("finished twice", token);
	if (atomic_dec_return(&interval->first_passes) < 0)
		torture_error("a second pass without a first", interval);
	memset(token, POISON, sizeof(*token));
	free(token);
	atomic64_inc(&torture.did.two_pass);
}

static const struct mmu_interval_notifier_ops one_pass_ops = {.invalidate = on_invalidate};
static const struct mmu_interval_notifier_ops two_pass_ops = {
	.invalidate_start = on_first_pass,
	.invalidate_finish = on_second_pass,
};

struct interval *interval_insert(struct mm_struct *mm, hva_t start, uint64_t length, bool two_pass)
{
	struct interval *interval = calloc(1, sizeof(*interval));
	int ret;

	if (!interval)
		abort();
	interval->state = ALIVE;
	interval->start = start;
	interval->pages = length >> PAGE_SHIFT;
	mutex_init(&interval->lock);
	for (uint64_t i = 0; i < MM_PAGES; i++)
		interval->pfns[i] = INVALID_PFN;
	ret = mmu_interval_notifier_insert(&interval->sub, mm, start, length,
					   two_pass ? &two_pass_ops : &one_pass_ops);
	if (!ret) {
		atomic64_inc(&nr_alive);
		return interval;
	}
	if (ret != -EINTR)
		torture_error(strerror(-ret), interval);
	free(interval);
	return NULL;
}

void interval_remove(struct interval *interval)
{
	mmu_interval_notifier_remove(&interval->sub);
	if (atomic_read(&interval->first_passes))
		torture_error("removed between two passes", interval);
	memset(interval, POISON, sizeof(*interval));
	free(interval);
	atomic64_dec(&nr_alive);
}

/* The loop of the header. */
void interval_fault(struct interval *interval, struct rng *rng)
{
	uint64_t page = rng_below(rng, interval->pages);
	hva_t hva = interval->start + (page << PAGE_SHIFT);
	struct mm_struct *mm = interval->sub.mm;

	for (int round = 0; round < 100; round++) {
		unsigned long seq = mmu_interval_read_begin(&interval->sub);
		pfn_t pfn;
		bool writable, retry;

		if (hva_to_pfn(mm, hva, true, &pfn, &writable))
			return; /* out of frames, for now */
		mutex_lock(&interval->lock);
		retry = mmu_interval_read_retry(&interval->sub, seq);
		if (!retry)
			interval->pfns[page] = pfn;
		check_secondary(interval);
		mutex_unlock(&interval->lock);
		atomic64_inc(&torture.did.lookups);
		if (!retry)
			return;
		atomic64_inc(&torture.did.retries);
	}
}

void subscribers_check(void)
{
	if (atomic64_read(&nr_alive))
		torture_error("something was never freed", &nr_alive);
}
