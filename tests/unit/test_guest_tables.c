/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which gfns are known for tables of the guest's. That the bits are those of the tables, the audit
 * says after each step; here are the steps.
 */
#include "tests/support/memslot_fixture.h"

#define MIB2 (2UL << 20)
#define GVA  0x10000000UL
#define P1   0x1000UL

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

static bool is_table(struct guest_mem *g, gpa_t gpa)
{
	bool ret;

	spin_lock(&g->shadow->mmu_lock);
	ret = gfn_is_table(g->shadow, gpa >> PAGE_SHIFT);
	spin_unlock(&g->shadow->mmu_lock);
	return ret;
}

static gpa_t table_gpa(struct guest_mem *g, int level)
{
	return guest_pte_gpa(g, g->cr3, GVA, level) & PAGE_MASK;
}

TEST(guest_tables, from_the_link_to_the_zap)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect(is_table(&g, g.cr3)); /* the root from its load on */
	guest_map(&g, g.cr3, GVA, P1, GUEST_PTE_RW);
	expect(!is_table(&g, table_gpa(&g, 1)));
	guest_store(&g, 0, GVA, 1);
	for (int level = 1; level <= 4; level++)
		expect(is_table(&g, table_gpa(&g, level)));
	expect(!is_table(&g, P1));
	expect(!is_table(&g, 1UL << 40)); /* no slot */
	guest_reload_afresh(&g, 0);
	for (int level = 1; level <= 3; level++)
		expect(!is_table(&g, table_gpa(&g, level)));
	expect(is_table(&g, g.cr3));
	destroy(&g);
}

/* As a user's and as a supervisor's it is two pages, and one bit. */
TEST(guest_tables, the_last_of_several_takes_it)
{
	struct guest_cpu cpu;
	struct guest_mem g;
	gpa_t table;

	guest_mem_create(&g, &config);
	for (int level = 1; level <= 4; level++)
		guest_map(&g, g.cr3, GVA, P1, GUEST_PTE_RW | GUEST_PTE_U);
	table = table_gpa(&g, 1);
	guest_store(&g, 0, GVA, 1);
	cpu = *shadow_get_cpu(g.shadow, 1);
	cpu.cr0 &= ~GUEST_CR0_WP;
	expect_eq(shadow_set_cpu(g.shadow, 1, &cpu), 0);
	guest_store(&g, 1, GVA, 2);

	spin_lock(&g.shadow->mmu_lock);
	for (int left = 2; left; left--) {
		struct shadow_page *sp = guest_table_find(g.shadow, table >> PAGE_SHIFT);
		struct zap_batch batch;

		expect(sp && gfn_is_table(g.shadow, table >> PAGE_SHIFT));
		zap_batch_init(&batch);
		zap_page(g.shadow, sp, &batch);
		zap_batch_close(g.shadow, &batch);
		spin_unlock(&g.shadow->mmu_lock);
		zap_batch_flush(g.shadow, &batch);
		spin_lock(&g.shadow->mmu_lock);
	}
	expect(!gfn_is_table(g.shadow, table >> PAGE_SHIFT));
	spin_unlock(&g.shadow->mmu_lock);
	expect_eq(guest_load(&g, 0, GVA), 2);
	destroy(&g);
}

/* A piece of a large page is shadowed by a page of its gfn, and is no table. */
TEST(guest_tables, not_a_large_page)
{
	struct guest_mem_config large = config;
	struct guest_mem g;
	gpa_t pde;

	large.nr_pages = 2048;
	guest_mem_create(&g, &large);
	pde = guest_pte_gpa(&g, g.cr3, GVA, 2);
	guest_edit(&g, pde, MIB2 | GUEST_PTE_RW | GUEST_PTE_PS);
	guest_store(&g, 0, GVA, 1);
	expect(!is_table(&g, MIB2));
	expect(is_table(&g, pde));
	destroy(&g);
}

/* Tables in a slot that moves: known by their new place, once they are used there. */
TEST(guest_tables, a_slot_moves)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		const gpa_t old = SLOT_GFN << PAGE_SHIFT, new = old + 2 * PAGE_SIZE;
		const gva_t gva = 2 * GVA;
		struct guest_mem g;
		gpa_t pde;

		memslot_fixture(&g, &config);
		shadow_set_zap_policy(g.shadow, policy);
		expect_eq(place(&g, SLOT_GFN), 0);
		pde = guest_pte_gpa(&g, g.cr3, gva, 2);
		guest_edit(&g, pde, old | GUEST_PTE_RW);
		expect_eq(shadow_write_gpa(g.shadow, old, &(uint64_t){P1 | GUEST_PTE_RW}, 8), 0);
		guest_store(&g, 0, gva, 5);
		expect(is_table(&g, old));
		expect_eq(place(&g, SLOT_GFN + 2), 0);
		expect(!is_table(&g, old) && !is_table(&g, new));
		guest_edit(&g, pde, new | GUEST_PTE_RW);
		expect_eq(guest_load(&g, 0, gva), 5);
		expect(is_table(&g, new));
		memslot_fixture_done(&g);
	}
}
