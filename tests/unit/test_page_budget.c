/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The budget of shadow pages (page_budget.c): it is kept, the page not used for longest goes, a
 * CPU's root does not, and whoever faults gets on.
 */
#include <errno.h>
#include <sched.h>

#include "shadow/shadow_internal.h"

#include "notifier/sync/lockdep.h"
#include "notifier/sync/thread.h"
#include "tests/support/beside.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/hoard.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

#define REGION	   (1UL << 39) /* what one entry of a root maps: regions share no table but that */
#define NR_REGIONS 24

#define BIG (4 * NR_REGIONS) /* a budget for all of them */

static const struct guest_mem_config config = {.audit = true,
					       .nr_cpus = 2,
					       .nr_pages = 256,
					       .no_identity = true,
					       .reuse = MODEL_REUSE_LIFO};

static gva_t region(unsigned int i)
{
	return (1 + i) * REGION;
}

/* Region i begins with a page that holds i. */
static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	for (unsigned int i = 0; i < NR_REGIONS; i++) {
		guest_write(g, (1 + i) << PAGE_SHIFT, i);
		guest_map(g, g->cr3, region(i), (1 + i) << PAGE_SHIFT, GUEST_PTE_RW);
	}
}

/* Was the region's leaf still there? */
static bool was_mapped(struct guest_mem *g, unsigned int i)
{
	uint64_t faults = stats_of(g).faults;

	expect_eq(guest_load(g, 0, region(i)), i);
	return stats_of(g).faults == faults;
}

TEST(page_budget, at_least)
{
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_min_page_budget(4, 2), 2 * (1 + 6 * 3));
	expect_eq(shadow_min_page_budget(5, 1), 1 + 6 * 4);
	expect_eq(shadow_set_page_budget(g.shadow, 2 * (1 + 6 * 3) - 1), -EINVAL);
	expect_eq(shadow_set_page_budget(g.shadow, 1), -EINVAL);
	expect_eq(shadow_set_page_budget(g.shadow, 2 * (1 + 6 * 3)), 0);
	expect_eq(shadow_set_page_budget(g.shadow, 0), 0);
	destroy(&g);
}

/* Never more pages than there may be, and everything is read as it should be. */
TEST(page_budget, kept_by_faults)
{
	unsigned long budget;
	struct guest_mem g;

	fixture(&g);
	budget = shadow_min_page_budget(4, 2);
	expect_eq(shadow_set_page_budget(g.shadow, budget), 0);
	for (unsigned int n = 0; n < 10 * NR_REGIONS; n++) {
		unsigned int i = n * 5 % NR_REGIONS;

		expect_eq(guest_load(&g, 0, region(i)), i);
		guest_store(&g, n % 2, region(i), i);
		expect_ge(budget, g.shadow->nr_pages);
	}
	/* Room for half of the regions, and some of that is kept free. */
	expect_ge(g.shadow->nr_pages, budget / 2);
	expect_ge(stats_of(&g).pages_recycled, budget);
	destroy(&g);
}

/* ... by loads of roots, which there may be many of. */
TEST(page_budget, kept_by_roots)
{
	unsigned long budget;
	struct guest_mem g;

	fixture(&g);
	budget = shadow_min_page_budget(4, 2);
	expect_eq(shadow_set_page_budget(g.shadow, budget), 0);
	for (unsigned int i = 0; i < 8; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	for (uint64_t gfn = 1; gfn < 100; gfn++) {
		expect_eq(shadow_load_cr3(g.shadow, gfn % 2, gfn << PAGE_SHIFT), 0);
		expect_ge(budget, g.shadow->nr_pages);
	}
	destroy(&g);
}

struct intruder {
	struct guest_mem *g;
	unsigned int next; /* region */
};

/* vCPU 1 takes what room there is. */
static void take_the_room(void *arg)
{
	struct intruder *intruder = arg;
	struct guest_mem *g = intruder->g;

	if (intruder->next)
		return;
	intruder->next = 1;
	while (shadow_has_room(g->shadow, 3)) {
		expect_eq(guest_load(g, 1, region(intruder->next)), intruder->next);
		intruder->next++;
	}
}

/* The room that was made for a fault is gone when it takes the lock. */
TEST(page_budget, kept_when_others_take_the_room)
{
	struct intruder intruder = {0};
	struct shadow_fault fault;
	unsigned long budget;
	struct guest_mem g;

	fixture(&g);
	budget = shadow_min_page_budget(4, 2);
	expect_eq(shadow_set_page_budget(g.shadow, budget), 0);
	intruder.g = &g;
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, take_the_room, &intruder);
	expect_eq(guest_fault(&g, 0, region(0), 0, &fault), RET_PF_RETRY);
	expect_ge(intruder.next, budget / 3);
	expect_ge(budget, g.shadow->nr_pages);
	expect_eq(guest_load(&g, 0, region(0)), 0);
	expect_ge(budget, g.shadow->nr_pages);
	destroy(&g);
}

