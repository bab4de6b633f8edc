/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host mm without migration: mapping, faults, zaps, access, and the order of exit. Most tests
 * end with a full pool: nothing is leaked, nothing is freed twice.
 */
#include <errno.h>
#include <string.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"

#define BASE 0x10000000UL

static hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

TEST(mm, mmap_checks_arguments)
{
	struct phys *phys = test_phys(8), *other = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);
	struct address_space *foreign = test_mapping(other, 4);

	expect_eq(mm_mmap(mm, BASE + 1, PAGE_SIZE, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE + 8, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, 0, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, HVA_MAX, PAGE_SIZE, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, HVA_MAX - PAGE_SIZE, 2 * PAGE_SIZE, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, -BASE, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, -PAGE_SIZE, 2 * PAGE_SIZE, RW, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE, MM_PROT_WRITE, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE, RW | 4, NULL, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, 5 * PAGE_SIZE, RW, mapping, 0), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, 4 * PAGE_SIZE, RW, mapping, 1), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE, RW, mapping, UINT64_MAX), -EINVAL);
	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE, RW, foreign, 0), -EINVAL);

	/* What failed left nothing behind. */
	expect_eq(mm_mmap(mm, BASE, 4 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm, HVA_MAX - PAGE_SIZE, PAGE_SIZE, MM_PROT_READ, NULL, 0), 0);
	expect_eq(mm_mmap(mm, 0, PAGE_SIZE, RW, mapping, 3), 0);
	address_space_put(foreign);
	address_space_put(mapping);
	mmput(mm);
	test_phys_done(other);
	test_phys_done(phys);
}

