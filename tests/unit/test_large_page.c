/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large pages of the guest, mapped as 4 KiB pages in direct tables: what is the whole page's, and
 * which table may stand below an entry that was another kind before.
 */
#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/test.h"

#define MIB2 (2UL << 20)
#define BIG  0x40000000UL /* where tests map them */

static const struct guest_mem_config large_config = {
	.audit = true,
	.no_identity = true,
	.nr_cpus = 2,
	.nr_pages = 4 * 512,
	.reuse = MODEL_REUSE_LIFO,
};

/* Every word says where it is. */
static void large_fixture(struct guest_mem *g)
{
	guest_mem_create(g, &large_config);
	shadow_set_huge(g->shadow, false);
	for (gpa_t gpa = 0; gpa < 3 * MIB2; gpa += PAGE_SIZE)
		guest_write(g, gpa, gpa);
}

static enum ret_pf fault_at(struct guest_mem *g, gva_t gva, uint32_t access)
{
	struct shadow_fault fault;

	return guest_fault(g, 0, gva, access, &fault);
}

static void set_pde(struct guest_mem *g, gva_t gva, uint64_t value)
{
	guest_write(g, guest_pte_gpa(g, g->cr3, gva, 2), value);
}

static uint64_t pde(struct guest_mem *g, gva_t gva)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, gva, 2));
}

#define LARGE (GUEST_PTE_RW | GUEST_PTE_U | GUEST_PTE_PS)

TEST(large_page, every_page_of_it)
{
	struct guest_mem g;

	large_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
		expect_eq(guest_load(&g, 0, BIG + at), MIB2 + at);
	expect(!(pde(&g, BIG) & GUEST_PTE_D));
	guest_store(&g, 0, BIG + 5 * PAGE_SIZE, 55);
	expect_eq(guest_read(&g, MIB2 + 5 * PAGE_SIZE), 55);
	expect(pde(&g, BIG) & GUEST_PTE_D);
	/* It is dirty as a whole: other stores need no more of the guest. */
	guest_store(&g, 1, BIG + 6 * PAGE_SIZE, 66);
	expect_eq(guest_load(&g, 0, BIG + 6 * PAGE_SIZE), 66);
	guest_mem_destroy(&g);
}

/* 1 GiB of which there is memory only at the beginning; in two levels of direct tables. */
TEST(large_page, of_one_gib)
{
	const gva_t gva = 7UL << 30;
	struct guest_mem g;

	large_fixture(&g);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), LARGE);
	for (gpa_t at = 0; at < 3 * MIB2; at += 37 * PAGE_SIZE)
		expect_eq(guest_load(&g, 0, gva + at), at);
	guest_store(&g, 0, gva + 2 * MIB2, 22);
	expect_eq(guest_read(&g, 2 * MIB2), 22);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, gva + 4 * MIB2, NULL), RET_PF_EMULATE);
	guest_mem_destroy(&g);
}

/* The tables of its pieces are ours, and none of the guest's: the page where they begin may be
 * stored to. */
TEST(large_page, of_one_gib_protects_nothing)
{
	const gva_t gva = 7UL << 30;
	struct guest_mem g;

	large_fixture(&g);
	guest_map(&g, g.cr3, BIG, 0, GUEST_PTE_RW);
	guest_store(&g, 0, BIG, 0);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), LARGE);
	expect_eq(guest_load(&g, 0, gva + MIB2), MIB2);
	expect_eq(model_store(g.model, 0, BIG, 0), 0);
	destroy(&g);
}

/* INVLPG of any address in it is INVLPG of all of it. */
TEST(large_page, invlpg_drops_every_piece)
{
	const gva_t gib = 7UL << 30;
	struct guest_mem g;
	gpa_t pdpte;

	large_fixture(&g);
	set_pde(&g, BIG, LARGE);
	expect_eq(guest_load(&g, 0, BIG), 0);
	expect_eq(guest_load(&g, 1, BIG + 9 * PAGE_SIZE), 9 * PAGE_SIZE);
	set_pde(&g, BIG, MIB2 | LARGE);
	shadow_invlpg(g.shadow, 0, BIG + 300 * PAGE_SIZE);
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	expect_eq(guest_load(&g, 1, BIG + 9 * PAGE_SIZE), MIB2 + 9 * PAGE_SIZE);

	pdpte = guest_pte_gpa(&g, g.cr3, gib, 3);
	guest_write(&g, pdpte, LARGE);
	expect_eq(guest_load(&g, 0, gib), 0);
	expect_eq(guest_load(&g, 0, gib + MIB2), MIB2);
	guest_write(&g, pdpte, 0);
	shadow_invlpg(g.shadow, 0, gib + MIB2 + PAGE_SIZE);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, gib, NULL), RET_PF_GUEST);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, gib + MIB2, NULL), RET_PF_GUEST);
	guest_mem_destroy(&g);
}

