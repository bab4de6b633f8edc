/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's page walk: exact error codes, and A and D bits, by the tables of the SDM (vol. 3, 4.7
 * and 4.8).
 */
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define GVA  0x40201000UL
#define PAGE 0x3000UL

static const struct guest_mem_config config = {.no_identity = true, .audit = true};

static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_map(g, g->cr3, GVA, PAGE, GUEST_PTE_RW);
}

static uint64_t pte(struct guest_mem *g, int level)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, GVA, level));
}

static void set_pte(struct guest_mem *g, int level, uint64_t value)
{
	guest_write(g, guest_pte_gpa(g, g->cr3, GVA, level), value);
}

static void expect_guest_fault(struct guest_mem *g, gva_t gva, uint32_t access, uint32_t code)
{
	struct shadow_fault fault;

	expect_eq(guest_fault(g, 0, gva, access, &fault), RET_PF_GUEST);
	expect_eq(fault.error_code, code);
	expect_eq(fault.gva, gva);
}

/* Where the rights of a table changed, the old one has to go first: then the first answer is
 * "again".
 */
static void expect_fixed(struct guest_mem *g, gva_t gva, uint32_t access)
{
	struct shadow_fault fault;
	enum ret_pf pf = guest_fault(g, 0, gva, access, &fault);

	if (pf == RET_PF_RETRY)
		pf = guest_fault(g, 0, gva, access, &fault);
	if (pf != RET_PF_FIXED && pf != RET_PF_SPURIOUS)
		fail("%s", ret_pf_name(pf));
}

TEST(guest_walk, not_present_at_each_level)
{
	struct guest_mem g;

	fixture(&g);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, old & ~GUEST_PTE_P);
		expect_guest_fault(&g, GVA, 0, 0);
		expect_guest_fault(&g, GVA, PFERR_WRITE, PFERR_WRITE);
		expect_guest_fault(&g, GVA, PFERR_FETCH, PFERR_FETCH);
		set_pte(&g, level, old);
	}
	expect_fixed(&g, GVA, 0);
	guest_mem_destroy(&g);
}

/* The rights of all levels count together. */
TEST(guest_walk, read_only_at_each_level)
{
	struct guest_mem g;

	fixture(&g);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, old & ~GUEST_PTE_W);
		expect_guest_fault(&g, GVA, PFERR_WRITE, PFERR_PRESENT | PFERR_WRITE);
		expect_fixed(&g, GVA, 0);
		set_pte(&g, level, old);
		shadow_invlpg(g.shadow, 0, GVA);
	}
	expect_fixed(&g, GVA, PFERR_WRITE);
	guest_mem_destroy(&g);
}

TEST(guest_walk, no_execute_at_each_level)
{
	struct guest_mem g;

	fixture(&g);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, old | GUEST_PTE_NX);
		expect_guest_fault(&g, GVA, PFERR_FETCH, PFERR_PRESENT | PFERR_FETCH);
		expect_fixed(&g, GVA, PFERR_WRITE);
		set_pte(&g, level, old);
		shadow_invlpg(g.shadow, 0, GVA);
	}
	expect_fixed(&g, GVA, PFERR_FETCH);
	guest_mem_destroy(&g);
}

/* No large pages on this CPU: PS in an upper entry is reserved, in a leaf it is PAT. */
TEST(guest_walk, reserved_bits)
{
	struct guest_mem g;

	fixture(&g);
	for (int level = 2; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, old | GUEST_PTE_PS);
		expect_guest_fault(&g, GVA, 0, PFERR_PRESENT | PFERR_RSVD);
		expect_guest_fault(&g, GVA, PFERR_WRITE, PFERR_PRESENT | PFERR_WRITE | PFERR_RSVD);
		set_pte(&g, level, old);
	}
	set_pte(&g, 1, pte(&g, 1) | GUEST_PTE_PS);
	expect_fixed(&g, GVA, PFERR_WRITE);
	guest_mem_destroy(&g);
}

/* Tables where no memory is, at every level, and a CR3 that points nowhere. */
TEST(guest_walk, tables_outside_memory)
{
	struct guest_mem g;

	fixture(&g);
	for (int level = 2; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, (1UL << 40) | GUEST_PTE_RW);
		expect_guest_fault(&g, GVA, 0, 0);
		set_pte(&g, level, 0x000ffffffffff000UL | GUEST_PTE_RW);
		expect_guest_fault(&g, GVA, PFERR_WRITE, PFERR_WRITE);
		set_pte(&g, level, old);
	}
	expect_eq(shadow_load_cr3(g.shadow, 0, 1UL << 45), 0);
	expect_guest_fault(&g, GVA, 0, 0);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	expect_fixed(&g, GVA, 0);
	guest_mem_destroy(&g);
}

