/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The chaos threads on a host mm without a guest: each kind does what it is for, leaves alone what
 * is to be left alone, loses nothing, gives back what it took, and stops when told.
 *
 * In the guest's place a thread counts in each page, and waits as a vCPU does where it is refused.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/log.h>
#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"
#include "vmm/chaos.h"

#define NR_PAGES 256
#define HVA	 0x10000000UL
#define AWAY	 0x700000000000UL

struct chaos_test {
	struct phys *phys;
	struct mm_struct *mm;
	struct ksm *ksm;
	struct address_space *ram;
	struct holes holes;
	struct chaos_target target;
	struct counting_notifier cn;
	uint64_t count[NR_PAGES]; /* what is in the page: our own memory of it */
};

static const struct chaos_memory private_memory = {.private_ram = true, .swap = true};
static const struct chaos_memory shared_memory = {.swap = true};

static atomic_t warnings; /* of the test at hand: each runs in its own process */

static void count_warnings(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)message;
	(void)arg;
	if (level == GNOMON_LOG_WARN)
		atomic_inc(&warnings);
}

static bool never(void *arg)
{
	(void)arg;
	return false;
}

static hva_t word_of(unsigned int page)
{
	return HVA + page * PAGE_SIZE + 8 * page;
}

/*
 * Counts up to 3 in the accessed and dirty bits of a page-table entry: that is all that host code
 * writes to a guest's memory while it runs, and so all that may be under way when a page is taken.
 */
static uint64_t stamp(unsigned int page, uint64_t count)
{
	return ((0x9e3779b97f4a7c15 * (page + 1)) & ~0x60ULL) | (count & 3) << 5;
}

/* As a vCPU would: refused in a hole, or for want of memory that is hoarded, it waits. */
static void access_page(struct chaos_test *t, unsigned int page, uint64_t *value, bool write)
{
	for (;;) {
		uint64_t seq = holes_seq(&t->holes);
		int err = write ? mm_write(t->mm, word_of(page), value, sizeof(*value))
				: mm_read(t->mm, word_of(page), value, sizeof(*value));

		if (!err)
			return;
		if (err == -EFAULT)
			expect(holes_wait(&t->holes, seq, word_of(page), never, NULL));
		else
			expect(err == -ENOMEM && holes_wait_memory(&t->holes, seq, never, NULL));
	}
}

/* One more in each page, which must hold what we left there. */
static void touch_all(struct chaos_test *t)
{
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		uint64_t value = 0;

		access_page(t, page, &value, false);
		expect_eq(value, stamp(page, t->count[page]));
		value = stamp(page, ++t->count[page]);
		access_page(t, page, &value, true);
	}
}

/* RAM of NR_PAGES stamped pages, pages 32..63 and 200..255 spared. */
static void setup_frames(struct chaos_test *t, bool private_ram, uint64_t nr_frames, bool swap)
{
	*t = (struct chaos_test){.phys = test_phys(nr_frames)};
	if (swap)
		expect_eq(phys_swap_on(t->phys, getenv("TMPDIR") ?: "/var/tmp", 2 * NR_PAGES), 0);
	gnomon_set_log(count_warnings, NULL);
	if (private_ram)
		expect(t->ksm = ksm_create(t->phys));
	t->mm = test_mm(t->phys);
	if (!private_ram)
		t->ram = test_mapping(t->phys, NR_PAGES);
	expect_eq(mm_mmap(t->mm, HVA, NR_PAGES * PAGE_SIZE, RW, t->ram, 0), 0);
	for (unsigned int page = 0; page < NR_PAGES; page++)
		test_write(t->mm, word_of(page), stamp(page, 0));
	holes_init(&t->holes);
	counting_register(&t->cn, t->mm);
	t->target = (struct chaos_target){
		.mm = t->mm,
		.ram = t->ram,
		.hva = HVA,
		.nr_pages = NR_PAGES,
		.away = AWAY,
		.holes = &t->holes,
		.spare_frames = 16,
		.ksm = t->ksm,
		.swap = swap,
		.spared = {{32, 64}, {200, NR_PAGES}},
		.nr_spared = 2,
	};
}

static void setup(struct chaos_test *t, bool private_ram)
{
	setup_frames(t, private_ram, NR_PAGES * 4, true);
}

