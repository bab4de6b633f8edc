// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Which pages go: the least used, as the host and its secondaries use them; when somebody needs a
 * frame, or the thread sees that few are left.
 */
#include <errno.h>

#include "tests/support/swap_fixture.h"

/* A secondary that uses some pages, and says so once for each time that it is asked. */
struct user {
	struct mmu_notifier mn;
	hva_t start, end; /* what it uses */
	atomic64_t flushes, clears, tests;
};

static struct user *to_user(struct mmu_notifier *mn)
{
	return container_of(mn, struct user, mn);
}

static bool uses(const struct user *u, hva_t start, hva_t end)
{
	expect_eq(end - start, PAGE_SIZE);
	return start >= u->start && end <= u->end;
}

static bool clear_flush_young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	expect(mn->mm == mm);
	might_sleep();
	atomic64_inc(&to_user(mn)->flushes);
	return uses(to_user(mn), start, end);
}

static bool clear_young(struct mmu_notifier *mn, struct mm_struct *mm, hva_t start, hva_t end)
{
	expect(mn->mm == mm);
	might_sleep();
	atomic64_inc(&to_user(mn)->clears);
	return uses(to_user(mn), start, end);
}

static const struct mmu_notifier_ops user_ops = {
	.clear_flush_young = clear_flush_young,
	.clear_young = clear_young,
};

static bool in_memory(struct mm_struct *mm, uint64_t n)
{
	return mm_lookup_pfn(mm, page(n)) != INVALID_PFN;
}

static uint64_t nr_in_memory(struct mm_struct *mm, uint64_t first, uint64_t end)
{
	uint64_t nr = 0;

	for (uint64_t i = first; i < end; i++)
		nr += in_memory(mm, i);
	return nr;
}

/* As if nobody had touched anything for long. */
static void forget_use(struct phys *phys, struct mm_struct *mm, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		pfn_t pfn = mm_lookup_pfn(mm, page(i));

		phys_get(phys, pfn);
		deactivate_page(phys, pfn, true);
		phys_put(phys, pfn);
	}
}

