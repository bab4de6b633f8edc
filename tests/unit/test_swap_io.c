// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What others do while a page is being read from the swap file, or written to it; and files that
 * behave oddly. The swap file's source is part of this test, with its calls of the system in hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <unistd.h>

#include "notifier/sync/atomic.h"
#include "tests/support/park.h"

static struct {
	struct park *after_read,
		*before_write; /* where the next one of its kind stays for a while */
	size_t at_most;	       /* bytes for each call */
	atomic_t interrupts;
	atomic_t reads, writes;
	bool no_tmpfile;
} io;

static struct park *take_park(struct park **park)
{
	return __atomic_exchange_n(park, NULL, __ATOMIC_SEQ_CST);
}

static bool interrupted(void)
{
	errno = EINTR;
	return atomic_read(&io.interrupts) && atomic_dec_return(&io.interrupts) >= 0;
}

static ssize_t test_pread(int fd, void *buf, size_t len, off_t at)
{
	struct park *park;
	ssize_t n;

	if (interrupted())
		return -1;
	n = (pread)(fd, buf, io.at_most && len > io.at_most ? io.at_most : len, at);
	atomic_inc(&io.reads);
	park = take_park(&io.after_read);
	if (park)
		park_enter(park);
	return n;
}

static ssize_t test_pwrite(int fd, const void *buf, size_t len, off_t at)
{
	struct park *park;

	if (interrupted())
		return -1;
	park = take_park(&io.before_write);
	if (park)
		park_enter(park);
	atomic_inc(&io.writes);
	return (pwrite)(fd, buf, io.at_most && len > io.at_most ? io.at_most : len, at);
}

