/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stores to the guest's tables that race with a sync of them. The ladders are in shadow/sync.c.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "tests/support/park.h"
#include "tests/support/sync_fixture.h"

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
TEST(sync_races, store_before_the_shootdown)
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

TEST(sync_races, store_in_the_middle)
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

TEST(sync_races, another_flush_in_the_middle)
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

TEST(sync_races, of_two_syncs)
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

TEST(sync_races, storm)
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
