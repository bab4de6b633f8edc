/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holes in objects: what is gone, what stays, who is told of which range, and the races. */
#include <gnomon/swap.h>

#include <sys/stat.h>

#include "tests/support/file_fixture.h"

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "tests/support/asleep.h"
#include "tests/support/step.h"
#include "tests/support/told.h"

static int64_t blocks_of(int fd)
{
	struct stat st;

	expect_eq(fstat(fd, &st), 0);
	return st.st_blocks;
}

TEST(file_hole, memory_and_file_are_gone)
{
	struct file_rig rig = file_rig_init(6, 16);
	int64_t blocks = blocks_of(rig.fd);

	for (uint64_t n = 0; n < 5; n++)
		test_write(rig.mm, file_page(n) + 8, n);
	expect_eq(address_space_punch_hole(rig.mapping, 1, 3), 0);
	expect_eq(phys_nr_free(rig.phys), 16 - 2);
	expect_ge(blocks - blocks_of(rig.fd), 3 * (int64_t)PAGE_SIZE / 512);
	expect_eq(lseek(rig.fd, 0, SEEK_END), 6 * PAGE_SIZE);
	for (uint64_t n = 1; n < 4; n++) {
		expect_eq(mm_lookup_pfn(rig.mm, file_page(n)), INVALID_PFN);
		expect_eq(test_file_read(rig.fd, n * PAGE_SIZE + 16), 0);
		expect_eq(test_read(rig.mm, file_page(n) + 8), 0);
		expect_eq(test_read(rig.mm, file_page(n) + 16), 0);
	}
	expect_eq(test_read(rig.mm, file_page(0) + 16), file_word(0));
	expect_eq(test_read(rig.mm, file_page(4) + 8), 4);
	/* What was dirty there is not written any more. */
	expect_eq(address_space_sync(rig.mapping, 0, 6), 2);
	expect_eq(test_file_read(rig.fd, PAGE_SIZE + 8), 0);
	expect_eq(atomic_read(&file_calls.punches), 1);

	expect_eq(address_space_punch_hole(rig.mapping, 6, 0), 0);
	expect_eq(address_space_punch_hole(rig.mapping, 6, 1), -EINVAL);
	expect_eq(address_space_punch_hole(rig.mapping, 7, 0), -EINVAL);
	expect_eq(address_space_punch_hole(rig.mapping, 1, UINT64_MAX), -EINVAL);
	file_rig_done(&rig);
}

TEST(file_hole, in_an_object_without_a_file)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);

	expect_eq(mm_mmap(mm, FILE_BASE, 4 * PAGE_SIZE, RW, mapping, 0), 0);
	for (uint64_t n = 0; n < 4; n++)
		test_write(mm, file_page(n), n + 1);
	expect_eq(address_space_punch_hole(mapping, 1, 2), 0);
	expect_eq(phys_nr_free(phys), 6);
	for (uint64_t n = 0; n < 4; n++)
		expect_eq(test_read(mm, file_page(n)), n == 0 || n == 3 ? n + 1 : 0);
	test_write(mm, file_page(1), 9);
	expect_eq(test_read(mm, file_page(1)), 9);
	mmput(mm);
	/* Mapped nowhere. */
	expect_eq(address_space_punch_hole(mapping, 0, 4), 0);
	expect_eq(phys_nr_free(phys), 8);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* Each area is told of the part of the hole that it shows, where it shows it. */
