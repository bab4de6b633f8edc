/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migration, one thread at a time or with one race staged by a notifier callback: what moves, what
 * stays, which windows open, and what everyone sees of it. The storms are in
 * test_migrate_races.c.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "tests/support/asleep.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/park.h"
#include "tests/support/test.h"

#define BASE 0x7f0000000000UL

static hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

static int refs(struct phys *phys, pfn_t pfn)
{
	return atomic_read(&pfn_to_frame(phys, pfn)->refcount);
}

static int mapcount(struct phys *phys, pfn_t pfn)
{
	return atomic_read(&pfn_to_frame(phys, pfn)->mapcount);
}

/* One mm with four shared pages, then four private ones; page n holds n + 1 at its start and end.
 */
struct world {
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *mapping;
	struct counting_notifier cn;
};

static void fill(struct mm_struct *mm, uint64_t nr_pages)
{
	for (uint64_t i = 0; i < nr_pages; i++) {
		test_write(mm, page(i), i + 1);
		test_write(mm, page(i + 1) - 8, i + 1);
	}
}

static void expect_filled(struct mm_struct *mm, uint64_t nr_pages)
{
	for (uint64_t i = 0; i < nr_pages; i++) {
		expect_eq(test_read(mm, page(i)), i + 1);
		expect_eq(test_read(mm, page(i) + 8), 0);
		expect_eq(test_read(mm, page(i + 1) - 8), i + 1);
	}
}

static void make_world(struct world *w, uint64_t nr_frames)
{
	memset(w, 0, sizeof(*w));
	w->phys = test_phys(nr_frames);
	w->mm = test_mm(w->phys);
	w->mapping = test_mapping(w->phys, 4);
	expect_eq(mm_mmap(w->mm, page(0), 4 * PAGE_SIZE, RW, w->mapping, 0), 0);
	expect_eq(mm_mmap(w->mm, page(4), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&w->cn, w->mm);
	fill(w->mm, 8);
}

static void end_world(struct world *w)
{
	counting_expect_paired(&w->cn);
	mmu_notifier_unregister(&w->cn.mn, w->mm);
	mmput(w->mm);
	address_space_put(w->mapping);
	test_phys_done(w->phys);
}

/* The page is mapped and has its reference for as long as start runs; contents are untouched. */
static void check_still_mapped(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	(void)cn;
	for (hva_t hva = range->start; hva < range->end; hva += PAGE_SIZE) {
		pfn_t pfn = mm_lookup_pfn(range->mm, hva);

		expect_ne(pfn, INVALID_PFN);
		expect_ge(refs(mm_phys(range->mm), pfn), 2); /* the entry's, and the migration's */
		expect_ge(mapcount(mm_phys(range->mm), pfn), 1);
	}
}

/* Each of these windows is about pages that were mapped, and whose locks the migration holds. */
static void check_unmapped(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	(void)cn;
	for (hva_t hva = range->start; hva < range->end; hva += PAGE_SIZE)
		expect_eq(mm_lookup_pfn(range->mm, hva), INVALID_PFN);
}

TEST(migrate, frame_moves_with_its_contents)
{
	struct world w;
	struct mm_stats stats;

	make_world(&w, 16);
	w.cn.on_start = check_still_mapped;
	w.cn.on_end = check_unmapped;
	for (uint64_t i = 0; i < 8; i++) {
		pfn_t old = mm_lookup_pfn(w.mm, page(i)), new;
		pte_t pte = *pgtable_lookup(w.mm->pgtable, page(i));

		expect_eq(migrate_frame(w.phys, old), 0);
		new = mm_lookup_pfn(w.mm, page(i));
		expect_ne(new, INVALID_PFN);
		expect_ne(new, old);
		/* Rights, accessed and dirty come along. */
		expect_eq(*pgtable_lookup(w.mm->pgtable, page(i)),
			  pte_make(new, pte & ~PTE_PFN_MASK));
		expect(pte & PTE_DIRTY);
		expect_eq(refs(w.phys, new), i < 4 ? 2 : 1);
		expect_eq(mapcount(w.phys, new), 1);
		expect_eq(refs(w.phys, old), 0);
		expect_eq(mapcount(w.phys, old), 0);
		expect(test_page_is(w.phys, old, PHYS_POISON));
		expect(!frame_locked(pfn_to_frame(w.phys, old)));
		expect(!frame_locked(pfn_to_frame(w.phys, new)));
		expect_eq(phys_nr_free(w.phys), 8);
		expect_eq(atomic64_read(&w.cn.starts[MMU_NOTIFY_MIGRATE]), i + 1);
		expect_eq(w.cn.start, page(i));
		expect_eq(w.cn.end, page(i + 1));
	}
	expect_filled(w.mm, 8);
	mm_get_stats(w.mm, &stats);
	expect_eq(stats.pages_migrated, 8);
	expect_eq(stats.migrate_busy, 0);
	expect_eq(stats.faults, 8);
	end_world(&w);
}

TEST(migrate, frames_that_are_no_pages)
{
	struct world w;
	pfn_t table;

	make_world(&w, 16);
	table = phys_alloc(w.phys);
	expect_eq(migrate_frame(w.phys, table), -ENOENT);
	expect_eq(refs(w.phys, table), 1);
	phys_put(w.phys, table);
	expect_eq(migrate_frame(w.phys, table), -ENOENT); /* free */
	expect_eq(migrate_frame(w.phys, 15), -ENOENT);	  /* never used */
	expect_eq(migrate_frame(w.phys, 16), -ENOENT);
	expect_eq(migrate_frame(w.phys, INVALID_PFN), -ENOENT);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 0);
	end_world(&w);
}

