/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two lists of pages that reclaim goes by, in the order in which they came or were last looked
 * at: at the tail is what waited longest.
 *
 *   a new page --> inactive --found used twice--> active
 *                  inactive <---at the tail----- active
 *                     |
 *                     at the tail, not used: out
 *
 * Pages of processes only, private ones and those of objects alike: what reclaim could take. A page
 * joins when it becomes one (its frame lock held), and is on exactly one list from then on until
 * its last reference goes. In particular it stays on it while somebody looks at it: reclaim takes
 * the tail by moving it to the head (lru_next), so that the next one to ask gets the next page.
 * (Linux takes batches off the list, to take the lock less often; and has to put back each page
 * that stays. Here each page costs windows, which are dearer than a lock.)
 *
 * lru->lock protects the lists and the flags FRAME_LRU and FRAME_ACTIVE. Nothing is taken under it.
 */
#ifndef NOTIFIER_LRU_H
#define NOTIFIER_LRU_H

#include <gnomon/phys.h>

#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"

enum lru_list { LRU_INACTIVE, LRU_ACTIVE, NR_LRU_LISTS };

struct lru {
	spinlock_t lock;
	struct list_head list[NR_LRU_LISTS];
	uint64_t nr[NR_LRU_LISTS]; /* loaded by anyone */
};

void lru_init(struct lru *lru);

static inline uint64_t lru_nr(const struct lru *lru, enum lru_list which)
{
	return READ_ONCE(lru->nr[which]);
}

/* To the head of a list, of which it may be on either, or none: the caller has a reference. */
void lru_add(struct phys *phys, pfn_t pfn, enum lru_list which);
/* To the tail of the inactive list: the next to go. If it is on a list. */
void lru_expose(struct phys *phys, pfn_t pfn);
/* The last reference is gone. */
void lru_del(struct phys *phys, pfn_t pfn);

/*
 * The page at the tail, which goes to the head. False: the list is empty. *@pfn with a reference,
 * or INVALID_PFN if it is just being freed, or frozen.
 */
bool lru_next(struct phys *phys, enum lru_list which, pfn_t *pfn);

#endif
