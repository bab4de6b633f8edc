/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the rest of the mm makes of merged pages, one thread at a time: unmapping, moves of pages
 * and of areas, reclaim and swap.
 */
#include <errno.h>

#include "notifier/reclaim.h"
#include "tests/support/ksm_fixture.h"
#include "tests/support/test.h"

/* ---- with the rest of the mm ---- */

TEST(ksm, unmapped_pages_are_forgotten)
{
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 6);
	for (uint64_t n = 0; n < 6; n++)
		fill_page(mm, n, n / 2);
	expect_eq(scan_settled(&h), 3);
	expect_shared(&h, 3, 3);
	expect_eq(mm_munmap(mm, area_page(0), 2 * P), 0);
	expect_eq(mm_madvise(mm, area_page(2), P, MM_MADV_DONTNEED), 0);
	expect_shared(&h, 2, 1);
	expect_eq(used_frames(&h), 2);
	/* Equal to one that is gone: the two make a new one. */
	expect_eq(mm_mmap(mm, area_page(0), 2 * P, RW, NULL, 0), 0);
	expect_eq(mm_madvise(mm, area_page(0), 2 * P, MM_MADV_MERGEABLE), 0);
	fill_page(mm, 0, 0);
	expect_eq(scan_settled(&h), 0);
	expect_page(mm, 2, 0);
	expect_eq(scan_settled(&h), 1);
	expect(pfn_of(mm, 0) == pfn_of(mm, 2));
	expect_eq(stats_of(&h).pages_unshared + stats_of(&h).pages_volatile, 0);
	mmput(mm);
	host_done(&h);
}

static void drop_page(struct mm_struct *mm)
{
	expect_eq(mm_zap_range(mm, area_page(0), P), 1);
}

static void drop_area(struct mm_struct *mm)
{
	expect_eq(mm_munmap(mm, area_page(0), P), 0);
}

static void take_advice_back(struct mm_struct *mm)
{
	expect_eq(mm_madvise(mm, area_page(0), P, MM_MADV_UNMERGEABLE), 0);
}

static void write_other(struct mm_struct *mm)
{
	fill_page(mm, 0, 8);
}

static void move_page(struct mm_struct *mm)
{
	expect_eq(migrate_frame(mm_phys(mm), pfn_of(mm, 0)), 0);
}

/* A page that waits in the tree for its equal is looked for again when that comes. */
TEST(ksm, what_waits_in_the_tree_may_be_gone)
{
	static const struct {
		void (*act)(struct mm_struct *mm);
		long merged;
		uint64_t frames;
	} cases[] = {{drop_page, 0, 1},
		     {drop_area, 0, 1},
		     {take_advice_back, 0, 2},
		     {write_other, 0, 2},
		     {move_page, 1, 1}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mm_struct *mm;
		struct host h;

		host_init(&h, 16);
		mm = mergeable_mm(&h, 2);
		fill_page(mm, 0, 7);
		fill_page(mm, 1, 7);
		expect_eq(scan_round(&h), 0);
		expect_eq(ksm_scan(h.ksm, 1), 0);
		cases[i].act(mm);
		expect_eq(ksm_scan(h.ksm, 1), cases[i].merged);
		expect_eq(used_frames(&h), cases[i].frames);
		if (!cases[i].merged)
			expect_own(&h, pfn_of(mm, 1));
		expect_page(mm, 1, 7);
		mmput(mm);
		host_done(&h);
	}
}