TEST(file_hole, the_effective_range)
{
	struct file_rig rig = file_rig_init(16, 32);
	struct mm_struct *other = test_mm(rig.phys), *third = test_mm(rig.phys);
	struct told by_rig = {0}, by_other = {0}, by_third = {0};

	/* Pages 4 to 9 will go. Here 6 and 7, 0 to 5, and 9 alone; in the third none: 0-3, 10-15.
	 */
	expect_eq(mm_mmap(other, file_page(100), 2 * PAGE_SIZE, RW, rig.mapping, 6), 0);
	expect_eq(mm_mmap(other, file_page(200), 6 * PAGE_SIZE, RW, rig.mapping, 0), 0);
	expect_eq(mm_mmap_flags(other, file_page(300), 4 * PAGE_SIZE, RW, MM_MAP_PRIVATE,
				rig.mapping, 9),
		  0);
	expect_eq(mm_mmap(third, file_page(0), 4 * PAGE_SIZE, RW, rig.mapping, 0), 0);
	expect_eq(mm_mmap(third, file_page(50), 6 * PAGE_SIZE, RW, rig.mapping, 10), 0);
	for (uint64_t n = 0; n < 16; n++)
		test_write(rig.mm, file_page(n), n);
	for (uint64_t n = 0; n < 4; n++) {
		test_read(other, file_page(100 + n % 2));
		test_read(other, file_page(200 + n + 2));
		test_read(other, file_page(300 + n));
		test_read(third, file_page(n));
		test_read(third, file_page(50 + n));
	}
	told_register(&by_rig, rig.mm);
	told_register(&by_other, other);
	told_register(&by_third, third);
	expect_eq(address_space_punch_hole(rig.mapping, 4, 6), 0);
	expect_told(&by_rig, 0, MMU_NOTIFY_CLEAR, file_page(4), file_page(10));
	/* By the place in the object where the area begins. */
	expect_told(&by_other, 0, MMU_NOTIFY_CLEAR, file_page(204), file_page(206));
	expect_told(&by_other, 1, MMU_NOTIFY_CLEAR, file_page(100), file_page(102));
	expect_told(&by_other, 2, MMU_NOTIFY_CLEAR, file_page(300), file_page(301));
	told_unregister(&by_rig, 1, rig.mm);
	told_unregister(&by_other, 3, other);
	told_unregister(&by_third, 0, third);
	for (uint64_t n = 0; n < 16; n++)
		expect((mm_lookup_pfn(rig.mm, file_page(n)) == INVALID_PFN) == (n >= 4 && n < 10));
	expect_eq(mm_lookup_pfn(other, file_page(101)), INVALID_PFN);
	expect_eq(mm_lookup_pfn(other, file_page(300)), INVALID_PFN);
	expect_ne(mm_lookup_pfn(other, file_page(301)), INVALID_PFN);
	expect_ne(mm_lookup_pfn(other, file_page(203)), INVALID_PFN);
	mmput(other);
	mmput(third);
	file_rig_done(&rig);
}

/* A copy is its owner's (Linux: unmap_mapping_range() without even_cows). */
TEST(file_hole, private_copies_stay)
{
	struct file_rig rig = file_rig_init(3, 16);
	hva_t private = file_page(100);
	pfn_t copy;

	expect_eq(mm_mmap_flags(rig.mm, private, 3 * PAGE_SIZE, RW, MM_MAP_PRIVATE, rig.mapping, 0),
		  0);
	test_write(rig.mm, private, 5);
	expect_eq(test_read(rig.mm, private + PAGE_SIZE), file_word(1));
	copy = mm_lookup_pfn(rig.mm, private);
	expect_eq(address_space_punch_hole(rig.mapping, 0, 3), 0);
	expect_eq(mm_lookup_pfn(rig.mm, private), copy);
	expect_eq(test_read(rig.mm, private), 5);
	expect_eq(test_read(rig.mm, private + 8), file_word(0));
	expect_eq(test_read(rig.mm, private + PAGE_SIZE), 0);
	expect_eq(test_read(rig.mm, file_page(0)), 0);
	/* Without its copy it shows the hole. */
	expect_eq(mm_zap_range(rig.mm, private, PAGE_SIZE), 1);
	expect_eq(test_read(rig.mm, private + 8), 0);
	file_rig_done(&rig);
}

