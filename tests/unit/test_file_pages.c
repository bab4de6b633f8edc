/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects with a file below them: pages that come from it and go back, and who may write when. */
#include <sys/resource.h>

#include <gnomon/swap.h>

#include "tests/support/fail_alloc.h"
#include "tests/support/file_fixture.h"

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "tests/support/hear.h"
#include "tests/support/step.h"

TEST(file_pages, come_from_the_file_when_first_touched)
{
	struct file_rig rig = file_rig_init(4, 16);

	for (uint64_t n = 0; n < 3; n++) {
		expect_eq(test_read(rig.mm, file_page(n)), file_word(n));
		expect_eq(test_read(rig.mm, file_page(n) + PAGE_SIZE - 8), file_word(n));
	}
	expect_eq(atomic_read(&file_calls.reads), 3);
	/* The cache has them now; what nobody touched is what the file has by then. */
	expect_eq(pwrite(rig.fd, "12345678", 8, 0), 8);
	expect_eq(pwrite(rig.fd, "12345678", 8, 3 * PAGE_SIZE), 8);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	expect_eq(test_read(rig.mm, file_page(3)), *(const uint64_t *)"12345678");
	expect_eq(phys_nr_free(rig.phys), 12);
	/* Two mappings of the object are the same pages. */
	expect_eq(mm_mmap(rig.mm, file_page(10), PAGE_SIZE, RW, rig.mapping, 1), 0);
	test_write(rig.mm, file_page(10), 77);
	expect_eq(test_read(rig.mm, file_page(1)), 77);
	file_rig_done(&rig);
}

/* The file ends within its last page: zeroes there, which may be written, but not to the file. */
TEST(file_pages, the_file_does_not_grow)
{
	struct phys *phys = test_phys(1); /* the later page is where the earlier was */
	struct mm_struct *mm = test_mm(phys);
	int fd = test_file(2);
	struct address_space *mapping;

	expect_eq(ftruncate(fd, PAGE_SIZE + 100), 0);
	mapping = test_file_mapping(phys, fd);
	expect_eq(mm_mmap(mm, FILE_BASE, 2 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm, file_page(8), 3 * PAGE_SIZE, RW, mapping, 0), -EINVAL);
	expect_eq(test_read(mm, file_page(1) + 88), file_word(1));
	expect_eq(test_read(mm, file_page(1) + 96), file_word(1) & 0xffffffff);
	expect_eq(test_read(mm, file_page(1) + 104), 0);
	expect_eq(test_read(mm, file_page(2) - 8), 0);
	test_write(mm, file_page(1) + 80, 1);
	test_write(mm, file_page(1) + 104, 2);
	mmput(mm);
	address_space_put(mapping);
	expect_eq(lseek(fd, 0, SEEK_END), PAGE_SIZE + 100);
	expect_eq(test_file_read(fd, PAGE_SIZE + 80), 1);

	/* Nor if somebody else made it shorter: then there is nothing. */
	mapping = test_file_mapping(phys, fd);
	mm = test_mm(phys);
	expect_eq(mm_mmap(mm, FILE_BASE, 2 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(ftruncate(fd, PAGE_SIZE), 0);
	expect_eq(test_read(mm, file_page(1)), 0);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
	close(fd);
}

TEST(file_pages, what_will_not_do_is_refused)
{
	struct phys *phys = test_phys(4);
	struct address_space *mapping;
	struct rlimit limit;
	char path[64];
	int fd = test_file(2), other, pipes[2];
	int64_t live;

	expect_eq(address_space_create_file(phys, -1, 0, &mapping), -EBADF);
	expect_eq(address_space_create_file(phys, fd, 3, &mapping), -EINVAL);
	expect_eq(pipe(pipes), 0);
	expect_eq(address_space_create_file(phys, pipes[0], 0, &mapping), -ENODEV);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_WRONLY);
	expect_eq(address_space_create_file(phys, other, 0, &mapping), -EACCES);
	close(other);
	other = open(path, O_PATH);
	expect_eq(address_space_create_file(phys, other, 0, &mapping), -EACCES);
	close(other);
	other = open(path, O_RDWR | O_APPEND);
	expect_eq(address_space_create_file(phys, other, 0, &mapping), -EINVAL);
	close(other);
	/* No descriptor left: the lowest that is free is too many. */
	other = dup(fd);
	close(other);
	expect_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)other;
	expect_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	live = atomic64_read(&allocs.live);
	expect_eq(address_space_create_file(phys, fd, 0, &mapping), -EMFILE);
	expect_eq(atomic64_read(&allocs.live), live);
	limit.rlim_cur = limit.rlim_max;
	expect_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (int64_t site = 0; site < 2; site++) {
		alloc_fail_at(site);
		expect_eq(address_space_create_file(phys, fd, 0, &mapping), -ENOMEM);
		expect(alloc_failed());
		expect_eq(atomic64_read(&allocs.live), live);
	}
	/* Some of it; and an empty file has no page to map. */
	expect_eq(address_space_create_file(phys, fd, 1, &mapping), 0);
	expect_eq(mapping->nr_pages, 1);
	address_space_put(mapping);
	expect_eq(ftruncate(fd, 0), 0);
	expect_eq(address_space_create_file(phys, fd, 0, &mapping), 0);
	expect_eq(mapping->nr_pages, 0);
	expect_eq(address_space_sync(mapping, 0, 0), 0);
	address_space_put(mapping);
	for (int i = 0; i < 2; i++)
		close(pipes[i]);
	close(fd);
	test_phys_done(phys);
}