/* And that for a root, whose page has been made. */
TEST(page_budget, kept_by_a_root_that_is_ready)
{
	unsigned long budget;
	struct guest_mem g;

	fixture(&g);
	budget = shadow_min_page_budget(4, 2);
	expect_eq(shadow_set_page_budget(g.shadow, budget), 0);
	expect_eq(shadow_prepare(g.shadow, &g.shadow->vcpu[0].cache, true), 0);
	for (unsigned int i = 0; shadow_has_room(g.shadow, 1); i++) {
		if (shadow_has_room(g.shadow, 3))
			expect_eq(guest_load(&g, 1, region(i)), i);
		else
			expect_eq(shadow_load_cr3(g.shadow, 1, (5 + i) << PAGE_SHIFT), 0);
	}
	expect_eq(g.shadow->nr_pages, budget);
	expect_eq(shadow_load_cr3(g.shadow, 0, 5 << PAGE_SHIFT), 0);
	expect_ge(budget, g.shadow->nr_pages);
	destroy(&g);
}

static void zap_all(void *arg)
{
	struct guest_mem *g = arg;

	shadow_zap_all_fast(g->shadow);
}

/*
 * There is no room, and nothing to recycle either: since others have zapped everything in between,
 * as the delete of a slot does. That is no lack of memory.
 */
TEST(page_budget, room_that_others_made)
{
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_set_page_budget(g.shadow, shadow_min_page_budget(4, 2)), 0);
	for (unsigned int i = 1; shadow_has_room(g.shadow, 3); i++)
		expect_eq(guest_load(&g, 1, region(i)), i);
	shadow_set_hook(g.shadow, SHADOW_HOOK_NO_ROOM, zap_all, &g);
	expect_eq(guest_fault(&g, 0, region(0), 0, &fault), RET_PF_RETRY);
	expect_eq(stats_of(&g).pages_recycled, 0);
	expect_eq(guest_load(&g, 0, region(0)), 0);
	destroy(&g);
}

