/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's page walk: exact error codes, and A and D bits, by the tables of the SDM (vol. 3, 4.7
 * and 4.8).
 */
#include "notifier/sync/util.h"
#include "tests/support/walk_fixture.h"

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

/* PS makes a page of an entry at levels 2 and 3, is reserved above, and is PAT in a leaf. */
TEST(guest_walk, page_size_bit)
{
	struct guest_mem g;
	uint64_t old;

	fixture(&g);
	old = pte(&g, 4);
	set_pte(&g, 4, old | GUEST_PTE_PS);
	expect_guest_fault(&g, GVA, 0, PFERR_PRESENT | PFERR_RSVD);
	expect_guest_fault(&g, GVA, PFERR_WRITE, PFERR_PRESENT | PFERR_WRITE | PFERR_RSVD);
	/* Also where it would be aligned as a page of that size. */
	set_pte(&g, 4, GUEST_PTE_RW | GUEST_PTE_PS);
	expect_guest_fault(&g, GVA, 0, PFERR_PRESENT | PFERR_RSVD);
	set_pte(&g, 4, old);
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

/* ---- what the CPU's state has a say in ---- */

TEST(guest_walk, user_at_each_level)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.user = true;
	set_pte(&g, 1, pte(&g, 1) | GUEST_PTE_U);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, old & ~GUEST_PTE_U);
		expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_PRESENT | PFERR_USER);
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
			  PFERR_PRESENT | PFERR_USER | PFERR_WRITE);
		expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL),
			  PFERR_PRESENT | PFERR_USER | PFERR_FETCH);
		/* What the CPU does for itself is not the user's. */
		expect_eq(walk_as(&g, &cpu, PFERR_IMPLICIT, NULL), OK);
		set_pte(&g, level, old);
	}
	set_pte(&g, 2, 0);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_USER | PFERR_WRITE);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE | PFERR_IMPLICIT, NULL), PFERR_WRITE);
	guest_mem_destroy(&g);
}

/* Without CR0.WP a supervisor writes everywhere, and that makes the page dirty; a user does not. */
TEST(guest_walk, write_protection)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, (old | GUEST_PTE_U) & ~GUEST_PTE_W);
		set_pte(&g, 1, (pte(&g, 1) | GUEST_PTE_U) & ~GUEST_PTE_D);
		cpu.cr0 |= GUEST_CR0_WP;
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_PRESENT | PFERR_WRITE);
		cpu.cr0 &= ~GUEST_CR0_WP;
		cpu.user = true;
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
			  PFERR_PRESENT | PFERR_WRITE | PFERR_USER);
		expect(!(pte(&g, 1) & GUEST_PTE_D));
		cpu.user = false;
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
		expect(pte(&g, 1) & GUEST_PTE_D);
		set_pte(&g, level, old);
	}
	guest_mem_destroy(&g);
}

TEST(guest_walk, smep)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.cr4 |= GUEST_CR4_SMEP;
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), OK);
	set_pte(&g, 1, pte(&g, 1) | GUEST_PTE_U);
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), PFERR_PRESENT | PFERR_FETCH);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
	/* One level that is the supervisor's makes the address so. */
	set_pte(&g, 3, pte(&g, 3) & ~GUEST_PTE_U);
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), OK);
	guest_mem_destroy(&g);
}

TEST(guest_walk, smap_and_ac)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.cr4 |= GUEST_CR4_SMAP;
	set_pte(&g, 1, pte(&g, 1) | GUEST_PTE_U);
	expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_PRESENT);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_PRESENT | PFERR_WRITE);
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), OK);
	cpu.ac = true;
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
	expect_eq(walk_as(&g, &cpu, PFERR_IMPLICIT, NULL), PFERR_PRESENT);
	cpu.user = true;
	cpu.ac = false;
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
	expect_eq(walk_as(&g, &cpu, PFERR_IMPLICIT, NULL), PFERR_PRESENT);
	guest_mem_destroy(&g);
}

