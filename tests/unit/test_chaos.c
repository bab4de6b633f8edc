/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The chaos threads on a host mm without a guest: they do move memory, they leave alone what is to
 * be left alone, nothing is lost, and they stop when told.
 */
#include <sched.h>
#include <string.h>

#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"
#include "vmm/chaos.h"

#define NR_PAGES 256
#define HVA	 0x10000000UL

struct chaos_test {
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *ram;
	struct chaos_target target;
};

static uint64_t stamp(uint64_t page)
{
	return 0x9e3779b97f4a7c15 * (page + 1);
}

/* RAM of NR_PAGES stamped pages, pages 32..63 and 200..255 spared. */
static void setup(struct chaos_test *t)
{
	t->phys = test_phys(NR_PAGES * 2);
	t->mm = test_mm(t->phys);
	t->ram = test_mapping(t->phys, NR_PAGES);
	expect_eq(mm_mmap(t->mm, HVA, NR_PAGES * PAGE_SIZE, RW, t->ram, 0), 0);
	for (uint64_t page = 0; page < NR_PAGES; page++)
		test_write(t->mm, HVA + page * PAGE_SIZE + 8 * page, stamp(page));
	t->target = (struct chaos_target){
		.mm = t->mm,
		.ram = t->ram,
		.hva = HVA,
		.nr_pages = NR_PAGES,
		.spared = {{32, 64}, {200, NR_PAGES}},
		.nr_spared = 2,
	};
}

static void teardown(struct chaos_test *t)
{
	for (uint64_t page = 0; page < NR_PAGES; page++)
		expect_eq(test_read(t->mm, HVA + page * PAGE_SIZE + 8 * page), stamp(page));
	mmput(t->mm);
	address_space_put(t->ram);
	test_phys_done(t->phys);
}

static void wait_for_ops(struct chaos *chaos, enum chaos_kind_id kind, uint64_t ops)
{
	struct chaos_counts counts;

	do {
		sched_yield();
		chaos_get_counts(chaos, kind, &counts);
	} while (counts.ops < ops);
}

TEST(chaos, picks_avoid_what_is_spared)
{
	struct chaos_target target = {
		.nr_pages = NR_PAGES,
		.spared = {{32, 64}, {200, NR_PAGES}},
		.nr_spared = 2,
	};
	unsigned int seen[NR_PAGES] = {0}, lengths[CHAOS_MAX_PAGES + 1] = {0};
	struct chaos_worker worker = {.rng = 42};

	for (int i = 0; i < 20000; i++) {
		unsigned int nr;
		gfn_t gfn;

		if (!chaos_pick(&worker, &target, CHAOS_MAX_PAGES, &gfn, &nr))
			continue;
		expect(nr >= 1 && nr <= CHAOS_MAX_PAGES);
		expect_le(gfn + nr, NR_PAGES);
		lengths[nr]++;
		for (unsigned int page = gfn; page < gfn + nr; page++)
			seen[page]++;
	}
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		bool spared = (page >= 32 && page < 64) || page >= 200;

		if (spared ? seen[page] != 0 : seen[page] < 20)
			fail("page %u was picked %u times", page, seen[page]);
	}
	for (unsigned int nr = 1; nr <= CHAOS_MAX_PAGES; nr++)
		expect_ge(lengths[nr], 500);

	/* Everything is spared: a pick says so, and comes back. */
	target.spared[0] = (struct chaos_spared){0, NR_PAGES};
	for (int i = 0; i < 100; i++) {
		unsigned int nr;
		gfn_t gfn;

		expect(!chaos_pick(&worker, &target, 1, &gfn, &nr));
	}
}

/* Touch every page, as a guest would: unmapped ones come back, and none has lost its stamp. */
static void touch_all(struct chaos_test *t, const pfn_t *before)
{
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		hva_t hva = HVA + page * PAGE_SIZE;
		bool spared = (page >= 32 && page < 64) || page >= 200;

		if (spared)
			expect_eq(mm_lookup_pfn(t->mm, hva), before[page]);
		expect_eq(test_read(t->mm, hva + 8 * page), stamp(page));
	}
}

