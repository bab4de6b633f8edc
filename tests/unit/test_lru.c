// SPDX-License-Identifier: LGPL-2.1-or-later
/* The lists of pages by age: who is on them, and in which order. */
#include <errno.h>

#include "tests/support/swap_fixture.h"

static pfn_t next(struct phys *phys, enum lru_list which)
{
	pfn_t pfn = INVALID_PFN;

	if (lru_next(phys, which, &pfn) && pfn != INVALID_PFN)
		phys_put(phys, pfn);
	return pfn;
}

static void expect_lists(struct phys *phys, uint64_t nr_inactive, uint64_t nr_active)
{
	expect_eq(lru_nr(&phys->lru, LRU_INACTIVE), nr_inactive);
	expect_eq(lru_nr(&phys->lru, LRU_ACTIVE), nr_active);
}

/* Private pages and those of objects, from the first fault to the last reference. */
TEST(lru, pages_come_and_go)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys), *child = NULL;
	struct address_space *mapping = test_mapping(phys, 2);
	pfn_t pfn;

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(2), 2 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_lists(phys, 0, 0);
	for (uint64_t i = 0; i < 4; i++) {
		test_write(mm, page(i), i);
		expect_lists(phys, i + 1, 0);
	}
	expect_eq(mm_migrate_range(mm, page(0), 4 * PAGE_SIZE), 4);
	expect_lists(phys, 4, 0);
	/* A copy is another page. */
	expect_eq(mm_fork(mm, &child), 0);
	expect_lists(phys, 4, 0);
	test_write(child, page(0), 9);
	expect_lists(phys, 5, 0);
	mmput(child);
	expect_lists(phys, 4, 0);
	/* A reference keeps it on the list when its mapping is gone. */
	pfn = mm_lookup_pfn(mm, page(0));
	phys_get(phys, pfn);
	expect_eq(mm_zap_range(mm, page(0), 4 * PAGE_SIZE), 4);
	expect_lists(phys, 3, 0);
	phys_put(phys, pfn);
	expect_lists(phys, 2, 0);
	/* Frames that are no pages of a process are on none. */
	pfn = phys_alloc(phys);
	expect_lists(phys, 2, 0);
	phys_put(phys, pfn);
	mmput(mm);
	address_space_put(mapping);
	expect_lists(phys, 0, 0);
	test_phys_done(phys);
}

TEST(lru, the_oldest_first_and_around)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	pfn_t pfn[4];

	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(next(phys, LRU_INACTIVE), INVALID_PFN);
	for (uint64_t i = 0; i < 4; i++) {
		test_write(mm, page(i), i);
		pfn[i] = mm_lookup_pfn(mm, page(i));
	}
	for (uint64_t i = 0; i < 8; i++)
		expect_eq(next(phys, LRU_INACTIVE), pfn[i % 4]);
	/* To the other list, at its head; and to the tail. */
	lru_add(phys, pfn[2], LRU_ACTIVE);
	lru_add(phys, pfn[1], LRU_ACTIVE);
	expect_lists(phys, 2, 2);
	expect_eq(next(phys, LRU_ACTIVE), pfn[2]);
	expect_eq(next(phys, LRU_ACTIVE), pfn[1]);
	lru_expose(phys, pfn[2]);
	expect_lists(phys, 3, 1);
	expect_eq(next(phys, LRU_INACTIVE), pfn[2]);
	expect_eq(next(phys, LRU_INACTIVE), pfn[0]);
	/* A move keeps the list, not the place. */
	expect_eq(migrate_frame(phys, pfn[1]), 0);
	expect_lists(phys, 3, 1);
	expect_eq(next(phys, LRU_ACTIVE), mm_lookup_pfn(mm, page(1)));
	/* What is on no list stays so. */
	pfn[0] = phys_alloc(phys);
	lru_expose(phys, pfn[0]);
	expect_lists(phys, 3, 1);
	phys_put(phys, pfn[0]);
	mmput(mm);
	expect_lists(phys, 0, 0);
	test_phys_done(phys);
}

static void add_free_frame(void *arg)
{
	lru_add(arg, 0, LRU_INACTIVE);
}

TEST(lru, a_free_frame_is_no_page)
{
	struct phys *phys = test_phys(4);

	expect_bug(add_free_frame, phys, "the caller has a reference on frame 0");
	test_phys_done(phys);
}

/* A frame whose references are frozen is passed by. */
TEST(lru, frozen)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);
	pfn_t pfn = 0;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 1);
	expect(frame_ref_freeze(pfn_to_frame(phys, mm_lookup_pfn(mm, page(0))), 1));
	expect(lru_next(phys, LRU_INACTIVE, &pfn));
	expect_eq(pfn, INVALID_PFN);
	frame_ref_unfreeze(pfn_to_frame(phys, mm_lookup_pfn(mm, page(0))), 1);
	expect_eq(next(phys, LRU_INACTIVE), mm_lookup_pfn(mm, page(0)));
	mmput(mm);
	test_phys_done(phys);
}
