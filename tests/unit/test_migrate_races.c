/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migration against everything at once. The oracles are exact sums: an increment or a store that
 * went into a frame while that was copied, or after, is missing at the end.
 */
#include <errno.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"

#define BASE 0x7f0000000000UL

/* Pages [0, SHARED) are shared by both mms, [SHARED, SHARED + PRIVATE) private in each. */
#define SHARED	   24
#define PRIVATE	   24
#define NR_PAGES   (SHARED + PRIVATE)
#define NR_FRAMES  (SHARED + 2 * PRIVATE + 80)
#define NR_WRITERS 2

static hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

struct storm {
	struct phys *phys;
	struct address_space *mapping;
	struct mm_struct *mm[2];
	struct counting_notifier cn[2];
	atomic_t next_writer, stop;
	uint64_t goal; /* increments of each writer */
	atomic64_t increments, by_range, by_frame, by_place, busy, zapped;
};

/*
 * Word 0 of each page is a counter that all writers increment. Each writer has a word and a block
 * of its own in each shared page, through either mm, and in the private pages of its mm: what it
 * stored there it must read. A block takes long enough to write that moves of its page begin
 * meanwhile.
 */
#define BLOCK_WORDS 200

static hva_t own_word(uint64_t p, int writer)
{
	return page(p) + 8 * (1 + writer);
}

static hva_t own_block(uint64_t p, int writer)
{
	return page(p) + 8 * (8 + BLOCK_WORDS * writer);
}

static void expect_block(struct mm_struct *mm, hva_t block, uint64_t stamp)
{
	uint64_t words[BLOCK_WORDS];

	expect_eq(mm_read(mm, block, words, sizeof(words)), 0);
	for (int i = 0; i < BLOCK_WORDS; i++)
		expect_eq(words[i], stamp ? stamp + i : 0);
}

static void writer(void *arg)
{
	struct storm *s = arg;
	int me = atomic_fetch_add(1, &s->next_writer);
	uint64_t own[NR_PAGES] = {0}, words[BLOCK_WORDS];

	for (uint64_t n = 0; n < s->goal; n++) {
		uint64_t p = (n * 7 + me) % NR_PAGES;
		struct mm_struct *mm = s->mm[p < SHARED ? n & 1 : (uint64_t)me];

		test_increment(mm, page(p));
		expect_eq(test_read(mm, own_word(p, me)), own[p]);
		expect_block(mm, own_block(p, me), own[p]);
		own[p] = n + 1;
		test_write(mm, own_word(p, me), own[p]);
		for (int i = 0; i < BLOCK_WORDS; i++)
			words[i] = own[p] + i;
		expect_eq(mm_write(mm, own_block(p, me), words, sizeof(words)), 0);
	}
	for (uint64_t p = 0; p < NR_PAGES; p++) {
		expect_eq(test_read(s->mm[me], own_word(p, me)), own[p]);
		expect_block(s->mm[me], own_block(p, me), own[p]);
	}
	atomic64_add(s->goal, &s->increments);
}

static void migrate_ranges(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		long moved =
			mm_migrate_range(s->mm[n & 1], page(n % 8), (NR_PAGES - 8) * PAGE_SIZE);

		expect_ge(moved, 0);
		atomic64_add(moved, &s->by_range);
	}
}

static void migrate_frames(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		int ret = migrate_frame(s->phys, n * 31 % NR_FRAMES);

		expect(ret == 0 || ret == -EBUSY || ret == -ENOENT || ret == -ENOMEM);
		atomic64_add(ret == 0, &s->by_frame);
		atomic64_add(ret == -EBUSY, &s->busy);
		ret = migrate_mapping_page(s->mapping, n % SHARED);
		expect(ret == 0 || ret == -EBUSY || ret == -ENOENT || ret == -ENOMEM);
		atomic64_add(ret == 0, &s->by_place);
	}
}

/* Only shared pages: a zap of private ones is meant to lose contents. */
static void zap_shared(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		long zapped = mm_zap_range(s->mm[n & 1], page(n % SHARED),
					   (SHARED - n % SHARED) * PAGE_SIZE);

		expect_ge(zapped, 0);
		atomic64_add(zapped, &s->zapped);
	}
}

static void check_sums(struct storm *s)
{
	uint64_t sum = 0;

	for (uint64_t p = 0; p < NR_PAGES; p++) {
		for (int i = 0; i < (p < SHARED ? 1 : 2); i++)
			sum += test_read(s->mm[i], page(p));
	}
	expect_eq(sum, atomic64_read(&s->increments));
	expect_eq(sum, NR_WRITERS * s->goal);
}

