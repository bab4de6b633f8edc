/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two policies of a delete: what goes and what stays, locks that are dropped in between, what a
 * vCPU may do meanwhile; and under the same seed a guest cannot tell them apart.
 */
#include <stdlib.h>

#include "tests/support/beside.h"
#include "tests/support/memslot_fixture.h"

#define REGION	(1UL << 21) /* that one table of leaves maps */
#define WIDE	0x40000000UL
#define REGIONS 45

static const struct guest_mem_config config = {.audit = true,
					       .nr_cpus = 2,
					       .nr_pages = 128,
					       .reuse = MODEL_REUSE_LIFO};

/* As many tables as there are regions, in RAM; and in SLOT one page. */
static void wide_fixture(struct guest_mem *g, enum shadow_zap_policy policy)
{
	memslot_fixture(g, &config);
	shadow_set_zap_policy(g->shadow, policy);
	expect_eq(place(g, SLOT_GFN), 0);
	for (uint64_t i = 0; i < REGIONS; i++) {
		guest_map(g, g->cr3, WIDE + i * REGION, i << PAGE_SHIFT, GUEST_PTE_RW);
		guest_store(g, 0, WIDE + i * REGION, i);
		expect_eq(guest_load(g, 1, WIDE + i * REGION), i);
	}
	expect_eq(guest_load(g, 1, slot_gva(SLOT_GFN)), stamp(0));
}

TEST(zap_slot, what_goes)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		uint64_t faults, zapped, retired;
		unsigned int breaks = 0;
		struct guest_mem g;

		wide_fixture(&g, policy);
		shadow_set_hook(g.shadow, SHADOW_HOOK_ZAP_BREAK, hook_count, &breaks);
		zapped = stats_of(&g).sptes_zapped;
		retired = stats_of(&g).tables_retired;
		expect_eq(delete_slot(&g, SLOT), 0);
		expect_unreached(&g);
		if (policy == SHADOW_ZAP_ALL) {
			/* All but the root, ten at a time. */
			expect_eq(stats_of(&g).sptes_zapped - zapped, REGIONS + 1);
			expect_ge(stats_of(&g).tables_retired - retired, REGIONS);
			expect_eq(breaks, (stats_of(&g).tables_retired - retired) / 10);
		} else {
			expect_eq(stats_of(&g).sptes_zapped - zapped, 1);
			expect_eq(stats_of(&g).tables_retired, retired);
			expect_eq(breaks, 0);
		}
		faults = stats_of(&g).faults;
		for (uint64_t i = 0; i < REGIONS; i++)
			expect_eq(guest_load(&g, 0, WIDE + i * REGION), i);
		expect_eq(stats_of(&g).faults - faults, policy == SHADOW_ZAP_ALL ? REGIONS : 0);
		memslot_fixture_done(&g);
	}
}

/* A large slot, with little in it and with much: mmu_lock is dropped on the way, too. */
TEST(zap_slot, large_slots_have_breaks)
{
	unsigned int breaks = 0;
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_SLOT);
	shadow_set_hook(g.shadow, SHADOW_HOOK_ZAP_BREAK, hook_count, &breaks);
	expect_eq(set_slot(&g, 2, 0x100000, 5 * 4096, 2 * SLOT_HVA, 0), 0);
	expect_eq(delete_slot(&g, 2), 0);
	expect_eq(breaks, 4);

	/* Some pages, each at many places: more leaves than a batch has room for. They are audited
	 * once they are there. */
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	for (uint64_t i = 0; i < 3 * ZAP_BATCH_ENTRIES; i++) {
		gva_t gva = WIDE + (i / 500) * REGION + (1 + i % 500) * PAGE_SIZE;

		guest_map(&g, g.cr3, gva, (SLOT_GFN + i % 4) << PAGE_SHIFT, GUEST_PTE_RW);
		expect_eq(guest_load(&g, 0, gva), stamp(i % 4));
	}
	shadow_set_audit(g.shadow, SHADOW_AUDIT_SEMANTIC);
	breaks = 0;
	expect_eq(delete_slot(&g, SLOT), 0);
	expect_ge(breaks, 2);
	expect_unreached(&g);
	memslot_fixture_done(&g);
}