/* A smaller budget holds at once. */
TEST(page_budget, lowered)
{
	unsigned long least;
	struct guest_mem g;

	fixture(&g);
	least = shadow_min_page_budget(4, 2);
	for (unsigned int i = 0; i < NR_REGIONS; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	expect_eq(g.shadow->nr_pages, 1 + 3 * NR_REGIONS);
	expect_eq(shadow_set_page_budget(g.shadow, 1 + 3 * NR_REGIONS), 0);
	expect_eq(stats_of(&g).pages_recycled, 0);
	expect_eq(shadow_set_page_budget(g.shadow, least), 0);
	expect_ge(least, g.shadow->nr_pages);
	expect_eq(stats_of(&g).pages_recycled, 1 + 3 * NR_REGIONS - g.shadow->nr_pages);
	for (unsigned int i = 0; i < NR_REGIONS; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	destroy(&g);
}

static void expect_section(void *arg)
{
	struct guest_mem *g = arg;

	expect(srcu_read_lock_held(&g->shadow->slots_srcu));
}

/* Leaves are taken out of the rmaps of their slots, and any thread may lower the budget: also while
 * the slots change. */
TEST(page_budget, lowered_in_a_section)
{
	struct guest_mem g;

	fixture(&g);
	for (unsigned int i = 0; i < NR_REGIONS; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	shadow_set_hook(g.shadow, SHADOW_HOOK_NO_ROOM, expect_section, &g);
	expect_eq(shadow_set_page_budget(g.shadow, shadow_min_page_budget(4, 2)), 0);
	expect_ge(stats_of(&g).pages_recycled, 1);
	destroy(&g);
}

/* What a fault has passed through goes last. */
TEST(page_budget, least_recently_used_first)
{
	struct zap_batch batch;
	struct guest_mem g;

	fixture(&g);
	for (unsigned int i = 0; i < 6; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	/* Region 0 is used again: another page of it. */
	guest_map(&g, g.cr3, region(0) + PAGE_SIZE, 1 << PAGE_SHIFT, GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, region(0) + PAGE_SIZE), 0);

	zap_batch_init(&batch);
	spin_lock(&g.shadow->mmu_lock);
	/* Each by itself: what hangs below a table is older. */
	for (int i = 0; i < 6; i++)
		expect_eq(shadow_recycle_pages(g.shadow, 1, &batch), 1);
	zap_batch_close(g.shadow, &batch);
	spin_unlock(&g.shadow->mmu_lock);
	zap_batch_flush(g.shadow, &batch);
	expect(was_mapped(&g, 0));
	for (unsigned int i = 3; i < 6; i++)
		expect(was_mapped(&g, i));
	expect(!was_mapped(&g, 1));
	expect(!was_mapped(&g, 2));
	destroy(&g);
}

/* Kept roots go in their turn, current ones never. */
TEST(page_budget, roots)
{
	const uint64_t other = 5 << PAGE_SHIFT;
	struct zap_batch batch;
	unsigned long nr;
	struct guest_mem g;

	fixture(&g);
	expect_eq(guest_load(&g, 0, region(0)), 0);
	expect_eq(shadow_load_cr3(g.shadow, 0, other), 0);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	nr = g.shadow->nr_pages;
	zap_batch_init(&batch);
	spin_lock(&g.shadow->mmu_lock);
	expect_eq(shadow_recycle_pages(g.shadow, nr, &batch), nr - 1);
	expect(!g.shadow->vcpu[0].roots[1].root);
	zap_batch_close(g.shadow, &batch);
	spin_unlock(&g.shadow->mmu_lock);
	zap_batch_flush(g.shadow, &batch);
	expect_eq(guest_load(&g, 0, region(0)), 0);
	expect_eq(guest_load(&g, 1, region(0)), 0);
	destroy(&g);
}

struct scene {
	struct guest_mem *g;
	struct park park;
};

static void hold(void *arg)
{
	park_enter(&((struct scene *)arg)->park);
}

static void load_other(void *arg)
{
	expect_eq(shadow_load_cr3(((struct scene *)arg)->g->shadow, 0, 5 << PAGE_SHIFT), 0);
}

/* vCPU 0 has another root, and its CPU is still on the old one, which is merely kept. */
TEST(page_budget, a_root_that_the_cpu_is_still_on)
{
	const uint64_t own = 6 << PAGE_SHIFT;
	struct kthread thread;
	struct zap_batch batch;
	struct guest_mem g;
	struct scene scene = {.g = &g};

	fixture(&g);
	expect_eq(shadow_load_cr3(g.shadow, 0, own), 0);
	park_init(&scene.park);
	shadow_set_hook(g.shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD, hold, &scene);
	expect_eq(kthread_run(&thread, "loader", load_other, &scene), 0);
	park_wait(&scene.park, 1);
	zap_batch_init(&batch);
	spin_lock(&g.shadow->mmu_lock);
	expect_eq(shadow_recycle_pages(g.shadow, 10, &batch), 0);
	zap_batch_close(g.shadow, &batch);
	spin_unlock(&g.shadow->mmu_lock);
	zap_batch_flush(g.shadow, &batch);
	park_release(&scene.park);
	kthread_join(&thread);
	destroy(&g);
}

/* A sync holds nothing but its root while it has not the lock. */
static void recycle_all(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	spin_lock(&g->shadow->mmu_lock);
	shadow_recycle_pages(g->shadow, g->shadow->nr_pages, &batch);
	expect_eq(g->shadow->nr_pages, 1);
	zap_batch_close(g->shadow, &batch);
	spin_unlock(&g->shadow->mmu_lock);
	zap_batch_flush(g->shadow, &batch);
}

TEST(page_budget, recycled_in_the_middle_of_a_sync)
{
	struct guest_mem g;

	fixture(&g);
	for (unsigned int i = 0; i < NR_REGIONS; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	guest_map(&g, g.cr3, region(0), 2 << PAGE_SHIFT, GUEST_PTE_RW);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE, recycle_all, &g);
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	expect_eq(stats_of(&g).pages_recycled, 3 * NR_REGIONS);
	expect_eq(guest_load(&g, 0, region(0)), 1);
	for (unsigned int i = 1; i < NR_REGIONS; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	destroy(&g);
}

/* ---- the machine has no table ---- */

TEST(page_budget, no_table_recycles)
{
	static struct hoard hoard;
	unsigned long most;
	struct guest_mem g;

	fixture(&g);
	for (unsigned int i = 0; i < NR_REGIONS - 1; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	hoard_frames(&hoard, g.phys);
	most = g.shadow->nr_pages;
	for (unsigned int n = 0; n < 4 * NR_REGIONS; n++)
		expect_eq(guest_load(&g, 0, region(n % NR_REGIONS)), n % NR_REGIONS);
	expect_ge(stats_of(&g).pages_recycled, 3 * NR_REGIONS);
	/* What there was is what there may be, and a little more. */
	expect_ge(2 * most, g.shadow->page_budget);
	expect_ge(most + 4, g.shadow->nr_pages);

	/* With tables to be had it recovers. */
	hoard_release(&hoard);
	expect_eq(shadow_set_page_budget(g.shadow, BIG), 0);
	for (unsigned int i = 0; i < NR_REGIONS; i++)
		expect_eq(guest_load(&g, 0, region(i)), i);
	expect_eq(g.shadow->page_budget, BIG);
	destroy(&g);
}

/* Of a budget that the machine could not meet, it grows with each table that comes. */
TEST(page_budget, recovers)
{
	static struct hoard hoard;
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_set_page_budget(g.shadow, BIG), 0);
	expect_eq(guest_load(&g, 0, region(0)), 0);
	hoard_frames(&hoard, g.phys);
	for (unsigned int n = 0; n < NR_REGIONS; n++)
		expect_eq(guest_load(&g, 0, region(n)), n);
	expect_ge(BIG - 1, g.shadow->page_budget);
	hoard_release(&hoard);
	for (unsigned int n = 0; n < BIG && g.shadow->page_budget < BIG; n++) {
		expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
		expect_eq(guest_load(&g, 0, region(n % NR_REGIONS)), n % NR_REGIONS);
	}
	expect_eq(g.shadow->page_budget, BIG);
	destroy(&g);
}

TEST(page_budget, no_table_and_nothing_to_recycle)
{
	static struct hoard hoard;
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	hoard_frames(&hoard, g.phys);
	expect_eq(guest_fault(&g, 0, region(0), 0, &fault), RET_PF_NO_MEMORY);
	expect_eq(shadow_load_cr3(g.shadow, 0, 5 << PAGE_SHIFT), -ENOMEM);
	hoard_release(&hoard);
	/* The least that there may be is not the least that there was. */
	expect_eq(guest_load(&g, 0, region(0)), 0);
	expect_eq(shadow_load_cr3(g.shadow, 0, 5 << PAGE_SHIFT), 0);
	destroy(&g);
}

/* A root is made of one table, a fault of three that it has had before: the least budget holds
 * whatever the machine says. */
TEST(page_budget, no_table_is_no_verdict)
{
	static struct hoard hoard;
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_prepare(g.shadow, &g.shadow->vcpu[0].cache, false), 0);
	hoard_frames(&hoard, g.phys);
	expect_eq(shadow_load_cr3(g.shadow, 0, 5 << PAGE_SHIFT), -ENOMEM);
	expect_eq(g.shadow->page_budget, shadow_min_page_budget(4, 2));
	hoard_release(&hoard);
	expect_eq(guest_load(&g, 0, region(0)), 0);
	destroy(&g);
}

/* ---- R-14, CVE-2022-45869: a reclaim that must have mmu_lock to itself ran without ---- */

static void recycle_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	shadow_recycle_pages(g->shadow, 1, &batch);
}

static void use_unlocked(void *arg)
{
	struct guest_mem *g = arg;

	shadow_page_used(g->shadow, g->shadow->vcpu[0].root);
}

static void forget_unlocked(void *arg)
{
	struct guest_mem *g = arg;

	root_cache_forget(g->shadow, g->shadow->vcpu[0].root);
}

static void ask_unlocked(void *arg)
{
	struct guest_mem *g = arg;

	root_in_use(g->shadow, g->shadow->vcpu[0].root);
}

static void zap_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	zap_page(g->shadow, g->shadow->vcpu[0].root, &batch);
}

static void zap_obsolete_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	g->shadow->gen++;
	zap_any_page(g->shadow, g->shadow->vcpu[0].root, &batch);
}