TEST(migrate, unmapped_page_moves_without_a_window)
{
	struct world w;
	struct address_space *other;
	pfn_t old[4];

	make_world(&w, 32);
	other = test_mapping(w.phys, 4);
	expect_eq(migrate_mapping_page(other, 0), -ENOENT); /* never touched */
	expect_eq(migrate_mapping_page(other, 4), -ENOENT);
	address_space_put(other);

	for (uint64_t i = 0; i < 4; i++)
		old[i] = mm_lookup_pfn(w.mm, page(i));
	expect_eq(mm_zap_range(w.mm, page(0), 4 * PAGE_SIZE), 4);
	for (uint64_t i = 0; i < 4; i++) {
		/* By its place, or by its number. */
		expect_eq(i & 1 ? migrate_frame(w.phys, old[i])
				: migrate_mapping_page(w.mapping, i),
			  0);
		expect(test_page_is(w.phys, old[i], PHYS_POISON));
		expect_eq(refs(w.phys, address_space_peek(w.mapping, i)), 1);
		expect_eq(mm_lookup_pfn(w.mm, page(i)), INVALID_PFN);
	}
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 0);
	expect_filled(w.mm, 8);
	for (uint64_t i = 0; i < 4; i++)
		expect_eq(mm_lookup_pfn(w.mm, page(i)), address_space_peek(w.mapping, i));

	expect_eq(migrate_mapping_page(w.mapping, 2), 0);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 1);
	expect_filled(w.mm, 8);
	end_world(&w);
}

TEST(migrate, pinned_page_stays_as_it_was)
{
	struct world w;
	struct mm_stats stats;

	make_world(&w, 16);
	for (uint64_t i = 3; i < 5; i++) { /* a shared one and a private one */
		pfn_t pfn = mm_lookup_pfn(w.mm, page(i));
		pte_t pte = *pgtable_lookup(w.mm->pgtable, page(i));
		uint64_t value = 0;

		phys_get(w.phys, pfn);
		expect_eq(migrate_frame(w.phys, pfn), -EBUSY);
		if (i == 3)
			expect_eq(migrate_mapping_page(w.mapping, i), -EBUSY);
		expect_eq(mm_migrate_range(w.mm, page(i), PAGE_SIZE), 0);
		expect_eq(*pgtable_lookup(w.mm->pgtable, page(i)), pte);
		expect_eq(mm_read64_atomic(w.mm, page(i), &value), 0);
		expect_eq(value, i + 1);
		expect_eq(refs(w.phys, pfn), i == 3 ? 3 : 2);
		expect_eq(mapcount(w.phys, pfn), 1);
		expect_eq(phys_nr_free(w.phys), 8);
		phys_put(w.phys, pfn);
		expect_eq(migrate_frame(w.phys, pfn), 0);
	}
	mm_get_stats(w.mm, &stats);
	expect_eq(stats.migrate_busy, 5);
	expect_eq(stats.pages_migrated, 2);
	expect_filled(w.mm, 8);
	end_world(&w);
}