TEST(reclaim, what_the_host_uses_stays)
{
	struct phys *phys = test_swap_phys(128, 128);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;

	expect_eq(mm_mmap(mm, page(0), 64 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 64; i++)
		test_write(mm, page(i), i);
	forget_use(phys, mm, 64);
	for (uint64_t i = 0; i < 64; i += 2)
		expect_eq(test_read(mm, page(i)), i);
	expect_eq(phys_reclaim(phys, 16), 16);
	for (uint64_t i = 0; i < 64; i += 2)
		expect(in_memory(mm, i));
	expect_eq(nr_in_memory(mm, 0, 64), 48);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.activated, 0);
	expect_eq(phys_reclaim(phys, 16), 16);
	for (uint64_t i = 0; i < 64; i += 2)
		expect(in_memory(mm, i));
	/* Used again, and no other left: those that were found used before are active now. */
	for (uint64_t i = 0; i < 64; i += 2)
		expect_eq(test_read(mm, page(i)), i);
	expect_eq(phys_reclaim(phys, 1), 1);
	phys_reclaim_stats(phys, &stats);
	expect_ge(stats.activated, 8);
	expect_ge(stats.scanned, stats.reclaimed + 32);
	for (uint64_t i = 0; i < 64; i++)
		expect_eq(test_read(mm, page(i)), i);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* Of two mms one has a secondary that uses a few of the pages; nobody else uses any. */
TEST(reclaim, what_a_secondary_uses_stays)
{
	struct phys *phys = test_swap_phys(256, 256);
	struct mm_struct *mm = test_mm(phys), *mm2 = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 64);
	struct user user = {.mn = {.ops = &user_ops}, .start = page(8), .end = page(16)};

	expect_eq(mm_mmap(mm, page(0), 64 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm2, page(0), 64 * PAGE_SIZE, RW, mapping, 0), 0);
	for (uint64_t i = 0; i < 64; i++) {
		test_write(mm, page(i), i);
		expect_eq(test_read(mm2, page(i)), i);
	}
	forget_use(phys, mm, 64);
	expect_eq(mmu_notifier_register(&user.mn, mm2), 0);
	for (int round = 0; round < 7; round++) {
		expect_eq(phys_reclaim(phys, 8), 8);
		expect_eq(nr_in_memory(mm2, 8, 16), 8);
		expect_eq(nr_in_memory(mm, 8, 16), 8);
	}
	expect_eq(nr_in_memory(mm, 0, 64), 8);
	/* Each page was asked for at least once before it went. */
	expect_ge(atomic64_read(&user.flushes), 64);
	/* In the end, a page that is used is better than none at all. */
	expect_eq(phys_reclaim(phys, 8), 8);
	expect_ge(atomic64_read(&user.clears), 1);
	for (uint64_t i = 0; i < 64; i++)
		expect_eq(test_read(mm, page(i)), i);
	mmu_notifier_unregister(&user.mn, mm2);
	mmput(mm);
	mmput(mm2);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

/* Active pages come back as candidates, so that the lists stay in balance. */
TEST(reclaim, the_active_list_feeds_the_other)
{
	struct phys *phys = test_swap_phys(256, 256);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;

	expect_eq(mm_mmap(mm, page(0), 64 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 64; i++) {
		test_write(mm, page(i), i);
		lru_add(phys, mm_lookup_pfn(mm, page(i)), LRU_ACTIVE);
	}
	expect_eq(phys_reclaim(phys, 4), 4);
	phys_reclaim_stats(phys, &stats);
	expect_ge(stats.deactivated, 30);
	expect_ge(stats.nr_inactive + 4, stats.nr_active);
	expect_ge(stats.nr_active, 28);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* While there is enough on the other, it is left alone. */
TEST(reclaim, active_pages_are_left_alone)
{
	struct phys *phys = test_swap_phys(256, 256);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), 64 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 64; i++)
		test_write(mm, page(i), i);
	forget_use(phys, mm, 64);
	for (uint64_t i = 0; i < 16; i++)
		lru_add(phys, mm_lookup_pfn(mm, page(i)), LRU_ACTIVE);
	expect_eq(phys_reclaim(phys, 8), 8);
	expect_eq(nr_in_memory(mm, 0, 16), 16);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.deactivated, 64); /* all by forget_use() */
	expect_eq(stats.nr_active, 16);
	/* Nor can one come that is frozen. */
	pfn = mm_lookup_pfn(mm, page(0));
	expect(frame_ref_freeze(pfn_to_frame(phys, pfn), 1));
	expect_eq(phys_reclaim(phys, 64), 55);
	frame_ref_unfreeze(pfn_to_frame(phys, pfn), 1);
	expect_eq(nr_in_memory(mm, 0, 64), 1);
	expect_eq(test_read(mm, page(0)), 0);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* That it was used while it was active counts as once. */
TEST(reclaim, what_becomes_of_an_active_page)
{
	struct phys *phys = test_swap_phys(8, 8);
	struct mm_struct *mm = test_mm(phys);
	struct frame *frame;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	for (int used = 0; used < 2; used++) {
		for (int forget = 0; forget < 2; forget++) {
			test_write(mm, page(0), 1);
			pfn = mm_lookup_pfn(mm, page(0));
			frame = pfn_to_frame(phys, pfn);
			if (!used)
				forget_use(phys, mm, 1);
			lru_add(phys, pfn, LRU_ACTIVE);
			frame_set(frame, FRAME_REFERENCED);
			deactivate_page(phys, pfn, forget);
			expect_eq(frame_test(frame, FRAME_REFERENCED), used && !forget);
			expect(!frame_test(frame, FRAME_ACTIVE));
			expect(!(entry_of(mm, page(0)) & PTE_ACCESSED));
		}
	}
	/* One that is busy stays where it is. */
	lru_add(phys, pfn, LRU_ACTIVE);
	lock_frame(phys, pfn);
	deactivate_page(phys, pfn, true);
	expect(frame_locked(frame));
	expect(frame_test(frame, FRAME_ACTIVE));
	unlock_frame(phys, pfn);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* ---- what an attempt says ---- */

static void expect_reclaim(struct phys *phys, uint64_t freed, bool may_succeed)
{
	bool may = !may_succeed;

	expect_eq(reclaim_pages(phys, 8, &may), freed);
	expect_eq(may, may_succeed);
}

/* Whether it is worth trying again, if nothing went. */
TEST(reclaim, in_vain_or_not)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct frame *frame;
	pfn_t pfn;

	expect_reclaim(phys, 0, false);
	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 1);
	expect_reclaim(phys, 0, false); /* no place to go to */
	expect_eq(phys_swap_on(phys, "/tmp", 8), 0);
	expect_eq(mm_pin_page(mm, page(0), true, &pfn), 0);
	expect_reclaim(phys, 0, false); /* nobody says for how long */
	mm_unpin_page(mm, pfn, true);

	frame = pfn_to_frame(phys, pfn);
	lock_frame(phys, pfn);
	expect_reclaim(phys, 0, true);
	unlock_frame(phys, pfn);
	expect(frame_ref_freeze(frame, 1));
	expect_reclaim(phys, 0, true);
	frame_ref_unfreeze(frame, 1);
	phys_get(phys, pfn);
	expect_reclaim(phys, 0, true); /* somebody reads it */
	phys_put(phys, pfn);
	expect_reclaim(phys, 1, true);
	expect_eq(test_read(mm, page(0)), 1);
	mmput(mm);
	test_swap_phys_done(phys);
}

