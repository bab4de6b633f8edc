/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MMU notifiers: the contract between the owner of memory and everyone who keeps a second copy of
 * its page tables. Names and contracts are the kernel's (include/linux/mmu_notifier.h); ids N-* in
 * comments are the project's inventory.
 */
#ifndef GNOMON_MMU_NOTIFIER_H
#define GNOMON_MMU_NOTIFIER_H

#include <gnomon/decls.h>
#include <gnomon/mm.h>
#include <gnomon/srcu.h>
#include <gnomon/types.h>

GNOMON_BEGIN_DECLS

struct mmu_notifier;

/* Why a range is invalidated; a hint for clients, never a licence to skip the invalidation (N: A4).
 */
enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP,   /* the virtual range goes away */
	MMU_NOTIFY_CLEAR,   /* entries are cleared, the range stays mapped */
	MMU_NOTIFY_MIGRATE, /* entries move to other frames */
};

#define MMU_NOTIFIER_RANGE_BLOCKABLE 0x1u

struct mmu_notifier_range {
	struct mm_struct *mm;
	hva_t start; /* page aligned, inclusive */
	hva_t end;   /* page aligned, exclusive */
	unsigned int flags;
	enum mmu_notifier_event event;
};

struct mmu_notifier_ops {
	/*
	 * The address space is about to lose all its pages, or this notifier is being unregistered.
	 * Called before any page is freed (I5), from exit or from mmu_notifier_unregister, and in a
	 * race from both: must tolerate a second call. May run concurrently with any other
	 * callback. On return no secondary mapping of the mm may be in use and none may ever be
	 * made again. May sleep.
	 */
	void (*release)(struct mmu_notifier *subscription, struct mm_struct *mm);

	/*
	 * Pages of the range are still mapped and referenced. On return no access through any
	 * secondary mapping of the range can happen, and none may be established until the matching
	 * end (I1). May sleep if the range is blockable; otherwise returns -EAGAIN instead of
	 * sleeping, the only error there is (0 for success). A start must not wait for another
	 * invalidation of the same mm: windows nest and overlap.
	 */
	int (*invalidate_range_start)(struct mmu_notifier *subscription,
				      const struct mmu_notifier_range *range);

	/*
	 * Pages may be freed already. Paired with each start that the core called on this
	 * subscriber and that it did not refuse (I6). A subscriber whose start can fail must not
	 * have an end (N-35).
	 */
	void (*invalidate_range_end)(struct mmu_notifier *subscription,
				     const struct mmu_notifier_range *range);
};

/* Embed this; fields are the core's. */
struct mmu_notifier {
	struct mmu_notifier *next,
		**pprev; /* list membership, under the subscriptions lock; read under SRCU */
	const struct mmu_notifier_ops *ops;
	struct mm_struct
		*mm; /* valid from register to the end of unregister: the core holds an mm_count */
};

/*
 * Attach @subscription to @mm; the caller has set ->ops. Takes mmap_lock for writing, so hold none
 * of mm's locks, and pin mm_users for the duration. After 0 callbacks run, and may have begun
 * before this returns. -ENOMEM; -EINTR (mm_take_all_locks was interrupted).
 */
int mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm);

/* The same with mmap_lock already held for writing. */
int __mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm);

/*
 * Detach. Calls ->release itself unless exit has done so already. After it returns no callback of
 * @subscription runs or will run (I4), and its memory is the caller's. Sleeps: waits for every
 * callback running anywhere, so call it with no lock held that a callback takes. Safe before,
 * during and after the exit of @mm.
 */
void mmu_notifier_unregister(struct mmu_notifier *subscription, struct mm_struct *mm);

/* Does anyone listen? Racy unless a lock that register takes is held: mmap_lock or a reverse-map
 * lock of mm. */
bool mm_has_notifiers(struct mm_struct *mm);

static inline void mmu_notifier_range_init(struct mmu_notifier_range *range,
					   enum mmu_notifier_event event, unsigned int flags,
					   struct mm_struct *mm, hva_t start, hva_t end)
{
	range->mm = mm;
	range->start = start;
	range->end = end;
	range->flags = flags;
	range->event = event;
}

static inline bool mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return range->flags & MMU_NOTIFIER_RANGE_BLOCKABLE;
}

/*
 * Open and close an invalidation window: for whoever changes the primary page table. Held open
 * under mmap_lock, or a reverse-map lock, of range->mm (N-63), so that the set of subscribers
 * cannot grow within a window. start may sleep and cannot fail; the nonblock form never sleeps and
 * returns 0 or -EAGAIN, after which the caller changes nothing and does not call end (N-60).
 */
void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
int mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
	__attribute__((warn_unused_result));
void mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range);

GNOMON_END_DECLS

#endif