#define KEY(key) ((uint64_t)(key) << 59)

TEST(guest_walk, protection_keys)
{
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.user = true;
	cpu.pkru = 1u << (2 * 5) | 2u << (2 * 9);
	set_pte(&g, 1, pte(&g, 1) | GUEST_PTE_U | KEY(5));
	/* Ignored bits, until keys are on. */
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, &walk), OK);
	expect_eq(walk.pkey, 0);

	cpu.cr4 |= GUEST_CR4_PKE;
	expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_PRESENT | PFERR_USER | PFERR_PK);
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, &walk), OK);
	expect_eq(walk.pkey, 5);
	set_pte(&g, 1, (pte(&g, 1) & ~KEY(15)) | KEY(9));
	expect_eq(walk_as(&g, &cpu, 0, NULL), OK);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
		  PFERR_PRESENT | PFERR_WRITE | PFERR_USER | PFERR_PK);
	/* Told also where the page is read-only anyway; not where it has no key, being a
	 * supervisor's, or none, there being no page. */
	set_pte(&g, 1, pte(&g, 1) & ~GUEST_PTE_W);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
		  PFERR_PRESENT | PFERR_WRITE | PFERR_USER | PFERR_PK);
	set_pte(&g, 1, pte(&g, 1) & ~GUEST_PTE_U);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_PRESENT | PFERR_WRITE | PFERR_USER);
	set_pte(&g, 1, (pte(&g, 1) | GUEST_PTE_U) & ~GUEST_PTE_P);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_WRITE | PFERR_USER);
	guest_mem_destroy(&g);
}

/* Bit 63 is a right with EFER.NXE, and reserved without. */
TEST(guest_walk, nx_is_reserved_without_nxe)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.efer &= ~GUEST_EFER_NXE;
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), OK);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		set_pte(&g, level, old | GUEST_PTE_NX);
		expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_PRESENT | PFERR_RSVD);
		set_pte(&g, level, old);
	}
	guest_mem_destroy(&g);
}

/* The error code tells fetches from reads only on a CPU that can forbid them. */
TEST(guest_walk, fetches_are_told_with_nxe_or_smep)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	set_pte(&g, 1, 0);
	cpu.efer &= ~GUEST_EFER_NXE;
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), 0);
	cpu.cr4 |= GUEST_CR4_SMEP;
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), PFERR_FETCH);
	cpu.cr4 &= ~GUEST_CR4_SMEP;
	cpu.efer |= GUEST_EFER_NXE;
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), PFERR_FETCH);
	guest_mem_destroy(&g);
}

/* Address bits that the CPU does not have; below them there are ignored bits, not reserved. */
TEST(guest_walk, physical_width)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	for (int level = 1; level <= 4; level++) {
		uint64_t old = pte(&g, level);

		for (unsigned int bit = 45; bit <= 51; bit++) {
			set_pte(&g, level, old | 1UL << bit);
			cpu.maxphyaddr = bit;
			expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
				  PFERR_PRESENT | PFERR_WRITE | PFERR_RSVD);
			cpu.maxphyaddr = bit + 1;
			/* Legal, and leads to where no memory is. */
			expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
				  level > 1 ? PFERR_WRITE : OK);
		}
		set_pte(&g, level, old | 0x7ffUL << 52);
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
		set_pte(&g, level, old);
	}
	guest_mem_destroy(&g);
}

/* Whether there is a translation comes before what it allows, and the upper entry before the lower.
 */
TEST(guest_walk, reserved_bits_win_over_rights)
{
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.user = true;
	cpu.maxphyaddr = 46;
	set_pte(&g, 1, (pte(&g, 1) & ~GUEST_PTE_W) | 1UL << 46);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
		  PFERR_PRESENT | PFERR_WRITE | PFERR_USER | PFERR_RSVD);
	set_pte(&g, 2, pte(&g, 2) & ~GUEST_PTE_P);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_WRITE | PFERR_USER);
	set_pte(&g, 3, pte(&g, 3) | 1UL << 46);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL),
		  PFERR_PRESENT | PFERR_WRITE | PFERR_USER | PFERR_RSVD);
	/* What is not present has no reserved bits. */
	set_pte(&g, 4, (pte(&g, 4) & ~GUEST_PTE_P) | 1UL << 46);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_WRITE | PFERR_USER);
	guest_mem_destroy(&g);
}

