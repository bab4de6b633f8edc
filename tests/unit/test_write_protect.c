/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stores to the guest's page tables: which of them fault, what the shadow MMU does when it is told
 * of one, and how a store is let through.
 */
#include <errno.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/test.h"

#define MIB2   (2UL << 20)
#define GVA    0x10000000UL   /* translated by tables of its own */
#define OTHER  (GVA + MIB2)   /* by another table of leaves */
#define WINDOW 0x8000000000UL /* where the guest has its tables mapped */
#define P1     0x1000UL
#define P2     0x2000UL

static const struct guest_mem_config config = {.audit = true,
					       .nr_cpus = 2,
					       .reuse = MODEL_REUSE_LIFO};

/* GVA, the page after it and OTHER -> P1, which holds 1; P2 holds 2. */
static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_write(g, P1, 1);
	guest_write(g, P2, 2);
	guest_map(g, g->cr3, GVA, P1, GUEST_PTE_RW | GUEST_PTE_U);
	guest_map(g, g->cr3, GVA + PAGE_SIZE, P1, GUEST_PTE_RW);
	guest_map(g, g->cr3, OTHER, P1, GUEST_PTE_RW);
}

static void reload(struct guest_mem *g, unsigned int cpu)
{
	expect_eq(shadow_load_cr3(g->shadow, cpu, g->cr3), 0);
}

static enum ret_pf fault_at(struct guest_mem *g, gva_t gva, uint32_t access)
{
	struct shadow_fault fault;

	return guest_fault(g, 0, gva, access, &fault);
}

/* The gva, in a window on the table, of the entry of @level that translates @gva. */
static gva_t window_on(struct guest_mem *g, gva_t gva, int level)
{
	gpa_t pte = guest_pte_gpa(g, g->cr3, gva, level);
	gva_t at = WINDOW + level * PAGE_SIZE;

	guest_map(g, g->cr3, at, pte & PAGE_MASK, GUEST_PTE_RW);
	return at + (pte & ~PAGE_MASK);
}

/* ---- which stores fault ---- */

TEST(write_protect, tables_above_the_leaves)
{
	for (int level = 2; level <= 4; level++) {
		struct shadow_fault fault;
		struct guest_mem g;
		gva_t at;

		fixture(&g);
		at = window_on(&g, GVA, level);
		expect_eq(guest_load(&g, 0, GVA), 1);
		expect_eq(guest_fault(&g, 0, at, PFERR_WRITE, &fault), RET_PF_WRITE_PROTECTED);
		expect_eq(fault.gpa, guest_pte_gpa(&g, g.cr3, GVA, level));
		expect_eq(model_store(g.model, 0, at, 0), -EFAULT);
		expect_eq(guest_load(&g, 0, at), guest_read(&g, fault.gpa));
		expect_eq(stats_of(&g).write_protected, 1);
		destroy(&g);
	}
}

/* A page that the guest writes to becomes a directory: each CPU loses the right, at once. */
TEST(write_protect, page_becomes_a_table)
{
	struct guest_mem g;
	gpa_t pdpt;
	gva_t at;

	fixture(&g);
	pdpt = guest_read(&g, guest_pte_gpa(&g, g.cr3, WINDOW * 2, 4));
	expect_eq(pdpt, 0);
	guest_pte_gpa(&g, g.cr3, WINDOW * 2, 1);
	at = window_on(&g, WINDOW * 2, 3);
	for (unsigned int cpu = 0; cpu < 2; cpu++)
		guest_store(&g, cpu, at + 8, 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, WINDOW * 2, NULL),
		  RET_PF_GUEST); /* not a leaf yet */
	guest_map(&g, g.cr3, WINDOW * 2, P2, GUEST_PTE_RW);
	expect_eq(model_store(g.model, 1, at + 8, 0), 0);
	expect_eq(guest_load(&g, 0, WINDOW * 2), 2);
	expect_eq(model_store(g.model, 0, at + 8, 0), -EFAULT);
	expect_eq(model_store(g.model, 1, at + 8, 0), -EFAULT);
	expect_eq(guest_load(&g, 1, at + 8), 0);
	destroy(&g);
}

