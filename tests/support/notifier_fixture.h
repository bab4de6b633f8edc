/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of the notifier core: an mm with some memory, subscribers that record what they are
 * told, and threads that do one thing.
 */
#ifndef TESTS_SUPPORT_NOTIFIER_FIXTURE_H
#define TESTS_SUPPORT_NOTIFIER_FIXTURE_H

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "notifier/sync/thread.h"
#include "tests/support/asleep.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

#define HVA   0x100000000UL
#define PAGES 8UL
#define LEN   (PAGES << PAGE_SHIFT)

struct host {
	struct phys *phys;
	struct mm_struct *mm;
};

/* An mm with a private, touched mapping at HVA. */
static inline void host_init(struct host *h)
{
	char page[PAGE_SIZE];

	memset(page, 0x5a, sizeof(page));
	expect_eq(phys_create(&h->phys, 64), 0);
	h->mm = mm_alloc(h->phys);
	expect(h->mm);
	expect_eq(mm_mmap(h->mm, HVA, LEN, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
	for (uint64_t i = 0; i < PAGES; i++)
		expect_eq(mm_write(h->mm, HVA + (i << PAGE_SHIFT), page, sizeof(page)), 0);
}

static inline void host_destroy(struct host *h)
{
	if (h->mm)
		mmput(h->mm);
	expect_eq(phys_nr_free(h->phys), phys_nr_frames(h->phys));
	phys_destroy(h->phys);
}

/* Counts what it is told; may park in its callbacks, or refuse. */
struct recorder {
	struct mmu_notifier mn;
	char name;
	char *log; /* of names, in the order of calls; one thread only */
	atomic_t starts, ends, releases;
	bool refuse;
	struct mmu_notifier_range last;
	struct park *start_park, *end_park;
	struct park *release_park[2]; /* of the first and the second ->release */
	struct phys *phys;	      /* look at its frames in ->release */
	uint64_t nr_free;
	atomic_t freed_early;
};

static inline void append(struct recorder *r)
{
	if (r->log)
		strncat(r->log, &r->name, 1);
}

static inline int recorder_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct recorder *r = container_of(mn, struct recorder, mn);

	append(r);
	r->last = *range;
	atomic_inc(&r->starts);
	if (r->start_park)
		park_enter(r->start_park);
	return r->refuse ? -EAGAIN : 0;
}

static inline void recorder_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct recorder *r = container_of(mn, struct recorder, mn);

	(void)range;
	append(r);
	if (r->end_park)
		park_enter(r->end_park);
	atomic_inc(&r->ends);
}

static inline void recorder_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct recorder *r = container_of(mn, struct recorder, mn);
	int call = atomic_inc_return(&r->releases);

	expect(mm == mn->mm);
	append(r);
	if (call <= 2 && r->release_park[call - 1])
		park_enter(r->release_park[call - 1]);
	if (r->phys && phys_nr_free(r->phys) != r->nr_free)
		atomic_inc(&r->freed_early);
}

static const struct mmu_notifier_ops recorder_ops = {
	.release = recorder_release,
	.invalidate_range_start = recorder_start,
	.invalidate_range_end = recorder_end,
};

/* A subscriber that can refuse has no end (N-35). */
static const struct mmu_notifier_ops refuser_ops = {
	.release = recorder_release,
	.invalidate_range_start = recorder_start,
};

static inline void recorder_init(struct recorder *r, char name, char *log)
{
	*r = (struct recorder){.mn.ops = &recorder_ops, .name = name, .log = log};
}

static inline void expect_counts(struct recorder *r, int starts, int ends, int releases)
{
	expect_eq(atomic_read(&r->starts), starts);
	expect_eq(atomic_read(&r->ends), ends);
	expect_eq(atomic_read(&r->releases), releases);
}

/* A window as a mutation opens it, with nothing mutated. */
static inline void window(struct mm_struct *mm)
{
	struct mmu_notifier_range range;

	mmap_read_lock(mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, HVA, HVA + LEN);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
}

static inline int window_nonblock(struct mm_struct *mm)
{
	struct mmu_notifier_range range;
	int ret;

	mmap_read_lock(mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, mm, HVA,
				HVA + LEN);
	ret = mmu_notifier_invalidate_range_start_nonblock(&range);
	if (!ret)
		mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
	return ret;
}

struct thread_arg {
	struct host *h;
	struct recorder *r;
	atomic_t done;
};

static inline void run_window(void *arg)
{
	struct thread_arg *t = arg;

	window(t->h->mm);
	atomic_set(&t->done, 1);
}

static inline void run_unregister(void *arg)
{
	struct thread_arg *t = arg;

	mmu_notifier_unregister(&t->r->mn, t->r->mn.mm);
	atomic_set(&t->done, 1);
}

static inline void run_exit(void *arg)
{
	struct thread_arg *t = arg;
	struct mm_struct *mm = t->h->mm;

	mmput(mm);
	atomic_set(&t->done, 1);
}

static inline void wait_for_releases(struct recorder *r, int nr)
{
	while (atomic_read(&r->releases) < nr)
		sched_yield();
}

#endif
