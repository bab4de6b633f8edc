/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Private areas that show an object: its pages until they are written, then copies. Each case runs
 * over memory and over a file.
 */
#include "tests/support/file_fixture.h"

#include "notifier/frame.h"
#include "tests/support/told.h"

#define NR_PAGES 4

/* All pages of an object, shared and, at PRIVATE, not. Page n of it begins as word(n). */
#define PRIVATE (FILE_BASE + 0x1000000UL)

struct shown {
	struct phys *phys;
	struct address_space *mapping;
	struct mm_struct *mm;
	int fd; /* -1: memory */
};

static hva_t private_page(uint64_t n)
{
	return PRIVATE + n * PAGE_SIZE;
}

static struct shown shown_init(bool file)
{
	struct shown s = {.phys = test_phys(90), .fd = file ? test_file(NR_PAGES) : -1};

	s.mapping = file ? test_file_mapping(s.phys, s.fd) : test_mapping(s.phys, NR_PAGES);
	s.mm = test_mm(s.phys);
	expect_eq(mm_mmap(s.mm, FILE_BASE, NR_PAGES * PAGE_SIZE, RW, s.mapping, 0), 0);
	expect_eq(mm_mmap_flags(s.mm, PRIVATE, NR_PAGES * PAGE_SIZE, RW, MM_MAP_PRIVATE, s.mapping,
				0),
		  0);
	for (uint64_t n = 0; !file && n < NR_PAGES; n++)
		test_write(s.mm, file_page(n), file_word(n));
	return s;
}

static void shown_done(struct shown *s)
{
	mmput(s->mm);
	address_space_put(s->mapping);
	test_phys_done(s->phys);
	if (s->fd >= 0)
		close(s->fd);
}

