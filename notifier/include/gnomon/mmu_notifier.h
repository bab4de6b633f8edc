/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MMU notifiers: the contract between the owner of memory and everyone who keeps a second copy of
 * its page tables. Names and contracts are the kernel's (include/linux/mmu_notifier.h of 7.1);
 * docs/kernel-map.md has each difference. Ids N-* in comments are the project's inventory.
 */
#ifndef GNOMON_MMU_NOTIFIER_H
#define GNOMON_MMU_NOTIFIER_H

#include <gnomon/decls.h>
#include <gnomon/err.h>
#include <gnomon/mm.h>
#include <gnomon/srcu.h>
#include <gnomon/types.h>

GNOMON_BEGIN_DECLS

struct mmu_notifier;

/*
 * Why a range is invalidated: a hint for clients, never a licence to skip the invalidation, but for
 * the owner of a range (below).
 */
enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP,	    /* the virtual range goes away, or elsewhere */
	MMU_NOTIFY_CLEAR,	    /* entries are cleared, the range stays mapped */
	MMU_NOTIFY_PROTECTION_VMA,  /* rights change for the whole range: the area tells which */
	MMU_NOTIFY_PROTECTION_PAGE, /* rights change page by page: look at the end */
	MMU_NOTIFY_SOFT_DIRTY,	    /* entries become read-only, to see who writes */
	MMU_NOTIFY_RELEASE,	    /* the address space ends; for interval notifiers only */
	MMU_NOTIFY_MIGRATE,	    /* entries move to other frames */
	MMU_NOTIFY_EXCLUSIVE,	    /* a device wants the pages for itself */
};

#define MMU_NOTIFIER_RANGE_BLOCKABLE 0x1u

struct mmu_notifier_range {
	struct mm_struct *mm;
	hva_t start; /* page aligned, inclusive */
	hva_t end;   /* page aligned, exclusive */
	unsigned int flags;
	enum mmu_notifier_event event;
	/*
	 * With MMU_NOTIFY_MIGRATE and MMU_NOTIFY_EXCLUSIVE: who does it, and so need not be told
	 * what it does itself. NULL otherwise. Subscribers compare; the core calls all of them.
	 */
	void *owner;
};

struct mmu_notifier_ops {
	/*
	 * The address space is about to lose all its pages, or this notifier is being unregistered.
	 * Called before any page is freed (I5), from exit or from mmu_notifier_unregister, and in a
	 * race from both: must tolerate a second call. May run concurrently with any other
	 * callback. On return no secondary mapping of the mm may be in use and none may ever be
	 * made again. May sleep, and may call mmu_notifier_put().
	 */
	void (*release)(struct mmu_notifier *subscription, struct mm_struct *mm);

	/*
	 * Has anything used [start, end) through the secondary since this was last asked? Both
	 * forget the answer; the first also sees to it that a use from now on is noticed at once
	 * (flushes), the second may leave that to chance. A range, as one entry of the secondary
	 * may be larger than a page. May sleep.
	 */
	bool (*clear_flush_young)(struct mmu_notifier *subscription, struct mm_struct *mm,
				  hva_t start, hva_t end);
	bool (*clear_young)(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t start,
			    hva_t end);

	/* The same for one page, and nothing is forgotten. */
	bool (*test_young)(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t address);

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

	/*
	 * For a secondary that walks the primary page table itself and caches what it finds: drop
	 * the cached translations of [start, end). Called when the primary's own TLB is flushed,
	 * with its entry changed already and the page still alive; under the page table lock, so
	 * it never sleeps. Who has this has no start and no end (N-36): it would be told twice.
	 */
	void (*arch_invalidate_secondary_tlbs)(struct mmu_notifier *subscription,
					       struct mm_struct *mm, hva_t start, hva_t end);

	/*
	 * For mmu_notifier_get() and put(), which need both. alloc_notifier makes a notifier for
	 * @mm, or an ERR_PTR(); the core fills it in. Called with mmap_lock held for writing.
	 * free_notifier gets it back when no callback of it runs or will run, exactly once: from a
	 * callback of SRCU, or from a get that failed after the allocation. It must not sleep.
	 */
	struct mmu_notifier *(*alloc_notifier)(struct mm_struct *mm);
	void (*free_notifier)(struct mmu_notifier *subscription);
};

/* Embed this; fields are the core's, but for @ops. */
struct mmu_notifier {
	/* The list, under the subscriptions' lock; read under SRCU. pprev NULL: in no list. */
	struct mmu_notifier *next, **pprev;
	const struct mmu_notifier_ops *ops;
	/* From register to the end of unregister, or to free_notifier: the core holds mm_count. */
	struct mm_struct *mm;
	struct srcu_head rcu;
	unsigned int users; /* of get; 1 for register */
};

/*
 * Attach @subscription to @mm; the caller has set ->ops. Takes mmap_lock for writing, so hold none
 * of mm's locks, and pin mm_users for the duration. After 0 callbacks run, and may have begun
 * before this returns. -ENOMEM; -EINTR (signal_pending()); -EINVAL and a warning: ops have both
 * arch_invalidate_secondary_tlbs and a start or end.
 */
int mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm)
	__attribute__((warn_unused_result));

/*
 * The same with mmap_lock held for writing already. A @subscription of NULL only prepares @mm for
 * interval notifiers, so that mmu_interval_notifier_insert_locked() need not.
 */
int __mmu_notifier_register(struct mmu_notifier *subscription, struct mm_struct *mm)
	__attribute__((warn_unused_result));

