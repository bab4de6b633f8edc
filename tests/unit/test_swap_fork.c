// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Swap and forks: a slot has as many users as there are entries for it, each of the family sees
 * what is its own, and a write goes to a page that nobody else has.
 */
#include <errno.h>

#include "tests/support/park.h"
#include "tests/support/swap_fixture.h"

#define NR_PAGES 4

static struct mm_struct *test_fork(struct mm_struct *mm)
{
	struct mm_struct *child = NULL;

	expect_eq(mm_fork(mm, &child), 0);
	return child;
}

static void stamp(struct mm_struct *mm, uint64_t stamp)
{
	for (uint64_t i = 0; i < NR_PAGES; i++)
		test_write(mm, page(i), stamp + i);
}

static void expect_stamp(struct mm_struct *mm, uint64_t stamp)
{
	for (uint64_t i = 0; i < NR_PAGES; i++)
		expect_eq(test_read(mm, page(i)), stamp + i);
}

static uint32_t users_of(struct mm_struct *mm, hva_t hva)
{
	return swap_users(mm_phys(mm), (uint32_t)pte_pfn(entry_of(mm, hva)));
}

TEST(swap_fork, of_what_is_out)
{
	struct phys *phys = test_swap_phys(16, 16);
	struct mm_struct *mm = test_mm(phys), *child;

	expect_eq(mm_mmap(mm, page(0), NR_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	stamp(mm, 10);
	for (uint64_t i = 0; i < NR_PAGES; i++)
		expect(page_goes_out(mm, page(i)));
	child = test_fork(mm);
	expect_eq(swap_used(phys), NR_PAGES);
	expect_eq(users_of(mm, page(0)), 2);
	/* The first to come has a page that it may not write yet, in the cache; the second has it,
	 * too. */
	expect_eq(test_read(mm, page(0)), 10);
	expect(!pte_allows(entry_of(mm, page(0)), true));
	expect_eq(users_of(child, page(0)), 1);
	expect_eq(test_read(child, page(0)), 10);
	expect_eq(mm_lookup_pfn(mm, page(0)), mm_lookup_pfn(child, page(0)));
	expect_eq(swap_used(phys), NR_PAGES - 1);
	/* A write while the other still is out goes to a copy. */
	test_write(child, page(1), 21);
	expect_eq(users_of(mm, page(1)), 1);
	expect_eq(test_read(mm, page(1)), 11);
	/* The last one has it for itself. */
	expect_eq(mm_zap_range(mm, page(2), PAGE_SIZE), 1);
	expect_eq(test_read(child, page(2)), 12);
	expect(pte_allows(entry_of(child, page(2)), true));
	stamp(child, 20);
	stamp(mm, 30);
	expect_stamp(child, 20);
	expect_stamp(mm, 30);
	expect_eq(swap_used(phys), 0);
	mmput(mm);
	expect_stamp(child, 20);
	mmput(child);
	test_swap_phys_done(phys);
}

/* A page of two mms goes out of both; one that came back into one of them does not go twice. */
TEST(swap_fork, then_out)
{
	struct phys *phys = test_swap_phys(16, 16);
	struct mm_struct *mm = test_mm(phys), *child;
	struct counting_notifier cn = {0}, cn2 = {0};
	struct reclaim_stats stats;

	expect_eq(mm_mmap(mm, page(0), NR_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	stamp(mm, 10);
	child = test_fork(mm);
	counting_register(&cn, mm);
	counting_register(&cn2, child);
	expect(page_goes_out(mm, page(0)));
	expect_eq(users_of(mm, page(0)), 2);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 1);
	expect_eq(atomic64_read(&cn2.starts[MMU_NOTIFY_CLEAR]), 1);
	expect_eq(swap_used(phys), 1);
	/* Read back by one, and out again: the slot still has it, so nothing is written. */
	expect_eq(test_read(mm, page(0)), 10);
	expect_eq(swap_used(phys), 1);
	expect(page_goes_out(mm, page(0)));
	expect_eq(users_of(child, page(0)), 2);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_out, 1);
	expect_eq(stats.reclaimed, 2);
	expect_stamp(child, 10);
	expect_stamp(mm, 10);
	test_write(mm, page(0), 50);
	expect_eq(test_read(child, page(0)), 10);
	mmu_notifier_unregister(&cn.mn, mm);
	mmu_notifier_unregister(&cn2.mn, child);
	mmput(child);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* A cached page that one mm maps, while the other has the swap entry: who writes gets a copy, until
 * the entry is gone. */
TEST(swap_fork, a_write_to_what_another_has_out)
{
	struct phys *phys = test_swap_phys(16, 16);
	struct mm_struct *mm = test_mm(phys), *child;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), NR_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	stamp(mm, 10);
	child = test_fork(mm);
	for (uint64_t i = 0; i < 2; i++) {
		expect(page_goes_out(mm, page(i)));
		expect_eq(test_read(mm, page(i)), 10 + i);
		pfn = mm_lookup_pfn(mm, page(i));
		if (i == 1)
			expect_eq(mm_zap_range(child, page(i), PAGE_SIZE), 1);
		test_write(mm, page(i), 70);
		/* With nobody else the page is written where it is. */
		expect_eq(mm_lookup_pfn(mm, page(i)) == pfn, i == 1);
	}
	expect_eq(test_read(child, page(0)), 10);
	mmput(child);
	mmput(mm);
	test_swap_phys_done(phys);
}

/*
 * The child's entry, the last to name the slot, is gone, but whoever took it has not come to the
 * cached copy yet: the ladder in mm_cow.c. If the page were written to where it is, in the cache,
 * swap-out would not write it again, and the store would be lost.
 */
TEST(swap_fork, a_write_while_the_last_user_goes)
{
	struct phys *phys = test_swap_phys(16, 16);
	struct mm_struct *mm = test_mm(phys), *child;
	uint32_t slot;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 10);
	child = test_fork(mm);
	expect(page_goes_out(mm, page(0)));
	expect_eq(test_read(mm, page(0)), 10);
	pfn = mm_lookup_pfn(mm, page(0));
	slot = (uint32_t)pte_pfn(entry_of(child, page(0)));
	/* The first half of swap_free(). */
	swap_dup(phys, slot);
	expect_eq(mm_zap_range(child, page(0), PAGE_SIZE), 1);
	expect_eq(swap_put(phys, slot), pfn);
	test_write(mm, page(0), 11);
	expect_eq(mm_lookup_pfn(mm, page(0)), pfn);
	expect(page_goes_out(mm, page(0)));
	expect_eq(test_read(mm, page(0)), 11);
	mmput(child);
	mmput(mm);
	test_swap_phys_done(phys);
}

/*
 * A page in the cache is referenced by a reader of the child's when the parent comes for it: the
 * ladder in mm_swap.c. Without the look at the references the parent would write to it.
 */
TEST(swap_fork, a_reader_from_before)
{
	struct phys *phys = test_swap_phys(16, 16);
	struct mm_struct *mm = test_mm(phys), *child;
	uint64_t *seen;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 10);
	child = test_fork(mm);
	pfn = mm_lookup_pfn(child, page(0));
	phys_get(phys, pfn); /* as mm_read() of the child has it */
	seen = phys_map(phys, pfn);
	expect(!page_goes_out(mm, page(0)));
	expect_eq(mm_munmap(child, page(0), PAGE_SIZE), 0);
	test_write(mm, page(0), 11);
	expect_eq(READ_ONCE(*seen), 10);
	expect_ne(mm_lookup_pfn(mm, page(0)), pfn);
	phys_put(phys, pfn);
	mmput(child);
	mmput(mm);
	test_swap_phys_done(phys);
}

