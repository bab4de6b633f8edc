/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Same-page merging, one thread at a time: what is merged, when, in which windows; what breaks it;
 * advice; mms that come and go. What the rest of the mm makes of a merged page is in test_ksm_mm.c,
 * the races are in test_ksm_races.c.
 */
#include <errno.h>

#include "tests/support/ksm_fixture.h"
#include "tests/support/test.h"

/* ---- merging ---- */

TEST(ksm, two_equal_pages_become_one)
{
	struct counting_notifier cn = {0};
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 4);
	counting_register(&cn, mm);
	fill_page(mm, 0, 7);
	fill_page(mm, 2, 7);
	fill_page(mm, 3, 8);
	expect_eq(used_frames(&h), 3);

	expect_eq(scan_round(&h), 0);
	expect_eq(stats_of(&h).pages_volatile, 3);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 0);
	expect_eq(scan_round(&h), 1);
	expect(pfn_of(mm, 0) == pfn_of(mm, 2));
	expect_merged(&h, pfn_of(mm, 0), 2);
	expect_own(&h, pfn_of(mm, 3));
	for (uint64_t n = 0; n < 3; n += 2)
		expect_eq(*pgtable_lookup(mm->pgtable, area_page(n)) & (PTE_WRITE | PTE_OWN), 0);
	expect_eq(used_frames(&h), 2);
	/* One takes the right to write, the other as well, and then its page. */
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 3);
	expect_eq(cn.end - cn.start, P);
	expect_shared(&h, 1, 1);
	expect_eq(stats_of(&h).pages_unshared, 1);
	expect_eq(stats_of(&h).pages_volatile, 0);
	expect_eq(stats_of(&h).pages_merged, 1);
	expect_eq(stats_of(&h).full_scans, 2);

	/* Nothing is left to do. */
	expect_eq(scan_settled(&h), 0);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 3);
	expect_page(mm, 0, 7);
	expect_page(mm, 1, 0);
	expect_page(mm, 2, 7);
	expect_page(mm, 3, 8);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	host_done(&h);
}

struct seen_windows {
	struct {
		enum mmu_notifier_event event;
		hva_t start, end;
		bool writable; /* the entry, when it began */
		bool blockable;
	} window[8];
	unsigned int nr;
};

static void note_window(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct seen_windows *seen = cn->arg;
	pte_t pte = pte_load(pgtable_lookup(range->mm->pgtable, range->start));

	expect(seen->nr < ARRAY_SIZE(seen->window));
	seen->window[seen->nr].event = range->event;
	seen->window[seen->nr].start = range->start;
	seen->window[seen->nr].end = range->end;
	seen->window[seen->nr].writable = pte & PTE_WRITE;
	seen->window[seen->nr].blockable = mmu_notifier_range_blockable(range);
	seen->nr++;
}

static void expect_window(const struct seen_windows *seen, unsigned int i, uint64_t n,
			  bool writable)
{
	expect(i < seen->nr);
	expect_eq(seen->window[i].event, MMU_NOTIFY_CLEAR);
	expect_eq(seen->window[i].start, area_page(n));
	expect_eq(seen->window[i].end, area_page(n + 1));
	expect_eq(seen->window[i].writable, writable);
	expect(seen->window[i].blockable);
}

/* What merges, at first sight and with a window less if it could not write anyway. */
TEST(ksm, windows_of_one_page)
{
	struct seen_windows seen = {0};
	struct counting_notifier cn = {.arg = &seen, .on_start = note_window};
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 4);
	fill_page(mm, 0, 7);
	fill_page(mm, 1, 7);
	counting_register(&cn, mm);
	expect_eq(scan_settled(&h), 1);
	expect_eq(seen.nr, 3);
	expect_window(&seen, 0, 0,
		      true); /* the first is in the tree, and becomes the merged page */
	expect_window(&seen, 1, 1, true);
	expect_window(&seen, 2, 1, false);

	fill_page(mm, 2, 7);
	fill_page(mm, 3, 7);
	expect_eq(mm_mprotect(mm, area_page(3), P, MM_PROT_READ), 0);
	expect_eq(seen.nr, 4);
	expect_eq(scan_round(&h), 2);
	expect_eq(seen.nr, 7);
	expect_window(&seen, 4, 2, true);
	expect_window(&seen, 5, 2, false);
	expect_window(&seen, 6, 3, false);
	expect_merged(&h, pfn_of(mm, 0), 4);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	host_done(&h);
}

