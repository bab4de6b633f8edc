/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the guest has used a page: what the shadow MMU says when it is asked through the
 * notifiers, and that asking changes nothing for the guest. The model machine remembers a leaf
 * until its frame is shot down, and sets accessed bits as it walks.
 */
#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/step.h"

#define PAGE  0x3000UL
#define ALIAS 0x10000000UL

/* Both kinds of machine: one whose CPUs set accessed bits, and one whose leaves are tracked. */
static const struct guest_mem_config kinds[] = {
	{.audit = true},
	{.audit = true, .no_accessed_bits = true},
};

#define for_each_kind(config) \
	for (const struct guest_mem_config *(config) = kinds; (config) < kinds + 2; (config)++)

static bool young(struct guest_mem *g, gpa_t gpa)
{
	return mmu_notifier_test_young(g->mm, guest_hva(gpa));
}

static bool clear(struct guest_mem *g, gpa_t gpa)
{
	return mmu_notifier_clear_young(g->mm, guest_hva(gpa), guest_hva(gpa) + PAGE_SIZE);
}

static bool clear_flush(struct guest_mem *g, gpa_t gpa)
{
	return mmu_notifier_clear_flush_young(g->mm, guest_hva(gpa), guest_hva(gpa) + PAGE_SIZE);
}

static void a_use_is_noticed_and_forgotten(const struct guest_mem_config *config)
{
	struct guest_mem g;

	guest_mem_create(&g, config);
	/* Never used, also not by the walks through the tables beside it. */
	expect(!young(&g, PAGE));
	expect(!clear_flush(&g, PAGE));
	guest_load(&g, 0, PAGE);
	expect(young(&g, PAGE));
	expect(mmu_notifier_test_young(g.mm, guest_hva(PAGE) + 0xabc));
	expect(!young(&g, PAGE + PAGE_SIZE));
	expect(clear_flush(&g, PAGE));
	expect(!young(&g, PAGE));
	expect(!clear_flush(&g, PAGE));
	/* The next use counts again, although it needs no fault, or one that nobody notices. */
	guest_store(&g, 0, PAGE, 1);
	expect(young(&g, PAGE));
	expect(clear(&g, PAGE));
	expect(!clear(&g, PAGE));
	guest_mem_destroy(&g);
}

/* Without the flush the CPU goes on with what it remembers; with it, it walks, and is noticed. */
static void only_a_flush_is_sure(const struct guest_mem_config *config)
{
	struct shadow_stats before, after;
	struct guest_mem g;

	guest_mem_create(&g, config);
	guest_load(&g, 0, PAGE);
	expect(clear(&g, PAGE));
	guest_load(&g, 0, PAGE);
	expect(!young(&g, PAGE));
	/* The one who asks now is told no, but the CPU is made to forget all the same. */
	expect(!clear_flush(&g, PAGE));
	guest_load(&g, 0, PAGE);
	expect(young(&g, PAGE));
	/* Told once, it need not be told again. */
	expect(clear_flush(&g, PAGE));
	shadow_get_stats(g.shadow, &before);
	expect(!clear_flush(&g, PAGE));
	shadow_get_stats(g.shadow, &after);
	expect_eq(after.frames_shot, before.frames_shot);
	guest_load(&g, 0, PAGE);
	expect(young(&g, PAGE));
	guest_mem_destroy(&g);
}

/* A page has many leaves: any of them tells, and all are cleared. */
static void all_mappings_of_a_page(const struct guest_mem_config *config)
{
	struct guest_mem_config large = *config;
	struct guest_mem g;

	large.nr_pages = 256;
	guest_mem_create(&g, &large);
	for (unsigned int i = 0; i < 20; i++) {
		guest_map(&g, g.cr3, ALIAS + i * PAGE_SIZE, PAGE, GUEST_PTE_RW);
		guest_load(&g, 0, ALIAS + i * PAGE_SIZE);
	}
	expect(clear_flush(&g, PAGE));
	expect(!young(&g, PAGE));
	for (unsigned int i = 0; i < 20; i++) {
		guest_load(&g, 0, ALIAS + i * PAGE_SIZE);
		expect(clear_flush(&g, PAGE));
		expect(!young(&g, PAGE));
	}
	guest_mem_destroy(&g);
}

