/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chaos kind `register`: subscribers to the guest's address space that come and go, by the three
 * ways to subscribe, while the other kinds open windows. What they are told must make sense:
 *
 *  - Each end that a notifier hears has had its start; and nobody is called who is gone (that
 * memory is freed at once, for AddressSanitizer to watch).
 *  - The notifier that mmu_notifier_get() finds is the one that it made, until the last put.
 *  - What an interval notifier has been told nothing about has not changed: it keeps a mirror of a
 *    few pages, which is compared with the primary page table under its lock.
 */
#include <errno.h>

#include <gnomon/err.h>
#include <gnomon/mmu_interval_notifier.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"
#include "vmm/chaos.h"

#define HOLD_MS_MASK 15

/* ---- by register, and by get ---- */

struct listener {
	struct mmu_notifier mn;
	atomic_t open; /* windows, now */
	atomic64_t heard;
	bool gone;
};

static struct listener *to_listener(struct mmu_notifier *mn)
{
	return container_of(mn, struct listener, mn);
}

static int listener_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct listener *listener = to_listener(mn);

	(void)range;
	WARN_ON(READ_ONCE(listener->gone));
	atomic_inc(&listener->open);
	atomic64_inc(&listener->heard);
	return 0;
}

static void listener_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct listener *listener = to_listener(mn);

	(void)range;
	WARN_ON(READ_ONCE(listener->gone));
	WARN(atomic_dec_return(&listener->open) < 0, "each end that is heard has had its start");
}

static struct mmu_notifier *listener_alloc(struct mm_struct *mm)
{
	struct listener *listener = kzalloc(sizeof(*listener), GFP_KERNEL);

	(void)mm;
	return listener ? &listener->mn : ERR_PTR(-ENOMEM);
}

static void listener_free(struct mmu_notifier *mn)
{
	WRITE_ONCE(to_listener(mn)->gone, true);
	kfree(to_listener(mn));
}

static const struct mmu_notifier_ops registered_ops = {
	.invalidate_range_start = listener_start,
	.invalidate_range_end = listener_end,
};

static const struct mmu_notifier_ops got_ops = {
	.invalidate_range_start = listener_start,
	.invalidate_range_end = listener_end,
	.alloc_notifier = listener_alloc,
	.free_notifier = listener_free,
};

static void by_register(struct chaos_worker *worker, struct mm_struct *mm, unsigned int ms)
{
	struct listener *listener = kzalloc(sizeof(*listener), GFP_KERNEL);

	if (listener)
		listener->mn.ops = &registered_ops;
	if (!listener || mmu_notifier_register(&listener->mn, mm)) {
		kfree(listener);
		chaos_refuse(worker);
		return;
	}
	chaos_hold(worker, ms, false);
	mmu_notifier_unregister(&listener->mn, mm);
	atomic64_add(atomic64_read(&listener->heard), &worker->pages);
	listener_free(&listener->mn);
}

/* Nobody else gets a notifier of these ops of this mm. */
static void by_get(struct chaos_worker *worker, struct mm_struct *mm, unsigned int ms)
{
	struct mmu_notifier *mn = mmu_notifier_get(&got_ops, mm), *again;

	if (IS_ERR(mn)) {
		chaos_refuse(worker);
		return;
	}
	again = mmu_notifier_get(&got_ops, mm);
	WARN_ON(again != mn);
	chaos_hold(worker, ms, false);
	atomic64_add(atomic64_read(&to_listener(mn)->heard), &worker->pages);
	if (!IS_ERR(again))
		mmu_notifier_put(again);
	mmu_notifier_put(mn);
	/* listener_free() has returned: nothing of ours is left when the thread ends. */
	mmu_notifier_synchronize();
}

/* ---- by interval ---- */

struct mirror {
	struct mmu_interval_notifier interval;
	struct mutex lock; /* protects pfn; taken in the callback */
	hva_t hva;
	unsigned int nr;
	pfn_t pfn[CHAOS_MAX_PAGES]; /* INVALID_PFN: not mirrored */
	uint64_t heard;
};

static bool mirror_invalidate(struct mmu_interval_notifier *interval,
			      const struct mmu_notifier_range *range, unsigned long cur_seq)
{
	struct mirror *mirror = container_of(interval, struct mirror, interval);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;
	mmu_interval_set_seq(interval, cur_seq);
	for (unsigned int i = 0; i < mirror->nr; i++) {
		hva_t hva = mirror->hva + i * PAGE_SIZE;

		if (hva >= range->start && hva < range->end)
			mirror->pfn[i] = INVALID_PFN;
	}
	mirror->heard++;
	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_ops = {.invalidate = mirror_invalidate};

/* One try: a page that is on the move, or out of reach, stays out of the mirror. */
static void mirror_page(struct mirror *mirror, unsigned int i)
{
	unsigned long seq = mmu_interval_read_begin(&mirror->interval);
	bool writable;
	pfn_t pfn;

	if (hva_to_pfn(mirror->interval.mm, mirror->hva + i * PAGE_SIZE, false, &pfn, &writable))
		return;
	mutex_lock(&mirror->lock);
	if (!mmu_interval_read_retry(&mirror->interval, seq))
		mirror->pfn[i] = pfn;
	mutex_unlock(&mirror->lock);
}

static void check_mirror(struct mirror *mirror)
{
	mutex_lock(&mirror->lock);
	for (unsigned int i = 0; i < mirror->nr; i++) {
		hva_t hva = mirror->hva + i * PAGE_SIZE;

		WARN(mirror->pfn[i] != INVALID_PFN &&
			     mm_lookup_pfn(mirror->interval.mm, hva) != mirror->pfn[i],
		     "a page of a mirror changes only after its interval has been told (hva %#llx)",
		     (unsigned long long)hva);
	}
	mutex_unlock(&mirror->lock);
}

static void by_interval(struct chaos_worker *worker, const struct chaos_target *target,
			const struct chaos_draw *draw, unsigned int ms)
{
	struct mirror *mirror = kzalloc(sizeof(*mirror), GFP_KERNEL);

	if (!mirror) {
		chaos_refuse(worker);
		return;
	}
	mutex_init(&mirror->lock);
	mirror->hva = chaos_draw_hva(target, draw);
	mirror->nr = draw->nr_pages;
	for (unsigned int i = 0; i < mirror->nr; i++)
		mirror->pfn[i] = INVALID_PFN;
	if (mmu_interval_notifier_insert(&mirror->interval, target->mm, mirror->hva,
					 chaos_draw_len(draw), &mirror_ops)) {
		kfree(mirror);
		chaos_refuse(worker);
		return;
	}
	for (unsigned int i = 0; i < mirror->nr; i++)
		mirror_page(mirror, i);
	chaos_hold(worker, ms, false);
	check_mirror(mirror);
	mmu_interval_notifier_remove(&mirror->interval);
	atomic64_add(mirror->heard, &worker->pages);
	kfree(mirror);
}

void chaos_register(struct chaos_worker *worker, const struct chaos_target *target,
		    const struct chaos_draw *draw)
{
	unsigned int ms = draw->bits & HOLD_MS_MASK;

	switch ((draw->bits >> 8) % 3) {
	case 0:
		by_register(worker, target->mm, ms);
		break;
	case 1:
		by_get(worker, target->mm, ms);
		break;
	case 2:
		by_interval(worker, target, draw, ms);
		break;
	}
}