TEST(ksm, three_across_two_mms)
{
	struct mm_struct *a, *b;
	struct host h;
	pfn_t pfn;

	host_init(&h, 16);
	a = mergeable_mm(&h, 4);
	b = mergeable_mm(&h, 4);
	fill_page(a, 0, 1);
	fill_page(a, 3, 1);
	fill_page(b, 1, 1);
	expect_eq(scan_settled(&h), 2);
	pfn = pfn_of(a, 0);
	expect(pfn == pfn_of(a, 3) && pfn == pfn_of(b, 1));
	expect_merged(&h, pfn, 3);
	expect_shared(&h, 1, 2);

	/* Each has its copy; the last has the merged page to itself, and still may not write to it.
	 */
	fill_page(a, 3, 2);
	expect_merged(&h, pfn, 2);
	fill_page(b, 1, 3);
	expect_merged(&h, pfn, 1);
	expect_shared(&h, 1, 0);
	fill_page(a, 0, 4);
	expect_shared(&h, 0, 0);
	expect(pfn_of(a, 0) != pfn);
	expect_own(&h, pfn_of(a, 0));
	expect_eq(used_frames(&h), 3);
	expect_page(a, 0, 4);
	expect_page(a, 3, 2);
	expect_page(b, 1, 3);
	mmput(a);
	mmput(b);
	host_done(&h);
}

/* Steps of one page: the cursor goes on where it was, and ends with the round. */
TEST(ksm, scans_page_by_page)
{
	struct mm_struct *mm;
	struct host h;
	long merged = 0;

	host_init(&h, 32);
	mm = mergeable_mm(&h, 16);
	for (uint64_t n = 0; n < 16; n += 2)
		fill_page(mm, n, n % 4);
	for (int i = 0; i < 8; i++)
		expect_eq(ksm_scan(h.ksm, 1), 0);
	expect_eq(stats_of(&h).full_scans, 0);
	expect_eq(ksm_scan(h.ksm, 1), 0); /* nothing is left of the round */
	expect_eq(stats_of(&h).full_scans, 1);
	for (int i = 0; i < 4; i++)
		merged += ksm_scan(h.ksm, 2);
	expect_eq(merged, 6);
	expect_shared(&h, 2, 6);
	expect_eq(ksm_scan(h.ksm, 0), 0);
	mmput(mm);
	expect_eq(scan_round(&h), 0);
	host_done(&h);
}

TEST(ksm, what_changes_is_left_alone)
{
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 8);
	mm = mergeable_mm(&h, 2);
	for (uint64_t i = 1; i < 5; i++) {
		fill_page(mm, 0, i);
		fill_page(mm, 1, i);
		expect_eq(scan_round(&h), 0);
		expect_eq(stats_of(&h).pages_volatile, 2);
	}
	expect_eq(scan_round(&h), 1);
	mmput(mm);
	host_done(&h);
}

TEST(ksm, what_is_not_merged)
{
	struct address_space *mapping;
	struct mm_struct *mm;
	struct host h;
	pfn_t pfn;

	host_init(&h, 32);
	mapping = test_mapping(h.phys, 4);
	mm = test_mm(h.phys);
	/* 0-4 shared, 4-8 private and showing the object, 8-12 private, unadvised from 10 on */
	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, mapping, 0), 0);
	expect_eq(mm_mmap_flags(mm, area_page(4), 4 * P, RW, MM_MAP_PRIVATE, mapping, 0), 0);
	expect_eq(mm_mmap(mm, area_page(8), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_madvise(mm, area_page(0), 10 * P, MM_MADV_MERGEABLE), 0);
	for (uint64_t n = 0; n < 4; n++)
		fill_page(mm, n, 5);
	for (uint64_t n = 4; n < 8; n++)
		expect_page(mm, n, 5);
	for (uint64_t n = 8; n < 12; n++)
		fill_page(mm, n, 5);
	expect_eq(scan_settled(&h), 1);
	expect_merged(&h, pfn_of(mm, 8), 2);
	expect_own(&h, pfn_of(mm, 10));
	/* A copy of the object's page is private. */
	fill_page(mm, 5, 5);
	expect_eq(scan_round(&h), 1);
	expect(pfn_of(mm, 5) == pfn_of(mm, 8));
	expect(pfn_of(mm, 4) == pfn_of(mm, 0));
	/* Whoever has pinned a page finds it where it was. */
	fill_page(mm, 6, 5);
	expect_eq(mm_pin_page(mm, area_page(6), true, &pfn), 0);
	expect_eq(scan_settled(&h), 0);
	expect(pfn_of(mm, 6) == pfn);
	fill_page(mm, 6, 6); /* in place, which the pin can see */
	expect(test_page_is(h.phys, pfn, 6));
	mm_unpin_page(mm, pfn, true);
	fill_page(mm, 6, 5);
	expect_eq(mm_pin_page(mm, area_page(6), false, &pfn), 0);
	expect_eq(scan_settled(&h), 0);
	expect(pfn_of(mm, 6) == pfn);
	mm_unpin_page(mm, pfn, false);
	expect_eq(scan_settled(&h), 1);
	mmput(mm);
	address_space_put(mapping);
	host_done(&h);
}

