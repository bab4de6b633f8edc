// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The swap file and the map of its slots (kernel: mm/swapfile.c); swap.h has the rules.
 *
 * The file has no name: the kernel frees it when the last descriptor goes, however the process
 * ends. Slots are given out from where the last one was (next fit), so that what goes out together
 * lies together, and the search does not begin with the full part each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "notifier/frame.h"
#include "notifier/phys_internal.h"
#include "notifier/swap.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"

void swap_init(struct swap *swap)
{
	spin_lock_init(&swap->lock);
	swap->fd = -1;
}

/* ---- the map ---- */

struct swap_slot *__swap_slot(struct swap *swap, uint32_t slot)
{
	lockdep_assert_held(&swap->lock);
	ASSERT(slot < swap->nr_slots, "slot %#x is one of the swap file's %#llx", slot,
	       (unsigned long long)swap->nr_slots);
	return &swap->slots[slot];
}

static bool slot_is_free(const struct swap *swap, uint32_t slot)
{
	return !swap->slots[slot].users && !swap->slots[slot].cached;
}

uint32_t __swap_alloc(struct swap *swap)
{
	lockdep_assert_held(&swap->lock);
	if (swap->nr_used == swap->nr_slots) /* also without a swap file */
		return NO_SLOT;
	while (!slot_is_free(swap, swap->next))
		swap->next = (swap->next + 1) % swap->nr_slots;
	WRITE_ONCE(swap->nr_used, swap->nr_used + 1);
	return swap->next;
}

void __swap_slot_unused(struct swap *swap, uint32_t slot)
{
	ASSERT(slot_is_free(swap, slot), "slot %#x has neither users nor a cached copy", slot);
	WRITE_ONCE(swap->nr_used, swap->nr_used - 1);
}

uint32_t swap_alloc(struct phys *phys)
{
	struct swap *swap = &phys->swap;
	uint32_t slot;

	spin_lock(&swap->lock);
	slot = __swap_alloc(swap);
	if (slot != NO_SLOT)
		__swap_slot(swap, slot)->users = 1;
	spin_unlock(&swap->lock);
	return slot;
}

bool swap_has_room(const struct phys *phys)
{
	return READ_ONCE(phys->swap.nr_used) < READ_ONCE(phys->swap.nr_slots);
}

void swap_dup(struct phys *phys, uint32_t slot)
{
	struct swap *swap = &phys->swap;
	struct swap_slot *s;

	spin_lock(&swap->lock);
	s = __swap_slot(swap, slot);
	ASSERT(s->users || (s->cached && frame_locked(pfn_to_frame(phys, s->cached - 1))),
	       "slot %#x is in use", slot);
	s->users++;
	ASSERT(s->users, "the users of slot %#x can be counted", slot);
	spin_unlock(&swap->lock);
}

pfn_t swap_put(struct phys *phys, uint32_t slot)
{
	struct swap *swap = &phys->swap;
	pfn_t cached = INVALID_PFN;
	struct swap_slot *s;

	spin_lock(&swap->lock);
	s = __swap_slot(swap, slot);
	ASSERT(s->users, "slot %#x was put more often than it was got", slot);
	if (!--s->users) {
		if (s->cached)
			cached = s->cached - 1;
		else
			__swap_slot_unused(swap, slot);
	}
	spin_unlock(&swap->lock);
	return cached;
}

uint32_t swap_users(struct phys *phys, uint32_t slot)
{
	struct swap *swap = &phys->swap;
	uint32_t users;

	spin_lock(&swap->lock);
	users = __swap_slot(swap, slot)->users;
	spin_unlock(&swap->lock);
	return users;
}

/* ---- the file ---- */

/* Directories of some file systems cannot make files without a name. */
static int create_named(const char *dir)
{
	char path[4096];
	int fd, err;

	if (snprintf(path, sizeof(path), "%s/gnomon-swap-XXXXXX", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!unlink(path))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int create_file(const char *dir, uint64_t nr_slots)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
	int err;

	if (fd < 0)
		fd = errno == EOPNOTSUPP || errno == EISDIR ? create_named(dir) : -errno;
	if (fd < 0)
		return fd;
	if (!ftruncate(fd, nr_slots << PAGE_SHIFT))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int phys_swap_on(struct phys *phys, const char *dir, uint64_t nr_slots)
{
	struct swap *swap = &phys->swap;
	struct swap_slot *slots;
	bool on = false;
	int fd;

	if (!nr_slots || nr_slots >= NO_SLOT)
		return -EINVAL;
	slots = kvcalloc(nr_slots, sizeof(*slots), GFP_KERNEL);
	if (!slots)
		return -ENOMEM;
	fd = create_file(dir, nr_slots);
	if (fd < 0) {
		kvfree(slots, nr_slots * sizeof(*slots));
		return fd;
	}

	spin_lock(&swap->lock);
	if (!swap->slots) {
		swap->slots = slots;
		swap->fd = fd;
		swap->next = 0;
		WRITE_ONCE(swap->nr_slots, nr_slots);
		on = true;
	}
	spin_unlock(&swap->lock);
	if (on)
		return 0;
	close(fd);
	kvfree(slots, nr_slots * sizeof(*slots));
	return -EBUSY;
}

/* Whoever reads or writes the file has a slot of it, so with none in use nobody does. */
int phys_swap_off(struct phys *phys)
{
	struct swap *swap = &phys->swap;
	struct swap_slot *slots = NULL;
	uint64_t nr_slots = 0;
	int fd = -1, ret = 0;

	spin_lock(&swap->lock);
	if (!swap->slots) {
		ret = -EINVAL;
	} else if (swap->nr_used) {
		ret = -EBUSY;
	} else {
		slots = swap->slots;
		nr_slots = swap->nr_slots;
		fd = swap->fd;
		swap->slots = NULL;
		swap->fd = -1;
		WRITE_ONCE(swap->nr_slots, 0);
	}
	spin_unlock(&swap->lock);
	if (ret)
		return ret;
	close(fd);
	kvfree(slots, nr_slots * sizeof(*slots));
	return 0;
}

/* What an errno of the file means to a page is one thing: it is not there. */
static int page_io(struct phys *phys, uint32_t slot, pfn_t pfn, bool write)
{
	char *page = phys_map(phys, pfn);
	size_t done = 0;

	might_sleep();
	while (done < PAGE_SIZE) {
		off_t at = ((off_t)slot << PAGE_SHIFT) + (off_t)done;
		ssize_t n = write ? pwrite(phys->swap.fd, page + done, PAGE_SIZE - done, at)
				  : pread(phys->swap.fd, page + done, PAGE_SIZE - done, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			atomic64_inc(&phys->reclaim.nr_swap_errors);
			return -EIO;
		}
		done += n;
	}
	atomic64_inc(write ? &phys->reclaim.nr_swap_out : &phys->reclaim.nr_swap_in);
	return 0;
}

int swap_write(struct phys *phys, uint32_t slot, pfn_t pfn)
{
	return page_io(phys, slot, pfn, true);
}

int swap_read(struct phys *phys, uint32_t slot, pfn_t pfn)
{
	return page_io(phys, slot, pfn, false);
}
