/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults that take no mmu_lock: which these are, what they give back, and what they must not, when
 * somebody takes the leaf, or its table, while they are at it. The ladders are in
 * shadow/fast_fault.c.
 */
#include <errno.h>
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"

#define PAGE  0x3000UL
#define CLEAN 0x10000000UL /* maps PAGE too, read-only to the guest */

static const struct guest_mem_config config = {.audit = true,
					       .nr_cpus = 2,
					       .no_accessed_bits = true,
					       .reuse = MODEL_REUSE_LIFO};

static bool make_old(struct guest_mem *g, gpa_t gpa)
{
	return mmu_notifier_clear_flush_young(g->mm, guest_hva(gpa), guest_hva(gpa) + PAGE_SIZE);
}

/* PAGE holds 7, by a leaf that is tracked. */
static spte_t *fixture(struct guest_mem *g)
{
	spte_t *sptep;

	guest_mem_create(g, &config);
	guest_store(g, 0, PAGE, 7);
	sptep = leaf_of(g, PAGE);
	expect(make_old(g, PAGE));
	expect(spte_present(*sptep) && !spte_walkable(*sptep));
	return sptep;
}

static enum ret_pf fault_at(struct guest_mem *g, gva_t gva, uint32_t access)
{
	struct shadow_fault fault;

	return guest_fault(g, 0, gva, access, &fault);
}

/* ---- which faults are fast ---- */

TEST(fast_fault, a_tracked_leaf_comes_back)
{
	static const uint32_t access[] = {0, PFERR_WRITE, PFERR_FETCH};

	for (unsigned int i = 0; i < 3; i++) {
		struct guest_mem g;
		spte_t *sptep = fixture(&g), before = *sptep;

		expect_eq(model_store(g.model, 0, PAGE, 0), -EFAULT);
		expect_eq(fault_at(&g, PAGE, access[i]), RET_PF_FIXED);
		/* What it was, and nothing else. */
		expect_eq(*sptep, before | SPTE_PRESENT);
		expect_eq(stats_of(&g).fast_faults, 1);
		expect_eq(fault_at(&g, PAGE, access[i]), RET_PF_SPURIOUS);
		expect_eq(stats_of(&g).fault_spurious, 1);
		expect_eq(stats_of(&g).faults, 3);
		expect_eq(guest_load(&g, 0, PAGE), 7);
		destroy(&g);
	}
}

/* A right that the leaf has not got is for others to give. */
TEST(fast_fault, rights_are_not_its_business)
{
	struct guest_mem g;
	spte_t *sptep;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, CLEAN, PAGE, GUEST_PTE_P | GUEST_PTE_NX);
	expect_eq(guest_load(&g, 0, CLEAN), 0);
	sptep = leaf_of(&g, CLEAN);
	expect(make_old(&g, PAGE));
	expect_eq(fault_at(&g, CLEAN, PFERR_FETCH), RET_PF_GUEST);
	expect_eq(fault_at(&g, CLEAN, PFERR_WRITE), RET_PF_GUEST);
	expect(!spte_walkable(*sptep));
	expect_eq(guest_load(&g, 0, CLEAN), 0);
	expect_eq(stats_of(&g).fast_faults, 1);

	/* The guest's D bit is not set yet, and so the leaf not writable. */
	guest_load(&g, 0, PAGE);
	expect(make_old(&g, PAGE));
	guest_store(&g, 0, PAGE, 1);
	expect_eq(stats_of(&g).fast_faults, 1);
	expect(make_old(&g, PAGE));
	guest_store(&g, 0, PAGE, 2);
	expect_eq(stats_of(&g).fast_faults, 2);
	destroy(&g);
}

/* No index of an entry tells it from the address that it is like. */
TEST(fast_fault, not_canonical)
{
	struct guest_mem g;

	fixture(&g);
	expect_eq(fault_at(&g, PAGE | 1UL << 60, 0), RET_PF_GUEST);
	expect_eq(stats_of(&g).fast_faults, 0);
	destroy(&g);
}

/* A leaf is there, for the table is linked at an address within reach, too: no use at this one. */
TEST(fast_fault, out_of_reach)
{
	const gva_t alias = 0x200000 + PAGE;
	struct guest_mem_config reaching = config;
	struct guest_mem g;

	reaching.gva_first = PAGE + PAGE_SIZE;
	guest_mem_create(&g, &reaching);
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, alias, 2),
		   guest_read(&g, guest_pte_gpa(&g, g.cr3, PAGE, 2)));
	guest_store(&g, 0, reaching.gva_first, 6);
	guest_store(&g, 0, alias, 7);
	expect(spte_present(*leaf_of(&g, PAGE)));
	expect_eq(fault_at(&g, PAGE, 0), RET_PF_GUEST);
	expect_eq(stats_of(&g).fault_spurious, 0);
	destroy(&g);
}

/* Somebody has mmu_lock, for as long as he likes. */
struct loader {
	struct guest_mem g;
	atomic_t done;
};

static void load_page(void *arg)
{
	struct loader *loader = arg;

	expect_eq(guest_load(&loader->g, 0, PAGE), 7);
	/* Nor does it take to see that there is nothing to do. */
	expect_eq(fault_at(&loader->g, PAGE, 0), RET_PF_SPURIOUS);
	atomic_set_release(&loader->done, 1);
}

