/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that is short: a swap file, and the reclaim that makes room by it. All of it is of one
 * machine (struct phys), and none of it starts by itself.
 *
 * A process gets no frame below the watermark "min", which stays for page tables; it takes frames
 * from other pages first (direct reclaim), and gets -ENOMEM if there is nothing to take: no swap
 * file, or a full one, and no page that a file has. A pool of less than 1024 frames has a min of 0.
 *
 * Kernel sources of the contracts: mm/swapfile.c, mm/vmscan.c, mm/page_alloc.c (watermarks).
 */
#ifndef GNOMON_SWAP_H
#define GNOMON_SWAP_H

#include <gnomon/decls.h>
#include <gnomon/phys.h>
#include <gnomon/types.h>

GNOMON_BEGIN_DECLS

/*
 * Swap to a file in directory @dir that has no name there, so that nothing is left behind however
 * the process ends. @nr_slots pages, taken from the file system as they are first written: if it
 * has no room then, the page stays in memory. 0; -EINVAL (none, or 2^32 and more), -EBUSY (there is
 * a swap file), -ENOMEM, or the errno of open, mkstemp, unlink or ftruncate.
 */
int phys_swap_on(struct phys *phys, const char *dir, uint64_t nr_slots);

/* 0; -EINVAL (there is none), -EBUSY (a page is in it). */
int phys_swap_off(struct phys *phys);

/*
 * A thread that reclaims when free frames are fewer than the watermark "low", until they are
 * "high", so that few wait for it. Start: 0, -EBUSY (it runs), or what thread creation returns.
 * Stop waits until it has ended. Both by whoever owns @phys, one at a time. A forked child has no
 * such thread: stop it before a fork.
 */
int phys_reclaim_start(struct phys *phys);
void phys_reclaim_stop(struct phys *phys);

/*
 * Try to make @nr frames free, as direct reclaim does; for who found phys_alloc() empty. Sleeps.
 * Not under a reverse-map lock, nor in a notifier's callback. Returns how many it was, which
 * somebody else may have taken since.
 */
uint64_t phys_reclaim(struct phys *phys, uint64_t nr);

/* Counters since phys_create(), and what is there now; a racy snapshot. */
struct reclaim_stats {
	uint64_t swap_out;	  /* pages written to the swap file */
	uint64_t swap_in;	  /* and read from it */
	uint64_t swap_errors;	  /* reads and writes that failed */
	uint64_t reclaimed;	  /* pages that left memory */
	uint64_t scanned;	  /* pages that were looked at for it, and */
	uint64_t activated;	  /* found in use once more */
	uint64_t deactivated;	  /* pages that became candidates again */
	uint64_t lazyfreed;	  /* pages that MM_MADV_FREE gave up, dropped unwritten */
	uint64_t direct_reclaims; /* times that somebody who needed a frame had to reclaim */
	uint64_t wakeups;	  /* times that the thread had something to do */
	uint64_t nr_active, nr_inactive;
	uint64_t swap_slots, swap_used; /* of the swap file */
	uint64_t min, low, high;	/* watermarks, in frames */
};
void phys_reclaim_stats(struct phys *phys, struct reclaim_stats *stats);

GNOMON_END_DECLS

#endif