TEST(file_hole, who_has_it_pinned_keeps_a_page_of_nobody)
{
	struct file_rig rig = file_rig_init(1, 4);
	uint64_t *word;
	pfn_t pfn;

	expect_eq(mm_pin_page(rig.mm, file_page(0), true, &pfn), 0);
	word = phys_map(rig.phys, pfn);
	expect_eq(address_space_punch_hole(rig.mapping, 0, 1), 0);
	expect_eq(READ_ONCE(*word), file_word(0));
	WRITE_ONCE(*word, 1);
	expect_eq(test_read(rig.mm, file_page(0)), 0);
	expect_ne(mm_lookup_pfn(rig.mm, file_page(0)), pfn);
	expect_eq(migrate_frame(rig.phys, pfn), -ENOENT);
	expect_eq(phys_nr_free(rig.phys), 2);
	mm_unpin_page(rig.mm, pfn, true);
	expect_eq(phys_nr_free(rig.phys), 3);
	file_rig_done(&rig);
}

TEST(file_hole, an_error_changes_nothing)
{
	struct file_rig rig = file_rig_init(2, 8);
	struct told told = {0};

	test_write(rig.mm, file_page(0), 5);
	told_register(&told, rig.mm);
	atomic_set(&file_calls.punch_errno, EOPNOTSUPP);
	expect_eq(address_space_punch_hole(rig.mapping, 0, 2), -EOPNOTSUPP);
	expect_eq(mm_madvise(rig.mm, file_page(0), PAGE_SIZE, MM_MADV_REMOVE), -EOPNOTSUPP);
	expect_ne(mm_lookup_pfn(rig.mm, file_page(0)), INVALID_PFN);
	expect_eq(test_read(rig.mm, file_page(0)), 5);
	told_unregister(&told, 0, rig.mm);
	atomic_set(&file_calls.punch_errno, 0);
	atomic_set(&file_calls.interrupts, 2);
	expect_eq(address_space_punch_hole(rig.mapping, 0, 2), 0);
	expect_eq(test_read(rig.mm, file_page(0)), 0);
	file_rig_done(&rig);
}

