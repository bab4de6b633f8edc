/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page cache of a shared object: which frame holds which page, and the frames' home. Mappings
 * come and go above it; a page leaves its slot only for another frame (migration), for a hole
 * (file_hole.c), when its frame is needed (page_out.c), or when the object goes. An object may have
 * a file below it, which pages are read from and written to (file_pages.c, file_sync.c); one that
 * has none is memory, and what has to go from that goes to the swap file. Its slot names the place
 * there, and whoever needs the page reads it into a new frame.
 *
 * How to find a page for good: read the slot, lock the frame it names, read the slot again. The
 * second look counts:
 *
 *   fault                                     migration of page 7, frame A to frame B
 *   -----                                     ------------------------------------
 *                                             lock A, lock B
 *   slot 7 says A                             freeze A, copy
 *   lock A ... waits                          slot 7 := B
 *                                             unlock B, unlock A
 *   has the lock of A                         put A: free, poisoned, perhaps someone else's now
 *   slot 7 says B: not A
 *   unlock A, start again with B
 *
 * No reference is needed to lock a frame, only to use it. With the frame locked and the slot naming
 * it, the slot's own reference keeps it: slots change only with their frame locked.
 */
#include <errno.h>

#include "notifier/file_pages.h"
#include "notifier/frame.h"
#include "notifier/lru.h"
#include "notifier/mm_internal.h"
#include "notifier/swap.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"

struct address_space *address_space_create(struct phys *phys, uint64_t nr_pages)
{
	struct address_space *mapping = kzalloc(sizeof(*mapping), GFP_KERNEL);

	if (!mapping)
		return NULL;
	mapping->slots = kvcalloc(max(nr_pages, (uint64_t)1), sizeof(*mapping->slots), GFP_KERNEL);
	if (!mapping->slots) {
		kfree(mapping);
		return NULL;
	}
	mapping->phys = phys;
	mapping->nr_pages = nr_pages;
	mapping->fd = -1;
	refcount_set(&mapping->refs, 1);
	init_rwsem_class(&mapping->i_mmap_rwsem, &lockdep_i_mmap_rwsem);
	init_rwsem(&mapping->writeback_rwsem);
	spin_lock_init(&mapping->i_pages_lock);
	return mapping;
}

void address_space_get(struct address_space *mapping)
{
	refcount_inc(&mapping->refs);
}

/* ---- slots ---- */

static uint64_t load_slot(struct address_space *mapping, uint64_t pgoff)
{
	/* Pairs with the releases in set_slot(): the frame is seen as it was when it went in. */
	return smp_load_acquire(&mapping->slots[pgoff]);
}

/* It stays what it is while the lock is held. */
static uint64_t load_slot_locked(struct address_space *mapping, uint64_t pgoff)
{
	lockdep_assert_held(&mapping->i_pages_lock);
	return load_slot(mapping, pgoff);
}

static void set_slot(struct address_space *mapping, uint64_t pgoff, uint64_t slot)
{
	lockdep_assert_held(&mapping->i_pages_lock);
	smp_store_release(&mapping->slots[pgoff], slot);
}

static pfn_t slot_pfn(uint64_t slot)
{
	return slot == NO_PAGE || (slot & SLOT_SWAPPED) ? INVALID_PFN : (slot & ~SLOT_DIRTY) - 1;
}

static uint32_t swap_slot(uint64_t slot)
{
	return slot & ~SLOT_SWAPPED;
}

pfn_t address_space_peek(struct address_space *mapping, uint64_t pgoff)
{
	return slot_pfn(load_slot(mapping, pgoff));
}

bool address_space_page_dirty(struct address_space *mapping, uint64_t pgoff)
{
	return load_slot(mapping, pgoff) & SLOT_DIRTY;
}

void address_space_set_dirty(struct address_space *mapping, uint64_t pgoff, bool dirty)
{
	uint64_t slot;

	spin_lock(&mapping->i_pages_lock);
	slot = load_slot_locked(mapping, pgoff) & ~SLOT_DIRTY;
	ASSERT(slot_pfn(slot) != INVALID_PFN &&
		       frame_locked(pfn_to_frame(mapping->phys, slot_pfn(slot))),
	       "what is dirty, or not any more, is a page that the caller has locked");
	set_slot(mapping, pgoff, dirty ? slot | SLOT_DIRTY : slot);
	spin_unlock(&mapping->i_pages_lock);
}