/* All is as it was: contents, rights, places; nothing is taken, and nobody complained. */
static void teardown(struct chaos_test *t)
{
	struct hole all;

	expect(hole_open(&t->holes, &all, 0, INVALID_HVA));
	hole_close(&t->holes, &all);
	expect_eq(t->holes.nr_hoards, 0);
	expect_eq(t->mm->nr_vmas, 1);
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		expect_eq(test_read(t->mm, word_of(page)), stamp(page, t->count[page]));
		test_write(t->mm, word_of(page), 0);
	}
	counting_expect_paired(&t->cn);
	mmu_notifier_unregister(&t->cn.mn, t->mm);
	mmput(t->mm);
	ksm_destroy(t->ksm);
	if (t->ram)
		address_space_put(t->ram);
	test_phys_done(t->phys);
	expect_eq(atomic_read(&warnings), 0);
}

static struct chaos *start(struct chaos_test *t, const struct chaos_plan *plan, uint64_t seed)
{
	struct chaos *chaos = NULL;

	expect_eq(chaos_start(&chaos, &t->target, plan, seed), 0);
	return chaos;
}

static struct chaos_counts counts_of(const struct chaos *chaos, enum chaos_kind_id kind)
{
	struct chaos_counts counts;

	chaos_get_counts(chaos, kind, &counts);
	return counts;
}

static void wait_for_ops(struct chaos *chaos, enum chaos_kind_id kind, uint64_t ops)
{
	while (counts_of(chaos, kind).ops < ops)
		sched_yield();
}

static uint64_t windows(struct chaos_test *t, enum mmu_notifier_event event)
{
	return atomic64_read(&t->cn.starts[event]);
}

/* ---- choices ---- */

TEST(chaos, draws_avoid_what_is_spared)
{
	struct chaos_target target = {
		.nr_pages = NR_PAGES,
		.spared = {{32, 64}, {200, NR_PAGES}},
		.nr_spared = 2,
	};
	unsigned int seen[NR_PAGES] = {0}, lengths[CHAOS_MAX_PAGES + 1] = {0};
	struct chaos_worker worker = {.rng = 42};
	struct chaos_draw draw;
	uint64_t bits = 0, zeroes = 0;

	for (int i = 0; i < 20000; i++) {
		chaos_draw(&worker, &target, &draw);
		bits |= draw.bits;
		zeroes |= ~draw.bits;
		if (!draw.nr_pages)
			continue;
		expect_le(draw.nr_pages, CHAOS_MAX_PAGES);
		expect_le(draw.gfn + draw.nr_pages, NR_PAGES);
		lengths[draw.nr_pages]++;
		for (unsigned int page = draw.gfn; page < draw.gfn + draw.nr_pages; page++)
			seen[page]++;
	}
	for (unsigned int page = 0; page < NR_PAGES; page++) {
		bool spared = (page >= 32 && page < 64) || page >= 200;

		if (spared ? seen[page] != 0 : seen[page] < 20)
			fail("page %u was picked %u times", page, seen[page]);
	}
	for (unsigned int nr = 1; nr <= CHAOS_MAX_PAGES; nr++)
		expect_ge(lengths[nr], 500);
	expect_eq(bits & zeroes, UINT64_MAX);

	/* Everything is spared: a draw says so, and comes back. */
	target.spared[0] = (struct chaos_spared){0, NR_PAGES};
	for (int i = 0; i < 100; i++) {
		chaos_draw(&worker, &target, &draw);
		expect_eq(draw.nr_pages, 0);
	}
}

/* The digests of all kinds that @plan has, after each has drawn enough. */
static void digests(const struct chaos_plan *plan, uint64_t seed, bool private_ram,
		    uint64_t *digest)
{
	struct chaos_test t;
	struct chaos *chaos;

	setup(&t, private_ram);
	chaos = start(&t, plan, seed);
	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
		if (!plan->rate[kind])
			continue;
		while (counts_of(chaos, kind).draws < CHAOS_DIGEST_OPS)
			touch_all(&t);
	}
	chaos_stop(chaos);
	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
		struct chaos_counts counts = counts_of(chaos, kind);

		expect_eq(counts.draws, plan->rate[kind] ? CHAOS_DIGEST_OPS : 0);
		digest[kind] = counts.digest;
	}
	chaos_destroy(chaos);
	teardown(&t);
}