static void come_back(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	(void)cn;
	phys_reclaim(mm_phys(range->mm), 1);
}

static void reclaim_from_a_callback(void *arg)
{
	struct phys *phys = arg;
	struct counting_notifier cn = {.on_start = come_back};
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 1);
	counting_register(&cn, mm);
	phys_reclaim(phys, 1);
}

TEST(reclaim, does_not_come_back_to_itself)
{
	struct phys *phys = test_swap_phys(8, 8);

	expect_bug(reclaim_from_a_callback, phys, "reclaim does not come back to itself");
	test_swap_phys_done(phys);
}

#ifdef CONFIG_LOCKDEP
static void reclaim_under_a_spinlock(void *arg)
{
	struct phys *phys = arg;
	static DEFINE_SPINLOCK(lock);

	spin_lock(&lock);
	phys_reclaim(phys, 1);
}

TEST(reclaim, may_sleep)
{
	struct phys *phys = test_swap_phys(8, 8);

	expect_bug(reclaim_under_a_spinlock, phys, "sleep");
	test_swap_phys_done(phys);
}
#endif

/* ---- allocation ---- */

/* Without anything to take, a process leaves "min" frames; the rest of the machine has them. */
TEST(reclaim, the_reserve_is_not_for_processes)
{
	struct phys *phys = test_phys(2048);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;
	uint64_t word = 1, i;
	pfn_t pfn[64];
	int ret = 0;

	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.min, 32);
	expect_ge(stats.low, stats.min + 1);
	expect_ge(stats.high, stats.low + 1);
	expect_eq(mm_mmap(mm, page(0), 2048 * PAGE_SIZE, RW, NULL, 0), 0);
	for (i = 0; !ret && i < 2048; i++)
		ret = mm_write(mm, page(i), &word, sizeof(word));
	expect_eq(ret, -ENOMEM);
	expect_eq(i, 2048 - 32 + 1);
	expect_eq(phys_nr_free(phys), 32);
	/* Nor for moves. */
	expect_eq(migrate_frame(phys, mm_lookup_pfn(mm, page(0))), -ENOMEM);
	for (i = 0; i < 32; i++) {
		pfn[i] = phys_alloc(phys);
		expect_ne(pfn[i], INVALID_PFN);
	}
	expect_eq(phys_alloc(phys), INVALID_PFN);
	while (i--)
		phys_put(phys, pfn[i]);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	test_write(mm, page(0), 2);
	mmput(mm);
	test_phys_done(phys);
}

/* All frames and all slots hold pages: no more come, but what there is can be had, and written. */
TEST(reclaim, memory_that_is_full_can_be_used)
{
	struct phys *phys = test_swap_phys(1024, 64);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 512);
	uint64_t word = 1, nr;

	expect_eq(mm_mmap(mm, page(0), 512 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm, page(512), 1024 * PAGE_SIZE, RW, NULL, 0), 0);
	for (nr = 0; mm_write(mm, page(nr), &word, sizeof(word)) == 0; nr++)
		;
	expect_eq(nr, 1024 - 1024 / 64 + 64);
	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < nr; i++)
			test_increment(mm, page(i));
	}
	for (uint64_t i = 0; i < nr; i++)
		expect_eq(test_read(mm, page(i)), 3);
	expect_eq(mm_write(mm, page(nr), &word, sizeof(word)), -ENOMEM);
	mmput(mm);
	address_space_put(mapping);
	test_swap_phys_done(phys);
}

TEST(reclaim, who_needs_a_frame_takes_it)
{
	struct phys *phys = test_swap_phys(32, 256);
	struct mm_struct *mm = test_mm(phys);
	struct reclaim_stats stats;

	expect_eq(mm_mmap(mm, page(0), 128 * PAGE_SIZE, RW, NULL, 0), 0);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 128; i++) {
			if (round)
				expect_eq(test_read(mm, page(i)), i + round);
			test_write(mm, page(i), i + round + 1);
		}
	}
	phys_reclaim_stats(phys, &stats);
	expect_ge(stats.direct_reclaims, 8);
	expect_ge(stats.swap_out, 3 * (128 - 32));
	expect_ge(stats.swap_in, 2 * (128 - 32));
	mmput(mm);
	test_swap_phys_done(phys);
}