static int test_open(const char *path, int flags, mode_t mode)
{
	if (io.no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (open)(path, flags, mode);
}

#define pread  test_pread
#define pwrite test_pwrite
#define open   test_open
#include "notifier/swap.c"
#undef pread
#undef pwrite
#undef open

#include "tests/support/swap_fixture.h"

struct rig {
	struct phys *phys;
	struct mm_struct *mm, *mm2;
	struct address_space *mapping;
	struct park park;
	struct kthread thread;
	uint64_t value, other;
	pfn_t pfn; /* of page 0, when it was made */
	bool out;
};

/* Two mms; page 0 is private in the first, page 1 of an object in both. */
static void make_rig(struct rig *rig)
{
	*rig = (struct rig){.phys = test_swap_phys(16, 16)};
	rig->mm = test_mm(rig->phys);
	rig->mm2 = test_mm(rig->phys);
	rig->mapping = test_mapping(rig->phys, 1);
	expect_eq(mm_mmap(rig->mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(rig->mm, page(1), PAGE_SIZE, RW, rig->mapping, 0), 0);
	expect_eq(mm_mmap(rig->mm2, page(1), PAGE_SIZE, RW, rig->mapping, 0), 0);
	test_write(rig->mm, page(0), 10);
	test_write(rig->mm, page(1), 11);
	rig->pfn = mm_lookup_pfn(rig->mm, page(0));
	park_init(&rig->park);
}

static void end_rig(struct rig *rig)
{
	if (rig->mm)
		mmput(rig->mm);
	mmput(rig->mm2);
	address_space_put(rig->mapping);
	test_swap_phys_done(rig->phys);
}

static void read_private(void *arg)
{
	struct rig *rig = arg;

	rig->value = test_read(rig->mm, page(0));
}

static void read_private_too(void *arg)
{
	struct rig *rig = arg;

	rig->other = test_read(rig->mm, page(0));
}

static void read_shared(void *arg)
{
	struct rig *rig = arg;

	rig->value = test_read(rig->mm, page(1));
}

static void put_out_private(void *arg)
{
	struct rig *rig = arg;

	phys_get(rig->phys, rig->pfn);
	rig->out = reclaim_page(rig->phys, rig->pfn);
	phys_put(rig->phys, rig->pfn);
}

static void wait_for_waiter(struct rig *rig, pfn_t pfn)
{
	while (!READ_ONCE(frame_waitqueue(rig->phys, pfn)->waiters))
		sync_yield();
}

/* ---- files ---- */

TEST(swap_io, short_and_interrupted)
{
	struct rig rig;

	make_rig(&rig);
	io.at_most = 1000;
	for (int round = 0; round < 3; round++) {
		atomic_set(&io.interrupts, 2);
		expect(page_goes_out(rig.mm, page(0)));
		expect(page_goes_out(rig.mm, page(1)));
		atomic_set(&io.interrupts, 2);
		expect_eq(test_read(rig.mm, page(0)), 10);
		expect_eq(test_read(rig.mm, page(1)), 11);
	}
	expect_eq(atomic_read(&io.writes), 3 * 2 * 5);
	expect_eq(atomic_read(&io.reads), 3 * 2 * 5);
	io.at_most = 0;
	end_rig(&rig);
}

/* Where files without a name cannot be made, one with a name is, and loses it at once. */
TEST(swap_io, without_nameless_files)
{
	glob_t found;
	struct rig rig;

	io.no_tmpfile = true;
	make_rig(&rig);
	expect_eq(glob("/tmp/gnomon-swap-*", 0, NULL, &found), GLOB_NOMATCH);
	expect(page_goes_out(rig.mm, page(0)));
	expect_eq(test_read(rig.mm, page(0)), 10);
	end_rig(&rig);
}

/* ---- meanwhile ---- */

/* The ladder in swap_cache.c: the fault waits, and reads what was written. */
TEST(swap_io, a_fault_while_the_page_is_written)
{
	struct kthread fault;
	struct rig rig;

	make_rig(&rig);
	io.before_write = &rig.park;
	expect_eq(kthread_run(&rig.thread, "out", put_out_private, &rig), 0);
	park_wait(&rig.park, 1);
	expect_eq(kthread_run(&fault, "fault", read_private, &rig), 0);
	wait_for_waiter(&rig, rig.pfn);
	expect_eq(rig.value, 0);
	park_release(&rig.park);
	kthread_join(&fault);
	kthread_join(&rig.thread);
	expect(rig.out);
	expect_eq(rig.value, 10);
	expect_eq(atomic_read(&io.reads), 1);
	end_rig(&rig);
}

/* Of two who want the page one reads it, and the other waits. */
TEST(swap_io, a_fault_while_the_page_is_read)
{
	struct kthread fault;
	struct rig rig;
	pfn_t pfn;

	make_rig(&rig);
	expect(page_goes_out(rig.mm, page(0)));
	io.after_read = &rig.park;
	expect_eq(kthread_run(&rig.thread, "fault", read_private, &rig), 0);
	park_wait(&rig.park, 1);
	pfn = rig.phys->swap.slots[pte_pfn(entry_of(rig.mm, page(0)))].cached - 1;
	expect_eq(kthread_run(&fault, "fault", read_private_too, &rig), 0);
	wait_for_waiter(&rig, pfn);
	park_release(&rig.park);
	kthread_join(&fault);
	kthread_join(&rig.thread);
	expect_eq(rig.value, 10);
	expect_eq(rig.other, 10);
	expect_eq(atomic_read(&io.reads), 1);
	expect_eq(mm_lookup_pfn(rig.mm, page(0)), pfn);
	end_rig(&rig);
}

/* Faults and zaps both hold mmap_lock for reading. The zap drops the last use of the slot; what was
 * read belongs to nobody then. */
static void zap_private(void *arg)
{
	struct rig *rig = arg;

	expect_eq(mm_zap_range(rig->mm, page(0), PAGE_SIZE), 1);
}

TEST(swap_io, a_zap_while_the_page_is_read)
{
	struct kthread zap;
	struct rig rig;

	make_rig(&rig);
	expect(page_goes_out(rig.mm, page(0)));
	io.after_read = &rig.park;
	expect_eq(kthread_run(&rig.thread, "fault", read_private, &rig), 0);
	park_wait(&rig.park, 1);
	expect_eq(kthread_run(&zap, "zap", zap_private, &rig), 0);
	while (!pte_none(entry_of(rig.mm, page(0))))
		sync_yield();
	park_release(&rig.park);
	kthread_join(&zap);
	kthread_join(&rig.thread);
	expect_eq(rig.value, 0);
	expect_eq(swap_used(rig.phys), 0);
	expect_eq(mm_zap_range(rig.mm, page(0), PAGE_SIZE), 1);
	expect_eq(phys_nr_free(rig.phys), 15);
	end_rig(&rig);
}

/* The address space ends while its page is on the way out. */
static void put_mm(void *arg)
{
	struct rig *rig = arg;

	mmput(rig->mm);
}

TEST(swap_io, an_exit_while_the_page_is_written)
{
	struct kthread exit;
	struct rig rig;

	make_rig(&rig);
	io.before_write = &rig.park;
	expect_eq(kthread_run(&rig.thread, "out", put_out_private, &rig), 0);
	park_wait(&rig.park, 1);
	expect_eq(kthread_run(&exit, "exit", put_mm, &rig), 0);
	wait_for_waiter(&rig, rig.pfn);
	park_release(&rig.park);
	kthread_join(&exit);
	kthread_join(&rig.thread);
	expect(rig.out);
	expect_eq(swap_used(rig.phys), 0);
	rig.mm = NULL;
	end_rig(&rig);
}

/*
 * While one reads the page of an object, it comes in by another, is written, and goes out again.
 * The first may not have the same slot before it as before: it would install what it read. With the
 * use of the slot that get_swapped() takes left out, it does.
 */
TEST(swap_io, an_object_page_comes_and_goes_while_it_is_read)
{
	struct rig rig;

	make_rig(&rig);
	expect(page_goes_out(rig.mm, page(1)));
	io.after_read = &rig.park;
	expect_eq(kthread_run(&rig.thread, "fault", read_shared, &rig), 0);
	park_wait(&rig.park, 1);
	expect_eq(test_read(rig.mm2, page(1)), 11);
	test_write(rig.mm2, page(1), 12);
	expect(page_goes_out(rig.mm2, page(1)));
	park_release(&rig.park);
	kthread_join(&rig.thread);
	expect_eq(rig.value, 12);
	expect_eq(test_read(rig.mm2, page(1)), 12);
	end_rig(&rig);
}

/* A hole comes in between: what was read is not the page any more. */
TEST(swap_io, a_hole_while_an_object_page_is_read)
{
	struct rig rig;

	make_rig(&rig);
	expect(page_goes_out(rig.mm, page(1)));
	/* Also when nobody is at it. */
	expect_eq(address_space_punch_hole(rig.mapping, 0, 1), 0);
	expect_eq(swap_used(rig.phys), 0);
	expect_eq(test_read(rig.mm, page(1)), 0);
	test_write(rig.mm, page(1), 13);
	expect(page_goes_out(rig.mm, page(1)));

	io.after_read = &rig.park;
	expect_eq(kthread_run(&rig.thread, "fault", read_shared, &rig), 0);
	park_wait(&rig.park, 1);
	expect_eq(address_space_punch_hole(rig.mapping, 0, 1), 0);
	park_release(&rig.park);
	kthread_join(&rig.thread);
	expect_eq(rig.value, 0);
	expect_eq(swap_used(rig.phys), 0);
	end_rig(&rig);
}
