// SPDX-License-Identifier: LGPL-2.1-or-later
/* The door to entries: which changes need a window, and that debug builds insist on it. */
#include "notifier/set_pte.h"
#include "tests/support/areas.h"
#include "tests/support/step.h"

#define P PAGE_SIZE

#define PRESENT pte_make(7, PTE_PRESENT | PTE_READ)

TEST(set_pte, what_takes_something_needs_a_window)
{
	const pte_t rw = PRESENT | PTE_WRITE, dirty = rw | PTE_DIRTY | PTE_SOFT_DIRTY;

	expect(pte_change_needs_window(PRESENT, 0));
	expect(pte_change_needs_window(PRESENT, pte_make(7, PTE_READ | PTE_MIGRATION)));
	expect(pte_change_needs_window(PRESENT, pte_make(8, PTE_PRESENT | PTE_READ)));
	expect(pte_change_needs_window(PRESENT, PRESENT & ~PTE_READ));
	expect(pte_change_needs_window(rw, PRESENT));
	expect(pte_change_needs_window(dirty, dirty & ~PTE_DIRTY));
	expect(pte_change_needs_window(dirty, dirty & ~PTE_SOFT_DIRTY));

	expect(!pte_change_needs_window(0, rw));
	expect(!pte_change_needs_window(pte_make(7, PTE_READ | PTE_MIGRATION), 0));
	expect(!pte_change_needs_window(PRESENT, dirty));
	expect(!pte_change_needs_window(PRESENT | PTE_ACCESSED, PRESENT));
	expect(!pte_change_needs_window(dirty, dirty));
}

struct touched {
	struct step step;
	struct mm_struct *mm;
	pte_t *ptep;
	unsigned int at;
};

static void touch_here(struct step *step)
{
	struct touched *t = step->arg;

	if (step->nr < t->at)
		return;
	step->over = true;
	expect(pte_touch(t->ptep, pte_load(t->ptep), false));
}

static void clear_and_set(struct touched *t)
{
	struct mmu_notifier_range range;
	pte_t pte = pte_load(t->ptep);

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, t->mm, area_page(0), area_page(1));
	mmap_read_lock(t->mm);
	mmu_notifier_invalidate_range_start(&range);
	spin_lock(&t->mm->page_table_lock);
	expect(change_pte(t->mm, area_page(0), t->ptep, &pte,
			  pte & ~(PTE_ACCESSED | PTE_SOFT_DIRTY)));
	step_begin(&t->step);
	clear_pte_bits(t->mm, area_page(0), t->ptep, PTE_WRITE);
	set_pte_bits(t->mm, area_page(0), t->ptep, PTE_SOFT_DIRTY);
	step_end();
	spin_unlock(&t->mm->page_table_lock);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(t->mm);
}

/* An access sets A between any two instructions of what takes a right or gives a bit: each has its
 * way. */
TEST(set_pte, bits_come_and_go_under_an_access)
{
	struct touched t = {.step = {.at_each = touch_here, .arg = &t}};
	struct phys *phys;

	step_skip();
	phys = test_phys(4);
	t.mm = test_mm(phys);
	expect_eq(mm_mmap(t.mm, area_page(0), P, RW, NULL, 0), 0);
	do {
		test_write(t.mm, area_page(0), 1);
		t.ptep = pgtable_lookup(t.mm->pgtable, area_page(0));
		expect(pte_load(t.ptep) & PTE_WRITE);
		t.at += test_long() ? 1 : 3;
		clear_and_set(&t);
		expect_eq(pte_load(t.ptep) & (PTE_WRITE | PTE_SOFT_DIRTY), PTE_SOFT_DIRTY);
		expect_eq(!!(pte_load(t.ptep) & PTE_ACCESSED), t.step.over);
	} while (t.step.over);
	expect_ge(t.at, 20);
	mmput(t.mm);
	test_phys_done(phys);
}

#ifdef CONFIG_LOCKDEP

static struct fixture {
	struct phys *phys;
	struct mm_struct *mm;
	pte_t *ptep;
} f;

static void fixture_init(void)
{
	f.phys = test_phys(8);
	f.mm = test_mm(f.phys);
	expect_eq(mm_mmap(f.mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	stamp_pages(f.mm, 0, 4, 0);
	f.ptep = pgtable_lookup(f.mm->pgtable, area_page(1));
}

static struct mmu_notifier_range window(uint64_t first, uint64_t end)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, f.mm, area_page(first),
				area_page(end));
	return range;
}

/* Page 1 loses the right to be written. */
static void narrow(void)
{
	pte_t pte = pte_load(f.ptep);

	spin_lock(&f.mm->page_table_lock);
	expect(change_pte(f.mm, area_page(1), f.ptep, &pte, pte & ~PTE_WRITE));
	spin_unlock(&f.mm->page_table_lock);
}

static void no_window(void *arg)
{
	(void)arg;
	mmap_read_lock(f.mm);
	narrow();
}