/* No access that is refused leaves a trace, whatever refused it. */
TEST(guest_walk, what_is_refused_marks_nothing)
{
	struct guest_cpu cpu, user;
	struct guest_mem g;

	fixture(&g);
	cpu = user = cpu_of(&g);
	user.user = true;
	set_pte(&g, 1, PAGE | GUEST_PTE_P | GUEST_PTE_NX);
	expect_ne(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
	expect_ne(walk_as(&g, &cpu, PFERR_FETCH, NULL), OK);
	expect_ne(walk_as(&g, &user, 0, NULL), OK);
	set_pte(&g, 1, PAGE | GUEST_PTE_RW | GUEST_PTE_NX);
	cpu.efer &= ~GUEST_EFER_NXE;
	expect_ne(walk_as(&g, &cpu, PFERR_WRITE, NULL), OK);
	set_pte(&g, 1, 0);
	expect_ne(walk_as(&g, &cpu, 0, NULL), OK);
	for (int level = 1; level <= 4; level++)
		expect(!(pte(&g, level) & (GUEST_PTE_A | GUEST_PTE_D)));
	guest_mem_destroy(&g);
}

#define GLOBAL (1UL << 8)

/* Which translations a flush may spare. */
TEST(guest_walk, global_pages_and_pcids)
{
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;

	fixture(&g);
	cpu = cpu_of(&g);
	cpu.cr3 |= 0x18;
	set_pte(&g, 1, pte(&g, 1) | GLOBAL);
	expect_eq(walk_as(&g, &cpu, 0, &walk), OK);
	expect(!walk.global);
	expect_eq(walk.pcid, 0);
	cpu.cr4 |= GUEST_CR4_PGE | GUEST_CR4_PCIDE;
	expect_eq(walk_as(&g, &cpu, 0, &walk), OK);
	expect(walk.global);
	expect_eq(walk.pcid, 0x18);
	/* Only in the leaf. */
	set_pte(&g, 1, pte(&g, 1) & ~GLOBAL);
	set_pte(&g, 2, pte(&g, 2) | GLOBAL);
	expect_eq(walk_as(&g, &cpu, 0, &walk), OK);
	expect(!walk.global);
	guest_mem_destroy(&g);
}

/* ---- a guest that edits an entry between the look at it and the marks ---- */

struct edit {
	struct guest_mem *g;
	gpa_t pte;
	uint64_t value, step; /* each time the value is one step on */
	int times;
};

static void edit_entry(void *arg)
{
	struct edit *edit = arg;

	if (edit->times && edit->times--) {
		guest_write(edit->g, edit->pte, edit->value);
		edit->value += edit->step;
	}
}

/* Marks are added to what the entry holds now, never to what it held: the edit stays, and it is the
 * edited entry that is walked. */
TEST(guest_walk, marks_lose_no_edit)
{
	for (int level = 1; level <= 4; level++) {
		struct guest_walk walk;
		struct guest_cpu cpu;
		struct guest_mem g;
		struct edit edit;

		fixture(&g);
		cpu = cpu_of(&g);
		edit = (struct edit){.g = &g,
				     .pte = guest_pte_gpa(&g, g.cr3, GVA, level),
				     .value = pte(&g, level) | 1UL << 52,
				     .times = 1};
		if (level == 1)
			edit.value += PAGE_SIZE;
		shadow_set_hook(g.shadow, SHADOW_HOOK_WALK_BEFORE_MARK, edit_entry, &edit);
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, &walk), OK);
		expect_eq(edit.times, 0);
		expect_eq(pte(&g, level),
			  edit.value | GUEST_PTE_A | (level == 1 ? GUEST_PTE_D : 0));
		expect_eq(walk.gfn, (level == 1 ? PAGE + PAGE_SIZE : PAGE) >> PAGE_SHIFT);

		/* The right goes: the write is refused, and marks nothing more. */
		edit.value = (pte(&g, level) & ~GUEST_PTE_W & ~GUEST_PTE_A & ~GUEST_PTE_D);
		edit.times = 1;
		set_pte(&g, level, edit.value | GUEST_PTE_W);
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_PRESENT | PFERR_WRITE);
		expect_eq(pte(&g, level), edit.value);
		guest_mem_destroy(&g);
	}
}