/* More pages than are shot down at once, holes in the range, and a second slot. */
static void ranges(const struct guest_mem_config *config)
{
	struct guest_mem_config large = *config;
	struct shadow_stats before, after;
	const hva_t other = 0x7000000000;
	hva_t start, end;
	struct guest_mem g;

	large.nr_pages = 512;
	guest_mem_create(&g, &large);
	expect_eq(mm_mmap(g.mm, other, 4 * PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
	expect_eq(shadow_create_memslot(g.shadow, 1, 0x100000, 4, other), 0);
	guest_map(&g, g.cr3, ALIAS, 0x100002UL << PAGE_SHIFT, GUEST_PTE_RW);
	start = guest_hva(0);
	end = guest_hva(400 * PAGE_SIZE);
	for (gva_t gva = 0; gva < 300 * PAGE_SIZE; gva += 2 * PAGE_SIZE)
		guest_store(&g, 0, gva, gva);
	guest_store(&g, 0, ALIAS, 7);

	shadow_get_stats(g.shadow, &before);
	expect(mmu_notifier_clear_flush_young(g.mm, start, end));
	expect(!mmu_notifier_clear_flush_young(g.mm, start, end));
	expect(mmu_notifier_clear_flush_young(g.mm, other + 2 * PAGE_SIZE, other + 3 * PAGE_SIZE));
	expect(!mmu_notifier_clear_young(g.mm, 0, HVA_MAX));
	for (gva_t gva = 0; gva < 300 * PAGE_SIZE; gva += 2 * PAGE_SIZE) {
		expect(!young(&g, gva));
		expect_eq(guest_load(&g, 0, gva), gva);
		expect(young(&g, gva));
		expect(!young(&g, gva + PAGE_SIZE));
	}
	/* Nothing was taken from the guest: all was as it was, but for what the CPU remembered. */
	shadow_get_stats(g.shadow, &after);
	expect_eq(after.faults - before.faults, config->no_accessed_bits ? 150 : 0);
	expect_eq(after.fast_faults - before.fast_faults, after.faults - before.faults);
	expect_eq(after.sptes_zapped, before.sptes_zapped);
	expect_eq(after.invalidations, before.invalidations);
	expect_eq(after.frames_shot - before.frames_shot, 151);
	guest_mem_destroy(&g);
}

TEST(age, a_use_is_noticed_and_forgotten)
{
	for_each_kind(config) a_use_is_noticed_and_forgotten(config);
}

TEST(age, only_a_flush_is_sure)
{
	for_each_kind(config) only_a_flush_is_sure(config);
}

TEST(age, all_mappings_of_a_page)
{
	for_each_kind(config) all_mappings_of_a_page(config);
}

TEST(age, ranges)
{
	for_each_kind(config) ranges(config);
}

struct taken {
	struct step step;
	spte_t *sptep;
	unsigned int at;
};

static void take_write(struct step *step)
{
	struct taken *t = step->arg;

	if (step->nr < t->at)
		return;
	step->over = true;
	leaf_lose_write(t->sptep);
}

/* Who has mmu_lock takes the right to write, between any two instructions of a question that takes
 * no lock of his: it stays taken. */
TEST(age, a_right_that_is_taken_meanwhile)
{
	struct taken t = {.step = {.at_each = take_write, .arg = &t}};
	const struct guest_mem_config config = {.audit = false};
	struct memslot *slot;
	struct guest_mem g;

	step_skip();
	guest_mem_create(&g, &config);
	slot = g.shadow->slots->by_id[0];
	do {
		guest_store(&g, 0, PAGE, 1);
		t.sptep = rmap_first(&slot->rmap[PAGE >> PAGE_SHIFT]);
		expect(t.sptep && (READ_ONCE(*t.sptep) & SPTE_WRITE));
		t.at += test_long() ? 1 : 23;
		step_begin(&t.step);
		clear(&g, PAGE);
		step_end();
		if (t.step.over)
			expect(!spte_writable(READ_ONCE(*t.sptep)));
		/* The CPU is told, so that the next store gets the right back. */
		clear_flush(&g, PAGE);
	} while (t.step.over);
	expect_ge(t.at, 100);
	guest_mem_destroy(&g);
}