TEST(migrate_races, no_write_is_lost)
{
	struct storm s = {.phys = test_phys(NR_FRAMES), .goal = test_volume(50000)};
	void (*const disturbers[])(void *) = {migrate_ranges, migrate_frames, zap_shared};
	struct kthread threads[ARRAY_SIZE(disturbers)];

	s.mapping = test_mapping(s.phys, SHARED);
	for (int i = 0; i < 2; i++) {
		s.mm[i] = test_mm(s.phys);
		expect_eq(mm_mmap(s.mm[i], page(0), SHARED * PAGE_SIZE, RW, s.mapping, 0), 0);
		expect_eq(mm_mmap(s.mm[i], page(SHARED), PRIVATE * PAGE_SIZE, RW, NULL, 0), 0);
		counting_register(&s.cn[i], s.mm[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		expect_eq(kthread_run(&threads[i], "disturb", disturbers[i], &s), 0);
	test_threads(NR_WRITERS, writer, &s);
	/* Writers may be done before the others have begun; those go on until they did their share.
	 */
	while (atomic64_read(&s.by_range) < 500 || atomic64_read(&s.by_frame) < 100 ||
	       atomic64_read(&s.by_place) < 100 || atomic64_read(&s.zapped) < 500)
		for (uint64_t p = 0; p < SHARED; p++)
			test_read(s.mm[p & 1], page(p));
	atomic_set(&s.stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		kthread_join(&threads[i]);

	check_sums(&s);
	for (int i = 0; i < 2; i++) {
		counting_expect_paired(&s.cn[i]);
		expect_ge(s.cn[i].starts[MMU_NOTIFY_MIGRATE].counter, 10);
		mmu_notifier_unregister(&s.cn[i].mn, s.mm[i]);
		mmput(s.mm[i]);
	}
	expect_eq(phys_nr_free(s.phys), NR_FRAMES - SHARED);
	address_space_put(s.mapping);
	test_phys_done(s.phys);
}

/* Private pages come and go under migration: each touch finds zero or what it stored itself. */
static void zap_private(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; n < s->goal; n++) {
		uint64_t p = n % PRIVATE, value;

		test_write(s->mm[0], page(p), n + 1);
		value = test_read(s->mm[0], page(p));
		expect_eq(value, n + 1);
		expect_eq(mm_zap_range(s->mm[0], page(p), PAGE_SIZE), 1);
		expect_eq(test_read(s->mm[0], page(p)), 0);
	}
	atomic_set(&s->stop, 1);
}

static void migrate_private(void *arg)
{
	struct storm *s = arg;

	while (!atomic_read(&s->stop)) {
		atomic64_add(mm_migrate_range(s->mm[0], page(0), PRIVATE * PAGE_SIZE),
			     &s->by_range);
		for (pfn_t pfn = 0; pfn < phys_nr_frames(s->phys); pfn++)
			atomic64_add(migrate_frame(s->phys, pfn) == 0, &s->by_frame);
	}
}

TEST(migrate_races, zapped_private_pages_do_not_come_back)
{
	struct storm s = {.phys = test_phys(5 * PRIVATE), .goal = test_volume(20000)};
	struct kthread threads[2];

	s.mm[0] = test_mm(s.phys);
	expect_eq(mm_mmap(s.mm[0], page(0), PRIVATE * PAGE_SIZE, RW, NULL, 0), 0);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "migrate", migrate_private, &s), 0);
	zap_private(&s);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	expect_ge(atomic64_read(&s.by_range) + atomic64_read(&s.by_frame), 100);
	mmput(s.mm[0]);
	test_phys_done(s.phys);
}

/*
 * An mm exits, and its object's last put comes, while its frames are on the move: by number, which
 * needs no reference on either. Nothing leaks, and nothing is used after it was freed (sanitizers).
 */
TEST(migrate_races, exit_and_last_put)
{
	struct storm s = {.phys = test_phys(NR_FRAMES)};
	struct kthread threads[2];
	int rounds = test_volume(200);

	/* The movers' mapping calls need an object that stays. */
	s.mapping = test_mapping(s.phys, SHARED);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "migrate", migrate_frames, &s), 0);

	for (int round = 0; round < rounds || atomic64_read(&s.by_frame) < rounds; round++) {
		struct address_space *mapping = test_mapping(s.phys, SHARED);
		struct mm_struct *mm = test_mm(s.phys);

		expect_eq(mm_mmap(mm, page(0), SHARED * PAGE_SIZE, RW, mapping, 0), 0);
		expect_eq(mm_mmap(mm, page(SHARED), PRIVATE * PAGE_SIZE, RW, NULL, 0), 0);
		for (uint64_t p = 0; p < NR_PAGES; p++)
			test_write(mm, page(p), p + 1);
		if (round & 1)
			address_space_put(mapping);
		mmput(mm);
		if (!(round & 1))
			address_space_put(mapping);
	}
	atomic_set(&s.stop, 1);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	address_space_put(s.mapping);
	test_phys_done(s.phys);
}
