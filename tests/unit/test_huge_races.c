/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries that map 2 MiB, and two at once: what one page's window means for the other 511.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/support/huge_fixture.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/park.h"

#define PAGE_7 (MIB2 + 7 * PAGE_SIZE)

static void window_init(struct guest_mem *g, struct mmu_notifier_range *range, gpa_t gpa)
{
	mmu_notifier_range_init(range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, g->mm,
				guest_hva(gpa), guest_hva(gpa + PAGE_SIZE));
}

/*
 * A page of it has a window open, the faulting one has none: it is mapped, and alone. Were it not,
 * the CPU would reach the frame that the window was opened for.
 */
TEST(huge_races, window_over_a_neighbour)
{
	struct mmu_notifier_range range;
	struct guest_mem g;
	pfn_t old;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	old = mm_lookup_pfn(g.mm, guest_hva(PAGE_7));
	window_init(&g, &range, PAGE_7);
	mmu_notifier_invalidate_range_start(&range);
	/* Its retries end there: seq has not moved yet. */
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(small_leaves(&g, MIB2), 1);
	expect_eq(model_cached(g.model, old), 0);
	mmu_notifier_invalidate_range_end(&range);
	expect_eq(guest_load(&g, 0, BIG + 7 * PAGE_SIZE), PAGE_7);
	huge_done(&g);
}

/* ---- a fault that is held in its middle ---- */

struct scene {
	struct guest_mem g;
	struct kthread thread[2];
	struct park park;
	unsigned int holds; /* so many are to be held */
	enum ret_pf first;
	atomic_t done[2];
};

static void hold(void *arg)
{
	struct scene *s = arg;

	if (s->holds && s->holds--)
		park_enter(&s->park);
}

static void run_fault(void *arg)
{
	struct scene *s = arg;
	struct shadow_fault fault;

	s->first = guest_fault(&s->g, 0, BIG, PFERR_WRITE, &fault);
}

static void scene_init(struct scene *s)
{
	*s = (struct scene){.holds = 1};
	huge_fixture(&s->g);
	park_init(&s->park);
}

/* Another page of it moves between the look at the faulting one and the lock. */
TEST(huge_races, neighbour_moves_under_the_fault)
{
	struct scene s;

	scene_init(&s);
	set_pde(&s.g, BIG, MIB2 | LARGE);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hold, &s);
	expect_eq(kthread_run(&s.thread[0], "cpu", run_fault, &s), 0);
	park_wait(&s.park, 1);
	expect_eq(migrate_mapping_page(s.g.ram, HUGE_PAGES + 7), 0);
	park_release(&s.park);
	kthread_join(&s.thread[0]);
	expect_eq(s.first, RET_PF_RETRY);
	expect_eq(huge_leaves(&s.g, MIB2), 0);
	expect_eq(guest_load(&s.g, 0, BIG), MIB2);
	expect_eq(huge_leaves(&s.g, MIB2), 0);
	expect_eq(guest_load(&s.g, 0, BIG + 7 * PAGE_SIZE), PAGE_7);
	huge_done(&s.g);
}

/* ---- two windows over one leaf ---- */

static void hold_shootdown(void *arg, const pfn_t *frames, size_t nr)
{
	(void)frames, (void)nr;
	hold(arg);
}