TEST(migrate, no_page_of_the_object)
{
	struct world w;

	make_world(&w, 16);
	expect_eq(migrate_mapping_page(w.mapping, 4), -ENOENT);
	expect_eq(migrate_mapping_page(w.mapping, 1UL << 40), -ENOENT);
	expect_eq(mm_madvise(w.mm, page(2), PAGE_SIZE, MM_MADV_REMOVE), 0);
	expect_eq(migrate_mapping_page(w.mapping, 2), -ENOENT);
	end_world(&w);
}

/* Mapped twice in the range, it is one page: nobody is in its way. */
TEST(migrate, mapped_twice_in_the_range)
{
	struct mm_stats stats;
	struct world w;

	make_world(&w, 32);
	expect_eq(mm_mmap(w.mm, page(8), 4 * PAGE_SIZE, RW, w.mapping, 0), 0);
	for (uint64_t i = 0; i < 4; i++)
		expect_eq(test_read(w.mm, page(8 + i)), i + 1);
	expect_eq(mm_migrate_range(w.mm, page(0), 12 * PAGE_SIZE), 8);
	mm_get_stats(w.mm, &stats);
	expect_eq(stats.migrate_busy, 0);
	for (uint64_t i = 0; i < 4; i++)
		expect_eq(mm_lookup_pfn(w.mm, page(8 + i)), mm_lookup_pfn(w.mm, page(i)));
	expect_filled(w.mm, 8);
	end_world(&w);
}

/* Of a page that is known to be pinned nobody hears anything. */
TEST(migrate, pinned_page_is_not_unmapped)
{
	struct mm_stats stats;
	struct world w;
	pfn_t pfn;

	make_world(&w, 16);
	for (uint64_t i = 3; i < 5; i++) {
		expect_eq(mm_pin_page(w.mm, page(i), true, &pfn), 0);
		expect_eq(migrate_frame(w.phys, pfn), -EBUSY);
		expect_eq(mm_migrate_range(w.mm, page(i), PAGE_SIZE), 0);
		mm_unpin_page(w.mm, pfn, true);
	}
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 0);
	mm_get_stats(w.mm, &stats);
	expect_eq(stats.migrate_busy, 2);
	expect_filled(w.mm, 8);
	end_world(&w);
}

struct holder {
	struct phys *phys;
	pfn_t pfn;
	struct park park;
};

/* Another thread: who holds a frame lock does not take mmap_lock. */
static void hold_frame(void *arg)
{
	struct holder *holder = arg;

	expect(trylock_frame(holder->phys, holder->pfn));
	park_enter(&holder->park);
	unlock_frame(holder->phys, holder->pfn);
}

static void start_holder(struct holder *holder, struct kthread *thread, struct phys *phys,
			 pfn_t pfn)
{
	*holder = (struct holder){.phys = phys, .pfn = pfn};
	park_init(&holder->park);
	expect_eq(kthread_run(thread, "holder", hold_frame, holder), 0);
	park_wait(&holder->park, 1);
}

