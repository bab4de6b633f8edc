/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What INVLPG and CR3 loads do with entries that the guest has changed, or the host behind its
 * back, and what becomes of stores that race with them.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

#define MIB2   (2UL << 20)
#define GVA    0x40000000UL   /* translated by tables of its own */
#define WINDOW 0x8000000000UL /* where the guest has the table of GVA's leaf mapped */
#define P1     0x1000UL
#define P2     0x2000UL
#define LEAF   (GUEST_PTE_RW | GUEST_PTE_U)

static const struct guest_mem_config config = {
	.audit = true,
	.nr_cpus = 4,
	.nr_pages = 3 * 512,
	.nr_frames = 4096,
	.no_identity = true,
	.reuse = MODEL_REUSE_LIFO,
};

/* GVA and its neighbour -> P1, which holds 1; P2 holds 2. The root is one that was synced before.
 */
static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_write(g, P1, 1);
	guest_write(g, P2, 2);
	guest_map(g, g->cr3, GVA, P1, LEAF);
	guest_map(g, g->cr3, GVA + PAGE_SIZE, P1, LEAF);
	guest_map(g, g->cr3, WINDOW, guest_pte_gpa(g, g->cr3, GVA, 1) & PAGE_MASK, GUEST_PTE_RW);
}

static void destroy(struct guest_mem *g)
{
	struct model_stats stats;

	model_get_stats(g->model, &stats);
	expect_eq(stats.contract_violations, 0);
	guest_mem_destroy(g);
}

static struct shadow_stats stats_of(struct guest_mem *g)
{
	struct shadow_stats stats;

	shadow_get_stats(g->shadow, &stats);
	return stats;
}

static void reload(struct guest_mem *g, unsigned int cpu)
{
	expect_eq(shadow_load_cr3(g->shadow, cpu, g->cr3), 0);
}

static uint64_t leaf_gpte(struct guest_mem *g, gva_t gva)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, gva, 1));
}

static void set_leaf(struct guest_mem *g, gva_t gva, uint64_t gpte)
{
	guest_edit(g, guest_pte_gpa(g, g->cr3, gva, 1), gpte);
}

/* The guest's CPU @cpu stores to the entry of GVA itself. */
static void store_leaf(struct guest_mem *g, unsigned int cpu, uint64_t gpte)
{
	guest_store(g, cpu, WINDOW + (guest_pte_gpa(g, g->cr3, GVA, 1) & ~PAGE_MASK), gpte);
}

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

/* ---- races: the ladders are in shadow/sync.c ---- */

struct race {
	struct guest_mem g;
	struct park park;
	atomic_t batches, syncs;
	void (*at_batch)(struct race *race); /* entries changed, CPUs not told; of the first one */
	void (*at_sync)(struct race *race);  /* protected, and not compared; of the first one */
	uint64_t found;
};

static void batch_hook(void *arg)
{
	struct race *race = arg;

	if (atomic_inc_return(&race->batches) == 1)
		race->at_batch(race);
}

static void sync_hook(void *arg)
{
	struct race *race = arg;

	if (atomic_inc_return(&race->syncs) == 1)
		race->at_sync(race);
}

/* GVA was used, its entry leads to P1, and CPU 1 can store to its table without a fault. */
static void race_init(struct race *race)
{
	*race = (struct race){0};
	park_init(&race->park);
	fixture(&race->g);
	expect_eq(guest_load(&race->g, 0, GVA), 1);
	store_leaf(&race->g, 1, leaf_gpte(&race->g, GVA));
}

static void race_at_batch(struct race *race, void (*fn)(struct race *race))
{
	race->at_batch = fn;
	shadow_set_hook(race->g.shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT, batch_hook, race);
}

static void race_at_sync(struct race *race, void (*fn)(struct race *race))
{
	race->at_sync = fn;
	shadow_set_hook(race->g.shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE, sync_hook, race);
}

