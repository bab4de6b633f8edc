/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reference counts that saturate: a count that was dropped once too often, or revived from zero,
 * or overflowed, is a bug that is reported once and then leaks the object instead of freeing it
 * under its users.
 */
#ifndef NOTIFIER_SYNC_REFCOUNT_H
#define NOTIFIER_SYNC_REFCOUNT_H

#include <limits.h>
#include <stdbool.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"

typedef struct {
	int refs;
} refcount_t;

/*
 * Far from both ends: every negative count is a saturated one, and 2^30 racing increments or
 * decrements do not bring it back to life.
 */
#define REFCOUNT_SATURATED (INT_MIN / 2)

#define REFCOUNT_INIT(n) ((refcount_t){n})

/* Pin the count of an object whose count was @old before the step that went wrong. */
void refcount_saturate(refcount_t *r, int old, const char *why) __attribute__((cold));

static inline void refcount_set(refcount_t *r, int n)
{
	WRITE_ONCE(r->refs, n);
}

static inline int refcount_read(const refcount_t *r)
{
	return READ_ONCE(r->refs);
}

/* The caller holds a reference already, so no order is needed. */
static inline void refcount_inc(refcount_t *r)
{
	int old = __atomic_fetch_add(&r->refs, 1, __ATOMIC_RELAXED);

	if (unlikely(old <= 0 || old == INT_MAX))
		refcount_saturate(r, old, old == 0 ? "taken from zero" : "overflowed");
}

/* False, and nothing done, if the object is on its way out. */
static inline bool refcount_inc_not_zero(refcount_t *r)
{
	int old = READ_ONCE(r->refs);

	do {
		if (!old)
			return false;
		if (unlikely(old < 0 || old == INT_MAX)) {
			refcount_saturate(r, old, "overflowed");
			return true;
		}
	} while (!try_cmpxchg(&r->refs, &old, old + 1));
	return true;
}

/* True for the one who must free the object: after every other holder's last access. */
static inline bool refcount_dec_and_test(refcount_t *r)
{
	int old = __atomic_fetch_sub(&r->refs, 1, __ATOMIC_ACQ_REL);

	if (likely(old > 1))
		return false;
	if (old == 1)
		return true;
	refcount_saturate(r, old, "dropped below zero");
	return false;
}

struct kref {
	refcount_t refcount;
};

static inline void kref_init(struct kref *kref)
{
	refcount_set(&kref->refcount, 1);
}

static inline void kref_get(struct kref *kref)
{
	refcount_inc(&kref->refcount);
}

static inline bool kref_get_unless_zero(struct kref *kref)
{
	return refcount_inc_not_zero(&kref->refcount);
}

static inline int kref_read(const struct kref *kref)
{
	return refcount_read(&kref->refcount);
}

/* True if this was the last reference, and @release was called. */
static inline bool kref_put(struct kref *kref, void (*release)(struct kref *kref))
{
	if (!refcount_dec_and_test(&kref->refcount))
		return false;
	release(kref);
	return true;
}

#endif
