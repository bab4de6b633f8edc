// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Reclaim against all that goes on with a page at the same time. The oracles are exact: what a
 * thread wrote it reads, what all incremented adds up, and nothing is left in the end.
 */
#include <errno.h>

#include "tests/support/step.h"
#include "tests/support/swap_fixture.h"

/* ---- a write, and a swap-out at any instruction of it ---- */

struct stepped {
	struct step step;
	struct mm_struct *mm, *child;
	unsigned int at;
	bool tried, out;
	uint64_t seen;
};

static bool in_lockdep(void)
{
#ifdef CONFIG_LOCKDEP
	/* Not within lock checking, which would not see our locks. */
	return current_thread()->lockdep_busy;
#else
	return false;
#endif
}

static void out_here(struct step *step)
{
	struct stepped *s = step->arg;

	if (s->tried || step->nr < s->at || in_lockdep())
		return;
	s->at = step->nr;
	s->tried = step->over = true;
	s->out = page_goes_out(s->mm, page(0));
	if (!s->child)
		return;
	expect_eq(mm_fork(s->mm, &s->child), 0);
	s->seen = test_read(s->child, page(0));
}

/* With the freeze and the look at pins taken out of page_out.c the store is lost. */
TEST(swap_races, a_write_that_is_under_way)
{
	struct stepped s = {.step = {.at_each = out_here, .arg = &s}};
	uint64_t word = 2;
	unsigned int nr_out = 0, nr_stayed = 0;
	struct phys *phys;

	step_skip();
	phys = test_swap_phys(8, 8);
	s.mm = test_mm(phys);
	expect_eq(mm_mmap(s.mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	do {
		test_write(s.mm, page(0), 1);
		s.tried = false;
		step_begin(&s.step);
		mm_write(s.mm, page(0), &word, sizeof(word));
		step_end();
		expect_eq(test_read(s.mm, page(0)), 2);
		nr_out += s.tried && s.out;
		nr_stayed += s.tried && !s.out;
		s.at += test_long() ? 3 : 29;
	} while (s.tried);
	expect_ge(nr_out, 5);
	expect_ge(nr_stayed, 1);
	mmput(s.mm);
	test_swap_phys_done(phys);
}

/*
 * The same, and a fork right after the attempt: what the child sees first it sees for ever. With
 * the look at pins taken out of unmap_entry() it sees the store come later.
 */
TEST(swap_races, a_write_that_is_under_way_and_a_fork)
{
	struct stepped s = {.step = {.at_each = out_here, .arg = &s}};
	uint64_t word = 2;
	unsigned int nr[3] = {0};
	struct phys *phys;

	step_skip();
	phys = test_swap_phys(8, 8);
	s.mm = test_mm(phys);
	expect_eq(mm_mmap(s.mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	do {
		test_write(s.mm, page(0), 1);
		s.tried = false;
		s.child = s.mm; /* wanted */
		step_begin(&s.step);
		mm_write(s.mm, page(0), &word, sizeof(word));
		step_end();
		expect_eq(test_read(s.mm, page(0)), 2);
		if (s.tried) {
			expect_eq(test_read(s.child, page(0)), s.seen);
			nr[s.seen]++;
			mmput(s.child);
		}
		s.at += test_long() ? 3 : 29;
	} while (s.tried);
	expect_ge(nr[1], 5);
	expect_ge(nr[2], 1);
	mmput(s.mm);
	test_swap_phys_done(phys);
}

/* ---- a write that begins after reclaim looked for it ---- */

/* With the look at pins taken out of unmap_entry() the page becomes a swap entry, which the child
 * gets, too; and sees there what the parent stores. */
TEST(swap_races, a_write_that_begins_in_the_window)
{
	struct late_write late = {.phys = test_swap_phys(8, 8)};
	struct counting_notifier cn = {.on_start = begin_write, .arg = &late};
	struct mm_struct *mm = test_mm(late.phys), *child = NULL;
	uint64_t *word;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 1);
	counting_register(&cn, mm);
	expect(!page_goes_out(mm, page(0)));
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 1);
	cn.on_start = NULL;
	expect_eq(swap_used(late.phys), 0);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(test_read(child, page(0)), 1);
	word = phys_map(late.phys, late.pfn);
	WRITE_ONCE(*word, 2);
	frame_unpin(late.phys, late.pfn);
	expect_eq(test_read(child, page(0)), 1);
	expect_eq(test_read(mm, page(0)), 2);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(child);
	mmput(mm);
	test_swap_phys_done(late.phys);
}

/* ---- storms ---- */

/* Pages [0, SHARED) are of an object, in both mms; [SHARED, NR_PAGES) are private in each. */
#define SHARED	   24
#define PRIVATE	   24
#define NR_PAGES   (SHARED + PRIVATE)
#define NR_FRAMES  (SHARED + 2 * PRIVATE + 80)
#define NR_WRITERS 2

struct storm {
	struct phys *phys;
	struct address_space *mapping;
	struct mm_struct *mm[2];
	struct counting_notifier cn[2];
	atomic_t next_writer, stop;
	uint64_t goal;
	atomic64_t increments, out, singly, moved, zapped;
};

/*
 * Word 0 of each page is a counter that all increment. Each writer has a word and a block of its
 * own in each page; a block takes long enough to write that its page begins to go meanwhile.
 */
#define BLOCK_WORDS 200

static hva_t own_word(uint64_t p, int writer)
{
	return page(p) + 8 * (1 + (hva_t)writer);
}

static hva_t own_block(uint64_t p, int writer)
{
	return page(p) + 8 * (8 + BLOCK_WORDS * (hva_t)writer);
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
	atomic64_add((int64_t)s->goal, &s->increments);
}

static void reclaim(void *arg)
{
	struct storm *s = arg;

	while (!atomic_read(&s->stop))
		atomic64_add((int64_t)phys_reclaim(s->phys, 16), &s->out);
}

static void reclaim_singly(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++)
		atomic64_add(page_goes_out(s->mm[n & 1], page(n % NR_PAGES)), &s->singly);
}

static void move(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++) {
		long moved = mm_migrate_range(s->mm[n & 1], page(0), NR_PAGES * PAGE_SIZE);
		int ret = migrate_frame(s->phys, n * 31 % NR_FRAMES);

		expect_ge(moved, 0);
		expect(ret == 0 || ret == -EBUSY || ret == -ENOENT || ret == -ENOMEM);
		atomic64_add(moved + !ret, &s->moved);
	}
}

