/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What INVLPG and CR3 loads do with entries that the guest has changed, or the host behind its
 * back. Races are in test_sync_races.c.
 */
#include "tests/support/sync_fixture.h"

/* ---- one entry ---- */

enum how { BY_INVLPG, BY_CR3, BY_PGE, NR_HOW };

static void flush(struct guest_mem *g, enum how how)
{
	struct guest_cpu cpu = *shadow_get_cpu(g->shadow, 0);

	switch (how) {
	case BY_INVLPG:
		shadow_invlpg(g->shadow, 0, GVA + 0x123);
		break;
	case BY_CR3:
		reload(g, 0);
		break;
	default:
		cpu.cr4 ^= GUEST_CR4_PGE;
		expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
	}
}

#define FORBIDDEN ~0UL

/* What becomes of a leaf when the guest's entry changes from LEAF and what walks set in it. */
static const struct rule {
	uint64_t clear, set;
	uint64_t load; /* what a load finds afterwards */
	bool store;    /* a store is allowed */
	bool fetch;
	bool hit; /* the load needs no fault */
	bool dropped;
	uint64_t marks; /* in the guest's entry after a load */
} rules[] = {
	/* unchanged; software's bits, G, PAT */
	{0, 0, 1, true, true, true, false, GUEST_PTE_A | GUEST_PTE_D},
	{0, 7UL << 9 | 1UL << 8 | 1UL << 7, 1, true, true, true, false, GUEST_PTE_A | GUEST_PTE_D},
	/* gone */
	{GUEST_PTE_P, 0, FORBIDDEN, false, false, false, true, 0},
	/* another page */
	{P1, P2, 2, true, true, false, true, GUEST_PTE_A | GUEST_PTE_D},
	/* no right to write; to execute; for a user, which is no matter to a supervisor */
	{GUEST_PTE_W, 0, 1, false, true, true, false, GUEST_PTE_A | GUEST_PTE_D},
	{0, GUEST_PTE_NX, 1, true, false, false, true, GUEST_PTE_A | GUEST_PTE_D},
	{GUEST_PTE_U, 0, 1, true, true, true, false, GUEST_PTE_A | GUEST_PTE_D},
	/* old, and old and clean */
	{GUEST_PTE_A, 0, 1, true, true, false, true, GUEST_PTE_A | GUEST_PTE_D},
	{GUEST_PTE_A | GUEST_PTE_D, 0, 1, true, true, false, true, GUEST_PTE_A},
	/* clean: the store that comes is to mark it */
	{GUEST_PTE_D, 0, 1, true, true, true, false, GUEST_PTE_A},
	/* a reserved bit */
	{0, 1UL << 51, FORBIDDEN, false, false, false, true, 0},
	/* a page where no memory is */
	{0, 1UL << 39, FORBIDDEN, false, false, false, true, 0},
};

static void try_rule(const struct rule *rule, enum how how)
{
	struct shadow_stats before;
	struct guest_mem g;
	struct guest_cpu cpu;
	uint64_t value;

	fixture(&g);
	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.maxphyaddr = 46;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	guest_store(&g, 0, GVA, 1);
	expect_eq(guest_load(&g, 0, GVA + PAGE_SIZE), 1);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, GVA, NULL), RET_PF_FIXED);
	reload(&g, 0);

	before = stats_of(&g);
	set_leaf(&g, GVA, (leaf_gpte(&g, GVA) & ~rule->clear) | rule->set);
	flush(&g, how);
	expect_eq(stats_of(&g).sptes_zapped - before.sptes_zapped, rule->dropped);
	expect_eq(model_load(g.model, 0, GVA, &value) == 0, rule->hit);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL) == RET_PF_FIXED, rule->load != FORBIDDEN);
	if (rule->load != FORBIDDEN) {
		expect_eq(guest_load(&g, 0, GVA), rule->load);
		expect_eq(leaf_gpte(&g, GVA) & (GUEST_PTE_A | GUEST_PTE_D), rule->marks);
		expect_eq(guest_try(&g, 0, MODEL_FETCH, GVA, NULL) == RET_PF_FIXED, rule->fetch);
		expect_eq(guest_try(&g, 0, MODEL_STORE, GVA, NULL) == RET_PF_FIXED, rule->store);
	}
	if (rule->store)
		expect(leaf_gpte(&g, GVA) & GUEST_PTE_D);
	/* The neighbour is none the wiser. */
	before = stats_of(&g);
	guest_load(&g, 0, GVA + PAGE_SIZE);
	expect_eq(stats_of(&g).faults, before.faults);
	destroy(&g);
}

