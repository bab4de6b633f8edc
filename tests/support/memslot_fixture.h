/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest with a second slot to be changed under it: slot 0 is its RAM, with its page tables, and
 * SLOT shows host memory of its own, whose pages know their number.
 */
#ifndef TESTS_SUPPORT_MEMSLOT_FIXTURE_H
#define TESTS_SUPPORT_MEMSLOT_FIXTURE_H

#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/test.h"

#define SLOT	   1
#define SLOT_PAGES 8UL
#define SLOT_HVA   0x6000000000UL
#define SLOT_GFN   0x1000UL
#define SLOT_GVA   0x10000000UL /* maps the gfns from SLOT_GFN - SLOT_PAGES on, 3 * SLOT_PAGES */

static const enum shadow_zap_policy both_policies[] = {SHADOW_ZAP_ALL, SHADOW_ZAP_SLOT};

#define for_each_policy(policy) \
	for (unsigned int p_ = 0; p_ < 2 && (((policy) = both_policies[p_]), true); p_++)

static inline int set_slot(struct guest_mem *g, unsigned int id, gfn_t base, uint64_t npages,
			   hva_t hva, unsigned int flags)
{
	const struct memslot_region region = {
		.id = id, .flags = flags, .base_gfn = base, .npages = npages, .hva = hva};

	return shadow_set_memslot(g->shadow, &region);
}

/* SLOT at @base; or nowhere. */
static inline int place(struct guest_mem *g, gfn_t base)
{
	return set_slot(g, SLOT, base, SLOT_PAGES, SLOT_HVA, 0);
}

static inline int delete_slot(struct guest_mem *g, unsigned int id)
{
	return set_slot(g, id, 0, 0, 0, 0);
}

static inline gva_t slot_gva(gfn_t gfn)
{
	return SLOT_GVA + ((gfn - (SLOT_GFN - SLOT_PAGES)) << PAGE_SHIFT);
}

static inline uint64_t stamp(uint64_t page)
{
	return 0x57a3b00000000000UL + page;
}

static inline void stamp_pages(struct guest_mem *g)
{
	for (uint64_t i = 0; i < SLOT_PAGES; i++) {
		uint64_t word = stamp(i);

		expect_eq(mm_write(g->mm, SLOT_HVA + i * PAGE_SIZE, &word, sizeof(word)), 0);
	}
}

/* The second slot is not placed yet. */
static inline void memslot_fixture(struct guest_mem *g, const struct guest_mem_config *config)
{
	guest_mem_create(g, config);
	expect_eq(mm_mmap(g->mm, SLOT_HVA, SLOT_PAGES * PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE,
			  NULL, 0),
		  0);
	stamp_pages(g);
	for (gfn_t gfn = SLOT_GFN - SLOT_PAGES; gfn < SLOT_GFN + 2 * SLOT_PAGES; gfn++)
		guest_map(g, g->cr3, slot_gva(gfn), gfn << PAGE_SHIFT, GUEST_PTE_RW);
}

static inline void memslot_fixture_done(struct guest_mem *g)
{
	struct model_stats stats;
	char why[256];

	if (shadow_audit(g->shadow, why, sizeof(why)))
		fail("audit: %s", why);
	model_get_stats(g->model, &stats);
	expect_eq(stats.contract_violations, 0);
	guest_mem_destroy(g);
}

/* No CPU reaches a page of SLOT_HVA. */
static inline void expect_unreached(struct guest_mem *g)
{
	for (uint64_t i = 0; i < SLOT_PAGES; i++) {
		pfn_t pfn = mm_lookup_pfn(g->mm, SLOT_HVA + i * PAGE_SIZE);

		expect(pfn == INVALID_PFN || !model_cached(g->model, pfn));
	}
}

#endif