#define FOR_BOTH(s)                                                                   \
	for (struct shown s##_[2] = {shown_init(false), shown_init(true)}, *s = s##_; \
	     s < s##_ + 2; shown_done(s), s++)

TEST(file_private, shown_until_written)
{
	FOR_BOTH(s)
	{
		struct told told = {0};
		pfn_t pfn;

		expect_eq(test_read(s->mm, private_page(1)), file_word(1));
		pfn = mm_lookup_pfn(s->mm, private_page(1));
		test_write(s->mm, file_page(1), 10);
		expect_eq(mm_lookup_pfn(s->mm, file_page(1)), pfn);
		expect_eq(test_read(s->mm, private_page(1)), 10);
		/* A copy from here on, told of as of any page that goes elsewhere. */
		told_register(&told, s->mm);
		test_write(s->mm, private_page(1) + 8, 11);
		expect_told(&told, 0, MMU_NOTIFY_CLEAR, private_page(1), private_page(2));
		told_unregister(&told, 1, s->mm);
		expect_ne(mm_lookup_pfn(s->mm, private_page(1)), pfn);
		expect_eq(test_read(s->mm, private_page(1)), 10);
		test_write(s->mm, file_page(1), 12);
		expect_eq(test_read(s->mm, private_page(1)), 10);
		expect_ne(test_read(s->mm, file_page(1) + 8), 11);
		/* And by a first touch that writes. */
		test_write(s->mm, private_page(2) + 8, 20);
		expect_eq(test_read(s->mm, private_page(2)), file_word(2));
		expect_ne(test_read(s->mm, file_page(2) + 8), 20);
	}
}

/* A secondary is told what it may. */
TEST(file_private, a_secondary_writes_to_a_copy)
{
	FOR_BOTH(s)
	{
		bool writable;
		pfn_t shared, pfn;

		expect_eq(hva_to_pfn(s->mm, file_page(0), true, &shared, &writable), 0);
		expect(writable);
		expect_eq(hva_to_pfn(s->mm, private_page(0), false, &pfn, &writable), 0);
		expect(!writable && pfn == shared);
		expect_eq(hva_to_pfn(s->mm, private_page(0), true, &pfn, &writable), 0);
		expect(writable && pfn != shared);
	}
}

/* What is written privately is no business of the file. */
TEST(file_private, nothing_gets_to_the_file)
{
	struct shown s = shown_init(true);
	struct told told = {0};

	for (uint64_t n = 0; n < NR_PAGES; n++)
		test_write(s.mm, private_page(n), 77);
	for (uint64_t n = 0; n < NR_PAGES; n++)
		expect(!address_space_page_dirty(s.mapping, n));
	expect_eq(address_space_sync(s.mapping, 0, NR_PAGES), 0);
	test_write(s.mm, file_page(2), 5);
	expect_eq(mm_zap_range(s.mm, private_page(2), PAGE_SIZE), 1);
	expect_eq(test_read(s.mm, private_page(2)), 5);
	/* Of a sync only the shared entry is told. */
	told_register(&told, s.mm);
	expect_eq(address_space_sync(s.mapping, 0, NR_PAGES), 1);
	expect_told(&told, 0, MMU_NOTIFY_PROTECTION_PAGE, file_page(2), file_page(3));
	told_unregister(&told, 1, s.mm);
	for (uint64_t n = 0; n < NR_PAGES; n++)
		expect_eq(test_file_read(s.fd, n * PAGE_SIZE), n == 2 ? 5 : file_word(n));
	expect_eq(test_read(s.mm, private_page(1)), 77);
	shown_done(&s);
}

TEST(file_private, a_zap_brings_the_object_back)
{
	FOR_BOTH(s)
	{
		test_write(s->mm, private_page(0), 5);
		test_read(s->mm, private_page(1));
		test_write(s->mm, file_page(0), 6);
		expect_eq(test_read(s->mm, private_page(0)), 5);
		expect_eq(mm_zap_range(s->mm, private_page(0), 2 * PAGE_SIZE), 2);
		expect_eq(test_read(s->mm, private_page(0)), 6);
		expect_eq(mm_lookup_pfn(s->mm, private_page(0)),
			  mm_lookup_pfn(s->mm, file_page(0)));
		expect_eq(mm_madvise(s->mm, private_page(0), PAGE_SIZE, MM_MADV_DONTNEED), 0);
		expect_eq(test_read(s->mm, private_page(0)), 6);
	}
}

TEST(file_private, a_fork_has_both_kinds)
{
	FOR_BOTH(s)
	{
		struct mm_struct *child;

		test_write(s->mm, private_page(0), 5);
		test_read(s->mm, private_page(1));
		expect_eq(mm_fork(s->mm, &child), 0);
		expect_eq(mm_lookup_pfn(child, private_page(0)),
			  mm_lookup_pfn(s->mm, private_page(0)));
		/* The copy is one of each from now on; what is shown goes on to change for both. */
		test_write(s->mm, private_page(0), 6);
		expect_eq(test_read(child, private_page(0)), 5);
		test_write(child, file_page(1), 7);
		expect_eq(test_read(s->mm, private_page(1)), 7);
		expect_eq(test_read(child, private_page(1)), 7);
		test_write(child, private_page(1), 8);
		test_write(child, private_page(2), 9);
		expect_eq(test_read(s->mm, private_page(1)), 7);
		expect_eq(test_read(s->mm, private_page(2)), file_word(2));
		expect_eq(test_read(s->mm, file_page(1)), 7);
		expect_eq(mm_zap_range(child, private_page(0), NR_PAGES * PAGE_SIZE), 3);
		expect_eq(test_read(child, private_page(0)), file_word(0));
		expect_eq(test_read(s->mm, private_page(0)), 6);
		mmput(child);
		expect_eq(test_read(s->mm, private_page(1)), 7);
	}
}

TEST(file_private, an_unmap_frees_the_copies)
{
	FOR_BOTH(s)
	{
		uint64_t nr_free;

		for (uint64_t n = 0; n < NR_PAGES; n++)
			test_read(s->mm, private_page(n));
		nr_free = phys_nr_free(s->phys);
		test_write(s->mm, private_page(0), 1);
		test_write(s->mm, private_page(2), 2);
		expect_eq(phys_nr_free(s->phys), nr_free - 2);
		/* One of each; then the rest. */
		expect_eq(mm_munmap(s->mm, private_page(2), 2 * PAGE_SIZE), 0);
		expect_eq(phys_nr_free(s->phys), nr_free - 1);
		expect_eq(test_read(s->mm, private_page(0)), 1);
		expect_eq(mm_munmap(s->mm, private_page(0), 2 * PAGE_SIZE), 0);
		expect_eq(phys_nr_free(s->phys), nr_free);
		for (uint64_t n = 0; n < NR_PAGES; n++)
			expect_eq(test_read(s->mm, file_page(n)), file_word(n));
	}
}

TEST(file_private, both_kinds_migrate)
{
	FOR_BOTH(s)
	{
		pfn_t copy, page;

		test_write(s->mm, private_page(0), 5);
		test_read(s->mm, private_page(1));
		test_read(s->mm, file_page(1));
		copy = mm_lookup_pfn(s->mm, private_page(0));
		page = mm_lookup_pfn(s->mm, private_page(1));
		expect_eq(mm_migrate_range(s->mm, private_page(0), NR_PAGES * PAGE_SIZE), 2);
		expect_ne(mm_lookup_pfn(s->mm, private_page(0)), copy);
		expect_ne(mm_lookup_pfn(s->mm, private_page(1)), page);
		/* The object's page moved for all. */
		expect_eq(mm_lookup_pfn(s->mm, private_page(1)),
			  mm_lookup_pfn(s->mm, file_page(1)));
		expect_eq(test_read(s->mm, private_page(0)), 5);
		expect_eq(test_read(s->mm, private_page(1)), file_word(1));
		/* And the other way round: found by the object, or by the number of the frame. */
		page = mm_lookup_pfn(s->mm, private_page(1));
		expect_eq(migrate_mapping_page(s->mapping, 1), 0);
		expect_ne(mm_lookup_pfn(s->mm, private_page(1)), page);
		copy = mm_lookup_pfn(s->mm, private_page(0));
		expect_eq(migrate_frame(s->phys, copy), 0);
		expect_ne(mm_lookup_pfn(s->mm, private_page(0)), copy);
		/* Rights are what they were. */
		test_write(s->mm, private_page(1), 6);
		expect_eq(test_read(s->mm, file_page(1)), file_word(1));
		expect_eq(test_read(s->mm, private_page(1)), 6);
		test_write(s->mm, private_page(0), 7);
		expect_ne(test_read(s->mm, file_page(0)), 7);
	}
}

/* Moved away, and given rights: what is shown stays the object's, and the page the same. */
TEST(file_private, mremap_and_mprotect)
{
	FOR_BOTH(s)
	{
		hva_t to = private_page(100);

		test_write(s->mm, private_page(0), 5);
		test_read(s->mm, private_page(1));
		expect_eq(mm_mremap(s->mm, private_page(0), NR_PAGES * PAGE_SIZE,
				    NR_PAGES * PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to),
			  0);
		expect_eq(test_read(s->mm, to), 5);
		expect_eq(test_read(s->mm, to + PAGE_SIZE), file_word(1));
		expect_eq(test_read(s->mm, to + 2 * PAGE_SIZE), file_word(2));
		expect_eq(mm_mprotect(s->mm, to, NR_PAGES * PAGE_SIZE, MM_PROT_READ), 0);
		expect_eq(mm_write(s->mm, to, "x", 1), -EFAULT);
		expect_eq(mm_write(s->mm, to + PAGE_SIZE, "x", 1), -EFAULT);
		expect_eq(mm_mprotect(s->mm, to, NR_PAGES * PAGE_SIZE, MM_PROT_NONE), 0);
		expect_eq(mm_mprotect(s->mm, to, NR_PAGES * PAGE_SIZE, RW), 0);
		expect_eq(test_read(s->mm, to + PAGE_SIZE), file_word(1));
		expect(!test_writable(s->mm, to + PAGE_SIZE));
		test_write(s->mm, to, 6);
		test_write(s->mm, to + PAGE_SIZE, 7);
		expect_eq(test_read(s->mm, file_page(1)), file_word(1));
		/* By way of the reverse maps, too. */
		expect_eq(mm_migrate_range(s->mm, to, 3 * PAGE_SIZE), 3);
		expect_eq(test_read(s->mm, to), 6);
		expect_eq(test_read(s->mm, to + PAGE_SIZE), 7);
		expect_eq(mm_zap_range(s->mm, to, PAGE_SIZE), 1);
		expect_eq(test_read(s->mm, to), file_word(0));
	}
}

/* ---- all at once ---- */

struct storm {
	struct shown *s;
	atomic_t stop;
	uint64_t goal;
	atomic64_t published[NR_PAGES]; /* word 0 of the object is at least this */
	atomic64_t copies, migrated;
};

static void write_shared(void *arg)
{
	struct storm *storm = arg;

	for (uint64_t i = 1; !atomic_read(&storm->stop); i++) {
		uint64_t n = i % NR_PAGES;

		test_write(storm->s->mm, file_page(n), i);
		atomic64_set_release(&storm->published[n], (int64_t)i);
	}
}

static void disturb(void *arg)
{
	struct storm *storm = arg;
	struct shown *s = storm->s;

	for (uint64_t i = 0; !atomic_read(&storm->stop); i++) {
		int ret = migrate_mapping_page(s->mapping, i % NR_PAGES);

		atomic64_add(ret == 0, &storm->migrated);
		expect_ge(mm_migrate_range(s->mm, PRIVATE, NR_PAGES * PAGE_SIZE), 0);
		if (s->fd >= 0)
			expect_ge(address_space_sync(s->mapping, 0, NR_PAGES), 0);
	}
}

/* The object's word grows until it is copied; then it stands, with ours beside it. */
static void write_private(struct storm *storm, uint64_t n, uint64_t stamp)
{
	struct mm_struct *mm = storm->s->mm;
	int64_t published = atomic64_read_acquire(&storm->published[n]);
	uint64_t shown = test_read(mm, private_page(n)), copied;

	expect_ge(shown, published);
	test_write(mm, private_page(n) + 8, stamp);
	copied = test_read(mm, private_page(n));
	expect_ge(copied, shown);
	for (int i = 0; i < 3; i++) {
		expect_eq(test_read(mm, private_page(n)), copied);
		expect_eq(test_read(mm, private_page(n) + 8), stamp);
		expect_ne(test_read(mm, file_page(n) + 8), stamp);
	}
	expect_eq(mm_zap_range(mm, private_page(n), PAGE_SIZE), 1);
	atomic64_inc(&storm->copies);
}

static void storm_over(struct shown *s)
{
	void (*const others[])(void *) = {write_shared, disturb};
	struct storm storm = {.s = s, .goal = test_volume(5000)};
	struct kthread threads[ARRAY_SIZE(others)];

	for (uint64_t n = 0; n < NR_PAGES; n++)
		test_write(s->mm, file_page(n), 0);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		expect_eq(kthread_run(&threads[i], "other", others[i], &storm), 0);
	for (uint64_t i = 0; i < storm.goal || atomic64_read(&storm.migrated) < 100; i++)
		write_private(&storm, i % NR_PAGES, (1UL << 40) + i);
	atomic_set(&storm.stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		kthread_join(&threads[i]);
	expect_ge(atomic64_read(&storm.copies), (int64_t)storm.goal);
}

TEST(file_private, copies_while_the_object_moves_and_changes)
{
	FOR_BOTH(s)
	storm_over(s);
}