TEST(sync, each_rule)
{
	for (unsigned int i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		for (enum how how = 0; how < NR_HOW; how++)
			try_rule(&rules[i], how);
	}
}

static void set_cpu(struct guest_mem *g, uint64_t cr4, uint32_t pkru, bool user)
{
	struct guest_cpu cpu = *shadow_get_cpu(g->shadow, 0);

	cpu.cr4 |= cr4;
	cpu.pkru = pkru;
	cpu.user = user;
	expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
}

/* What a view may do: U goes from under a user, and a key comes that takes rights away. */
TEST(sync, rights_of_the_view)
{
	for (enum how how = BY_INVLPG; how <= BY_CR3; how++) {
		struct guest_mem g;

		fixture(&g);
		set_cpu(&g, GUEST_CR4_PKE, 1u << (2 * 5) | 2u << (2 * 6), true);
		guest_store(&g, 0, GVA, 1);
		set_leaf(&g, GVA, leaf_gpte(&g, GVA) | 6UL << 59);
		flush(&g, how);
		expect_eq(guest_try(&g, 0, MODEL_STORE, GVA, NULL), RET_PF_GUEST);
		expect_eq(guest_load(&g, 0, GVA), 1);
		set_leaf(&g, GVA, (leaf_gpte(&g, GVA) & ~(3UL << 59)) | 5UL << 59);
		flush(&g, how);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
		set_leaf(&g, GVA, leaf_gpte(&g, GVA) & ~(15UL << 59));
		guest_store(&g, 0, GVA, 2);
		set_leaf(&g, GVA, leaf_gpte(&g, GVA) & ~GUEST_PTE_U);
		flush(&g, how);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
		destroy(&g);
	}
}

/* ---- links ---- */

/* Each level, changed by somebody who tells nobody: it counts from the flush. */
TEST(sync, links_changed_behind_our_back)
{
	for (int level = 2; level <= 4; level++) {
		for (enum how how = BY_INVLPG; how <= BY_CR3; how++) {
			struct guest_mem g;
			uint64_t old;
			gpa_t pte;

			fixture(&g);
			guest_store(&g, 0, GVA, 1);
			pte = guest_pte_gpa(&g, g.cr3, GVA, level);
			old = guest_read(&g, pte);
			guest_write(&g, pte, old & ~GUEST_PTE_W);
			flush(&g, how);
			expect_eq(guest_try(&g, 0, MODEL_STORE, GVA, NULL), RET_PF_GUEST);
			expect_eq(guest_load(&g, 0, GVA), 1);
			guest_write(&g, pte, 0);
			flush(&g, how);
			expect_eq(guest_try(&g, 0, MODEL_LOAD, GVA, NULL), RET_PF_GUEST);
			guest_write(&g, pte, old & ~GUEST_PTE_A);
			expect_eq(guest_load(&g, 0, GVA), 1);
			guest_write(&g, pte, old & ~GUEST_PTE_A);
			flush(&g, how);
			expect_eq(guest_load(&g, 0, GVA), 1);
			expect(guest_read(&g, pte) & GUEST_PTE_A);
			destroy(&g);
		}
	}
}

/* A table becomes a large page and back, with no fault in between to find out. */
TEST(sync, large_pages_behind_our_back)
{
	for (enum how how = BY_INVLPG; how <= BY_CR3; how++) {
		struct shadow_stats before;
		struct guest_mem g;
		uint64_t table;
		gpa_t pde;

		fixture(&g);
		guest_write(&g, MIB2, 22);
		expect_eq(guest_load(&g, 0, GVA), 1);
		pde = guest_pte_gpa(&g, g.cr3, GVA, 2);
		table = guest_read(&g, pde);
		guest_write(&g, pde, MIB2 | LEAF | GUEST_PTE_PS);
		flush(&g, how);
		expect_eq(guest_load(&g, 0, GVA), 22);
		before = stats_of(&g);
		flush(&g, how);
		expect_eq(guest_load(&g, 0, GVA), 22);
		expect_eq(stats_of(&g).faults, before.faults);
		/* Cleaned, it has to be marked again. */
		guest_store(&g, 0, GVA + PAGE_SIZE, 3);
		guest_write(&g, pde, guest_read(&g, pde) & ~GUEST_PTE_D);
		flush(&g, how);
		guest_store(&g, 0, GVA + PAGE_SIZE, 4);
		expect(guest_read(&g, pde) & GUEST_PTE_D);
		guest_write(&g, pde, table);
		flush(&g, how);
		expect_eq(guest_load(&g, 0, GVA), 1);
		destroy(&g);
	}
}

