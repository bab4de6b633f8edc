// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Reclaim in the background (kernel: kswapd in mm/vmscan.c): watermarks, and the thread that keeps
 * free frames above them.
 *
 * It sleeps while there are at least "low", and works until there are "high". If it cannot (no page
 * has a way out) it gives up after some attempts, since every allocation would wake it; and begins
 * again when a direct reclaim has made progress.
 */
#include <errno.h>

#include "notifier/phys_internal.h"
#include "notifier/reclaim.h"
#include "notifier/sync/bug.h"

/* Below this, each frame counts. */
#define SMALL_POOL 1024

void reclaim_init(struct phys *phys)
{
	struct reclaim *r = &phys->reclaim;

	r->min = phys->nr_frames >= SMALL_POOL ? phys->nr_frames / 64 : 0;
	r->low = phys->nr_frames / 32;
	r->high = r->low + r->low / 2;
	init_waitqueue_head(&r->wait);
	init_waitqueue_head(&r->freed);
}

static bool has_work(struct phys *phys)
{
	struct reclaim *r = &phys->reclaim;

	return phys_nr_free(phys) < r->low && atomic_read(&r->failures) < RECLAIM_TRIES;
}

void reclaim_wake(struct phys *phys)
{
	struct reclaim *r = &phys->reclaim;

	if (has_work(phys) && atomic_read(&r->runs))
		wake_up_all(&r->wait);
}

static void work(struct phys *phys)
{
	struct reclaim *r = &phys->reclaim;
	bool may_succeed;

	atomic64_inc(&r->nr_wakeups);
	while (!atomic_read(&r->stop) && phys_nr_free(phys) < r->high) {
		if (!reclaim_pages(phys, RECLAIM_BATCH, &may_succeed)) {
			atomic_inc(&r->failures);
			return;
		}
		atomic_set(&r->failures, 0);
	}
}

static void reclaim_thread(void *arg)
{
	struct phys *phys = arg;
	struct reclaim *r = &phys->reclaim;

	for (;;) {
		wait_event(r->wait, has_work(phys) || atomic_read(&r->stop));
		if (atomic_read(&r->stop))
			return;
		work(phys);
	}
}

int phys_reclaim_start(struct phys *phys)
{
	struct reclaim *r = &phys->reclaim;
	int ret;

	if (atomic_read(&r->runs))
		return -EBUSY;
	atomic_set(&r->stop, 0);
	atomic_set(&r->failures, 0);
	ret = kthread_run(&r->thread, "reclaim", reclaim_thread, phys);
	if (!ret)
		atomic_set(&r->runs, 1);
	return ret;
}

void phys_reclaim_stop(struct phys *phys)
{
	struct reclaim *r = &phys->reclaim;

	if (!atomic_read(&r->runs))
		return;
	atomic_set(&r->stop, 1);
	wake_up_all(&r->wait);
	kthread_join(&r->thread);
	atomic_set(&r->runs, 0);
}
