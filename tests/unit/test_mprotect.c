// SPDX-License-Identifier: LGPL-2.1-or-later
/* Rights: of areas, of entries, and what a secondary may keep. */
#include <errno.h>

#include "tests/support/areas.h"
#include "tests/support/step.h"

#define P PAGE_SIZE

TEST(mprotect, areas_split_and_merge)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct counting_notifier cn = {0};

	expect_eq(mm_mmap(mm, area_page(0), 8 * P, RW, NULL, 0), 0);
	counting_register(&cn, mm);
	expect_eq(mm_mprotect(mm, area_page(2), 3 * P - 100, MM_PROT_READ), 0);
	expect_areas(mm, "0-2 rw p, 2-5 r- p, 5-8 rw p");
	expect_eq(cn.start, area_page(2));
	expect_eq(cn.end, area_page(5));
	expect_eq(mm_mprotect(mm, area_page(4), 4 * P, MM_PROT_NONE), 0);
	expect_areas(mm, "0-2 rw p, 2-4 r- p, 4-8 -- p");
	/* One window for each area, as Linux has it. */
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_PROTECTION_VMA]), 3);
	expect_eq(mm_mprotect(mm, area_page(0), 8 * P, RW), 0);
	expect_areas(mm, "0-8 rw p");
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_PROTECTION_VMA]), 5);
	/* As it is: nothing to tell. */
	expect_eq(mm_mprotect(mm, area_page(0), 8 * P, RW), 0);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_PROTECTION_VMA]), 5);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	test_phys_done(phys);
}

TEST(mprotect, checks_arguments)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);

	expect_eq(mm_mmap(mm, area_page(0), 2 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(3), P, RW, NULL, 0), 0);
	expect_eq(mm_mprotect(mm, area_page(0) + 1, P, RW), -EINVAL);
	expect_eq(mm_mprotect(mm, area_page(0), P, MM_PROT_WRITE), -EINVAL);
	expect_eq(mm_mprotect(mm, area_page(0), P, 4), -EINVAL);
	expect_eq(mm_mprotect(mm, area_page(9), 0, RW), 0);
	expect_eq(mm_mprotect(mm, UINT64_MAX & PAGE_MASK, 0, RW), 0); /* nothing, wherever it is */
	expect_eq(mm_mprotect(mm, area_page(9), P, RW), -ENOMEM);
	expect_eq(mm_mprotect(mm, area_page(0), -P, RW), -ENOMEM);
	expect_areas(mm, "0-2 rw p, 3-4 rw p");
	/* What lies before a hole has changed. */
	expect_eq(mm_mprotect(mm, area_page(1), 3 * P, MM_PROT_READ), -ENOMEM);
	expect_areas(mm, "0-1 rw p, 1-2 r- p, 3-4 rw p");
	mmput(mm);
	test_phys_done(phys);
}

static void expect_rights(struct mm_struct *mm, hva_t hva, bool read, bool write)
{
	uint64_t word = 0;

	expect_eq(mm_read(mm, hva, &word, sizeof(word)), read ? 0 : -EFAULT);
	expect_eq(mm_write(mm, hva, &word, sizeof(word)), write ? 0 : -EFAULT);
	expect_eq(mm_read64_atomic(mm, hva, &word), read ? 0 : -EAGAIN);
}

TEST(mprotect, entries_lose_at_once_and_gain_at_a_fault)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys);
	struct address_space *mapping = test_mapping(phys, 1);
	bool writable;
	pfn_t pfn[2];

	expect_eq(mm_mmap(mm, area_page(0), P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(2), P, RW, mapping, 0), 0);
	for (hva_t at = area_page(0); at <= area_page(2); at += 2 * P) {
		test_write(mm, at, 77);
		pfn[0] = mm_lookup_pfn(mm, at);
		expect_eq(mm_mprotect(mm, at, P, MM_PROT_READ), 0);
		expect_rights(mm, at, true, false);
		expect_eq(hva_to_pfn(mm, at, true, &pfn[1], &writable), -EFAULT);
		expect_eq(hva_to_pfn(mm, at, false, &pfn[1], &writable), 0);
		expect(pfn[1] == pfn[0] && !writable);
		expect_eq(mm_mprotect(mm, at, P, MM_PROT_NONE), 0);
		expect_rights(mm, at, false, false);
		expect_eq(hva_to_pfn(mm, at, false, &pfn[1], &writable), -EFAULT);
		expect_eq(mm_lookup_pfn(mm, at), pfn[0]); /* it is still there */
		expect_eq(mm_mprotect(mm, at, P, RW), 0);
		/* A write first: the page is ours alone, and stays in place. */
		expect_eq(hva_to_pfn(mm, at, true, &pfn[1], &writable), 0);
		expect(pfn[1] == pfn[0] && writable);
		expect_eq(test_read(mm, at), 77);
		expect_rights(mm, at, true, true);
		expect_eq(mm_lookup_pfn(mm, at), pfn[0]);
	}
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* From none to readable: by the fault of a reader, which must not gain the right to write. */
TEST(mprotect, reader_gains_reading_only)
{
	struct phys *phys = test_phys(16);
	struct mm_struct *mm = test_mm(phys), *child;

	expect_eq(mm_mmap(mm, area_page(0), P, RW, NULL, 0), 0);
	test_write(mm, area_page(0), 5);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(mm_mprotect(mm, area_page(0), P, MM_PROT_NONE), 0);
	expect_eq(mm_mprotect(mm, area_page(0), P, RW), 0);
	expect_eq(test_read(mm, area_page(0)), 5);
	expect(!(pte_load(pgtable_lookup(mm->pgtable, area_page(0))) & PTE_WRITE));
	test_write(mm, area_page(0), 6);
	expect_eq(test_read(child, area_page(0)), 5);
	mmput(child);
	mmput(mm);
	test_phys_done(phys);
}