/* Whatever else runs, at whatever rate, and on whatever RAM. */
TEST(chaos, the_same_seed_makes_the_same_choices)
{
	uint64_t one[NR_CHAOS_KINDS], again[NR_CHAOS_KINDS], other[NR_CHAOS_KINDS];
	struct chaos_plan all = {0}, alone = {0};

	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++)
		all.rate[kind] = 2000;
	digests(&all, 7, true, one);
	digests(&all, 8, true, other);
	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
		expect_ne(one[kind], other[kind]);
		for (unsigned int before = 0; before < kind; before++)
			expect_ne(one[kind], one[before]);
	}
	alone.rate[CHAOS_MIGRATE] = CHAOS_MAX_RATE;
	alone.rate[CHAOS_REMAP] = CHAOS_MAX_RATE;
	digests(&alone, 7, false, again);
	expect_eq(again[CHAOS_MIGRATE], one[CHAOS_MIGRATE]);
	expect_eq(again[CHAOS_REMAP], one[CHAOS_REMAP]);
}

/* ---- kinds ---- */

/* @kind for @ops operations and until @event was heard so often, while all pages are counted in. */
static struct chaos_counts run_kind(struct chaos_test *t, enum chaos_kind_id kind, uint64_t ops,
				    enum mmu_notifier_event event, uint64_t nr_windows)
{
	struct chaos_plan plan = {0};
	struct chaos_counts counts;
	struct chaos *chaos;

	plan.rate[kind] = CHAOS_MAX_RATE;
	chaos = start(t, &plan, 1);
	while (counts_of(chaos, kind).ops < ops || windows(t, event) < nr_windows)
		touch_all(t);
	chaos_stop(chaos);
	counts = counts_of(chaos, kind);
	for (unsigned int other = 0; other < NR_CHAOS_KINDS; other++)
		expect_eq(counts_of(chaos, other).ops, other == kind ? counts.ops : 0);
	expect_le(counts.refused, counts.ops);
	expect_ge(counts.pages, counts.ops - counts.refused);
	expect_eq(counts.pages_disturbed, 0);
	chaos_destroy(chaos);
	return counts;
}

TEST(chaos, migrate_moves_pages_and_leaves_the_spared)
{
	for (int private_ram = 0; private_ram < 2; private_ram++) {
		pfn_t before[NR_PAGES];
		struct chaos_counts counts;
		struct chaos_test t;

		setup(&t, private_ram);
		for (unsigned int page = 0; page < NR_PAGES; page++)
			before[page] = mm_lookup_pfn(t.mm, word_of(page));
		counts = run_kind(&t, CHAOS_MIGRATE, 500, MMU_NOTIFY_MIGRATE, 500);
		expect_ge(counts.pages_migrated, 500);
		expect_eq(counts.pages, counts.pages_migrated);
		for (unsigned int page = 0; page < NR_PAGES; page++) {
			if ((page >= 32 && page < 64) || page >= 200)
				expect_eq(mm_lookup_pfn(t.mm, word_of(page)), before[page]);
		}
		teardown(&t);
	}
}

TEST(chaos, unmap_drops_mappings_and_moves_half)
{
	struct chaos_counts counts;
	struct chaos_test t;
	struct mm_stats mm;

	setup(&t, false);
	counts = run_kind(&t, CHAOS_UNMAP, 500, MMU_NOTIFY_CLEAR, 500);
	mm_get_stats(t.mm, &mm);
	expect_eq(counts.pages, mm.pages_zapped);
	expect_ge(counts.pages_migrated, counts.pages / 4);
	teardown(&t);
}

/* Private pages are kept by the swap file. */
static void check_paging_out(enum chaos_kind_id kind, bool private_ram)
{
	struct reclaim_stats reclaim;
	struct chaos_counts counts;
	struct chaos_test t;

	setup(&t, private_ram);
	counts = run_kind(&t, kind, 500, MMU_NOTIFY_CLEAR, 500);
	phys_reclaim_stats(t.phys, &reclaim);
	expect_ge(counts.pages, 200);
	expect_ge(reclaim.swap_out, 200);
	expect_ge(reclaim.swap_in, 100);
	teardown(&t);
}

TEST(chaos, unmap_of_private_pages_swaps)
{
	check_paging_out(CHAOS_UNMAP, true);
}

TEST(chaos, swap_writes_pages_out)
{
	check_paging_out(CHAOS_SWAP, false);
	check_paging_out(CHAOS_SWAP, true);
}

