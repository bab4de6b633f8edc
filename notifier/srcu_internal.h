/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of SRCU share: the control block of a domain, who owns each field, and the cookie.
 *
 *   srcu.c		the calls of the API, readers out of line
 *   srcu_slots.c	where readers count; thread numbers; the heavy barrier
 *   srcu_gp.c		grace periods, and the argument for the order of everything
 *   srcu_callback.c	call_srcu, the worker, srcu_barrier
 *   srcu_domain.c	where control blocks come from and go to; init, cleanup, fork
 *   srcu_track.c	debug builds: which thread is inside which domain
 *
 * Locks, outermost first: srcu_worker.control, srcu_pool.lock; d->cb_run, which is held while
 * callbacks run, and whatever those take; then d->gp_lock, a leaf, of which nobody takes two.
 */
#ifndef NOTIFIER_SRCU_INTERNAL_H
#define NOTIFIER_SRCU_INTERNAL_H

#include <stddef.h>

#include <gnomon/srcu.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/wait.h"

#define SRCU_DOMAIN_BITS 12
#define SRCU_MAX_DOMAINS (1u << SRCU_DOMAIN_BITS)
#define SRCU_MAX_THREADS 4096u /* that count for themselves; all others share one set of counts */

/* How long to hope that a reader is about to leave: about what a sleep and a wake-up cost. */
#define SRCU_SPIN_NS 20000

/* How long callbacks gather behind a batch: some thousand calls, or ten times a grace period. */
#define SRCU_NAP_US 100

/*
 * Sections entered and left by index, of one domain by one thread. Never reset; an index is empty
 * when the sums over all threads are equal. Separate, not one net count, as a section may be left
 * on another thread, and so that a scan cannot add up a lock and the unlock of another section.
 */
struct srcu_counts {
	uint64_t lock[2], unlock[2];
};

_Static_assert(offsetof(struct srcu_counts, unlock) == __SRCU_UNLOCK, "readers know it");

/* Half a scan of a domain: see srcu_scan_begin(). */
struct srcu_scan {
	unsigned long seq; /* the grace period that is scanned for */
	uint64_t unlocks[2];
	bool arm;
	unsigned int idx; /* that was not current */
	bool armed;	  /* it */
};

/*
 * The control block. Its memory is a domain for ever (srcu_domain.c): an unlock may still read it,
 * and wake somebody, after the section that it ended let a cleanup through. So whoever owns the
 * block by then takes a wake-up for no reason in his stride, and nothing here is initialised twice.
 */
struct srcu_domain {
	uint32_t number;	 /* constant: where the counts are */
	struct srcu_struct *ssp; /* the owner's; ssp->cur changes under gp_lock */

	/*
	 * Grace periods. gp_seq is odd while one runs; stored under gp_lock, loaded anywhere. need:
	 * the indexes that were not yet seen empty since it began, a bit each.
	 */
	spinlock_t gp_lock;
	unsigned int need;
	unsigned long gp_seq;
	wait_queue_head_t gp_wait;

	/*
	 * Callbacks, in order: batch (oldest), then the queue, from cb_first.next to cb_tail.
	 * Anyone appends to the queue, without a lock; the holder of cb_run takes from it.
	 */
	struct srcu_head *cb_tail __attribute__((aligned(64))); /* &cb_first: empty */
	struct srcu_head cb_first;
	uint32_t cb_busy; /* somebody knows that there are callbacks, and they have not all run */

	/* Not on the line of who queues: it is stored to for each callback that is run. */
	struct mutex cb_run __attribute__((aligned(64))); /* the batch, and to run callbacks */
	struct srcu_head *batch; /* waiting for gp_seq to reach batch_snap */
	unsigned long batch_snap;
	struct srcu_domain *cb_outer; /* who runs them was running those of this one, or NULL */
	uint32_t worker_waits;	      /* the worker wants to hear of the next wake-up */
	uint32_t kicked;	      /* in the stack of what the worker is to look at, or nearly */
	struct srcu_domain *next_kicked;

	/* The worker's own. */
	bool parked; /* until the next kick */
	struct srcu_domain *next_served;
	struct srcu_scan scan;
	bool scanning;

	struct srcu_domain *next_free; /* under the pool's lock */
	struct lockdep_map dep;	       /* sections are in it; who waits for them visits it */
} __attribute__((aligned(64)));

/*
 * The cookie: | 0 | section:14 | offset:17 |. The offset is that of lock[index] of the domain in
 * the counts of any thread; so a reader needs one word of the domain to lock, and the cookie alone
 * to unlock. The section is the record of srcu_track.c, 0 for none: always in release builds.
 */
#define SRCU_OFFSET_BITS  (SRCU_DOMAIN_BITS + 5)
#define SRCU_SECTION_BITS 14
#define SRCU_MAX_SECTIONS (1u << SRCU_SECTION_BITS)

static inline unsigned int srcu_offset(const struct srcu_domain *d, unsigned int idx)
{
	return d->number * (unsigned int)sizeof(struct srcu_counts) + idx * 8;
}

_Static_assert(__SRCU_MAX_COOKIE == SRCU_MAX_DOMAINS * sizeof(struct srcu_counts), "both know it");

static inline int srcu_cookie(unsigned int section, unsigned int offset)
{
	return (int)(section << SRCU_OFFSET_BITS | offset);
}