/* What the guest has not edited stays, dirty or with a key. */
TEST(large_page, invlpg_of_what_is_in_step)
{
	for (uint64_t key = 0; key < 4; key += 3) {
		struct guest_cpu cpu;
		struct guest_mem g;

		large_fixture(&g);
		cpu = *shadow_get_cpu(g.shadow, 0);
		cpu.cr4 |= GUEST_CR4_PKE;
		expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
		set_pde(&g, BIG, MIB2 | LARGE | key << 59);
		guest_store(&g, 0, BIG, 1);
		for (unsigned int i = 0; i < 2; i++) {
			shadow_invlpg(g.shadow, 0, BIG);
			expect_eq(model_store(g.model, 0, BIG, 1), 0);
		}
		destroy(&g);
	}
}

/* One large page under two entries that differ in rights, key or dirtiness: what is the one's is
 * not the other's. */
TEST(large_page, mapped_twice)
{
	const gva_t other = BIG + MIB2;
	const uint64_t key = 3UL << 59;
	struct guest_cpu cpu;
	struct guest_mem g;

	large_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	set_pde(&g, other, MIB2 | LARGE);
	guest_store(&g, 0, BIG, 1);
	expect_eq(guest_load(&g, 0, other), 1);
	expect(!(pde(&g, other) & GUEST_PTE_D));
	guest_store(&g, 0, other, 2);
	expect(pde(&g, other) & GUEST_PTE_D);

	set_pde(&g, other, pde(&g, other) & ~GUEST_PTE_W);
	shadow_invlpg(g.shadow, 0, other);
	guest_store(&g, 0, BIG, 3);
	expect_eq(guest_try(&g, 0, MODEL_STORE, other, NULL), RET_PF_GUEST);

	set_pde(&g, other, MIB2 | LARGE | GUEST_PTE_A | GUEST_PTE_D | key);
	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.cr4 |= GUEST_CR4_PKE;
	cpu.pkru = 2u << (2 * 3);
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	guest_store(&g, 0, BIG, 4);
	expect_eq(guest_load(&g, 0, other), 4);
	expect_eq(guest_try(&g, 0, MODEL_STORE, other, NULL), RET_PF_GUEST);
	guest_mem_destroy(&g);
}

/* A guest that cleans a large page and says so finds the next store to any of its pieces. */
TEST(large_page, cleaned)
{
	struct guest_mem g;

	large_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	guest_store(&g, 0, BIG, 1);
	guest_store(&g, 0, BIG + PAGE_SIZE, 1);
	set_pde(&g, BIG, pde(&g, BIG) & ~GUEST_PTE_D);
	shadow_invlpg(g.shadow, 0, BIG);
	guest_load(&g, 0, BIG);
	expect(!(pde(&g, BIG) & GUEST_PTE_D));
	guest_store(&g, 0, BIG + PAGE_SIZE, 2);
	expect(pde(&g, BIG) & GUEST_PTE_D);
	guest_mem_destroy(&g);
}

/* K-13 where the leaf is a large one. */
TEST(large_page, entry_changes_under_the_fault)
{
	for (int level = 2; level <= 4; level++) {
		struct guest_mem g;
		struct table_edit edit;

		large_fixture(&g);
		set_pde(&g, BIG, MIB2 | LARGE);
		edit = (struct table_edit){.g = &g,
					   .pte = guest_pte_gpa(&g, g.cr3, BIG, level),
					   .times = 1};
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook_edit_table, &edit);
		expect_eq(fault_at(&g, BIG, PFERR_WRITE), RET_PF_RETRY);
		expect_eq(fault_at(&g, BIG, PFERR_WRITE), RET_PF_GUEST);
		guest_mem_destroy(&g);
	}
}