TEST(ksm, merged_pages_move)
{
	struct counting_notifier cn = {0};
	struct mm_struct *a, *b, *child;
	struct host h;
	pfn_t pfn;

	host_init(&h, 16);
	a = mergeable_mm(&h, 3);
	b = mergeable_mm(&h, 2);
	fill_page(a, 0, 7);
	fill_page(a, 1, 7);
	fill_page(b, 1, 7);
	expect_eq(scan_settled(&h), 2);
	expect_eq(mm_fork(a, &child), 0);
	pfn = pfn_of(a, 0);
	expect_merged(&h, pfn, 5);
	counting_register(&cn, a);
	expect_eq(mm_migrate_range(a, area_page(0), 3 * P), 1);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_MIGRATE]), 2); /* page 0, then page 1 */
	expect(pfn_of(a, 0) != pfn);
	pfn = pfn_of(a, 0);
	expect(pfn == pfn_of(a, 1) && pfn == pfn_of(b, 1));
	expect(pfn == pfn_of(child, 0) && pfn == pfn_of(child, 1));
	expect_merged(&h, pfn, 5);
	expect_eq(migrate_frame(h.phys, pfn), 0);
	pfn = pfn_of(child, 1);
	expect_merged(&h, pfn, 5);
	expect_shared(&h, 1, 4);
	/* Where it is now is where others are merged into. */
	fill_page(b, 0, 7);
	expect_eq(scan_round(&h), 1);
	expect(pfn_of(b, 0) == pfn);
	expect_page(b, 0, 7);
	/* Held, it stays. */
	expect(phys_get_unless_zero(h.phys, pfn));
	expect_eq(migrate_frame(h.phys, pfn), -EBUSY);
	phys_put(h.phys, pfn);
	expect_merged(&h, pfn, 6);
	mmu_notifier_unregister(&cn.mn, a);
	mmput(a);
	mmput(b);
	mmput(child);
	host_done(&h);
}

TEST(ksm, an_area_moves_with_its_merged_pages)
{
	struct mm_struct *mm;
	hva_t to = area_page(20);
	struct host h;
	pfn_t pfn;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 4);
	fill_page(mm, 0, 7);
	fill_page(mm, 3, 7);
	expect_eq(scan_settled(&h), 1);
	pfn = pfn_of(mm, 0);
	expect_eq(mm_mremap(mm, area_page(2), 2 * P, 2 * P, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &to),
		  0);
	expect_eq(pfn_of(mm, 21), pfn);
	/* The site is still that of the page, wherever it is. */
	expect_eq(scan_settled(&h), 0);
	expect_eq(migrate_frame(h.phys, pfn), 0);
	expect(pfn_of(mm, 21) != pfn && pfn_of(mm, 21) == pfn_of(mm, 0));
	expect_merged(&h, pfn_of(mm, 0), 2);
	fill_page(mm, 21, 8);
	expect_page(mm, 0, 7);
	expect_page(mm, 21, 8);
	mmput(mm);
	host_done(&h);
}

/* A site is where the page may be mapped; one that was left by everybody goes in the next round. */
TEST(ksm, sites_that_nobody_uses_go)
{
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 8);
	for (uint64_t n = 0; n < 8; n++)
		fill_page(mm, n, 1);
	expect_eq(scan_settled(&h), 7);
	for (uint64_t n = 1; n < 7; n++)
		fill_page(mm, n, n + 10);
	scan_round(&h);
	expect_eq(sites_of(&h, pfn_of(mm, 0)), 2);
	expect_eq(migrate_frame(h.phys, pfn_of(mm, 0)), 0);
	expect_merged(&h, pfn_of(mm, 7), 2);
	mmput(mm);
	host_done(&h);
}

/* ---- with reclaim ---- */

static bool goes_out(struct host *h, pfn_t pfn)
{
	bool out;

	expect(phys_get_unless_zero(h->phys, pfn));
	out = reclaim_page(h->phys, pfn);
	phys_put(h->phys, pfn);
	return out;
}