TEST(mm, mmap_refuses_overlap)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, page(4), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(4), 4 * PAGE_SIZE, RW, NULL, 0), -EEXIST);
	expect_eq(mm_mmap(mm, page(5), PAGE_SIZE, RW, NULL, 0), -EEXIST);
	expect_eq(mm_mmap(mm, page(3), 2 * PAGE_SIZE, RW, NULL, 0), -EEXIST);
	expect_eq(mm_mmap(mm, page(7), 2 * PAGE_SIZE, RW, NULL, 0), -EEXIST);
	expect_eq(mm_mmap(mm, page(2), 8 * PAGE_SIZE, RW, NULL, 0), -EEXIST);
	expect_eq(mm_mmap(mm, page(3), PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(8), PAGE_SIZE, RW, NULL, 0), 0);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, find_vma_is_exact)
{
	struct phys *phys = test_phys(1);
	struct mm_struct *mm = test_mm(phys);
	unsigned int nr = 0;

	/* In an order that is neither up nor down; odd pages stay holes. */
	for (uint64_t i = 0; i < 64; i++)
		expect_eq(mm_mmap(mm, page(2 * (i * 37 % 64)), PAGE_SIZE, RW, NULL, 0), 0);
	mmap_read_lock(mm);
	for (uint64_t i = 0; i < 128; i++) {
		struct vm_area_struct *vma = find_vma(mm, page(i) + 0xfff);

		expect_eq(vma != NULL, i % 2 == 0);
		expect_eq(vma ? vma->start : page(i), page(i));
	}
	expect(!find_vma(mm, BASE - 1) && !find_vma(mm, ~0UL));
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma))
		expect_eq(vma->start, page(2 * nr++));
	expect_eq(nr, 64);
	mmap_read_unlock(mm);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, faults_map_one_zeroed_frame_each)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct mm_stats stats;

	expect_eq(mm_mmap(mm, BASE, 4 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(phys_nr_free(phys), 8);
	expect_eq(mm_lookup_pfn(mm, BASE), INVALID_PFN);

	for (uint64_t i = 0; i < 3; i++) {
		expect_eq(test_read(mm, page(i) + 8), 0);
		expect_eq(mm_lookup_pfn(mm, page(i)), i);
		test_write(mm, page(i) + 8, 100 + i);
	}
	for (uint64_t i = 0; i < 3; i++)
		expect_eq(test_read(mm, page(i) + 8), 100 + i);
	expect_eq(phys_nr_free(phys), 5);
	mm_get_stats(mm, &stats);
	expect_eq(stats.faults, 3);
	expect(mm_phys(mm) == phys);
	mmput(mm);
	test_phys_done(phys);
}

/* Another fault was first: its page stays, and counts, alone. */
TEST(mm, a_fault_that_comes_second)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct vm_area_struct *vma;
	struct mm_stats stats;
	pfn_t first, second;
	pte_t *ptep;

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 7);
	first = mm_lookup_pfn(mm, page(0));
	ptep = pgtable_lookup(mm->pgtable, page(0));
	second = phys_alloc_zeroed(phys);
	mmap_read_lock(mm);
	vma = find_vma(mm, page(0));
	lock_frame(phys, second);
	expect(!install_entry(vma, page(0), ptep, second, PTE_READ | PTE_WRITE));
	unlock_frame(phys, second);
	mmap_read_unlock(mm);
	expect_eq(atomic_read(&pfn_to_frame(phys, second)->mapcount), 0);
	phys_put(phys, second);
	mm_get_stats(mm, &stats);
	expect_eq(stats.faults, 1);
	expect_eq(mm_lookup_pfn(mm, page(0)), first);
	expect_eq(test_read(mm, page(0)), 7);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, access_without_a_mapping_or_rights_is_efault)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct mm_stats stats;
	DEFINE_SPINLOCK(mmu_lock);
	uint64_t word = 1;
	bool writable;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE, MM_PROT_READ, NULL, 0), 0);
	expect_eq(mm_read(mm, BASE - 8, &word, 8), -EFAULT);
	expect_eq(mm_read(mm, page(1), &word, 8), -EFAULT);
	expect_eq(mm_read(mm, ~0UL - 3, &word, 8), -EFAULT);
	expect_eq(mm_write(mm, BASE, &word, 8), -EFAULT);
	expect_eq(mm_cmpxchg64(mm, BASE, &word, 2), -EFAULT);
	expect_eq(mm_cmpxchg64(mm, BASE + 4, &word, 2), -EINVAL);
	expect_eq(mm_read64_atomic(mm, BASE + 4, &word), -EINVAL);
	expect_eq(mm_read64_atomic(mm, BASE, &word), -EAGAIN);
	expect_eq(mm_read64_atomic(mm, ~7UL, &word), -EAGAIN);
	expect_eq(hva_to_pfn(mm, BASE, true, &pfn, &writable), -EFAULT);
	expect_eq(hva_to_pfn(mm, page(1), false, &pfn, &writable), -EFAULT);
	mm_get_stats(mm, &stats);
	expect_eq(stats.faults, 0);

	expect_eq(mm_read(mm, BASE, &word, 8), 0);
	expect_eq(word, 0);
	word = 5;
	spin_lock(&mmu_lock);
	expect_eq(mm_read64_atomic(mm, BASE, &word), 0);
	expect_eq(mm_lookup_pfn(mm, BASE), 0);
	spin_unlock(&mmu_lock);
	expect_eq(word, 0);
	/* Present, but not writable. */
	expect_eq(mm_write(mm, BASE, &word, 8), -EFAULT);
	expect_eq(mm_cmpxchg64(mm, BASE, &word, 2), -EFAULT);
	expect_eq(hva_to_pfn(mm, BASE, true, &pfn, &writable), -EFAULT);
	expect_eq(hva_to_pfn(mm, BASE, false, &pfn, &writable), 0);
	expect(!writable);
	expect_eq(test_read(mm, BASE), 0);
	expect_eq(mm_read(mm, BASE, NULL, 0), 0);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, access_crosses_pages_at_any_alignment)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	unsigned char out[64], in[64], neighbours[2];

	expect_eq(mm_mmap(mm, BASE, 3 * PAGE_SIZE, RW, NULL, 0), 0);
	for (size_t offset = PAGE_SIZE - 40; offset < PAGE_SIZE + 8; offset++) {
		for (size_t len = 1; len <= 33; len++) {
			for (size_t i = 0; i < len; i++)
				out[i] = offset + 3 * i + len;
			memset(in, 0xaa, sizeof(in));
			expect_eq(mm_write(mm, BASE + offset - 1, "\x11", 1), 0);
			expect_eq(mm_write(mm, BASE + offset + len, "\x22", 1), 0);
			expect_eq(mm_write(mm, BASE + offset, out, len), 0);
			expect_eq(mm_read(mm, BASE + offset, in, len), 0);
			expect(memcmp(in, out, len) == 0);
			expect_eq(in[len], 0xaa);
			expect_eq(mm_read(mm, BASE + offset - 1, &neighbours[0], 1), 0);
			expect_eq(mm_read(mm, BASE + offset + len, &neighbours[1], 1), 0);
			expect_eq(neighbours[0], 0x11);
			expect_eq(neighbours[1], 0x22);
		}
	}

	/* The pages before the failing one were done. */
	memset(out, 0x77, sizeof(out));
	expect_eq(mm_write(mm, page(3) - 16, out, 32), -EFAULT);
	expect_eq(test_read(mm, page(3) - 16), 0x7777777777777777ULL);
	expect_eq(test_read(mm, page(3) - 8), 0x7777777777777777ULL);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, cmpxchg64)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	uint64_t old = 0;

	expect_eq(mm_mmap(mm, BASE, PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_cmpxchg64(mm, BASE + 8, &old, 7), 0);
	expect_eq(old, 0);
	expect_eq(mm_cmpxchg64(mm, BASE + 8, &old, 9), 1);
	expect_eq(old, 7);
	expect_eq(mm_cmpxchg64(mm, BASE + 8, &old, 9), 0);
	expect_eq(test_read(mm, BASE + 8), 9);
	expect_eq(test_read(mm, BASE), 0);
	expect_eq(test_read(mm, BASE + 16), 0);
	mmput(mm);
	test_phys_done(phys);
}