TEST(chaos, moves_pages_and_loses_nothing)
{
	struct chaos_plan plan = {.rate = {CHAOS_MAX_RATE, CHAOS_MAX_RATE}};
	struct chaos_counts migrate, unmap;
	pfn_t before[NR_PAGES];
	struct chaos_test t;
	struct chaos *chaos;
	struct mm_stats mm;

	setup(&t);
	for (unsigned int page = 0; page < NR_PAGES; page++)
		before[page] = mm_lookup_pfn(t.mm, HVA + page * PAGE_SIZE);

	expect_eq(chaos_start(&chaos, &t.target, &plan, 1), 0);
	do {
		touch_all(&t, before);
		chaos_get_counts(chaos, CHAOS_MIGRATE, &migrate);
		chaos_get_counts(chaos, CHAOS_UNMAP, &unmap);
	} while (migrate.pages_migrated < 500 || unmap.pages_unmapped < 500 ||
		 unmap.pages_migrated < 100);
	chaos_stop(chaos);

	chaos_get_counts(chaos, CHAOS_MIGRATE, &migrate);
	chaos_get_counts(chaos, CHAOS_UNMAP, &unmap);
	mm_get_stats(t.mm, &mm);
	expect_eq(migrate.pages_unmapped, 0);
	expect_eq(unmap.pages_unmapped, mm.pages_zapped);
	expect_le(migrate.refused, migrate.ops);
	chaos_destroy(chaos);
	teardown(&t);
}

#define NR_RECORDED 200

struct recorder {
	hva_t start[NR_RECORDED], end[NR_RECORDED];
	unsigned int nr;
};

static void record(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct recorder *recorder = cn->arg;

	if (range->event != MMU_NOTIFY_CLEAR || recorder->nr == NR_RECORDED)
		return;
	recorder->start[recorder->nr] = range->start;
	recorder->end[recorder->nr++] = range->end;
}

/* What `unmap` chose first, as a notifier sees it. */
static void record_choices(struct recorder *recorder, uint64_t seed)
{
	struct chaos_plan plan = {.rate = {[CHAOS_UNMAP] = CHAOS_MAX_RATE}};
	struct counting_notifier cn = {.on_start = record, .arg = recorder};
	struct chaos_counts counts;
	struct chaos_test t;
	struct chaos *chaos;

	memset(recorder, 0, sizeof(*recorder));
	setup(&t);
	counting_register(&cn, t.mm);
	expect_eq(chaos_start(&chaos, &t.target, &plan, seed), 0);
	wait_for_ops(chaos, CHAOS_UNMAP, 2 * NR_RECORDED);
	chaos_stop(chaos);
	expect_eq(recorder->nr, NR_RECORDED);
	chaos_get_counts(chaos, CHAOS_MIGRATE, &counts);
	expect_eq(counts.ops, 0);
	chaos_destroy(chaos);
	mmu_notifier_unregister(&cn.mn, t.mm);
	teardown(&t);
}

TEST(chaos, the_same_seed_makes_the_same_choices)
{
	struct recorder one, again, other;

	record_choices(&one, 7);
	record_choices(&again, 7);
	record_choices(&other, 8);
	expect_eq(memcmp(&one, &again, sizeof(one)), 0);
	expect_ne(memcmp(&one, &other, sizeof(one)), 0);
}

TEST(chaos, stops_between_two_distant_operations)
{
	struct chaos_plan plan = {.rate = {1, 1}};
	struct chaos_test t;
	struct chaos *chaos;

	setup(&t);
	/* The first operation is due at once, the second in a second: stop comes in between, and
	 * the test's clock runs if it is not heard. */
	for (int i = 0; i < 100; i++) {
		expect_eq(chaos_start(&chaos, &t.target, &plan, i), 0);
		wait_for_ops(chaos, CHAOS_MIGRATE, 1);
		chaos_stop(chaos);
		chaos_destroy(chaos);
	}
	teardown(&t);
}

TEST(chaos, nothing_to_do_is_no_error)
{
	struct chaos_plan none = {{0}}, all = {.rate = {CHAOS_MAX_RATE, CHAOS_MAX_RATE}};
	struct chaos_counts counts;
	struct chaos_test t;
	struct chaos *chaos;

	setup(&t);
	expect_eq(chaos_start(&chaos, &t.target, &none, 1), 0);
	chaos_stop(chaos);
	chaos_destroy(chaos);

	/* All is spared: every operation is refused, none is lost. */
	t.target.spared[0] = (struct chaos_spared){0, NR_PAGES};
	expect_eq(chaos_start(&chaos, &t.target, &all, 1), 0);
	wait_for_ops(chaos, CHAOS_MIGRATE, 20);
	wait_for_ops(chaos, CHAOS_UNMAP, 20);
	chaos_stop(chaos);
	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
		chaos_get_counts(chaos, kind, &counts);
		expect_eq(counts.refused, counts.ops);
		expect_eq(counts.pages_migrated + counts.pages_unmapped, 0);
	}
	chaos_destroy(chaos);
	teardown(&t);
}
