/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of same-page merging: a machine with a scanner, mms with mergeable pages, and what
 * their frames look like.
 */
#ifndef TESTS_SUPPORT_KSM_FIXTURE_H
#define TESTS_SUPPORT_KSM_FIXTURE_H

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "tests/support/areas.h"
#include "tests/support/mm_fixture.h"

#define P PAGE_SIZE

struct host {
	struct phys *phys;
	struct ksm *ksm;
};

static inline void host_init(struct host *h, uint64_t nr_frames)
{
	h->phys = test_phys(nr_frames);
	h->ksm = ksm_create(h->phys);
	expect(h->ksm);
}

/* Every mm is gone. */
static inline void host_done(struct host *h)
{
	ksm_destroy(h->ksm);
	test_phys_done(h->phys);
}

/* The same with a swap file. */
static inline void host_init_swap(struct host *h, uint64_t nr_frames, uint64_t nr_slots)
{
	const char *dir = getenv("TMPDIR");

	host_init(h, nr_frames);
	expect_eq(phys_swap_on(h->phys, dir ? dir : "/tmp", nr_slots), 0);
}

static inline void host_done_swap(struct host *h)
{
	expect_eq(phys_swap_off(h->phys), 0); /* nothing is in it */
	host_done(h);
}

/* With @nr private pages that ask to be merged, untouched. */
static inline struct mm_struct *mergeable_mm(struct host *h, uint64_t nr)
{
	struct mm_struct *mm = test_mm(h->phys);

	expect_eq(mm_mmap(mm, area_page(0), nr * P, RW, NULL, 0), 0);
	expect_eq(mm_madvise(mm, area_page(0), nr * P, MM_MADV_MERGEABLE), 0);
	return mm;
}

/* Page @n holds @word everywhere. */
static inline void fill_page(struct mm_struct *mm, uint64_t n, uint64_t word)
{
	uint64_t words[P / sizeof(word)];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = word;
	expect_eq(mm_write(mm, area_page(n), words, sizeof(words)), 0);
}

static inline void expect_page(struct mm_struct *mm, uint64_t n, uint64_t word)
{
	uint64_t words[P / sizeof(word)];

	expect_eq(mm_read(mm, area_page(n), words, sizeof(words)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		expect_eq(words[i], word);
}

static inline pfn_t pfn_of(struct mm_struct *mm, uint64_t n)
{
	return mm_lookup_pfn(mm, area_page(n));
}

/* A whole round; returns what it saved. */
static inline long scan_round(struct host *h)
{
	return ksm_scan(h->ksm, ULONG_MAX);
}

/* Two rounds: what does not change is compared in the second. */
static inline long scan_settled(struct host *h)
{
	long merged = scan_round(h);

	return merged + scan_round(h);
}

static inline struct ksm_stats stats_of(struct host *h)
{
	struct ksm_stats stats;

	ksm_get_stats(h->ksm, &stats);
	return stats;
}

static inline void expect_shared(struct host *h, uint64_t shared, uint64_t sharing)
{
	struct ksm_stats stats = stats_of(h);

	expect_eq(stats.pages_shared, shared);
	expect_eq(stats.pages_sharing, sharing);
}

/* A merged page that is mapped @mappings times, by nobody who could write, and held by nobody else.
 */
static inline void expect_merged(struct host *h, pfn_t pfn, int mappings)
{
	const struct frame *frame = pfn_to_frame(h->phys, pfn);

	expect(frame_is_ksm(frame));
	expect_eq(frame_ksm_page(frame)->pfn, pfn);
	expect_eq(atomic_read(&frame->mapcount), mappings);
	expect_eq(atomic_read(&frame->refcount), mappings);
}

static inline int count_sites(const struct ksm_site *site)
{
	return site ? 1 + count_sites(RB_LEFT(site, node)) + count_sites(RB_RIGHT(site, node)) : 0;
}

/* Places where a merged page may be mapped. */
static inline int sites_of(struct host *h, pfn_t pfn)
{
	return count_sites(RB_ROOT(&frame_ksm_page(pfn_to_frame(h->phys, pfn))->sites));
}

/* A page of one's own, with one mapping. */
static inline void expect_own(struct host *h, pfn_t pfn)
{
	const struct frame *frame = pfn_to_frame(h->phys, pfn);

	expect(frame_anon_vma(frame));
	expect_eq(atomic_read(&frame->mapcount), 1);
	expect_eq(atomic_read(&frame->refcount), 1);
}

static inline uint64_t used_frames(struct host *h)
{
	return phys_nr_frames(h->phys) - phys_nr_free(h->phys);
}

#endif