TEST(chaos, protect_takes_rights_and_gives_them_back)
{
	for (int private_ram = 0; private_ram < 2; private_ram++) {
		struct chaos_test t;

		setup(&t, private_ram);
		run_kind(&t, CHAOS_PROTECT, 100, MMU_NOTIFY_PROTECTION_VMA, 100);
		expect_ge(atomic64_read(&t.holes.nr_waits), 10);
		teardown(&t);
	}
}

TEST(chaos, remap_moves_away_and_back)
{
	for (int private_ram = 0; private_ram < 2; private_ram++) {
		struct chaos_test t;

		setup(&t, private_ram);
		run_kind(&t, CHAOS_REMAP, 100, MMU_NOTIFY_UNMAP, 200); /* there and back */
		expect_ge(atomic64_read(&t.holes.nr_waits), 10);
		teardown(&t);
	}
}

TEST(chaos, fork_makes_pages_be_copied)
{
	struct chaos_test t;
	struct mm_stats mm;

	setup(&t, true);
	run_kind(&t, CHAOS_FORK, 50, MMU_NOTIFY_PROTECTION_PAGE, 50);
	mm_get_stats(t.mm, &mm);
	expect_ge(mm.cow_copies, 100);
	expect_eq(windows(&t, MMU_NOTIFY_CLEAR), mm.cow_copies);
	teardown(&t);
}

TEST(chaos, merge_makes_equal_pages_one)
{
	struct chaos_counts counts;
	struct ksm_stats ksm;
	struct chaos_test t;
	struct mm_stats mm;

	setup(&t, true);
	/* Each page is 1 to 8 of an operation, and some have changed when the scanner comes. */
	counts = run_kind(&t, CHAOS_MERGE, 100, MMU_NOTIFY_CLEAR, 400);
	ksm_get_stats(t.ksm, &ksm);
	mm_get_stats(t.mm, &mm);
	expect_ge(counts.pages, 20);
	expect_eq(counts.pages, ksm.pages_merged);
	expect_eq(ksm.pages_sharing, 0);
	expect_ge(mm.cow_copies, 20);
	teardown(&t);
}

struct aged {
	struct mmu_notifier mn;
	atomic_t asked[3];
};

static bool clear_flush_young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mm;
	expect(start >= HVA && start < end && end <= HVA + NR_PAGES * PAGE_SIZE);
	atomic_inc(&container_of(mn, struct aged, mn)->asked[0]);
	return true;
}

static bool clear_young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	(void)mm;
	expect(start >= HVA && start < end && end <= HVA + NR_PAGES * PAGE_SIZE);
	atomic_inc(&container_of(mn, struct aged, mn)->asked[1]);
	return true;
}

static bool test_young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t hva)
{
	(void)mm;
	expect(hva >= HVA && hva < HVA + NR_PAGES * PAGE_SIZE);
	atomic_inc(&container_of(mn, struct aged, mn)->asked[2]);
	return true;
}

TEST(chaos, age_asks_in_all_three_ways)
{
	static const struct mmu_notifier_ops ops = {
		.clear_flush_young = clear_flush_young,
		.clear_young = clear_young,
		.test_young = test_young,
	};
	struct aged aged = {.mn.ops = &ops};
	struct chaos_test t;

	setup(&t, false);
	expect_eq(mmu_notifier_register(&aged.mn, t.mm), 0);
	run_kind(&t, CHAOS_AGE, 300, MMU_NOTIFY_CLEAR, 0);
	mmu_notifier_unregister(&aged.mn, t.mm);
	for (int i = 0; i < 3; i++)
		expect_ge(atomic_read(&aged.asked[i]), 50);
	teardown(&t);
}

TEST(chaos, balloon_takes_frames_but_for_the_spare_ones)
{
	struct chaos_plan plan = {.rate = {[CHAOS_BALLOON] = CHAOS_MAX_RATE}};
	uint64_t least = UINT64_MAX, before;
	struct chaos_test t;
	struct chaos *chaos;

	setup(&t, false);
	before = phys_nr_free(t.phys);
	chaos = start(&t, &plan, 1);
	while (counts_of(chaos, CHAOS_BALLOON).ops < 50 || least > before / 4) {
		uint64_t nr_free = phys_nr_free(t.phys);

		expect_ge(nr_free, t.target.spare_frames);
		least = min(least, nr_free);
	}
	chaos_stop(chaos);
	expect_ge(counts_of(chaos, CHAOS_BALLOON).pages, 1000);
	expect_eq(phys_nr_free(t.phys), before);
	chaos_destroy(chaos);
	teardown(&t);
}

