/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether 512 pages lie in the host as one. */
#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/step.h"

#define BASE 0x40000000UL
#define NR   512

static struct phys *phys;
static struct mm_struct *mm;
static struct address_space *ram;

/* Three times 2 MiB; the first two are touched in order, the last is not. */
static void begin(bool write)
{
	uint64_t value = 1;

	phys = test_phys(8 * NR);
	mm = test_mm(phys);
	ram = test_mapping(phys, 3 * NR);
	expect_eq(mm_mmap(mm, BASE, 3 * MM_HUGE_SIZE, RW, ram, 0), 0);
	for (hva_t hva = BASE; hva < BASE + 2 * MM_HUGE_SIZE; hva += PAGE_SIZE)
		expect_eq(write ? mm_write(mm, hva, &value, sizeof(value))
				: mm_read(mm, hva, &value, sizeof(value)),
			  0);
}

static void end(void)
{
	synchronize_srcu(&pgtable_srcu); /* nobody is left in a section of it */
	mmput(mm);
	address_space_put(ram);
	test_phys_done(phys);
}

static bool ask(hva_t hva, bool write, pfn_t *pfn, bool *writable)
{
	*pfn = INVALID_PFN;
	return hva_to_huge_pfn(mm, hva, write, pfn, writable);
}

TEST(mm_huge, alike)
{
	bool writable;
	pfn_t pfn;

	begin(true);
	for (hva_t hva = BASE; hva < BASE + 2 * MM_HUGE_SIZE; hva += 100 * PAGE_SIZE + 8) {
		expect(ask(hva, true, &pfn, &writable));
		expect(writable);
		expect_eq(pfn, (hva - BASE) / MM_HUGE_SIZE * NR);
		expect(ask(hva, false, &pfn, &writable));
		expect(!writable);
	}
	end();
}

TEST(mm_huge, nothing_is_brought_in)
{
	struct mm_stats before, after;
	bool writable;
	pfn_t pfn;

	begin(true);
	mm_get_stats(mm, &before);
	expect(!ask(BASE + 2 * MM_HUGE_SIZE, false, &pfn, &writable));
	expect(!ask(BASE + 8 * MM_HUGE_SIZE, false, &pfn, &writable));
	expect(!ask(HVA_MAX, false, &pfn, &writable));
	mm_get_stats(mm, &after);
	expect_eq(after.faults, before.faults);
	expect_eq(mm_lookup_pfn(mm, BASE + 2 * MM_HUGE_SIZE), INVALID_PFN);
	end();
}

/* Each page in turn is the odd one. */
TEST(mm_huge, one_is_elsewhere)
{
	bool writable;
	pfn_t pfn;

	begin(true);
	for (uint64_t n = 0; n < NR; n += 73) {
		expect_eq(migrate_mapping_page(ram, n), 0);
		expect(!ask(BASE, false, &pfn, &writable));
	}
	expect_eq(migrate_mapping_page(ram, 2 * NR - 1), 0);
	expect(!ask(BASE + MM_HUGE_SIZE, false, &pfn, &writable));
	end();
}

TEST(mm_huge, one_is_not_there)
{
	bool writable;
	pfn_t pfn;

	begin(true);
	expect_eq(mm_madvise(mm, BASE + 511 * PAGE_SIZE, PAGE_SIZE, MM_MADV_DONTNEED), 0);
	expect(!ask(BASE, false, &pfn, &writable));
	expect(ask(BASE + MM_HUGE_SIZE, false, &pfn, &writable));
	end();
}

/* While a page moves its entry names the old frame, and keeps the rights. */
TEST(mm_huge, one_is_being_moved)
{
	bool writable;
	pte_t *ptep, old;
	pfn_t pfn;

	begin(true);
	ptep = pgtable_lookup(mm->pgtable, BASE + 300 * PAGE_SIZE);
	old = pte_load(ptep);
	WRITE_ONCE(*ptep, (old & ~PTE_PRESENT) | PTE_MIGRATION);
	expect(!ask(BASE, false, &pfn, &writable));
	WRITE_ONCE(*ptep, old);
	expect(ask(BASE, false, &pfn, &writable));
	end();
}

