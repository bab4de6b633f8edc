/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pool itself, for phys.c (allocation) and frame.c (locks, references).
 */
#ifndef NOTIFIER_PHYS_INTERNAL_H
#define NOTIFIER_PHYS_INTERNAL_H

#include <gnomon/phys.h>

#include "notifier/frame.h"
#include "notifier/lru.h"
#include "notifier/reclaim.h"
#include "notifier/swap.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

#define PHYS_NR_WAITQUEUES 64
#define PHYS_MAX_DEVICES   16

/* Ends the list of free frames; so a pool has at most this many. */
#define PHYS_NO_FRAME UINT32_MAX

struct device_memory;

struct phys {
	/* Constant from phys_create to phys_destroy. */
	int memfd;
	uint64_t nr_frames;
	char *base; /* mapping A */
	struct frame *frames;

	/* Innermost of all locks. */
	spinlock_t lock;
	/*
	 * Under lock. Frames from next_fresh on were never handed out: they are zero, the host has
	 * no memory for them yet, and they come before the list, since they became free first.
	 */
	uint64_t next_fresh;
	uint32_t free_first, free_last;
	uint64_t nr_free; /* fresh and listed; loaded by anyone */

	struct lru lru;
	struct swap swap;
	struct reclaim reclaim;
	struct device_memory *devices[PHYS_MAX_DEVICES]; /* device_memory.c; stored under lock */

	wait_queue_head_t waitqueues[PHYS_NR_WAITQUEUES];

	struct ksm *ksm; /* the machine's, from ksm_create to ksm_destroy, or NULL */
};

/* phys.c: as phys_alloc(), if more than @keep frames are free. */
pfn_t phys_alloc_above(struct phys *phys, uint64_t keep, bool zero);

/* phys.c: the reference count fell to 0. Poison the frame and put it at the end of the list. */
void phys_free_frame(struct phys *phys, pfn_t pfn);

#endif