TEST(file_pages, a_file_to_be_read_is_not_written)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping;
	char path[64];
	int fd = test_file(2), other;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDONLY | O_APPEND);
	mapping = test_file_mapping(phys, other);
	close(other);
	expect_eq(mm_mmap(mm, FILE_BASE, PAGE_SIZE, RW, mapping, 0), -EACCES);
	expect_eq(mm_mmap(mm, FILE_BASE, PAGE_SIZE, MM_PROT_READ, mapping, 0), 0);
	expect_eq(mm_mprotect(mm, FILE_BASE, PAGE_SIZE, RW), -EACCES);
	expect_eq(mm_mprotect(mm, FILE_BASE, PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(mm_mprotect(mm, FILE_BASE, PAGE_SIZE, MM_PROT_READ), 0);
	expect_eq(test_read(mm, FILE_BASE), file_word(0));
	expect_eq(mm_write(mm, FILE_BASE, "x", 1), -EFAULT);
	/* Copies are another matter. */
	expect_eq(mm_mmap_flags(mm, file_page(8), PAGE_SIZE, RW, MM_MAP_PRIVATE, mapping, 0), 0);
	test_write(mm, file_page(8), 5);
	expect_eq(test_read(mm, file_page(8)), 5);
	expect_eq(address_space_punch_hole(mapping, 0, 1), -EACCES);
	expect_eq(address_space_sync(mapping, 0, 2), 0);
	mmput(mm);
	address_space_put(mapping);
	expect_eq(test_file_read(fd, 0), file_word(0));
	close(fd);
	test_phys_done(phys);
}

/* ---- write-notify ---- */

TEST(file_pages, the_first_write_is_noticed)
{
	struct file_rig rig = file_rig_init(3, 8);
	struct counting_notifier cn = {0};
	bool writable;
	pfn_t pfn;

	counting_register(&cn, rig.mm);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	expect(!test_writable(rig.mm, file_page(0)));
	expect(!address_space_page_dirty(rig.mapping, 0));
	/* By a store ... */
	pfn = mm_lookup_pfn(rig.mm, file_page(0));
	test_write(rig.mm, file_page(0), 1);
	expect(address_space_page_dirty(rig.mapping, 0));
	expect(test_writable(rig.mm, file_page(0)));
	expect_eq(mm_lookup_pfn(rig.mm, file_page(0)), pfn);
	/* ... by a secondary that may, which may never come back to say that it did ... */
	expect(!test_writable(rig.mm, file_page(1)));
	expect_eq(hva_to_pfn(rig.mm, file_page(1), true, &pfn, &writable), 0);
	expect(writable && address_space_page_dirty(rig.mapping, 1));
	/* ... and at the first touch. */
	test_write(rig.mm, file_page(2), 1);
	expect(address_space_page_dirty(rig.mapping, 2) && test_writable(rig.mm, file_page(2)));
	/* To gain a right is no event. */
	for (size_t i = 0; i < ARRAY_SIZE(cn.starts); i++)
		expect_eq(atomic64_read(&cn.starts[i]), 0);
	mmu_notifier_unregister(&cn.mn, rig.mm);
	file_rig_done(&rig);
}

struct going {
	struct step step;
	struct file_rig rig;
	pte_t *ptep;
	unsigned int at;
	bool hole; /* the page goes, and not only the entry */
};

#ifdef CONFIG_LOCKDEP
/* On the thread of a fault, which has mmap_lock, and then the frame: who zaps waits for neither,
 * who makes a hole for the frame. */
static bool may_go(const struct going *g)
{
	const struct thread_state *self = current_thread();
	pte_t pte = pte_load(g->ptep);

	if (self->lockdep_busy || READ_ONCE(g->rig.mm->page_table_lock.raw.state))
		return false;
	if (g->hole)
		return self->nr_held == 1 && pte_present(pte) &&
		       !frame_locked(pfn_to_frame(g->rig.phys, pte_pfn(pte))) &&
		       !READ_ONCE(g->rig.mapping->i_mmap_rwsem.count);
	return self->nr_held == 1 || self->nr_held == 2;
}

static void zap_here(struct mm_struct *mm)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, file_page(0), file_page(1));
	mmu_notifier_invalidate_range_start(&range);
	zap_vma_range(find_vma(mm, file_page(0)), file_page(0), file_page(1));
	mmu_notifier_invalidate_range_end(&range);
}