TEST(migrate, locked_page_is_busy)
{
	struct world w;
	pfn_t pfn;
	struct mm_stats stats;
	struct holder holder;
	struct kthread t;

	make_world(&w, 16);
	pfn = mm_lookup_pfn(w.mm, page(1));
	start_holder(&holder, &t, w.phys, pfn);
	expect_eq(migrate_frame(w.phys, pfn), -EBUSY);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 0);
	expect_eq(mm_migrate_range(w.mm, page(0), 3 * PAGE_SIZE), 2);
	expect_eq(mm_lookup_pfn(w.mm, page(1)), pfn);
	expect_eq(refs(w.phys, pfn), 2);
	park_release(&holder.park);
	kthread_join(&t);
	mm_get_stats(w.mm, &stats);
	expect_eq(stats.migrate_busy, 1);
	expect_eq(stats.pages_migrated, 2);

	/* A frozen one is not free. */
	expect(trylock_frame(w.phys, pfn));
	expect(frame_ref_freeze(pfn_to_frame(w.phys, pfn), 2));
	expect_eq(migrate_frame(w.phys, pfn), -EBUSY);
	frame_ref_unfreeze(pfn_to_frame(w.phys, pfn), 2);
	unlock_frame(w.phys, pfn);
	expect_filled(w.mm, 8);
	end_world(&w);
}

struct mover {
	struct address_space *mapping;
	int ret;
};

static void move_page_1(void *arg)
{
	struct mover *mover = arg;

	mover->ret = migrate_mapping_page(mover->mapping, 1);
}

/* What is asked for is that page, and its frame may be busy: there is no other to take. */
TEST(migrate, locked_page_of_a_mapping_is_waited_for)
{
	struct world w;
	struct mover mover;
	struct holder holder;
	struct kthread t[2];
	pfn_t pfn;

	make_world(&w, 16);
	pfn = mm_lookup_pfn(w.mm, page(1));
	start_holder(&holder, &t[0], w.phys, pfn);
	mover = (struct mover){.mapping = w.mapping};
	expect_eq(kthread_run(&t[1], "mover", move_page_1, &mover), 0);
	until_others_sleep();
	expect_eq(mm_lookup_pfn(w.mm, page(1)), pfn);
	park_release(&holder.park);
	kthread_join(&t[0]);
	kthread_join(&t[1]);
	expect_eq(mover.ret, 0);
	expect_ne(mm_lookup_pfn(w.mm, page(1)), pfn);
	expect_filled(w.mm, 8);
	end_world(&w);
}

/* As another who moves it has it, in the moment after this range read the entry. */
TEST(migrate, frozen_page_is_busy)
{
	struct world w;
	pfn_t pfn;
	int count;

	make_world(&w, 32);
	pfn = mm_lookup_pfn(w.mm, page(1));
	count = refs(w.phys, pfn);
	expect(frame_ref_freeze(pfn_to_frame(w.phys, pfn), count));
	expect_eq(mm_migrate_range(w.mm, page(1), PAGE_SIZE), 0);
	expect_eq(refs(w.phys, pfn), 0);
	expect_eq(atomic64_read(&w.mm->nr_migrate_busy), 1);
	frame_ref_unfreeze(pfn_to_frame(w.phys, pfn), count);
	expect_eq(mm_migrate_range(w.mm, page(1), PAGE_SIZE), 1);
	expect_filled(w.mm, 8);
	end_world(&w);
}

TEST(migrate, without_a_free_frame)
{
	struct world w;
	pfn_t last;

	make_world(&w, 9);
	last = phys_alloc(w.phys);
	expect_eq(migrate_frame(w.phys, mm_lookup_pfn(w.mm, page(0))), -ENOMEM);
	expect_eq(migrate_mapping_page(w.mapping, 0), -ENOMEM);
	expect_eq(mm_migrate_range(w.mm, page(0), 8 * PAGE_SIZE), -ENOMEM);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 0);
	expect_filled(w.mm, 8);

	/* One is enough for all, one after the other. */
	phys_put(w.phys, last);
	expect_eq(mm_migrate_range(w.mm, page(0), 8 * PAGE_SIZE), 8);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 8);
	expect_eq(mm_lookup_pfn(w.mm, page(0)), last);
	expect_filled(w.mm, 8);
	end_world(&w);
}