/* Who comes and goes hears of what the others do, and none of it is wrong. */
TEST(chaos, register_listens_and_leaves)
{
	struct chaos_plan plan = {.rate = {[CHAOS_MIGRATE] = CHAOS_MAX_RATE,
					   [CHAOS_REMAP] = 1000,
					   [CHAOS_FORK] = 50,
					   [CHAOS_REGISTER] = CHAOS_MAX_RATE}};
	struct chaos_counts counts;
	struct chaos_test t;
	struct chaos *chaos;

	setup(&t, true);
	chaos = start(&t, &plan, 1);
	do {
		touch_all(&t);
		counts = counts_of(chaos, CHAOS_REGISTER);
	} while (counts.ops < 60 || counts.pages < 200);
	chaos_stop(chaos);
	expect_eq(counts_of(chaos, CHAOS_REGISTER).refused, 0);
	chaos_destroy(chaos);
	teardown(&t);
}

/* ---- all at once, and little memory ---- */

TEST(chaos, all_kinds_at_once_lose_nothing)
{
	for (int private_ram = 0; private_ram < 2; private_ram++) {
		struct chaos_plan plan = {0};
		struct chaos_test t;
		struct chaos *chaos;

		for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++)
			plan.rate[kind] = 500;
		expect_eq(chaos_plan_fit(&plan, private_ram ? &private_memory : &shared_memory,
					 NULL, 0),
			  0);
		setup(&t, private_ram);
		chaos = start(&t, &plan, 1);
		for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
			while (plan.rate[kind] && counts_of(chaos, kind).ops < 50)
				touch_all(&t);
		}
		chaos_stop(chaos);
		chaos_destroy(chaos);
		teardown(&t);
	}
}

/*
 * Each page that is written while a child lives costs a frame, and there are too few: who finds
 * none waits, and the child goes.
 */
TEST(chaos, a_child_goes_when_memory_is_wanted)
{
	struct chaos_plan plan = {.rate = {[CHAOS_FORK] = CHAOS_MAX_RATE}};
	struct chaos_test t;
	struct chaos *chaos;

	setup_frames(&t, true, NR_PAGES + 24, false);
	chaos = start(&t, &plan, 1);
	while (atomic64_read(&t.holes.nr_memory_waits) < 10)
		touch_all(&t);
	chaos_stop(chaos);
	chaos_destroy(chaos);
	teardown(&t);
}

TEST(chaos, a_balloon_goes_when_memory_is_wanted)
{
	struct chaos_plan plan = {.rate = {[CHAOS_BALLOON] = CHAOS_MAX_RATE}};
	struct chaos_test t;
	struct chaos *chaos;

	setup_frames(&t, true, NR_PAGES + 24, false);
	t.target.spare_frames = 0;
	chaos = start(&t, &plan, 1);
	while (atomic64_read(&t.holes.nr_memory_waits) < 10) {
		/* Pages go, and come back with what they had. */
		expect_ge(mm_zap_range(t.mm, HVA, NR_PAGES * PAGE_SIZE), 0);
		for (unsigned int page = 0; page < NR_PAGES; page++) {
			uint64_t value = stamp(page, t.count[page]);

			access_page(&t, page, &value, true);
		}
	}
	chaos_stop(chaos);
	chaos_destroy(chaos);
	teardown(&t);
}

/* ---- the look for what nobody can have written ---- */

/* A secondary that was not told: it still has each page's frame, and writes. */
static void see_a_stale_writer(enum chaos_kind_id kind, bool private_ram)
{
	struct chaos_plan plan = {0};
	uint64_t *words[NR_PAGES];
	struct chaos_test t;
	struct chaos *chaos;

	plan.rate[kind] = CHAOS_MAX_RATE;
	setup(&t, private_ram);
	for (unsigned int page = 0; page < NR_PAGES; page++)
		words[page] = phys_map(t.phys, mm_lookup_pfn(t.mm, word_of(page)));
	chaos = start(&t, &plan, 1);
	for (uint64_t i = 0; !counts_of(chaos, kind).pages_disturbed; i++)
		WRITE_ONCE(words[i % NR_PAGES][1], i << 8);
	chaos_stop(chaos);
	expect_eq(atomic_read(&warnings), 1);
	atomic_set(&warnings, 0);
	for (unsigned int page = 0; page < NR_PAGES; page++)
		test_write(t.mm, word_of(page), stamp(page, 0));
	chaos_destroy(chaos);
	teardown(&t);
}

