/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * zap, shootdown: the two halves of taking a mapping away.
 *
 *   CPU 0                                   host
 *   -----                                   ----
 *   stores STAMP to the page: entry and
 *     TLB name frame A
 *                                           start: clears the entry (zap),
 *                                             tells CPU 0 (shootdown)
 *                                           copies A to B, poisons and frees A; end
 *   loads: faults, gets B, reads STAMP
 *     (entry or TLB still there: reads A's poison)
 */
#include "tests/races/races.h"

enum how { BY_RANGE, BY_FRAME, WHILE_UNMAPPED };

/* Move the page behind @gva to another frame in one of the ways there are. */
static void move(struct guest_mem *g, gva_t gva, enum how how)
{
	hva_t hva = guest_hva(gva);

	switch (how) {
	case BY_RANGE:
		expect_eq(mm_migrate_range(g->mm, hva, PAGE_SIZE), 1);
		break;
	case BY_FRAME:
		expect_eq(migrate_frame(g->phys, mm_lookup_pfn(g->mm, hva)), 0);
		break;
	case WHILE_UNMAPPED: /* nobody is told of the move: the zap before it had to do */
		expect_eq(mm_zap_range(g->mm, hva, PAGE_SIZE), 1);
		expect_eq(migrate_mapping_page(g->ram, gva >> PAGE_SHIFT), 0);
		break;
	}
}

static uint64_t load_after_move(unsigned int broken, enum how how)
{
	struct guest_mem_config config = {.broken = broken, .nr_cpus = 2};
	struct guest_mem g;
	uint64_t value;
	pfn_t old;

	guest_mem_create(&g, &config);
	old = stamp_page(&g, PAGE_A);
	expect_eq(guest_load(&g, 1, PAGE_A), STAMP);
	expect_eq(model_cached(g.model, old), 2);

	move(&g, PAGE_A, how);
	expect_eq(model_cached(g.model, old), broken ? 2 : 0);
	value = guest_load(&g, 0, PAGE_A);
	expect_eq(guest_load(&g, 1, PAGE_A), value);
	if (!broken) {
		expect_ne(mm_lookup_pfn(g.mm, guest_hva(PAGE_A)), old);
		guest_store(&g, 0, PAGE_A, STAMP + 1);
		expect_eq(guest_read(&g, PAGE_A), STAMP + 1);
		expect_contract_kept(&g);
	}
	guest_mem_destroy(&g);
	return value;
}

TEST(zap, protected)
{
	for (enum how how = BY_RANGE; how <= WHILE_UNMAPPED; how++)
		expect_eq(load_after_move(0, how), STAMP);
}

TEST(zap, broken)
{
	for (enum how how = BY_RANGE; how <= WHILE_UNMAPPED; how++)
		expect_eq(load_after_move(SHADOW_BREAK_ZAP, how), PHYS_POISON);
}

TEST(shootdown, broken)
{
	for (enum how how = BY_RANGE; how <= WHILE_UNMAPPED; how++)
		expect_eq(load_after_move(SHADOW_BREAK_SHOOTDOWN, how), PHYS_POISON);
}
