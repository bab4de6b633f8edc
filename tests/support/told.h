/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A notifier that keeps the windows it is told of, in order. For tests with one thread at a time.
 */
#ifndef TESTS_SUPPORT_TOLD_H
#define TESTS_SUPPORT_TOLD_H

#include "tests/support/mm_fixture.h"

struct told {
	struct counting_notifier cn;
	int nr;
	struct mmu_notifier_range range[16];
};

static inline void tell(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct told *told = container_of(cn, struct told, cn);

	expect(told->nr < (int)ARRAY_SIZE(told->range));
	told->range[told->nr++] = *range;
}

static inline void told_register(struct told *told, struct mm_struct *mm)
{
	told->cn.on_start = tell;
	counting_register(&told->cn, mm);
}

static inline void expect_told(const struct told *told, int i, enum mmu_notifier_event event,
			       hva_t start, hva_t end)
{
	expect(i < told->nr);
	expect_eq(told->range[i].event, event);
	expect_eq(told->range[i].start, start);
	expect_eq(told->range[i].end, end);
	expect(mmu_notifier_range_blockable(&told->range[i]));
}

/* @nr windows, and each had its end. */
static inline void told_unregister(struct told *told, int nr, struct mm_struct *mm)
{
	expect_eq(told->nr, nr);
	counting_expect_paired(&told->cn);
	mmu_notifier_unregister(&told->cn.mn, mm);
}

#endif