/* Within the window: what end says is over is over. */
static void check_nothing_mapped(struct counting_notifier *cn,
				 const struct mmu_notifier_range *range)
{
	(void)cn;
	for (hva_t hva = range->start; hva < range->end; hva += PAGE_SIZE)
		expect_eq(mm_lookup_pfn(range->mm, hva), INVALID_PFN);
}

TEST(mm, zap_keeps_shared_contents_and_drops_private_ones)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys), *mm2 = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 4);
	struct counting_notifier cn = {.on_end = check_nothing_mapped};
	struct mm_stats stats;
	pfn_t shared;

	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm, page(4), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm2, page(0), 2 * PAGE_SIZE, MM_PROT_READ, mapping, 2), 0);
	counting_register(&cn, mm);
	for (uint64_t i = 0; i < 8; i++)
		test_write(mm, page(i), i + 1);
	shared = mm_lookup_pfn(mm, page(2));
	expect_eq(test_read(mm2, page(0)), 3);
	expect_eq(mm_lookup_pfn(mm2, page(0)), shared);
	expect_eq(atomic_read(&pfn_to_frame(phys, shared)->refcount), 3);
	expect_eq(atomic_read(&pfn_to_frame(phys, shared)->mapcount), 2);
	expect_eq(phys_nr_free(phys), 8);
	expect_eq(cn.starts[MMU_NOTIFY_CLEAR].counter, 0);

	/* Across both VMAs, one window. */
	expect_eq(mm_zap_range(mm, page(1), 5 * PAGE_SIZE), 5);
	expect_eq(cn.starts[MMU_NOTIFY_CLEAR].counter, 1);
	expect_eq(cn.start, page(1));
	expect_eq(cn.end, page(6));
	counting_expect_paired(&cn);
	expect_eq(phys_nr_free(phys), 10);
	for (uint64_t i = 0; i < 8; i++)
		expect_eq(mm_lookup_pfn(mm, page(i)) != INVALID_PFN, i < 1 || i > 5);
	expect_eq(mm_lookup_pfn(mm2, page(0)), shared);

	for (uint64_t i = 0; i < 8; i++)
		expect_eq(test_read(mm, page(i)), i == 4 || i == 5 ? 0 : i + 1);
	expect_eq(mm_lookup_pfn(mm, page(2)), shared);

	expect_eq(mm_zap_range(mm, page(0), 8 * PAGE_SIZE), 8);
	expect_eq(mm_zap_range(mm, page(0), 8 * PAGE_SIZE), 0);
	expect_eq(cn.starts[MMU_NOTIFY_CLEAR].counter, 3);
	mm_get_stats(mm, &stats);
	expect_eq(stats.pages_zapped, 13);
	expect_eq(stats.faults, 13);
	expect_eq(atomic_read(&pfn_to_frame(phys, shared)->mapcount), 1);

	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm2);
	mmput(mm);
	expect_eq(phys_nr_free(phys), 12);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(mm, zap_checks_the_range_before_anything_changes)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct counting_notifier cn = {.releases = ATOMIC64_INIT(0)};

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(3), PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&cn, mm);
	test_write(mm, page(0), 1);
	expect_eq(mm_zap_range(mm, page(0) + 8, PAGE_SIZE), -EINVAL);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE - 8), -EINVAL);
	expect_eq(mm_zap_range(mm, page(0), -PAGE_SIZE), -EINVAL);
	expect_eq(mm_zap_range(mm, HVA_MAX + PAGE_SIZE, PAGE_SIZE), -EINVAL);
	expect_eq(mm_zap_range(mm, page(0), 4 * PAGE_SIZE), -ENOMEM);
	expect_eq(mm_zap_range(mm, BASE - PAGE_SIZE, 2 * PAGE_SIZE), -ENOMEM);
	expect_eq(mm_zap_range(mm, page(3), 2 * PAGE_SIZE), -ENOMEM);
	expect_eq(mm_zap_range(mm, page(9), PAGE_SIZE), -ENOMEM);
	expect_eq(mm_zap_range(mm, page(0), 0), 0);
	expect_eq(cn.starts[MMU_NOTIFY_CLEAR].counter, 0);
	expect_eq(test_read(mm, page(0)), 1);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, no_frame_left_is_enomem)
{
	struct phys *phys = test_phys(2);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 2);
	unsigned char buf[3 * PAGE_SIZE];
	uint64_t word = 0;

	expect_eq(mm_mmap(mm, page(0), 4 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(4), 2 * PAGE_SIZE, RW, mapping, 0), 0);
	memset(buf, 0x33, sizeof(buf));
	expect_eq(mm_write(mm, page(0), buf, sizeof(buf)), -ENOMEM);
	expect_eq(test_read(mm, page(1)), 0x3333333333333333ULL);
	expect_eq(mm_read(mm, page(4), &word, 8), -ENOMEM);
	expect_eq(mm_cmpxchg64(mm, page(5), &word, 1), -ENOMEM);

	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(test_read(mm, page(4)), 0);
	expect_eq(mm_read(mm, page(5), &word, 8), -ENOMEM);
	address_space_put(mapping);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, hva_to_pfn_and_dirty)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	bool writable = false;
	pfn_t pfn = INVALID_PFN;

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(2), PAGE_SIZE, MM_PROT_READ, NULL, 0), 0);

	expect_eq(test_read(mm, page(0)), 0);
	expect_eq(*pgtable_lookup(mm->pgtable, page(0)),
		  pte_make(0, PTE_PRESENT | PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_SOFT_DIRTY |
				      PTE_OWN));
	test_write(mm, page(0), 1);
	expect(*pgtable_lookup(mm->pgtable, page(0)) & PTE_DIRTY);

	/* Who is told "writable" may write without asking again: dirty, whatever was asked. */
	expect_eq(hva_to_pfn(mm, page(1) + 0x123, false, &pfn, &writable), 0);
	expect_eq(pfn, mm_lookup_pfn(mm, page(1)));
	expect(writable);
	expect(*pgtable_lookup(mm->pgtable, page(1)) & PTE_DIRTY);

	expect_eq(hva_to_pfn(mm, page(2), false, &pfn, &writable), 0);
	expect(!writable);
	expect(!(*pgtable_lookup(mm->pgtable, page(2)) & PTE_DIRTY));
	mmput(mm);
	test_phys_done(phys);
}