/* Tables in ROM become tables in RAM: no walk has marked them, and all go, ten at a time. */
TEST(zap_slot, tables_of_a_slot)
{
	unsigned int breaks = 0;
	struct guest_mem g;
	uint64_t retired;

	wide_fixture(&g, SHADOW_ZAP_SLOT);
	expect_eq(set_slot(&g, 0, 0, g.nr_pages, GUEST_MEM_HVA, MEMSLOT_READONLY), 0);
	for (uint64_t i = 0; i < REGIONS; i++)
		expect_eq(guest_load(&g, 0, WIDE + i * REGION), i);
	shadow_set_hook(g.shadow, SHADOW_HOOK_ZAP_BREAK, hook_count, &breaks);
	retired = stats_of(&g).tables_retired;
	expect_eq(set_slot(&g, 0, 0, g.nr_pages, GUEST_MEM_HVA, 0), 0);
	expect_ge(stats_of(&g).tables_retired - retired, REGIONS);
	expect_ge(breaks, REGIONS / 10);
	memslot_fixture_done(&g);
}

static void delete_the_slot(void *arg)
{
	expect_eq(delete_slot(arg, SLOT), 0);
}

/* All that there is becomes obsolete at one moment, to whoever has mmu_lock. */
TEST(zap_slot, obsolete_under_the_lock)
{
	for (unsigned int round = 0; round < 20; round++) {
		struct beside beside;
		uint64_t generation;
		struct guest_mem g;

		memslot_fixture(&g, &config);
		expect_eq(place(&g, SLOT_GFN), 0);
		generation = shadow_memslots_generation(g.shadow);
		spin_lock(&g.shadow->mmu_lock);
		beside_start(&beside, delete_the_slot, &g);
		while (shadow_memslots_generation(g.shadow) == generation)
			sched_yield();
		for_each_look() expect(!shadow_page_obsolete(g.shadow, g.shadow->vcpu[0].root));
		spin_unlock(&g.shadow->mmu_lock);
		kthread_join(&beside.thread);
		expect(shadow_page_obsolete(g.shadow, g.shadow->vcpu[0].root));
		memslot_fixture_done(&g);
	}
}

/* ---- in the middle of the zap of all ---- */

struct middle {
	struct guest_mem *g;
	void (*fn)(struct guest_mem *g);
	unsigned int breaks;
};

static void at_first_break(void *arg)
{
	struct middle *m = arg;

	if (!m->breaks++)
		m->fn(m->g);
}

static void delete_and(struct guest_mem *g, void (*fn)(struct guest_mem *g))
{
	struct middle m = {.g = g, .fn = fn};

	shadow_set_hook(g->shadow, SHADOW_HOOK_ZAP_BREAK, at_first_break, &m);
	expect_eq(delete_slot(g, SLOT), 0);
	expect_ge(m.breaks, 1);
	shadow_set_hook(g->shadow, SHADOW_HOOK_ZAP_BREAK, NULL, NULL);
}

/* The region whose table is the last to go. */
#define LAST (WIDE + (REGIONS - 1) * REGION)

/*
 * The guest changes an entry and executes INVLPG; what its CPU remembers is in a table that hangs
 * below no root any more, and is not zapped yet.
 */
static void invlpg(struct guest_mem *g)
{
	expect(shadow_page_obsolete(g->shadow, g->shadow->vcpu[1].root));
	expect_eq(guest_load(g, 1, LAST), REGIONS - 1);
	guest_map(g, g->cr3, LAST, 3 * PAGE_SIZE, GUEST_PTE_RW);
	shadow_invlpg(g->shadow, 1, LAST);
	expect_eq(guest_load(g, 1, LAST), 3);
}

TEST(zap_slot, invlpg_reaches_what_is_obsolete)
{
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_ALL);
	delete_and(&g, invlpg);
	expect_eq(guest_load(&g, 0, LAST), 3);
	memslot_fixture_done(&g);
}

