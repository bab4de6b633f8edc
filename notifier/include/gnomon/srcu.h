/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sleepable RCU: independent domains, readers that may sleep, kernel names and contracts (kernel:
 * kernel/rcu/srcutree.c, Documentation/RCU). What differs from the kernel is listed in
 * docs/srcu.md.
 *
 * A reader of one domain never delays another domain (I7). A section may be unlocked by another
 * thread than the one that locked it, if the cookie is handed over through something that orders
 * the two (a lock, an atomic release/acquire).
 */
#ifndef GNOMON_SRCU_H
#define GNOMON_SRCU_H

#include <stdint.h>

#include <gnomon/decls.h>
#include <gnomon/types.h>

GNOMON_BEGIN_DECLS

struct srcu_domain; /* type-stable: never unmapped, so a late unlock may still touch it */

/* Private. Stays where it was initialised: the library writes to it. */
struct srcu_struct {
	struct srcu_domain *d; /* NULL before init and after cleanup */
	uint32_t cur;	       /* the cookie for new sections: where the domain's counts are */
};

/* Our name for what the kernel calls struct rcu_head: liburcu owns that name, and both headers must
 * fit in one file. */
struct srcu_head {
	struct srcu_head *next;
	void (*func)(struct srcu_head *head);
};

/* 0, or -ENOMEM: also if there are 4096 of them. */
int init_srcu_struct(struct srcu_struct *ssp);

/*
 * Waits for queued callbacks, then frees the domain. Returns -EBUSY and leaks the domain, after a
 * warning, if a reader is still inside: freeing it under a reader is the caller's bug, and a leak
 * is the lesser harm.
 */
int cleanup_srcu_struct(struct srcu_struct *ssp);

/*
 * Enter a read section. Returns an opaque cookie >= 0 for the matching unlock. May nest, within one
 * domain and across. Never blocks; may be called from a signal handler. A section may sleep; it
 * must not wait for a grace period of its own domain.
 */
static inline int srcu_read_lock(struct srcu_struct *ssp);
static inline void srcu_read_unlock(struct srcu_struct *ssp, int cookie);

/*
 * The same for a section that is handed over for good: debug builds do not count it as one of the
 * thread that began it, which may go on to wait for a grace period of @ssp.
 */
int srcu_down_read(struct srcu_struct *ssp);
void srcu_up_read(struct srcu_struct *ssp, int cookie);

/* Debug builds: is this thread inside a section of @ssp? Release builds: always true, for use in
 * assertions only. */
bool srcu_read_lock_held(const struct srcu_struct *ssp);

/* Wait until every section that began before this call has ended. Sleeps; not from a reader of
 * @ssp. */
void synchronize_srcu(struct srcu_struct *ssp);

/*
 * Run @func(@head) after a grace period. Never sleeps, callable from a reader. Callbacks of one
 * domain run one at a time, in order: on the worker (srcu_workers_start), or on a thread that waits
 * for them in srcu_barrier() or cleanup_srcu_struct() of @ssp, with whatever that thread holds.
 *
 * A callback should not block: there is one worker, and while it is in a callback those of all
 * domains wait that nobody asks for. But nobody who waits for callbacks, readers or grace periods
 * of another domain does.
 */
void call_srcu(struct srcu_struct *ssp, struct srcu_head *head,
	       void (*func)(struct srcu_head *head));

/* Wait until every callback queued on @ssp before this call has *returned*: runs them, too. Not
 * from a reader or a callback of @ssp, nor under a lock that they take. */
void srcu_barrier(struct srcu_struct *ssp);

/* Polled grace periods. A state from start_poll or get_state becomes true in poll once a full grace
 * period has passed since. */
unsigned long get_state_synchronize_srcu(struct srcu_struct *ssp);
unsigned long start_poll_synchronize_srcu(struct srcu_struct *ssp);
bool poll_state_synchronize_srcu(struct srcu_struct *ssp, unsigned long state);

/*
 * The callback worker, one thread for the process, with all signals blocked and the CPUs that the
 * program was started with. Nothing starts it behind your back. start is idempotent and returns 0
 * or -errno; stop runs what is queued, joins the thread and may be followed by another start. Not
 * from a callback. In a forked child no worker runs.
 */
int srcu_workers_start(void);
void srcu_workers_stop(void);

GNOMON_END_DECLS

#include <gnomon/srcu_reader.h>

#endif