/* ---- forks against reclaim ---- */

struct storm {
	struct phys *phys;
	struct mm_struct *mm;
	atomic_t stop;
	atomic64_t out;
};

static void reclaim(void *arg)
{
	struct storm *s = arg;

	while (!atomic_read(&s->stop))
		atomic64_add((int64_t)phys_reclaim(s->phys, 8), &s->out);
}

/* The parent writes, forks, writes again; each child reads what was there at its fork, writes its
 * own, and reads that, while pages of both go out and come in. */
struct passed_by {
	struct mm_struct *mm;
	pfn_t pfn;
	bool out;
};

static void let_it_out(void *arg)
{
	struct passed_by *p = arg;

	mm_unpin_page(p->mm, p->pfn, true);
	p->out = page_goes_out(p->mm, page(1));
}

static void at_the_end_of_forks_window(struct counting_notifier *cn,
				       const struct mmu_notifier_range *range)
{
	struct passed_by *p = cn->arg;
	struct kthread thread;

	if (range->event != MMU_NOTIFY_PROTECTION_PAGE || p->out)
		return;
	/* Not on this thread, which is in a window. */
	expect_eq(kthread_run(&thread, "page out", let_it_out, p), 0);
	kthread_join(&thread);
}

/*
 * The fork passes a pinned page by; it is unpinned, and leaves memory, before the fork comes back
 * for it: then it is shared as what it is by then, a slot of the swap file.
 *
 *   fork					reclaim
 *   ----					-------
 *   the page is pinned: later
 *						unpinned; out: the entry names a slot
 *   comes back: another look, not a copy of
 *     a page that is not there
 */
