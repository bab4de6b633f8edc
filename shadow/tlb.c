/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Zap batches: what has been cleared under mmu_lock and must still be shot down, and who must wait
 * for whom.
 *
 * Rules:
 *  1. Entries are cleared under mmu_lock; CPUs are told after it is dropped. In between a CPU may
 * still use the old frame.
 *  2. Each batch is numbered under the mmu_lock section that cleared it, and is on shadow->batches
 * until it is shot down.
 *  3. zap_batch_flush() returns only when every batch with a lower number is shot down as well,
 * also if this batch is empty:
 *
 *       invalidation 1                     invalidation 2, overlapping
 *       --------------                     ---------------------------
 *       mmu_lock: clears the entry of A,
 *         is batch 7; unlock
 *                                          mmu_lock: finds nothing to clear, is batch 8; unlock
 *       (not shot down yet: a CPU          returns from start, the host frees frame A
 *        still stores to A)                    ^ forbidden: must wait for batch 7
 *       shoots A down
 *
 *     The same holds for a table: before it is retired, every batch that cleared leaves of it is
 * shot down. Replayed by tests/races (shootdown-wait).
 *  4. A batch waits only for lower numbers, and a shootdown waits for no batch: so there is no
 * cycle.
 */
#include "shadow/shadow_internal.h"

#include "notifier/sync/alloc.h"

void zap_batch_init(struct zap_batch *batch)
{
	INIT_LIST_HEAD(&batch->link);
	INIT_LIST_HEAD(&batch->retired);
	batch->number = 0;
	batch->nr_entries = 0;
	batch->nr_frames = 0;
	batch->huge_forbidden = false;
}

void zap_batch_close(struct shadow *shadow, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	shadow_audit_locked(shadow);

	spin_lock(&shadow->batch_lock);
	if (zap_batch_empty(batch)) {
		batch->number =
			shadow->batch_number + 1; /* after all there are; nobody waits for it */
	} else {
		batch->number = ++shadow->batch_number;
		list_add_tail(&batch->link, &shadow->batches);
	}
	spin_unlock(&shadow->batch_lock);
}

static bool earlier_batches_done(struct shadow *shadow, uint64_t number)
{
	bool done = true;

	spin_lock(&shadow->batch_lock);
	if (!list_empty(&shadow->batches))
		done = list_first_entry(&shadow->batches, struct zap_batch, link)->number >= number;
	spin_unlock(&shadow->batch_lock);
	return done;
}

static void count_shot(struct shadow *shadow, unsigned int nr, int err)
{
	struct machine *machine = shadow->machine;

	atomic64_inc(&shadow->stats.shootdowns);
	atomic64_add(nr, &shadow->stats.frames_shot);
	/* Once no CPU can be vouched for, none may run; with all of them stopped the promise of
	 * rule 3 holds again. */
	if (err)
		machine->ops->halt(machine, "a TLB shootdown failed");
}

/* The huge leaves among @frames; what remains comes to the front. How many? */
static unsigned int shoot_huge(struct shadow *shadow, pfn_t *frames, unsigned int nr)
{
	const unsigned int pages = table_pages(HUGE_LEVEL - 1);
	struct machine *machine = shadow->machine;
	unsigned int others = 0;

	for (unsigned int i = 0; i < nr; i++) {
		pfn_t first = frames[i] & ~FRAMES_HUGE;
		unsigned int run = pages;

		if (!(frames[i] & FRAMES_HUGE)) {
			frames[others++] = frames[i];
			continue;
		}
		for (; i + 1 < nr && frames[i + 1] == ((first + run) | FRAMES_HUGE); i++)
			run += pages;
		count_shot(shadow, run, machine->ops->shootdown_range(machine, first, run));
	}
	return others;
}

void shadow_shoot(struct shadow *shadow, pfn_t *frames, unsigned int nr)
{
	struct machine *machine = shadow->machine;

	if (shadow->broken & SHADOW_BREAK_SHOOTDOWN)
		return;
	nr = shoot_huge(shadow, frames, nr);
	if (nr)
		count_shot(shadow, nr, machine->ops->shootdown(machine, frames, nr));
}

static void retire_pages(struct shadow *shadow, struct zap_batch *batch)
{
	const struct machine_ops *ops = shadow->machine->ops;
	struct shadow_page *sp, *next;

	if (list_empty(&batch->retired))
		return;
	shadow_wait_for_walks(shadow);
	list_for_each_entry_safe(sp, next, &batch->retired, link) {
		list_del(&sp->link);
		shadow_audit_retired(shadow, sp);
		if (shadow->broken & SHADOW_BREAK_RETIRE)
			ops->free_table(shadow->machine, sp->table);
		else
			ops->retire_table(shadow->machine, sp->table);
		atomic64_inc(&shadow->stats.tables_retired);
		kfree(sp->gptes);
		kfree(sp->gfns);
		kfree(sp);
	}
}

void zap_batch_flush(struct shadow *shadow, struct zap_batch *batch)
{
	struct shadow_page *sp;

	ASSERT(batch->number, "the batch was closed under mmu_lock");
	if (!zap_batch_empty(batch)) {
		shadow_hook(shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT);
		shadow_shoot(shadow, batch->frames, batch->nr_frames);
		list_for_each_entry(sp, &batch->retired, link)
			shadow_shoot(shadow, sp->gfns, sp->nr_unshot);

		spin_lock(&shadow->batch_lock);
		list_del_init(&batch->link);
		spin_unlock(&shadow->batch_lock);
		wake_up_all(&shadow->batch_wait);
	}

	if (!(shadow->broken & SHADOW_BREAK_SHOOTDOWN_WAIT) &&
	    !earlier_batches_done(shadow, batch->number)) {
		atomic64_inc(&shadow->stats.batches_waited);
		wait_event(shadow->batch_wait, earlier_batches_done(shadow, batch->number));
	}

	retire_pages(shadow, batch);
	batch->nr_entries = 0;
	batch->nr_frames = 0;
	batch->huge_forbidden = false;
	batch->number = 0;
}