/* ---- pages ---- */

bool address_space_find_page(struct address_space *mapping, uint64_t pgoff, pfn_t *pfnp)
{
	for (;;) {
		pfn_t pfn = address_space_peek(mapping, pgoff);

		if (pfn == INVALID_PFN)
			return false;
		lock_frame(mapping->phys, pfn);
		if (address_space_peek(mapping, pgoff) == pfn) {
			phys_get(mapping->phys, pfn);
			*pfnp = pfn;
			return true;
		}
		unlock_frame(mapping->phys, pfn);
	}
}

void address_space_delete_page(struct address_space *mapping, uint64_t pgoff, pfn_t pfn)
{
	set_frame_mapping(pfn_to_frame(mapping->phys, pfn), 0);
	spin_lock(&mapping->i_pages_lock);
	ASSERT(address_space_peek(mapping, pgoff) == pfn,
	       "a slot changes only with its frame locked");
	set_slot(mapping, pgoff, NO_PAGE);
	spin_unlock(&mapping->i_pages_lock);
	phys_put(mapping->phys, pfn);
}

/*
 * Puts @pfn, which is locked, into the slot, with a reference for it. False if that is not @slot
 * any more. If it was a swap slot, the object's use of that is the caller's to put.
 */
static bool fill_slot(struct address_space *mapping, uint64_t pgoff, uint64_t slot, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(mapping->phys, pfn);
	bool filled;

	spin_lock(&mapping->i_pages_lock);
	filled = load_slot_locked(mapping, pgoff) == slot;
	if (filled) {
		set_frame_mapping(frame, (uintptr_t)mapping);
		frame->index = pgoff;
		phys_get(mapping->phys, pfn);
		set_slot(mapping, pgoff, pfn + 1);
	}
	spin_unlock(&mapping->i_pages_lock);
	if (filled)
		lru_add(mapping->phys, pfn, LRU_INACTIVE);
	return filled;
}

/*
 * As address_space_find_page(), for an empty slot. 0, -ENOMEM, -EIO, -EAGAIN when someone else
 * filled it. The new frame is locked before anyone can find it in the slot, so that a first fault
 * maps it before it can be moved; and before its mapping is set, since one who guesses frame
 * numbers (migrate_frame) may look at it already.
 *
 * A file is read when the frame is in the slot, not before: whoever punches a hole finds it there,
 * and waits (file_hole.c); and of several readers one reads. Else who was slow could bring what the
 * page was before another read it, wrote to it, and dropped it.
 */
static int add_page(struct address_space *mapping, uint64_t pgoff, pfn_t *pfnp)
{
	struct phys *phys = mapping->phys;
	pfn_t pfn = has_file(mapping) ? alloc_user_frame(phys) : alloc_zeroed_user_frame(phys);
	int ret = -EAGAIN;

	if (pfn == INVALID_PFN) /* or the last one went to another fault on this very page */
		return load_slot(mapping, pgoff) == NO_PAGE ? -ENOMEM : -EAGAIN;
	lock_frame(phys, pfn);
	if (fill_slot(mapping, pgoff, NO_PAGE, pfn)) {
		ret = has_file(mapping) ? file_read_page(mapping, pgoff, pfn) : 0;
		if (ret)
			address_space_delete_page(mapping, pgoff, pfn);
	}
	if (ret) {
		unlock_frame(phys, pfn);
		phys_put(phys, pfn);
		return ret;
	}
	*pfnp = pfn;
	return 0;
}

/*
 * The slot, if its page is out, with one more user for the swap slot: so that it becomes neither
 * another page's while it is read, nor this one's with other contents. Else NO_PAGE.
 */
static uint64_t get_swapped(struct address_space *mapping, uint64_t pgoff)
{
	uint64_t slot;

	spin_lock(&mapping->i_pages_lock);
	slot = load_slot_locked(mapping, pgoff);
	if (slot & SLOT_SWAPPED)
		swap_dup(mapping->phys, swap_slot(slot));
	else
		slot = NO_PAGE;
	spin_unlock(&mapping->i_pages_lock);
	return slot;
}

/*
 * As add_page(), for a slot whose page is out; @slot is what get_swapped() gave. Several may read
 * the page at once, and one of them has it.
 */