/* ... and its D bit is cleared: what was to be writable must not become so. */
TEST(large_page, cleaned_under_the_fault)
{
	struct guest_mem g;
	struct table_edit edit;

	large_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	edit = (struct table_edit){.g = &g,
				   .pte = guest_pte_gpa(&g, g.cr3, BIG, 2),
				   .value = MIB2 | LARGE | GUEST_PTE_A,
				   .times = 1};
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook_edit_table, &edit);
	expect_eq(fault_at(&g, BIG, PFERR_WRITE), RET_PF_RETRY);
	expect_eq(fault_at(&g, BIG, 0), RET_PF_FIXED);
	expect_eq(model_store(g.model, 0, BIG, 1), -EFAULT);
	guest_mem_destroy(&g);
}

/*
 * The guest's entry changes from outside, with no INVLPG, no CR3 load: by a device, or the host.
 * The next fault below it finds a table that is not of what the entry says now, and must not enter
 * anything there. CVE-2026-46113: it was reused although its gfn was wrong.
 */
TEST(large_page, becomes_another_behind_our_back)
{
	struct guest_mem g;

	large_fixture(&g);
	set_pde(&g, BIG, LARGE);
	expect_eq(guest_load(&g, 0, BIG), 0);
	set_pde(&g, BIG, MIB2 | LARGE);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), MIB2 + PAGE_SIZE);
	/* The fault found out, and the whole old page is gone. */
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	guest_mem_destroy(&g);
}

/* A guest table at a gfn that a large page may begin at: entry i maps page i of the page at 2 MiB
 * steps, backwards. */
static gpa_t table_that_could_be_a_page(struct guest_mem *g)
{
	for (uint64_t i = 0; i < 512; i++)
		guest_write(g, MIB2 + i * 8, (511 - i) << PAGE_SHIFT | GUEST_PTE_RW | GUEST_PTE_U);
	return MIB2;
}

#define TABLE (GUEST_PTE_RW | GUEST_PTE_U)

/*
 * CVE-2026-53359: the gfn is right, since the table lies where the large page began, and the role
 * is wrong. Both ways; @other keeps what the first entry was, and must go on to see that.
 */
TEST(large_page, becomes_a_table_behind_our_back)
{
	const gva_t other = BIG + MIB2;
	struct guest_mem g;
	gpa_t table;

	large_fixture(&g);
	table = table_that_could_be_a_page(&g);
	set_pde(&g, BIG, table | LARGE | GUEST_PTE_A);
	set_pde(&g, other, table | LARGE | GUEST_PTE_A);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), table + PAGE_SIZE);
	expect_eq(guest_load(&g, 0, other + PAGE_SIZE), table + PAGE_SIZE);
	set_pde(&g, BIG, table | TABLE);
	expect_eq(guest_load(&g, 0, BIG + 2 * PAGE_SIZE), 509 << PAGE_SHIFT);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), 510 << PAGE_SHIFT);
	expect_eq(guest_load(&g, 0, other + 2 * PAGE_SIZE), table + 2 * PAGE_SIZE);
	guest_mem_destroy(&g);
}

TEST(large_page, was_a_table_behind_our_back)
{
	const gva_t other = BIG + MIB2;
	struct guest_mem g;
	gpa_t table;

	large_fixture(&g);
	table = table_that_could_be_a_page(&g);
	set_pde(&g, BIG, table | TABLE);
	set_pde(&g, other, table | TABLE);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), 510 << PAGE_SHIFT);
	expect_eq(guest_load(&g, 0, other + PAGE_SIZE), 510 << PAGE_SHIFT);
	set_pde(&g, BIG, table | LARGE);
	expect_eq(guest_load(&g, 0, BIG + 2 * PAGE_SIZE), table + 2 * PAGE_SIZE);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), table + PAGE_SIZE);
	expect_eq(guest_load(&g, 0, other + 2 * PAGE_SIZE), 509 << PAGE_SHIFT);
	guest_mem_destroy(&g);
}
