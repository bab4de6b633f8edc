/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reclaim: which pages go (reclaim.c), how one goes (page_out.c), and who asks for it: allocation
 * (frame_alloc.c), the thread (reclaim_thread.c), madvise (madvise_age.c).
 */
#ifndef NOTIFIER_RECLAIM_H
#define NOTIFIER_RECLAIM_H

#include <gnomon/swap.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"

/* Pages that one call frees, if nobody says otherwise. */
#define RECLAIM_BATCH 32

/* After so many fruitless attempts an allocation fails; or, in a row, the thread gives up. */
#define RECLAIM_TRIES 16

struct reclaim {
	uint64_t min, low, high; /* watermarks: constant */

	/* The thread: made and joined by whoever owns the machine. */
	struct kthread thread;
	atomic_t runs, stop;
	atomic_t failures;	 /* attempts in a row that freed nothing */
	wait_queue_head_t wait;	 /* it waits here for fewer than low frames, or stop */
	wait_queue_head_t freed; /* allocations wait here for somebody else's progress */

	atomic64_t nr_swap_out, nr_swap_in, nr_swap_errors;
	atomic64_t nr_reclaimed, nr_scanned, nr_activated, nr_deactivated, nr_lazyfreed;
	atomic64_t nr_direct, nr_wakeups;
};

/* reclaim_thread.c */
void reclaim_init(struct phys *phys);
/* Frames were taken: does the thread have to do something about it? Never sleeps. */
void reclaim_wake(struct phys *phys);

/*
 * reclaim.c: free @want pages, or as many as there are. *@may_succeed: if it was none, is there a
 * page that was only just in use or busy? Not from within reclaim.
 */
uint64_t reclaim_pages(struct phys *phys, uint64_t want, bool *may_succeed);
/* Is the calling thread at it? Then it takes no frame from others, and may use the last ones. */
bool in_reclaim(void);
/* To the inactive list; @forget: as if it had not been used. A reference is the caller's. */
void deactivate_page(struct phys *phys, pfn_t pfn, bool forget);
/* One page, with a reference of the caller's, whether it was used or not. True if it is out. */
bool reclaim_page(struct phys *phys, pfn_t pfn);

/*
 * page_out.c: with the frame locked and a reference of the caller's. page_has_way_out: is it a page
 * that could go at all? page_referenced: how many of those that map it have used it since they were
 * last asked; @flush as mmu_notifier_clear_flush_young(), else as clear_young. page_out: true if
 * the page left memory; then the caller's reference is the last.
 */
bool page_has_way_out(struct phys *phys, pfn_t pfn);
unsigned int page_referenced(struct phys *phys, pfn_t pfn, bool flush);
bool page_out(struct phys *phys, pfn_t pfn);

#endif