/* One that edits each time is not waited for: the access is tried again, and others get a turn. */
TEST(guest_walk, edits_without_end)
{
	struct shadow_fault fault;
	struct guest_mem g;
	struct edit edit;

	fixture(&g);
	edit = (struct edit){.g = &g,
			     .pte = guest_pte_gpa(&g, g.cr3, GVA, 1),
			     .value = PAGE | GUEST_PTE_RW,
			     .step = 1UL << 52,
			     .times = 1000};
	edit.value += edit.step;
	shadow_set_hook(g.shadow, SHADOW_HOOK_WALK_BEFORE_MARK, edit_entry, &edit);
	expect_eq(guest_fault(&g, 0, GVA, PFERR_WRITE, &fault), RET_PF_RETRY);
	expect_ge(edit.times, 900);
	edit.times = 0;
	expect_fixed(&g, GVA, PFERR_WRITE);
	guest_mem_destroy(&g);
}

/* ---- large pages ---- */

static const struct {
	int level;
	uint64_t bytes;
} larges[] = {{2, 2UL << 20}, {3, 1UL << 30}};

#define LARGE_BASE (5UL << 30)

/* The page of the larger one, what it may, and which marks it gets; nothing below it is looked at.
 */
TEST(guest_walk, large_pages)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(larges); i++) {
		int level = larges[i].level;
		struct guest_walk walk;
		struct guest_cpu cpu;
		struct guest_mem g;

		fixture(&g);
		cpu = cpu_of(&g);
		cpu.cr4 |= GUEST_CR4_PKE | GUEST_CR4_PGE;
		set_pte(&g, level,
			LARGE_BASE | GUEST_PTE_RW | GUEST_PTE_U | GUEST_PTE_PS | GLOBAL | KEY(11) |
				GUEST_PTE_NX);
		expect_eq(walk_as(&g, &cpu, 0, &walk), OK);
		expect_eq(walk.level, level);
		expect_eq(walk.gfn, (LARGE_BASE | (GVA & (larges[i].bytes - 1))) >> PAGE_SHIFT);
		expect_eq(walk.access[level], ACC_WRITE | ACC_USER);
		expect_eq(walk.pkey, 11);
		expect(walk.global);
		expect(!walk.dirty);
		expect(pte(&g, level) & GUEST_PTE_A);
		expect_eq(walk_as(&g, &cpu, PFERR_WRITE, &walk), OK);
		expect(walk.dirty);
		expect(pte(&g, level) & GUEST_PTE_D);
		for (int above = level + 1; above <= 4; above++)
			expect(!(pte(&g, above) & GUEST_PTE_D));
		expect_eq(walk_as(&g, &cpu, PFERR_FETCH, &walk), PFERR_PRESENT | PFERR_FETCH);
		guest_mem_destroy(&g);
	}
}

/* Address bits within the page are reserved, but for the lowest, which is PAT. Without PS they are
 * the address of a table. */