/* ---- what a load of CR3 keeps, and what it costs ---- */

#define MANY 1000 /* pages, in two tables of leaves and a part */

static void map_many(struct guest_mem *g, uint64_t cr3, gpa_t first)
{
	for (uint64_t i = 0; i < MANY; i++)
		guest_map(g, cr3, GVA + (i << PAGE_SHIFT), first + ((i & 7) << PAGE_SHIFT), LEAF);
}

static void touch_many(struct guest_mem *g, unsigned int cpu)
{
	for (uint64_t i = 0; i < MANY; i++)
		guest_load(g, cpu, GVA + (i << PAGE_SHIFT));
}

/* Two address spaces of MANY pages, in turn; another CPU is on each, so that both stay. */
TEST(sync, leaves_survive)
{
	struct shadow_stats before, after;
	uint64_t other, faults[3] = {0};
	struct guest_mem g;

	fixture(&g);
	shadow_set_audit(g.shadow, false);
	other = guest_new_table(&g);
	map_many(&g, g.cr3, P1);
	map_many(&g, other, 0x10000);
	expect_eq(shadow_load_cr3(g.shadow, 1, other), 0);
	touch_many(&g, 2);
	touch_many(&g, 1);
	before = stats_of(&g);
	for (int i = 0; i < 20; i++) {
		expect_eq(shadow_load_cr3(g.shadow, 0, i % 2 ? g.cr3 : other), 0);
		touch_many(&g, 0);
		after = stats_of(&g);
		faults[i > 1 ? 2 : i] += after.faults - before.faults;
		before = after;
	}
	expect_eq(faults[0] + faults[1] + faults[2], 0);
	expect_eq(after.sptes_zapped, 0);
	/* Two tables of each, compared once: they are in step since. */
	expect_eq(after.synced, 4);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	destroy(&g);
}

/* More goes than a batch holds. */
TEST(sync, many_leaves_go)
{
	struct guest_mem g;

	fixture(&g);
	shadow_set_audit(g.shadow, false);
	map_many(&g, g.cr3, P1);
	touch_many(&g, 0);
	for (uint64_t i = 0; i < MANY; i++)
		set_leaf(&g, GVA + (i << PAGE_SHIFT), P2 | LEAF);
	shadow_set_audit(g.shadow, true);
	reload(&g, 0);
	expect_eq(stats_of(&g).sptes_zapped, MANY);
	for (uint64_t i = 0; i < MANY; i += 37)
		expect_eq(guest_load(&g, 0, GVA + (i << PAGE_SHIFT)), 2);
	destroy(&g);
}

/* A table that is edited before each flush is stored to without a fault; left alone it comes into
 * step, by the second flush. */
TEST(sync, edited_again_and_again)
{
	struct shadow_stats before;
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	for (int i = 0; i < 10; i++) {
		store_leaf(&g, 0, (i % 2 ? P1 : P2) | LEAF);
		if (i == 1)
			before = stats_of(&g);
		reload(&g, 0);
		expect_eq(guest_load(&g, 0, GVA), i % 2 ? 1 : 2);
	}
	expect_eq(stats_of(&g).faults - before.faults, 9); /* of the loads */
	expect_eq(stats_of(&g).unsync_made, 1);
	expect_eq(stats_of(&g).synced, 11); /* one is that of the window, once */
	for (int i = 0; i < 4; i++)
		reload(&g, 0);
	expect_eq(stats_of(&g).synced, 13);
	before = stats_of(&g);
	store_leaf(&g, 0, P2 | LEAF);
	expect_eq(stats_of(&g).unsync_made - before.unsync_made, 1);
	destroy(&g);
}

static void count(void *arg)
{
	++*(unsigned int *)arg;
}

