/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The judge of a dirty log (T-06): memory that is stamped with epochs.
 *
 * Whoever writes stores, to random pages, a word that begins with the number of the epoch. Pages
 * are collected all the while. Between two epochs nobody writes, and what was collected since the
 * last such moment must be what the memory says:
 *
 *   dirty   its word is of this epoch		else a page was reported that nobody wrote
 *   clean   its word is of an earlier one	else a store was missed
 *
 * No exceptions: a fault that is given the right to store ends with the store, in the same epoch.
 * Two more oracles look while they write. A copy, made of each page after the call that reported
 * it, is in the end what the memory is: the last store to each page was reported after it was done.
 * And a store that began after the last call had returned, and was over before this one began, is
 * in this one (gnomon/shadow_dirty.h).
 *
 * All of that is true of a guest that does nothing, so judge_verdict() asks for a minimum.
 */
#ifndef TESTS_SUPPORT_DIRTY_JUDGE_H
#define TESTS_SUPPORT_DIRTY_JUDGE_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/atomic.h"
#include "tests/support/test.h"

enum judge_mode { JUDGE_BITMAP, JUDGE_MANUAL, JUDGE_INITIALLY_SET, JUDGE_RING, NR_JUDGE_MODES };

#define JUDGE_PAGES	   256	/* that are written to, */
#define JUDGE_FIRST	   64	/* from this one of slot 0 on */
#define JUDGE_SLOT_PAGES   1024 /* at most */
#define JUDGE_RING_ENTRIES 64u
#define JUDGE_RINGS	   5

#define JUDGE_EPOCH_SHIFT 32

struct judge {
	struct shadow *shadow;
	enum judge_mode mode;
	uint64_t npages; /* of slot 0 */
	unsigned int nr_vcpus;

	bool dirty[JUDGE_PAGES], now[JUDGE_PAGES]; /* in this epoch; in this call */
	uint64_t copy[JUDGE_PAGES];
	uint32_t next[JUDGE_RINGS];

	/* Writers: before a store, how many calls had returned; and of their last store that is
	 * over. */
	atomic64_t returned;
	atomic64_t done[JUDGE_PAGES];
	bool overdue[JUDGE_PAGES];

	/* What there was. */
	atomic64_t stores;
	uint64_t epochs, calls, calls_beside, reported;
	uint64_t missed, phantom, stale, late; /* the four ways to be wrong */
	char first[160];
};

__attribute__((format(printf, 3, 4))) static inline void judge_wrong(struct judge *j,
								     uint64_t *count,
								     const char *fmt, ...)
{
	va_list ap;

	++*count;
	if (j->first[0])
		return;
	va_start(ap, fmt);
	vsnprintf(j->first, sizeof(j->first), fmt, ap);
	va_end(ap);
}

static inline gpa_t judge_gpa(unsigned int page)
{
	return (JUDGE_FIRST + (gpa_t)page) << PAGE_SHIFT;
}

static inline uint64_t judge_read(struct judge *j, unsigned int page)
{
	uint64_t word = 0;
	int ret = shadow_read_gpa(j->shadow, judge_gpa(page), &word, sizeof(word));

	if (ret)
		fail("page %u cannot be read: %d", page, ret);
	return word;
}

/* ---- a writer ---- */

static inline uint64_t judge_store_begins(struct judge *j)
{
	return atomic64_read_acquire(&j->returned);
}

static inline void judge_store_is_over(struct judge *j, unsigned int page, uint64_t began)
{
	atomic64_set_release(&j->done[page], (int64_t)began);
	atomic64_inc(&j->stores);
}

/* ---- who collects ---- */

static inline void judge_report(struct judge *j, uint64_t page)
{
	if (page >= JUDGE_FIRST && page < JUDGE_FIRST + JUDGE_PAGES)
		j->now[page - JUDGE_FIRST] = true;
}

/* What is in a ring, and given back. True: the ring was full of it. */
static inline bool judge_drain(struct judge *j, unsigned int nr)
{
	struct shadow_dirty_gfn *ring = shadow_dirty_ring(j->shadow, nr);
	unsigned int found = 0;

	for (;;) {
		struct shadow_dirty_gfn *entry = &ring[j->next[nr] % JUDGE_RING_ENTRIES];

		if (!shadow_dirty_gfn_filled(entry))
			return found >= JUDGE_RING_ENTRIES;
		expect(entry->slot < MEMSLOT_MAX);
		if (entry->slot == 0)
			judge_report(j, entry->offset);
		shadow_dirty_gfn_done(entry);
		j->next[nr]++;
		found++;
	}
}

static inline void judge_collect_rings(struct judge *j)
{
	bool more = true;

	for (unsigned int i = 0; i < j->nr_vcpus; i++)
		judge_drain(j, i);
	/* Once is enough for the vCPUs': what comes meanwhile is for the next call. */
	while (more) {
		expect_ge(shadow_reset_dirty_rings(j->shadow), 0);
		more = judge_drain(j, j->nr_vcpus);
	}
}

