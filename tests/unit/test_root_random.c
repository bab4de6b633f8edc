/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Roots at random: CPUs go from address space to address space, with PCIDs that these share, edit
 * their tables, and flush what they like. Each edit gives a page of an address space new memory,
 * with a stamp in it that says which page that is and how often it was edited.
 *
 * The oracle is the architecture's: of the translations of a PCID that a CPU has flushed, it sees
 * none again. So a load finds the stamp of its own page, from an edit that is no older than the
 * last flush.
 *
 * The tables are edited by words to the shadow MMU (guest_map). tests/coherence edits them as a
 * guest does, by stores that fault and are protected against.
 */
#include "shadow/shadow_internal.h"

#include "notifier/sync/thread.h"
#include "tests/model/guest_mem.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"

#define MAX_CPUS	     4
#define NR_SPACES	     8
#define NR_PAGES	     6		     /* of each, in as many tables */
#define NR_PCIDS	     4		     /* the spaces share them */
#define SHARER		     (NR_SPACES - 1) /* all its tables but the root are those of the one before */
#define RAM_PAGES	     2048
#define GVA(page)	     (((page) + 1UL) << 30) /* none shares a table with another, but for two */
#define STAMP(s, page, edit) (0x57UL << 56 | (uint64_t)(s) << 48 | (uint64_t)(page) << 40 | (edit))

struct world {
	struct guest_mem g;
	unsigned int nr_cpus;
	uint64_t cr3[NR_SPACES];
	struct mutex edit; /* one at a time: the stamp, the entry, the number */
	gfn_t next_page, end;
	uint64_t edits[NR_SPACES][NR_PAGES]; /* under edit; read without, as the least there are */
	unsigned long budget;		     /* 0: none, or not looked at */
	unsigned int steps;
};

struct actor {
	struct world *w;
	unsigned int cpu;
	uint64_t rng;
	unsigned int space, pcid;
	uint64_t least[NR_PCIDS][NR_SPACES][NR_PAGES];
	unsigned int edited;   /* the page that it edited last: it may well flush and load that */
	uint64_t loads, stale; /* stale: allowed, as nothing had been flushed */
};

static unsigned int below(struct actor *a, unsigned int n)
{
	a->rng ^= a->rng << 13;
	a->rng ^= a->rng >> 7;
	a->rng ^= a->rng << 17;
	return (a->rng >> 16) % n;
}

/* Whose tables the space has. */
static unsigned int owner(unsigned int s)
{
	return s == SHARER ? s - 1 : s;
}

static uint64_t edits_of(const struct world *w, unsigned int s, unsigned int page)
{
	return smp_load_acquire(&w->edits[owner(s)][page]);
}

/* What the CPU flushes from here on is at least as new as this. */
static void note_flush(struct actor *a, unsigned int pcid, unsigned int page)
{
	for (unsigned int s = 0; s < NR_SPACES; s++)
		a->least[pcid][s][page] = edits_of(a->w, s, page);
}

static void note_flush_all(struct actor *a, unsigned int pcid)
{
	for (unsigned int page = 0; page < NR_PAGES; page++)
		note_flush(a, pcid, page);
}

static void edit(struct actor *a)
{
	unsigned int s = below(a, 2) ? a->space : below(a, NR_SPACES), page = below(a, NR_PAGES);
	struct world *w = a->w;

	s = owner(s);
	mutex_lock(&w->edit);
	if (w->next_page < w->end) {
		gpa_t gpa = w->next_page++ << PAGE_SHIFT;

		guest_write(&w->g, gpa, STAMP(s, page, w->edits[s][page] + 1));
		guest_map(&w->g, w->cr3[s], GVA(page), gpa, GUEST_PTE_RW | GUEST_PTE_U);
		smp_store_release(&w->edits[s][page], w->edits[s][page] + 1);
		a->edited = page;
	}
	mutex_unlock(&w->edit);
}

static unsigned int some_page(struct actor *a)
{
	return below(a, 2) ? a->edited : below(a, NR_PAGES);
}

