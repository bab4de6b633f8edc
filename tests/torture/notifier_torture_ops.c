/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a thread of the notifier torture does: it takes one of the mms, and does something at random
 * to it; or it lets go of something that it holds, of whichever mm, dead or alive.
 */
#include <errno.h>

#include <gnomon/signal.h>

#include "tests/torture/notifier_torture.h"

#define MAX_HELD 4

struct held {
	struct subscriber *subscribers[MAX_HELD];
	struct mmu_notifier *shared[MAX_HELD];
	struct {
		struct interval *interval;
		struct mm_struct *mm; /* an mm_count: to try for users */
	} intervals[MAX_HELD];
	struct rng rng;
};

/* ---- worlds ---- */

static struct mm_struct *new_mm(void)
{
	struct mm_struct *mm = mm_alloc(torture.phys);

	if (!mm || mm_mmap(mm, MM_HVA, MM_LENGTH / 2, MM_PROT_READ | MM_PROT_WRITE, NULL, 0) ||
	    mm_mmap(mm, MM_HVA + MM_LENGTH / 2, MM_LENGTH / 2, MM_PROT_READ | MM_PROT_WRITE, NULL,
		    0)) {
		torture_error("no memory for an mm", mm);
		__builtin_trap();
	}
	permanent_register(mm);
	return mm;
}

int worlds_create(void)
{
	int ret = phys_create(&torture.phys, NR_FRAMES);

	for (int i = 0; i < NR_MMS && !ret; i++) {
		mutex_init(&torture.worlds[i].lock);
		torture.worlds[i].mm = new_mm();
	}
	return ret;
}

/* All of their users are gone, and with the last of them all frames have to be back. */
void worlds_destroy(void)
{
	for (int i = 0; i < NR_MMS; i++)
		mmput(torture.worlds[i].mm);
	mmu_notifier_synchronize();
	if (phys_nr_free(torture.phys) != phys_nr_frames(torture.phys))
		torture_error("frames were never freed", torture.phys);
	phys_destroy(torture.phys);
}

static struct mm_struct *pin_one(struct held *held)
{
	struct world *world = &torture.worlds[rng_below(&held->rng, NR_MMS)];
	struct mm_struct *mm;

	mutex_lock(&world->lock);
	mm = world->mm;
	mmget(mm);
	mutex_unlock(&world->lock);
	return mm;
}

/* Its pages go with whoever uses it last, which may be another thread. */
static void replace_one(struct held *held)
{
	struct world *world = &torture.worlds[rng_below(&held->rng, NR_MMS)];
	struct mm_struct *old, *fresh = new_mm();

	mutex_lock(&world->lock);
	old = world->mm;
	world->mm = fresh;
	mutex_unlock(&world->lock);
	mmput(old);
	atomic64_inc(&torture.did.exits);
}

/* ---- ranges ---- */

struct pages {
	hva_t start;
	uint64_t length;
};

static struct pages some_pages(struct held *held)
{
	uint64_t first = rng_below(&held->rng, MM_PAGES);
	uint64_t nr = 1 + rng_below(&held->rng, MM_PAGES - first);

	return (struct pages){MM_HVA + (first << PAGE_SHIFT), nr << PAGE_SHIFT};
}

static void touch(struct held *held, struct mm_struct *mm)
{
	struct pages p = some_pages(held);
	uint64_t word = rng_below(&held->rng, UINT64_MAX);
	int ret = mm_write(mm, p.start, &word, sizeof(word));

	if (ret && ret != -ENOMEM)
		torture_error("a page that is mapped cannot be written", mm);
}

static void zap(struct held *held, struct mm_struct *mm)
{
	struct pages p = some_pages(held);

	if (mm_zap_range(mm, p.start, p.length) < 0)
		torture_error("a zap failed", mm);
	atomic64_inc(&torture.did.zapped);
}

static void migrate(struct held *held, struct mm_struct *mm)
{
	struct pages p = some_pages(held);
	long ret = mm_migrate_range(mm, p.start, p.length);

	if (ret < 0 && ret != -ENOMEM)
		torture_error("a migration failed", mm);
	atomic64_inc(&torture.did.migrated);
}

/* Windows alone, with another inside now and then. */
static void windows(struct held *held, struct mm_struct *mm, int depth)
{
	struct pages p = some_pages(held);
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_PROTECTION_PAGE, 0, mm, p.start,
				p.start + p.length);
	if (rng_below(&held->rng, 3)) {
		mmu_notifier_invalidate_range_start(&range);
	} else {
		atomic64_inc(&torture.did.nonblock);
		if (mmu_notifier_invalidate_range_start_nonblock(&range))
			return;
	}
	atomic64_inc(&torture.did.windows);
	if (depth && !rng_below(&held->rng, 4))
		windows(held, mm, depth - 1);
	mmu_notifier_invalidate_range_end(&range);
}

static void open_windows(struct held *held, struct mm_struct *mm)
{
	mmap_read_lock(mm);
	for (int i = 0; i < 20; i++)
		windows(held, mm, 3);
	mmap_read_unlock(mm);
}