static void go_here(struct step *step)
{
	struct going *g = step->arg;

	if (step->nr < g->at || !may_go(g))
		return;
	g->at = step->nr;
	step->over = true;
	if (g->hole)
		expect_eq(address_space_punch_hole(g->rig.mapping, 0, 1), 0);
	else
		zap_here(g->rig.mm);
}

static void write_as_it_goes(struct going *g)
{
	g->rig = file_rig_init(1, 4);
	g->at = 0;
	do {
		test_write(g->rig.mm, file_page(0), 77);
		expect_ge(address_space_sync(g->rig.mapping, 0, 1), 0);
		g->ptep = pgtable_lookup(g->rig.mm->pgtable, file_page(0));
		step_begin(&g->step);
		mm_fault(g->rig.mm, file_page(0), true);
		step_end();
		if (pte_allows(pte_load(g->ptep), true))
			expect(address_space_page_dirty(g->rig.mapping, 0));
		expect_eq(test_read(g->rig.mm, file_page(0)), g->hole && g->step.over ? 0 : 77);
		g->at += test_long() ? 1 : 17;
	} while (g->step.over);
	expect_ge(g->at, 100);
	file_rig_done(&g->rig);
}
#endif

/* The entry is zapped, or the page goes, between any two instructions of the fault that notices the
 * first write: it marks no page that is none, and gives no right to an entry that is none. */
TEST(file_pages, what_is_written_first_goes)
{
#ifdef CONFIG_LOCKDEP
	struct going g = {.step = {.at_each = go_here, .arg = &g}};

	step_skip();
	write_as_it_goes(&g);
	g.hole = true;
	write_as_it_goes(&g);
#else
	skip("which locks are held is known in debug builds");
#endif
}

TEST(file_pages, a_zap_forgets_nothing)
{
	struct file_rig rig = file_rig_init(1, 8);

	test_write(rig.mm, file_page(0), 123);
	expect_eq(mm_zap_range(rig.mm, file_page(0), PAGE_SIZE), 1);
	expect(address_space_page_dirty(rig.mapping, 0));
	expect_eq(test_read(rig.mm, file_page(0)), 123);
	/* Back by a read: the next write is noticed again. */
	expect(!test_writable(rig.mm, file_page(0)));
	file_rig_done(&rig);
}

/* Rights that come back by mprotect and a fault: a fault that reads does not bring that to write.
 */