TEST(fast_fault, no_mmu_lock)
{
	struct loader loader;
	struct kthread vcpu;

	fixture(&loader.g);
	atomic_set(&loader.done, 0);
	spin_lock(&loader.g.shadow->mmu_lock);
	expect_eq(kthread_run(&vcpu, "vcpu", load_page, &loader), 0);
	while (!atomic_read_acquire(&loader.done))
		sched_yield();
	spin_unlock(&loader.g.shadow->mmu_lock);
	kthread_join(&vcpu);
	expect_eq(stats_of(&loader.g).fast_faults, 1);
	destroy(&loader.g);
}

/* ---- while it is at it ---- */

struct race {
	struct guest_mem g;
	spte_t *sptep;
	unsigned int times;
	uint64_t retired;
	struct kthread other;
	atomic_t reloaded;
};

static void race_init(struct race *race, void (*hook)(void *arg))
{
	*race = (struct race){0};
	race->sptep = fixture(&race->g);
	shadow_set_hook(race->g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, hook, race);
}

static void move_page(void *arg)
{
	struct race *race = arg;

	race->times++;
	expect_eq(mm_migrate_range(race->g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
}

/* The host moves the page: the leaf that was judged is gone, and stays so. */
TEST(fast_fault, zapped_before_the_swap)
{
	struct race race;
	pfn_t old;

	race_init(&race, move_page);
	old = mm_lookup_pfn(race.g.mm, guest_hva(PAGE));
	expect_eq(guest_load(&race.g, 0, PAGE), 7);
	expect_eq(race.times, 1);
	expect_eq(stats_of(&race.g).fast_faults, 0);
	expect_ne(mm_lookup_pfn(race.g.mm, guest_hva(PAGE)), old);
	expect_eq(model_cached(race.g.model, old), 0);
	destroy(&race.g);
}

/* It goes, and comes back as it was: then it was granted anew. */
static void zap_and_map_again(void *arg)
{
	struct race *race = arg;
	spte_t before = *race->sptep;

	race->times++;
	expect_eq(mm_zap_range(race->g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_eq(*race->sptep, 0);
	guest_store(&race->g, 1, PAGE, 8);
	expect(make_old(&race->g, PAGE));
	expect_eq(*race->sptep, before);
}

TEST(fast_fault, gone_and_back)
{
	struct race race;

	race_init(&race, zap_and_map_again);
	expect_eq(guest_load(&race.g, 0, PAGE), 8);
	expect_eq(race.times, 1);
	expect_eq(stats_of(&race.g).fast_faults, 1);
	destroy(&race.g);
}

/* Others change the leaf each time that it was judged: after some tries it is resolved as any. */
static void change_leaf(void *arg)
{
	struct race *race = arg;
	spte_t spte = READ_ONCE(*race->sptep);

	race->times++;
	expect(try_cmpxchg(race->sptep, &spte, spte ^ SPTE_AGED));
}

TEST(fast_fault, four_tries)
{
	struct race race;

	race_init(&race, change_leaf);
	expect_eq(fault_at(&race.g, PAGE, 0), RET_PF_FIXED);
	expect_eq(race.times, 4);
	expect_eq(stats_of(&race.g).fast_faults, 0);
	expect_eq(guest_load(&race.g, 0, PAGE), 7);
	destroy(&race.g);
}

/* Another CPU maps the page first, and an age has it tracked before we come to mmu_lock: it has all
 * the rights that we want, and is none that a CPU could walk to. */
static void map_and_make_old(void *arg)
{
	struct guest_mem *g = arg;

	shadow_set_hook(g->shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, NULL, NULL);
	expect_eq(guest_load(g, 1, PAGE), 7);
	expect(make_old(g, PAGE));
}

TEST(fast_fault, tracked_before_the_lock)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_store(&g, 0, PAGE, 7);
	expect_eq(mm_zap_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, map_and_make_old, &g);
	expect_eq(fault_at(&g, PAGE, 0), RET_PF_FIXED);
	expect(spte_walkable(*leaf_of(&g, PAGE)));
	expect_eq(guest_load(&g, 0, PAGE), 7);
	destroy(&g);
}

/* ---- tables that go ---- */

#define LOOKS 1000

static void reload(void *arg)
{
	struct race *race = arg;

	guest_reload_afresh(&race->g, 1);
	atomic_set_release(&race->reloaded, 1);
}

/* Every table below the root is taken out while we stand in one; what is taken out is ours to look
 * at as long as we do. */
static void stand_in_the_table(void *arg)
{
	struct race *race = arg;

	race->times++;
	race->retired = stats_of(&race->g).tables_retired;
	expect_eq(kthread_run(&race->other, "vcpu", reload, race), 0);
	while (READ_ONCE(*race->sptep))
		sched_yield();
	for (unsigned int i = 0; i < LOOKS; i++) {
		expect(!atomic_read_acquire(&race->reloaded));
		expect_eq(stats_of(&race->g).tables_retired, race->retired);
		sched_yield();
	}
}

TEST(fast_fault, retired_under_a_walk)
{
	struct race race;

	race_init(&race, stand_in_the_table);
	expect_eq(fault_at(&race.g, PAGE, 0), RET_PF_FIXED);
	expect_eq(race.times, 1);
	kthread_join(&race.other);
	expect_eq(stats_of(&race.g).fast_faults, 0);
	expect_ge(stats_of(&race.g).tables_retired, race.retired + 3);
	expect_eq(guest_load(&race.g, 0, PAGE), 7);
	destroy(&race.g);
}