/*
 * Detach. Calls ->release itself unless exit has done so already. After it returns no callback of
 * @subscription runs or will run (I4), and its memory is the caller's. Sleeps: waits for every
 * callback running anywhere, so call it with no lock held that a callback takes. Safe before,
 * during and after the exit of @mm. Not for what mmu_notifier_get() returned.
 */
void mmu_notifier_unregister(struct mmu_notifier *subscription, struct mm_struct *mm);

/*
 * The one notifier of @ops on @mm: found, and then with a user more, or made by
 * ops->alloc_notifier() and registered. Each get is paired with a put. While a user is left
 * ->mm stays valid (mmget_not_zero() tells if it still has pages). Errors as ERR_PTR(): that of
 * alloc_notifier, those of register, and -EOVERFLOW with UINT_MAX users. The first takes mmap_lock
 * for writing, the second is called with it held so; both with mm_users pinned.
 */
struct mmu_notifier *mmu_notifier_get(const struct mmu_notifier_ops *ops, struct mm_struct *mm)
	__attribute__((warn_unused_result));
struct mmu_notifier *mmu_notifier_get_locked(const struct mmu_notifier_ops *ops,
					     struct mm_struct *mm)
	__attribute__((warn_unused_result));

/*
 * One user less; the last one detaches the notifier, and ops->free_notifier() is called later, by
 * whoever runs callbacks of SRCU. Never sleeps; may be called from ->release. Does not call
 * ->release, which only exit does: so the last user drops its secondary mappings first, and makes
 * none any more.
 */
void mmu_notifier_put(struct mmu_notifier *subscription);

/*
 * All that was put for the last time before this call is over: no callback of it runs, and its
 * free_notifier has *returned*. For who is about to go away with the code of ops. Sleeps; not from
 * a callback of any notifier or of mmu_notifier_call_srcu(), nor under a lock that those take. The
 * kernel's own promises less (docs/kernel-map.md).
 */
void mmu_notifier_synchronize(void);

/*
 * History, removed from Linux 5.4 in favour of put: detach without ->release and without waiting,
 * and have @func(@rcu) called when all callbacks that run now have returned. The memory of
 * @subscription stays until then, and the caller keeps an mm_count as long as it needs ->mm.
 */
void mmu_notifier_unregister_no_release(struct mmu_notifier *subscription, struct mm_struct *mm);
void mmu_notifier_call_srcu(struct srcu_head *rcu, void (*func)(struct srcu_head *rcu));

/*
 * Has anyone ever subscribed? Racy unless a lock that register takes is held: mmap_lock or a
 * reverse-map lock of mm.
 */
bool mm_has_notifiers(struct mm_struct *mm);

/* ---- for whoever changes the primary page table ---- */

static inline void mmu_notifier_range_init_owner(struct mmu_notifier_range *range,
						 enum mmu_notifier_event event, unsigned int flags,
						 struct mm_struct *mm, hva_t start, hva_t end,
						 void *owner)
{
	range->mm = mm;
	range->start = start;
	range->end = end;
	range->flags = flags;
	range->event = event;
	range->owner = owner;
}

static inline void mmu_notifier_range_init(struct mmu_notifier_range *range,
					   enum mmu_notifier_event event, unsigned int flags,
					   struct mm_struct *mm, hva_t start, hva_t end)
{
	mmu_notifier_range_init_owner(range, event, flags, mm, start, end, NULL);
}

static inline bool mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return range->flags & MMU_NOTIFIER_RANGE_BLOCKABLE;
}

/*
 * Open and close an invalidation window. Held open under mmap_lock, or a reverse-map lock, of
 * range->mm (N-63), so that the set of subscribers cannot grow within a window. start may sleep and
 * cannot fail; the nonblock form never sleeps and returns 0 or -EAGAIN, after which the caller
 * changes nothing and does not call end (N-60).
 */
static inline void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
static inline int mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
	__attribute__((warn_unused_result));
static inline void mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range);

/*
 * Has a secondary used the range, or the page? Any of them: all are asked, but for test_young,
 * which stops at the first that has. May sleep.
 */
bool mmu_notifier_clear_flush_young(struct mm_struct *mm, hva_t start, hva_t end);
bool mmu_notifier_clear_young(struct mm_struct *mm, hva_t start, hva_t end);
bool mmu_notifier_test_young(struct mm_struct *mm, hva_t address);

/* The primary's TLB is being flushed. Never sleeps. */
void mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm, hva_t start, hva_t end);

/* ---- inlined, so that a window that nobody watches costs a load and a branch ---- */

/*
 * What every struct mm_struct begins with. Stored with all locks taken, one of which whoever opens
 * a window holds. In a library that checks locks all are watched.
 */
struct __mm_watch {
	uint32_t watched;
};

static inline bool __mm_is_watched(const struct mm_struct *mm)
{
	return __builtin_expect(__atomic_load_n(&((const struct __mm_watch *)mm)->watched,
						__ATOMIC_RELAXED),
				0);
}

void __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range);
int __mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range);
void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range);

static inline void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	range->flags |= MMU_NOTIFIER_RANGE_BLOCKABLE;
	if (__mm_is_watched(range->mm))
		__mmu_notifier_invalidate_range_start(range);
}

static inline int mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	range->flags &= ~MMU_NOTIFIER_RANGE_BLOCKABLE;
	return __mm_is_watched(range->mm) ? __mmu_notifier_invalidate_range_start_nonblock(range)
					  : 0;
}

static inline void mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	if (__mm_is_watched(range->mm))
		__mmu_notifier_invalidate_range_end(range);
}

GNOMON_END_DECLS

#endif