static inline void judge_collect_bitmap(struct judge *j)
{
	uint64_t bitmap[JUDGE_SLOT_PAGES / 64];

	expect_le(j->npages, JUDGE_SLOT_PAGES);
	expect_eq(shadow_get_dirty_log(j->shadow, 0, bitmap), 0);
	if (j->mode != JUDGE_BITMAP)
		expect_eq(shadow_clear_dirty_log(j->shadow, 0, 0, j->npages, bitmap), 0);
	for (uint64_t n = 0; n < j->npages; n++) {
		if (bitmap[n / 64] >> n % 64 & 1)
			judge_report(j, n);
	}
}

/* One call. @beside: somebody writes meanwhile. */
static inline void judge_collect(struct judge *j, bool beside)
{
	int64_t calls = atomic64_read(&j->returned);

	for (unsigned int i = 0; i < JUDGE_PAGES; i++) {
		j->overdue[i] = atomic64_read_acquire(&j->done[i]) == calls;
		j->now[i] = false;
	}
	if (j->mode == JUDGE_RING)
		judge_collect_rings(j);
	else
		judge_collect_bitmap(j);
	atomic64_set_release(&j->returned, calls + 1);

	j->calls++;
	j->calls_beside += beside;
	for (unsigned int i = 0; i < JUDGE_PAGES; i++) {
		if (j->overdue[i] && !j->now[i])
			judge_wrong(j, &j->late, "call %ld does not report page %u", (long)calls,
				    i);
		if (!j->now[i])
			continue;
		j->dirty[i] = true;
		j->reported++;
		j->copy[i] = judge_read(j, i);
	}
}

/* Nobody writes, and all that was written was of @epoch. */
static inline void judge_epoch(struct judge *j, uint64_t epoch)
{
	judge_collect(j, false);
	for (unsigned int i = 0; i < JUDGE_PAGES; i++) {
		uint64_t word = judge_read(j, i);

		if (j->dirty[i] && word >> JUDGE_EPOCH_SHIFT != epoch)
			judge_wrong(j, &j->phantom, "epoch %lu: page %u is dirty, and holds %#lx",
				    epoch, i, word);
		if (!j->dirty[i] && word >> JUDGE_EPOCH_SHIFT >= epoch)
			judge_wrong(j, &j->missed, "epoch %lu: page %u is clean, and holds %#lx",
				    epoch, i, word);
		if (j->copy[i] != word)
			judge_wrong(j, &j->stale, "epoch %lu: page %u was copied as %#lx, is %#lx",
				    epoch, i, j->copy[i], word);
		j->dirty[i] = false;
	}
	j->epochs++;
}

/* ---- begin and end ---- */

static inline void judge_init(struct judge *j, struct shadow *shadow, enum judge_mode mode,
			      uint64_t npages, unsigned int nr_vcpus)
{
	const unsigned int both = SHADOW_DIRTY_MANUAL_PROTECT | SHADOW_DIRTY_INITIALLY_SET;

	memset(j, 0, sizeof(*j));
	j->shadow = shadow;
	j->mode = mode;
	j->npages = npages;
	j->nr_vcpus = nr_vcpus;
	expect_le(nr_vcpus + 1, JUDGE_RINGS);
	for (unsigned int i = 0; i < JUDGE_PAGES; i++)
		atomic64_set(&j->done[i], -1);
	if (mode == JUDGE_RING)
		expect_eq(shadow_enable_dirty_rings(shadow, JUDGE_RING_ENTRIES), 0);
	else if (mode != JUDGE_BITMAP)
		expect_eq(shadow_set_dirty_log_mode(shadow, mode == JUDGE_MANUAL
								    ? SHADOW_DIRTY_MANUAL_PROTECT
								    : both),
			  0);
}

/* Slot 0 is logged. What it begins with is not judged. */
static inline void judge_begin(struct judge *j)
{
	judge_collect(j, false);
	for (unsigned int i = 0; i < JUDGE_PAGES; i++) {
		j->copy[i] = judge_read(j, i);
		j->dirty[i] = false;
	}
	j->calls = j->reported = 0;
}

/* NULL: all was right, and there was enough of it. */
static inline const char *judge_verdict(struct judge *j, uint64_t epochs, uint64_t stores,
					uint64_t calls_beside)
{
	static char verdict[256];

	if (j->first[0])
		snprintf(verdict, sizeof(verdict),
			 "%s (%lu missed, %lu phantom, %lu stale, %lu late)", j->first, j->missed,
			 j->phantom, j->stale, j->late);
	else if (j->epochs < epochs || (uint64_t)atomic64_read(&j->stores) < stores ||
		 j->calls_beside < calls_beside || j->reported < j->epochs)
		snprintf(verdict, sizeof(verdict),
			 "too little: %lu epochs, %ld stores, %lu pages reported, %lu calls beside",
			 j->epochs, (long)atomic64_read(&j->stores), j->reported, j->calls_beside);
	else
		return NULL;
	return verdict;
}

#endif