/* CPU 1 stores to the entry, and its TLB lets it. */
static void store_by_tlb(struct race *race, uint64_t gpte)
{
	gva_t at = WINDOW + (guest_pte_gpa(&race->g, race->g.cr3, GVA, 1) & ~PAGE_MASK);

	expect_eq(model_store(race->g.model, 1, at, gpte), 0);
}

static void edit_by_tlb(struct race *race)
{
	store_by_tlb(race, P2 | LEAF);
}

/* The table was protected, and CPU 1 has not heard of it. */
TEST(sync, race_store_before_the_shootdown)
{
	struct race race;

	race_init(&race);
	race_at_batch(&race, edit_by_tlb);
	reload(&race.g, 0);
	expect_ge(atomic_read(&race.batches), 1);
	reload(&race.g, 1);
	expect_eq(guest_load(&race.g, 1, GVA), 2);
	destroy(&race.g);
}

/* A store is let through in the middle of a sync; another, after it, by the right that CPU 1 got.
 */
static void get_the_right(struct race *race)
{
	store_leaf(&race->g, 1, leaf_gpte(&race->g, GVA));
}

TEST(sync, race_store_in_the_middle)
{
	struct race race;

	race_init(&race);
	race_at_sync(&race, get_the_right);
	reload(&race.g, 0);
	expect_eq(atomic_read(&race.syncs), 1);
	store_by_tlb(&race, P2 | LEAF);
	reload(&race.g, 1);
	expect_eq(guest_load(&race.g, 1, GVA), 2);
	destroy(&race.g);
}

/* Another CPU loads CR3 in the middle: it cannot take it that all has been compared. */
static void flush_elsewhere(struct race *race)
{
	reload(&race->g, 3);
	race->found = guest_load(&race->g, 3, GVA);
}

TEST(sync, race_another_flush_in_the_middle)
{
	struct race race;

	race_init(&race);
	store_by_tlb(&race, P2 | LEAF);
	race_at_sync(&race, flush_elsewhere);
	reload(&race.g, 0);
	expect_eq(race.found, 2);
	destroy(&race.g);
}

/*
 *   sync 1                                 CPU 1                    sync 2
 *   ------                                 -----                    ------
 *   protects, shoots down
 *                                          gets the right again
 *                                                                   protects
 *   compares; the mark stays, since the
 *     table has the number of sync 2
 *                                          stores by its TLB
 *                                                                   shoots down; compares
 *                                          loads CR3: sees it
 */
static void first_sync(void *arg)
{
	struct race *race = arg;

	reload(&race->g, 0);
}

static void second_sync(void *arg)
{
	struct race *race = arg;

	reload(&race->g, 3);
}

static void park_batch(struct race *race)
{
	park_enter(&race->park);
}

static struct kthread second;

static void start_second_sync(struct race *race)
{
	get_the_right(race);
	race_at_batch(race, park_batch);
	expect_eq(kthread_run(&second, "second", second_sync, race), 0);
	park_wait(&race->park, 1);
}

TEST(sync, race_of_two_syncs)
{
	struct kthread first;
	struct race race;

	race_init(&race);
	race_at_sync(&race, start_second_sync);
	expect_eq(kthread_run(&first, "first", first_sync, &race), 0);
	/* It has compared when it waits for what the second has not shot down. */
	while (!stats_of(&race.g).batches_waited)
		sched_yield();
	store_by_tlb(&race, P2 | LEAF);
	park_release(&race.park);
	kthread_join(&first);
	kthread_join(&second);
	reload(&race.g, 1);
	expect_eq(guest_load(&race.g, 1, GVA), 2);
	destroy(&race.g);
}

/* ---- all of it at once ---- */

#define STORM_CPUS   3
#define STORM_PAGES  16 /* of each CPU, in tables that all CPUs store to */
#define STORM_ROOTS  2
#define STORM_DIR    (GVA + 64 * MIB2) /* where each CPU has an entry of a directory for itself */
#define FRAMES	     4		       /* that pages may lead to; each holds its number */
#define FRAME_GPA(n) (0x10000UL + ((uint64_t)(n) << PAGE_SHIFT))

