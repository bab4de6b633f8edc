// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The mirrors of 2019: one struct hmm for each mm that is mirrored, shared by its mirrors, made
 * with the first and freed behind the last. What is taught here is its life.
 *
 *   mm->hmm		   may be found by it under mm->page_table_lock, and only so
 *   kref		   one for each mirror, range, and callback at work; from zero there is
 *			   no way back: what has none left is on its way out, found or not
 *   mirrors, releasing	   under mirrors_sem, which callbacks of mirrors run under (reading)
 *   ranges, nr_windows	   under ranges_lock
 *
 * Rules:
 *  1. Only hmm_get_or_create() reads mm->hmm. Callbacks come from their notifier to the hmm around
 *     it, and take a reference unless there is none.
 *  2. The hmm is freed by a callback of SRCU: see the ladder at hmm_free().
 *  3. It holds an mm_count until then, so hmm->mm is good wherever the hmm is.
 *
 * It has two notifiers, because one whose start may refuse must not have an end (N-35): windows_mn
 * counts the open windows and invalidates ranges, and never refuses; mirrors_mn tells the mirrors.
 * The list calls the newest first, so windows_mn is registered behind the other. Had a mirror been
 * told first, its driver could set up the page again before the range is invalid.
 */
#include <gnomon/hmm_mirror.h>

#include <errno.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/wait.h"

struct hmm {
	struct kref kref;
	struct mm_struct *mm;

	struct rw_semaphore mirrors_sem;
	struct hmm_mirror *mirrors;
	struct hmm_mirror *releasing; /* its ->release is running */

	spinlock_t ranges_lock;
	struct hmm_mirror_range *ranges;
	long nr_windows; /* that are open */

	wait_queue_head_t wq; /* for nr_windows to be 0, for releasing to be another */
	struct mmu_notifier mirrors_mn, windows_mn;
	struct srcu_head rcu;
};

static void hmm_free_srcu(struct srcu_head *rcu)
{
	struct hmm *hmm = container_of(rcu, struct hmm, rcu);

	mmdrop(hmm->mm);
	kfree(hmm);
}

/*
 * The last reference is gone, and a callback may be on its way to take one:
 *
 *   a window					the last hmm_mirror_unregister()
 *   --------					--------------------------------
 *   begins a section of mmu_notifier_srcu
 *   finds the notifier on the list
 *						kref: 0
 *						clears mm->hmm
 *						takes the notifiers off the list; waits for nobody
 *						call_srcu: not before the section on the left ends
 *   kref of the hmm: 0, so it leaves it alone
 *   ends the section
 *						mmdrop, kfree
 *
 * Until Linux 6d7c3cde93c1 the hmm was freed at once, and the window looked for it by mm->hmm: it
 * found NULL, or the next hmm, or freed memory, according to where the two met. Neither half is
 * enough: to free it late does not help who looks for it in another place, and to come by the
 * notifier does not help if that is freed. Nor may this side wait, as mmu_notifier_unregister()
 * does: the last put may be that of a callback, inside such a section.
 *
 * mm->hmm may be that of the next one already (hmm_get_or_create()), and then stays.
 */
static void hmm_free(struct kref *kref)
{
	struct hmm *hmm = container_of(kref, struct hmm, kref);
	struct mm_struct *mm = hmm->mm;

	spin_lock(&mm->page_table_lock);
	if (mm->hmm == hmm)
		mm->hmm = NULL;
	spin_unlock(&mm->page_table_lock);

	mmu_notifier_unregister_no_release(&hmm->mirrors_mn, mm);
	if (hmm->windows_mn.mm) /* not if its register failed */
		mmu_notifier_unregister_no_release(&hmm->windows_mn, mm);
	mmu_notifier_call_srcu(&hmm->rcu, hmm_free_srcu);
}

static void hmm_put(struct hmm *hmm)
{
	kref_put(&hmm->kref, hmm_free);
}

/* ---- callbacks ---- */

static bool meets(const struct hmm_mirror_range *range, const struct mmu_notifier_range *update)
{
	return range->start < update->end && update->start < range->end;
}

static int windows_start(struct mmu_notifier *mn, const struct mmu_notifier_range *update)
{
	struct hmm *hmm = container_of(mn, struct hmm, windows_mn);

	if (!kref_get_unless_zero(&hmm->kref))
		return 0;
	spin_lock(&hmm->ranges_lock);
	hmm->nr_windows++;
	for (struct hmm_mirror_range *range = hmm->ranges; range; range = range->next)
		if (meets(range, update))
			WRITE_ONCE(range->valid, false);
	spin_unlock(&hmm->ranges_lock);
	hmm_put(hmm);
	return 0;
}

/* Without a reference at the start there was none to be had at the end: nothing counts for long. */
static void windows_end(struct mmu_notifier *mn, const struct mmu_notifier_range *update)
{
	struct hmm *hmm = container_of(mn, struct hmm, windows_mn);

	(void)update;
	if (!kref_get_unless_zero(&hmm->kref))
		return;
	spin_lock(&hmm->ranges_lock);
	ASSERT(hmm->nr_windows > 0, "nobody joins within a window: each end had a start");
	hmm->nr_windows--;
	spin_unlock(&hmm->ranges_lock);
	wake_up_all(&hmm->wq);
	hmm_put(hmm);
}