static void a_window_elsewhere(void *arg)
{
	struct mmu_notifier_range range = window(2, 4);

	(void)arg;
	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&range);
	narrow();
}

static void a_window_that_is_closed(void *arg)
{
	struct mmu_notifier_range range = window(0, 4);

	(void)arg;
	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	narrow();
}

static void a_window_that_is_closed_before_the_inner(void *arg)
{
	struct mmu_notifier_range outer = window(0, 4), inner = window(2, 3);

	(void)arg;
	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&outer);
	mmu_notifier_invalidate_range_start(&inner);
	mmu_notifier_invalidate_range_end(&outer);
	narrow();
}

static void a_window_of_another_mm(void *arg)
{
	struct mmu_notifier_range range = window(0, 4);

	(void)arg;
	range.mm = test_mm(f.phys);
	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&range);
	narrow();
}

static void a_window_under_no_lock(void *arg)
{
	struct mmu_notifier_range range = window(0, 4);

	(void)arg;
	mmu_notifier_invalidate_range_start(&range);
	narrow();
}

/* Somebody refused it, so it opened nothing. */
static int refuse(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn;
	return mmu_notifier_range_blockable(range) ? 0 : -EAGAIN;
}

static void a_window_that_was_refused(void *arg)
{
	static const struct mmu_notifier_ops ops = {.invalidate_range_start = refuse};
	static struct mmu_notifier mn = {.ops = &ops};
	struct mmu_notifier_range range = window(0, 4);

	(void)arg;
	expect_eq(mmu_notifier_register(&mn, f.mm), 0);
	mmap_read_lock(f.mm);
	expect_eq(mmu_notifier_invalidate_range_start_nonblock(&range), -EAGAIN);
	narrow();
}

static void without_the_table_lock(void *arg)
{
	(void)arg;
	set_pte(f.mm, area_page(1), f.ptep, 0);
}

/* In a window over page 1, since which the thread has opened @nr others. */
static void narrow_behind(unsigned int nr)
{
	struct mmu_notifier_range first = window(1, 2), others = window(2, 4);

	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&first);
	for (unsigned int i = 0; i < nr; i++)
		mmu_notifier_invalidate_range_start(&others);
	narrow();
	for (unsigned int i = 0; i < nr; i++)
		mmu_notifier_invalidate_range_end(&others);
	mmu_notifier_invalidate_range_end(&first);
	mmap_read_unlock(f.mm);
}

static void behind_too_many(void *arg)
{
	(void)arg;
	narrow_behind(THREAD_MAX_WINDOWS);
}

/* A thread knows of the last few that it opened: others may have closed what was before. */
TEST(set_pte, what_was_left_open_is_pushed_out)
{
	fixture_init();
	narrow_behind(THREAD_MAX_WINDOWS - 1);
	test_write(f.mm, area_page(1), 1);
	expect_bug(behind_too_many, NULL, "inside an open invalidation window");
	mmput(f.mm);
	test_phys_done(f.phys);
}

TEST(set_pte, debug_builds_insist)
{
	struct mmu_notifier_range outer, inner;

	fixture_init();
	expect_bug(no_window, NULL, "inside an open invalidation window");
	expect_bug(a_window_elsewhere, NULL, "inside an open invalidation window");
	expect_bug(a_window_that_is_closed, NULL, "inside an open invalidation window");
	expect_bug(a_window_that_is_closed_before_the_inner, NULL,
		   "inside an open invalidation window");
	expect_bug(a_window_that_was_refused, NULL, "inside an open invalidation window");
	expect_bug(a_window_of_another_mm, NULL, "inside an open invalidation window");
	expect_bug(a_window_under_no_lock, NULL, "held open under mmap_lock or a reverse-map lock");
	expect_bug(without_the_table_lock, NULL, "page_table_lock");

	/* One that nobody refused is a window as any. */
	outer = window(0, 4);
	mmap_read_lock(f.mm);
	expect_eq(mmu_notifier_invalidate_range_start_nonblock(&outer), 0);
	narrow();
	mmu_notifier_invalidate_range_end(&outer);
	mmap_read_unlock(f.mm);
	test_write(f.mm, area_page(1), 1);

	/* Nested, and closed in any order. */
	outer = window(0, 4);
	inner = window(2, 3);
	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&outer);
	mmu_notifier_invalidate_range_start(&inner);
	mmu_notifier_invalidate_range_end(&inner);
	narrow();
	mmu_notifier_invalidate_range_end(&outer);
	mmap_read_unlock(f.mm);
	test_write(f.mm, area_page(1), 1);
	inner = window(1, 2);
	mmap_read_lock(f.mm);
	mmu_notifier_invalidate_range_start(&outer);
	mmu_notifier_invalidate_range_start(&inner);
	mmu_notifier_invalidate_range_end(&outer);
	narrow();
	mmu_notifier_invalidate_range_end(&inner);
	mmap_read_unlock(f.mm);
	mmput(f.mm);
	test_phys_done(f.phys);
}

#endif
