/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A slot that is logged has no entries of 2 MiB: one of them would mark 512 pages, or none. */
#include <errno.h>

#include <gnomon/shadow_dirty.h>

#include "tests/support/huge_fixture.h"

#define WORDS ((HUGE_REGIONS + 1) * HUGE_PAGES / 64)

static void log_ram(struct guest_mem *g, bool on)
{
	const struct memslot_region ram = {.flags = on ? MEMSLOT_LOG_DIRTY : 0,
					   .npages = g->nr_pages,
					   .hva = GUEST_MEM_HVA};

	expect_eq(shadow_set_memslot(g->shadow, &ram), 0);
}

static void expect_dirty(struct guest_mem *g, gpa_t gpa)
{
	uint64_t bitmap[WORDS], page = gpa >> PAGE_SHIFT;

	expect_eq(shadow_get_dirty_log(g->shadow, 0, bitmap), 0);
	for (uint64_t n = HUGE_PAGES; n < 2 * HUGE_PAGES; n++)
		expect_eq(bitmap[n / 64] >> n % 64 & 1, n == page);
}

/* The log begins, and the entry goes; what comes then is small, and each page has its own mark. */
TEST(dirty_huge, none_while_it_is_logged)
{
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	log_ram(&g, true);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(model_store(g.model, 0, BIG, 1), -EFAULT);
	expect_eq(model_store(g.model, 1, BIG, 1), -EFAULT);
	for (gpa_t at = 0; at < MIB2; at += 37 * PAGE_SIZE) {
		guest_store(&g, 0, BIG + at, at + 1);
		expect_eq(huge_leaves(&g, MIB2), 0);
		expect_dirty(&g, MIB2 + at);
	}
	huge_done(&g);
}

/* Also where nothing else has to be protected at the beginning. */
TEST(dirty_huge, none_if_all_is_dirty_at_first)
{
	const uint64_t all[WORDS] = {[0 ... WORDS - 1] = ~0UL};
	struct guest_mem g;

	huge_fixture(&g);
	expect_eq(shadow_set_dirty_log_mode(g.shadow, SHADOW_DIRTY_MANUAL_PROTECT |
							      SHADOW_DIRTY_INITIALLY_SET),
		  0);
	map_huge(&g, MIB2);
	log_ram(&g, true);
	expect_eq(huge_leaves(&g, MIB2), 0);
	guest_store(&g, 0, BIG, 1);
	expect_eq(shadow_clear_dirty_log(g.shadow, 0, 0, g.nr_pages, all), 0);
	expect_eq(model_store(g.model, 0, BIG, 2), -EFAULT);
	guest_store(&g, 0, BIG + PAGE_SIZE, 1);
	expect_dirty(&g, MIB2 + PAGE_SIZE);
	huge_done(&g);
}

/* And they may come back. */
TEST(dirty_huge, again_when_it_ends)
{
	struct guest_mem g;

	huge_fixture(&g);
	log_ram(&g, true);
	set_pde(&g, BIG, MIB2 | LARGE);
	guest_store(&g, 0, BIG, 1);
	expect_eq(huge_leaves(&g, MIB2), 0);
	log_ram(&g, false);
	guest_reload_afresh(&g, 0);
	map_huge(&g, MIB2);
	huge_done(&g);
}

/* While they go, one after the other, the audit does not take those that are left for ours. */
TEST(dirty_huge, audited_while_they_go)
{
	static const unsigned int flags[] = {MEMSLOT_LOG_DIRTY, MEMSLOT_READONLY};

	for (unsigned int i = 0; i < 2; i++) {
		struct memslot_region ram = {.flags = flags[i], .hva = GUEST_MEM_HVA};
		struct guest_mem g;

		huge_fixture(&g);
		ram.npages = g.nr_pages;
		map_huge(&g, MIB2);
		set_pde(&g, BIG + MIB2, 2 * MIB2 | LARGE);
		guest_store(&g, 0, BIG + MIB2, 1);
		expect_eq(huge_leaves(&g, 2 * MIB2), 1);
		g.shadow->yield_after = 1;
		expect_eq(shadow_set_memslot(g.shadow, &ram), 0);
		expect_eq(huge_leaves(&g, MIB2) + huge_leaves(&g, 2 * MIB2), 0);
		huge_done(&g);
	}
}
