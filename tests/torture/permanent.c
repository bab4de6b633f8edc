/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two subscribers that stay from before the first mutation to after the last, so that what they
 * count is exact; and the gate between them, which makes the promise of start itself (I1) an
 * oracle.
 *
 * New subscribers are called first. So, with the shadow MMU registered between the two:
 *
 *   start:  ..., last, shadow, first: closes the gates of the range
 *   end:    ..., last: opens them, shadow, first
 *
 * Between the close and the opening the shadow MMU has returned from start and has not been called
 * for end: an access by any CPU to a page of the range is then an access through a mapping that
 * must not exist.
 */
#include "tests/torture/torture.h"

#include "notifier/sync/bug.h"

struct permanent permanent_first, permanent_last;

static struct permanent *to_permanent(struct mmu_notifier *mn)
{
	return container_of(mn, struct permanent, mn);
}

static void for_each_gate(struct torture *t, const struct mmu_notifier_range *range,
			  void (*fn)(struct model_machine *m, gva_t gva))
{
	/* gva == gpa in all of the guest's tables. */
	for (hva_t hva = range->start; hva < range->end; hva += PAGE_SIZE)
		fn(t->g.model, hva - GUEST_MEM_HVA);
}

static int permanent_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct permanent *p = to_permanent(mn);

	if (!mmu_notifier_range_blockable(range))
		torture_fail("a window that is not blockable");
	if (range->start < GUEST_MEM_HVA || range->start >= range->end ||
	    range->end > GUEST_MEM_HVA + (RAM_PAGES << PAGE_SHIFT))
		torture_fail("a window over [0x%lx, 0x%lx)", range->start, range->end);
	atomic_inc(&p->depth);
	if (range->event == MMU_NOTIFY_CLEAR)
		atomic64_inc(&p->clear_starts);
	if (p == &permanent_first)
		for_each_gate(p->t, range, model_gate_close);
	atomic64_inc(&p->starts);
	return 0;
}

static void permanent_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct permanent *p = to_permanent(mn);

	if (p == &permanent_last)
		for_each_gate(p->t, range, model_gate_open);
	if (range->event == MMU_NOTIFY_CLEAR)
		atomic64_inc(&p->clear_ends);
	if (atomic_dec_return(&p->depth) < 0)
		torture_fail("a permanent subscriber saw an end before its start");
	atomic64_inc(&p->ends);
}

static void permanent_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct permanent *p = to_permanent(mn);

	if (mm != p->t->g.mm)
		torture_fail("release for a stranger's mm");
	atomic_inc(&p->releases);
}

static const struct mmu_notifier_ops permanent_ops = {
	.release = permanent_release,
	.invalidate_range_start = permanent_start,
	.invalidate_range_end = permanent_end,
};

static void join(struct permanent *p, struct torture *t)
{
	p->t = t;
	p->mn.ops = &permanent_ops;
	ASSERT(!mmu_notifier_register(&p->mn, t->g.mm), "room for a notifier");
}

void permanent_register_first(struct torture *t)
{
	join(&permanent_first, t);
}

void permanent_register_last(struct torture *t)
{
	join(&permanent_last, t);
}

static void expect_same(const char *what, uint64_t a, const char *than, uint64_t b)
{
	if (a != b)
		torture_fail("%lu %s, but %lu %s", a, what, b, than);
}

/*
 * Exact: both saw the same windows, each of them closed; the clearing ones are the zaps; the others
 * are enough for all mapped pages that moved, and no more than the attempts. The shadow MMU saw
 * what they saw.
 */
void permanent_check(struct torture *t)
{
	uint64_t starts = atomic64_read(&permanent_first.starts);
	uint64_t clears = atomic64_read(&permanent_first.clear_starts);
	uint64_t attempts = atomic64_read(&t->range_migrations) + atomic64_read(&t->frame_attempts);
	struct shadow_stats stats;
	struct model_stats model;
	struct mm_stats mm;

	mm_get_stats(t->g.mm, &mm);

	expect_same("starts at the first", starts, "at the last",
		    atomic64_read(&permanent_last.starts));
	expect_same("starts", starts, "ends at the first", atomic64_read(&permanent_first.ends));
	expect_same("starts", starts, "ends at the last", atomic64_read(&permanent_last.ends));
	expect_same("clearing starts", clears, "zaps", atomic64_read(&t->zaps));
	expect_same("clearing starts", clears, "clearing ends",
		    atomic64_read(&permanent_last.clear_ends));
	if (starts - clears > attempts)
		torture_fail("%lu migration windows for %lu attempts", starts - clears, attempts);
	if (mm.pages_migrated > (starts - clears) * MAX_RANGE_PAGES)
		torture_fail("%lu migration windows, but %lu mapped pages moved", starts - clears,
			     mm.pages_migrated);
	shadow_get_stats(t->g.shadow, &stats);
	expect_same("invalidations of the shadow MMU", stats.invalidations, "windows", starts);

	model_get_stats(t->g.model, &model);
	expect_same("accesses inside a window", model.gate_violations, "allowed", 0);
	expect_same("breaches of the machine's contract", model.contract_violations, "allowed", 0);
}
