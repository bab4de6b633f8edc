/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A page moves while a device is about to have it for itself, or a host to have it back: between
 * any two instructions of either. */
#include <gnomon/device.h>

#include "notifier/frame.h"
#include "tests/support/areas.h"
#include "tests/support/step.h"

#ifndef CONFIG_LOCKDEP

TEST(device_exclusive_steps, needs_a_debug_build)
{
	skip("which locks are held is known in debug builds");
}

#else

static struct {
	struct step step;
	struct phys *phys;
	struct mm_struct *mm;
	pte_t *ptep;
	pfn_t pfn; /* before the move */
	unsigned int at, nr_moved;
	bool moved, ended; /* what the device had */
} s;

/* A migration takes no mmap_lock, and is on another's thread here: on one that holds nothing else
 * it will not wait for itself. */
static bool may_move(void)
{
	const struct frame *frame = pfn_to_frame(s.phys, s.pfn);

	return !current_thread()->lockdep_busy && current_thread()->nr_held == 1 &&
	       !frame_locked(frame) && !READ_ONCE(frame_anon_vma(frame)->rwsem.count) &&
	       !READ_ONCE(s.mm->page_table_lock.raw.state);
}

static void move_here(struct step *step)
{
	if (step->nr < s.at || !may_move())
		return;
	s.at = step->nr;
	step->over = true;
	s.ended = pte_exclusive(pte_load(s.ptep));
	s.moved = migrate_frame(s.phys, s.pfn) == 0;
	s.ended &= !pte_exclusive(pte_load(s.ptep));
	s.nr_moved += s.moved;
}

static void begin(void)
{
	s.step = (struct step){.at_each = move_here};
	s.phys = test_phys(8);
	s.mm = test_mm(s.phys);
	expect_eq(mm_mmap(s.mm, area_page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(s.mm, area_page(0), 1);
	s.ptep = pgtable_lookup(s.mm->pgtable, area_page(0));
}

static void end(void)
{
	mmput(s.mm);
	test_phys_done(s.phys);
}

static void next(void)
{
	s.pfn = mm_lookup_pfn(s.mm, area_page(0));
	expect_ne(s.pfn, INVALID_PFN);
	s.moved = s.ended = false;
}

/* With mmap_lock held. */
static pfn_t take(void)
{
	pfn_t pfn = INVALID_PFN;

	expect_eq(make_device_exclusive(s.mm, area_page(0), &s, &pfn), 0);
	return pfn;
}

static uint64_t nr_faults(void)
{
	struct mm_stats stats;

	mm_get_stats(s.mm, &stats);
	return stats.faults;
}

/* The device has it where it is, or where it went: never where it was. */
TEST(device_exclusive_steps, taken_while_it_moves)
{
	pfn_t pfn;

	step_skip();
	begin();
	do {
		next();
		mmap_read_lock(s.mm);
		step_begin(&s.step);
		pfn = take();
		step_end();
		mmap_read_unlock(s.mm);
		expect_eq(pfn == s.pfn, !s.moved);
		expect(pte_exclusive(pte_load(s.ptep)) && pte_pfn(pte_load(s.ptep)) == pfn);
		expect_eq(*(uint64_t *)phys_map(s.phys, pfn), 1);
		put_device_exclusive(s.mm, pfn);
		expect_eq(test_read(s.mm, area_page(0)), 1);
		s.at += test_long() ? 1 : 5;
	} while (s.step.over);
	expect_ge(s.nr_moved, 10);
	end();
}

/* If a move has ended what the device had, though it came to nothing, the host's fault has not. */
TEST(device_exclusive_steps, taken_back_while_it_moves)
{
	uint64_t faults;

	step_skip();
	begin();
	do {
		next();
		mmap_read_lock(s.mm);
		put_device_exclusive(s.mm, take());
		mmap_read_unlock(s.mm);
		faults = nr_faults();
		step_begin(&s.step);
		mm_fault(s.mm, area_page(0), false);
		step_end();
		expect_eq(nr_faults() - faults, !s.ended);
		expect_eq(test_read(s.mm, area_page(0)), 1);
		s.at += test_long() ? 1 : 5;
	} while (s.step.over);
	expect_ge(s.nr_moved, 10);
	end();
}

#endif