static void load_cr3(struct guest_mem *g)
{
	expect_eq(guest_load(g, 1, LAST), REGIONS - 1);
	guest_map(g, g->cr3, LAST, 3 * PAGE_SIZE, GUEST_PTE_RW);
	expect_eq(shadow_load_cr3(g->shadow, 1, g->cr3), 0);
	expect(!shadow_page_obsolete(g->shadow, g->shadow->vcpu[1].root));
	expect_eq(guest_load(g, 1, LAST), 3);
}

TEST(zap_slot, cr3_leaves_what_is_obsolete)
{
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_ALL);
	delete_and(&g, load_cr3);
	expect_eq(guest_load(&g, 1, LAST), 3);
	expect_eq(guest_load(&g, 0, LAST), 3);
	memslot_fixture_done(&g);
}

/*
 * One CPU is at the new root already when another, which is not, changes an entry that the new root
 * has seen as it was, and executes INVLPG. Then it moves on, too.
 */
static void first_one_then_the_other(struct guest_mem *g)
{
	expect_eq(shadow_load_cr3(g->shadow, 0, g->cr3), 0);
	expect_eq(guest_load(g, 0, LAST), REGIONS - 1);
	guest_map(g, g->cr3, LAST, 3 * PAGE_SIZE, GUEST_PTE_RW);
	shadow_invlpg(g->shadow, 1, LAST);
	expect_eq(guest_load(g, 1, WIDE), 0); /* it faults elsewhere, and is on the new root */
	expect_eq(guest_load(g, 1, LAST), 3);
}

TEST(zap_slot, a_new_root_is_not_older_than_an_invlpg)
{
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_ALL);
	delete_and(&g, first_one_then_the_other);
	memslot_fixture_done(&g);
}

/* A CPU faults in the middle: it gets a new root, and what it has made stays. */
static void fault(struct guest_mem *g)
{
	guest_store(g, 0, 0x5000, 55);
	expect(!shadow_page_obsolete(g->shadow, g->shadow->vcpu[0].root));
	expect(shadow_page_obsolete(g->shadow, g->shadow->vcpu[1].root));
}

TEST(zap_slot, faults_get_through)
{
	uint64_t faults;
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_ALL);
	delete_and(&g, fault);
	faults = stats_of(&g).faults;
	expect_eq(guest_load(&g, 0, 0x5000), 55);
	expect_eq(stats_of(&g).faults, faults);
	expect_eq(guest_load(&g, 1, 0x5000), 55);
	memslot_fixture_done(&g);
}

/* An mm that ends there, and a window: both find what is obsolete. */
static void migrate(struct guest_mem *g)
{
	expect_eq(mm_migrate_range(g->mm, guest_hva((REGIONS - 1) * PAGE_SIZE), PAGE_SIZE), 1);
	expect_eq(guest_load(g, 1, LAST), REGIONS - 1);
}

static void exit_mm(struct guest_mem *g)
{
	mmput(g->mm);
	g->mm = NULL;
}

TEST(zap_slot, invalidation_and_exit_in_the_middle)
{
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_ALL);
	delete_and(&g, migrate);
	memslot_fixture_done(&g);
	wide_fixture(&g, SHADOW_ZAP_ALL);
	delete_and(&g, exit_mm);
	guest_mem_destroy(&g);
}

/* An emptied root that nobody asked for again is all that a delete leaves behind, and that goes. */
TEST(zap_slot, nothing_piles_up)
{
	uint64_t free_early = 0;
	struct guest_mem g;

	wide_fixture(&g, SHADOW_ZAP_ALL);
	for (int i = 0; i < 100; i++) {
		expect_eq(delete_slot(&g, SLOT), 0);
		expect_eq(place(&g, SLOT_GFN), 0);
		if (i % 3 == 0)
			expect_eq(guest_load(&g, i % 2, LAST), REGIONS - 1);
		if (i == 9)
			free_early = phys_nr_free(g.phys);
	}
	/* The model keeps tables for reuse: it may have got none of them from the pool since. */
	expect_eq(phys_nr_free(g.phys), free_early);
	memslot_fixture_done(&g);
}

/* ---- the same seed, both policies ---- */