TEST(file_hole, by_madvise)
{
	struct file_rig rig = file_rig_init(8, 24);

	expect_eq(mm_mmap_flags(rig.mm, file_page(8), PAGE_SIZE, RW, MM_MAP_PRIVATE, rig.mapping,
				0),
		  0);
	expect_eq(mm_mmap(rig.mm, file_page(9), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(rig.mm, file_page(10), PAGE_SIZE, MM_PROT_READ, rig.mapping, 0), 0);
	for (uint64_t n = 0; n < 10; n++)
		test_write(rig.mm, file_page(n), n + 1);
	expect_eq(mm_madvise(rig.mm, file_page(2), 2 * PAGE_SIZE, MM_MADV_REMOVE), 0);
	for (uint64_t n = 0; n < 8; n++) {
		expect_eq(test_read(rig.mm, file_page(n)), n / 2 == 1 ? 0 : n + 1);
		expect_eq(test_file_read(rig.fd, n * PAGE_SIZE), n / 2 == 1 ? 0 : file_word(n));
	}
	expect_eq(mm_madvise(rig.mm, file_page(8), PAGE_SIZE, MM_MADV_REMOVE), -EACCES);
	expect_eq(mm_madvise(rig.mm, file_page(9), PAGE_SIZE, MM_MADV_REMOVE), -EINVAL);
	expect_eq(mm_madvise(rig.mm, file_page(10), PAGE_SIZE, MM_MADV_REMOVE), -EACCES);
	expect_eq(test_read(rig.mm, file_page(10)), 1);
	/* A hole in the address space: the rest is done. By way of the place where it is shown. */
	expect_eq(mm_munmap(rig.mm, file_page(5), PAGE_SIZE), 0);
	expect_eq(mm_madvise(rig.mm, file_page(4), 3 * PAGE_SIZE, MM_MADV_REMOVE), -ENOMEM);
	expect_eq(test_read(rig.mm, file_page(4)), 0);
	expect_eq(test_read(rig.mm, file_page(6)), 0);
	expect_eq(test_read(rig.mm, file_page(7)), 8);
	expect_eq(mm_mmap(rig.mm, file_page(20), PAGE_SIZE, RW, rig.mapping, 5), 0);
	expect_eq(test_read(rig.mm, file_page(20)), 6);
	expect_eq(mm_madvise(rig.mm, file_page(20), 1, MM_MADV_REMOVE), 0);
	expect_eq(test_read(rig.mm, file_page(20)), 0);
	file_rig_done(&rig);
}

/* ---- the ladders in file_hole.c ---- */

struct puncher {
	struct file_rig *rig;
	struct kthread thread;
	struct park *park; /* at the end of the first window, if any */
	struct counting_notifier cn;
	atomic_t tid, done, windows;
};

static void park_at_end(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct puncher *p = container_of(cn, struct puncher, cn);

	if (range->event == MMU_NOTIFY_CLEAR && atomic_inc_return(&p->windows) == 1)
		park_enter(p->park);
}

static void punch(void *arg)
{
	struct puncher *p = arg;

	atomic_set(&p->tid, gettid());
	expect_eq(address_space_punch_hole(p->rig->mapping, 0, 1), 0);
	atomic_set_release(&p->done, 1);
}

static void punch_until_asleep(struct puncher *p, struct file_rig *rig)
{
	*p = (struct puncher){.rig = rig};
	expect_eq(kthread_run(&p->thread, "punch", punch, p), 0);
	while (!atomic_read(&p->tid))
		sched_yield();
	while (!is_asleep(atomic_read(&p->tid)))
		expect(!atomic_read_acquire(&p->done));
}

static void expect_hole(struct file_rig *rig)
{
	expect_eq(test_read(rig->mm, file_page(0)), 0);
	expect_eq(test_file_read(rig->fd, 0), 0);
	expect_eq(mm_zap_range(rig->mm, file_page(0), PAGE_SIZE), 1);
	expect_eq(address_space_punch_hole(rig->mapping, 0, 1), 0);
	expect_eq(phys_nr_free(rig->phys), phys_nr_frames(rig->phys));
}

/* The page comes back between the window over the range and the end of the page. */
TEST(file_hole, a_fault_in_between)
{
	struct file_rig rig = file_rig_init(1, 4);
	struct puncher p = {.rig = &rig};
	struct mm_struct *other = test_mm(rig.phys);
	struct told by_other = {0};
	struct park park;

	/* Here it does not come back, so nobody is told of that. */
	expect_eq(mm_mmap(other, file_page(0), PAGE_SIZE, RW, rig.mapping, 0), 0);
	test_read(other, file_page(0));
	told_register(&by_other, other);
	park_init(&park);
	p.park = &park;
	p.cn.on_end = park_at_end;
	counting_register(&p.cn, rig.mm);
	test_write(rig.mm, file_page(0), 5);
	expect_eq(kthread_run(&p.thread, "punch", punch, &p), 0);
	park_wait(&park, 1);
	expect_eq(mm_lookup_pfn(rig.mm, file_page(0)), INVALID_PFN);
	expect_eq(test_read(rig.mm, file_page(0)), 5);
	park_release(&park);
	kthread_join(&p.thread);
	/* One window over the range, one for the page that had come back. */
	expect_eq(atomic64_read(&p.cn.starts[MMU_NOTIFY_CLEAR]), 2);
	expect_eq(mm_lookup_pfn(rig.mm, file_page(0)), INVALID_PFN);
	mmu_notifier_unregister(&p.cn.mn, rig.mm);
	told_unregister(&by_other, 1, other);
	mmput(other);
	expect_hole(&rig);
	file_rig_done(&rig);
}

static void park_in_move(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	if (range->event == MMU_NOTIFY_MIGRATE)
		park_enter(cn->arg);
}

static void move_page(void *arg)
{
	struct file_rig *rig = arg;

	expect_eq(migrate_mapping_page(rig->mapping, 0), 0);
}

/* The page is on its way: mapped nowhere, but for an entry that waits for it. */
TEST(file_hole, a_move_under_way)
{
	struct file_rig rig = file_rig_init(1, 4);
	struct counting_notifier cn = {.on_end = park_in_move};
	struct kthread mover;
	struct puncher p;
	struct park park;
	pte_t *ptep;

	park_init(&park);
	cn.arg = &park;
	counting_register(&cn, rig.mm);
	test_write(rig.mm, file_page(0), 5);
	ptep = pgtable_lookup(rig.mm->pgtable, file_page(0));
	expect_eq(kthread_run(&mover, "move", move_page, &rig), 0);
	park_wait(&park, 1);
	expect(pte_migration(pte_load(ptep)));
	punch_until_asleep(&p, &rig);
	expect(pte_none(pte_load(ptep)));
	park_release(&park);
	kthread_join(&mover);
	kthread_join(&p.thread);
	/* It did not come back, so there was no second look. */
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 1);
	mmu_notifier_unregister(&cn.mn, rig.mm);
	expect_hole(&rig);
	file_rig_done(&rig);
}