/* Leaf tables are written by the guest itself. Once they were synced the first store faults, to be
 * known of, and no other. */
TEST(write_protect, tables_of_leaves)
{
	struct shadow_stats before;
	struct guest_mem g;
	gva_t at;

	fixture(&g);
	at = window_on(&g, OTHER, 1) + 8;
	expect_eq(guest_load(&g, 0, OTHER), 1);
	guest_store(&g, 0, at, 0);
	expect_eq(stats_of(&g).unsync_made, 0); /* it was, from the beginning */
	reload(&g, 0);
	expect_eq(model_store(g.model, 0, at, 0), -EFAULT);
	before = stats_of(&g);
	guest_store(&g, 0, at, 0);
	guest_store(&g, 0, at + 8, 0);
	guest_store(&g, 1, at + 16, 0);
	expect_eq(stats_of(&g).unsync_made - before.unsync_made, 1);
	expect_eq(stats_of(&g).faults - before.faults, 1);
	expect_eq(stats_of(&g).write_protected, 0);
	destroy(&g);
}

/* A read of a table that is in step does not get it out of step. */
TEST(write_protect, reads_leave_in_step)
{
	struct shadow_stats before;
	struct guest_mem g;
	gva_t at;

	fixture(&g);
	at = window_on(&g, OTHER, 1);
	expect_eq(guest_load(&g, 0, OTHER), 1);
	guest_store(&g, 0, at + 8, 0); /* so that the window's page is dirty */
	guest_map(&g, g.cr3, at & PAGE_MASK, 0, 0);
	reload(&g, 0);
	window_on(&g, OTHER, 1);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, at, 1),
		    guest_read(&g, guest_pte_gpa(&g, g.cr3, at, 1)) | GUEST_PTE_D);
	before = stats_of(&g);
	expect_eq(fault_at(&g, at, 0), RET_PF_FIXED);
	expect_eq(model_store(g.model, 0, at, 0), -EFAULT);
	expect_eq(stats_of(&g).unsync_made, before.unsync_made);
	destroy(&g);
}

/* A page that is a table of leaves and a directory at once is a directory. */
TEST(write_protect, self_map)
{
	const gva_t self = 0x30000000000UL; /* slot 6 of the root */
	const gva_t pte_of_gva = self + (GVA >> 9),
		    root_entry = self + (self >> 9) + (self >> 18) + (self >> 27) + 8;
	struct guest_mem g;

	fixture(&g);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, self, 4), g.cr3 | GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, GVA), 1);
	for (int i = 0; i < 4; i++) {
		guest_store(&g, 0, pte_of_gva, (i % 2 ? P1 : P2) | GUEST_PTE_RW);
		shadow_invlpg(g.shadow, 0, GVA);
		expect_eq(guest_load(&g, 0, GVA), i % 2 ? 1 : 2);
	}
	expect_eq(guest_load(&g, 0, root_entry - 8), guest_read(&g, g.cr3));
	expect_eq(fault_at(&g, root_entry, PFERR_WRITE), RET_PF_WRITE_PROTECTED);
	guest_store(&g, 0, root_entry, 0);
	expect_eq(guest_load(&g, 0, GVA), 1);
	destroy(&g);
}

/* A large page is made of tables too, and none of them is the guest's. */
TEST(write_protect, large_page)
{
	const gva_t gva = 7UL << 30;
	struct guest_mem g;

	fixture(&g);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), GUEST_PTE_RW | GUEST_PTE_PS);
	expect_eq(guest_load(&g, 0, gva + P1), 1);
	expect_eq(fault_at(&g, gva, PFERR_WRITE), RET_PF_RETRY); /* it was clean: another table */
	expect_eq(fault_at(&g, gva, PFERR_WRITE), RET_PF_FIXED);
	expect_eq(fault_at(&g, gva + P1, 0), RET_PF_FIXED);
	expect_eq(model_store(g.model, 0, gva + P1, 3), 0);
	destroy(&g);
}

/* ---- the VMM carries the store out, and says so ---- */