/*
 * A guest of two CPUs, whose slots come, go, move and become read-only, whose entries change (with
 * an INVLPG on both), whose memory the host moves and takes: three slots, with memory of their own,
 * within a range of gfns in which the guest looks; and some of its tables are in the first of them.
 * What each access must yield is known from the slots alone.
 */
#define SLOTS	  3
#define GFN0	  0x1000UL
#define GFNS	  40UL
#define LOOK_GVA  0x50000000UL /* one page for each gfn */
#define TABLE_GVA 0x60000000UL /* by a table in page 0 of the first slot, while that is at GFN0 */

struct program {
	struct guest_mem g;
	unsigned int seed;
	struct memslot_region slot[SLOTS];
	uint64_t outcome; /* of everything, hashed */
	unsigned int done, emulated, fixed, refused;
};

static void note(struct program *p, uint64_t word)
{
	p->outcome = (p->outcome ^ word) * 0x100000001b3UL;
}

static unsigned int draw(struct program *p, unsigned int n)
{
	return rand_r(&p->seed) / 7 % n;
}

static hva_t slots_hva(unsigned int i)
{
	return 2 * SLOT_HVA + i * 64 * PAGE_SIZE;
}

static void program_init(struct program *p, unsigned int seed, enum shadow_zap_policy policy)
{
	*p = (struct program){.seed = seed};
	memslot_fixture(&p->g, &config);
	shadow_set_zap_policy(p->g.shadow, policy);
	for (unsigned int i = 0; i < SLOTS; i++) {
		p->slot[i] = (struct memslot_region){.id = 10 + i, .hva = slots_hva(i)};
		expect_eq(mm_mmap(p->g.mm, slots_hva(i), GFNS * PAGE_SIZE,
				  MM_PROT_READ | MM_PROT_WRITE, NULL, 0),
			  0);
	}
	for (gfn_t gfn = GFN0; gfn < GFN0 + GFNS; gfn++)
		guest_map(&p->g, p->g.cr3, LOOK_GVA + ((gfn - GFN0) << PAGE_SHIFT),
			  gfn << PAGE_SHIFT, GUEST_PTE_RW);
	guest_write(&p->g, guest_pte_gpa(&p->g, p->g.cr3, TABLE_GVA, 2),
		    GFN0 << PAGE_SHIFT | GUEST_PTE_RW);
	for (uint64_t i = 0; i < 512; i++) {
		uint64_t pte = (i % 32) << PAGE_SHIFT | GUEST_PTE_RW;

		expect_eq(mm_write(p->g.mm, slots_hva(0) + 8 * i, &pte, sizeof(pte)), 0);
	}
}

static const struct memslot_region *slot_at(const struct program *p, gfn_t gfn)
{
	for (unsigned int i = 0; i < SLOTS; i++) {
		if (gfn - p->slot[i].base_gfn < p->slot[i].npages)
			return &p->slot[i];
	}
	return NULL;
}

static void change_slot(struct program *p)
{
	struct memslot_region next, *slot = &p->slot[draw(p, SLOTS)];
	int ret;

	next = *slot;
	if (!slot->npages)
		next.npages = 1 + draw(p, 12);
	else if (!draw(p, 3))
		next.npages = 0;
	if (!slot->npages || draw(p, 2))
		next.base_gfn = draw(p, 3) ? GFN0 + draw(p, GFNS - 12) : GFN0;
	if (!draw(p, 4))
		next.flags ^= MEMSLOT_READONLY;
	ret = shadow_set_memslot(p->g.shadow, &next);
	note(p, ret);
	if (!ret)
		*slot = next;
}