/* Merged pages stay; what was out is looked at when it is back. */
TEST(ksm, reclaim_passes_merged_pages_by)
{
	struct mm_struct *mm;
	struct host h;

	host_init_swap(&h, 16, 16);
	mm = mergeable_mm(&h, 3);
	for (uint64_t n = 0; n < 3; n++)
		fill_page(mm, n, 1);
	expect(goes_out(&h, pfn_of(mm, 2)));
	expect_eq(scan_settled(&h), 1);
	expect(!goes_out(&h, pfn_of(mm, 0)));
	expect_eq(phys_reclaim(h.phys, 16), 0);
	expect_merged(&h, pfn_of(mm, 0), 2);
	expect(pfn_of(mm, 2) == INVALID_PFN);
	expect_page(mm, 2, 1);
	expect_eq(scan_round(&h), 1);
	expect_merged(&h, pfn_of(mm, 2), 3);
	/* A copy may go again. */
	fill_page(mm, 1, 2);
	expect(goes_out(&h, pfn_of(mm, 1)));
	expect_page(mm, 1, 2);
	mmput(mm);
	host_done_swap(&h);
}

/*
 * A page that is back for the parent, while the child has it in the swap file, may give its place
 * to a merged page, but become none: the child is to find what it was.
 */
TEST(ksm, a_page_that_others_have_in_the_swap_file)
{
	struct mm_struct *mm, *child;
	struct host h;
	pfn_t pfn;

	host_init_swap(&h, 16, 16);
	mm = mergeable_mm(&h, 4);
	fill_page(mm, 0, 1);
	expect(goes_out(&h, pfn_of(mm, 0)));
	expect_eq(mm_fork(mm, &child), 0);
	expect_page(mm, 0, 1);
	pfn = pfn_of(mm, 0);
	expect(frame_test(pfn_to_frame(h.phys, pfn), FRAME_SWAPCACHE));
	fill_page(mm, 1, 1);
	/* The one that is looked at first would be the merged page. */
	expect_eq(scan_settled(&h), 0);
	expect(frame_anon_vma(pfn_to_frame(h.phys, pfn)));
	expect_page(child, 0, 1);
	expect(pfn_of(child, 0) == pfn);
	expect_eq(scan_settled(&h), 1); /* nobody has it out any more */
	expect_merged(&h, pfn, 3);
	mmput(child);

	fill_page(mm, 0, 2);
	expect(goes_out(&h, pfn_of(mm, 0)));
	expect_eq(mm_fork(mm, &child), 0);
	expect_page(mm, 0, 2);
	expect(frame_test(pfn_to_frame(h.phys, pfn_of(mm, 0)), FRAME_SWAPCACHE));
	fill_page(mm, 2, 2);
	fill_page(mm, 3, 2);
	expect_eq(scan_settled(&h), 1); /* the two, and then that one */
	expect_eq(scan_round(&h), 1);
	expect(pfn_of(mm, 0) == pfn_of(mm, 2));
	expect_merged(&h, pfn_of(mm, 0), 3);
	expect_page(child, 0, 2);
	expect_eq(scan_round(&h), 1);
	expect_merged(&h, pfn_of(child, 0), 4);
	mmput(child);
	mmput(mm);
	host_done_swap(&h);
}

/* Given up, and equal to a page that was not: the two keep it. */
TEST(ksm, a_page_that_was_given_up)
{
	struct mm_struct *mm;
	struct host h;

	host_init_swap(&h, 16, 16);
	mm = mergeable_mm(&h, 2);
	fill_page(mm, 0, 1);
	fill_page(mm, 1, 1);
	expect_eq(mm_madvise(mm, area_page(0), P, MM_MADV_FREE), 0);
	expect(frame_test(pfn_to_frame(h.phys, pfn_of(mm, 0)), FRAME_LAZYFREE));
	expect_eq(scan_settled(&h), 1);
	expect(!frame_test(pfn_to_frame(h.phys, pfn_of(mm, 0)), FRAME_LAZYFREE));
	expect_eq(phys_reclaim(h.phys, 16), 0);
	expect_page(mm, 0, 1);
	expect_page(mm, 1, 1);
	mmput(mm);
	host_done_swap(&h);
}
