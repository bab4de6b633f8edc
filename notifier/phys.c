/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frame pool: one memfd, mapping A of it, and who may have which frame.
 *
 * Life of a frame:
 *
 *   fresh --alloc--> in use (refcount >= 1) --last put--> free, poisoned --alloc--> in use ...
 *
 *  1. A fresh frame was never handed out: zero, and not yet backed by memory of the host. Creation
 *     touches no frame and writes no list, so a large pool costs nothing until it is used.
 *  2. A free frame holds PHYS_POISON in every word. Nobody has a reference, so nobody may write it:
 *     in debug builds allocation checks every word. Something that wrote there had a mapping that
 *     an invalidation should have taken away.
 *  3. First in, first out, fresh frames before all others.
 *
 * Free frames are not all alike to all: phys_alloc_above() leaves some to those who need them more
 * (frame_alloc.c).
 *
 * phys->lock protects the list and the counters and is the innermost lock. Contents are filled and
 * checked outside it, by whoever took the frame off the list or has not yet put it there.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gnomon/phys.h>

#include "notifier/contents.h"
#include "notifier/frame.h"
#include "notifier/phys_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"

/* Linux 6.3; Debian 12's libc does not name them. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

/*
 * Kernels that know MFD_EXEC log a complaint about a memfd that says neither yes nor no, and, with
 * vm.memfd_noexec set to 2, refuse anything but no. The bit is about execve of the file: mapping
 * pages of it executable, which engines do, is allowed either way.
 */
