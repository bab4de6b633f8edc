/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirrors of 2019, as history that runs: how devices followed an mm before there were interval
 * notifiers, as of Linux 5.3 (include/linux/hmm.h; gone in 5.6). New code wants gnomon/hmm.h.
 * docs/hmm.md has what is told by it, and what was left out.
 *
 * A driver of that time, for the pages of a range:
 *
 *	hmm_range_register(&range, &mirror)
 *   again:
 *	if (!hmm_range_wait_until_valid(&range, ms)) give up
 *	look the pages up (hva_to_pfn); may sleep
 *	take the driver's lock, which sync_cpu_device_pagetables takes
 *	if (!hmm_range_valid(&range)) { drop it; goto again; }
 *	put them into the device's page table
 *	drop the driver's lock
 *	hmm_range_unregister(&range)
 */
#ifndef GNOMON_HMM_MIRROR_H
#define GNOMON_HMM_MIRROR_H

#include <gnomon/decls.h>
#include <gnomon/mmu_notifier.h>

GNOMON_BEGIN_DECLS

struct hmm; /* one for each mm that is mirrored; private */
struct hmm_mirror;

struct hmm_mirror_ops {
	/*
	 * A window opens: on return the device uses no page of @update, and sets none up that it
	 * looked up before. Must take the driver's lock, whatever it finds to do. May sleep if the
	 * range is blockable; if it is not, and it would have to: -EAGAIN, the only error there is.
	 */
	int (*sync_cpu_device_pagetables)(struct hmm_mirror *mirror,
					  const struct mmu_notifier_range *update);
	/*
	 * Optional. The mm ends: on return the device uses none of its pages, and never will again.
	 * May sleep, and may wait for work that opens windows: other callbacks of the mirror run
	 * meanwhile. Not for what unregisters the mirror.
	 */
	void (*release)(struct hmm_mirror *mirror);
};

/* Embed this; all but ops is the core's. */
struct hmm_mirror {
	const struct hmm_mirror_ops *ops;
	struct hmm *hmm; /* from register to unregister, which hold a reference */
	struct hmm_mirror *next, **pprev;
};

/*
 * mmap_lock held for writing, mm_users pinned. Callbacks may begin before this returns. 0; -EINVAL
 * (no ops), -ENOMEM, -EINTR (signal_pending()).
 */
int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm)
	__attribute__((warn_unused_result));

/*
 * After it returns no callback of @mirror runs or will run. Does not call ->release. Before, during
 * and after the exit of the mm. Sleeps; not from a callback, nor under a lock that callbacks take.
 */
void hmm_mirror_unregister(struct hmm_mirror *mirror);

/* (Linux: struct hmm_range, a name that today's has.) */
struct hmm_mirror_range {
	hva_t start, end; /* the caller's; end exclusive */
	/* The core's. */
	struct hmm *hmm;
	struct hmm_mirror_range *next, **pprev;
	bool valid; /* see hmm_range_valid() */
};

/*
 * From here to unregister the mm has a user, so that it does not exit under the range. 0; -EINVAL
 * (empty, or not page aligned), -EFAULT (the mm is exiting). @mirror is registered.
 */
int hmm_range_register(struct hmm_mirror_range *range, struct hmm_mirror *mirror)
	__attribute__((warn_unused_result));

/* May be the end of the mm, and so call ->release: with no lock held that mmput() may not be. */
void hmm_range_unregister(struct hmm_mirror_range *range);

/* Until no window is open, @ms milliseconds at most: false if that did not come about. Sleeps. */
bool hmm_range_wait_until_valid(struct hmm_mirror_range *range, unsigned int ms);

/*
 * No window has met the range since wait_until_valid said true. Exact under the driver's lock:
 * true, and what was looked up since may be used for as long as that is held.
 */
bool hmm_range_valid(const struct hmm_mirror_range *range);

GNOMON_END_DECLS

#endif
