/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The swap file of a machine, and its swap cache.
 *
 * Rules:
 *  1. A slot is a page of the file. Its users are the swap entries of page tables, and the slots of
 *     objects, that name it; besides, at most one frame is its *cached* copy. It is free exactly
 *     when it has neither.
 *  2. A slot with users that is not cached holds the page. So whoever fills a slot has the frame in
 *     the swap cache, locked, from before the first entry names the slot until the file has it; and
 *     who reads a slot into a frame has that there, locked, until it is read. Objects, whose pages
 *     have one place each, go without the cache: they write first, and name the slot then.
 *  3. A frame enters and leaves the cache with its lock held, and with a reference of the cache.
 *  4. While a slot has users its contents do not change, nor while it is cached: whoever maps its
 *     cached frame may not write to it. FRAME_DIRTY says that the file does not have them yet.
 *  5. Users come of users (a fork), under the page_table_lock of an entry that is one; or from the
 *     one who has the cached frame locked. So with that lock, zero stays zero.
 *  6. A cached frame whose slot has no user has nothing to wait for, and leaves: by whoever drops
 *     the last user (swap_free), or finds it so with the frame locked (leave_swap_cache_if_unused).
 *
 * swap->lock protects the map. Nothing is taken under it, and nobody sleeps.
 */
#ifndef NOTIFIER_SWAP_H
#define NOTIFIER_SWAP_H

#include <gnomon/swap.h>

#include "notifier/sync/lock.h"

#define NO_SLOT UINT32_MAX

struct swap_slot {
	uint32_t users;
	uint32_t cached; /* frame number plus one, or 0 */
};

struct swap {
	spinlock_t lock;
	/* Under lock, but whoever uses a slot keeps all but the counts as they are. */
	struct swap_slot *slots; /* NULL: no swap file */
	uint64_t nr_slots;
	uint64_t nr_used;
	uint64_t next; /* where the search for a free one begins */
	int fd;
};

void swap_init(struct swap *swap);

/* ---- swap.c ---- */

/* A free slot, with one user; NO_SLOT. */
uint32_t swap_alloc(struct phys *phys);
/* Is there one? By now perhaps not any more. */
bool swap_has_room(const struct phys *phys);
/* One user more, of a slot that has one; or (rule 5) of one whose cached frame is locked. */
void swap_dup(struct phys *phys, uint32_t slot);
/* One less. If that was the last: the frame that is its cached copy, or INVALID_PFN. */
pfn_t swap_put(struct phys *phys, uint32_t slot);
/* How many; an answer to count on is zero, with the cached frame locked. */
uint32_t swap_users(struct phys *phys, uint32_t slot);

/* The whole page, to the file or from it. Sleeps. 0 or -EIO. */
int swap_write(struct phys *phys, uint32_t slot, pfn_t pfn);
int swap_read(struct phys *phys, uint32_t slot, pfn_t pfn);

/* For swap_cache.c: under swap->lock. */
uint32_t __swap_alloc(struct swap *swap);
struct swap_slot *__swap_slot(struct swap *swap, uint32_t slot);
void __swap_slot_unused(struct swap *swap, uint32_t slot);

/* ---- swap_cache.c: all with the frame locked ---- */

/* A new slot for a frame whose page is in none, and is to be written. False: there is no slot. */
bool add_to_swap(struct phys *phys, pfn_t pfn);
/* A frame to be filled from @slot. False: the slot is cached by now, or has no user any more. */
bool swap_cache_insert(struct phys *phys, uint32_t slot, pfn_t pfn);
/* Out, and the cache's reference is the caller's to put; what was there is nowhere else now. */
void delete_from_swap_cache(struct phys *phys, pfn_t pfn);
/* The same and put, if nobody uses the slot. The caller has a reference. */
void leave_swap_cache_if_unused(struct phys *phys, pfn_t pfn);
/* @to takes the place of @from, which is frozen. */
void swap_cache_replace(struct phys *phys, pfn_t from, pfn_t to);

/* Locks the cached frame of @slot, with a reference for the caller; INVALID_PFN if there is none.
 * May sleep. */
pfn_t swap_cache_lock_page(struct phys *phys, uint32_t slot);

/* A user lets go of its slot, with no frame locked. May sleep, for the frame lock of rule 6. */
void swap_free(struct phys *phys, uint32_t slot);

#endif