static inline unsigned int srcu_cookie_offset(int cookie)
{
	return (unsigned int)cookie & ((1u << SRCU_OFFSET_BITS) - 1);
}

static inline unsigned int srcu_cookie_section(int cookie)
{
	return (unsigned int)cookie >> SRCU_OFFSET_BITS;
}

static inline unsigned int srcu_offset_idx(unsigned int offset)
{
	return offset / 8 % 2;
}

/* By number: those that exist. */
extern struct srcu_domain *srcu_domains[SRCU_MAX_DOMAINS];

/* The index that new readers choose. Only while somebody waits, and so *ssp is alive. */
static inline unsigned int srcu_idx(const struct srcu_domain *d)
{
	return srcu_offset_idx(READ_ONCE(d->ssp->cur));
}

static inline struct srcu_domain *srcu_domain(const struct srcu_struct *ssp)
{
	ASSERT(ssp->d, "srcu_struct %p is not initialised, or was cleaned up", (const void *)ssp);
	return ssp->d;
}

/* ---- srcu_slots.c ---- */

/* Once, before there is a domain. 0 or -ENOMEM. */
int srcu_slots_init(void);

/* Add one to the word at @offset of this thread's counts, or of everybody's. */
void srcu_count_slow(unsigned int offset);

/* Over all threads, both indexes. In this order, with a heavy barrier between; see srcu_gp.c. */
void srcu_sum_unlocks(const struct srcu_domain *d, uint64_t sums[2]);
void srcu_sum_locks(const struct srcu_domain *d, uint64_t sums[2]);

/*
 * A full barrier here, and one in the instruction stream of every other thread of the process, at
 * some moment between the call and its return. It turns their compiler barriers into real ones.
 */
void srcu_heavy_barrier(void);

/* In the child of a fork: for each domain, then once. */
void srcu_slots_forked(const struct srcu_domain *d);
void srcu_numbers_forked(void);

/* Which thread numbers are taken, a bit each. For tests, which cannot have that many threads. */
extern uint64_t srcu_numbers_used[SRCU_MAX_THREADS / 64];

/* ---- srcu_gp.c ---- */

/* The value of gp_seq by which a full grace period has passed from now on. Full barrier. */
unsigned long srcu_snap(struct srcu_domain *d);

/* Has it? An acquire. */
bool srcu_reached(struct srcu_domain *d, unsigned long snap);

/*
 * Move grace periods on as far as they go without waiting, towards @snap. True when there: an
 * acquire. False: a reader is in the way; with @arm its unlock will wake gp_wait (and the worker,
 * if worker_waits). Never sleeps.
 */
bool srcu_advance(struct srcu_domain *d, unsigned long snap, bool arm);

/* The same, waiting. */
void srcu_wait(struct srcu_domain *d, unsigned long snap);

/*
 * The same by halves, for many domains at a time: begin for each, one heavy barrier, end for each.
 * Nothing is held in between. It arms. begin: false if there is nothing to do.
 */
enum srcu_progress {
	SRCU_PASSED,  /* a grace period ended */
	SRCU_AGAIN,   /* there is more to do without waiting */
	SRCU_BLOCKED, /* the next unlock wakes */
};

bool srcu_scan_begin(struct srcu_domain *d, unsigned long snap, struct srcu_scan *scan);
enum srcu_progress srcu_scan_end(struct srcu_domain *d, struct srcu_scan *scan);

/* To be called after SRCU_PASSED. */
void srcu_tell_waiters(struct srcu_domain *d);

/* Is anybody inside, in either index? Exact only if nobody can enter. */
bool srcu_readers_active(struct srcu_domain *d);

void srcu_gp_forked(struct srcu_domain *d);

/* ---- srcu_callback.c ---- */

void srcu_callbacks_init(struct srcu_domain *d);
void srcu_callbacks_forked(struct srcu_domain *d);
void srcu_worker_forked(void);

/* Have all callbacks that were queued returned? An acquire. */
bool srcu_callbacks_idle(struct srcu_domain *d);

/* Is the calling thread inside a callback of @d? It may be in one of another domain by now. */
bool srcu_runs_callbacks(const struct srcu_domain *d);

/* Tell the worker, if one runs in this process, to look at @d. Takes no lock: signal handlers. */
void srcu_worker_kick(struct srcu_domain *d);

/* The same, if the worker asked for it. */
void srcu_worker_notify(struct srcu_domain *d);

/* ---- srcu_domain.c ---- */

/* Every control block that exists, in use or not. Sleeps. */
void srcu_for_each_domain(void (*fn)(struct srcu_domain *d));

/* ---- srcu_track.c ---- */

#ifdef CONFIG_LOCKDEP

/* A record for a section that the calling thread enters; 0 if there is no room. */
unsigned int srcu_track_lock(struct srcu_domain *d, unsigned int offset);
/* BUG unless @cookie is that of an open section of @d. From any thread. */
void srcu_track_unlock(struct srcu_domain *d, int cookie);
/* Is the calling thread inside @d? Sections that found no room are answered with @unknown. */
bool srcu_track_held(const struct srcu_domain *d, bool unknown);
/* In the child of a fork: the sections of other threads are gone. */
void srcu_track_forked(void);

#else

static inline void srcu_track_forked(void)
{
}

static inline unsigned int srcu_track_lock(struct srcu_domain *d, unsigned int offset)
{
	(void)d, (void)offset;
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