/* Many tables are compared in several goes, between which others may have the lock. */
TEST(sync, many_tables)
{
	const int tables = 100;
	unsigned int goes = 0;
	struct guest_mem g;

	fixture(&g);
	for (int i = 0; i < tables; i++) {
		guest_map(&g, g.cr3, GVA + i * MIB2, P1, LEAF);
		expect_eq(guest_load(&g, 0, GVA + i * MIB2), 1);
	}
	for (int i = 0; i < tables; i++)
		set_leaf(&g, GVA + i * MIB2, P2 | LEAF);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE, count, &goes);
	reload(&g, 0);
	expect_eq(goes, (tables + 15) / 16);
	expect_eq(stats_of(&g).synced, tables);
	for (int i = 0; i < tables; i++)
		expect_eq(guest_load(&g, 0, GVA + i * MIB2), 2);
	destroy(&g);
}

/* More of them than a batch has room for, each with a writable leaf that is to be protected. */
TEST(sync, many_tables_that_are_writable)
{
	const unsigned int tables = ZAP_BATCH_FRAMES + 12;
	struct guest_mem g;
	uint64_t synced;

	guest_mem_create(&g, &config);
	guest_write(&g, P1, 1);
	for (unsigned int i = 0; i < tables; i++) {
		gva_t gva = GVA + i * MIB2;

		guest_map(&g, g.cr3, gva, P1, LEAF);
		guest_map(&g, g.cr3, WINDOW + i * PAGE_SIZE,
			  guest_pte_gpa(&g, g.cr3, gva, 1) & PAGE_MASK, GUEST_PTE_RW);
		expect_eq(guest_load(&g, 0, gva), 1);
		guest_store(&g, 0, WINDOW + i * PAGE_SIZE + 8, 0);
	}
	reload(&g, 0);
	synced = stats_of(&g).synced;
	expect_ge(synced, tables);
	/* All of them are in step now. */
	for (unsigned int i = 0; i < tables; i++)
		expect_eq(model_store(g.model, 0, WINDOW + i * PAGE_SIZE + 8, 0), -EFAULT);
	reload(&g, 0);
	expect_eq(stats_of(&g).synced, synced);
	destroy(&g);
}

/* However many ways lead to a table, it is looked at once: with each fault that links what is above
 * it, and in a flush. */
TEST(sync, table_with_many_links)
{
	struct shadow_stats before;
	struct guest_mem g;
	uint64_t pdpte, pde;

	fixture(&g);
	pdpte = guest_read(&g, guest_pte_gpa(&g, g.cr3, GVA, 3));
	pde = guest_read(&g, guest_pte_gpa(&g, g.cr3, GVA, 2));
	for (uint64_t i = 2; i < 6; i++) {
		guest_write(&g, guest_pte_gpa(&g, g.cr3, i << 30, 3), pdpte);
		guest_write(&g, guest_pte_gpa(&g, g.cr3, GVA + i * MIB2, 2), pde);
	}
	for (uint64_t i = 2; i < 6; i++) {
		expect_eq(guest_load(&g, 0, i << 30), 1);
		expect_eq(guest_load(&g, 0, GVA + i * MIB2), 1);
	}
	expect_eq(guest_load(&g, 0, GVA), 1);
	set_leaf(&g, GVA, P2 | LEAF);
	before = stats_of(&g);
	reload(&g, 0);
	expect_eq(stats_of(&g).synced - before.synced, 1);
	for (uint64_t i = 2; i < 6; i++) {
		expect_eq(guest_load(&g, 0, i << 30), 2);
		expect_eq(guest_load(&g, 0, GVA + i * MIB2), 2);
	}

	set_leaf(&g, GVA, P1 | LEAF);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, 7UL << 30, 3), pdpte);
	before = stats_of(&g);
	expect_eq(guest_load(&g, 0, (7UL << 30) + PAGE_SIZE), 1);
	expect_eq(stats_of(&g).synced - before.synced, 1);
	destroy(&g);
}

/* A table that the host has taken out of memory for a while cannot be compared: what was made of it
 * goes. */
TEST(sync, table_out_of_reach)
{
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, GVA), 1);
	expect_eq(mm_zap_range(g.mm, guest_hva(guest_pte_gpa(&g, g.cr3, GVA, 1) & PAGE_MASK),
			       PAGE_SIZE),
		  1);
	reload(&g, 0);
	expect_eq(stats_of(&g).sptes_zapped, 1);
	expect_eq(guest_load(&g, 0, GVA), 1);
	destroy(&g);
}