/* Only pages of the object: a zap of private ones is meant to lose contents. */
static void zap_shared(void *arg)
{
	struct storm *s = arg;

	for (uint64_t n = 0; !atomic_read(&s->stop); n++)
		atomic64_add(mm_zap_range(s->mm[n & 1], page(n % SHARED),
					  (SHARED - n % SHARED) * PAGE_SIZE),
			     &s->zapped);
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

TEST(swap_races, no_write_is_lost)
{
	struct storm s = {.phys = test_swap_phys(NR_FRAMES, 4 * NR_PAGES),
			  .goal = test_volume(6000)};
	void (*const disturbers[])(void *) = {reclaim, reclaim_singly, move, zap_shared};
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
	/* Writers may be done before the others have begun. */
	while (atomic64_read(&s.out) < 500 || atomic64_read(&s.singly) < 100 ||
	       atomic64_read(&s.moved) < 100 || atomic64_read(&s.zapped) < 100)
		for (uint64_t p = 0; p < NR_PAGES; p++)
			test_read(s.mm[p & 1], page(p));
	atomic_set(&s.stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(disturbers); i++)
		kthread_join(&threads[i]);

	check_sums(&s);
	for (int i = 0; i < 2; i++) {
		counting_expect_paired(&s.cn[i]);
		mmu_notifier_unregister(&s.cn[i].mn, s.mm[i]);
		mmput(s.mm[i]);
	}
	address_space_put(s.mapping);
	test_swap_phys_done(s.phys);
}

/* Private pages come and go under reclaim: each touch finds zero, or what it stored itself. */
static void zap_private(struct storm *s)
{
	for (uint64_t n = 0;
	     n < s->goal || atomic64_read(&s->out) + atomic64_read(&s->singly) < 100; n++) {
		uint64_t p = n % NR_PAGES;

		test_write(s->mm[0], page(p), n + 1);
		expect_eq(test_read(s->mm[0], page(p)), n + 1);
		expect_eq(mm_zap_range(s->mm[0], page(p), PAGE_SIZE), 1);
		expect_eq(test_read(s->mm[0], page(p)), 0);
	}
	atomic_set(&s->stop, 1);
}

TEST(swap_races, zapped_private_pages_do_not_come_back)
{
	struct storm s = {.phys = test_swap_phys(5 * NR_PAGES, 2 * NR_PAGES),
			  .goal = test_volume(10000)};
	struct kthread threads[2];

	s.mm[0] = s.mm[1] = test_mm(s.phys);
	expect_eq(mm_mmap(s.mm[0], page(0), NR_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(kthread_run(&threads[0], "reclaim", reclaim, &s), 0);
	expect_eq(kthread_run(&threads[1], "reclaim", reclaim_singly, &s), 0);
	zap_private(&s);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	mmput(s.mm[0]);
	test_swap_phys_done(s.phys);
}

/* Address spaces and objects end while their pages are on the way out. Nothing leaks, nothing is
 * used after it was freed (sanitizers). */
TEST(swap_races, exit_and_last_put)
{
	struct storm s = {.phys = test_swap_phys(NR_FRAMES, 4 * NR_PAGES)};
	uint64_t rounds = test_volume(100);
	struct kthread threads[2];

	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "reclaim", reclaim, &s), 0);
	for (uint64_t round = 0; round < rounds || atomic64_read(&s.out) < 100; round++) {
		struct address_space *mapping = test_mapping(s.phys, SHARED);
		struct mm_struct *mm = test_mm(s.phys);

		expect_eq(mm_mmap(mm, page(0), SHARED * PAGE_SIZE, RW, mapping, 0), 0);
		expect_eq(mm_mmap(mm, page(SHARED), PRIVATE * PAGE_SIZE, RW, NULL, 0), 0);
		for (uint64_t p = 0; p < NR_PAGES; p++)
			test_write(mm, page(p), p + 1);
		for (uint64_t p = 0; p < NR_PAGES; p += 3)
			expect_eq(test_read(mm, page(p)), p + 1);
		if (round & 1)
			address_space_put(mapping);
		mmput(mm);
		if (!(round & 1))
			address_space_put(mapping);
	}
	atomic_set(&s.stop, 1);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	test_swap_phys_done(s.phys);
}
