/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of the host mm have in common: objects made or the test fails, one word at an hva, and
 * a notifier that counts what it is told.
 */
#ifndef TESTS_SUPPORT_MM_FIXTURE_H
#define TESTS_SUPPORT_MM_FIXTURE_H

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>
#include <gnomon/phys.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/support/test.h"

#define RW (MM_PROT_READ | MM_PROT_WRITE)

/* How often: @normal, ten times that with --long, less where each step costs twenty times more. */
static inline uint64_t test_volume(uint64_t normal)
{
#ifdef GNOMON_TSAN
	normal /= 5;
#endif
	return test_long() ? 10 * normal : normal;
}

static inline struct phys *test_phys(uint64_t nr_frames)
{
	struct phys *phys = NULL;

	expect_eq(phys_create(&phys, nr_frames), 0);
	return phys;
}

/* Everything was given back: the strictest leak check there is. */
static inline void test_phys_done(struct phys *phys)
{
	expect_eq(phys_nr_free(phys), phys_nr_frames(phys));
	phys_destroy(phys);
}

static inline struct mm_struct *test_mm(struct phys *phys)
{
	struct mm_struct *mm = mm_alloc(phys);

	expect(mm);
	return mm;
}

static inline struct address_space *test_mapping(struct phys *phys, uint64_t nr_pages)
{
	struct address_space *mapping = address_space_create(phys, nr_pages);

	expect(mapping);
	return mapping;
}

static inline uint64_t test_read(struct mm_struct *mm, hva_t hva)
{
	uint64_t value = 0;

	expect_eq(mm_read(mm, hva, &value, sizeof(value)), 0);
	return value;
}

static inline void test_write(struct mm_struct *mm, hva_t hva, uint64_t value)
{
	expect_eq(mm_write(mm, hva, &value, sizeof(value)), 0);
}

/* Atomically, as a guest CPU would. */
static inline void test_increment(struct mm_struct *mm, hva_t hva)
{
	uint64_t old = test_read(mm, hva);
	int ret;

	do
		ret = mm_cmpxchg64(mm, hva, &old, old + 1);
	while (ret == 1);
	expect_eq(ret, 0);
}

static inline bool test_page_is(struct phys *phys, pfn_t pfn, uint64_t word)
{
	uint64_t *page = phys_map(phys, pfn);

	for (size_t i = 0; i < PAGE_SIZE / sizeof(*page); i++) {
		if (READ_ONCE(page[i]) != word)
			return false;
	}
	return true;
}

struct counting_notifier {
	struct mmu_notifier mn;
	atomic64_t starts[MMU_NOTIFY_EXCLUSIVE + 1]; /* of each event */
	atomic64_t ends[MMU_NOTIFY_EXCLUSIVE + 1];
	atomic64_t open; /* windows, now */
	atomic64_t releases;
	hva_t start, end; /* of the last window; for tests with one thread */
	/* Called in each callback, if set. */
	void (*on_start)(struct counting_notifier *cn, const struct mmu_notifier_range *range);
	void (*on_end)(struct counting_notifier *cn, const struct mmu_notifier_range *range);
	void (*on_release)(struct counting_notifier *cn, struct mm_struct *mm);
	void *arg;
};

static inline int counting_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct counting_notifier *cn = container_of(mn, struct counting_notifier, mn);

	expect(range->mm == mn->mm);
	expect(range->start < range->end);
	expect(PAGE_ALIGNED(range->start) && PAGE_ALIGNED(range->end));
	atomic64_inc(&cn->starts[range->event]);
	atomic64_inc(&cn->open);
	WRITE_ONCE(cn->start, range->start);
	WRITE_ONCE(cn->end, range->end);
	if (cn->on_start)
		cn->on_start(cn, range);
	return 0;
}

static inline void counting_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct counting_notifier *cn = container_of(mn, struct counting_notifier, mn);

	atomic64_inc(&cn->ends[range->event]);
	expect_ge(atomic64_dec_return(&cn->open), 0);
	if (cn->on_end)
		cn->on_end(cn, range);
}

static inline void counting_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct counting_notifier *cn = container_of(mn, struct counting_notifier, mn);

	atomic64_inc(&cn->releases);
	if (cn->on_release)
		cn->on_release(cn, mm);
}

static inline const struct mmu_notifier_ops *counting_ops(void)
{
	static const struct mmu_notifier_ops ops = {
		.release = counting_release,
		.invalidate_range_start = counting_start,
		.invalidate_range_end = counting_end,
	};

	return &ops;
}

static inline void counting_register(struct counting_notifier *cn, struct mm_struct *mm)
{
	cn->mn.ops = counting_ops();
	expect_eq(mmu_notifier_register(&cn->mn, mm), 0);
}

/* Every start had its end. */
static inline void counting_expect_paired(struct counting_notifier *cn)
{
	expect_eq(atomic64_read(&cn->open), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cn->starts); i++)
		expect_eq(atomic64_read(&cn->starts[i]), atomic64_read(&cn->ends[i]));
}

/* @nr threads of @fn(@arg), all joined before it returns. */
static inline void test_threads(unsigned int nr, void (*fn)(void *arg), void *arg)
{
	struct kthread threads[16];

	expect(nr <= ARRAY_SIZE(threads));
	for (unsigned int i = 0; i < nr; i++)
		expect_eq(kthread_run(&threads[i], "test", fn, arg), 0);
	for (unsigned int i = 0; i < nr; i++)
		kthread_join(&threads[i]);
}

#endif