TEST(guest_walk, non_canonical_address)
{
	struct guest_mem g;

	fixture(&g);
	expect_guest_fault(&g, 1UL << 47, 0, 0);
	expect_guest_fault(&g, 0x7fffUL << 48, PFERR_WRITE, PFERR_WRITE);
	guest_mem_destroy(&g);
}

TEST(guest_walk, a_read_sets_accessed)
{
	struct guest_mem g;

	fixture(&g);
	expect_fixed(&g, GVA, 0);
	for (int level = 1; level <= 4; level++) {
		expect(pte(&g, level) & GUEST_PTE_A);
		expect(!(pte(&g, level) & GUEST_PTE_D));
	}
	guest_mem_destroy(&g);
}

TEST(guest_walk, a_write_sets_dirty_in_the_leaf)
{
	struct guest_mem g;

	fixture(&g);
	expect_fixed(&g, GVA, PFERR_WRITE);
	expect(pte(&g, 1) & GUEST_PTE_D);
	for (int level = 1; level <= 4; level++)
		expect(pte(&g, level) & GUEST_PTE_A);
	for (int level = 2; level <= 4; level++)
		expect(!(pte(&g, level) & GUEST_PTE_D));
	guest_mem_destroy(&g);
}

TEST(guest_walk, a_forbidden_write_sets_nothing_dirty)
{
	struct guest_mem g;

	fixture(&g);
	set_pte(&g, 1, PAGE | GUEST_PTE_P);
	expect_guest_fault(&g, GVA, PFERR_WRITE, PFERR_PRESENT | PFERR_WRITE);
	expect(!(pte(&g, 1) & GUEST_PTE_D));
	guest_mem_destroy(&g);
}

/* A page that was only read is mapped so that the first store comes to set D. */
TEST(guest_walk, first_store_after_a_read_sets_dirty)
{
	struct guest_mem g;

	fixture(&g);
	guest_load(&g, 0, GVA);
	expect(!(pte(&g, 1) & GUEST_PTE_D));
	guest_store(&g, 0, GVA, 1);
	expect(pte(&g, 1) & GUEST_PTE_D);

	/* A guest that cleans the page and says so finds the next store again. */
	set_pte(&g, 1, pte(&g, 1) & ~GUEST_PTE_D);
	shadow_invlpg(g.shadow, 0, GVA);
	guest_load(&g, 0, GVA);
	expect(!(pte(&g, 1) & GUEST_PTE_D));
	guest_store(&g, 0, GVA, 2);
	expect(pte(&g, 1) & GUEST_PTE_D);
	guest_mem_destroy(&g);
}

/* Address bits 51:12 of entries are used, others not. */
TEST(guest_walk, ignored_bits)
{
	struct guest_mem g;

	fixture(&g);
	for (int level = 1; level <= 4; level++)
		set_pte(&g, level, pte(&g, level) | 0xe00 | (0x7ffUL << 52));
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3 | 0x18), 0);
	guest_store(&g, 0, GVA, 77);
	expect_eq(guest_read(&g, PAGE), 77);
	guest_mem_destroy(&g);
}

/* The guest maps its top table as each of the others in turn: every level reads the same page. */
TEST(guest_walk, self_mapped_tables)
{
	const uint64_t i = 510;
	gva_t pte_of_gva = ~0xffffffffffffUL | i << 39 | (GVA >> 12) << 3;
	gva_t top = ~0xffffffffffffUL | i << 39 | i << 30 | i << 21 | i << 12;
	struct guest_mem g;

	fixture(&g);
	guest_write(&g, g.cr3 + i * 8, g.cr3 | GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, top + i * 8) & ~GUEST_PTE_D,
		  g.cr3 | GUEST_PTE_RW | GUEST_PTE_A);
	guest_store(&g, 0, GVA, 5);
	expect_eq(guest_load(&g, 0, pte_of_gva), pte(&g, 1));

	/* Edit the entry through that mapping. */
	guest_write(&g, PAGE + PAGE_SIZE, 6);
	guest_store(&g, 0, pte_of_gva, (PAGE + PAGE_SIZE) | GUEST_PTE_RW);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(guest_load(&g, 0, GVA), 6);
	guest_mem_destroy(&g);
}
