/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HMM, of both kinds, and intervals, when there is no memory at each place that wants some, in
 * turn, no frame for a page, or a signal wherever somebody looks for one: an error, and all is as
 * it was, or as the header says; and the next call works.
 */
#include <gnomon/hmm.h>
#include <gnomon/hmm_mirror.h>

#include <errno.h>

#include "notifier/subscriptions.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/interrupt.h"
#include "tests/support/mm_fixture.h"

/* Two areas, which lie to both sides of the border between two tables of the lowest level. */
#define BORDER 0x4000200000UL
#define SHARED 4 /* pages; the others are private */
#define PAGES  8
#define HVA    (BORDER - SHARED * PAGE_SIZE)
#define LEN    (PAGES * PAGE_SIZE)
#define LOOKS  4 /* for a signal, each time that all locks are taken: twice an area */

#define READ_FAULT HMM_PFN_REQ_FAULT

static struct phys *phys;
static struct mm_struct *mm;
static struct address_space *mapping;

static void setup(uint64_t nr_frames)
{
	phys = test_phys(nr_frames);
	mm = test_mm(phys);
	mapping = test_mapping(phys, SHARED);
	expect_eq(mm_mmap(mm, HVA, SHARED * PAGE_SIZE, RW, mapping, 0), 0);
	expect_eq(mm_mmap(mm, BORDER, (PAGES - SHARED) * PAGE_SIZE, RW, NULL, 0), 0);
}