/* A fork copies a pinned page, with mmap_lock held for writing: there, too, room is made. */
TEST(reclaim, in_a_fork)
{
	struct phys *phys = test_swap_phys(8, 64);
	struct mm_struct *mm = test_mm(phys), *child = NULL;
	pfn_t pfn[4];

	expect_eq(mm_mmap(mm, page(0), 16 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t i = 0; i < 16; i++)
		test_write(mm, page(i), i);
	for (uint64_t i = 0; i < 4; i++)
		expect_eq(mm_pin_page(mm, page(i), true, &pfn[i]), 0);
	expect_eq(mm_fork(mm, &child), 0);
	for (uint64_t i = 0; i < 16; i++) {
		test_write(mm, page(i), 100 + i);
		expect_eq(test_read(child, page(i)), i);
	}
	for (uint64_t i = 0; i < 4; i++)
		mm_unpin_page(mm, pfn[i], true);
	mmput(mm);
	for (uint64_t i = 0; i < 16; i++)
		expect_eq(test_read(child, page(i)), i);
	mmput(child);
	test_swap_phys_done(phys);
}

/* ---- everything at once ---- */

#define NR_THREADS   4
#define PER_THREAD   64
#define SHARED_FIRST (NR_THREADS * PER_THREAD)
#define SHARED_PAGES 64
#define ALL_PAGES    (SHARED_FIRST + SHARED_PAGES)

struct hammer {
	struct phys *phys;
	struct mm_struct *mm[2];
	struct address_space *mapping;
	atomic_t next;
	uint64_t goal;
	atomic64_t increments;
};

/* Pages of its own, of which it knows what they hold; and a counter in each shared page, which all
 * increment, through either mm. */
static void hammer(void *arg)
{
	struct hammer *h = arg;
	uint64_t me = (uint64_t)atomic_fetch_add(1, &h->next), own[PER_THREAD] = {0};
	uint64_t random = me + 1;

	for (uint64_t n = 1; n <= h->goal; n++) {
		uint64_t p, at;

		random = random * 6364136223846793005UL + 1442695040888963407UL;
		p = (random >> 33) % PER_THREAD;
		at = (random >> 40) % (PAGE_SIZE / 8) * 8;
		expect_eq(test_read(h->mm[me & 1], page(me * PER_THREAD + p)), own[p]);
		expect_eq(test_read(h->mm[me & 1], page(me * PER_THREAD + p + 1) - 8), own[p]);
		own[p] = n * NR_THREADS + me;
		test_write(h->mm[me & 1], page(me * PER_THREAD + p), own[p]);
		test_write(h->mm[me & 1], page(me * PER_THREAD + p + 1) - 8, own[p]);
		test_increment(h->mm[n & 1], page(SHARED_FIRST + p % SHARED_PAGES) + at);
	}
	atomic64_add((int64_t)h->goal, &h->increments);
}

static void overcommit(bool with_thread)
{
	/* All in all 4 times as many pages as frames. */
	struct hammer h = {.phys = test_swap_phys(ALL_PAGES / 4, 2 * ALL_PAGES),
			   .goal = test_volume(3000)};
	struct reclaim_stats stats;
	uint64_t sum = 0;

	h.mapping = test_mapping(h.phys, SHARED_PAGES);
	for (int i = 0; i < 2; i++) {
		h.mm[i] = test_mm(h.phys);
		expect_eq(mm_mmap(h.mm[i], page(0), SHARED_FIRST * PAGE_SIZE, RW, NULL, 0), 0);
		expect_eq(mm_mmap(h.mm[i], page(SHARED_FIRST), SHARED_PAGES * PAGE_SIZE, RW,
				  h.mapping, 0),
			  0);
	}
	if (with_thread)
		expect_eq(phys_reclaim_start(h.phys), 0);
	test_threads(NR_THREADS, hammer, &h);
	phys_reclaim_stop(h.phys);
	for (uint64_t p = 0; p < SHARED_PAGES; p++) {
		for (uint64_t at = 0; at < PAGE_SIZE; at += 8)
			sum += test_read(h.mm[0], page(SHARED_FIRST + p) + at);
	}
	expect_eq(sum, NR_THREADS * h.goal);
	expect_eq(sum, atomic64_read(&h.increments));
	phys_reclaim_stats(h.phys, &stats);
	expect_ge(stats.swap_out, (int64_t)h.goal / 4);
	expect_ge(stats.swap_in, (int64_t)h.goal / 4);
	expect_eq(stats.swap_errors, 0);
	if (with_thread)
		expect_ge(stats.wakeups, 1);
	for (int i = 0; i < 2; i++)
		mmput(h.mm[i]);
	address_space_put(h.mapping);
	test_swap_phys_done(h.phys);
}

TEST(reclaim, four_times_overcommitted)
{
	overcommit(false);
}

TEST(reclaim, four_times_overcommitted_with_the_thread)
{
	overcommit(true);
}