/* mirrors_sem is held. Stops at the first that refuses: there will be no window. */
static int call_mirrors(struct hmm *hmm, const struct mmu_notifier_range *update)
{
	for (struct hmm_mirror *mirror = hmm->mirrors; mirror; mirror = mirror->next) {
		int err = mirror->ops->sync_cpu_device_pagetables(mirror, update);

		if (likely(!err))
			continue;
		if (WARN_ON(mmu_notifier_range_blockable(update) || err != -EAGAIN))
			continue; /* a blockable window cannot be refused */
		return err;
	}
	return 0;
}

static int mirrors_start(struct mmu_notifier *mn, const struct mmu_notifier_range *update)
{
	struct hmm *hmm = container_of(mn, struct hmm, mirrors_mn);
	int ret = -EAGAIN;

	if (!kref_get_unless_zero(&hmm->kref))
		return 0;
	if (mmu_notifier_range_blockable(update))
		down_read(&hmm->mirrors_sem);
	else if (!down_read_trylock(&hmm->mirrors_sem))
		goto out;
	ret = call_mirrors(hmm, update);
	up_read(&hmm->mirrors_sem);
out:
	hmm_put(hmm);
	return ret;
}

static void mirror_link(struct hmm *hmm, struct hmm_mirror *mirror)
{
	mirror->next = hmm->mirrors;
	mirror->pprev = &hmm->mirrors;
	if (mirror->next)
		mirror->next->pprev = &mirror->next;
	hmm->mirrors = mirror;
}

/* Or nothing, where exit has done so. */
static void mirror_unlink(struct hmm_mirror *mirror)
{
	if (!mirror->pprev)
		return;
	*mirror->pprev = mirror->next;
	if (mirror->next)
		mirror->next->pprev = mirror->pprev;
	mirror->pprev = NULL;
}

/*
 * The mirrors leave one by one, each with the semaphore dropped around its ->release, which may
 * wait for work of the device that opens a window: its start would wait for us.
 *
 * Each leaves behind its ->release, not before (as it did until Linux 5.2): until that has returned
 * the device uses pages, and a migration that came by the reverse map must tell it. And who is
 * still on its way into ->release must not be freed: unregister looks at ->releasing.
 */
static void release_mirrors(struct hmm *hmm)
{
	struct hmm_mirror *mirror;

	down_write(&hmm->mirrors_sem);
	while ((mirror = hmm->mirrors)) {
		WRITE_ONCE(hmm->releasing, mirror);
		up_write(&hmm->mirrors_sem);
		if (mirror->ops->release)
			mirror->ops->release(mirror);
		down_write(&hmm->mirrors_sem);
		mirror_unlink(mirror);
		WRITE_ONCE(hmm->releasing, NULL);
		wake_up_all(&hmm->wq);
	}
	up_write(&hmm->mirrors_sem);
}

static void mirrors_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct hmm *hmm = container_of(mn, struct hmm, mirrors_mn);

	(void)mm;
	if (!kref_get_unless_zero(&hmm->kref))
		return;
	/* Each of them is a user of the mm. */
	WARN_ON(READ_ONCE(hmm->ranges));
	release_mirrors(hmm);
	hmm_put(hmm);
}

static const struct mmu_notifier_ops mirrors_ops = {
	.release = mirrors_release,
	.invalidate_range_start = mirrors_start,
};

static const struct mmu_notifier_ops windows_ops = {
	.invalidate_range_start = windows_start,
	.invalidate_range_end = windows_end,
};

/* ---- one for each mm ---- */

static struct hmm *hmm_alloc(struct mm_struct *mm)
{
	struct hmm *hmm = kzalloc(sizeof(*hmm), GFP_KERNEL);

	if (!hmm)
		return NULL;
	kref_init(&hmm->kref);
	init_rwsem(&hmm->mirrors_sem);
	spin_lock_init(&hmm->ranges_lock);
	init_waitqueue_head(&hmm->wq);
	hmm->mirrors_mn.ops = &mirrors_ops;
	hmm->windows_mn.ops = &windows_ops;
	hmm->mm = mm;
	mmgrab(mm); /* dropped by hmm_free_srcu() */
	return hmm;
}

/* The hmm of @mm with a reference more; NULL: there is none, or it has no references left. */
static struct hmm *hmm_find_get(struct mm_struct *mm)
{
	struct hmm *hmm;

	spin_lock(&mm->page_table_lock);
	hmm = mm->hmm;
	/* Under the lock it is there, if only just: hmm_free() clears mm->hmm before it frees. */
	if (hmm && !kref_get_unless_zero(&hmm->kref))
		hmm = NULL;
	spin_unlock(&mm->page_table_lock);
	return hmm;
}

