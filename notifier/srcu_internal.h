/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of SRCU share: the control block of a domain, who owns each field, and the cookie.
 *
 *   srcu.c		readers and grace periods
 *   srcu_callback.c	call_srcu, the worker, srcu_barrier
 *   srcu_domain.c	where control blocks come from and go to; init and cleanup
 *   srcu_track.c	debug builds: which thread is inside which domain
 *
 * Locks, outermost first: srcu_worker.control, srcu_pool.lock; d->cb_run; then the leaves
 * d->cb_lock, d->gp_lock, srcu_worker.lock, of which nobody takes two.
 */
#ifndef NOTIFIER_SRCU_INTERNAL_H
#define NOTIFIER_SRCU_INTERNAL_H

#include <gnomon/srcu.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

/* d->waiting: no grace period sleeps. Else the index whose next unlock must wake. */
#define SRCU_NOBODY 2u

/*
 * The control block. Its memory is a domain for ever (srcu_domain.c): an unlock may still read it,
 * and wake somebody, after the section that it ended let a cleanup through. So whoever owns the
 * block by then takes a wake-up for no reason in his stride, and nothing here is initialised twice.
 */
struct srcu_domain {
	/*
	 * The readers' line. Counts of sections entered and left by index, never reset; equal means
	 * that nobody is inside. Separate, not one net count, so that a scan cannot add up a lock
	 * and the unlock of another section.
	 */
	atomic64_t nr_lock[2];
	atomic64_t nr_unlock[2];
	uint32_t cur;	  /* index for new readers; changed under gp_lock */
	uint32_t waiting; /* armed under gp_lock, disarmed by anyone who then wakes everyone */
	uint32_t number;  /* constant: names the domain in cookies */

	/*
	 * Grace periods. gp_seq is odd while one runs; stored under gp_lock, loaded anywhere. need:
	 * the indexes that were not yet seen empty since it began, a bit each.
	 */
	spinlock_t gp_lock __attribute__((aligned(64)));
	unsigned int need;
	unsigned long gp_seq;
	wait_queue_head_t gp_wait;

	/* Callbacks, in order: batch (oldest), then queue. */
	spinlock_t cb_lock;	 /* the queue */
	struct mutex cb_run;	 /* the batch, and the right to run callbacks */
	struct srcu_head *queue; /* waiting for a grace period to begin */
	struct srcu_head **queue_tail;
	struct srcu_head *batch; /* waiting for gp_seq to reach batch_snap */
	unsigned long batch_snap;
	atomic64_t nr_callbacks;    /* queued by call_srcu and not yet returned */
	wait_queue_head_t cb_wait;  /* srcu_barrier */
	uint32_t worker_waits;	    /* the worker wants to hear of the next wake-up */
	struct list_head work_link; /* in one of the worker's lists; under its lock */

	struct srcu_domain *next_free; /* under the pool's lock */
	struct lockdep_map dep;	       /* sections are in it; who waits for them visits it */
} __attribute__((aligned(64)));

/*
 * The cookie: | 0 | section:14 | domain:16 | index:1 |. The domain makes an unlock with another
 * domain's cookie a BUG in every build. The section is the record of srcu_track.c, 0 for none:
 * always in release builds.
 */
#define SRCU_DOMAIN_BITS  16
#define SRCU_SECTION_BITS 14

#define SRCU_MAX_DOMAINS  (1u << SRCU_DOMAIN_BITS)
#define SRCU_MAX_SECTIONS (1u << SRCU_SECTION_BITS)

static inline int srcu_cookie(unsigned int section, unsigned int number, unsigned int idx)
{
	return (int)(section << (SRCU_DOMAIN_BITS + 1) | number << 1 | idx);
}

static inline unsigned int srcu_cookie_idx(int cookie)
{
	return (unsigned int)cookie & 1;
}

static inline unsigned int srcu_cookie_domain(int cookie)
{
	return (unsigned int)cookie >> 1 & (SRCU_MAX_DOMAINS - 1);
}

static inline unsigned int srcu_cookie_section(int cookie)
{
	return (unsigned int)cookie >> (SRCU_DOMAIN_BITS + 1);
}

static inline struct srcu_domain *srcu_domain(const struct srcu_struct *ssp)
{
	ASSERT(ssp->d, "srcu_struct %p is not initialised, or was cleaned up", (const void *)ssp);
	return ssp->d;
}

/* ---- srcu.c ---- */

/* The value of gp_seq by which a full grace period has passed from now on. Full barrier. */
unsigned long srcu_snap(struct srcu_domain *d);

/*
 * Move grace periods on as far as they go without waiting, towards @snap. True when there: an
 * acquire. False: a reader is in the way; with @arm its unlock will wake gp_wait (and the worker,
 * if worker_waits). Never sleeps.
 */
bool srcu_advance(struct srcu_domain *d, unsigned long snap, bool arm);

/* The same, waiting. */
void srcu_wait(struct srcu_domain *d, unsigned long snap);

/* Is anybody inside, in either index? Exact only if nobody can enter. */
bool srcu_readers_active(struct srcu_domain *d);

/* ---- srcu_callback.c ---- */

void srcu_callbacks_init(struct srcu_domain *d);

/* Tell the worker to look at @d. False if no worker runs in this process. Never sleeps. */
bool srcu_worker_kick(struct srcu_domain *d);

/* The same, if the worker asked for it. */
void srcu_worker_notify(struct srcu_domain *d);

/* ---- srcu_domain.c ---- */

/* Every control block that exists, in use or not. Sleeps. */
void srcu_for_each_domain(void (*fn)(struct srcu_domain *d));

/* ---- srcu_track.c ---- */

#ifdef CONFIG_LOCKDEP

/* A record for a section that the calling thread enters; 0 if there is no room. */
unsigned int srcu_track_lock(struct srcu_domain *d, unsigned int idx);
/* BUG unless @cookie is that of an open section of @d. From any thread. */
void srcu_track_unlock(struct srcu_domain *d, int cookie);
/* Is the calling thread inside @d? Sections that found no room are answered with @unknown. */
bool srcu_track_held(const struct srcu_domain *d, bool unknown);

#else

static inline unsigned int srcu_track_lock(struct srcu_domain *d, unsigned int idx)
{
	(void)d, (void)idx;
	return 0;
}

static inline void srcu_track_unlock(struct srcu_domain *d, int cookie)
{
	(void)d, (void)cookie;
}

static inline bool srcu_track_held(const struct srcu_domain *d, bool unknown)
{
	(void)d;
	return unknown;
}

#endif

/* For what waits for readers of @d, called @what: this thread must not be one of them. */
static inline void srcu_assert_not_reader(struct srcu_domain *d, const char *what)
{
	ASSERT(!srcu_track_held(d, false),
	       "%s by a thread that is inside a read section of the same domain (%u): it would "
	       "wait for itself",
	       what, d->number);
	lock_map_visit(&d->dep);
}

#endif
