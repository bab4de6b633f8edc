/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of an address space (gnomon/mm.h has the contract of the two counts).
 *
 * Exit, run by the last mmput, in this order and for these reasons:
 *  1. Release the notifiers: nobody may still map our pages when they are freed (I5).
 *     The scanner for equal pages forgets us as well: it looks for pages by way of the mm.
 *  2. Take every VMA out of its reverse map. Until then reverse-map walkers may find us, open
 *     windows here and change our entries, mm_users at zero or not; from then on they cannot.
 *  3. Clear the entries, in a window as every removal of present entries; free the pages.
 *  4. Free the tables, then the VMAs, then let go of the structure.
 *
 * A migration may have left before step 2 and come back after it:
 *
 *   migration of frame A to B                 exit
 *   -------------------------                 ----
 *   our entry A -> migration entry
 *   drops the reverse-map lock
 *                                             takes it for writing, unlinks the VMA
 *   copies A to B                             clears the migration entry: it holds no reference
 *   walks the reverse map again: the VMA      frees tables and VMA
 *     is not there, nothing is restored
 *   B has no mapping left here
 *
 * If the page was private, B is freed by the migration, and the anon_vma by whoever of the two
 * drops it last.
 */
#include <gnomon/mmu_notifier.h>

#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

struct mm_struct *mm_alloc(struct phys *phys)
{
	struct mm_struct *mm = kzalloc(sizeof(*mm), GFP_KERNEL);

	if (!mm)
		return NULL;
	mm->pgtable = pgtable_create();
	if (!mm->pgtable) {
		kfree(mm);
		return NULL;
	}
#ifdef CONFIG_LOCKDEP
	/* Whoever opens a window may be at fault before anybody subscribes. */
	mm->watch.watched = 1;
#endif
	mm->phys = phys;
	refcount_set(&mm->mm_users, 1);
	refcount_set(&mm->mm_count, 1);
	init_rwsem(&mm->mmap_lock);
	RB_INIT(&mm->vmas);
	spin_lock_init(&mm->page_table_lock);
	return mm;
}

static void exit_mmap(struct mm_struct *mm)
{
	struct mmu_notifier_range range;

	mmu_notifier_release(mm);
	ksm_exit(mm);

	mmap_write_lock(mm);
	unlink_vmas(mm);

	mutation_range_init(&range, MUTATION_EXIT, mm, 0, HVA_MAX);
	mmu_notifier_invalidate_range_start(&range);
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma))
		zap_vma_range(vma, vma->start, vma->end);
	mmu_notifier_invalidate_range_end(&range);

	pgtable_destroy(mm->pgtable);
	mm->pgtable = NULL;
	free_vmas(mm);
	mmap_write_unlock(mm);
}

void mmget(struct mm_struct *mm)
{
	refcount_inc(&mm->mm_users);
}

bool mmget_not_zero(struct mm_struct *mm)
{
	return refcount_inc_not_zero(&mm->mm_users);
}

void mmput(struct mm_struct *mm)
{
	might_sleep();
	if (!refcount_dec_and_test(&mm->mm_users))
		return;
	exit_mmap(mm);
	mmdrop(mm); /* the one that all users held together */
}

void mmgrab(struct mm_struct *mm)
{
	refcount_inc(&mm->mm_count);
}

void mmdrop(struct mm_struct *mm)
{
	if (!refcount_dec_and_test(&mm->mm_count))
		return;
	ASSERT(refcount_read(&mm->mm_users) == 0, "mm_users hold an mm_count");
	ASSERT(!mm->hmm, "an hmm holds an mm_count for as long as it can be found");
	mmu_notifier_subscriptions_destroy(mm);
	kfree(mm);
}

struct phys *mm_phys(const struct mm_struct *mm)
{
	return mm->phys;
}

void mmap_write_lock(struct mm_struct *mm)
{
	down_write(&mm->mmap_lock);
}

void mmap_write_unlock(struct mm_struct *mm)
{
	up_write(&mm->mmap_lock);
}

void mmap_read_lock(struct mm_struct *mm)
{
	down_read(&mm->mmap_lock);
}

void mmap_read_unlock(struct mm_struct *mm)
{
	up_read(&mm->mmap_lock);
}

void mm_get_stats(struct mm_struct *mm, struct mm_stats *stats)
{
	stats->faults = atomic64_read(&mm->nr_faults);
	stats->cow_copies = atomic64_read(&mm->nr_cow);
	stats->pages_zapped = atomic64_read(&mm->nr_zapped);
	stats->pages_migrated = atomic64_read(&mm->nr_migrated);
	stats->migrate_busy = atomic64_read(&mm->nr_migrate_busy);
	stats->pages_swapped_in = atomic64_read(&mm->nr_swap_in);
	stats->pages_swapped_out = atomic64_read(&mm->nr_swap_out);
	stats->pages_to_device = atomic64_read(&mm->nr_to_device);
	stats->pages_to_ram = atomic64_read(&mm->nr_to_ram);
}