struct storm {
	struct guest_mem g;
	uint64_t cr3[STORM_ROOTS];
	gpa_t table[STORM_CPUS]
		   [2]; /* for the entry of a directory, which is at WINDOW + PAGE_SIZE */
	unsigned int rounds;
	atomic_t ended;
};

/*
 * A CPU edits the entries of its own pages, with its own stores, and flushes: then each of its
 * pages leads where it said last, whatever the others do to the same tables meanwhile.
 */
struct storm_cpu {
	struct storm *storm;
	unsigned int nr;
	uint64_t random;
	unsigned int leads_to[STORM_PAGES];
	unsigned int table; /* which one its entry of a directory has */
};

static unsigned int below(struct storm_cpu *c, unsigned int n)
{
	c->random = c->random * 6364136223846793005 + 1442695040888963407;
	return (c->random >> 33) % n;
}

/* Pages of all CPUs in turn: neighbours are different CPUs'. */
static gva_t own_page(const struct storm_cpu *c, unsigned int i)
{
	return GVA + (((uint64_t)i * STORM_CPUS + c->nr) << PAGE_SHIFT);
}

static gva_t own_dir(const struct storm_cpu *c)
{
	return STORM_DIR + c->nr * MIB2;
}

static void edit_own(struct storm_cpu *c, unsigned int i)
{
	gpa_t pte = guest_pte_gpa(&c->storm->g, c->storm->cr3[0], own_page(c, i), 1);

	c->leads_to[i] = below(c, FRAMES);
	guest_store(&c->storm->g, c->nr, WINDOW + (pte & ~PAGE_MASK),
		    FRAME_GPA(c->leads_to[i]) | LEAF);
}

static void edit_own_dir(struct storm_cpu *c)
{
	struct guest_mem *g = &c->storm->g;
	gpa_t pde = guest_pte_gpa(g, c->storm->cr3[0], own_dir(c), 2);

	c->table ^= 1;
	if (below(c, 2))
		guest_edit(g, pde, c->storm->table[c->nr][c->table] | LEAF);
	else
		guest_store(g, c->nr, WINDOW + PAGE_SIZE + (pde & ~PAGE_MASK),
			    c->storm->table[c->nr][c->table] | LEAF);
}

static void check_own(struct storm_cpu *c)
{
	struct guest_mem *g = &c->storm->g;

	for (unsigned int i = 0; i < STORM_PAGES; i++)
		expect_eq(guest_load(g, c->nr, own_page(c, i)), c->leads_to[i]);
	expect_eq(guest_load(g, c->nr, own_dir(c)), c->table);
}

static void storm_cpu(void *arg)
{
	struct storm_cpu *c = arg;
	struct storm *storm = c->storm;

	for (unsigned int round = 0; round < storm->rounds; round++) {
		unsigned int i = below(c, STORM_PAGES);

		if (below(c, 2)) {
			edit_own(c, i);
			shadow_invlpg(storm->g.shadow, c->nr, own_page(c, i));
		} else {
			for (unsigned int edits = below(c, 4); edits; edits--)
				edit_own(c, below(c, STORM_PAGES));
			if (!below(c, 4))
				edit_own_dir(c);
			expect_eq(shadow_load_cr3(storm->g.shadow, c->nr,
						  storm->cr3[below(c, STORM_ROOTS)]),
				  0);
		}
		check_own(c);
	}
	atomic_inc(&storm->ended);
}

