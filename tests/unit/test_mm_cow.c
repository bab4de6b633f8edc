// SPDX-License-Identifier: LGPL-2.1-or-later
/* Copy-on-write: when a page is copied, when it is not, and what notifiers are told. */
#include <errno.h>

#include "tests/support/areas.h"
#include "tests/support/park.h"
#include "tests/support/relax.h"

#define P PAGE_SIZE

struct family {
	struct phys *phys;
	struct mm_struct *mm, *child;
	struct counting_notifier cn;
};

static void family_init(struct family *f, uint64_t nr_frames)
{
	*f = (struct family){.phys = test_phys(nr_frames)};
	f->mm = test_mm(f->phys);
	expect_eq(mm_mmap(f->mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	stamp_pages(f->mm, 0, 4, 0);
	expect_eq(mm_fork(f->mm, &f->child), 0);
	counting_register(&f->cn, f->mm);
}

static void family_done(struct family *f)
{
	counting_expect_paired(&f->cn);
	mmu_notifier_unregister(&f->cn.mn, f->mm);
	if (f->child)
		mmput(f->child);
	mmput(f->mm);
	test_phys_done(f->phys);
}

static uint64_t cow_copies(struct mm_struct *mm)
{
	struct mm_stats stats;

	mm_get_stats(mm, &stats);
	return stats.cow_copies;
}

TEST(mm_cow, a_copy_is_told_of)
{
	struct family f;
	bool writable;
	pfn_t pfn;

	family_init(&f, 16);
	/* To read there is nothing to copy, and nothing to be promised. */
	expect_eq(hva_to_pfn(f.mm, area_page(1), false, &pfn, &writable), 0);
	expect(!writable);
	expect_eq(atomic64_read(&f.cn.starts[MMU_NOTIFY_CLEAR]), 0);
	expect_eq(hva_to_pfn(f.mm, area_page(1), true, &pfn, &writable), 0);
	expect(writable);
	expect_eq(atomic64_read(&f.cn.starts[MMU_NOTIFY_CLEAR]), 1);
	expect_eq(f.cn.start, area_page(1));
	expect_eq(f.cn.end, area_page(2));
	expect_ne(mm_lookup_pfn(f.child, area_page(1)), pfn);
	expect_eq(test_read(f.mm, area_page(1)), 1);
	expect_eq(cow_copies(f.mm), 1);
	/* The child is alone with the old one, and writes it in place: nothing to tell. */
	pfn = mm_lookup_pfn(f.child, area_page(1));
	test_write(f.child, area_page(1), 5);
	expect_eq(mm_lookup_pfn(f.child, area_page(1)), pfn);
	expect_eq(cow_copies(f.child), 0);
	expect_eq(test_read(f.mm, area_page(1)), 1);
	family_done(&f);
}

/*
 * The ladder of mm_cow.c: the child has let go of the page, but somebody reads it for the child
 * still. With the look at the references taken out, the reader sees what the parent writes.
 */
TEST(mm_cow, a_reader_keeps_the_page_as_it_was)
{
	struct family f;
	uint64_t *word;
	pfn_t pfn;

	family_init(&f, 16);
	pfn = mm_lookup_pfn(f.child, area_page(2));
	word = phys_map(f.phys, pfn);
	phys_get(f.phys, pfn); /* as mm_read has it for a moment */
	mmput(f.child);
	f.child = NULL;
	test_write(f.mm, area_page(2), 77);
	expect_eq(READ_ONCE(*word), 2);
	expect_ne(mm_lookup_pfn(f.mm, area_page(2)), pfn);
	phys_put(f.phys, pfn);
	expect_eq(test_read(f.mm, area_page(2)), 77);
	family_done(&f);
}

/*
 * Of two references one is a pin: the write goes where its holder sees it, whoever else reads.
 * Without PTE_OWN the second one has the page copied.
 */
TEST(mm_cow, a_pinned_page_is_not_copied)
{
	struct family f;
	uint64_t *word;
	pfn_t pfn;

	family_init(&f, 16);
	test_write(f.mm, area_page(2), 5);
	expect_eq(mm_pin_page(f.mm, area_page(2), true, &pfn), 0);
	word = phys_map(f.phys, pfn);
	mmput(f.child);
	expect_eq(mm_fork(f.mm, &f.child), 0);
	phys_get(f.phys, pfn); /* as mm_read has it for a moment */
	test_write(f.mm, area_page(2), 77);
	expect_eq(READ_ONCE(*word), 77);
	/* Rights that went and came back change nothing about whose page it is. */
	expect_eq(mm_mprotect(f.mm, area_page(0), 4 * P, MM_PROT_READ), 0);
	expect_eq(mm_mprotect(f.mm, area_page(0), 4 * P, RW), 0);
	test_write(f.mm, area_page(2), 78);
	expect_eq(READ_ONCE(*word), 78);
	expect_eq(mm_lookup_pfn(f.mm, area_page(2)), pfn);
	expect_eq(test_read(f.child, area_page(2)), 5);
	phys_put(f.phys, pfn);
	mm_unpin_page(f.mm, pfn, true);
	family_done(&f);
}

TEST(mm_cow, no_frame_for_the_copy)
{
	struct family f;
	bool writable;
	pfn_t pfn;

	family_init(&f, 4);
	expect_eq(mm_write(f.mm, area_page(0), &pfn, 8), -ENOMEM);
	expect_eq(hva_to_pfn(f.child, area_page(3), true, &pfn, &writable), -ENOMEM);
	expect_stamps(f.mm, 0, 4, 0, 0);
	expect_stamps(f.child, 0, 4, 0, 0);
	expect_eq(mm_munmap(f.child, area_page(0), P), 0);
	test_write(f.mm, area_page(0), 9);
	family_done(&f);
}

TEST(mm_cow, of_an_object)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 2);

	expect_eq(mm_mmap(mm, area_page(0), 2 * P, RW, mapping, 0), 0);
	expect_eq(mm_mmap_flags(mm, area_page(4), 2 * P, RW, MM_MAP_PRIVATE, mapping, 0), 0);
	stamp_pages(mm, 0, 2, 60);
	expect_eq(test_read(mm, area_page(4)), 60);
	expect_eq(mm_lookup_pfn(mm, area_page(4)), mm_lookup_pfn(mm, area_page(0)));
	/* Shown until it is written. */
	test_write(mm, area_page(0), 61);
	expect_eq(test_read(mm, area_page(4)), 61);
	test_write(mm, area_page(4), 62);
	test_write(mm, area_page(0), 63);
	expect_eq(test_read(mm, area_page(4)), 62);
	expect_eq(test_read(mm, area_page(0)), 63);
	/* Dropped, it shows the object again; untouched, a write copies without a look. */
	expect_eq(mm_madvise(mm, area_page(4), P, MM_MADV_DONTNEED), 0);
	expect_eq(test_read(mm, area_page(4)), 63);
	test_write(mm, area_page(5), 64);
	expect_eq(test_read(mm, area_page(1)), 61);
	mmput(mm);
	expect_eq(phys_nr_free(phys), 14);
	address_space_put(mapping);
	test_phys_done(phys);
}

