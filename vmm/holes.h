/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What has been taken from a guest for a while, and will be given back: holes, which are addresses
 * that it cannot reach as it could (unmapped, moved away, protected), and hoards, which are frames
 * that somebody keeps. A vCPU that runs into the one or finds too little because of the other
 * waits, and tries again; it ends for neither.
 *
 *   access                                    owner of a hole
 *   ------                                    ---------------
 *   seq = holes_seq()
 *                                             hole_open: listed
 *                                             makes it
 *   refused by the mm, at hva
 *   holes_wait(seq, hva): listed, sleeps
 *                                             mends it
 *                                             hole_close: not listed, seq + 1, wakes
 *   tries again
 *
 * A hole is listed before it is there and until it is no more. So an access that it stopped finds
 * it listed, or finds that seq has moved since before the access; an access that was refused for a
 * reason of its own finds neither, and holes_wait() says so. (If others' holes close all the time
 * it may have to try more than once.) The same goes for hoards.
 *
 * Holes do not overlap: whoever mends one could not tell what the other's owner has made of it.
 *
 * Replayed by tests/unit/test_holes.c (closed_between_the_access_and_the_wait).
 */
#ifndef VMM_HOLES_H
#define VMM_HOLES_H

#include <gnomon/types.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

struct holes {
	spinlock_t lock; /* protects the list and the counts; encloses nothing */
	struct list_head list;
	unsigned int nr_hoards;
	bool wanted; /* somebody waits for what is hoarded */
	uint64_t seq;
	wait_queue_head_t wait;	  /* for seq to move */
	wait_queue_head_t owners; /* who keeps something for a while, until wanted or a stop */
	atomic64_t nr_waits, nr_memory_waits;
};

struct hole {
	struct list_head link;
	hva_t start, end;
};

void holes_init(struct holes *holes);

/* False: there is a hole in [start, end) already. */
bool hole_open(struct holes *holes, struct hole *hole, hva_t start, hva_t end);
void hole_close(struct holes *holes, struct hole *hole);

/* False: not now, somebody needs memory. */
bool hoard_begin(struct holes *holes);
void hoard_end(struct holes *holes);
bool hoard_wanted(struct holes *holes);

uint64_t holes_seq(struct holes *holes);

/*
 * An access, begun after holes_seq() gave @seq, was refused at @hva, or found no memory. True: try
 * it again, it may go well now. False: nothing that is listed here explains it. Sleeps, until
 * @give_up(@arg) at the latest; who makes that true calls holes_wake().
 */
bool holes_wait(struct holes *holes, uint64_t seq, hva_t hva, bool (*give_up)(void *arg),
		void *arg);
bool holes_wait_memory(struct holes *holes, uint64_t seq, bool (*give_up)(void *arg), void *arg);
void holes_wake(struct holes *holes);

#endif