TEST(swap_fork, passed_by_then_out)
{
	struct counting_notifier cn = {.on_end = at_the_end_of_forks_window};
	struct phys *phys = test_swap_phys(32, 16);
	struct passed_by p = {.mm = test_mm(phys)};
	struct mm_struct *child = NULL;

	cn.arg = &p;
	expect_eq(mm_mmap(p.mm, page(0), 3 * PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t n = 0; n < 3; n++)
		test_write(p.mm, page(n), n + 1);
	expect_eq(mm_pin_page(p.mm, page(1), true, &p.pfn), 0);
	counting_register(&cn, p.mm);
	expect_eq(mm_fork(p.mm, &child), 0);
	expect(p.out);
	expect(pte_swap(entry_of(p.mm, page(1))) && pte_swap(entry_of(child, page(1))));
	expect_eq(swap_used(phys), 1);
	for (uint64_t n = 0; n < 3; n++)
		expect_eq(test_read(child, page(n)), n + 1);
	mmu_notifier_unregister(&cn.mn, p.mm);
	mmput(child);
	mmput(p.mm);
	test_swap_phys_done(phys);
}

TEST(swap_fork, against_swap_out)
{
	struct storm s = {.phys = test_swap_phys(256, 1024)};
	struct kthread threads[2];
	uint64_t rounds = test_volume(400);

	s.mm = test_mm(s.phys);
	expect_eq(mm_mmap(s.mm, page(0), NR_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&threads[i], "reclaim", reclaim, &s), 0);
	for (uint64_t round = 1; round < rounds || atomic64_read(&s.out) < 200; round++) {
		struct mm_struct *child, *grandchild;

		stamp(s.mm, 100 * round);
		child = test_fork(s.mm);
		stamp(s.mm, 100 * round + 10);
		grandchild = test_fork(child);
		expect_stamp(child, 100 * round);
		stamp(child, 100 * round + 20);
		expect_stamp(grandchild, 100 * round);
		expect_stamp(s.mm, 100 * round + 10);
		mmput(child);
		expect_stamp(grandchild, 100 * round);
		mmput(grandchild);
		expect_stamp(s.mm, 100 * round + 10);
	}
	atomic_set(&s.stop, 1);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	mmput(s.mm);
	test_swap_phys_done(s.phys);
}