static void take_the_last(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	pfn_t *last = cn->arg;

	(void)range;
	*last = phys_alloc(cn->mn.mm->phys);
}

/* Out of frames after the first page: what moved is told, and not that there are no more. */
TEST(migrate, without_a_second_free_frame)
{
	struct world w;
	pfn_t last = INVALID_PFN;

	make_world(&w, 10);
	w.phys->reclaim.min = 1; /* not for migrations: the frame that page 0 leaves will not do */
	w.cn.arg = &last;
	w.cn.on_start = take_the_last;
	expect_eq(mm_migrate_range(w.mm, page(0), 8 * PAGE_SIZE), 1);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 1);
	expect_ne(last, INVALID_PFN);
	expect_filled(w.mm, 8);
	phys_put(w.phys, last);
	end_world(&w);
}

TEST(migrate, range_checks_and_skips_what_is_not_there)
{
	struct world w;

	make_world(&w, 32);
	expect_eq(mm_migrate_range(w.mm, page(0) + 1, PAGE_SIZE), -EINVAL);
	expect_eq(mm_migrate_range(w.mm, page(0), PAGE_SIZE + 1), -EINVAL);
	expect_eq(mm_migrate_range(w.mm, page(0), -page(0)), -EINVAL);
	expect_eq(mm_migrate_range(w.mm, page(0), 0), 0);
	expect_eq(mm_migrate_range(w.mm, page(8), 8 * PAGE_SIZE), 0);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 0);

	expect_eq(mm_zap_range(w.mm, page(0), 2 * PAGE_SIZE), 2);
	expect_eq(mm_zap_range(w.mm, page(3), PAGE_SIZE), 1);
	/* Holes in the range are no error; the window spans what was found. */
	expect_eq(mm_migrate_range(w.mm, 0, HVA_MAX), 5);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 1);
	expect_eq(w.cn.start, page(2));
	expect_eq(w.cn.end, page(8));
	expect_filled(w.mm, 8);
	end_world(&w);
}

