/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tables that a vCPU walks through, cached: that they are, and that no walk can tell. Every
 * other test of faults runs with it, too.
 */
#include <sched.h>

#include "notifier/mm_internal.h"
#include "notifier/pgtable.h"
#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"

#define GVA  0x40000000UL
#define LEAF (GUEST_PTE_RW | GUEST_PTE_U)

static const struct guest_mem_config walk_config = {
	.audit = true,
	.no_identity = true,
	.nr_cpus = 2,
	.nr_pages = 128,
};

/* GVA + i pages -> page i, which holds i + 1. */
static void fixture(struct guest_mem *g, const struct guest_mem_config *config)
{
	guest_mem_create(g, config);
	for (gpa_t i = 0; i < 32; i++) {
		guest_write(g, i << PAGE_SHIFT, i + 1);
		guest_map(g, g->cr3, GVA + (i << PAGE_SHIFT), i << PAGE_SHIFT, LEAF);
	}
}

/* By the vCPU's thread, with nothing after it. */
static void walk(struct guest_mem *g, gva_t gva, uint32_t access)
{
	int id = srcu_read_lock(&g->shadow->slots_srcu);
	struct guest_walk scratch;
	uint32_t code;

	expect_eq(guest_walk_vcpu(g->shadow, &g->shadow->vcpu[0], gva, access, &scratch, &code), 0);
	srcu_read_unlock(&g->shadow->slots_srcu, id);
}

static gfn_t table_gfn(struct guest_mem *g, int level)
{
	return guest_pte_gpa(g, g->cr3, GVA, level) >> PAGE_SHIFT;
}

/* Is the table of @level of GVA cached, and well? */
static bool cached(struct guest_mem *g, int level)
{
	struct walk_cache *cache = &g->shadow->vcpu[0].walk_cache;
	const struct gfn_to_pfn_cache *gpc = &cache->table[level - 1];
	gfn_t gfn = table_gfn(g, level);
	int id = srcu_read_lock(&g->shadow->slots_srcu);
	bool good;

	spin_lock(&cache->lock);
	good = gpc_check(gpc, gfn);
	if (good)
		expect(gpc->khva ==
		       phys_map(g->phys, mm_lookup_pfn(g->mm, guest_hva(gfn << PAGE_SHIFT))));
	spin_unlock(&cache->lock);
	srcu_read_unlock(&g->shadow->slots_srcu, id);
	return good;
}

static void expect_cached(struct guest_mem *g, bool all)
{
	for (int level = 1; level <= 4; level++)
		expect_eq(cached(g, level), all);
}

TEST(walk_cache, from_the_second_time_on)
{
	struct guest_mem g;

	fixture(&g, &walk_config);
	walk(&g, GVA, 0);
	expect_cached(&g, false);
	walk(&g, GVA + PAGE_SIZE, 0);
	expect_cached(&g, true);
	for (gpa_t i = 0; i < 32; i++)
		expect_eq(guest_load(&g, 0, GVA + (i << PAGE_SHIFT)), i + 1);
	expect_cached(&g, true);
	/* Another way through is not cached for the first time, and takes nothing away. */
	guest_map(&g, g.cr3, 2 * GVA, 5 << PAGE_SHIFT, LEAF);
	expect_eq(guest_load(&g, 0, 2 * GVA), 6);
	expect_cached(&g, true);
	destroy(&g);
}

/* Whatever the host does to a table's page, the next walk goes through where it is now. */
TEST(walk_cache, tables_move)
{
	struct guest_mem g;

	fixture(&g, &walk_config);
	for (gpa_t i = 0; i < 24; i++) {
		hva_t hva = guest_hva(table_gfn(&g, 1 + i % 4) << PAGE_SHIFT);

		if (i >= 2)
			expect(cached(&g, 1 + i % 4));
		if (i % 8 < 4)
			expect_eq(mm_migrate_range(g.mm, hva, PAGE_SIZE), 1);
		else
			expect_eq(mm_zap_range(g.mm, hva, PAGE_SIZE), 1);
		expect(!cached(&g, 1 + i % 4));
		expect_eq(guest_load(&g, 0, GVA + (i << PAGE_SHIFT)), i + 1);
		/* A table that was cached before is so again at once. */
		expect_eq(cached(&g, 1 + i % 4), i > 0);
		walk(&g, GVA + (i << PAGE_SHIFT), 0);
		expect_cached(&g, true);
	}
	destroy(&g);
}

