/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hmm_range_fault(): what it answers, what it faults in, each of its errors, and what an
 * invalidation at each of its steps does. A device that uses the answers is in test_hmm_device.c.
 *
 * The file under test is part of this one, so that something can happen at each of its looks at the
 * sequence, and between its load of an entry and what it stores there.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include <gnomon/hmm.h>

#include "notifier/mm_internal.h"

static void at_check(void), at_touch(void);
#define mmu_interval_check_retry(sub, seq) (at_check(), (mmu_interval_check_retry)(sub, seq))
#define pte_touch(ptep, pte, dirty)	   (at_touch(), (pte_touch)(ptep, pte, dirty))
#include "notifier/hmm.c"
#undef mmu_interval_check_retry
#undef pte_touch

#include "tests/support/mm_fixture.h"

/* The pages of the areas: private, shared, read-only, a hole, private. */
#define HVA	0x100000000UL
#define PRIVATE 0
#define SHARED	4
#define RO	7
#define HOLE	9
#define LAST	11
#define PAGES	12

#define READ_FAULT  HMM_PFN_REQ_FAULT
#define WRITE_FAULT (HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE)

static struct phys *phys;
static struct mm_struct *mm;
static struct address_space *mapping;
static struct mmu_interval_notifier sub;
static DEFINE_MUTEX(driver_lock);
static uint64_t entries[PAGES];
static struct hmm_range range;

static int checks;     /* of the sequence, since the last walk began */
static int disturb_at; /* the number of the check before which disturb() is called */
static void (*disturb)(void);

static void at_check(void)
{
	if (++checks == disturb_at)
		disturb();
}

static bool disturb_touch; /* before the next one, once */

static void at_touch(void)
{
	if (!disturb_touch)
		return;
	disturb_touch = false;
	disturb();
}

static bool invalidate(struct mmu_interval_notifier *interval_sub,
		       const struct mmu_notifier_range *update, unsigned long cur_seq)
{
	(void)update;
	mutex_lock(&driver_lock);
	mmu_interval_set_seq(interval_sub, cur_seq);
	mutex_unlock(&driver_lock);
	return true;
}

static const struct mmu_interval_notifier_ops ops = {.invalidate = invalidate};

static hva_t at(unsigned int page)
{
	return HVA + page * PAGE_SIZE;
}

static void map(unsigned int page, unsigned int end, unsigned int prot, struct address_space *of,
		uint64_t pgoff)
{
	expect_eq(mm_mmap(mm, at(page), (end - page) * PAGE_SIZE, prot, of, pgoff), 0);
}

static void setup(void)
{
	phys = test_phys(64);
	mm = test_mm(phys);
	mapping = test_mapping(phys, 8);
	map(PRIVATE, SHARED, RW, NULL, 0);
	map(SHARED, RO, RW, mapping, 0);
	map(RO, HOLE, MM_PROT_READ, mapping, 3);
	map(LAST, PAGES, RW, NULL, 0);
	expect_eq(mmu_interval_notifier_insert(&sub, mm, HVA, PAGES * PAGE_SIZE, &ops), 0);
}

