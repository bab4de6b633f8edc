/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a look at an address space tells, and that it changes nothing. */
#include "tests/support/swap_fixture.h"

static struct phys *phys;
static struct mm_struct *mm;

static void begin(void)
{
	phys = test_swap_phys(64, 16);
	mm = test_mm(phys);
	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, NULL, 0), 0);
}

static void end(void)
{
	mmput(mm);
	test_swap_phys_done(phys);
}

static struct mm_page look(hva_t hva)
{
	struct mm_page seen;

	mm_lookup_page(mm, hva, &seen);
	expect_eq(seen.entry, entry_of(mm, hva));
	expect_eq(mm_lookup_pfn(mm, hva), seen.kind == MM_PAGE_PRESENT ? seen.number : INVALID_PFN);
	return seen;
}

TEST(mm_lookup, what_is_not_there_does_not_come)
{
	struct mm_stats stats;

	begin();
	expect_eq(look(page(0)).kind, MM_PAGE_NONE);
	expect_eq(look(page(7)).kind, MM_PAGE_NONE);
	expect_eq(look(HVA_MAX).kind, MM_PAGE_NONE);
	mm_get_stats(mm, &stats);
	expect_eq(stats.faults, 0);
	expect_eq(look(page(0)).prot, MM_PROT_NONE);
	end();
}

TEST(mm_lookup, a_page_and_its_rights)
{
	struct mm_struct *child;
	struct mm_page seen;
	bool writable;
	pfn_t pfn;

	begin();
	test_write(mm, page(1), 7);
	expect_eq(hva_to_pfn(mm, page(1), false, &pfn, &writable), 0);
	seen = look(page(1));
	expect_eq(seen.kind, MM_PAGE_PRESENT);
	expect_eq(seen.number, pfn);
	expect_eq(seen.prot, RW);
	expect(seen.accessed && seen.dirty && seen.soft_dirty);
	mm_clear_soft_dirty(mm);
	expect(look(page(1)).dirty && !look(page(1)).soft_dirty);
	test_write(mm, page(1), 7);

	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(look(page(1)).prot, MM_PROT_READ);
	expect_eq(look(page(1)).number, pfn);
	mmput(child);
	expect_eq(mm_mprotect(mm, page(1), PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(look(page(1)).prot, MM_PROT_NONE);
	expect_eq(look(page(1)).kind, MM_PAGE_PRESENT);
	end();
}

TEST(mm_lookup, where_a_page_is_instead)
{
	static const struct {
		pte_t kind;
		enum mm_page_kind seen;
	} kinds[] = {
		{PTE_MIGRATION, MM_PAGE_MIGRATING},
		{PTE_DEVICE, MM_PAGE_DEVICE},
		{PTE_EXCLUSIVE, MM_PAGE_EXCLUSIVE},
	};
	pte_t *ptep, swapped;

	begin();
	test_write(mm, page(2), 7);
	expect_eq(mm_madvise(mm, page(2), PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	expect_eq(look(page(2)).kind, MM_PAGE_SWAPPED);
	expect_eq(swap_used(phys), 1);

	/* The others pass too quickly, or need a device: their entries, without what they stand
	 * for.
	 */
	ptep = pgtable_lookup(mm->pgtable, page(2));
	swapped = *ptep;
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++) {
		*ptep = pte_make(42, kinds[i].kind | PTE_READ);
		expect_eq(look(page(2)).kind, kinds[i].seen);
		expect_eq(look(page(2)).number, 42);
		expect_eq(look(page(2)).prot, MM_PROT_NONE);
	}
	*ptep = swapped;
	expect_eq(test_read(mm, page(2)), 7);
	end();
}

TEST(mm_lookup, areas)
{
	struct address_space *mapping;
	struct mm_area area;

	begin();
	mapping = test_mapping(phys, 8);
	expect_eq(mm_mmap(mm, page(8), 2 * PAGE_SIZE, MM_PROT_READ, mapping, 3), 0);
	expect(mm_lookup_area(mm, page(3) + 5, &area));
	expect_eq(area.start, page(0));
	expect_eq(area.end, page(4));
	expect_eq(area.prot, RW);
	expect(area.is_private && !area.shows_object);

	expect(!mm_lookup_area(mm, page(4), &area));
	expect(mm_lookup_area(mm, page(8), &area));
	expect_eq(area.start, page(8));
	expect_eq(area.prot, MM_PROT_READ);
	expect(!area.is_private && area.shows_object);
	expect_eq(area.pgoff, 3);
	address_space_put(mapping);
	end();
}
