/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interval notifiers: a subscription to a range of an mm, with a sequence by which a fault handler
 * of the secondary finds out that what it has looked up is out of date. (Linux has them in
 * mmu_notifier.h, since 5.5.)
 *
 *   again:
 *	seq = mmu_interval_read_begin(&sub);
 *	look the pages up; may sleep
 *	take the driver's lock
 *	if (mmu_interval_read_retry(&sub, seq)) { drop it; goto again; }
 *	put them into the secondary page table
 *	drop the driver's lock
 *
 *   invalidate(sub, range, cur_seq):
 *	take the driver's lock
 *	mmu_interval_set_seq(sub, cur_seq);
 *	take the range out of the secondary page table
 *	drop the driver's lock
 *
 * The loop may go round for as long as somebody invalidates: to bound it is the caller's business.
 */
#ifndef GNOMON_MMU_INTERVAL_NOTIFIER_H
#define GNOMON_MMU_INTERVAL_NOTIFIER_H

#include <gnomon/decls.h>
#include <gnomon/mmu_notifier.h>

GNOMON_BEGIN_DECLS

struct mmu_interval_notifier;
struct mmu_interval_notifier_finish;

struct mmu_interval_notifier_ops {
	/*
	 * A window opens that overlaps the interval. On return nothing goes through secondary
	 * mappings of @range any more. Calls mmu_interval_set_seq(@interval_sub, @cur_seq), under
	 * the lock under which mmu_interval_read_retry() is called, whatever else it does. May
	 * sleep if the range is blockable; if it is not, and it would have to: false, nothing else
	 * is. There is no end: read_begin waits for that.
	 */
	bool (*invalidate)(struct mmu_interval_notifier *interval_sub,
			   const struct mmu_notifier_range *range, unsigned long cur_seq);

	/*
	 * Optional, and then both, and they are called instead: an invalidation in two passes. The
	 * first does as invalidate, but may leave the waiting (for a flush, for an engine to stop)
	 * to the second: it sets *@finish to a token of its own, one for each call, as windows
	 * overlap. The second passes come when all first ones of the window are through, in their
	 * order, and even if one of those returned false. *@finish left NULL: nothing to wait for.
	 * After false there is no second pass. Neither sleeps in a range that is not blockable.
	 */
	bool (*invalidate_start)(struct mmu_interval_notifier *interval_sub,
				 const struct mmu_notifier_range *range, unsigned long cur_seq,
				 struct mmu_interval_notifier_finish **finish);
	/* Waits; the token is the driver's again. @finish->notifier is whose it is. */
	void (*invalidate_finish)(struct mmu_interval_notifier_finish *finish);
};

/* Embed this in whatever the second pass has to know. */
struct mmu_interval_notifier_finish {
	struct mmu_interval_notifier_finish *next;
	struct mmu_interval_notifier *notifier;
};

/* A node of the tree of notifier/interval_tree.h. The links are those of <bsd/sys/tree.h>. */
struct interval_tree_node {
	struct {
		struct interval_tree_node *rbe_left, *rbe_right, *rbe_parent;
		int rbe_color;
	} rb;
	uint64_t start, last; /* both inclusive */
	uint64_t subtree_last;
};

/* Embed this; fields are the core's. */
struct mmu_interval_notifier {
	struct interval_tree_node interval_tree;
	const struct mmu_interval_notifier_ops *ops;
	struct mm_struct *mm; /* from insert to remove, which hold an mm_count */
	struct mmu_interval_notifier *next_deferred, **pprev_deferred;
	bool in_tree; /* this and the deferral: under the subscriptions' lock */
	/* Stored under the driver's lock; see mmu_interval_set_seq(). */
	unsigned long invalidate_seq;
};

/*
 * Subscribe to [start, start + length) of @mm. mm_users is pinned for the duration; callbacks may
 * begin before this returns. May return with a window open that overlaps the interval:
 * mmu_interval_read_begin() knows. -EOVERFLOW (@length is 0, or the end wraps), -EINVAL and a
 * warning (nobody uses the mm, or ops have one of the two passes without the other, or no
 * callback), errors of mmu_notifier_register(). Takes mmap_lock for writing, or, _locked, needs it
 * held so.
 */
int mmu_interval_notifier_insert(struct mmu_interval_notifier *interval_sub, struct mm_struct *mm,
				 hva_t start, uint64_t length,
				 const struct mmu_interval_notifier_ops *ops)
	__attribute__((warn_unused_result));
int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *interval_sub,
					struct mm_struct *mm, hva_t start, uint64_t length,
					const struct mmu_interval_notifier_ops *ops)
	__attribute__((warn_unused_result));

/*
 * After it returns no callback of @interval_sub runs or will run. Sleeps: waits for open windows of
 * the mm, so not from a callback, nor under a lock that callbacks or whoever invalidates may take.
 */
void mmu_interval_notifier_remove(struct mmu_interval_notifier *interval_sub);

/* A sequence for read_retry, outside of any window over the interval: waits for one to end. */
unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *interval_sub);

/* In invalidate, under the driver's lock. */
static inline void mmu_interval_set_seq(struct mmu_interval_notifier *interval_sub,
					unsigned long cur_seq)
{
	__atomic_store_n(&interval_sub->invalidate_seq, cur_seq, __ATOMIC_RELAXED);
}

/*
 * Has the interval been invalidated since read_begin returned @seq? Exact under the lock that
 * invalidate holds around mmu_interval_set_seq(): false, and what was looked up may be used for as
 * long as that lock is held.
 */
static inline bool mmu_interval_read_retry(struct mmu_interval_notifier *interval_sub,
					   unsigned long seq)
{
	return __atomic_load_n(&interval_sub->invalidate_seq, __ATOMIC_RELAXED) != seq;
}

/* The same without the lock: only true means something. To give up early. */
static inline bool mmu_interval_check_retry(struct mmu_interval_notifier *interval_sub,
					    unsigned long seq)
{
	return __atomic_load_n(&interval_sub->invalidate_seq, __ATOMIC_RELAXED) != seq;
}

GNOMON_END_DECLS

#endif