TEST(mm, users_and_count)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, page(0), PAGE_SIZE, RW, NULL, 0), 0);
	test_write(mm, page(0), 1);
	mmget(mm);
	expect(mmget_not_zero(mm));
	mmgrab(mm);
	mmput(mm);
	mmput(mm);
	expect_eq(test_read(mm, page(0)), 1);
	expect_eq(phys_nr_free(phys), 7);

	/* Pages, tables and areas go with the last user, the structure stays for the last count. */
	mmput(mm);
	expect_eq(phys_nr_free(phys), 8);
	expect(!mmget_not_zero(mm));
	expect(mm_phys(mm) == phys);
	expect(!mm->pgtable && RB_EMPTY(&mm->vmas));
	expect_eq(mm->nr_vmas, 0);
	mmdrop(mm);
	test_phys_done(phys);
}

static void check_pages_at_release(struct counting_notifier *cn, struct mm_struct *mm)
{
	struct phys *phys = cn->arg;

	expect_eq(phys_nr_free(phys), 4);
	for (uint64_t i = 0; i < 4; i++) {
		pfn_t pfn = mm_lookup_pfn(mm, page(i));

		expect_ne(pfn, INVALID_PFN);
		expect_eq(*(uint64_t *)phys_map(phys, pfn), i + 1);
	}
}