/* At each level: what was made from that entry goes at once, and nothing else. */
TEST(write_protect, told_of_a_store)
{
	for (int level = 2; level <= 4; level++) {
		struct shadow_stats before;
		struct guest_mem g;
		gpa_t pte;
		uint64_t old;

		fixture(&g);
		expect_eq(guest_load(&g, 0, GVA), 1);
		expect_eq(guest_load(&g, 1, OTHER), 1);
		pte = guest_pte_gpa(&g, g.cr3, GVA, level);
		old = guest_read(&g, pte);
		guest_edit(&g, pte, 0);
		expect_eq(guest_try(&g, 1, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
		before = stats_of(&g);
		if (level == 2)
			expect_eq(guest_load(&g, 0, OTHER), 1);
		expect_eq(stats_of(&g).faults, before.faults);
		guest_edit(&g, pte, old);
		expect_eq(guest_load(&g, 0, GVA), 1);
		destroy(&g);
	}
}

/* Of a store that changes nothing that was shadowed nothing goes; of one to many entries what they
 * led to. */
TEST(write_protect, told_of_stores_of_all_sizes)
{
	struct shadow_stats before;
	struct guest_mem g;
	uint64_t entries[2];
	uint8_t byte;
	gpa_t pte;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(guest_load(&g, 0, OTHER), 1);
	before = stats_of(&g);
	pte = guest_pte_gpa(&g, g.cr3, GVA, 2);
	guest_edit(&g, pte, guest_read(&g, pte));
	guest_edit(&g, pte, guest_read(&g, pte) | 1UL << 9); /* ignored by the CPU */
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(stats_of(&g).faults, before.faults);
	expect_eq(stats_of(&g).tables_retired, before.tables_retired);

	byte = guest_read(&g, pte) & ~GUEST_PTE_W;
	expect_eq(shadow_write_gpa(g.shadow, pte, &byte, 1), 0);
	expect_eq(guest_try(&g, 0, MODEL_STORE, GVA, NULL), RET_PF_GUEST);
	guest_store(&g, 0, OTHER, 1);

	entries[0] = guest_read(&g, pte) | GUEST_PTE_W;
	entries[1] = 0;
	expect_eq(shadow_write_gpa(g.shadow, pte, entries, sizeof(entries)), 0);
	guest_store(&g, 0, GVA, 1);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, OTHER, NULL), RET_PF_GUEST);
	destroy(&g);
}

/* From one page of tables into the next, and of a table of leaves: that counts from the flush. */
TEST(write_protect, told_of_a_store_to_leaves)
{
	struct guest_mem g;
	uint64_t entries[2];
	gpa_t pte;

	fixture(&g);
	pte = guest_pte_gpa(&g, g.cr3, GVA, 1);
	expect_eq(guest_load(&g, 0, GVA), 1);
	reload(&g, 0);
	entries[0] = 0;
	entries[1] = P2 | GUEST_PTE_RW;
	expect_eq(shadow_write_gpa(g.shadow, pte - 8, entries, sizeof(entries)), 0);
	expect_eq(stats_of(&g).unsync_made, 1);
	reload(&g, 0);
	expect_eq(guest_load(&g, 0, GVA), 2);
	destroy(&g);
}

struct edit {
	struct guest_mem *g;
	gpa_t pte;
	uint64_t value;
	bool told;
	unsigned int times;
};

static void edit_table(void *arg)
{
	struct edit *edit = arg;

	if (!edit->times || !edit->times--)
		return;
	guest_write(edit->g, edit->pte, edit->value);
	if (edit->told)
		shadow_gpte_written(edit->g->shadow, edit->pte, sizeof(edit->value));
}

/* A fault that has read the old entry, and the store and the word about it come before the fault
 * has the lock. */
TEST(write_protect, told_before_the_fault_has_the_lock)
{
	for (int level = 1; level <= 4; level++) {
		struct guest_mem g;
		struct edit edit;

		fixture(&g);
		expect_eq(guest_load(&g, 0, GVA + PAGE_SIZE), 1);
		edit = (struct edit){.g = &g,
				     .pte = guest_pte_gpa(&g, g.cr3, GVA, level),
				     .told = true,
				     .times = 1};
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, edit_table, &edit);
		expect_eq(fault_at(&g, GVA, 0), RET_PF_RETRY);
		expect_eq(fault_at(&g, GVA, 0), RET_PF_GUEST);
		destroy(&g);
	}
}