/* Entries in ROM are never marked, and so stay what they are. */
TEST(sync, table_in_rom)
{
	const gfn_t rom = 0x100000;
	const hva_t hva = 0x6000000000;
	const struct memslot_region region = {
		.id = 1, .base_gfn = rom, .npages = 1, .hva = hva, .flags = MEMSLOT_READONLY};
	const uint64_t gpte = P1 | LEAF;
	struct shadow_stats before;
	struct guest_mem g;

	fixture(&g);
	expect_eq(mm_mmap(g.mm, hva, PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
	expect_eq(mm_write(g.mm, hva, &gpte, sizeof(gpte)), 0);
	expect_eq(shadow_set_memslot(g.shadow, &region), 0);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, GVA + MIB2, 2), rom << PAGE_SHIFT | LEAF);
	expect_eq(guest_load(&g, 0, GVA + MIB2), 1);
	before = stats_of(&g);
	reload(&g, 0);
	shadow_invlpg(g.shadow, 0, GVA + MIB2);
	expect_eq(guest_load(&g, 0, GVA + MIB2), 1);
	expect_eq(stats_of(&g).faults, before.faults);
	destroy(&g);
}

/* ---- a table that comes below a root after the root's flush ---- */

/*
 *   CPU 1, on another root                  CPU 0
 *   -----                                   -----
 *   uses a table that the other root has
 *   the guest edits an entry of it; no
 *     INVLPG yet, so the shadow's is stale
 *                                           loads CR3: the table is not below this root
 *                                           touches a page: the fault links the table
 *                                           touches the page of that entry: it has never been
 *                                             translated here, so it must be as it is
 */
static void link_after_the_flush(int level)
{
	struct guest_mem g;
	uint64_t other;

	fixture(&g);
	other = guest_new_table(&g);
	guest_write(&g, guest_pte_gpa(&g, other, GVA, level),
		    guest_read(&g, guest_pte_gpa(&g, g.cr3, GVA, level)));
	expect_eq(shadow_load_cr3(g.shadow, 1, other), 0);
	expect_eq(guest_load(&g, 1, GVA), 1);
	set_leaf(&g, GVA, P2 | LEAF);
	reload(&g, 0);
	expect_eq(guest_load(&g, 0, GVA + PAGE_SIZE), 1);
	expect_eq(guest_load(&g, 0, GVA), 2);
	destroy(&g);
}

TEST(sync, linked_after_the_flush)
{
	for (int level = 2; level <= 4; level++)
		link_after_the_flush(level);
}

#define TABLES 40 /* of leaves, with a page each */

static gva_t table_gva(unsigned int i)
{
	return GVA + i * MIB2;
}

/* The tables are below the root of CPU 1, out of step, and stale; CPU 0 has flushed before it comes
 * to them. */
struct late_scene {
	struct guest_mem g;
	uint64_t other, seen, longest;
	unsigned int breaks, stores;
};

static void edit_tables(struct late_scene *s, gpa_t page)
{
	for (unsigned int i = 0; i < TABLES; i++)
		set_leaf(&s->g, table_gva(i), page | LEAF);
}

static void late_scene_init(struct late_scene *s)
{
	struct guest_mem *g = &s->g;

	*s = (struct late_scene){0};
	fixture(g);
	for (unsigned int i = 1; i < TABLES; i++)
		guest_map(g, g->cr3, table_gva(i), P1, LEAF);
	s->other = guest_new_table(g);
	guest_write(g, guest_pte_gpa(g, s->other, GVA, 4),
		    guest_read(g, guest_pte_gpa(g, g->cr3, GVA, 4)));
	expect_eq(shadow_load_cr3(g->shadow, 1, s->other), 0);
	for (unsigned int i = 0; i < TABLES; i++)
		expect_eq(guest_load(g, 1, table_gva(i)), 1);
	edit_tables(s, P2);
	reload(g, 0);
}

static void note_tables(struct late_scene *s)
{
	uint64_t synced = stats_of(&s->g).synced;

	if (synced - s->seen > s->longest)
		s->longest = synced - s->seen;
	s->seen = synced;
}

/* mmu_lock was dropped. */
static void at_break(void *arg)
{
	struct late_scene *s = arg;

	s->breaks++;
	note_tables(s);
	if (s->stores) {
		s->stores--;
		edit_tables(s, s->stores % 2 ? P1 : P2);
	}
}