static void teardown(void)
{
	mmu_interval_notifier_remove(&sub);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* One walk, with the same request for each page of [first, end). */
static int walk(unsigned int first, unsigned int end, uint64_t request)
{
	int ret;

	memset(entries, 0, sizeof(entries));
	range = (struct hmm_range){
		.notifier = &sub,
		.notifier_seq = mmu_interval_read_begin(&sub),
		.start = at(first),
		.end = at(end),
		.hmm_pfns = &entries[first],
		.default_flags = request,
	};
	checks = 0;
	mmap_read_lock(mm);
	ret = hmm_range_fault(&range);
	mmap_read_unlock(mm);
	return ret;
}

static uint64_t faults(void)
{
	struct mm_stats stats;

	mm_get_stats(mm, &stats);
	return stats.faults;
}

static void expect_mapped(unsigned int page, uint64_t flags)
{
	pfn_t pfn = mm_lookup_pfn(mm, at(page));

	expect_ne(pfn, INVALID_PFN);
	expect_eq(entries[page] & ~HMM_PFN_MASK, flags);
	expect_eq(hmm_pfn_to_pfn(entries[page]), pfn);
	expect_eq(hmm_pfn_to_map_order(entries[page]), 0);
}

static pte_t entry_of(unsigned int page)
{
	return pte_load(pgtable_lookup(mm->pgtable, at(page)));
}

TEST(hmm, faults_once)
{
	setup();
	for (int i = 0; i < 3; i++) {
		expect_eq(walk(0, 1, READ_FAULT), 0);
		expect_eq(faults(), 1);
		expect_mapped(0, HMM_PFN_VALID | HMM_PFN_WRITE);
	}
	/* The frame is the page. */
	test_write(mm, at(0), 42);
	expect_eq(*(uint64_t *)phys_map(phys, hmm_pfn_to_pfn(entries[0])), 42);
	teardown();
}

TEST(hmm, over_several_areas)
{
	setup();
	expect_eq(walk(0, HOLE, READ_FAULT), 0);
	expect_eq(faults(), HOLE);
	for (unsigned int page = 0; page < HOLE; page++)
		expect_mapped(page, HMM_PFN_VALID | (page < RO ? HMM_PFN_WRITE : 0));
	expect_eq(walk(2, RO, WRITE_FAULT), 0);
	expect_eq(faults(), HOLE);
	for (unsigned int page = 2; page < RO; page++)
		expect_mapped(page, HMM_PFN_VALID | HMM_PFN_WRITE);
	teardown();
}

/* From the last page of a leaf to the first of the next but one; the leaf in the middle is made by
 * the walk's own fault. */
TEST(hmm, over_several_leaves)
{
	enum { NR = 514 };
	static uint64_t pfns[NR];
	const hva_t start = HVA + (1UL << 30) - PAGE_SIZE, end = start + NR * PAGE_SIZE;
	struct mmu_interval_notifier far;
	struct hmm_range r = {.notifier = &far, .start = start, .end = end, .hmm_pfns = pfns};

	setup();
	expect_eq(mm_mmap(mm, start, end - start, RW, NULL, 0), 0);
	expect_eq(mmu_interval_notifier_insert(&far, mm, start, end - start, &ops), 0);
	for (unsigned int there = 0; there < 3; there++) {
		static const unsigned int pages[] = {NR, NR - 1, 0};
		unsigned int nr = 0;

		if (pages[there] < NR)
			test_write(mm, start + pages[there] * PAGE_SIZE, there);
		r.notifier_seq = mmu_interval_read_begin(&far);
		r.pfn_flags_mask = 0;
		mmap_read_lock(mm);
		expect_eq(hmm_range_fault(&r), 0);
		mmap_read_unlock(mm);
		for (unsigned int i = 0; i < NR; i++) {
			pfn_t pfn = mm_lookup_pfn(mm, start + i * PAGE_SIZE);

			expect_eq(pfns[i] != 0, pfn != INVALID_PFN);
			expect(!pfns[i] || hmm_pfn_to_pfn(pfns[i]) == pfn);
			nr += pfns[i] != 0;
		}
		expect_eq(nr, there);
	}

	/* Behind one that is there, two of the leaf that is not. */
	expect_eq(mm_zap_range(mm, start + PAGE_SIZE, end - start - PAGE_SIZE), 1);
	expect(!pgtable_lookup(mm->pgtable, start + PAGE_SIZE));
	memset(pfns, 0, sizeof(pfns));
	pfns[0] = pfns[1] = pfns[2] = pfns[NR - 1] = READ_FAULT;
	r.pfn_flags_mask = READ_FAULT;
	r.notifier_seq = mmu_interval_read_begin(&far);
	mmap_read_lock(mm);
	expect_eq(hmm_range_fault(&r), 0);
	mmap_read_unlock(mm);
	for (unsigned int i = 0; i < NR; i++) {
		expect_eq(pfns[i] != 0, i < 3 || i == NR - 1);
		expect_eq(pfns[i] ? hmm_pfn_to_pfn(pfns[i]) : INVALID_PFN,
			  mm_lookup_pfn(mm, start + i * PAGE_SIZE));
	}
	mmu_interval_notifier_remove(&far);
	teardown();
}

TEST(hmm, snapshot_changes_nothing)
{
	setup();
	expect_eq(walk(0, PAGES, 0), 0);
	for (unsigned int page = 0; page < PAGES; page++)
		expect_eq(entries[page], page >= HOLE && page < LAST ? HMM_PFN_ERROR : 0);
	expect_eq(faults(), 0);

	test_read(mm, at(1));
	test_read(mm, at(RO));
	expect_eq(walk(0, PAGES, 0), 0);
	expect_mapped(1, HMM_PFN_VALID | HMM_PFN_WRITE);
	expect_mapped(RO, HMM_PFN_VALID);
	expect_eq(entries[0], 0);
	expect_eq(entries[HOLE - 1], 0);
	expect_eq(entries[LAST], 0);
	/* To write, if nothing else, is not a request. */
	expect_eq(walk(0, PAGES, HMM_PFN_REQ_WRITE), 0);
	expect_eq(faults(), 2);
	teardown();
}

/* Page by page: the request is of the entry, or of all, as the mask has it. */
TEST(hmm, requests_of_single_pages)
{
	setup();
	entries[1] = READ_FAULT;
	entries[RO - 1] = WRITE_FAULT;
	entries[2] = HMM_PFN_MASK; /* no request in there */
	range = (struct hmm_range){.notifier = &sub,
				   .notifier_seq = mmu_interval_read_begin(&sub),
				   .start = at(0),
				   .end = at(PAGES),
				   .hmm_pfns = entries,
				   .pfn_flags_mask = WRITE_FAULT};
	mmap_read_lock(mm);
	expect_eq(hmm_range_fault(&range), 0);
	mmap_read_unlock(mm);
	expect_eq(faults(), 2);
	expect_mapped(1, HMM_PFN_VALID | HMM_PFN_WRITE);
	expect_mapped(RO - 1, HMM_PFN_VALID | HMM_PFN_WRITE);
	expect_eq(entries[2], 0);
	expect_eq(entries[HOLE], HMM_PFN_ERROR);
	/* What was found asks for the same again. */
	mmap_read_lock(mm);
	expect_eq(hmm_range_fault(&range), 0);
	mmap_read_unlock(mm);
	expect_eq(faults(), 2);

	/* Masked out, nobody asks. */
	range.pfn_flags_mask = 0;
	expect_eq(mm_zap_range(mm, at(1), PAGE_SIZE), 1);
	range.notifier_seq = mmu_interval_read_begin(&sub);
	mmap_read_lock(mm);
	expect_eq(hmm_range_fault(&range), 0);
	mmap_read_unlock(mm);
	expect_eq(entries[1], 0);
	teardown();
}

TEST(hmm, holes)
{
	setup();
	expect_eq(walk(HOLE - 1, HOLE + 1, READ_FAULT), -EFAULT);
	expect_eq(faults(), 1); /* as far as it came */
	expect_eq(walk(HOLE, LAST, WRITE_FAULT), -EFAULT);
	expect_eq(walk(HOLE, LAST, 0), 0);
	expect_eq(entries[HOLE], HMM_PFN_ERROR);
	teardown();
}

TEST(hmm, read_only)
{
	setup();
	expect_eq(walk(RO, HOLE, WRITE_FAULT), -EPERM);
	expect_eq(faults(), 0);
	expect_eq(walk(RO, HOLE, READ_FAULT), 0);
	expect_eq(walk(RO, HOLE, WRITE_FAULT), -EPERM); /* present or not */
	expect_eq(walk(RO - 1, HOLE, WRITE_FAULT), -EPERM);
	expect_mapped(RO - 1, HMM_PFN_VALID | HMM_PFN_WRITE);
	expect_eq(faults(), 3);
	teardown();
}

static int walk_at(hva_t start, hva_t end)
{
	int ret;

	range = (struct hmm_range){.notifier = &sub,
				   .notifier_seq = mmu_interval_read_begin(&sub),
				   .start = start,
				   .end = end,
				   .hmm_pfns = entries};
	mmap_read_lock(mm);
	ret = hmm_range_fault(&range);
	mmap_read_unlock(mm);
	return ret;
}

TEST(hmm, bad_ranges)
{
	setup();
	expect_eq(walk_at(at(0), at(0)), -EINVAL);
	expect_eq(walk_at(at(1), at(0)), -EINVAL);
	expect_eq(walk_at(at(0) + 1, at(1)), -EINVAL);
	expect_eq(walk_at(at(0), at(1) - 1), -EINVAL);
	expect_eq(walk_at(at(0), ~0UL & PAGE_MASK), -EINVAL);
	expect_eq(walk_at(HVA_MAX - PAGE_SIZE, HVA_MAX + PAGE_SIZE), -EINVAL);
	/* Nobody would tell of what is outside of the interval. */
	expect_eq(walk_at(at(0) - PAGE_SIZE, at(1)), -EINVAL);
	expect_eq(walk_at(at(PAGES - 1), at(PAGES + 1)), -EINVAL);
	expect_eq(walk_at(at(0), at(PAGES)), 0);
	expect_eq(faults(), 0);
	teardown();
}

static void walk_without_mmap_lock(void *arg)
{
	(void)arg;
	range.notifier_seq = mmu_interval_read_begin(&sub);
	(void)!hmm_range_fault(&range);
}

TEST(hmm, wants_mmap_lock)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	setup();
	expect_eq(walk(0, 1, 0), 0);
	expect_bug(walk_without_mmap_lock, NULL, "hmm_range_fault(): lock ");
	teardown();
}