/* ... or the word comes after the fault had it, though the store was before. */
TEST(write_protect, told_after_the_fault)
{
	for (int level = 2; level <= 4; level++) {
		struct guest_mem g;
		gpa_t pte;

		fixture(&g);
		pte = guest_pte_gpa(&g, g.cr3, GVA, level);
		expect_eq(guest_load(&g, 0, GVA), 1);
		guest_write(&g, pte, 0);
		shadow_gpte_written(g.shadow, pte, 8);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
		destroy(&g);
	}
}

/* Half of it behind the last page of memory: that is in no table, and no log has a place for it. */
TEST(write_protect, told_of_where_no_memory_is)
{
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	shadow_gpte_written(g.shadow, (g.nr_pages << PAGE_SHIFT) - 8, 16);
	expect_eq(guest_load(&g, 0, GVA), 1);
	destroy(&g);
}

struct use {
	struct guest_mem *g;
	gva_t gva;
	unsigned int times;
};

static void use_on_cpu1(void *arg)
{
	struct use *use = arg;
	struct shadow_fault fault;

	if (use->times && use->times--)
		expect_eq(guest_fault(use->g, 1, use->gva, 0, &fault), RET_PF_FIXED);
}

/*
 *   CPU 0, a store to page T               CPU 1
 *   -----                                  -----
 *   walk: T is a page like any other
 *                                          a fault that uses T as a directory:
 *                                            no leaf of T is writable
 *   mmu_lock: what is T now?
 *     (asked before: a writable leaf)
 */
TEST(write_protect, page_becomes_a_table_under_the_fault)
{
	for (int level = 2; level <= 3; level++) {
		struct guest_mem g;
		struct use use;
		gva_t at;

		fixture(&g);
		at = window_on(&g, GVA, level);
		use = (struct use){.g = &g, .gva = GVA, .times = 1};
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, use_on_cpu1, &use);
		expect_eq(fault_at(&g, at, PFERR_WRITE), RET_PF_WRITE_PROTECTED);
		expect_eq(model_store(g.model, 0, at, 0), -EFAULT);
		expect_eq(model_store(g.model, 1, at, 0), -EFAULT);
		destroy(&g);
	}
}

/* ---- the store is let through ---- */

/* Also where the table translates the address of the store. */
TEST(write_protect, unprotected)
{
	for (int level = 2; level <= 4; level++) {
		struct guest_mem g;
		uint64_t old;
		gva_t at;

		fixture(&g);
		at = window_on(&g, GVA, level);
		old = guest_load(&g, 0, at);
		expect_eq(guest_load(&g, 0, GVA), 1);
		guest_store(&g, 0, at, old & ~GUEST_PTE_W);
		guest_store(&g, 1, at, old & ~GUEST_PTE_W); /* with no further fault of this kind */
		expect_eq(stats_of(&g).write_protected, 1);
		reload(&g, 0);
		expect_eq(guest_try(&g, 0, MODEL_STORE, GVA, NULL), RET_PF_GUEST);
		/* Protected again. */
		expect_eq(model_store(g.model, 1, at, old), -EFAULT);
		expect_eq(fault_at(&g, at, PFERR_WRITE), RET_PF_WRITE_PROTECTED);
		destroy(&g);
	}
}

