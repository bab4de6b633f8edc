/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Moving all pages of a range: mm_migrate_range.
 *
 * Works in batches of up to MIGRATE_BATCH pages, each in three steps: collect (lock the frames,
 * take a new frame for each: whatever can fail, fails here), unmap this mm's entries in one window
 * from the first collected page to the last, complete each move (migrate.c), which opens windows
 * for mappings elsewhere. Bookkeeping is on the stack.
 *
 * Why holding many frame locks cannot deadlock. Frame locks have no order among each other: two
 * range migrations meet the same shared frames in whatever order they are mapped. But a cycle needs
 * someone who waits for a frame lock while holding another, and there is nobody:
 *  1. A batch takes the lock of a page by trylock; what is busy stays where it is.
 *  2. It waits only for the lock of a new frame, which is no page yet. Others have that only to
 *     look: a fault that read a stale slot, a migrate_frame() that guessed the number. They find
 *     that it is not what they sought, and unlock it, waiting for nothing in between.
 *  3. Faults, zaps and the end of an address_space hold one frame lock at a time.
 * And a holder of frame locks waits for reverse-map locks and for notifier callbacks, whose
 * holders, and which, never wait for a frame lock or for mmap_lock.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"

#define MIGRATE_BATCH 64

struct batch {
	struct mm_struct *mm;
	unsigned int nr;
	unsigned int nr_busy;
	bool out_of_frames; /* at some time */
	hva_t next;	    /* where the next batch begins */
	struct {
		struct migration m;
		pte_t *ptep;
		hva_t hva;
	} page[MIGRATE_BATCH];
};

static bool batch_has(const struct batch *batch, pfn_t pfn)
{
	for (unsigned int i = 0; i < batch->nr; i++) {
		if (batch->page[i].m.from == pfn)
			return true;
	}
	return false;
}

/* With a reference, locked, and still mapped here after the reference was taken (mm_access.c). */
static bool lock_mapped_frame(struct batch *batch, pte_t *ptep, pfn_t pfn)
{
	struct phys *phys = batch->mm->phys;
	pte_t pte;

	if (!phys_get_unless_zero(phys, pfn))
		return false;
	pte = pte_load(ptep);
	if (pte_maps_frame(pte) && pte_pfn(pte) == pfn && trylock_frame(phys, pfn))
		return true;
	phys_put(phys, pfn);
	return false;
}

/* Stops the walk, for this batch, by returning non-zero. */
static int collect_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct batch *batch = arg;
	struct phys *phys = batch->mm->phys;
	pte_t pte = pte_load(ptep);
	pfn_t pfn = pte_pfn(pte);
	int ret;

	if (!pte_maps_frame(pte))
		return 0;
	if (batch->nr == MIGRATE_BATCH) {
		batch->next = hva;
		return 1;
	}
	/* Mapped here twice: the second entry is one of the "mappings elsewhere" of the first. */
	if (batch_has(batch, pfn))
		return 0;
	if (!lock_mapped_frame(batch, ptep, pfn)) {
		batch->nr_busy++;
		return 0;
	}
	ret = migration_prepare(&batch->page[batch->nr].m, phys, pfn);
	if (ret) {
		unlock_frame(phys, pfn);
		phys_put(phys, pfn);
		if (ret != -ENOMEM) { /* pinned, or zapped since */
			batch->nr_busy++;
			return 0;
		}
		batch->out_of_frames = true;
		batch->next = hva;
		return 1;
	}
	batch->page[batch->nr].ptep = ptep;
	batch->page[batch->nr].hva = hva;
	batch->nr++;
	return 0;
}

static void unmap_batch(struct batch *batch)
{
	hva_t first = batch->page[0].hva;
	hva_t last = batch->page[batch->nr - 1].hva;
	struct mmu_notifier_range range;

	mutation_range_init(&range, MUTATION_MIGRATE_RANGE, batch->mm, first, last + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	for (unsigned int i = 0; i < batch->nr; i++)
		migration_unmap_entry(&batch->page[i].m, batch->mm, batch->page[i].hva,
				      batch->page[i].ptep);
	mmu_notifier_invalidate_range_end(&range);
}

static long complete_batch(struct batch *batch)
{
	long moved = 0;

	for (unsigned int i = 0; i < batch->nr; i++)
		moved += migration_complete(&batch->page[i].m, batch->mm->phys) == 0;
	return moved;
}

long mm_migrate_range(struct mm_struct *mm, hva_t addr, uint64_t len)
{
	struct batch batch = {.mm = mm, .next = addr};
	hva_t end = addr + len;
	long moved = 0;

	if (!hva_range_ok(addr, len))
		return -EINVAL;

	mmap_read_lock(mm);
	while (batch.next < end) {
		hva_t start = batch.next;

		batch.nr = 0;
		batch.next = end;
		pgtable_walk(mm->pgtable, start, end, collect_one, &batch);
		if (batch.nr) {
			unmap_batch(&batch);
			moved += complete_batch(&batch);
		} else if (batch.out_of_frames) {
			if (!moved)
				moved = -ENOMEM;
			break;
		}
	}
	mmap_read_unlock(mm);

	atomic64_add(batch.nr_busy, &mm->nr_migrate_busy);
	return moved;
}