/* Of a page that nobody maps, so that there is nothing to clear. */
static void zap_rmap_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct rmap_head head = {0};
	struct zap_batch batch;

	zap_batch_init(&batch);
	zap_rmap(g->shadow, &head, &batch);
}

static void drop_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	drop_leaf(g->shadow, g->shadow->vcpu[0].root, 0, &batch);
}

/* It is in front already. */
static void path_used_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct shadow_page *path[2] = {NULL, list_first_entry(&g->shadow->pages, struct shadow_page,
							      link)};

	shadow_path_used(g->shadow, path, 1, 1);
}

static void close_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	zap_batch_close(g->shadow, &batch);
}

static void put_unlocked(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	root_put(g->shadow, &g->shadow->vcpu[0].roots[0], &batch);
}

TEST(page_budget, each_step_asserts_the_lock)
{
	static const struct {
		void (*fn)(void *arg);
		const char *by; /* who notices */
	} steps[] = {
		{recycle_unlocked, "shadow_recycle_pages"},
		{use_unlocked, "shadow_page_used"},
		{path_used_unlocked, "shadow_path_used"},
		{forget_unlocked, "root_cache_forget"},
		{ask_unlocked, "root_in_use"},
		{zap_unlocked, "zap_page"},
		{zap_obsolete_unlocked, "zap_obsolete_page"},
		{zap_rmap_unlocked, "zap_rmap"},
		{drop_unlocked, "drop_leaf"},
		{close_unlocked, "zap_batch_close"},
		{put_unlocked, "root_put"},
	};
	struct guest_mem g;

#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	fixture(&g);
	for (unsigned int i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		expect_bug(steps[i].fn, &g, "mmu_lock");
		expect_bug(steps[i].fn, &g, steps[i].by);
	}
	destroy(&g);
}