static void open_and_close(struct scene *s, int i)
{
	struct mmu_notifier_range range;

	window_init(&s->g, &range, MIB2 + (3 + i) * PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	/* No CPU reaches what the window is about, whoever took it away. */
	expect_eq(model_cached(s->g.model, HUGE_PAGES + 3 + i), 0);
	atomic_set(&s->done[i], 1);
	mmu_notifier_invalidate_range_end(&range);
}

static void run_window_0(void *arg)
{
	open_and_close(arg, 0);
}

static void run_window_1(void *arg)
{
	open_and_close(arg, 1);
}

/* The second finds nothing, since the first has cleared what was there; and waits (tlb.c, rule 3).
 */
TEST(huge_races, second_window_waits_for_the_first)
{
	struct scene s;

	scene_init(&s);
	map_huge(&s.g, MIB2);
	model_set_shootdown_hook(s.g.model, hold_shootdown, &s);
	expect_eq(kthread_run(&s.thread[0], "first", run_window_0, &s), 0);
	park_wait(&s.park, 1);
	expect_eq(huge_leaves(&s.g, MIB2), 0);
	expect_eq(model_cached(s.g.model, HUGE_PAGES + 4), 2);
	expect_eq(kthread_run(&s.thread[1], "second", run_window_1, &s), 0);
	while (!stats_of(&s.g).batches_waited)
		sched_yield();
	expect(!atomic_read(&s.done[1]));
	park_release(&s.park);
	kthread_join(&s.thread[0]);
	kthread_join(&s.thread[1]);
	expect(atomic_read(&s.done[1]));
	model_set_shootdown_hook(s.g.model, NULL, NULL);
	huge_done(&s.g);
}

/* ---- a storm ---- */

#define COUNTERS 64 /* of each CPU, on as many pages of a region */

struct storm {
	struct guest_mem g;
	struct kthread cpu[2];
	atomic_t stop;
	atomic64_t count[2]; /* of what was added */
	uint64_t added[2][COUNTERS];
};

struct storm_cpu {
	struct storm *s;
	unsigned int nr;
};

static gva_t counter(unsigned int cpu, unsigned int i)
{
	return BIG + i * (HUGE_PAGES / COUNTERS) * PAGE_SIZE + 8 + cpu * 8;
}

static void run_cpu(void *arg)
{
	struct storm_cpu *c = arg;
	struct storm *s = c->s;

	for (unsigned int i = 0; !atomic_read(&s->stop); i = (i * 5 + 1) % COUNTERS) {
		struct model_access add = {.op = MODEL_ADD, .gva = counter(c->nr, i), .value = 1};

		enum ret_pf pf = model_access_retry(s->g.model, c->nr, s->g.shadow, &add);

		/* The entry is not there for a moment (afresh). */
		if (pf == RET_PF_GUEST && add.error_code == PFERR_WRITE)
			continue;
		ASSERT(pf == RET_PF_FIXED, "CPU %u counts: %s", c->nr, ret_pf_name(pf));
		ASSERT(add.value == s->added[c->nr][i], "nobody else writes there");
		s->added[c->nr][i]++;
		atomic64_inc(&s->count[c->nr]);
	}
}

/* The guest's entry, as a whole; the next fault finds no link there. */
static void afresh(struct guest_mem *g)
{
	guest_edit(g, guest_pte_gpa(g, g->cr3, BIG, 2), 0);
	guest_edit(g, guest_pte_gpa(g, g->cr3, BIG, 2), MIB2 | LARGE);
}

/* All pages of the region lie alike, at the next aligned frame that was never used. */
static void make_alike(struct guest_mem *g)
{
	pfn_t spare[HUGE_PAGES];
	unsigned int nr = 0;

	do {
		spare[nr] = phys_alloc(g->phys);
		expect(spare[nr] != INVALID_PFN);
	} while (spare[nr++] % HUGE_PAGES != HUGE_PAGES - 1 && nr < HUGE_PAGES);
	for (uint64_t n = 0; n < HUGE_PAGES; n++) {
		while (migrate_mapping_page(g->ram, HUGE_PAGES + n))
			sched_yield(); /* a CPU's fault has it for an instant */
	}
	/* And the host has counted a store to each. */
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE) {
		pfn_t pfn;

		expect_eq(mm_pin_page(g->mm, guest_hva(MIB2 + at), true, &pfn), 0);
		mm_unpin_page(g->mm, pfn, true);
	}
	while (nr)
		phys_put(g->phys, spare[--nr]);
}

static void disturb(struct guest_mem *g, uint64_t round)
{
	hva_t hva = guest_hva(MIB2 + (round * 37 % HUGE_PAGES) * PAGE_SIZE);

	switch (round % 6) {
	case 0:
		afresh(g);
		break;
	case 1:
		mm_clear_soft_dirty(g->mm);
		break;
	case 2:
		mmu_notifier_clear_flush_young(g->mm, hva, hva + PAGE_SIZE);
		break;
	case 3:
		expect_eq(mm_madvise(g->mm, hva, PAGE_SIZE, MM_MADV_DONTNEED), 0);
		break;
	case 4:
		shadow_invlpg(g->shadow, 0, BIG);
		break;
	case 5:
		migrate_mapping_page(g->ram, HUGE_PAGES + round % HUGE_PAGES);
		break;
	}
}

static void let_cpus_count(struct storm *s)
{
	for (unsigned int i = 0; i < 2; i++) {
		int64_t until = atomic64_read(&s->count[i]) + COUNTERS;

		while (atomic64_read(&s->count[i]) < until)
			sched_yield();
	}
}

TEST(huge_races, storm)
{
	struct guest_mem_config config = huge_config;
	struct storm_cpu cpu[2];
	static struct storm s;
	uint64_t rounds = test_volume(60);

	config.audit = false;
	config.nr_frames = huge_config.nr_pages + (test_long() ? 200 : 20) * 2 * HUGE_PAGES;
	guest_mem_init(&s.g, &config);
	touch_in_order(&s.g);
	guest_mem_attach(&s.g);
	for (unsigned int i = 0; i < 2 * COUNTERS; i++)
		guest_write(&s.g, MIB2 + counter(i % 2, i / 2) - BIG, 0);
	set_pde(&s.g, BIG, MIB2 | LARGE);
	for (unsigned int i = 0; i < 2; i++) {
		cpu[i] = (struct storm_cpu){&s, i};
		expect_eq(kthread_run(&s.cpu[i], "cpu", run_cpu, &cpu[i]), 0);
	}
	for (uint64_t round = 0; round < rounds; round++) {
		char why[256];

		if (round % 6 == 0)
			make_alike(&s.g);
		disturb(&s.g, round);
		let_cpus_count(&s);
		if (shadow_audit(s.g.shadow, why, sizeof(why)))
			fail("round %lu: %s", round, why);
	}
	atomic_set(&s.stop, 1);
	for (unsigned int i = 0; i < 2; i++)
		kthread_join(&s.cpu[i]);
	for (unsigned int i = 0; i < 2 * COUNTERS; i++)
		expect_eq(guest_read(&s.g, MIB2 + counter(i % 2, i / 2) - BIG),
			  s.added[i % 2][i / 2]);
	expect_ge(stats_of(&s.g).huge_made, rounds / 12);
	huge_done(&s.g);
}