/* Others do not have to wait until it is not pinned any more: what is in the tree makes room. */
TEST(ksm, one_of_many_is_pinned)
{
	struct mm_struct *mm;
	struct host h;
	pfn_t pfn;

	for (uint64_t pinned = 0; pinned < 6; pinned++) {
		host_init(&h, 32);
		mm = mergeable_mm(&h, 12);
		/* Others in the tree, on both sides. */
		for (uint64_t n = 0; n < 6; n++) {
			fill_page(mm, n, 3);
			fill_page(mm, 6 + n, n < 3 ? n : n + 1);
		}
		expect_eq(mm_pin_page(mm, area_page(pinned), true, &pfn), 0);
		expect_eq(scan_settled(&h), 4);
		expect_shared(&h, 1, 4);
		expect(pfn_of(mm, pinned) == pfn);
		mm_unpin_page(mm, pfn, true);
		expect_eq(scan_round(&h), 1);
		expect_shared(&h, 1, 5);
		mmput(mm);
		host_done(&h);
	}
}

/* Nothing more is merged into a page that is mapped often enough; equals of it are merged anew. */
TEST(ksm, sharing_has_a_limit)
{
	const uint64_t nr = 2 * KSM_MAX_SHARING + 10;
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 2 * nr);
	mm = mergeable_mm(&h, nr);
	for (uint64_t n = 0; n < nr; n++)
		fill_page(mm, n, 1);
	expect_eq(scan_settled(&h), nr - 3);
	expect_shared(&h, 3, nr - 3);
	expect_eq(used_frames(&h), 3);
	for (uint64_t n = 0; n < nr; n++)
		expect_page(mm, n, 1);
	/* They move, and go. */
	expect_eq(mm_migrate_range(mm, area_page(0), nr * P), 3);
	expect_shared(&h, 3, nr - 3);
	for (uint64_t n = 0; n < nr; n++)
		fill_page(mm, n, n);
	expect_shared(&h, 0, 0);
	expect_eq(scan_settled(&h), 0);
	mmput(mm);
	host_done(&h);
}

/* ---- what breaks it ---- */

TEST(ksm, a_secondary_that_writes_gets_a_copy)
{
	struct mm_struct *mm;
	struct host h;
	bool writable;
	pfn_t pfn;

	host_init(&h, 8);
	mm = mergeable_mm(&h, 2);
	fill_page(mm, 0, 9);
	fill_page(mm, 1, 9);
	expect_eq(scan_settled(&h), 1);
	expect_eq(hva_to_pfn(mm, area_page(0), false, &pfn, &writable), 0);
	expect(!writable);
	expect(pfn == pfn_of(mm, 1));
	expect_eq(hva_to_pfn(mm, area_page(0), true, &pfn, &writable), 0);
	expect(writable);
	expect(pfn != pfn_of(mm, 1));
	expect(test_page_is(h.phys, pfn, 9));
	expect_merged(&h, pfn_of(mm, 1), 1);
	mmput(mm);
	host_done(&h);
}

TEST(ksm, parent_and_child)
{
	struct mm_struct *mm, *child;
	struct host h;
	pfn_t pfn;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 3);
	fill_page(mm, 0, 9);
	fill_page(mm, 1, 9);
	expect_eq(scan_settled(&h), 1);
	pfn = pfn_of(mm, 0);
	fill_page(mm, 2, 9);
	expect_eq(mm_fork(mm, &child), 0);
	expect_merged(&h, pfn, 4);
	/* The page that both have since the fork is merged for each by itself. */
	expect_eq(scan_round(&h), 2);
	expect_merged(&h, pfn, 6);
	expect_eq(used_frames(&h), 1);

	fill_page(child, 0, 10);
	fill_page(mm, 1, 11);
	expect_merged(&h, pfn, 4);
	expect_page(mm, 0, 9);
	expect_page(child, 0, 10);
	expect_page(mm, 1, 11);
	expect_page(child, 1, 9);
	/* What the child has it keeps, also to be found by reverse map. */
	mmput(mm);
	expect_merged(&h, pfn, 2);
	expect_eq(scan_round(&h), 0);
	expect_eq(migrate_frame(h.phys, pfn), 0);
	expect(pfn_of(child, 1) != pfn && pfn_of(child, 1) == pfn_of(child, 2));
	expect_merged(&h, pfn_of(child, 1), 2);
	expect_page(child, 1, 9);
	mmput(child);
	host_done(&h);
}

