/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the races share. Each is one scenario, run twice: with all protections on, when the oracle
 * finds nothing, and with the one protection that it is about switched off, when it must find the
 * damage every time. Threads meet at parks and hooks, never by sleeping.
 */
#ifndef TESTS_RACES_RACES_H
#define TESTS_RACES_RACES_H

#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define PAGE_A 0x3000UL /* a guest page in the identity map */
#define STAMP  0x57a3b00000000001UL

/* The page under test holds STAMP, and CPU 0 has stored there: its TLB has the page, dirty. */
static inline pfn_t stamp_page(struct guest_mem *g, gva_t gva)
{
	guest_store(g, 0, gva, STAMP);
	expect_eq(guest_load(g, 0, gva), STAMP);
	return mm_lookup_pfn(g->mm, guest_hva(gva));
}

/* What a machine that was never asked anything wrong says. */
static inline void expect_contract_kept(struct guest_mem *g)
{
	struct model_stats stats;
	char why[256];

	model_get_stats(g->model, &stats);
	expect_eq(stats.contract_violations, 0);
	if (shadow_audit(g->shadow, why, sizeof(why)))
		fail("audit: %s", why);
}

#endif