TEST(mm_huge, rights)
{
	const hva_t odd = BASE + 200 * PAGE_SIZE;
	bool writable;
	pfn_t pfn;

	begin(true);
	expect_eq(mm_mprotect(mm, odd, PAGE_SIZE, MM_PROT_READ), 0);
	expect(!ask(BASE, false, &pfn, &writable));
	/* All with less are alike again. */
	expect_eq(mm_mprotect(mm, BASE, MM_HUGE_SIZE, MM_PROT_READ), 0);
	expect(ask(BASE, true, &pfn, &writable));
	expect(!writable);
	expect_eq(mm_mprotect(mm, BASE, MM_HUGE_SIZE, 0), 0);
	expect(!ask(BASE, false, &pfn, &writable));
	end();
}

/* Not aligned, but one after the other. */
TEST(mm_huge, frames_are_shifted)
{
	bool writable;
	pfn_t pfn;

	begin(true);
	phys_put(phys, phys_alloc(phys));
	for (uint64_t n = 0; n < NR; n++)
		expect_eq(migrate_mapping_page(ram, n), 0);
	expect_eq(mm_lookup_pfn(mm, BASE + PAGE_SIZE), mm_lookup_pfn(mm, BASE) + 1);
	expect(!ask(BASE, false, &pfn, &writable));
	end();
}

/* Who may write says so of all; who only looks, of none. */
TEST(mm_huge, counts_as_written)
{
	struct mm_page page;
	bool writable;
	pfn_t pfn;

	begin(false);
	expect(ask(BASE, false, &pfn, &writable));
	for (hva_t hva = BASE; hva < BASE + MM_HUGE_SIZE; hva += PAGE_SIZE) {
		mm_lookup_page(mm, hva, &page);
		expect(!page.dirty);
	}
	expect(ask(BASE, true, &pfn, &writable));
	expect(writable);
	for (hva_t hva = BASE; hva < BASE + MM_HUGE_SIZE; hva += PAGE_SIZE) {
		mm_lookup_page(mm, hva, &page);
		expect(page.dirty && page.accessed);
	}
	mm_lookup_page(mm, BASE + MM_HUGE_SIZE, &page);
	expect(!page.dirty);
	end();
}

/* ---- an entry that changes between the look and the touch ---- */

struct change {
	struct step step;
	pte_t *entries;	      /* the first is touched first; then the second, which changes */
	pte_t without;	      /* what it loses */
	unsigned int at, nr;  /* instructions from when the first was touched */
	bool done, was_dirty; /* the second, by then */
};

static void change_here(struct step *step)
{
	struct change *c = step->arg;

	if (!(READ_ONCE(c->entries[0]) & PTE_DIRTY) || c->nr++ < c->at)
		return;
	c->done = step->over = true;
	c->was_dirty = READ_ONCE(c->entries[1]) & PTE_DIRTY;
	WRITE_ONCE(c->entries[1], READ_ONCE(c->entries[1]) & ~c->without);
}

/* At one instruction after another, until the second was touched before. What is said of each. */
static void change_at_each(pte_t without, void (*judge)(const struct change *c, bool found))
{
	unsigned int early = 0;
	struct change c = {.step = {.at_each = change_here, .arg = &c}, .without = without};
	bool writable, found;
	pte_t whole;
	pfn_t pfn;

	step_skip();
	begin(true);
	c.entries = pgtable_lookup(mm->pgtable, BASE);
	whole = pte_load(&c.entries[1]);
	do {
		WRITE_ONCE(c.entries[0], pte_load(&c.entries[0]) & ~PTE_DIRTY);
		WRITE_ONCE(c.entries[1], whole & ~PTE_DIRTY);
		c.done = false;
		c.nr = 0;
		step_begin(&c.step);
		found = ask(BASE, true, &pfn, &writable);
		step_end();
		expect(c.done);
		judge(&c, found);
		early += !c.was_dirty;
		c.at++;
	} while (!c.was_dirty);
	expect_ge(early, 3);
	WRITE_ONCE(c.entries[1], whole);
	end();
}

static void judge_right(const struct change *c, bool found)
{
	expect_eq(found, c->was_dirty);
}

TEST(mm_huge, one_loses_its_right_behind_the_look)
{
	change_at_each(PTE_WRITE, judge_right);
}

static void judge_age(const struct change *c, bool found)
{
	expect(found);
	expect(READ_ONCE(c->entries[1]) & PTE_DIRTY);
}

TEST(mm_huge, one_is_aged_behind_the_look)
{
	change_at_each(PTE_ACCESSED, judge_age);
}