/* Nothing of an entry is remembered: edits count for the next walk, and for the look under
 * mmu_lock. */
TEST(walk_cache, entries_are_read_each_time)
{
	struct guest_mem g;
	struct table_edit edit;

	fixture(&g, &walk_config);
	walk(&g, GVA, 0);
	walk(&g, GVA, 0);
	for (int level = 1; level <= 4; level++) {
		gva_t gva = GVA + (level << PAGE_SHIFT);
		gpa_t pte = guest_pte_gpa(&g, g.cr3, gva, level);
		uint64_t old = guest_read(&g, pte);
		struct shadow_fault fault;

		expect_cached(&g, true);
		guest_edit(&g, pte, 0);
		expect_eq(guest_fault(&g, 0, gva, 0, &fault), RET_PF_GUEST);
		guest_edit(&g, pte, old);
		expect(guest_fault(&g, 0, gva, 0, &fault) <= RET_PF_RETRY);

		edit = (struct table_edit){.g = &g, .pte = pte, .times = 1};
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook_edit_table, &edit);
		expect_eq(guest_fault(&g, 0, gva, PFERR_WRITE, &fault), RET_PF_RETRY);
		expect_eq(guest_fault(&g, 0, gva, PFERR_WRITE, &fault), RET_PF_GUEST);
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, NULL, NULL);
		guest_edit(&g, pte, old);
	}
	destroy(&g);
}

static void migrate_table(void *arg)
{
	struct guest_mem *g = arg;

	expect_ge(mm_migrate_range(g->mm, guest_hva(table_gfn(g, 1) << PAGE_SHIFT), PAGE_SIZE), 0);
}

/* The page moves between the read and the mark, and between the walk and the look: the bits are in
 * the page that is there now. */
TEST(walk_cache, table_moves_under_the_walk)
{
	static const enum shadow_hook_point points[] = {SHADOW_HOOK_WALK_BEFORE_MARK,
							SHADOW_HOOK_FAULT_BEFORE_LOCK};
	struct guest_mem g;

	fixture(&g, &walk_config);
	walk(&g, GVA, 0);
	walk(&g, GVA, 0);
	for (gpa_t i = 0; i < 16; i++) {
		gva_t gva = GVA + ((i + 1) << PAGE_SHIFT);

		shadow_set_hook(g.shadow, points[i % 2], migrate_table, &g);
		walk(&g, gva, PFERR_WRITE);
		shadow_set_hook(g.shadow, points[i % 2], NULL, NULL);
		expect_eq(guest_read(&g, guest_pte_gpa(&g, g.cr3, gva, 1)) &
				  (GUEST_PTE_A | GUEST_PTE_D),
			  GUEST_PTE_A | GUEST_PTE_D);
		guest_store(&g, 0, gva, i);
		expect_eq(guest_read(&g, (i + 1) << PAGE_SHIFT), i);
	}
	destroy(&g);
}