struct writers {
	struct mm_struct *mm;
	atomic_t next;
	atomic64_t ready;
};

#define ROUND_WRITERS 4

/* Each its own word of one page, all at once. */
static void write_own(void *arg)
{
	struct writers *w = arg;
	uint64_t me = (uint64_t)atomic_fetch_add(1, &w->next);

	meet(&w->ready, 1, ROUND_WRITERS);
	test_write(w->mm, area_page(0) + 8 * me, me + 1);
}

TEST(mm_cow, writers_of_one_page_get_one_copy)
{
	uint64_t rounds = test_volume(200);

	for (uint64_t round = 0; round < rounds; round++) {
		struct writers w;
		struct family f;

		family_init(&f, 16);
		w = (struct writers){.mm = f.mm};
		test_threads(ROUND_WRITERS, write_own, &w);
		for (uint64_t i = 0; i < ROUND_WRITERS; i++)
			expect_eq(test_read(f.mm, area_page(0) + 8 * i), i + 1);
		expect_eq(test_read(f.child, area_page(0)), 0);
		expect_eq(phys_nr_free(f.phys), 16 - 5);
		family_done(&f);
	}
}

/* The entry leads to another page by the time that somebody comes for the one that it led to: he
 * gets nothing, and holds nothing. */
TEST(mm_cow, an_entry_that_has_changed)
{
	struct family f;
	struct vm_area_struct *vma;
	struct frame *frame;
	pte_t *ptep, was;
	int refs;

	family_init(&f, 16);
	ptep = pgtable_lookup(f.mm->pgtable, area_page(1));
	was = pte_load(ptep);
	test_write(f.mm, area_page(1), 5);
	frame = pfn_to_frame(f.phys, pte_pfn(was));
	expect_eq(mm_lookup_pfn(f.child, area_page(1)), pte_pfn(was));
	refs = atomic_read(&frame->refcount);
	expect(!get_entry_frame(f.mm, ptep, was));
	expect_eq(atomic_read(&frame->refcount), refs);
	mmap_read_lock(f.mm);
	vma = find_vma(f.mm, area_page(1));
	expect_eq(unshare_fault(vma, area_page(1), ptep, was), 0);
	expect_eq(cow_fault(vma, area_page(1), ptep, was), 0);
	mmap_read_unlock(f.mm);
	expect_eq(atomic_read(&frame->refcount), refs);
	expect_eq(cow_copies(f.mm), 1);
	expect_eq(test_read(f.mm, area_page(1)), 5);
	expect_eq(test_read(f.child, area_page(1)), 1);
	family_done(&f);
}