TEST(mm, exit_releases_before_it_frees)
{
	struct phys *phys = test_phys(8);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 2);
	struct counting_notifier cn = {.on_release = check_pages_at_release, .arg = phys};

	expect_eq(mm_mmap(mm, page(0), 2 * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm, page(2), 2 * PAGE_SIZE, RW, NULL, 0), 0);
	address_space_put(mapping);
	for (uint64_t i = 0; i < 4; i++)
		test_write(mm, page(i), i + 1);
	counting_register(&cn, mm);

	mmput(mm);
	expect_eq(cn.releases.counter, 1);
	expect_eq(phys_nr_free(phys), 8);
	/* The notifier holds an mm_count: the structure is still there to be told. */
	mmu_notifier_unregister(&cn.mn, mm);
	expect_eq(cn.releases.counter, 1);
	counting_expect_paired(&cn);
	test_phys_done(phys);
}

/* --- threads --- */

#define RACED_PAGES 64

struct race {
	struct phys *phys;
	struct mm_struct *mm;
	atomic_t stop;
	atomic64_t work, zaps;
	uint64_t goal;
};

static void touch_all(void *arg)
{
	struct race *r = arg;

	for (uint64_t i = 0; i < 2 * RACED_PAGES; i++)
		test_increment(r->mm, page(i));
}

TEST(mm, faults_on_one_page_agree_on_a_frame)
{
	for (uint64_t round = 0; round < test_volume(50); round++) {
		struct race r = {.phys = test_phys(3 * RACED_PAGES)};
		struct address_space *mapping = test_mapping(r.phys, RACED_PAGES);

		r.mm = test_mm(r.phys);
		expect_eq(mm_mmap(r.mm, page(0), RACED_PAGES * PAGE_SIZE, RW, mapping, 0), 0);
		expect_eq(mm_mmap(r.mm, page(RACED_PAGES), RACED_PAGES * PAGE_SIZE, RW, NULL, 0),
			  0);
		test_threads(4, touch_all, &r);
		for (uint64_t i = 0; i < 2 * RACED_PAGES; i++)
			expect_eq(test_read(r.mm, page(i)), 4);
		expect_eq(phys_nr_free(r.phys), RACED_PAGES);
		mmput(r.mm);
		address_space_put(mapping);
		test_phys_done(r.phys);
	}
}

static void refault(void *arg)
{
	struct race *r = arg;
	uint64_t n = 0;

	while (!atomic_read(&r->stop)) {
		uint64_t i = n++ % (2 * RACED_PAGES), found = 0;

		test_increment(r->mm, page(i));
		if (mm_read64_atomic(r->mm, page(i), &found) == 0)
			expect_ne(found, PHYS_POISON);
		if (i < RACED_PAGES) /* counted where contents last */
			atomic64_inc(&r->work);
	}
}

static void zap_all(void *arg)
{
	struct race *r = arg;
	uint64_t i;

	/* Enough of both, however the threads were scheduled. */
	for (i = 0; i < r->goal || (uint64_t)atomic64_read(&r->work) < r->goal; i++)
		expect_ge(mm_zap_range(r->mm, page(i % RACED_PAGES), RACED_PAGES * PAGE_SIZE), 0);
	atomic64_add(i, &r->zaps);
	atomic_set(&r->stop, 1);
}

/* Increments of shared pages survive every zap, and no access ever meets a freed frame's poison. */
TEST(mm, access_races_with_zap)
{
	struct race r = {.phys = test_phys(2 * RACED_PAGES + 8), .goal = test_volume(2000)};
	struct address_space *mapping = test_mapping(r.phys, RACED_PAGES);
	struct counting_notifier cn = {.releases = ATOMIC64_INIT(0)};
	struct kthread zapper, zapper2;
	uint64_t sum = 0;

	r.mm = test_mm(r.phys);
	expect_eq(mm_mmap(r.mm, page(0), RACED_PAGES * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(r.mm, page(RACED_PAGES), RACED_PAGES * PAGE_SIZE, RW, NULL, 0), 0);
	counting_register(&cn, r.mm);
	expect_eq(kthread_run(&zapper, "zap", zap_all, &r), 0);
	expect_eq(kthread_run(&zapper2, "zap", zap_all, &r), 0);
	test_threads(2, refault, &r);
	kthread_join(&zapper);
	kthread_join(&zapper2);

	for (uint64_t i = 0; i < RACED_PAGES; i++)
		sum += test_read(r.mm, page(i));
	expect_eq(sum, atomic64_read(&r.work));
	expect_ge(sum, r.goal);
	expect_ge(atomic64_read(&r.zaps), 2 * r.goal);
	expect_eq(cn.starts[MMU_NOTIFY_CLEAR].counter, r.zaps.counter);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, r.mm);
	mmput(r.mm);
	address_space_put(mapping);
	test_phys_done(r.phys);
}