/* ---- who changes the budget ---- */

#define ROUNDS (NR_REGIONS - 1)

struct budgeting {
	struct guest_mem *g;
	unsigned int region; /* not mapped yet */
};

static void grow(void *arg)
{
	struct budgeting *b = arg;

	shadow_budget_grow(b->g->shadow);
}

static void set_budget(void *arg)
{
	struct budgeting *b = arg;

	expect_eq(shadow_set_page_budget(b->g->shadow, 2 * BIG), 0);
}

/* The machine has no table. */
static void fault_without_a_table(void *arg)
{
	struct budgeting *b = arg;
	struct shadow_fault fault;

	guest_fault(b->g, 0, region(b->region), 0, &fault);
}

static void (*const budgeters[])(void *arg) = {grow, set_budget, fault_without_a_table};

/* Whoever has mmu_lock may count on it: others wait for it, and look again when they have it. */
TEST(page_budget, changes_with_the_lock)
{
	static struct hoard hoard;
	struct guest_mem g;

	fixture(&g);
	for (unsigned int i = 0; i < 3 * ROUNDS; i++) {
		struct budgeting b = {.g = &g, .region = 1 + i / 3};
		struct beside beside;

		expect_eq(guest_load(&g, 0, region(0)), 0);
		expect_eq(shadow_set_page_budget(g.shadow, BIG), 0);
		hoard_frames(&hoard, g.phys);
		spin_lock(&g.shadow->mmu_lock);
		WRITE_ONCE(g.shadow->page_budget, BIG - 1);
		beside_start(&beside, budgeters[i % 3], &b);
		for_each_look()
		{
			expect_eq(READ_ONCE(g.shadow->page_budget), BIG - 1);
			expect_eq(READ_ONCE(g.shadow->page_limit), BIG);
		}
		WRITE_ONCE(g.shadow->page_budget, BIG);
		spin_unlock(&g.shadow->mmu_lock);
		kthread_join(&beside.thread);
		expect_ge(g.shadow->page_limit, g.shadow->page_budget);
		hoard_release(&hoard);
	}
	destroy(&g);
}