/* A child shares the tables' pages until one of the two writes: a walk that sets bits does. */
TEST(walk_cache, marks_do_not_show_in_a_child)
{
	struct guest_mem_config config = walk_config;
	struct mm_struct *child;
	struct guest_mem g;
	uint64_t before, after;
	hva_t hva;

	config.private_ram = true;
	fixture(&g, &config);
	walk(&g, GVA, PFERR_WRITE);
	walk(&g, GVA, PFERR_WRITE);
	expect_cached(&g, true);
	hva = guest_hva(guest_pte_gpa(&g, g.cr3, GVA + PAGE_SIZE, 1));
	expect_eq(mm_fork(g.mm, &child), 0);
	expect_cached(&g, false);
	/* A read that marks nothing leaves the page shared, and cached. */
	walk(&g, GVA, 0);
	expect_cached(&g, true);
	expect_eq(mm_lookup_pfn(child, hva), mm_lookup_pfn(g.mm, hva));
	expect_eq(mm_read(child, hva, &before, sizeof(before)), 0);
	guest_store(&g, 0, GVA + PAGE_SIZE, 4711);
	expect_eq(mm_read(child, hva, &after, sizeof(after)), 0);
	expect_eq(after, before);
	expect(!(after & (GUEST_PTE_A | GUEST_PTE_D)));
	expect_eq(guest_read(&g, hva - guest_hva(0)) & (GUEST_PTE_A | GUEST_PTE_D),
		  GUEST_PTE_A | GUEST_PTE_D);
	expect(mm_lookup_pfn(child, hva) != mm_lookup_pfn(g.mm, hva));
	mmput(child);
	destroy(&g);
}

/* Who is asked for the ages of tables that are walked all the time finds them young. */
TEST(walk_cache, a_table_in_use_is_young)
{
	struct guest_mem g;
	hva_t hva;

	fixture(&g, &walk_config);
	walk(&g, GVA, 0);
	walk(&g, GVA, 0);
	for (int level = 1; level <= 4; level++) {
		hva = guest_hva(table_gfn(&g, level) << PAGE_SHIFT);
		expect(cached(&g, level));
		expect_eq(mm_madvise(g.mm, hva, PAGE_SIZE, MM_MADV_COLD), 0);
		expect(!(pte_load(pgtable_lookup(g.mm->pgtable, hva)) & PTE_ACCESSED));
		walk(&g, GVA, 0);
		expect(pte_load(pgtable_lookup(g.mm->pgtable, hva)) & PTE_ACCESSED);
		expect(cached(&g, level));
	}
	destroy(&g);
}

/* A walk by cached tables asks the host for none of them: any other marks their pages. */
TEST(walk_cache, asks_nobody)
{
	struct guest_mem g;
	pte_t *ptep[5];
	gpa_t gpte;

	fixture(&g, &walk_config);
	gpte = guest_pte_gpa(&g, g.cr3, GVA, 1);
	walk(&g, GVA, 0);
	walk(&g, GVA, 0);
	guest_write(&g, gpte, guest_read(&g, gpte) & ~GUEST_PTE_A); /* a walk is to set it */
	for (int level = 1; level <= 4; level++) {
		ptep[level] = pgtable_lookup(g.mm->pgtable,
					     guest_hva(table_gfn(&g, level) << PAGE_SHIFT));
		*ptep[level] &= ~PTE_ACCESSED;
	}
	walk(&g, GVA, 0);
	for (int level = 1; level <= 4; level++)
		expect(!(pte_load(ptep[level]) & PTE_ACCESSED));
	expect(guest_read(&g, gpte) & GUEST_PTE_A);
	destroy(&g);
}

