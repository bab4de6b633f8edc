/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of reclaim and swap have in common: a swap file, and pages that go out on demand.
 */
#ifndef TESTS_SUPPORT_SWAP_FIXTURE_H
#define TESTS_SUPPORT_SWAP_FIXTURE_H

#include <stdlib.h>

#include <gnomon/swap.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "notifier/reclaim.h"
#include "notifier/swap.h"
#include "tests/support/mm_fixture.h"

#define BASE 0x7f0000000000UL

static inline hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

static inline struct phys *test_swap_phys(uint64_t nr_frames, uint64_t nr_slots)
{
	const char *dir = getenv("TMPDIR");
	struct phys *phys = test_phys(nr_frames);

	expect_eq(phys_swap_on(phys, dir ? dir : "/tmp", nr_slots), 0);
	return phys;
}

/* Nothing is left in memory, nor in the swap file. */
static inline void test_swap_phys_done(struct phys *phys)
{
	struct reclaim_stats stats;

	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_used, 0);
	expect_eq(stats.nr_active + stats.nr_inactive, 0);
	expect_eq(phys_swap_off(phys), 0);
	test_phys_done(phys);
}

static inline uint64_t swap_used(struct phys *phys)
{
	struct reclaim_stats stats;

	phys_reclaim_stats(phys, &stats);
	return stats.swap_used;
}

static inline pte_t entry_of(struct mm_struct *mm, hva_t hva)
{
	pte_t *ptep = pgtable_lookup(mm->pgtable, hva);

	return ptep ? pte_load(ptep) : 0;
}

static inline int refs_of(struct phys *phys, pfn_t pfn)
{
	return atomic_read(&pfn_to_frame(phys, pfn)->refcount);
}

/* The page that @mm has at @hva leaves memory, if it can. */
static inline bool page_goes_out(struct mm_struct *mm, hva_t hva)
{
	pfn_t pfn = mm_lookup_pfn(mm, hva);
	bool out;

	if (pfn == INVALID_PFN || !phys_get_unless_zero(mm_phys(mm), pfn))
		return false;
	out = reclaim_page(mm_phys(mm), pfn);
	phys_put(mm_phys(mm), pfn);
	return out;
}

/* A write that begins in a window: @arg of the counting notifier. */
struct late_write {
	struct phys *phys;
	pfn_t pfn;
};

/* As mm_write() has it after its last look at the entry, with nothing stored yet. */
static inline void begin_write(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct late_write *late = cn->arg;
	pte_t *ptep = pgtable_lookup(range->mm->pgtable, range->start);
	pte_t pte = pte_load(ptep);

	late->pfn = pte_pfn(pte);
	expect(frame_pin_unless_zero(late->phys, late->pfn));
	expect(pte_touch(ptep, pte, true));
}

#endif
