/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * retire: a shadow table that was unlinked must not be used elsewhere while a CPU may still walk to
 * it from its old place.
 *
 *   CPU 1                            CPU 0
 *   -----                            -----
 *   loads from region A: caches the
 *     directory entry A -> table T
 *                                    the guest gives region A another table;
 *                                    touches A elsewhere: the fault zaps T and lets go of it
 *                                    touches region B: its new table is T again
 *   loads from region A: must not
 *     walk through T and find B's page
 *
 * The machine hands tables out again last in, first out, so that T comes back at once.
 */
#include "tests/races/races.h"

#define REGION	 (1UL << 21)
#define A	 (4 * REGION)
#define B	 (5 * REGION)
#define PAGE_OLD 0x1000UL /* what A maps at first */
#define PAGE_NEW 0x2000UL /* what A maps later */
#define PAGE_B	 0x4000UL

static uint64_t load_after_reuse(unsigned int broken, uint64_t *violations)
{
	struct guest_mem_config config = {.broken = broken,
					  .nr_cpus = 2,
					  .reuse = MODEL_REUSE_LIFO};
	struct model_stats stats;
	struct guest_mem g;
	uint64_t value;
	gpa_t pde;

	guest_mem_create(&g, &config);
	guest_write(&g, PAGE_OLD, 0x01d);
	guest_write(&g, PAGE_NEW, 0x9e3);
	guest_write(&g, PAGE_B, 0xb);
	guest_map(&g, g.cr3, A, PAGE_OLD, GUEST_PTE_RW);
	guest_map(&g, g.cr3, B, PAGE_B, GUEST_PTE_RW);
	pde = guest_pte_gpa(&g, g.cr3, A, 2);

	expect_eq(guest_load(&g, 1, A), 0x01d);

	guest_write(&g, pde, guest_new_table(&g) | GUEST_PTE_RW);
	guest_map(&g, g.cr3, A, PAGE_NEW, GUEST_PTE_RW);
	guest_map(&g, g.cr3, A + PAGE_SIZE, PAGE_NEW, GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, A + PAGE_SIZE), 0x9e3);
	expect_eq(guest_load(&g, 0, B), 0xb);

	value = guest_load(&g, 1, A);
	model_get_stats(g.model, &stats);
	expect_ge(stats.tables_reused, 1);
	*violations = stats.contract_violations;
	guest_mem_destroy(&g);
	return value;
}

TEST(retire, protected)
{
	uint64_t violations;

	expect_eq(load_after_reuse(0, &violations), 0x9e3);
	expect_eq(violations, 0);
}

TEST(retire, broken)
{
	uint64_t violations;

	expect_eq(load_after_reuse(SHADOW_BREAK_RETIRE, &violations), 0xb);
	expect_ge(violations, 1);
}