struct punched {
	struct step step;
	struct mm_struct *mm;
	struct address_space *mapping;
	unsigned int at;
};

#ifdef CONFIG_LOCKDEP
/* Whoever makes a hole takes other locks than the mmap_lock, and waits for them. */
static void punch_here(struct step *step)
{
	struct punched *p = step->arg;

	if (step->nr < p->at || current_thread()->lockdep_busy || current_thread()->nr_held > 1 ||
	    READ_ONCE(p->mm->page_table_lock.raw.state) ||
	    READ_ONCE(p->mapping->i_mmap_rwsem.count))
		return;
	p->at = step->nr;
	step->over = true;
	expect_eq(address_space_punch_hole(p->mapping, 0, 1), 0);
}
#endif

/* The area has more rights than the entry, and the page goes while a fault is about to give them:
 * what is no entry any more gains none. */
TEST(mprotect, a_page_that_gains_rights_is_gone)
{
#ifdef CONFIG_LOCKDEP
	struct punched p = {.step = {.at_each = punch_here, .arg = &p}};
	struct phys *phys;

	step_skip();
	phys = test_phys(8);
	p.mm = test_mm(phys);
	p.mapping = test_mapping(phys, 1);
	expect_eq(mm_mmap(p.mm, area_page(0), P, RW, p.mapping, 0), 0);
	do {
		test_write(p.mm, area_page(0), 77);
		expect_eq(mm_mprotect(p.mm, area_page(0), P, MM_PROT_READ), 0);
		expect_eq(mm_mprotect(p.mm, area_page(0), P, RW), 0);
		step_begin(&p.step);
		mm_fault(p.mm, area_page(0), true);
		step_end();
		expect_eq(test_read(p.mm, area_page(0)), p.step.over ? 0 : 77);
		p.at += test_long() ? 1 : 5;
	} while (p.step.over);
	expect_ge(p.at, 100);
	mmput(p.mm);
	address_space_put(p.mapping);
	test_phys_done(phys);
#else
	skip("which locks are held is known in debug builds");
#endif
}

struct hammer {
	struct mm_struct *mm;
	atomic_t stop;
	atomic64_t written, refused;
};

static void hammer(void *arg)
{
	struct hammer *h = arg;
	uint64_t n = 0;

	while (!atomic_read(&h->stop)) {
		int ret = mm_write(h->mm, area_page(0), &n, sizeof(n));

		expect(ret == 0 || ret == -EFAULT);
		if (ret) {
			atomic64_inc(&h->refused);
			continue;
		}
		atomic64_set(&h->written, (int64_t)n++);
	}
}

/*
 * After mprotect() no write begins: what is under way may still land, as if it had come before, so
 * it is waited for by pins; then what is read does not change.
 */
TEST(mprotect, no_write_begins_afterwards)
{
	struct phys *phys = test_phys(4);
	struct hammer h = {.mm = test_mm(phys)};
	struct kthread thread;
	uint64_t rounds = test_volume(3000);

	expect_eq(mm_mmap(h.mm, area_page(0), P, RW, NULL, 0), 0);
	test_write(h.mm, area_page(0), 0);
	expect_eq(kthread_run(&thread, "hammer", hammer, &h), 0);
	for (uint64_t round = 0;
	     round < rounds || atomic64_read(&h.refused) < 100 || atomic64_read(&h.written) < 100;
	     round++) {
		struct frame *frame = pfn_to_frame(phys, mm_lookup_pfn(h.mm, area_page(0)));
		uint64_t seen;

		expect_eq(mm_mprotect(h.mm, area_page(0), P, MM_PROT_READ), 0);
		while (frame_is_pinned(frame))
			cpu_relax();
		seen = test_read(h.mm, area_page(0));
		for (unsigned int i = 0; i < 50; i++)
			expect_eq(test_read(h.mm, area_page(0)), seen);
		expect_eq(mm_mprotect(h.mm, area_page(0), P, RW), 0);
	}
	atomic_set(&h.stop, 1);
	kthread_join(&thread);
	mmput(h.mm);
	test_phys_done(phys);
}