TEST(file_pages, a_wider_area_does_not_write_unnoticed)
{
	struct file_rig rig = file_rig_init(1, 8);

	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	expect_eq(mm_mprotect(rig.mm, file_page(0), PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(mm_mprotect(rig.mm, file_page(0), PAGE_SIZE, RW), 0);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	expect(!test_writable(rig.mm, file_page(0)));
	expect(!address_space_page_dirty(rig.mapping, 0));
	test_write(rig.mm, file_page(0), 9);
	expect(address_space_page_dirty(rig.mapping, 0));
	file_rig_done(&rig);
}

/* Entry and mark move together: by migration, and with the area. */
TEST(file_pages, a_dirty_page_may_move)
{
	struct file_rig rig = file_rig_init(2, 8);
	hva_t moved = file_page(100);
	pfn_t pfn;

	test_write(rig.mm, file_page(0), 11);
	expect_eq(test_read(rig.mm, file_page(1)), file_word(1));
	pfn = mm_lookup_pfn(rig.mm, file_page(0));
	expect_eq(mm_migrate_range(rig.mm, file_page(0), 2 * PAGE_SIZE), 2);
	expect_ne(mm_lookup_pfn(rig.mm, file_page(0)), pfn);
	expect(address_space_page_dirty(rig.mapping, 0));
	expect(!address_space_page_dirty(rig.mapping, 1));
	expect(test_writable(rig.mm, file_page(0)) && !test_writable(rig.mm, file_page(1)));

	expect_eq(mm_mremap(rig.mm, file_page(0), 2 * PAGE_SIZE, 2 * PAGE_SIZE,
			    MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &moved),
		  0);
	expect(test_writable(rig.mm, moved) && !test_writable(rig.mm, moved + PAGE_SIZE));
	expect_eq(address_space_sync(rig.mapping, 0, 2), 1);
	expect(!test_writable(rig.mm, moved));
	expect_eq(test_file_read(rig.fd, 0), 11);
	file_rig_done(&rig);
}

/* ---- the end ---- */

TEST(file_pages, the_last_put_writes_back)
{
	struct file_rig rig = file_rig_init(3, 8);
	int fd = dup(rig.fd);

	hear_start();
	/* The object has a descriptor of its own. */
	close(rig.fd);
	rig.fd = dup(fd);
	test_write(rig.mm, file_page(1), 21);
	test_write(rig.mm, file_page(2) + 8, 22);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	file_rig_done(&rig);
	expect_eq(test_file_read(fd, 0), file_word(0));
	expect_eq(test_file_read(fd, PAGE_SIZE), 21);
	expect_eq(test_file_read(fd, PAGE_SIZE + 8), file_word(1));
	expect_eq(test_file_read(fd, 2 * PAGE_SIZE + 8), 22);
	expect_eq(atomic_read(&file_calls.writes), 2);
	expect_warnings(0, NULL);
	close(fd);
}

static int lowest_free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

TEST(file_pages, the_descriptor_is_given_back)
{
	int before = lowest_free_fd();
	struct file_rig rig = file_rig_init(1, 8);

	file_rig_done(&rig);
	expect_eq(lowest_free_fd(), before);
}

TEST(file_pages, what_is_lost_is_said)
{
	struct file_rig rig = file_rig_init(2, 8);

	hear_start();
	test_write(rig.mm, file_page(0), 1);
	expect_eq(fcntl(rig.fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	file_rig_done(&rig);
	expect_warnings(1,
			"pages of a file are lost with its last mapping: Operation not permitted");
}

static struct {
	struct phys *phys;
	int fd; /* another file's, which got the number */
} after;

/* What could not be written before can be now: where to? */
static void reclaim_after_close(int fd)
{
	after.fd = test_file(1);
	expect_eq(after.fd, fd);
	atomic_set(&file_calls.write_errno, 0);
	phys_reclaim(after.phys, 1);
}

/* Whoever reclaims a page that is lost must not find the number of a descriptor that is closed. */
TEST(file_pages, what_is_lost_is_not_found_elsewhere)
{
	struct file_rig rig = file_rig_init(1, 8);

	hear_start();
	test_write(rig.mm, file_page(0), 1);
	after.phys = rig.phys;
	file_calls.after_close = reclaim_after_close;
	atomic_set(&file_calls.write_errno, ENOSPC);
	file_rig_done(&rig);
	expect_warnings(1, "pages of a file are lost with its last mapping: No space left");
	expect_eq(test_file_read(after.fd, 0), file_word(0));
	close(after.fd);
}

/* ---- a file that fails ---- */

TEST(file_pages, a_page_that_cannot_be_read)
{
	struct file_rig rig = file_rig_init(2, 8);
	uint64_t word = 0;
	bool writable;
	pfn_t pfn;

	atomic_set(&file_calls.read_errno, ENXIO);
	for (int i = 0; i < 2; i++) {
		expect_eq(mm_read(rig.mm, file_page(0), &word, 8), -EIO);
		expect_eq(mm_write(rig.mm, file_page(0), &word, 8), -EIO);
		expect_eq(mm_cmpxchg64(rig.mm, file_page(0), &word, 1), -EIO);
		expect_eq(hva_to_pfn(rig.mm, file_page(0), i, &pfn, &writable), -EIO);
		expect_eq(mm_pin_page(rig.mm, file_page(0), i, &pfn), -EIO);
		expect_eq(mm_mmap_flags(rig.mm, file_page(10 + i), PAGE_SIZE, RW, MM_MAP_PRIVATE,
					rig.mapping, 0),
			  0);
		expect_eq(mm_write(rig.mm, file_page(10 + i), &word, 8), -EIO);
	}
	/* Nothing is left of the tries, and no page is there that nobody read. */
	expect_eq(phys_nr_free(rig.phys), 8);
	expect_eq(address_space_peek(rig.mapping, 0), INVALID_PFN);
	expect_eq(address_space_sync(rig.mapping, 0, 2), 0);
	atomic_set(&file_calls.read_errno, 0);
	expect_eq(test_read(rig.mm, file_page(0)), file_word(0));
	expect_eq(test_read(rig.mm, file_page(11)), file_word(0));
	file_rig_done(&rig);
}

TEST(file_pages, bit_by_bit_and_interrupted)
{
	struct file_rig rig = file_rig_init(2, 8);

	file_calls.at_most = 1000;
	atomic_set(&file_calls.interrupts, 3);
	for (hva_t hva = file_page(0); hva < file_page(1); hva += 8)
		expect_eq(test_read(rig.mm, hva), file_word(0));
	expect_eq(atomic_read(&file_calls.reads), 5);
	for (hva_t hva = file_page(0); hva < file_page(1); hva += 8)
		test_write(rig.mm, hva, hva);
	atomic_set(&file_calls.interrupts, 3);
	expect_eq(address_space_sync(rig.mapping, 0, 2), 1);
	for (uint64_t at = 0; at < PAGE_SIZE; at += 8)
		expect_eq(test_file_read(rig.fd, at), file_page(0) + at);
	file_rig_done(&rig);
}

struct readers {
	struct file_rig *rig;
	atomic_t ok, failed;
};

static void read_all(void *arg)
{
	struct readers *readers = arg;

	for (uint64_t n = 0; n < 64; n++) {
		uint64_t word = 0;
		int ret;

		while ((ret = mm_read(readers->rig->mm, file_page(n), &word, 8)) == -EIO)
			atomic_inc(&readers->failed);
		expect_eq(ret, 0);
		expect_eq(word, file_word(n));
		atomic_inc(&readers->ok);
	}
}

static void fail_now_and_then(void *arg)
{
	struct readers *readers = arg;

	for (int i = 0; atomic_read(&readers->ok) < 3 * 64; i++) {
		/* In turn; and not for good, however long this thread is away. */
		atomic_set(&file_calls.read_errno, i & 1 ? EIO : 0);
		sched_yield();
	}
	atomic_set(&file_calls.read_errno, 0);
}

/* Several want the page whose read fails: each tries again for itself, and none sees it half read.
 */
TEST(file_pages, failures_and_others_at_the_page)
{
	uint64_t failed = 0;

	for (uint64_t i = 0; i < test_volume(50) || failed < 10; i++) {
		struct file_rig rig = file_rig_init(64, 80);
		struct readers readers = {.rig = &rig};
		struct kthread failer;

		expect_eq(kthread_run(&failer, "failer", fail_now_and_then, &readers), 0);
		test_threads(3, read_all, &readers);
		kthread_join(&failer);
		failed += (uint64_t)atomic_read(&readers.failed);
		file_rig_done(&rig);
	}
}

TEST(file_pages, without_a_frame)
{
	struct file_rig rig = file_rig_init(3, 2);
	uint64_t word;
	pfn_t pfn[2];

	/* Held, or they would go to make room. */
	for (uint64_t i = 0; i < 2; i++)
		expect_eq(mm_pin_page(rig.mm, file_page(i), false, &pfn[i]), 0);
	expect_eq(mm_read(rig.mm, file_page(2), &word, 8), -ENOMEM);
	for (uint64_t i = 0; i < 2; i++)
		mm_unpin_page(rig.mm, pfn[i], false);
	expect_eq(mm_read(rig.mm, file_page(2), &word, 8), 0);
	file_rig_done(&rig);
}
