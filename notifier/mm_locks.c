/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mm_take_all_locks: stop every window of an mm at once.
 *
 * A window is held open under mmap_lock or under the reverse-map lock of the page it is about. So
 * whoever holds mmap_lock for writing, and for writing the reverse-map lock of every VMA, knows
 * that no window of this mm is open, and that none opens until it lets go (N-63, N-72). That is
 * what lets the list of notifiers grow.
 *
 *  1. Several VMAs may share one object: its lock is taken once. The mark that says so lives in the
 *     object, under mm_all_locks_mutex.
 *  2. There is no order among these locks. Takers exclude each other by mm_all_locks_mutex, even on
 *     different mms, as these may share objects; everyone else holds one of them at a time and
 *     waits for no other while holding it.
 *  3. An mm may have many VMAs, and each lock may have to be waited for: so whoever is interrupted
 *     meanwhile gives back what it has, which are the objects with a mark, and is told so.
 *  4. Nothing is allocated in here, nor by the caller until the drop (I10): reclaim takes these
 *     locks.
 */
#include <errno.h>

#include <gnomon/signal.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

static DEFINE_MUTEX(mm_all_locks_mutex);

static void take(struct rw_semaphore *lock, bool *taken)
{
	if (*taken)
		return;
	down_write_nest_lock(lock, &mm_all_locks_mutex);
	*taken = true;
}

static void drop(struct rw_semaphore *lock, bool *taken)
{
	if (!*taken)
		return;
	*taken = false;
	up_write(lock);
}

int mm_take_all_locks(struct mm_struct *mm)
{
	lockdep_assert_held_write(&mm->mmap_lock);
	mutex_lock(&mm_all_locks_mutex);
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma)) {
		if (signal_pending())
			goto interrupted;
		if (vma->mapping)
			take(&vma->mapping->i_mmap_rwsem, &vma->mapping->all_locked);
	}
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma)) {
		if (signal_pending())
			goto interrupted;
		if (vma->anon_vma)
			take(&vma->anon_vma->rwsem, &vma->anon_vma->all_locked);
	}
	return 0;

interrupted:
	mm_drop_all_locks(mm);
	return -EINTR;
}

void mm_drop_all_locks(struct mm_struct *mm)
{
	lockdep_assert_held_write(&mm->mmap_lock);
	lockdep_assert_held(&mm_all_locks_mutex);
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma)) {
		if (vma->mapping)
			drop(&vma->mapping->i_mmap_rwsem, &vma->mapping->all_locked);
		if (vma->anon_vma)
			drop(&vma->anon_vma->rwsem, &vma->anon_vma->all_locked);
	}
	mutex_unlock(&mm_all_locks_mutex);
}