/* A page that is one of the tables that it is mapped by: it becomes one on the way down. */
TEST(write_protect, the_page_is_its_own_table)
{
	for (int level = 2; level <= 4; level++) {
		const gva_t gva = 5UL << 39;
		struct guest_mem g;
		gpa_t table;

		fixture(&g);
		guest_map(&g, g.cr3, gva, P1, GUEST_PTE_RW);
		table = guest_pte_gpa(&g, g.cr3, gva, level) & PAGE_MASK;
		guest_map(&g, g.cr3, gva, table, GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
		expect_eq(guest_load(&g, 0, gva), guest_read(&g, table));
		expect_eq(fault_at(&g, gva, PFERR_WRITE), RET_PF_WRITE_PROTECTED);
		expect_eq(model_store(g.model, 0, gva, 0), -EFAULT);
		destroy(&g);
	}
}

TEST(write_protect, flooded)
{
	struct guest_mem g;
	uint64_t old;
	gpa_t pte;
	gva_t at;

	fixture(&g);
	at = window_on(&g, GVA, 2);
	pte = guest_pte_gpa(&g, g.cr3, GVA, 2);
	old = guest_read(&g, pte);
	expect_eq(guest_load(&g, 0, GVA), 1);
	/* Used in between: that is a table. */
	for (int i = 0; i < 10; i++) {
		guest_edit(&g, pte, 0);
		guest_edit(&g, pte, old);
		expect_eq(guest_load(&g, 0, GVA), 1);
	}
	expect_eq(stats_of(&g).flooded, 0);
	expect_eq(fault_at(&g, at, PFERR_WRITE), RET_PF_WRITE_PROTECTED);
	/* Not used: it need not be one. */
	for (int i = 0; i < 10; i++)
		guest_edit(&g, pte + 16 + 8 * i, 0);
	expect_eq(stats_of(&g).flooded, 1);
	expect_eq(fault_at(&g, at, PFERR_WRITE), RET_PF_FIXED);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(fault_at(&g, at, PFERR_WRITE), RET_PF_WRITE_PROTECTED);
	destroy(&g);
}

/* In two views; and the store that is one too many for the first changes a link of both. */
TEST(write_protect, flooded_in_two_views)
{
	struct guest_cpu cpu;
	struct guest_mem g;
	gpa_t pte;

	fixture(&g);
	cpu = *shadow_get_cpu(g.shadow, 1);
	cpu.user = true;
	expect_eq(shadow_set_cpu(g.shadow, 1, &cpu), 0);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(guest_load(&g, 1, GVA), 1);
	pte = guest_pte_gpa(&g, g.cr3, GVA, 2);
	for (int i = 0; i < 3; i++)
		guest_edit(&g, pte + 16 + 8 * i, 0);
	expect_eq(stats_of(&g).flooded, 0);
	guest_edit(&g, pte, 0);
	expect_eq(stats_of(&g).flooded, 2);
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(guest_try(&g, i, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
	destroy(&g);
}

/* A root that a CPU runs on stays, and is compared at the next flush. */
TEST(write_protect, flooded_root)
{
	struct guest_mem g;
	gpa_t pte;
	gva_t at;

	fixture(&g);
	at = window_on(&g, GVA, 4);
	pte = guest_pte_gpa(&g, g.cr3, GVA, 4);
	expect_eq(guest_load(&g, 0, GVA), 1);
	for (int i = 0; i < 10; i++)
		guest_edit(&g, pte + 4000, 0);
	expect_eq(stats_of(&g).flooded, 1);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(fault_at(&g, at, PFERR_WRITE), RET_PF_FIXED);
	expect_eq(model_store(g.model, 0, at & PAGE_MASK, 0), 0);
	reload(&g, 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, P1, NULL), RET_PF_GUEST);
	destroy(&g);
}

/* One that is merely kept goes. */
TEST(write_protect, flooded_root_that_is_kept)
{
	struct guest_mem g;
	uint64_t other;
	gpa_t pte;

	fixture(&g);
	other = guest_new_table(&g);
	pte = guest_pte_gpa(&g, g.cr3, GVA, 4);
	expect_eq(guest_load(&g, 0, GVA), 1);
	for (unsigned int cpu = 0; cpu < 2; cpu++)
		expect_eq(shadow_load_cr3(g.shadow, cpu, other), 0);
	for (int i = 0; i < 10; i++)
		guest_edit(&g, pte + 4000, 0);
	expect_eq(stats_of(&g).flooded, 1);
	spin_lock(&g.shadow->mmu_lock);
	expect(!shadow_page_of_gfn(g.shadow, g.cr3 >> PAGE_SHIFT));
	spin_unlock(&g.shadow->mmu_lock);
	for (unsigned int cpu = 0; cpu < 2; cpu++)
		expect(!g.shadow->vcpu[cpu].roots[1].root);
	reload(&g, 0);
	expect_eq(guest_load(&g, 0, GVA), 1);
	destroy(&g);
}

/* ---- the same memory under two gfns ---- */

#define ALIAS_GFN 0x100000UL

/* A store goes by ALIAS_GFN, which is no table, to @level's entry for GVA, and does not fault. */
static void store_by_alias(struct guest_mem *g, int level, uint64_t value)
{
	gpa_t pte = guest_pte_gpa(g, g->cr3, GVA, level);
	gva_t at = WINDOW + (16 + level) * PAGE_SIZE;

	guest_map(g, g->cr3, at, (ALIAS_GFN << PAGE_SHIFT) + (pte & PAGE_MASK), GUEST_PTE_RW);
	guest_store(g, 0, at + (pte & ~PAGE_MASK), value);
	expect_eq(guest_read(g, pte), value);
	expect_eq(stats_of(g).write_protected, 0);
}

static void alias_fixture(struct guest_mem *g)
{
	fixture(g);
	expect_eq(shadow_create_memslot(g->shadow, 1, ALIAS_GFN, g->nr_pages, GUEST_MEM_HVA), 0);
	expect_eq(guest_load(g, 0, GVA), 1);
	/* Twice: the table of leaves is in step, and protected. */
	reload(g, 0);
	reload(g, 0);
	expect_eq(guest_load(g, 0, GVA), 1);
}

/* Links are looked at in each flush, protected or not. */
TEST(write_protect, alias_of_a_table_above_the_leaves)
{
	for (int level = 2; level <= 4; level++) {
		struct guest_mem g;

		alias_fixture(&g);
		store_by_alias(&g, level, 0);
		reload(&g, 0);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
		destroy(&g);
	}
}

/*
 * Of leaves a flush is not enough: until the address is invalidated the guest has the page before
 * the edit, or the one after it. Never another: it is a leaf like others, and goes with its page.
 */
TEST(write_protect, alias_of_a_table_of_leaves)
{
	struct guest_mem g;
	uint64_t value;

	alias_fixture(&g);
	store_by_alias(&g, 1, P2 | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	reload(&g, 0);
	value = guest_load(&g, 0, GVA);
	expect(value == 1 || value == 2);
	expect_eq(mm_migrate_range(g.mm, guest_hva(P1), PAGE_SIZE), 1);
	value = guest_load(&g, 0, GVA);
	expect(value == 1 || value == 2);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(guest_load(&g, 0, GVA), 2);

	/* Who knows that it is a table can say so, and then a flush is enough. */
	store_by_alias(&g, 1, P1 | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	shadow_gpte_written(g.shadow, guest_pte_gpa(&g, g.cr3, GVA, 1), 8);
	reload(&g, 0);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(shadow_audit_at(g.shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
	destroy(&g);
}

/* ---- a right that goes while a CPU is at the leaf ---- */

struct marker {
	spte_t spte;
	atomic_t stop;
	uint64_t marks;
};

/* As a CPU does that uses the page, and whoever asks for its age. */
static void run_marks(void *arg)
{
	struct marker *m = arg;

	while (!atomic_read(&m->stop)) {
		spte_t spte = READ_ONCE(m->spte);

		try_cmpxchg(&m->spte, &spte, spte ^ SPTE_ACCESSED);
		WRITE_ONCE(m->marks, m->marks + 1);
	}
}

TEST(write_protect, while_the_leaf_is_marked)
{
	const spte_t leaf = make_leaf_spte(7, ACC_ALL);
	struct marker m = {.spte = leaf};
	struct kthread thread;

	expect_eq(kthread_run(&thread, "marks", run_marks, &m), 0);
	for (uint64_t i = 0; i < 1000000 || READ_ONCE(m.marks) < 3000000; i++) {
		WRITE_ONCE(m.spte, leaf);
		expect(leaf_lose_write(&m.spte));
		expect(!spte_writable(READ_ONCE(m.spte)));
	}
	atomic_set(&m.stop, 1);
	kthread_join(&thread);
}