static int create_memfd(void)
{
	const unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("gnomon-frames", flags | MFD_EXEC);

	if (fd < 0 && errno == EACCES)
		fd = memfd_create("gnomon-frames", flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("gnomon-frames", flags);
	return fd < 0 ? -errno : fd;
}

/* The size is sealed: nobody who is handed the descriptor can take memory away from under us. */
static int create_memory(struct phys *phys)
{
	size_t bytes = phys->nr_frames << PAGE_SHIFT;
	int ret;

	phys->memfd = create_memfd();
	if (phys->memfd < 0)
		return phys->memfd;
	if (ftruncate(phys->memfd, bytes) < 0)
		goto err_close;
	if (fcntl(phys->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto err_close;
	phys->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			  phys->memfd, 0);
	if (phys->base == MAP_FAILED)
		goto err_close;
	return 0;

err_close:
	ret = -errno;
	close(phys->memfd);
	return ret;
}

int phys_create(struct phys **physp, uint64_t nr_frames)
{
	struct phys *phys;
	int ret;

	if (nr_frames == 0)
		return -EINVAL;
	if (nr_frames > PHYS_NO_FRAME)
		return -ENOMEM;

	phys = kzalloc(sizeof(*phys), GFP_KERNEL);
	if (!phys)
		return -ENOMEM;
	phys->nr_frames = nr_frames;
	phys->nr_free = nr_frames;
	phys->free_first = phys->free_last = PHYS_NO_FRAME;
	spin_lock_init(&phys->lock);
	for (size_t i = 0; i < PHYS_NR_WAITQUEUES; i++)
		init_waitqueue_head(&phys->waitqueues[i]);
	lru_init(&phys->lru);
	swap_init(&phys->swap);
	reclaim_init(phys);

	ret = -ENOMEM;
	phys->frames = kvcalloc(nr_frames, sizeof(*phys->frames), GFP_KERNEL);
	if (!phys->frames)
		goto err_free;
	ret = create_memory(phys);
	if (ret)
		goto err_frames;
	*physp = phys;
	return 0;

err_frames:
	kvfree(phys->frames, nr_frames * sizeof(*phys->frames));
err_free:
	kfree(phys);
	return ret;
}

static pfn_t first_frame_in_use(const struct phys *phys)
{
	for (pfn_t pfn = 0; pfn < phys->next_fresh; pfn++) {
		if (atomic_read(&phys->frames[pfn].refcount))
			return pfn;
	}
	return INVALID_PFN;
}

void phys_destroy(struct phys *phys)
{
	if (!phys)
		return;
	WARN(phys->nr_free != phys->nr_frames, "%llu frames are still in use, the first is %#llx",
	     (unsigned long long)(phys->nr_frames - phys->nr_free),
	     (unsigned long long)first_frame_in_use(phys));
	ASSERT(!atomic_read(&phys->reclaim.runs), "whoever started the reclaim thread stopped it");
	WARN(phys_swap_off(phys) == -EBUSY, "%llu pages are still in the swap file",
	     (unsigned long long)phys->swap.nr_used);

	WARN(phys->ksm, "ksm_destroy comes before phys_destroy");

	munmap(phys->base, phys->nr_frames << PAGE_SHIFT);
	close(phys->memfd);
	kvfree(phys->frames, phys->nr_frames * sizeof(*phys->frames));
	kfree(phys);
}

int phys_memfd(const struct phys *phys)
{
	return phys->memfd;
}

uint64_t phys_nr_frames(const struct phys *phys)
{
	return phys->nr_frames;
}

uint64_t phys_nr_free(const struct phys *phys)
{
	return READ_ONCE(phys->nr_free);
}

void *phys_map(const struct phys *phys, pfn_t pfn)
{
	ASSERT(pfn < phys->nr_frames, "frame %#llx is one of the pool's %#llx",
	       (unsigned long long)pfn, (unsigned long long)phys->nr_frames);
	return phys->base + (pfn << PAGE_SHIFT);
}

#if defined(CONFIG_DEBUG_FRAMES) || defined(CONFIG_LOCKDEP)
static void check_poison(const struct phys *phys, pfn_t pfn)
{
	const uint64_t *page = phys_map(phys, pfn);
	size_t word = contents_differ(page, PHYS_POISON);

	ASSERT(word == CONTENTS_WORDS,
	       "nobody writes a free frame: frame %#llx offset %#zx holds %#llx, not poison",
	       (unsigned long long)pfn, word * sizeof(*page), (unsigned long long)page[word]);
}
#else
static void check_poison(const struct phys *phys, pfn_t pfn)
{
	(void)phys;
	(void)pfn;
}
#endif

/* Returns with no reference yet: to the rest of the world the frame is free until that is set. */
static pfn_t take_free_frame(struct phys *phys, uint64_t keep, bool *fresh)
{
	pfn_t pfn = INVALID_PFN;

	spin_lock(&phys->lock);
	*fresh = phys->next_fresh < phys->nr_frames;
	if (phys->nr_free <= keep) {
		/* What is left is not for the caller. */
	} else if (*fresh) {
		pfn = phys->next_fresh++;
	} else {
		pfn = phys->free_first; /* there is one: nr_free counts those, and the fresh */
		phys->free_first = phys->frames[pfn].next_free;
		if (phys->free_first == PHYS_NO_FRAME)
			phys->free_last = PHYS_NO_FRAME;
	}
	if (pfn != INVALID_PFN)
		WRITE_ONCE(phys->nr_free, phys->nr_free - 1);
	spin_unlock(&phys->lock);
	return pfn;
}

/* Contents are as promised before anyone can gain a reference to the frame. */
pfn_t phys_alloc_above(struct phys *phys, uint64_t keep, bool zero)
{
	bool fresh;
	pfn_t pfn = take_free_frame(phys, keep, &fresh);
	int refs;

	reclaim_wake(phys);
	if (pfn == INVALID_PFN)
		return pfn;
	if (!fresh) {
		check_poison(phys, pfn);
		if (zero)
			contents_fill_page(phys_map(phys, pfn), 0);
	}
	refs = atomic_inc_return(&pfn_to_frame(phys, pfn)->refcount);
	ASSERT(refs == 1, "free frame %#llx had no references", (unsigned long long)pfn);
	return pfn;
}

pfn_t phys_alloc(struct phys *phys)
{
	return phys_alloc_above(phys, 0, false);
}

pfn_t phys_alloc_zeroed(struct phys *phys)
{
	return phys_alloc_above(phys, 0, true);
}

void phys_free_frame(struct phys *phys, pfn_t pfn)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	contents_fill_page(phys_map(phys, pfn), PHYS_POISON);

	spin_lock(&phys->lock);
	frame->next_free = PHYS_NO_FRAME;
	if (phys->free_last == PHYS_NO_FRAME)
		phys->free_first = pfn;
	else
		phys->frames[phys->free_last].next_free = pfn;
	phys->free_last = pfn;
	WRITE_ONCE(phys->nr_free, phys->nr_free + 1);
	spin_unlock(&phys->lock);
	wake_up_all(&phys->reclaim.freed);
}