static void age(struct held *held, struct mm_struct *mm)
{
	struct pages p = some_pages(held);

	switch (rng_below(&held->rng, 3)) {
	case 0:
		mmu_notifier_clear_flush_young(mm, p.start, p.start + p.length);
		break;
	case 1:
		mmu_notifier_clear_young(mm, p.start, p.start + p.length);
		break;
	default:
		mmu_notifier_test_young(mm, p.start);
	}
	atomic64_inc(&torture.did.aged);
}

/* ---- subscribers: a slot is filled, or emptied ---- */

static void swap_subscriber(struct held *held, struct mm_struct *mm)
{
	struct subscriber **slot = &held->subscribers[rng_below(&held->rng, MAX_HELD)];

	if (*slot) {
		bool wait = rng_below(&held->rng, 4);

		subscriber_leave(*slot, wait);
		*slot = NULL;
		if (!wait)
			atomic64_inc(&torture.did.no_release);
		return;
	}
	if (subscriber_register(mm, rng_below(&held->rng, NR_KINDS), slot))
		atomic64_inc(&torture.did.interrupted);
	else
		atomic64_inc(&torture.did.registered);
}

static void swap_shared(struct held *held, struct mm_struct *mm)
{
	struct mmu_notifier **slot = &held->shared[rng_below(&held->rng, MAX_HELD)];

	if (*slot) {
		shared_put(*slot);
		*slot = NULL;
		return;
	}
	*slot = shared_get(mm, (unsigned int)rng_below(&held->rng, NR_FAMILIES));
	if (*slot)
		atomic64_inc(&torture.did.gets);
	else
		atomic64_inc(&torture.did.interrupted);
}

static void drop_interval(struct held *held, unsigned int slot)
{
	interval_remove(held->intervals[slot].interval);
	mmdrop(held->intervals[slot].mm);
	held->intervals[slot].interval = NULL;
}

static void swap_interval(struct held *held, struct mm_struct *mm)
{
	unsigned int slot = (unsigned int)rng_below(&held->rng, MAX_HELD);
	struct pages p = some_pages(held);

	if (held->intervals[slot].interval) {
		drop_interval(held, slot);
		return;
	}
	held->intervals[slot].interval =
		interval_insert(mm, p.start, p.length, rng_below(&held->rng, 2));
	if (!held->intervals[slot].interval)
		return;
	held->intervals[slot].mm = mm;
	mmgrab(mm);
	atomic64_inc(&torture.did.intervals);
}

static void fault(struct held *held)
{
	unsigned int slot = (unsigned int)rng_below(&held->rng, MAX_HELD);
	struct mm_struct *mm = held->intervals[slot].mm;

	if (!held->intervals[slot].interval || !mmget_not_zero(mm))
		return;
	interval_fault(held->intervals[slot].interval, &held->rng);
	mmput(mm);
}

/* Whoever is interrupted is told so, whatever he comes for, and holds nothing more than before. */
static void be_interrupted(struct held *held, struct mm_struct *mm)
{
	struct subscriber *s;

	set_signal_pending();
	if (subscriber_register(mm, KEEPS_COUNT, &s) != -EINTR) {
		torture_error("was not interrupted", mm);
		subscriber_leave(s, true);
	}
	swap_shared(held, mm);
	clear_signal_pending();
	atomic64_inc(&torture.did.interrupted);
}

/* ---- a thread ---- */

static void with_mm(struct held *held)
{
	struct mm_struct *mm = pin_one(held);
	uint64_t what = rng_below(&held->rng, 100);

	if (what < 20)
		swap_subscriber(held, mm);
	else if (what < 40)
		swap_shared(held, mm);
	else if (what < 52)
		swap_interval(held, mm);
	else if (what < 60)
		touch(held, mm);
	else if (what < 70)
		zap(held, mm);
	else if (what < 80)
		migrate(held, mm);
	else if (what < 90)
		open_windows(held, mm);
	else if (what < 98)
		age(held, mm);
	else
		be_interrupted(held, mm);
	mmput(mm);
}

static void let_go(struct held *held)
{
	for (unsigned int i = 0; i < MAX_HELD; i++) {
		if (held->subscribers[i])
			subscriber_leave(held->subscribers[i], true);
		if (held->shared[i])
			shared_put(held->shared[i]);
		if (held->intervals[i].interval)
			drop_interval(held, i);
	}
}

void torture_thread(void *seed)
{
	struct held held = {.rng.state = (uintptr_t)seed * 0x9e3779b97f4a7c15UL | 1};

	while (!atomic_read(&torture.stop)) {
		uint64_t what = rng_below(&held.rng, 300);

		if (what == 0) {
			replace_one(&held);
		} else if (what == 1) {
			mmu_notifier_synchronize();
			atomic64_inc(&torture.did.synchronized);
		} else if (what < 80) {
			fault(&held);
		} else {
			with_mm(&held);
		}
	}
	let_go(&held);
}