/* All pages lead to frame 0, and the entries of directories to tables that lead to 0 and 1. */
static void storm_init(struct storm *storm)
{
	struct guest_mem *g = &storm->g;

	fixture(g);
	shadow_set_audit(g->shadow, false);
	storm->cr3[0] = g->cr3;
	storm->cr3[1] = guest_new_table(g);
	for (unsigned int n = 0; n < FRAMES; n++)
		guest_write(g, FRAME_GPA(n), n);
	for (uint64_t i = 0; i < STORM_CPUS * STORM_PAGES; i++)
		guest_map(g, g->cr3, GVA + (i << PAGE_SHIFT), FRAME_GPA(0), LEAF);
	for (unsigned int cpu = 0; cpu < STORM_CPUS; cpu++) {
		for (unsigned int n = 0; n < 2; n++) {
			storm->table[cpu][n] = guest_new_table(g);
			guest_write(g, storm->table[cpu][n], FRAME_GPA(n) | LEAF);
		}
		guest_write(g, guest_pte_gpa(g, g->cr3, STORM_DIR + cpu * MIB2, 2),
			    storm->table[cpu][0] | LEAF);
	}
	guest_map(g, g->cr3, WINDOW + PAGE_SIZE, guest_pte_gpa(g, g->cr3, STORM_DIR, 2) & PAGE_MASK,
		  GUEST_PTE_RW);
	/* The other root has all tables below it in common. */
	for (unsigned int i = 0; i < 512; i++)
		guest_write(g, storm->cr3[1] + 8 * i, guest_read(g, g->cr3 + 8 * i));
}

/* mmu_lock: is what is entered in a table that is in step what the guest's entries say? */
static unsigned int check_in_step(struct guest_mem *g, const struct shadow_page *sp)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		hva_t hva = guest_hva((sp->gfn << PAGE_SHIFT) + 8 * i);
		spte_t spte = READ_ONCE(sp->spt[i]);
		uint64_t gpte;

		/* The host may be moving the table. */
		if (!spte_present(spte) || mm_read64_atomic(g->mm, hva, &gpte))
			continue;
		expect(gpte & GUEST_PTE_P);
		expect_eq((gpte & SPTE_PFN_MASK) >> PAGE_SHIFT, sp->gfns[i]);
		expect(!(spte & SPTE_WRITE) || (gpte & GUEST_PTE_D));
		nr++;
	}
	return nr;
}

static uint64_t check_all_in_step(struct guest_mem *g)
{
	struct shadow_page *sp;
	uint64_t nr = 0;

	spin_lock(&g->shadow->mmu_lock);
	list_for_each_entry(sp, &g->shadow->pages, link) {
		if (sp->role.level == 1 && !sp->unsync)
			nr += check_in_step(g, sp);
	}
	spin_unlock(&g->shadow->mmu_lock);
	return nr;
}

TEST(sync, storm)
{
	struct kthread threads[STORM_CPUS];
	struct storm_cpu cpus[STORM_CPUS] = {0};
	struct storm storm = {.rounds = test_long() ? 50000 : 4000};
	char why[256] = "";
	uint64_t in_step = 0;

	storm_init(&storm);
	for (unsigned int i = 0; i < STORM_CPUS; i++) {
		cpus[i] = (struct storm_cpu){.storm = &storm, .nr = i, .random = i};
		expect_eq(kthread_run(&threads[i], "cpu", storm_cpu, &cpus[i]), 0);
	}
	/* The host moves tables and pages all the while. */
	while (atomic_read_acquire(&storm.ended) < STORM_CPUS) {
		mm_migrate_range(storm.g.mm, guest_hva(0), storm.g.nr_pages << PAGE_SHIFT);
		shadow_audit(storm.g.shadow, why, sizeof(why));
		expect_str_eq(why, "");
		in_step += check_all_in_step(&storm.g);
	}
	expect_ge(in_step, 1);
	for (unsigned int i = 0; i < STORM_CPUS; i++)
		kthread_join(&threads[i]);
	expect_ge(stats_of(&storm.g).synced, storm.rounds);
	expect_ge(stats_of(&storm.g).unsync_made, storm.rounds / 20);
	expect_ge(stats_of(&storm.g).write_protected, 10);
	destroy(&storm.g);
}