static void load(struct actor *a)
{
	unsigned int page = some_page(a);
	uint64_t least = a->least[a->pcid][a->space][page];
	uint64_t stamp = guest_load(&a->w->g, a->cpu, GVA(page));
	uint64_t most = edits_of(a->w, a->space, page) + 1; /* one may be on its way */
	uint64_t edit = stamp & 0xffffffffff;

	expect_eq(stamp, STAMP(owner(a->space), page, edit));
	expect_ge(edit, least);
	expect_ge(most, edit);
	a->loads++;
	a->stale += edit + 1 < most;
}

static void load_cr3(struct actor *a)
{
	bool noflush = below(a, 4);

	a->space = below(a, NR_SPACES);
	a->pcid = below(a, NR_PCIDS);
	if (!noflush)
		note_flush_all(a, a->pcid);
	expect_eq(shadow_load_cr3(a->w->g.shadow, a->cpu,
				  a->w->cr3[a->space] | a->pcid |
					  (noflush ? GUEST_CR3_NOFLUSH : 0)),
		  0);
}

static void set_cpu(struct actor *a, bool view)
{
	struct guest_cpu cpu = *shadow_get_cpu(a->w->g.shadow, a->cpu);

	if (view) {
		cpu.user = !cpu.user;
	} else {
		cpu.cr4 ^= GUEST_CR4_PGE;
		for (unsigned int pcid = 0; pcid < NR_PCIDS; pcid++)
			note_flush_all(a, pcid);
	}
	expect_eq(shadow_set_cpu(a->w->g.shadow, a->cpu, &cpu), 0);
}

static void invlpg(struct actor *a)
{
	unsigned int page = some_page(a);

	note_flush(a, a->pcid, page);
	shadow_invlpg(a->w->g.shadow, a->cpu, GVA(page));
}

static void invpcid(struct actor *a)
{
	unsigned int type = below(a, 4), pcid = below(a, NR_PCIDS), page = some_page(a);

	if (type == INVPCID_ADDRESS)
		note_flush(a, pcid, page);
	for (unsigned int i = 0; type != INVPCID_ADDRESS && i < NR_PCIDS; i++) {
		if (type != INVPCID_CONTEXT || i == pcid)
			note_flush_all(a, i);
	}
	expect_eq(shadow_invpcid(a->w->g.shadow, a->cpu, type, pcid, GVA(page)), 0);
}

static void step(struct actor *a)
{
	switch (below(a, 32)) {
	case 0 ... 5:
		edit(a);
		break;
	case 6 ... 8:
		load_cr3(a);
		break;
	case 9 ... 10:
		set_cpu(a, true);
		break;
	case 11:
		if (!below(a, 4))
			set_cpu(a, false);
		break;
	case 12 ... 13:
		invlpg(a);
		break;
	case 14 ... 15:
		invpcid(a);
		break;
	case 16:
		mm_migrate_range(a->w->g.mm, guest_hva((gpa_t)below(a, RAM_PAGES) << PAGE_SHIFT),
				 PAGE_SIZE);
		break;
	default:
		load(a);
		break;
	}
	if (a->w->budget)
		expect_ge(a->w->budget, a->w->g.shadow->nr_pages);
}

static void actor_init(struct actor *a, struct world *w, unsigned int cpu, uint64_t seed)
{
	struct guest_cpu state = *shadow_get_cpu(w->g.shadow, cpu);

	*a = (struct actor){.w = w, .cpu = cpu, .rng = seed * 0x9e3779b97f4a7c15 + cpu + 1};
	state.cr4 |= GUEST_CR4_PCIDE;
	expect_eq(shadow_set_cpu(w->g.shadow, cpu, &state), 0);
	for (int i = 0; i < 8; i++)
		below(a, 2);
	load_cr3(a);
}