static DEFINE_SPINLOCK(spin);

static void walk_under_a_spinlock(void *arg)
{
	(void)arg;
	range.notifier_seq = mmu_interval_read_begin(&sub);
	mmap_read_lock(mm);
	spin_lock(&spin);
	(void)!hmm_range_fault(&range);
}

/* Nor a snapshot, which finds all that it wants today. */
TEST(hmm, never_under_a_spinlock)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#endif
	setup();
	expect_eq(walk(0, 1, 0), 0);
	expect_bug(walk_under_a_spinlock, NULL, "may sleep, but this thread holds a spinlock");
	teardown();
}

TEST(hmm, out_of_frames)
{
	pfn_t taken[64];
	unsigned int nr = 0;

	setup();
	while (phys_nr_free(phys) > 2)
		taken[nr++] = phys_alloc(phys);
	expect_eq(walk(0, 4, READ_FAULT), -ENOMEM);
	expect_eq(faults(), 2);
	expect_eq(walk(SHARED, RO, READ_FAULT), -ENOMEM);
	while (nr)
		phys_put(phys, taken[--nr]);
	expect_eq(walk(0, RO, READ_FAULT), 0);
	expect_eq(faults(), RO);
	teardown();
}

/* The device will write without a word: what may be written counts as written. */
TEST(hmm, writable_is_dirty)
{
	setup();
	test_read(mm, at(0));
	expect(!(entry_of(0) & PTE_DIRTY));
	expect_eq(walk(0, 1, 0), 0);
	expect_mapped(0, HMM_PFN_VALID | HMM_PFN_WRITE);
	expect(entry_of(0) & PTE_DIRTY);

	expect_eq(walk(1, 2, READ_FAULT), 0);
	expect(entry_of(1) & PTE_DIRTY);
	expect_eq(walk(RO, RO + 1, READ_FAULT), 0);
	expect_eq(entry_of(RO) & (PTE_DIRTY | PTE_ACCESSED), PTE_ACCESSED);
	teardown();
}