TEST(guest_walk, low_bits_of_large_pages)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(larges); i++) {
		const uint64_t large = LARGE_BASE | GUEST_PTE_RW | GUEST_PTE_PS;
		int level = larges[i].level;
		struct guest_walk walk;
		struct guest_cpu cpu;
		struct guest_mem g;

		fixture(&g);
		cpu = cpu_of(&g);
		for (unsigned int bit = 13; 1UL << bit < larges[i].bytes; bit++) {
			set_pte(&g, level, large | 1UL << bit);
			expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_PRESENT | PFERR_RSVD);
			set_pte(&g, level, (large | 1UL << bit) & ~GUEST_PTE_PS);
			expect_eq(walk_as(&g, &cpu, 0, NULL), 0);
		}
		set_pte(&g, level, large | 1UL << 12);
		expect_eq(walk_as(&g, &cpu, 0, &walk), OK);
		expect_eq(walk.gfn, (LARGE_BASE | (GVA & (larges[i].bytes - 1))) >> PAGE_SHIFT);
		set_pte(&g, level, large + larges[i].bytes);
		expect_eq(walk_as(&g, &cpu, 0, NULL), OK);
		/* The width has its say as everywhere. */
		set_pte(&g, level, large | 1UL << 46);
		cpu.maxphyaddr = 46;
		expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_PRESENT | PFERR_RSVD);
		guest_mem_destroy(&g);
	}
}

/* ---- five levels ---- */

static const struct guest_mem_config la57_config = {.no_identity = true,
						    .audit = true,
						    .levels = 5};

/* Each rule that holds for all levels holds for the fifth. */
TEST(guest_walk, five_levels)
{
	const uint64_t bad[] = {GUEST_PTE_PS, GUEST_PTE_NX, 1UL << 46};
	struct guest_walk walk;
	struct guest_cpu cpu;
	struct guest_mem g;
	uint64_t old;

	guest_mem_create(&g, &la57_config);
	guest_map(&g, g.cr3, GVA, PAGE, GUEST_PTE_RW | GUEST_PTE_U);
	cpu = cpu_of(&g);
	expect(cpu.cr4 & GUEST_CR4_LA57);
	cpu.maxphyaddr = 46;
	cpu.user = true;
	old = pte(&g, 5);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, &walk), OK);
	expect_eq(walk.levels, 5);
	expect_eq(walk.gfn, PAGE >> PAGE_SHIFT);
	expect_eq(pte(&g, 5), old | GUEST_PTE_A);

	set_pte(&g, 5, old & ~GUEST_PTE_P);
	expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_USER);
	set_pte(&g, 5, old & ~GUEST_PTE_U);
	expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_USER | PFERR_PRESENT);
	set_pte(&g, 5, old & ~GUEST_PTE_W);
	expect_eq(walk_as(&g, &cpu, PFERR_WRITE, NULL), PFERR_USER | PFERR_PRESENT | PFERR_WRITE);
	set_pte(&g, 5, old | GUEST_PTE_NX);
	expect_eq(walk_as(&g, &cpu, PFERR_FETCH, NULL), PFERR_USER | PFERR_PRESENT | PFERR_FETCH);
	cpu.efer = 0;
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		set_pte(&g, 5, old | bad[i]);
		expect_eq(walk_as(&g, &cpu, 0, NULL), PFERR_USER | PFERR_PRESENT | PFERR_RSVD);
	}
	guest_mem_destroy(&g);
}

/* The same address is canonical with five levels and not with four. */
TEST(guest_walk, canonical_with_five_levels)
{
	const gva_t low = 0x00ff000000000000UL, high = 0xff00000000000000UL;
	struct guest_mem g;

	guest_mem_create(&g, &la57_config);
	guest_map(&g, g.cr3, low, PAGE, GUEST_PTE_RW);
	guest_map(&g, g.cr3, high, PAGE, GUEST_PTE_RW);
	guest_store(&g, 0, low, 1);
	expect_eq(guest_load(&g, 0, high), 1);
	expect_guest_fault(&g, 1UL << 56, 0, 0);
	expect_guest_fault(&g, low | 1UL << 57, PFERR_WRITE, PFERR_WRITE);
	guest_mem_destroy(&g);
}