TEST(chaos, protect_sees_a_stale_writer)
{
	see_a_stale_writer(CHAOS_PROTECT, false);
}

TEST(chaos, remap_sees_a_stale_writer)
{
	see_a_stale_writer(CHAOS_REMAP, false);
}

/* And it may not see in a child what is written to the parent. */
TEST(chaos, fork_sees_a_stale_writer)
{
	see_a_stale_writer(CHAOS_FORK, true);
}

/* Nor in a copy what is written to a page that was merged with it. */
TEST(chaos, merge_sees_a_stale_writer)
{
	see_a_stale_writer(CHAOS_MERGE, true);
}

/* ---- start and stop ---- */

TEST(chaos, stops_between_two_distant_operations)
{
	struct chaos_plan plan = {0};
	struct chaos_test t;
	struct chaos *chaos;

	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++)
		plan.rate[kind] = 1;
	expect_eq(chaos_plan_fit(&plan, &shared_memory, NULL, 0), 0);
	setup(&t, false);
	/* The first operation is due at once, the second in a second: stop comes in between, and
	 * the test's clock runs if it is not heard. */
	for (int i = 0; i < 100; i++) {
		chaos = start(&t, &plan, i);
		wait_for_ops(chaos, CHAOS_MIGRATE, 1);
		chaos_stop(chaos);
		chaos_destroy(chaos);
	}
	teardown(&t);
}

TEST(chaos, nothing_to_do_is_no_error)
{
	struct chaos_plan none = {0}, all = {0};
	struct chaos_test t;
	struct chaos *chaos;

	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++)
		all.rate[kind] = CHAOS_MAX_RATE;
	expect_eq(chaos_plan_fit(&all, &shared_memory, NULL, 0), 0);
	setup(&t, false);
	chaos = start(&t, &none, 1);
	chaos_stop(chaos);
	chaos_destroy(chaos);

	/* All is spared: every operation is refused, none is lost. */
	t.target.spared[0] = (struct chaos_spared){0, NR_PAGES};
	chaos = start(&t, &all, 1);
	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
		if (all.rate[kind])
			wait_for_ops(chaos, kind, 20);
	}
	chaos_stop(chaos);
	for (unsigned int kind = 0; kind < NR_CHAOS_KINDS; kind++) {
		struct chaos_counts counts = counts_of(chaos, kind);

		expect_eq(counts.refused, counts.ops);
		expect_eq(counts.pages + counts.pages_migrated, 0);
	}
	chaos_destroy(chaos);
	teardown(&t);
}

/* One of all is left out in silence, what was named is refused, with what it lacks. */
static void check_fit(enum chaos_kind_id kind, struct chaos_memory memory, const char *lacks)
{
	struct chaos_plan plan = {0};
	char why[256] = "";

	plan.rate[kind] = plan.rate[CHAOS_MIGRATE] = 7;
	expect_eq(chaos_plan_fit(&plan, &memory, why, sizeof(why)), 0);
	expect_eq(plan.rate[kind], lacks ? 0 : 7);
	expect_eq(plan.rate[CHAOS_MIGRATE], 7);
	expect_eq(chaos_kind_fits(kind, &memory), !lacks);

	plan.rate[kind] = 7;
	plan.named[kind] = true;
	expect_eq(chaos_plan_fit(&plan, &memory, why, sizeof(why)), lacks ? -EINVAL : 0);
	if (!lacks)
		return;
	expect_str_contains(why, lacks);
	expect_str_contains(why, chaos_kinds[kind].name);
}

TEST(chaos, kinds_go_with_the_right_ram)
{
	const struct chaos_memory shared = {0}, private = {.private_ram = true};

	check_fit(CHAOS_FORK, shared, "--ram private");
	check_fit(CHAOS_FORK, private, NULL);
	check_fit(CHAOS_MERGE, shared, "--ram private");
	check_fit(CHAOS_MERGE, private, NULL);
	check_fit(CHAOS_UNMAP, shared, NULL);
	check_fit(CHAOS_UNMAP, private, "--swap");
	check_fit(CHAOS_UNMAP, private_memory, NULL);
	check_fit(CHAOS_SWAP, shared, "--swap");
	check_fit(CHAOS_SWAP, shared_memory, NULL);
	check_fit(CHAOS_SWAP, private_memory, NULL);
	check_fit(CHAOS_PROTECT, shared, NULL);
	check_fit(CHAOS_PROTECT, private, NULL);
}
