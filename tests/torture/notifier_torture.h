/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the notifier torture: who subscribes, with the checks in their callbacks
 * (notifier_torture_subscribers.c), what threads do at random (notifier_torture_ops.c), and main().
 */
#ifndef TESTS_TORTURE_NOTIFIER_TORTURE_H
#define TESTS_TORTURE_NOTIFIER_TORTURE_H

#include <gnomon/mmu_interval_notifier.h>
#include <gnomon/mmu_notifier.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/lock.h"

#define NR_MMS	  5
#define MM_HVA	  0x100000000UL
#define MM_PAGES  24UL
#define MM_LENGTH (MM_PAGES << PAGE_SHIFT)
#define NR_FRAMES 1024 /* of all of them, and what they move to */

/* What happened. */
struct tally {
	atomic64_t errors;
	atomic64_t callbacks, slept, refused;
	atomic64_t registered, gets, frees, intervals, two_pass, no_release;
	atomic64_t windows, nonblock, zapped, migrated, exits, interrupted, synchronized, aged;
	atomic64_t lookups, retries;
};

/* One of the mms there are at any time. Exit puts another in its place. */
struct world {
	struct mutex lock; /* mm */
	struct mm_struct *mm;
};

struct torture {
	struct phys *phys;
	struct world worlds[NR_MMS];
	atomic_t stop;
	struct tally did;
};

extern struct torture torture;

/* Say what is wrong, once or a few times; the run goes on to its end and fails. */
void torture_error(const char *what, const void *object);

/* Each thread its own: xorshift64*. */
struct rng {
	uint64_t state;
};

static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	rng->state ^= rng->state >> 12;
	rng->state ^= rng->state << 25;
	rng->state ^= rng->state >> 27;
	return (rng->state * 0x2545f4914f6cdd1dUL >> 16) % n;
}

/* ---- notifier_torture_subscribers.c ---- */

enum kind { KEEPS_COUNT, MAY_REFUSE, NR_KINDS };

/* -EINTR is for who asked for it; anything else but 0 is said, and is an error. */
struct subscriber;
int subscriber_register(struct mm_struct *mm, enum kind kind, struct subscriber **subscriber);
/* By unregister; or by unregister_no_release and call_srcu. Frees it, now or later. */
void subscriber_leave(struct subscriber *s, bool wait);

/* The one of each mm that is there from its beginning to its exit, where its windows add up. */
void permanent_register(struct mm_struct *mm);

struct mmu_notifier *shared_get(struct mm_struct *mm, unsigned int family);
void shared_put(struct mmu_notifier *mn);
#define NR_FAMILIES 3

struct interval;
struct interval *interval_insert(struct mm_struct *mm, hva_t start, uint64_t length, bool two_pass);
void interval_remove(struct interval *interval);
/* What a fault handler of the secondary does. The mm has users. */
void interval_fault(struct interval *interval, struct rng *rng);

/* Nothing that was ever allocated is left. */
void subscribers_check(void);

/* ---- notifier_torture_ops.c ---- */

int worlds_create(void);
void worlds_destroy(void);
void torture_thread(void *seed);

#endif