/* In the first page of the first slot the guest would overwrite its table. */
static void look(struct program *p)
{
	unsigned int cpu = draw(p, 2);
	gfn_t gfn = GFN0 + draw(p, GFNS);
	const struct memslot_region *slot = slot_at(p, gfn);
	struct model_access access = {.op = draw(p, 2) ? MODEL_STORE : MODEL_LOAD,
				      .gva = LOOK_GVA + ((gfn - GFN0) << PAGE_SHIFT) + 0xff8,
				      .value = p->done};
	bool store = access.op == MODEL_STORE;
	uint64_t before = 0, after = 0;
	enum ret_pf pf, want = RET_PF_EMULATE;
	hva_t hva = 0;

	if (slot) {
		hva = slot->hva + ((gfn - slot->base_gfn) << PAGE_SHIFT) + 0xff8;
		expect_eq(mm_read(p->g.mm, hva, &before, sizeof(before)), 0);
		if (!store || !(slot->flags & MEMSLOT_READONLY))
			want = RET_PF_FIXED;
	}
	if (store && hva == slots_hva(0) + 0xff8)
		return;
	pf = model_access_retry(p->g.model, cpu, p->g.shadow, &access);
	expect_eq(pf, want);
	if (slot)
		expect_eq(mm_read(p->g.mm, hva, &after, sizeof(after)), 0);
	if (pf == RET_PF_FIXED)
		expect_eq(after, store ? p->done : before);
	else
		expect_eq(after, before);
	if (pf == RET_PF_FIXED && !store)
		expect_eq(access.value, before);
	note(p, pf);
	note(p, after);
	p->fixed += pf == RET_PF_FIXED;
	p->emulated += pf == RET_PF_EMULATE;
}

static void look_through_table(struct program *p)
{
	uint64_t index = draw(p, 32);
	struct model_access access = {.op = MODEL_LOAD, .gva = TABLE_GVA + index * PAGE_SIZE};
	enum ret_pf pf = model_access_retry(p->g.model, draw(p, 2), p->g.shadow, &access);
	const struct memslot_region *slot = slot_at(p, GFN0);
	uint64_t word = 0;

	if (slot == &p->slot[0] && slot->base_gfn == GFN0) {
		expect_eq(pf, RET_PF_FIXED);
		expect_eq(access.value, guest_read(&p->g, index << PAGE_SHIFT));
	} else if (slot) {
		/* Some other page is the table: whatever is in its first words. */
		expect_eq(mm_read(p->g.mm,
				  slot->hva + ((GFN0 - slot->base_gfn) << PAGE_SHIFT) + index * 8,
				  &word, sizeof(word)),
			  0);
		expect_eq(word, 0);
		expect_eq(pf, RET_PF_GUEST);
	} else {
		expect_eq(pf, RET_PF_GUEST);
	}
	note(p, pf);
	note(p, access.value);
	p->refused += pf == RET_PF_GUEST;
}

static void host_work(struct program *p)
{
	hva_t hva = slots_hva(draw(p, SLOTS)) + draw(p, GFNS) * PAGE_SIZE;

	if (draw(p, 2))
		note(p, mm_migrate_range(p->g.mm, hva, 3 * PAGE_SIZE));
	else
		note(p, mm_migrate_range(p->g.mm, guest_hva(draw(p, 64) * PAGE_SIZE), PAGE_SIZE));
}

static void step(struct program *p)
{
	switch (draw(p, 16)) {
	case 0:
	case 1:
	case 2:
		change_slot(p);
		break;
	case 3:
		host_work(p);
		break;
	case 4:
		shadow_invlpg(p->g.shadow, draw(p, 2), LOOK_GVA + draw(p, GFNS) * PAGE_SIZE);
		break;
	case 5:
		expect_eq(shadow_load_cr3(p->g.shadow, draw(p, 2), p->g.cr3), 0);
		break;
	case 6:
	case 7:
	case 8:
		look_through_table(p);
		break;
	default:
		look(p);
		break;
	}
	p->done++;
}

static uint64_t run_program(unsigned int seed, enum shadow_zap_policy policy, unsigned int steps)
{
	struct program p;

	program_init(&p, seed, policy);
	while (p.done < steps)
		step(&p);
	expect_ge(p.fixed, steps / 20);
	expect_ge(p.emulated, steps / 20);
	expect_ge(p.refused, steps / 40);
	memslot_fixture_done(&p.g);
	return p.outcome;
}

TEST(zap_slot, same_seed_same_guest)
{
	const unsigned int seeds = test_long() ? 200 : 12, steps = 1500;

	for (unsigned int seed = 1; seed <= seeds; seed++)
		expect_eq(run_program(seed, SHADOW_ZAP_ALL, steps),
			  run_program(seed, SHADOW_ZAP_SLOT, steps));
}
