/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a walk of the guest's tables leaves behind in its structure, and which edits of them it is
 * no longer good after.
 */
#include "tests/support/walk_fixture.h"

/* ---- what a walk leaves behind ---- */

static void spoil(struct guest_walk *walk, uint32_t *code)
{
	spoil_walk(walk);
	*code = 0x5a5a5a5a;
}

/* Where nothing was read it says so: of a fault it is told further. */
TEST(guest_walk_state, starts_afresh)
{
	struct guest_mem_config reaching = config;
	struct guest_walk walk;
	struct guest_mem g;
	uint32_t code;
	int id;

	reaching.gva_first = GVA;
	guest_mem_create(&g, &reaching);
	id = srcu_read_lock(&g.shadow->slots_srcu);
	spoil(&walk, &code);
	expect_eq(guest_walk_vcpu(g.shadow, &g.shadow->vcpu[0], PAGE, PFERR_WRITE, &walk, &code),
		  -EFAULT);
	expect_eq(code, PFERR_WRITE);
	expect_eq(walk.gva, PAGE);
	expect_eq(walk.bad_hva, INVALID_HVA);

	spoil(&walk, &code);
	expect_eq(guest_walk_vcpu(g.shadow, &g.shadow->vcpu[0], 1UL << 60, PFERR_WRITE, &walk,
				  &code),
		  -EFAULT);
	expect_eq(code, PFERR_WRITE);
	expect_eq(walk.gva, 1UL << 60);
	expect_eq(walk.bad_hva, INVALID_HVA);
	srcu_read_unlock(&g.shadow->slots_srcu, id);
	guest_mem_destroy(&g);
}

/* Of no vCPU: it has no cache of tables. */
TEST(guest_walk_state, of_no_vcpu)
{
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, &walk), OK);
	expect_eq(walk.gva, GVA);
	expect_eq(walk.gfn, PAGE >> PAGE_SHIFT);
	expect_eq(walk.bad_hva, INVALID_HVA);
	guest_mem_destroy(&g);
}

/* A look, where there is a page, where there is none, and where no table is. */
TEST(guest_walk_state, a_look_starts_afresh)
{
	const struct {
		gva_t gva;
		int ret, level;
		uint32_t code;
	} looks[] = {
		{GVA, 0, 1, PFERR_PRESENT | PFERR_USER},
		{GVA + PAGE_SIZE, -EFAULT, 0, PFERR_USER},
		{GVA + (1UL << 39), -EFAULT, 0, PFERR_USER},
	};
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;
	uint32_t code;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.user = true;
	for (unsigned int i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
		int id = srcu_read_lock(&g.shadow->slots_srcu);

		spoil(&walk, &code);
		expect_eq(guest_walk_look(g.shadow, &cpu, looks[i].gva, &walk, &code),
			  looks[i].ret);
		expect_eq(walk.gva, looks[i].gva);
		expect_eq(walk.level, looks[i].level);
		expect_eq(walk.bad_hva, INVALID_HVA);
		expect_eq(guest_walk_allows(&cpu, 0, &walk, &code), -EFAULT);
		expect_eq(code, looks[i].code);
		spin_lock(&g.shadow->mmu_lock);
		expect(!walk.level || guest_walk_unchanged(g.shadow, &walk));
		spin_unlock(&g.shadow->mmu_lock);
		srcu_read_unlock(&g.shadow->slots_srcu, id);
	}
	cpu.cr3 = 1UL << 40; /* no memory */
	spoil(&walk, &code);
	expect_eq(guest_walk_look(g.shadow, &cpu, GVA, &walk, &code), -EFAULT);
	expect_eq(walk.bad_hva, INVALID_HVA);
	guest_mem_destroy(&g);
}

/* ---- is it still so? ---- */

static bool unchanged(struct guest_mem *g, const struct guest_walk *walk)
{
	int id = srcu_read_lock(&g->shadow->slots_srcu);
	bool same;

	spin_lock(&g->shadow->mmu_lock);
	same = guest_walk_unchanged(g->shadow, walk);
	spin_unlock(&g->shadow->mmu_lock);
	srcu_read_unlock(&g->shadow->slots_srcu, id);
	return same;
}

/* Any bit of any entry, but for A and D where they have come. */
TEST(guest_walk_state, any_edit_is_a_change)
{
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	for (unsigned int marked = 0; marked < 2; marked++) {
		expect_eq(walk_as(&g, &cpu, marked ? PFERR_WRITE : 0, &walk), OK);
		expect(unchanged(&g, &walk));
		for (unsigned int edit = 0; edit < 4 * 64; edit++) {
			int level = 1 + edit / 64;
			uint64_t bit = 1UL << edit % 64, old = pte(&g, level);
			bool same = bit == GUEST_PTE_D && (level > 1 || !(old & bit));

			set_pte(&g, level, old ^ bit);
			expect_eq(unchanged(&g, &walk), same);
			set_pte(&g, level, old);
		}
	}
	expect(pte(&g, 1) & GUEST_PTE_D);
	guest_mem_destroy(&g);
}

/* The host took the page of a table: nobody knows. */
TEST(guest_walk_state, a_table_that_went_is_a_change)
{
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	for (int level = 1; level <= 4; level++) {
		hva_t table = guest_hva(guest_pte_gpa(&g, g.cr3, GVA, level) & PAGE_MASK);

		expect_eq(walk_as(&g, &cpu, 0, &walk), OK);
		expect_eq(mm_zap_range(g.mm, table, PAGE_SIZE), 1);
		expect(!unchanged(&g, &walk));
	}
	guest_mem_destroy(&g);
}