/* Forked, and then merged in one of the two: the other shares the merged page with it. */
TEST(ksm, a_page_of_two_that_is_merged_by_one)
{
	struct mm_struct *mm, *child;
	struct host h;

	host_init(&h, 16);
	mm = mergeable_mm(&h, 2);
	expect_eq(mm_fork(mm, &child), 0);
	mmput(mm);
	mm = child;
	fill_page(mm, 0, 3);
	fill_page(mm, 1, 3);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(mm_madvise(child, area_page(0), 2 * P, MM_MADV_UNMERGEABLE), 0);
	expect_eq(scan_settled(&h), 1);
	/* Which of the two became the merged page, both have it of that one. */
	expect(pfn_of(mm, 0) == pfn_of(mm, 1));
	expect_merged(&h, pfn_of(mm, 0), 3);
	expect_eq(used_frames(&h), 2);
	expect_eq(migrate_frame(h.phys, pfn_of(mm, 0)), 0);
	expect_merged(&h, pfn_of(mm, 0), 3);
	fill_page(child, 0, 4);
	fill_page(child, 1, 5);
	expect_page(mm, 0, 3);
	expect_page(mm, 1, 3);
	expect_page(child, 0, 4);
	expect_page(child, 1, 5);
	expect_merged(&h, pfn_of(mm, 0), 2);
	mmput(child);
	mmput(mm);
	host_done(&h);
}

/* ---- advice ---- */

TEST(ksm, advice_that_cannot_be_followed)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);
	struct ksm *ksm;

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_madvise(mm, area_page(0), P, MM_MADV_MERGEABLE), -EINVAL); /* by nobody */
	expect_eq(mm_madvise(mm, area_page(0), P, MM_MADV_UNMERGEABLE), 0);
	expect_areas(mm, "0-4 rw p");
	ksm = ksm_create(phys);
	expect_eq(mm_madvise(mm, area_page(0) + 1, P, MM_MADV_MERGEABLE), -EINVAL);
	expect_eq(mm_madvise(mm, area_page(3), 2 * P, MM_MADV_MERGEABLE), -ENOMEM); /* a hole */
	expect_areas(mm, "0-3 rw p, 3-4 rw p");
	expect_eq(mm_madvise(mm, area_page(1), P, MM_MADV_MERGEABLE), 0);
	expect_areas(mm, "0-1 rw p, 1-2 rw p, 2-3 rw p, 3-4 rw p");
	expect_eq(mm_madvise(mm, area_page(0), 4 * P, MM_MADV_MERGEABLE), 0);
	expect_areas(mm, "0-4 rw p");
	expect_eq(mm_madvise(mm, area_page(2), P, MM_MADV_UNMERGEABLE), 0);
	expect_areas(mm, "0-2 rw p, 2-3 rw p, 3-4 rw p");
	mmput(mm);
	ksm_destroy(ksm);
	ksm_destroy(NULL);
	test_phys_done(phys);
}