TEST(migrate, large_range_goes_in_batches)
{
	struct phys *phys = test_phys(600);
	struct mm_struct *mm = test_mm(phys);
	struct counting_notifier cn = {.on_start = check_still_mapped, .on_end = check_unmapped};
	pfn_t old[200];

	expect_eq(mm_mmap(mm, page(0), 200 * PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&cn, mm);
	fill(mm, 200);
	for (uint64_t i = 0; i < 200; i++)
		old[i] = mm_lookup_pfn(mm, page(i));
	expect_eq(mm_migrate_range(mm, page(0), 200 * PAGE_SIZE), 200);
	expect_eq(cn.starts[MMU_NOTIFY_MIGRATE].counter, 4); /* 64 + 64 + 64 + 8 */
	for (uint64_t i = 0; i < 200; i++) {
		expect_ne(mm_lookup_pfn(mm, page(i)), old[i]);
		expect(test_page_is(phys, old[i], PHYS_POISON));
	}
	expect_filled(mm, 200);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_phys_done(phys);
}

TEST(migrate, page_of_two_mms_moves_in_both)
{
	struct world w;
	struct mm_struct *mm2;
	struct counting_notifier cn2 = {.on_start = check_still_mapped, .on_end = check_unmapped};
	struct mm_stats stats;

	make_world(&w, 32);
	w.cn.on_start = check_still_mapped;
	mm2 = test_mm(w.phys);
	expect_eq(mm_mmap(mm2, page(100), 4 * PAGE_SIZE, MM_PROT_READ, w.mapping, 0), 0);
	expect_eq(mm_mmap(mm2, page(200), 2 * PAGE_SIZE, RW, w.mapping, 1),
		  0); /* pages 1, 2 again */
	counting_register(&cn2, mm2);
	for (uint64_t i = 0; i < 3; i++)
		expect_eq(test_read(mm2, page(100 + i)), i + 1);
	expect_eq(test_read(mm2, page(200)), 2);

	/* By frame: one window for each mapping. */
	expect_eq(migrate_frame(w.phys, mm_lookup_pfn(w.mm, page(1))), 0);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 1);
	expect_eq(cn2.starts[MMU_NOTIFY_MIGRATE].counter, 2);
	expect_eq(mm_lookup_pfn(mm2, page(101)), mm_lookup_pfn(w.mm, page(1)));
	expect_eq(mm_lookup_pfn(mm2, page(200)), mm_lookup_pfn(w.mm, page(1)));
	expect_eq(mapcount(w.phys, mm_lookup_pfn(w.mm, page(1))), 3);
	expect_eq(refs(w.phys, mm_lookup_pfn(w.mm, page(1))), 4);
	/* Rights stay those of each mapping. */
	expect(!pte_allows(*pgtable_lookup(mm2->pgtable, page(101)), true));
	expect(pte_allows(*pgtable_lookup(mm2->pgtable, page(200)), true));

	/* By range of one: a window for all of it here, one for each mapping there. */
	expect_eq(mm_migrate_range(w.mm, page(0), 4 * PAGE_SIZE), 4);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 2);
	expect_eq(cn2.starts[MMU_NOTIFY_MIGRATE].counter, 2 + 4);

	/* By range of the one that maps a page twice: it moves once. */
	expect_eq(mm_migrate_range(mm2, page(100), 101 * PAGE_SIZE), 3);
	expect_eq(w.cn.starts[MMU_NOTIFY_MIGRATE].counter, 2 + 3);
	expect_eq(cn2.starts[MMU_NOTIFY_MIGRATE].counter, 6 + 1 + 1);
	for (uint64_t i = 0; i < 3; i++)
		expect_eq(mm_lookup_pfn(mm2, page(100 + i)), mm_lookup_pfn(w.mm, page(i)));
	expect_eq(mm_lookup_pfn(mm2, page(200)), mm_lookup_pfn(w.mm, page(1)));
	mm_get_stats(mm2, &stats);
	expect_eq(stats.pages_migrated, 2 + 4 + 4);
	mm_get_stats(w.mm, &stats);
	expect_eq(stats.pages_migrated, 1 + 4 + 3);

	expect_filled(w.mm, 8);
	counting_expect_paired(&cn2);
	mmu_notifier_unregister(&cn2.mn, mm2);
	mmput(mm2);
	end_world(&w);
}

/*
 * Races staged with the help of a second mm, whose start callback runs while the first mm's entry
 * is a migration entry already: the reverse map lists the mappings in the order in which they were
 * made.
 */
struct staged {
	struct world w;
	struct mm_struct *mm2;
	struct counting_notifier cn2;
	struct kthread thread;
	hva_t hva;
	pfn_t old;
	atomic_t done;
	uint64_t value;
	long ret;
};

static void stage(struct staged *s, uint64_t shared_page)
{
	memset(s, 0, sizeof(*s));
	make_world(&s->w, 32);
	s->mm2 = test_mm(s->w.phys);
	expect_eq(mm_mmap(s->mm2, page(0), PAGE_SIZE, RW, s->w.mapping, shared_page), 0);
	expect_eq(test_read(s->mm2, page(0)), shared_page + 1);
	s->cn2.arg = s;
	counting_register(&s->cn2, s->mm2);
}

static void end_stage(struct staged *s)
{
	expect_eq(s->cn2.starts[MMU_NOTIFY_MIGRATE].counter, 1);
	counting_expect_paired(&s->cn2);
	mmu_notifier_unregister(&s->cn2.mn, s->mm2);
	mmput(s->mm2);
	end_world(&s->w);
}

static void read_thread(void *arg)
{
	struct staged *s = arg;

	s->value = test_read(s->w.mm, s->hva);
	atomic_set(&s->done, 1);
}