static void world_init(struct world *w, unsigned int nr_cpus, bool audit, bool small)
{
	const struct guest_mem_config config = {.audit = audit,
						.nr_cpus = nr_cpus,
						.nr_pages = RAM_PAGES,
						.no_identity = true,
						.reuse = MODEL_REUSE_LIFO};

	*w = (struct world){.nr_cpus = nr_cpus, .next_page = 1};
	mutex_init(&w->edit);
	guest_mem_create(&w->g, &config);
	for (unsigned int s = 0; s < NR_SPACES; s++) {
		w->cr3[s] = s ? guest_new_table(&w->g) : w->g.cr3;
		if (owner(s) != s) {
			guest_write(&w->g, w->cr3[s], guest_read(&w->g, w->cr3[owner(s)]));
			continue;
		}
		for (unsigned int page = 0; page < NR_PAGES; page++) {
			gpa_t gpa = w->next_page++ << PAGE_SHIFT;

			guest_write(&w->g, gpa, STAMP(s, page, 0));
			guest_map(&w->g, w->cr3[s], GVA(page), gpa, GUEST_PTE_RW | GUEST_PTE_U);
		}
	}
	w->end = w->g.next_table;
	if (small) {
		w->budget = shadow_min_page_budget(4, nr_cpus);
		expect_eq(shadow_set_page_budget(w->g.shadow, w->budget), 0);
	}
}

static void world_destroy(struct world *w)
{
	struct model_stats stats;

	model_get_stats(w->g.model, &stats);
	expect_eq(stats.contract_violations, 0);
	expect_eq(shadow_audit(w->g.shadow, NULL, 0), 0);
	guest_mem_destroy(&w->g);
}

/* One thread, all CPUs in turn, an audit after each change. */
static void in_turn(uint64_t seed, unsigned int nr_cpus, bool small)
{
	unsigned int steps = test_long() ? 40000 : (unsigned int)test_volume(3000);
	uint64_t loads = 0, stale = 0;
	struct actor a[MAX_CPUS];
	struct shadow_stats stats;
	struct world w;

	world_init(&w, nr_cpus, true, small);
	for (unsigned int cpu = 0; cpu < nr_cpus; cpu++)
		actor_init(&a[cpu], &w, cpu, seed);
	for (unsigned int i = 0; i < steps; i++)
		step(&a[below(&a[0], nr_cpus)]);
	for (unsigned int cpu = 0; cpu < nr_cpus; cpu++) {
		loads += a[cpu].loads;
		stale += a[cpu].stale;
	}
	expect_ge(loads, steps / 3);
	/* Or nothing was kept, and nothing shown. */
	expect_ge(stale, 10);
	shadow_get_stats(w.g.shadow, &stats);
	if (small)
		expect_ge(stats.pages_recycled, 50);
	world_destroy(&w);
}

TEST(root_random, in_turn)
{
	for (uint64_t seed = 1; seed <= 3; seed++)
		in_turn(seed, 1 + seed, false);
}

TEST(root_random, in_turn_on_a_small_budget)
{
	for (uint64_t seed = 11; seed <= 13; seed++)
		in_turn(seed, seed - 9, true);
}

static void act(void *arg)
{
	struct actor *a = arg;

	for (unsigned int i = 0; i < a->w->steps; i++)
		step(a);
}

/* Each CPU has a thread of its own. */
static void at_once(uint64_t seed, bool small)
{
	struct kthread thread[MAX_CPUS];
	struct actor a[MAX_CPUS];
	uint64_t loads = 0;
	struct world w;

	world_init(&w, MAX_CPUS, false, small);
	w.budget = 0; /* an exact look needs mmu_lock */
	w.steps = test_long() ? 100000 : 2000;
	for (unsigned int cpu = 0; cpu < MAX_CPUS; cpu++)
		actor_init(&a[cpu], &w, cpu, seed);
	for (unsigned int cpu = 0; cpu < MAX_CPUS; cpu++)
		expect_eq(kthread_run(&thread[cpu], "cpu", act, &a[cpu]), 0);
	for (unsigned int cpu = 0; cpu < MAX_CPUS; cpu++) {
		kthread_join(&thread[cpu]);
		loads += a[cpu].loads;
	}
	expect_ge(loads, w.steps);
	world_destroy(&w);
}

TEST(root_random, at_once)
{
	at_once(21, false);
}

TEST(root_random, at_once_on_a_small_budget)
{
	at_once(22, true);
}