TEST(ksm, unmergeable_breaks_what_was_merged)
{
	struct counting_notifier cn = {0};
	struct mm_struct *mm, *other;
	struct host h;

	host_init(&h, 32);
	mm = mergeable_mm(&h, 8);
	other = mergeable_mm(&h, 1);
	for (uint64_t n = 0; n < 6; n++)
		fill_page(mm, n, 3);
	fill_page(other, 0, 3);
	expect_eq(scan_settled(&h), 6);
	expect_eq(mm_mprotect(mm, area_page(1), P, MM_PROT_READ), 0);
	expect_eq(mm_mprotect(mm, area_page(2), P, MM_PROT_NONE), 0);
	counting_register(&cn, mm);
	expect_eq(mm_madvise(mm, area_page(0), 5 * P, MM_MADV_UNMERGEABLE), 0);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 5);
	expect_eq(cn.start, area_page(4));
	expect_eq(cn.end, area_page(5));
	for (uint64_t n = 0; n < 5; n++)
		expect_own(&h, pfn_of(mm, n));
	expect_merged(&h, pfn_of(mm, 5), 2);
	/* No rights but those of the area. */
	expect_eq(*pgtable_lookup(mm->pgtable, area_page(0)) & (PTE_READ | PTE_WRITE),
		  PTE_READ | PTE_WRITE);
	expect_eq(*pgtable_lookup(mm->pgtable, area_page(1)) & (PTE_READ | PTE_WRITE), PTE_READ);
	expect_eq(*pgtable_lookup(mm->pgtable, area_page(2)) & (PTE_READ | PTE_WRITE), 0);
	expect_eq(mm_mprotect(mm, area_page(0), 8 * P, RW), 0);
	/* And so they stay. */
	expect_eq(scan_settled(&h), 0);
	for (uint64_t n = 0; n < 6; n++)
		expect_page(mm, n, 3);
	for (uint64_t n = 0; n < 5; n++)
		fill_page(mm, n, n);
	expect_page(other, 0, 3);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	mmput(other);
	host_done(&h);
}

TEST(ksm, unmergeable_without_frames)
{
	struct mm_struct *mm;
	struct host h;
	pfn_t taken[8];
	size_t nr = 0;

	host_init(&h, 8);
	mm = mergeable_mm(&h, 6);
	for (uint64_t n = 0; n < 6; n++)
		fill_page(mm, n, 3);
	expect_eq(scan_settled(&h), 5);
	while (phys_nr_free(h.phys) > 2)
		taken[nr++] = phys_alloc(h.phys);
	expect_eq(mm_madvise(mm, area_page(0), 6 * P, MM_MADV_UNMERGEABLE), -ENOMEM);
	expect_areas(mm, "0-6 rw p");
	for (uint64_t n = 0; n < 6; n++)
		expect_page(mm, n, 3);
	/* It still is mergeable. */
	expect_eq(scan_settled(&h), 2);
	while (nr)
		phys_put(h.phys, taken[--nr]);
	expect_eq(mm_madvise(mm, area_page(0), 6 * P, MM_MADV_UNMERGEABLE), 0);
	expect_eq(used_frames(&h), 6);
	expect_shared(&h, 0, 0);
	mmput(mm);
	host_done(&h);
}

/* ---- mms that come and go ---- */

static int count_items(const struct ksm_item *item)
{
	return item ? 1 + count_items(RB_LEFT(item, unstable)) +
			       count_items(RB_RIGHT(item, unstable))
		    : 0;
}

TEST(ksm, exit_in_the_middle_of_a_round)
{
	struct mm_struct *mm[3];
	struct host h;

	host_init(&h, 32);
	for (int i = 0; i < 3; i++) {
		mm[i] = mergeable_mm(&h, 4);
		for (uint64_t n = 0; n < 4; n++)
			fill_page(mm[i], n, n);
	}
	expect_eq(scan_round(&h), 0);
	expect_eq(ksm_scan(h.ksm, 6), 2); /* all of the first, half of the second */
	expect_eq(h.ksm->at->mm == mm[1], true);
	mmput(mm[1]);
	expect(h.ksm->at->mm == mm[2]);
	expect_eq(ksm_scan(h.ksm, 2), 2);
	expect_eq(count_items(RB_ROOT(&h.ksm->unstable)), 2);
	mmput(mm[0]); /* behind the scanner, with items in the unstable tree */
	expect_eq(count_items(RB_ROOT(&h.ksm->unstable)), 0);
	expect_eq(ksm_scan(h.ksm, 1), 0);
	mmput(mm[2]); /* the last: the round is over */
	expect(!h.ksm->at);
	expect_eq(stats_of(&h).full_scans, 2);
	expect_eq(used_frames(&h), 0);
	expect_eq(stats_of(&h).pages_unshared + stats_of(&h).pages_volatile, 0);
	expect_eq(scan_round(&h), 0);
	host_done(&h);
}

static void destroy_too_early(void *arg)
{
	struct host *h = arg;

	ksm_destroy(h->ksm);
}

static void create_twice(void *arg)
{
	struct host *h = arg;

	ksm_create(h->phys);
}

TEST(ksm, misuse)
{
	struct mm_struct *mm;
	struct host h;

	host_init(&h, 4);
	mm = mergeable_mm(&h, 1);
	expect_bug(destroy_too_early, &h, "for as long as an mm has mergeable areas");
	expect_bug(create_twice, &h, "a machine has one scanner");
	mmput(mm);
	host_done(&h);
}