/* Instruction fetch and operands walk with it, too; and who only looks leaves no trace. */
TEST(walk_cache, every_walk_of_the_vcpu)
{
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;
	uint64_t value = 0;

	fixture(&g, &walk_config);
	for (int i = 0; i < 2; i++)
		expect_eq(shadow_read_gva(g.shadow, 0, GVA, &value, sizeof(value), PFERR_FETCH,
					  NULL),
			  0);
	expect_eq(value, 1);
	expect_cached(&g, true);
	expect_eq(mm_migrate_range(g.mm, guest_hva(table_gfn(&g, 4) << PAGE_SHIFT), PAGE_SIZE), 1);
	expect(!cached(&g, 4));
	expect_eq(shadow_operand_get(g.shadow, 0, GVA + PAGE_SIZE, 8, PFERR_WRITE, &operand,
				     &fault),
		  0);
	expect_eq(shadow_operand_write(g.shadow, &operand, 4711), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_cached(&g, true);
	expect_eq(guest_read(&g, PAGE_SIZE), 4711);
	destroy(&g);
}

/* ---- all of it at once ---- */

/*
 * Two vCPUs whose guest's tables are moved and dropped all the time add to words of their own: a
 * walk through the frame of a table that is gone, or that is something else by now, ends in a page
 * that is not the one, or in poison.
 */
struct storm {
	struct guest_mem g;
	struct storm_cpu {
		struct storm *storm;
		unsigned int number;
		struct kthread thread;
		uint64_t added[32], done;
	} cpu[2];
	struct kthread host, slots;
	atomic_t stop;
	uint64_t moved;
};

static void run_cpu(void *arg)
{
	struct storm_cpu *c = arg;
	struct storm *s = c->storm;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++) {
		unsigned int page = i * 7 % 32;
		struct model_access access = {
			.op = MODEL_ADD,
			.gva = GVA + (page << PAGE_SHIFT) + 8 * (1 + c->number),
			.value = 1,
		};

		expect_eq(model_access_retry(s->g.model, c->number, s->g.shadow, &access),
			  RET_PF_FIXED);
		expect_eq(access.value, c->added[page]);
		c->added[page]++;
		WRITE_ONCE(c->done, c->done + 1);
	}
}

static void run_host(void *arg)
{
	struct storm *s = arg;

	for (unsigned int i = 0; !atomic_read(&s->stop); i++) {
		hva_t table = guest_hva(table_gfn(&s->g, 1 + i % 4) << PAGE_SHIFT);

		if (i / 4 % 4 == 3)
			expect_ge(mm_zap_range(s->g.mm, table, PAGE_SIZE), 0);
		else
			WRITE_ONCE(s->moved,
				   s->moved + (mm_migrate_range(s->g.mm, table, PAGE_SIZE) == 1));
		/* So that there are faults. */
		expect_ge(mm_zap_range(s->g.mm, guest_hva((i * 5 % 32) << PAGE_SHIFT), PAGE_SIZE),
			  0);
	}
}

static void run_slots(void *arg)
{
	const struct memslot_region here = {.id = 1,
					    .base_gfn = 0x9000,
					    .npages = 1,
					    .hva = guest_hva(0)};
	const struct memslot_region gone = {.id = 1};
	struct storm *s = arg;

	while (!atomic_read(&s->stop)) {
		expect_eq(shadow_set_memslot(s->g.shadow, &here), 0);
		expect_eq(shadow_set_memslot(s->g.shadow, &gone), 0);
	}
}

TEST(walk_cache, storm)
{
	const uint64_t enough = test_long() ? 400000 : 5000;
	struct guest_mem_config config = walk_config;
	static struct storm s;

	s = (struct storm){0};
	config.audit = false; /* at the end */
	fixture(&s.g, &config);
	for (unsigned int i = 0; i < 2; i++) {
		for (unsigned int page = 0; page < 32; page++)
			guest_write(&s.g, (page << PAGE_SHIFT) + 8 * (1 + i), 0);
		s.cpu[i].storm = &s;
		s.cpu[i].number = i;
	}
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(kthread_run(&s.cpu[i].thread, "cpu", run_cpu, &s.cpu[i]), 0);
	expect_eq(kthread_run(&s.host, "host", run_host, &s), 0);
	expect_eq(kthread_run(&s.slots, "slots", run_slots, &s), 0);
	while (READ_ONCE(s.cpu[0].done) < enough || READ_ONCE(s.cpu[1].done) < enough ||
	       READ_ONCE(s.moved) < enough / 10)
		sched_yield();
	atomic_set(&s.stop, 1);
	kthread_join(&s.host);
	kthread_join(&s.slots);
	for (unsigned int i = 0; i < 2; i++) {
		kthread_join(&s.cpu[i].thread);
		for (unsigned int page = 0; page < 32; page++)
			expect_eq(guest_read(&s.g, (page << PAGE_SHIFT) + 8 * (1 + i)),
				  s.cpu[i].added[page]);
	}
	expect_eq(shadow_audit(s.g.shadow, NULL, 0), 0);
	destroy(&s.g);
}
