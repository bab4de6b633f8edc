/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing back: what is in the file after a sync, who is told, and that no store is lost. */
#include <gnomon/swap.h>

#include "tests/support/file_fixture.h"

#include "notifier/frame.h"
#include "tests/support/asleep.h"
#include "tests/support/step.h"
#include "tests/support/told.h"

TEST(file_sync, writes_what_is_dirty)
{
	struct file_rig rig = file_rig_init(8, 16);

	for (uint64_t n = 0; n < 8; n += 2)
		test_write(rig.mm, file_page(n) + 16, n + 1);
	test_read(rig.mm, file_page(1));
	expect_eq(address_space_sync(rig.mapping, 0, 4), 2);
	expect_eq(test_file_read(rig.fd, 16), 1);
	expect_eq(test_file_read(rig.fd, 2 * PAGE_SIZE + 16), 3);
	expect_eq(test_file_read(rig.fd, 4 * PAGE_SIZE + 16), file_word(4));
	expect_eq(address_space_sync(rig.mapping, 0, 4), 0);
	expect_eq(address_space_sync(rig.mapping, 4, 4), 2);
	expect_eq(test_file_read(rig.fd, 6 * PAGE_SIZE + 16), 7);
	expect_eq(test_file_read(rig.fd, 6 * PAGE_SIZE + 8), file_word(6));
	/* And again, once something was written again. */
	test_write(rig.mm, file_page(6) + 16, 70);
	expect_eq(address_space_sync(rig.mapping, 0, 8), 1);
	expect_eq(test_file_read(rig.fd, 6 * PAGE_SIZE + 16), 70);
	expect_eq(atomic_read(&file_calls.writes), 5);

	expect_eq(address_space_sync(rig.mapping, 8, 0), 0);
	expect_eq(address_space_sync(rig.mapping, 8, 1), -EINVAL);
	expect_eq(address_space_sync(rig.mapping, 9, 0), -EINVAL);
	expect_eq(address_space_sync(rig.mapping, 1, UINT64_MAX), -EINVAL);
	file_rig_done(&rig);
}