/*
 * mmap_lock, held for writing, means that nobody else creates. But the last put of an hmm holds
 * nothing of the mm (it may be that of a callback), so between its kref and its look at mm->hmm it
 * may meet us, and then both get what they want:
 *
 *   last put						hmm_get_or_create
 *   --------						-----------------
 *   kref: 0
 *							mm->hmm is there, with no reference: as
 *							  good as none
 *							makes another, registers it
 *							mm->hmm = that one
 *   mm->hmm is not mine: leaves it
 *
 * This cannot fail but for want of memory or by a signal. Its predecessor could, in just this
 * order: it took an mm->hmm that was not NULL for a creator that had been faster (that was before
 * all creators held mmap_lock). It is kept in tests/history/hmm_get_or_create.h.
 *
 * mm->hmm is stored when all has worked, so there is nothing to take back.
 */
static struct hmm *hmm_get_or_create(struct mm_struct *mm)
{
	struct hmm *hmm;
	int ret;

	lockdep_assert_held_write(&mm->mmap_lock);
	hmm = hmm_find_get(mm);
	if (hmm)
		return hmm;

	hmm = hmm_alloc(mm);
	if (!hmm)
		return ERR_PTR(-ENOMEM);
	ret = __mmu_notifier_register(&hmm->mirrors_mn, mm);
	if (ret)
		goto out_free;
	ret = __mmu_notifier_register(&hmm->windows_mn, mm);
	if (ret)
		goto out_put;

	spin_lock(&mm->page_table_lock);
	mm->hmm = hmm;
	spin_unlock(&mm->page_table_lock);
	return hmm;

out_put: /* a callback may be in it already */
	hmm_put(hmm);
	return ERR_PTR(ret);
out_free:
	hmm_free_srcu(&hmm->rcu);
	return ERR_PTR(ret);
}

/* ---- mirrors ---- */

int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm)
{
	struct hmm *hmm;

	lockdep_assert_held_write(&mm->mmap_lock);
	ASSERT(refcount_read(&mm->mm_users) > 0, "the caller pins mm_users while it registers");
	if (!mirror->ops || !mirror->ops->sync_cpu_device_pagetables)
		return -EINVAL;
	hmm = hmm_get_or_create(mm);
	if (IS_ERR(hmm))
		return (int)PTR_ERR(hmm);
	mirror->hmm = hmm;
	down_write(&hmm->mirrors_sem);
	mirror_link(hmm, mirror);
	up_write(&hmm->mirrors_sem);
	return 0;
}

void hmm_mirror_unregister(struct hmm_mirror *mirror)
{
	struct hmm *hmm = mirror->hmm;

	/* What runs under the semaphore is waited for by it, and ->release here. */
	down_write(&hmm->mirrors_sem);
	while (hmm->releasing == mirror) {
		up_write(&hmm->mirrors_sem);
		wait_event(hmm->wq, READ_ONCE(hmm->releasing) != mirror);
		down_write(&hmm->mirrors_sem);
	}
	mirror_unlink(mirror);
	up_write(&hmm->mirrors_sem);
	mirror->hmm = NULL;
	hmm_put(hmm);
}

/* ---- ranges ---- */

int hmm_range_register(struct hmm_mirror_range *range, struct hmm_mirror *mirror)
{
	struct hmm *hmm = mirror->hmm;

	if (range->start >= range->end || !PAGE_ALIGNED(range->start | range->end))
		return -EINVAL;
	if (!mmget_not_zero(hmm->mm))
		return -EFAULT;
	kref_get(&hmm->kref);
	range->hmm = hmm;
	spin_lock(&hmm->ranges_lock);
	range->valid = !hmm->nr_windows;
	range->next = hmm->ranges;
	range->pprev = &hmm->ranges;
	if (range->next)
		range->next->pprev = &range->next;
	WRITE_ONCE(hmm->ranges, range);
	spin_unlock(&hmm->ranges_lock);
	return 0;
}

void hmm_range_unregister(struct hmm_mirror_range *range)
{
	struct hmm *hmm = range->hmm;

	spin_lock(&hmm->ranges_lock);
	WRITE_ONCE(*range->pprev, range->next);
	if (range->next)
		range->next->pprev = range->pprev;
	spin_unlock(&hmm->ranges_lock);
	range->hmm = NULL;
	mmput(hmm->mm);
	hmm_put(hmm);
}

/*
 * Nobody but who waits makes a range valid again. In Linux the end of the last window did, for all
 * ranges: then a window could open and close between the driver's look at the pages and its look at
 * the range, and was not seen.
 */
static bool make_valid(struct hmm_mirror_range *range)
{
	struct hmm *hmm = range->hmm;
	bool valid;

	spin_lock(&hmm->ranges_lock);
	valid = range->valid || !hmm->nr_windows;
	WRITE_ONCE(range->valid, valid);
	spin_unlock(&hmm->ranges_lock);
	return valid;
}

bool hmm_range_wait_until_valid(struct hmm_mirror_range *range, unsigned int ms)
{
	/* Also if there is nothing to wait for today. */
	lock_map_visit(&lockdep_invalidate_range_start);
	return wait_event_timeout(range->hmm->wq, make_valid(range), ms);
}

bool hmm_range_valid(const struct hmm_mirror_range *range)
{
	return READ_ONCE(range->valid);
}