static void read_mid_migration(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct staged *s = cn->arg;
	uint64_t value;

	(void)range;
	expect_eq(mm_lookup_pfn(s->w.mm, s->hva), INVALID_PFN);
	expect_eq(mm_read64_atomic(s->w.mm, s->hva, &value), -EAGAIN);
	expect_eq(kthread_run(&s->thread, "read", read_thread, s), 0);
	/* It waits, and without a reference: the move succeeds. */
	while (!READ_ONCE(frame_waitqueue(s->w.phys, s->old)->waiters))
		sched_yield();
	expect_eq(atomic_read(&s->done), 0);
}

TEST(migrate, fault_waits_for_the_new_frame)
{
	struct staged s;

	stage(&s, 2);
	s.cn2.on_start = read_mid_migration;
	s.hva = page(2);
	s.old = mm_lookup_pfn(s.w.mm, s.hva);
	expect_eq(migrate_frame(s.w.phys, s.old), 0);
	kthread_join(&s.thread);
	expect_eq(s.value, 3);
	expect_ne(mm_lookup_pfn(s.w.mm, s.hva), s.old);
	end_stage(&s);
}

static void zap_thread(void *arg)
{
	struct staged *s = arg;

	s->ret = mm_zap_range(s->w.mm, s->hva, PAGE_SIZE);
}

static void zap_mid_migration(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct staged *s = cn->arg;

	(void)range;
	expect_eq(mm_lookup_pfn(s->w.mm, s->hva), INVALID_PFN);
	expect_eq(kthread_run(&s->thread, "zap", zap_thread, s), 0);
	kthread_join(&s->thread);
	expect_eq(s->ret, 1);
}

TEST(migrate, zap_of_a_shared_page_on_the_move_sticks)
{
	struct staged s;

	stage(&s, 2);
	s.cn2.on_start = zap_mid_migration;
	s.hva = page(2);
	expect_eq(migrate_frame(s.w.phys, mm_lookup_pfn(s.w.mm, s.hva)), 0);
	expect_eq(mm_lookup_pfn(s.w.mm, s.hva), INVALID_PFN);
	expect_ne(mm_lookup_pfn(s.mm2, page(0)), INVALID_PFN);
	expect_filled(s.w.mm, 8);
	end_stage(&s);
}

/* The range moves page 3, whose other window is the stage, and then page 4, which is private. */
TEST(migrate, zap_of_a_private_page_on_the_move_drops_its_contents)
{
	struct staged s;

	stage(&s, 3);
	s.cn2.on_start = zap_mid_migration;
	s.hva = page(4);
	expect_eq(phys_nr_free(s.w.phys), 24);
	expect_eq(mm_migrate_range(s.w.mm, page(3), 2 * PAGE_SIZE), 2);
	expect_eq(mm_lookup_pfn(s.w.mm, s.hva), INVALID_PFN);
	expect_eq(phys_nr_free(s.w.phys), 25);
	expect_eq(test_read(s.w.mm, s.hva), 0);
	end_stage(&s);
}

static void pin_mid_migration(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct staged *s = cn->arg;

	phys_get(s->w.phys, mm_lookup_pfn(range->mm, range->start));
}

/* The reference comes after the first mapping was taken away: both are put back. */
TEST(migrate, failed_freeze_restores_every_mapping)
{
	struct staged s;
	pte_t pte, pte2;
	pfn_t pfn;

	stage(&s, 2);
	s.cn2.on_start = pin_mid_migration;
	pte = *pgtable_lookup(s.w.mm->pgtable, page(2));
	pte2 = *pgtable_lookup(s.mm2->pgtable, page(0));
	pfn = pte_pfn(pte);
	expect_eq(migrate_frame(s.w.phys, pfn), -EBUSY);
	expect_eq(*pgtable_lookup(s.w.mm->pgtable, page(2)), pte);
	expect_eq(*pgtable_lookup(s.mm2->pgtable, page(0)), pte2);
	expect_eq(refs(s.w.phys, pfn), 4);
	expect_eq(mapcount(s.w.phys, pfn), 2);
	phys_put(s.w.phys, pfn);
	expect_filled(s.w.mm, 8);
	end_stage(&s);
}