/* ---- invalidations ---- */

/* Another thread, as this one holds mmap_lock. */
static void zap_the_first(void *arg)
{
	(void)arg;
	mm_zap_range(mm, at(0), PAGE_SIZE);
}

static void zap_elsewhere(void)
{
	test_threads(1, zap_the_first, NULL);
}

TEST(hmm, invalidated_before_the_walk)
{
	setup();
	disturb = zap_elsewhere;
	disturb_at = 1;
	expect_eq(walk(0, 3, READ_FAULT), -EBUSY);
	expect_eq(checks, 1);
	expect_eq(faults(), 0);
	disturb_at = 0;
	expect_eq(walk(0, 3, READ_FAULT), 0);
	expect_eq(faults(), 3);
	teardown();
}

/* Page 0 was there, and told, and is taken away while page 0, 1 or 2 is being faulted in. */
TEST(hmm, invalidated_after_a_fault)
{
	for (int page = 0; page < 3; page++) {
		setup();
		disturb = zap_elsewhere;
		disturb_at = page + 2;
		expect_eq(walk(0, 3, READ_FAULT), -EBUSY);
		expect_eq(faults(), page + 1);
		expect_eq(mm_lookup_pfn(mm, at(0)), INVALID_PFN);
		disturb_at = 0;
		expect_eq(walk(0, 3, READ_FAULT), 0);
		expect_eq(faults(), 3 + 1); /* only page 0 again */
		expect_mapped(0, HMM_PFN_VALID | HMM_PFN_WRITE);
		teardown();
	}
}