/* CPU 0 touches the page until it is there: how often does it fault? */
static unsigned int link_tables(struct late_scene *s)
{
	struct shadow_fault fault;
	unsigned int faults = 1;

	s->seen = stats_of(&s->g).synced;
	shadow_set_hook(s->g.shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE, at_break, s);
	for (; guest_fault(&s->g, 0, table_gva(0), 0, &fault) == RET_PF_RETRY; faults++) {
		note_tables(s);
		expect(faults < 100);
	}
	note_tables(s);
	shadow_set_hook(s->g.shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE, NULL, NULL);
	return faults;
}

static void expect_pages(struct late_scene *s, unsigned int cpu, uint64_t value)
{
	for (unsigned int i = 0; i < TABLES; i++)
		expect_eq(guest_load(&s->g, cpu, table_gva(i)), value);
}

/* There are more of them than are compared in one section of mmu_lock. */
TEST(sync, many_tables_linked_after_the_flush)
{
	struct late_scene s;

	late_scene_init(&s);
	expect_eq(link_tables(&s), 2);
	expect(s.longest <= 16);
	expect_ge(s.breaks, TABLES / 16);
	expect_pages(&s, 0, 2);
	/* What is in step now is linked elsewhere at once. */
	guest_write(&s.g, guest_pte_gpa(&s.g, s.g.cr3, GVA, 4), 0);
	reload(&s.g, 0);
	guest_write(&s.g, guest_pte_gpa(&s.g, s.g.cr3, GVA, 4),
		    guest_read(&s.g, guest_pte_gpa(&s.g, s.other, GVA, 4)));
	expect_eq(link_tables(&s), 1);
	destroy(&s.g);
}

/* They are stored to all the time, and never come into step. The fault ends all the same. */
TEST(sync, many_tables_that_are_stored_to)
{
	struct late_scene s;

	late_scene_init(&s);
	s.stores = 1000;
	expect_eq(link_tables(&s), 3);
	expect_ge(s.breaks, 2 * TABLES / 16);
	expect_pages(&s, 0, s.stores % 2 ? 1 : 2);
	destroy(&s.g);
}

/*
 *   CPU 0                                   CPU 2, on the same root
 *   -----                                   -----
 *   comes to the tables: they are too many,
 *     and are synced where they are
 *                                           the guest edits an entry, CPU 2 loads CR3: the tables
 *                                             are not below its root
 *   comes to them again: links
 *                                           touches the page: it must be the new one
 */
TEST(sync, flushed_by_another_before_the_link)
{
	struct shadow_fault fault;
	struct late_scene s;

	late_scene_init(&s);
	expect_eq(shadow_load_cr3(s.g.shadow, 2, s.g.cr3), 0);
	expect_eq(guest_fault(&s.g, 0, table_gva(0), 0, &fault), RET_PF_RETRY);
	expect_pages(&s, 1, 2);
	set_leaf(&s.g, table_gva(5), P1 | LEAF);
	reload(&s.g, 2);
	expect(guest_fault(&s.g, 0, table_gva(0), 0, &fault) <= RET_PF_SPURIOUS);
	expect_eq(guest_load(&s.g, 2, table_gva(5)), 1);
	expect_eq(guest_load(&s.g, 2, table_gva(6)), 2);
	destroy(&s.g);
}

/* The same where more goes than a batch holds. */
TEST(sync, many_leaves_linked_after_the_flush)
{
	struct guest_mem g;
	uint64_t other;

	fixture(&g);
	shadow_set_audit(g.shadow, false);
	other = guest_new_table(&g);
	map_many(&g, g.cr3, P1);
	guest_write(&g, guest_pte_gpa(&g, other, GVA, 3),
		    guest_read(&g, guest_pte_gpa(&g, g.cr3, GVA, 3)));
	expect_eq(shadow_load_cr3(g.shadow, 1, other), 0);
	touch_many(&g, 1);
	for (uint64_t i = 0; i < MANY; i++)
		set_leaf(&g, GVA + (i << PAGE_SHIFT), P2 | LEAF);
	reload(&g, 0);
	for (uint64_t i = 0; i < MANY; i += 37)
		expect_eq(guest_load(&g, 0, GVA + (i << PAGE_SHIFT)), 2);
	destroy(&g);
}
