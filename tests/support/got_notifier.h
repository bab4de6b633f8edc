/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notifiers for mmu_notifier_get(), whose lives are counted. One that was freed keeps its memory,
 * poisoned, until the test has looked: a call of it is counted, whatever the build.
 */
#ifndef TESTS_SUPPORT_GOT_NOTIFIER_H
#define TESTS_SUPPORT_GOT_NOTIFIER_H

#include <stdlib.h>

#include "notifier/subscriptions.h"
#include "tests/support/notifier_fixture.h"
#include "tests/support/srcu_probe.h"

#define GOT_ALIVE 0x600d600d600d600dUL
#define GOT_DEAD  0xdeaddeaddeaddeadUL

struct got {
	struct mmu_notifier mn;
	uint64_t state;
	struct mm_struct *alloc_mm;
	atomic_t running; /* callbacks, now */
	atomic_t starts, ends, releases;
	struct got *next_dead;
};

static struct {
	atomic_t allocs, frees, dead_calls;
	int alloc_error;	 /* what alloc_notifier says, if not 0 */
	struct park *start_park; /* of all starts */
	void (*on_start)(struct got *got);
	void (*on_release)(struct got *got);
	void (*on_free)(struct got *got); /* alive, still */
	spinlock_t lock;
	struct got *dead;
} gots;

static inline struct got *to_got(struct mmu_notifier *mn)
{
	return container_of(mn, struct got, mn);
}

static inline int got_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct got *got = to_got(mn);

	(void)range;
	atomic_inc_return(&got->running);
	atomic_inc_return(&got->starts);
	if (gots.start_park)
		park_enter(gots.start_park);
	if (gots.on_start)
		gots.on_start(got);
	atomic_dec_return(&got->running);
	return 0;
}

static inline void got_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)range;
	atomic_inc_return(&to_got(mn)->ends);
}

static inline void got_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct got *got = to_got(mn);

	expect(mm == got->alloc_mm);
	atomic_inc_return(&got->running);
	atomic_inc_return(&got->releases);
	if (gots.on_release)
		gots.on_release(got);
	atomic_dec_return(&got->running);
}

static inline struct mmu_notifier *got_alloc(struct mm_struct *mm)
{
	struct got *got;

	if (gots.alloc_error)
		return ERR_PTR(gots.alloc_error);
	got = calloc(1, sizeof(*got));
	expect(got);
	got->state = GOT_ALIVE;
	got->alloc_mm = mm;
	atomic_inc_return(&gots.allocs);
	return &got->mn;
}

static inline int dead_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	atomic_inc_return(&gots.dead_calls);
	return 0;
}

static inline void dead_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	(void)mn, (void)range;
	atomic_inc_return(&gots.dead_calls);
}

static inline void dead_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	(void)mn, (void)mm;
	atomic_inc_return(&gots.dead_calls);
}

static inline void dead_free(struct mmu_notifier *mn)
{
	fail("freed twice: %p", (void *)mn);
}

static const struct mmu_notifier_ops dead_ops = {
	.release = dead_release,
	.invalidate_range_start = dead_start,
	.invalidate_range_end = dead_end,
	.free_notifier = dead_free,
};

static inline void got_free(struct mmu_notifier *mn)
{
	struct got *got = to_got(mn);

	expect_eq(got->state, GOT_ALIVE);
	expect_eq(atomic_read(&got->running), 0);
	if (gots.on_free)
		gots.on_free(got);
	memset(mn, 0xee, sizeof(*mn));
	mn->ops = &dead_ops;
	mn->next = NULL; /* who walks over it gets to the end, and is counted */
	got->state = GOT_DEAD;
	spin_lock(&gots.lock);
	got->next_dead = gots.dead;
	gots.dead = got;
	spin_unlock(&gots.lock);
	atomic_inc_return(&gots.frees);
}

/* Two drivers: their notifiers are told apart by the address of the ops alone. */
#define GOT_OPS                                                               \
	{                                                                     \
		.release = got_release, .invalidate_range_start = got_start,  \
		.invalidate_range_end = got_end, .alloc_notifier = got_alloc, \
		.free_notifier = got_free,                                    \
	}
static const struct mmu_notifier_ops got_ops[2] = {GOT_OPS, GOT_OPS};

static inline struct got *got_get(unsigned int driver, struct mm_struct *mm)
{
	struct mmu_notifier *mn = mmu_notifier_get(&got_ops[driver], mm);

	expect(!IS_ERR(mn));
	expect(mn->mm == mm);
	expect(mn->ops == &got_ops[driver]);
	return to_got(mn);
}

static inline void expect_lives(int allocs, int frees)
{
	expect_eq(atomic_read(&gots.allocs), allocs);
	expect_eq(atomic_read(&gots.frees), frees);
}

/* The end of a test: whatever was made was freed, once, and never called since. */
static inline void expect_all_dead(void)
{
	mmu_notifier_synchronize();
	expect_eq(atomic_read(&gots.frees), atomic_read(&gots.allocs));
	expect_eq(atomic_read(&gots.dead_calls), 0);
	while (gots.dead) {
		struct got *got = gots.dead;

		expect_eq(got->state, GOT_DEAD);
		gots.dead = got->next_dead;
		free(got);
	}
}

static inline unsigned int mm_count_of(struct mm_struct *mm)
{
	return refcount_read(&mm->mm_count);
}

#endif