static void read_once(void *arg)
{
	struct file_rig *rig = arg;
	uint64_t word = test_read(rig->mm, file_page(0));

	expect(word == file_word(0) || word == 0);
}

/* Old contents are on their way from the file to the cache. */
TEST(file_hole, a_read_under_way)
{
	struct file_rig rig = file_rig_init(1, 4);
	struct kthread reader;
	struct puncher p;
	struct park park;

	park_init(&park);
	file_calls.after_read = &park;
	expect_eq(kthread_run(&reader, "reader", read_once, &rig), 0);
	park_wait(&park, 1);
	punch_until_asleep(&p, &rig);
	park_release(&park);
	kthread_join(&reader);
	kthread_join(&p.thread);
	expect_hole(&rig);
	file_rig_done(&rig);
}

static void sync_page_once(void *arg)
{
	struct file_rig *rig = arg;

	expect_eq(address_space_sync(rig->mapping, 0, 1), 1);
}

/* And from the cache to the file. */
TEST(file_hole, a_write_under_way)
{
	struct file_rig rig = file_rig_init(1, 4);
	struct kthread syncer;
	struct puncher p;
	struct park park;

	park_init(&park);
	test_write(rig.mm, file_page(0), 5);
	file_calls.before_write = &park;
	expect_eq(kthread_run(&syncer, "sync", sync_page_once, &rig), 0);
	park_wait(&park, 1);
	punch_until_asleep(&p, &rig);
	expect_eq(atomic_read(&file_calls.punches), 0);
	park_release(&park);
	kthread_join(&syncer);
	kthread_join(&p.thread);
	expect_hole(&rig);
	file_rig_done(&rig);
}

/* Reclaim would write a dirty page, and leave nothing behind that tells of it. */
TEST(file_hole, reclaim_in_between)
{
	struct file_rig rig = file_rig_init(1, 4);
	struct puncher p = {.rig = &rig};
	struct park park;

	park_init(&park);
	p.park = &park;
	p.cn.on_end = park_at_end;
	counting_register(&p.cn, rig.mm);
	test_write(rig.mm, file_page(0), 5);
	expect_eq(kthread_run(&p.thread, "punch", punch, &p), 0);
	park_wait(&park, 1);
	expect_eq(phys_reclaim(rig.phys, 1), 0);
	expect_eq(atomic_read(&file_calls.writes), 0);
	park_release(&park);
	kthread_join(&p.thread);
	mmu_notifier_unregister(&p.cn.mn, rig.mm);
	expect_hole(&rig);
	/* Otherwise it goes. */
	test_write(rig.mm, file_page(0), 6);
	expect_eq(phys_reclaim(rig.phys, 1), 1);
	expect_eq(test_file_read(rig.fd, 0), 6);
	file_rig_done(&rig);
}