static int swap_in_page(struct address_space *mapping, uint64_t pgoff, uint64_t slot, pfn_t *pfnp)
{
	struct phys *phys = mapping->phys;
	pfn_t pfn = alloc_swap_in_frame(phys);
	int ret = pfn == INVALID_PFN ? -ENOMEM : 0;

	if (!ret) {
		lock_frame(phys, pfn);
		ret = swap_read(phys, swap_slot(slot), pfn);
		if (!ret && fill_slot(mapping, pgoff, slot, pfn)) {
			swap_put(phys, swap_slot(slot));
			*pfnp = pfn;
			return 0;
		}
		unlock_frame(phys, pfn);
		phys_put(phys, pfn);
	}
	return ret && load_slot(mapping, pgoff) == slot ? ret : -EAGAIN;
}

int address_space_get_page(struct address_space *mapping, uint64_t pgoff, pfn_t *pfnp)
{
	int ret;

	ASSERT(pgoff < mapping->nr_pages, "page %#llx lies in the object",
	       (unsigned long long)pgoff);
	do {
		uint64_t slot;

		if (address_space_find_page(mapping, pgoff, pfnp))
			return 0;
		slot = get_swapped(mapping, pgoff);
		if (slot == NO_PAGE) {
			ret = add_page(mapping, pgoff, pfnp);
		} else {
			ret = swap_in_page(mapping, pgoff, slot, pfnp);
			swap_put(mapping->phys, swap_slot(slot));
		}
	} while (ret == -EAGAIN);
	return ret;
}

void address_space_swap_out(struct address_space *mapping, uint64_t pgoff, pfn_t from,
			    uint32_t slot)
{
	spin_lock(&mapping->i_pages_lock);
	ASSERT(address_space_peek(mapping, pgoff) == from,
	       "a slot changes only with its frame locked");
	set_slot(mapping, pgoff, slot | SLOT_SWAPPED);
	spin_unlock(&mapping->i_pages_lock);
}

bool address_space_drop_swapped(struct address_space *mapping, uint64_t pgoff)
{
	uint64_t slot = load_slot(mapping, pgoff);

	if (slot == NO_PAGE)
		return true;
	/* Whoever swapped it out may have the lock still, and then not the object any more. */
	spin_lock(&mapping->i_pages_lock);
	slot = load_slot_locked(mapping, pgoff);
	if (slot & SLOT_SWAPPED)
		set_slot(mapping, pgoff, NO_PAGE);
	spin_unlock(&mapping->i_pages_lock);
	if (slot & SLOT_SWAPPED)
		swap_put(mapping->phys, swap_slot(slot));
	return slot == NO_PAGE || (slot & SLOT_SWAPPED);
}

/* A page that is dirty is that in its new frame, too. */
void address_space_replace(struct address_space *mapping, uint64_t pgoff, pfn_t from, pfn_t to)
{
	uint64_t slot;

	phys_get(mapping->phys, to);
	spin_lock(&mapping->i_pages_lock);
	slot = load_slot_locked(mapping, pgoff);
	ASSERT(slot_pfn(slot) == from, "a slot changes only with its frame locked");
	set_slot(mapping, pgoff, (to + 1) | (slot & SLOT_DIRTY));
	spin_unlock(&mapping->i_pages_lock);
}

/*
 * The last put: nobody maps the object, but a migration may be moving a page of it, or reclaim
 * taking one. They hold the frame's lock for as long as they use the mapping, and the file below
 * it, so locking each frame in turn waits for them.
 */
static void remove_page(struct address_space *mapping, uint64_t pgoff)
{
	pfn_t pfn;

	while (!address_space_find_page(mapping, pgoff, &pfn)) {
		if (address_space_drop_swapped(mapping, pgoff))
			return;
	}
	address_space_delete_page(mapping, pgoff, pfn);
	unlock_frame(mapping->phys, pfn);
	phys_put(mapping->phys, pfn);
}

void address_space_put(struct address_space *mapping)
{
	if (!refcount_dec_and_test(&mapping->refs))
		return;
	might_sleep();
	ASSERT(!mapping->i_mmap.rbh_root, "every VMA holds a reference on what it maps");
	if (has_file(mapping))
		file_last_sync(mapping);
	for (uint64_t pgoff = 0; pgoff < mapping->nr_pages; pgoff++)
		remove_page(mapping, pgoff);
	if (has_file(mapping))
		file_close(mapping);
	kvfree(mapping->slots, max(mapping->nr_pages, (uint64_t)1) * sizeof(*mapping->slots));
	kfree(mapping);
}