TEST(file_sync, an_object_without_a_file)
{
	struct phys *phys = test_phys(4);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 2);

	expect_eq(mm_mmap(mm, FILE_BASE, 2 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(test_read(mm, FILE_BASE), 0);
	expect(test_writable(mm, FILE_BASE));
	expect(!address_space_page_dirty(mapping, 0));
	test_write(mm, FILE_BASE, 1);
	expect_eq(address_space_sync(mapping, 0, 2), 0);
	expect_eq(mm_msync(mm, FILE_BASE, 2 * PAGE_SIZE), 0);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* Who may write is told, of that page and no more, and asks again; nobody else. */
TEST(file_sync, who_is_told)
{
	struct file_rig rig = file_rig_init(8, 24);
	struct mm_struct *writer = test_mm(rig.phys), *reader = test_mm(rig.phys);
	struct mm_struct *private = test_mm(rig.phys);
	struct told by_rig = {0}, by_writer = {0}, by_reader = {0}, by_private = {0};
	pfn_t pfn;

	/* The same pages at another place, twice. */
	expect_eq(mm_mmap(writer, file_page(100), 2 * PAGE_SIZE, RW, rig.mapping, 2), 0);
	expect_eq(mm_mmap(writer, file_page(200), 2 * PAGE_SIZE, RW, rig.mapping, 2), 0);
	expect_eq(mm_mmap(reader, file_page(0), 8 * PAGE_SIZE, RW, rig.mapping, 0), 0);
	expect_eq(mm_mmap_flags(private, file_page(0), 8 * PAGE_SIZE, RW, MM_MAP_PRIVATE,
				rig.mapping, 0),
		  0);
	test_write(rig.mm, file_page(3), 1);
	test_write(writer, file_page(101), 2);
	test_write(writer, file_page(201), 3);
	expect_eq(test_read(reader, file_page(3)), 3);
	expect_eq(test_read(private, file_page(3)), 3);
	test_write(private, file_page(4), 4);
	told_register(&by_rig, rig.mm);
	told_register(&by_writer, writer);
	told_register(&by_reader, reader);
	told_register(&by_private, private);

	pfn = mm_lookup_pfn(reader, file_page(3));
	expect_eq(address_space_sync(rig.mapping, 0, 8), 1);
	expect_told(&by_rig, 0, MMU_NOTIFY_PROTECTION_PAGE, file_page(3), file_page(4));
	expect_told(&by_writer, 0, MMU_NOTIFY_PROTECTION_PAGE, file_page(101), file_page(102));
	expect_told(&by_writer, 1, MMU_NOTIFY_PROTECTION_PAGE, file_page(201), file_page(202));
	/* The page stays where it is, for all of them. */
	expect_eq(mm_lookup_pfn(rig.mm, file_page(3)), pfn);
	expect_eq(mm_lookup_pfn(writer, file_page(201)), pfn);
	expect(!test_writable(rig.mm, file_page(3)) && !test_writable(writer, file_page(101)));
	expect(!test_writable(writer, file_page(201)));
	/* Only one of them asks again. */
	test_write(writer, file_page(201), 5);
	expect_eq(address_space_sync(rig.mapping, 3, 1), 1);
	expect_eq(address_space_sync(rig.mapping, 3, 1), 0);
	expect_told(&by_writer, 2, MMU_NOTIFY_PROTECTION_PAGE, file_page(201), file_page(202));

	told_unregister(&by_rig, 1, rig.mm);
	told_unregister(&by_writer, 3, writer);
	told_unregister(&by_reader, 0, reader);
	told_unregister(&by_private, 0, private);
	mmput(writer);
	mmput(reader);
	mmput(private);
	file_rig_done(&rig);
	expect_eq(atomic_read(&file_calls.writes), 2);
}

/*
 * The ladder in file_sync.c: a store that is under way when the page is written. A pin that was had
 * for writing is what mm_write() holds at that moment.
 */
TEST(file_sync, a_write_that_is_under_way)
{
	struct file_rig rig = file_rig_init(1, 4);
	uint64_t *word;
	pfn_t pfn;

	expect_eq(mm_pin_page(rig.mm, file_page(0), true, &pfn), 0);
	expect_eq(address_space_sync(rig.mapping, 0, 1), 1);
	expect(!test_writable(rig.mm, file_page(0)));
	expect_eq(test_file_read(rig.fd, 0), file_word(0));
	word = phys_map(rig.phys, pfn);
	WRITE_ONCE(*word, 42);
	mm_unpin_page(rig.mm, pfn, true);

	expect_eq(address_space_sync(rig.mapping, 0, 1), 1);
	expect_eq(test_file_read(rig.fd, 0), 42);
	expect_eq(address_space_sync(rig.mapping, 0, 1), 0);
	file_rig_done(&rig);
}

/* What is pinned for long is in the file after each sync, as it was then. */
TEST(file_sync, a_page_of_a_device)
{
	struct file_rig rig = file_rig_init(1, 4);
	uint64_t *word;
	pfn_t pfn;

	expect_eq(mm_pin_page(rig.mm, file_page(0), true, &pfn), 0);
	word = phys_map(rig.phys, pfn);
	for (uint64_t i = 1; i < 5; i++) {
		WRITE_ONCE(*word, i);
		expect_eq(address_space_sync(rig.mapping, 0, 1), 1);
		expect_eq(test_file_read(rig.fd, 0), i);
	}
	mm_unpin_page(rig.mm, pfn, true);
	file_rig_done(&rig);
}

TEST(file_sync, an_error_leaves_the_page_dirty)
{
	struct file_rig rig = file_rig_init(3, 8);

	for (uint64_t n = 0; n < 3; n++)
		test_write(rig.mm, file_page(n), 50 + n);
	atomic_set(&file_calls.write_errno, ENOSPC);
	expect_eq(address_space_sync(rig.mapping, 0, 3), -ENOSPC);
	expect_eq(mm_msync(rig.mm, file_page(0), PAGE_SIZE), -ENOSPC);
	for (uint64_t n = 0; n < 3; n++) {
		expect(address_space_page_dirty(rig.mapping, n));
		expect_eq(test_file_read(rig.fd, n * PAGE_SIZE), file_word(n));
	}
	atomic_set(&file_calls.write_errno, 0);
	file_calls.writes_nothing = true;
	expect_eq(address_space_sync(rig.mapping, 0, 3), -EIO);
	expect(address_space_page_dirty(rig.mapping, 0));
	file_calls.writes_nothing = false;
	/* Nothing was lost, written to meanwhile or not. */
	test_write(rig.mm, file_page(1), 60);
	expect_eq(address_space_sync(rig.mapping, 0, 3), 3);
	expect_eq(test_file_read(rig.fd, 0), 50);
	expect_eq(test_file_read(rig.fd, PAGE_SIZE), 60);
	expect_eq(test_file_read(rig.fd, 2 * PAGE_SIZE), 52);
	file_rig_done(&rig);
}

struct accessed {
	struct step step;
	pte_t *ptep;
	unsigned int at;
};

static void access_here(struct step *step)
{
	struct accessed *a = step->arg;

	if (step->nr < a->at)
		return;
	step->over = true;
	expect(pte_touch(a->ptep, pte_load(a->ptep), false));
}

static void step_in_window(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct accessed *a = cn->arg;

	(void)range;
	step_begin(&a->step);
}

static void step_no_more(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	(void)cn;
	(void)range;
	step_end();
}

/* Somebody reads the page between any two instructions of what takes the right to write: that goes
 * all the same, and that it was read is known. */
TEST(file_sync, an_access_while_the_right_goes)
{
	struct accessed a = {.step = {.at_each = access_here, .arg = &a}};
	struct counting_notifier cn = {.on_start = step_in_window,
				       .on_end = step_no_more,
				       .arg = &a};
	struct file_rig rig;

	step_skip();
	rig = file_rig_init(1, 4);
	test_read(rig.mm, file_page(0));
	a.ptep = pgtable_lookup(rig.mm->pgtable, file_page(0));
	counting_register(&cn, rig.mm);
	do {
		pte_t pte;

		test_write(rig.mm, file_page(0), a.at);
		spin_lock(&rig.mm->page_table_lock);
		pte = pte_load(a.ptep);
		expect(change_pte(rig.mm, file_page(0), a.ptep, &pte, pte & ~PTE_ACCESSED));
		spin_unlock(&rig.mm->page_table_lock);
		a.at += test_long() ? 1 : 17;
		expect_eq(address_space_sync(rig.mapping, 0, 1), 1);
		pte = pte_load(a.ptep);
		expect_eq(pte & (PTE_WRITE | PTE_DIRTY), 0);
		expect_eq(!!(pte & PTE_ACCESSED), a.step.over);
	} while (a.step.over);
	expect_ge(a.at, 50);
	mmu_notifier_unregister(&cn.mn, rig.mm);
	file_rig_done(&rig);
}

struct reclaimed {
	struct step step;
	struct phys *phys;
	unsigned int at;
	bool gone;
};

#ifdef CONFIG_LOCKDEP
static void reclaim_here(struct step *step)
{
	struct reclaimed *r = step->arg;

	if (current_thread()->nr_held)
		step->over = true; /* with the first lock on the way to the page */
	if (step->over || step->nr < r->at || current_thread()->lockdep_busy)
		return;
	step->over = true;
	r->gone = phys_reclaim(r->phys, 1) == 1;
}
#endif

/* Reclaim takes the page, which was found dirty, or not yet: then the file has it already. */
TEST(file_sync, the_page_is_taken_before_it_is_locked)
{
#ifdef CONFIG_LOCKDEP
	struct reclaimed r = {.step = {.at_each = reclaim_here, .arg = &r}};
	struct file_rig rig;
	unsigned int gone = 0;

	step_skip();
	rig = file_rig_init(1, 4);
	r.phys = rig.phys;
	do {
		long written;

		test_write(rig.mm, file_page(0), ++r.at);
		r.gone = false;
		step_begin(&r.step);
		written = address_space_sync(rig.mapping, 0, 1);
		step_end();
		expect_eq(written, !r.gone);
		expect_eq(test_file_read(rig.fd, 0), r.at);
		gone += r.gone;
	} while (r.gone);
	expect_ge(gone, 20);
	file_rig_done(&rig);
#else
	skip("which locks are held is known in debug builds");
#endif
}

/* ---- two at one page ---- */

struct second {
	struct file_rig *rig;
	atomic_t tid;
	atomic_t done;
};

static void do_sync(void *arg)
{
	struct second *second = arg;

	expect_ge(address_space_sync(second->rig->mapping, 0, 1), 0);
	atomic_set_release(&second->done, 1);
}

static void do_sync_second(void *arg)
{
	struct second *second = arg;

	atomic_set(&second->tid, gettid());
	expect_eq(address_space_sync(second->rig->mapping, 0, 1), 0);
	/* "The file has it." */
	expect_eq(test_file_read(second->rig->fd, 0), 7);
	atomic_set_release(&second->done, 1);
}

static void do_write_second(void *arg)
{
	struct second *second = arg;

	atomic_set(&second->tid, gettid());
	test_write(second->rig->mm, file_page(0), 8);
	atomic_set_release(&second->done, 1);
}

/* While one sync is about to write the page, @fn meets it: and has to wait. */
static void meet_a_sync(struct file_rig *rig, void (*fn)(void *arg))
{
	struct second first = {.rig = rig}, second = {.rig = rig};
	struct kthread threads[2];
	struct park park;

	park_init(&park);
	test_write(rig->mm, file_page(0), 7);
	file_calls.before_write = &park;
	expect_eq(kthread_run(&threads[0], "first", do_sync, &first), 0);
	park_wait(&park, 1);
	expect_eq(kthread_run(&threads[1], "second", fn, &second), 0);
	while (!atomic_read(&second.tid))
		sched_yield();
	while (!is_asleep(atomic_read(&second.tid)))
		expect(!atomic_read_acquire(&second.done));
	park_release(&park);
	for (int i = 0; i < 2; i++)
		kthread_join(&threads[i]);
	file_calls.before_write = NULL;
}

/* A sync that finds nothing to do says that the file has it. */
TEST(file_sync, waits_for_another_sync)
{
	struct file_rig rig = file_rig_init(1, 4);

	meet_a_sync(&rig, do_sync_second);
	file_rig_done(&rig);
}

/* A page that is being written does not change, and what comes after is dirty. */
TEST(file_sync, a_write_waits_for_it)
{
	struct file_rig rig = file_rig_init(1, 4);

	meet_a_sync(&rig, do_write_second);
	expect_eq(test_file_read(rig.fd, 0), 7);
	expect(address_space_page_dirty(rig.mapping, 0));
	expect_eq(address_space_sync(rig.mapping, 0, 1), 1);
	expect_eq(test_file_read(rig.fd, 0), 8);
	file_rig_done(&rig);
}

/* ---- the other ways in ---- */

TEST(file_sync, msync)
{
	struct file_rig rig = file_rig_init(8, 16);

	expect_eq(mm_mmap_flags(rig.mm, file_page(8), 2 * PAGE_SIZE, RW, MM_MAP_PRIVATE,
				rig.mapping, 0),
		  0);
	expect_eq(mm_mmap(rig.mm, file_page(10), PAGE_SIZE, RW, NULL, 0), 0);
	for (uint64_t n = 0; n < 11; n++)
		test_write(rig.mm, file_page(n), 100 + n);
	/* A part of an area; areas that have no file to go to. */
	expect_eq(mm_msync(rig.mm, file_page(2), PAGE_SIZE + 1), 0);
	expect_eq(atomic_read(&file_calls.writes), 2);
	expect_eq(test_file_read(rig.fd, 2 * PAGE_SIZE), 102);
	expect_eq(test_file_read(rig.fd, 3 * PAGE_SIZE), 103);
	expect_eq(test_file_read(rig.fd, 4 * PAGE_SIZE), file_word(4));
	expect_eq(mm_msync(rig.mm, file_page(8), 3 * PAGE_SIZE), 0);
	expect_eq(test_file_read(rig.fd, 0), file_word(0));
	/* A hole, at the beginning, between and at the end: the rest is done. */
	expect_eq(mm_munmap(rig.mm, file_page(5), PAGE_SIZE), 0);
	expect_eq(mm_msync(rig.mm, file_page(5), 2 * PAGE_SIZE), -ENOMEM);
	expect_eq(test_file_read(rig.fd, 6 * PAGE_SIZE), 106);
	expect_eq(mm_msync(rig.mm, file_page(4), 4 * PAGE_SIZE), -ENOMEM);
	expect_eq(test_file_read(rig.fd, 4 * PAGE_SIZE), 104);
	expect_eq(test_file_read(rig.fd, 7 * PAGE_SIZE), 107);
	expect_eq(mm_msync(rig.mm, file_page(10), 2 * PAGE_SIZE), -ENOMEM);
	expect_eq(mm_msync(rig.mm, file_page(20), PAGE_SIZE), -ENOMEM);
	expect_eq(mm_msync(rig.mm, 0, 2 * HVA_MAX), -ENOMEM);
	expect_eq(mm_msync(rig.mm, PAGE_SIZE, -PAGE_SIZE), -ENOMEM); /* wraps */
	expect_eq(mm_msync(rig.mm, file_page(0) + 1, PAGE_SIZE), -EINVAL);
	expect_eq(mm_msync(rig.mm, file_page(0), 0), 0);
	file_rig_done(&rig);
}

/* For who wants the frame: locked, unmapped, and clean afterwards, unless it is pinned. */
TEST(file_sync, one_page_for_its_frame)
{
	struct file_rig rig = file_rig_init(1, 4);
	pfn_t pfn, pinned;

	expect_eq(mm_pin_page(rig.mm, file_page(0), true, &pinned), 0);
	test_write(rig.mm, file_page(0), 31);
	expect_eq(mm_zap_range(rig.mm, file_page(0), PAGE_SIZE), 1);
	expect(address_space_find_page(rig.mapping, 0, &pfn));
	expect_eq(pfn, pinned);
	expect_eq(address_space_writeback_page(rig.mapping, pfn_to_frame(rig.phys, pfn), pfn),
		  -EBUSY);
	expect_eq(test_file_read(rig.fd, 0), 31);
	expect(address_space_page_dirty(rig.mapping, 0));
	mm_unpin_page(rig.mm, pinned, true);
	atomic_set(&file_calls.write_errno, EIO);
	expect_eq(address_space_writeback_page(rig.mapping, pfn_to_frame(rig.phys, pfn), pfn),
		  -EIO);
	expect(address_space_page_dirty(rig.mapping, 0));
	atomic_set(&file_calls.write_errno, 0);
	expect_eq(address_space_writeback_page(rig.mapping, pfn_to_frame(rig.phys, pfn), pfn), 0);
	expect(!address_space_page_dirty(rig.mapping, 0));
	unlock_frame(rig.phys, pfn);
	phys_put(rig.phys, pfn);
	/* Nobody who makes a hole has to wait for what is over. */
	expect_eq(address_space_punch_hole(rig.mapping, 0, 1), 0);
	file_rig_done(&rig);
}

/* ---- with fewer frames than pages ---- */

/*
 * Reclaim drops what the file has, and writes what it does not have: so a file larger than the
 * machine can be read and written all over, without a swap file.
 */
TEST(file_sync, more_pages_than_frames)
{
	struct file_rig rig = file_rig_init(64, 16);

	for (uint64_t n = 0; n < 64; n++)
		expect_eq(test_read(rig.mm, file_page(n)), file_word(n));
	expect_eq(atomic_read(&file_calls.writes), 0);
	for (uint64_t n = 0; n < 64; n++)
		test_write(rig.mm, file_page(n), n + 1);
	expect_ge(atomic_read(&file_calls.writes), 64 - 16);
	for (uint64_t n = 0; n < 64; n++) {
		expect_eq(test_read(rig.mm, file_page(n)), n + 1);
		expect_eq(test_read(rig.mm, file_page(n) + 8), file_word(n));
	}
	expect_ge(address_space_sync(rig.mapping, 0, 64), 0);
	for (uint64_t n = 0; n < 64; n++)
		expect_eq(test_file_read(rig.fd, n * PAGE_SIZE), n + 1);
	file_rig_done(&rig);
}