/* ---- pages that are out ---- */

TEST(file_hole, what_is_swapped_out_is_gone_too)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);
	struct reclaim_stats stats;

	expect_eq(phys_swap_on(phys, "/tmp", 8), 0);
	expect_eq(mm_mmap(mm, FILE_BASE, 4 * PAGE_SIZE, RW, mapping, 0), 0);
	for (uint64_t n = 0; n < 4; n++)
		test_write(mm, file_page(n), n + 1);
	expect_eq(mm_madvise(mm, file_page(0), 4 * PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_used, 4);
	expect_eq(address_space_punch_hole(mapping, 1, 2), 0);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_used, 2);
	for (uint64_t n = 0; n < 4; n++)
		expect_eq(test_read(mm, file_page(n)), n == 0 || n == 3 ? n + 1 : 0);
	mmput(mm);
	address_space_put(mapping);
	phys_reclaim_stats(phys, &stats);
	expect_eq(stats.swap_used, 0);
	test_phys_done(phys);
}

struct comes_back {
	struct step step;
	struct address_space *mapping;
	unsigned int at;
	uint64_t was; /* the page that came */
	bool armed;
};

#ifdef CONFIG_LOCKDEP
static void come_back_here(struct step *step)
{
	struct comes_back *c = step->arg;
	pfn_t pfn;

	/* Whoever makes the hole holds no lock but that against writing back. */
	if (step->nr < c->at || current_thread()->lockdep_busy || current_thread()->nr_held != 1 ||
	    READ_ONCE(c->mapping->i_pages_lock.raw.state))
		return;
	c->at = step->nr;
	step->over = true;
	expect_eq(address_space_get_page(c->mapping, 0, &pfn), 0);
	c->was = *(uint64_t *)phys_map(c->mapping->phys, pfn);
	unlock_frame(c->mapping->phys, pfn);
	phys_put(c->mapping->phys, pfn);
}

static void step_from_here(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct comes_back *c = cn->arg;

	(void)range;
	if (c->armed)
		step_begin(&c->step);
}
#endif

/* A page is out, and somebody reads it between any two instructions of the hole, from the end of
 * its window on: what it was is gone all the same. */
TEST(file_hole, what_is_swapped_out_comes_back)
{
#ifdef CONFIG_LOCKDEP
	struct comes_back c = {.step = {.at_each = come_back_here, .arg = &c}};
	struct counting_notifier cn = {.on_end = step_from_here, .arg = &c};
	struct phys *phys;
	struct mm_struct *mm;
	unsigned int nr[2] = {0};

	step_skip();
	phys = test_phys(4);
	mm = test_mm(phys);
	c.mapping = test_mapping(phys, 1);
	expect_eq(phys_swap_on(phys, "/tmp", 4), 0);
	expect_eq(mm_mmap(mm, FILE_BASE, PAGE_SIZE, RW, c.mapping, 0), 0);
	counting_register(&cn, mm);
	do {
		test_write(mm, FILE_BASE, 1);
		expect_eq(mm_madvise(mm, FILE_BASE, PAGE_SIZE, MM_MADV_PAGEOUT), 0);
		expect_eq(address_space_peek(c.mapping, 0), INVALID_PFN);
		c.armed = true;
		address_space_punch_hole(c.mapping, 0, 1);
		step_end();
		c.armed = false;
		expect_eq(test_read(mm, FILE_BASE), 0);
		nr[c.was] += c.step.over;
		c.at += test_long() ? 1 : 5;
	} while (c.step.over);
	expect_ge(nr[1], 10);
	expect_ge(nr[0], 10);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	address_space_put(c.mapping);
	test_phys_done(phys);
#else
	skip("which locks are held is known in debug builds");
#endif
}