/* Nothing is left to fault: the walk does not see it, and what it found is no longer true. */
TEST(hmm, invalidated_after_the_walk)
{
	setup();
	expect_eq(walk(0, 3, READ_FAULT), 0);
	expect(!mmu_interval_read_retry(&sub, range.notifier_seq));
	zap_elsewhere();
	mutex_lock(&driver_lock);
	expect(mmu_interval_read_retry(&sub, range.notifier_seq));
	mutex_unlock(&driver_lock);
	teardown();
}

/* The entry that was loaded is not there any more when it is to become dirty. */
TEST(hmm, zapped_between_load_and_store)
{
	setup();
	test_read(mm, at(0));
	disturb = zap_elsewhere;
	disturb_touch = true;
	expect_eq(walk(0, 1, 0), 0);
	expect(!disturb_touch);
	expect_eq(entries[0], 0);
	expect(mmu_interval_read_retry(&sub, range.notifier_seq));
	expect_eq(entry_of(0), 0);
	teardown();
}

/* It is there, and somebody has looked at its age meanwhile. */
static void clean_elsewhere(void)
{
	pte_t *ptep = pgtable_lookup(mm->pgtable, at(0));

	spin_lock(&mm->page_table_lock);
	set_pte(mm, at(0), ptep, pte_load(ptep) & ~PTE_ACCESSED);
	spin_unlock(&mm->page_table_lock);
}

TEST(hmm, changed_between_load_and_store)
{
	setup();
	test_read(mm, at(0));
	disturb = clean_elsewhere;
	disturb_touch = true;
	expect_eq(walk(0, 1, 0), 0);
	expect(!disturb_touch);
	expect_mapped(0, HMM_PFN_VALID | HMM_PFN_WRITE);
	expect_eq(entry_of(0) & (PTE_ACCESSED | PTE_DIRTY), PTE_ACCESSED | PTE_DIRTY);
	teardown();
}

/* Elsewhere, nobody cares. */
TEST(hmm, invalidated_outside)
{
	struct mmu_interval_notifier part;

	setup();
	expect_eq(mmu_interval_notifier_insert(&part, mm, at(1), 2 * PAGE_SIZE, &ops), 0);
	range = (struct hmm_range){.notifier = &part,
				   .notifier_seq = mmu_interval_read_begin(&part),
				   .start = at(1),
				   .end = at(3),
				   .hmm_pfns = entries,
				   .default_flags = READ_FAULT};
	zap_elsewhere();
	mmap_read_lock(mm);
	expect_eq(hmm_range_fault(&range), 0);
	mmap_read_unlock(mm);
	expect(!mmu_interval_read_retry(&part, range.notifier_seq));
	mmu_interval_notifier_remove(&part);
	teardown();
}

/* ---- pages on their way ---- */

/* By hand, what a migration does between its two windows. */
static pte_t park_page(unsigned int page)
{
	pte_t *ptep = pgtable_lookup(mm->pgtable, at(page));
	pte_t pte = pte_load(ptep);

	spin_lock(&mm->page_table_lock);
	xchg(ptep, pte_make(pte_pfn(pte), (pte & PTE_KEEP) | PTE_MIGRATION));
	spin_unlock(&mm->page_table_lock);
	return pte;
}

static void unpark_page(unsigned int page, pte_t pte)
{
	spin_lock(&mm->page_table_lock);
	set_pte(mm, at(page), pgtable_lookup(mm->pgtable, at(page)), pte);
	spin_unlock(&mm->page_table_lock);
	wake_up_all(frame_waitqueue(phys, pte_pfn(pte)));
}

static atomic_t returned;

static void walk_page_0(void *arg)
{
	*(int *)arg = walk(0, 1, READ_FAULT);
	atomic_set(&returned, 1);
}

TEST(hmm, migration_entries)
{
	struct kthread walker;
	int ret = -1;
	pte_t pte;

	setup();
	test_read(mm, at(0));
	pte = park_page(0);
	expect_eq(walk(0, 2, 0), 0);
	expect_eq(entries[0], 0);

	/* Who wants it waits for it, and finds it with no fault of its own. */
	expect_eq(kthread_run(&walker, "walker", walk_page_0, &ret), 0);
	while (!READ_ONCE(frame_waitqueue(phys, pte_pfn(pte))->waiters))
		sched_yield();
	expect_eq(atomic_read(&returned), 0);
	unpark_page(0, pte);
	kthread_join(&walker);
	expect_eq(ret, 0);
	expect_eq(faults(), 1);
	expect_mapped(0, HMM_PFN_VALID | HMM_PFN_WRITE);
	teardown();
}