static void teardown(void)
{
	mmu_notifier_synchronize();
	expect_eq(refcount_read(&mm->mm_count), 1);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

static void window(void)
{
	expect_ge(mm_zap_range(mm, HVA, LEN), 0);
}

struct before {
	int64_t live;
	unsigned int mm_count;
	struct notifier_subscriptions *subscriptions;
	bool has_itree;
};

static struct before look(void)
{
	struct notifier_subscriptions *subscriptions = mm->notifier_subscriptions;

	return (struct before){
		.live = atomic64_read(&allocs.live),
		.mm_count = refcount_read(&mm->mm_count),
		.subscriptions = subscriptions,
		.has_itree = subscriptions && subscriptions->has_itree,
	};
}

/*
 * All as it was, when callbacks of SRCU have run; but a block that the first of two registrations
 * made stays with the mm.
 */
static void expect_unchanged(const struct before *before, bool may_keep_block)
{
	struct before now;
	int kept = 0;

	mmu_notifier_synchronize();
	now = look();
	kept += may_keep_block && now.subscriptions && !before->subscriptions;
	expect_eq(now.live, before->live + kept);
	expect_eq(now.mm_count, before->mm_count);
	expect(may_keep_block || now.subscriptions == before->subscriptions);
	expect_eq(now.has_itree, before->has_itree);
	/* No lock is held: */
	mmap_write_lock(mm);
	interrupt_at(-1);
	expect_eq(mm_take_all_locks(mm), 0);
	mm_drop_all_locks(mm);
	mmap_write_unlock(mm);
	window();
}

/* ---- mirrors ---- */

static int syncs;

static int count_sync(struct hmm_mirror *mirror, const struct mmu_notifier_range *update)
{
	(void)mirror, (void)update;
	syncs++;
	return 0;
}

static const struct hmm_mirror_ops mirror_ops = {.sync_cpu_device_pagetables = count_sync};

static int mirror_register(struct hmm_mirror *mirror)
{
	int ret;

	*mirror = (struct hmm_mirror){.ops = &mirror_ops};
	mmap_write_lock(mm);
	ret = hmm_mirror_register(mirror, mm);
	mmap_write_unlock(mm);
	return ret;
}

/* It alone is told. */
static void expect_mirrored(struct hmm_mirror *mirror)
{
	syncs = 0;
	window();
	expect_eq(syncs, 1);
	hmm_mirror_unregister(mirror);
	expect(!mm->hmm);
	window();
	expect_eq(syncs, 1);
	mmu_notifier_synchronize(); /* the hmm is freed behind it */
}

/* The hmm itself, the domain of SRCU, of which the process has none yet, the block of the mm. */
TEST(hmm_fail, mirror_without_memory)
{
	struct hmm_mirror mirror;
	struct before before;
	int site, ret;

	setup(PAGES);
	for (site = 0;; site++) {
		before = look();
		alloc_fail_at(site);
		ret = mirror_register(&mirror);
		if (!alloc_failed())
			break;
		expect_eq(ret, -ENOMEM);
		expect(!mm->hmm);
		expect_unchanged(&before, false);
		expect_eq(syncs, 0);
	}
	expect_eq(ret, 0);
	expect_ge(site, 2);
	expect_mirrored(&mirror);

	/* The others are there by now. */
	for (site = 0;; site++) {
		before = look();
		alloc_fail_at(site);
		ret = mirror_register(&mirror);
		if (!alloc_failed())
			break;
		expect_eq(ret, -ENOMEM);
		expect(!mm->hmm);
		expect_unchanged(&before, false);
	}
	expect_eq(ret, 0);
	expect_eq(site, 1);
	expect_mirrored(&mirror);
	teardown();
}

/* What one mirror has, another shares. */
TEST(hmm_fail, second_mirror_wants_nothing)
{
	struct hmm_mirror first, second;

	setup(PAGES);
	expect_eq(mirror_register(&first), 0);
	alloc_fail_at(0);
	interrupt_at(0);
	expect_eq(mirror_register(&second), 0);
	expect(!alloc_failed());
	expect_eq(nr_looks, 0);
	hmm_mirror_unregister(&first);
	expect_mirrored(&second);
	teardown();
}

/*
 * Of its two notifiers either may be the one that is not registered; behind the second the first
 * has to leave again.
 */
TEST(hmm_fail, mirror_is_interrupted)
{
	struct hmm_mirror mirror;
	struct before before;
	int at, ret;

	setup(PAGES);
	for (at = 0;; at++) {
		before = look();
		interrupt_at(at);
		ret = mirror_register(&mirror);
		if (!ret)
			break;
		expect_eq(ret, -EINTR);
		expect_eq(nr_looks, at + 1);
		expect(!mm->hmm);
		expect_unchanged(&before, at >= LOOKS);
		expect_eq(syncs, 0);
	}
	expect_eq(at, 2 * LOOKS);
	expect_mirrored(&mirror);
	teardown();
}

/* ---- intervals ---- */

static int invalidated;

static bool count_invalidate(struct mmu_interval_notifier *sub,
			     const struct mmu_notifier_range *update, unsigned long cur_seq)
{
	(void)update;
	mmu_interval_set_seq(sub, cur_seq);
	invalidated++;
	return true;
}

static const struct mmu_interval_notifier_ops interval_ops = {.invalidate = count_invalidate};
static struct mmu_interval_notifier sub;

static int interval_insert(bool locked)
{
	int ret;

	if (!locked)
		return mmu_interval_notifier_insert(&sub, mm, HVA, LEN, &interval_ops);
	mmap_write_lock(mm);
	ret = mmu_interval_notifier_insert_locked(&sub, mm, HVA, LEN, &interval_ops);
	mmap_write_unlock(mm);
	return ret;
}

static void expect_inserted(void)
{
	invalidated = 0;
	window();
	expect_eq(invalidated, 1);
	/* Another one has nothing to wait for, and nothing that can fail. */
	mmu_interval_notifier_remove(&sub);
	alloc_fail_at(0);
	interrupt_at(0);
	expect_eq(interval_insert(false), 0);
	expect(!alloc_failed());
	expect_eq(nr_looks, 0);
	mmu_interval_notifier_remove(&sub);
	window();
	expect_eq(invalidated, 1);
}

TEST(hmm_fail, interval_without_memory)
{
	struct before before;
	int site, ret;

	for (int locked = 0; locked < 2; locked++) {
		setup(PAGES);
		for (site = 0;; site++) {
			before = look();
			alloc_fail_at(site);
			ret = interval_insert(locked);
			if (!alloc_failed())
				break;
			expect_eq(ret, -ENOMEM);
			expect_unchanged(&before, false);
			expect_eq(invalidated, 0);
		}
		expect_eq(ret, 0);
		expect_ge(site, 1);
		expect_inserted();
		invalidated = 0;
		teardown();
	}
}

TEST(hmm_fail, interval_is_interrupted)
{
	struct before before;
	int at, ret;

	for (int locked = 0; locked < 2; locked++) {
		setup(PAGES);
		for (at = 0;; at++) {
			before = look();
			interrupt_at(at);
			ret = interval_insert(locked);
			if (!ret)
				break;
			expect_eq(ret, -EINTR);
			expect_unchanged(&before, false);
			expect_eq(invalidated, 0);
		}
		expect_eq(at, LOOKS);
		expect_inserted();
		invalidated = 0;
		teardown();
	}
}

/* ---- hmm_range_fault() ---- */

static uint64_t entries[PAGES];

#define UNTOUCHED (HMM_PFN_ERROR | 0x5a5a)

static int walk(void)
{
	struct hmm_range range = {
		.notifier = &sub,
		.notifier_seq = mmu_interval_read_begin(&sub),
		.start = HVA,
		.end = HVA + LEN,
		.hmm_pfns = entries,
		.default_flags = READ_FAULT,
	};
	int ret;

	for (int i = 0; i < PAGES; i++)
		entries[i] = UNTOUCHED;
	mmap_read_lock(mm);
	ret = hmm_range_fault(&range);
	mmap_read_unlock(mm);
	expect(!mmu_interval_read_retry(&sub, range.notifier_seq));
	return ret;
}

/* The first @nr pages are there, and told; the others neither. */
static void expect_found(int nr)
{
	for (int i = 0; i < PAGES; i++) {
		pfn_t pfn = mm_lookup_pfn(mm, HVA + i * PAGE_SIZE);

		if (i < nr)
			expect_eq(entries[i], pfn | HMM_PFN_VALID | HMM_PFN_WRITE);
		else
			expect_eq(entries[i], UNTOUCHED);
		expect_eq(pfn == INVALID_PFN, i >= nr);
	}
}

/*
 * Page tables, of which an access that fails leaves what it has made: they stay until the mm ends.
 * Three for the first page, and one for the first behind the border.
 */
TEST(hmm_fail, fault_without_tables)
{
	const int tables = 4;
	int64_t at_first = 0;

	for (int site = 0; site <= tables; site++) {
		int64_t live;
		int ret;

		setup(PAGES);
		expect_eq(interval_insert(false), 0);
		live = atomic64_read(&allocs.live);
		alloc_fail_at(site);
		ret = walk();
		expect_eq(alloc_failed(), site < tables);
		expect_eq(ret, site < tables ? -ENOMEM : 0);
		expect_eq(atomic64_read(&allocs.live), live + site);
		expect_found(site < tables - 1 ? 0 : site < tables ? SHARED : PAGES);

		window(); /* no lock is held, and what was faulted in is told of */
		expect_eq(invalidated, site + 1);
		expect_eq(walk(), 0);
		expect_found(PAGES);
		expect_eq(atomic64_read(&allocs.live), live + tables);
		mmu_interval_notifier_remove(&sub);
		teardown();
		/* But for the domain of SRCU, which the process has from the first of them on. */
		if (!site)
			at_first = atomic64_read(&allocs.live);
		expect_eq(atomic64_read(&allocs.live), at_first);
	}
	expect_le(at_first, 1);
}

/* At each page; those before it are there, and stay. */
TEST(hmm_fail, fault_without_frames)
{
	pfn_t taken[PAGES];

	for (int nr = 0; nr < PAGES; nr++) {
		setup(PAGES);
		expect_eq(interval_insert(false), 0);
		for (int i = nr; i < PAGES; i++)
			taken[i] = phys_alloc(phys);
		expect_eq(walk(), -ENOMEM);
		expect_found(nr);
		expect_eq(phys_nr_free(phys), 0);
		/* And again, with nothing new. */
		expect_eq(walk(), -ENOMEM);
		expect_found(nr);
		for (int i = nr; i < PAGES; i++)
			phys_put(phys, taken[i]);
		expect_eq(walk(), 0);
		expect_found(PAGES);
		mmu_interval_notifier_remove(&sub);
		teardown();
	}
}

/* It does not ask for signals: whoever waits for a page waits for what is on its way. */
TEST(hmm_fail, fault_with_a_signal)
{
	setup(PAGES);
	expect_eq(interval_insert(false), 0);
	set_signal_pending();
	expect_eq(walk(), 0);
	expect(signal_pending());
	clear_signal_pending();
	expect_found(PAGES);
	mmu_interval_notifier_remove(&sub);
	teardown();
}
