// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * SRCU readers and grace periods: the plain version, with shared counters and full barriers. The
 * order of everything is argued here; names in [brackets] stand at both ends of each pairing.
 *
 * A grace period has to see each index *empty* once after it began, at any two moments: nr_unlock
 * loaded first, then nr_lock, and the two equal.
 *
 * [count] A section that is in the unlock sum is in the lock sum, because its lock happened before
 *    its unlock (on another thread too: the hand-over orders them) and the unlock was loaded with
 *    acquire. So equal sums mean that every section counted as entered has left. In the other
 *    order a section can slip in and out between the two loads, and its unlock stand in for that
 *    of an older one that is still inside:
 *
 *	reader A		reader B		scan, wrong way round
 *	lock (1)
 *							loads nr_lock: 1
 *				lock (2)
 *				unlock (1)
 *							loads nr_unlock: 1, "empty", with A inside
 *
 * [enter] updater: unpublishes p; full barrier (srcu_snap); gp_seq odd, full barrier; nr_lock.
 *    reader: nr_lock++, full barrier; loads p. A section that the sum missed finds p unpublished;
 *    one that is in the sum is waited for.
 *
 * [leave] reader: uses p; nr_unlock++, release. scan: loads nr_unlock, acquire; updater: frees p.
 *
 * [wake] reader: nr_unlock++, full barrier; loads waiting. scan: waiting = idx, full barrier; sums.
 *    Either the scan sees the unlock, or the unlock sees that somebody sleeps.
 *
 * [poll] updater: unpublishes p; full barrier and load of gp_seq in one (srcu_snap). grace period:
 *    gp_seq odd, full barrier; sums. Who found gp_seq even had unpublished p before those sums;
 *    who found it odd asks for the grace period after this one.
 *
 * Why two indexes: readers that follow each other closely keep one index busy for ever. So the scan
 * looks at the index that is not current, which drains; then it makes that one current, and the
 * other drains. New readers never delay a grace period. Which index a reader chose does not matter
 * for safety: one that loaded cur long ago and increments only now is met by [enter] like any
 * other.
 */
#include "notifier/srcu_internal.h"

#include <time.h>

/* ---- readers ---- */

static int enter(struct srcu_domain *d, bool track)
{
	unsigned int idx = READ_ONCE(d->cur);
	unsigned int section = track ? srcu_track_lock(d, idx) : 0;

	/* [enter], with the full barrier in srcu_snap and gp_start. */
	atomic64_fetch_add(1, &d->nr_lock[idx]);
	smp_mb__after_atomic();
	return srcu_cookie(section, d->number, idx);
}

static void wake_grace_period(struct srcu_domain *d)
{
	/*
	 * Disarm, so that the next unlock has nothing to do, and let everyone who waits look again
	 * and arm it again. What we disarm may be a later grace period's, even a later owner's: the
	 * wake-ups below reach whoever armed it, so nothing is lost.
	 */
	xchg(&d->waiting, SRCU_NOBODY);
	wake_up_all(&d->gp_wait);
	srcu_worker_notify(d);
}

int srcu_read_lock(struct srcu_struct *ssp)
{
	return enter(srcu_domain(ssp), true);
}

int srcu_down_read(struct srcu_struct *ssp)
{
	return enter(srcu_domain(ssp), false);
}

void srcu_read_unlock(struct srcu_struct *ssp, int cookie)
{
	struct srcu_domain *d = srcu_domain(ssp);
	unsigned int idx = srcu_cookie_idx(cookie);

	ASSERT(cookie >= 0 && srcu_cookie_domain(cookie) == d->number,
	       "unlock of domain %u with cookie %#x, which is not of this domain", d->number,
	       (unsigned int)cookie);
	srcu_track_unlock(d, cookie);
	/* [leave] and [count], with the load in empty(). From here on ssp may be gone, d not. */
	atomic64_fetch_add(1, &d->nr_unlock[idx]);
	/* [wake], with the exchange in scan(). */
	smp_mb__after_atomic();
	if (unlikely(READ_ONCE(d->waiting) == idx))
		wake_grace_period(d);
}

void srcu_up_read(struct srcu_struct *ssp, int cookie)
{
	srcu_read_unlock(ssp, cookie);
}

bool srcu_read_lock_held(const struct srcu_struct *ssp)
{
	return srcu_track_held(srcu_domain(ssp), true);
}

/* ---- grace periods ---- */

static bool empty(struct srcu_domain *d, unsigned int idx)
{
	/* [count], [leave]: acquire, and in this order. */
	int64_t unlocks = atomic64_read_acquire(&d->nr_unlock[idx]);

	return atomic64_read(&d->nr_lock[idx]) == unlocks;
}

bool srcu_readers_active(struct srcu_domain *d)
{
	return !empty(d, 0) || !empty(d, 1);
}

unsigned long srcu_snap(struct srcu_domain *d)
{
	/* [enter], [poll]. If one runs, it may have begun too early for us: the one after it. */
	return (__atomic_fetch_add(&d->gp_seq, 0, __ATOMIC_SEQ_CST) + 3) & ~1UL;
}

static bool reached(unsigned long seq, unsigned long snap)
{
	return (long)(seq - snap) >= 0;
}

static void gp_start(struct srcu_domain *d)
{
	/* [enter], [poll]: full barrier between this and the sums. */
	xchg(&d->gp_seq, READ_ONCE(d->gp_seq) + 1);
	d->need = 3;
}

/* Look at the indexes that are still needed; true when none is. gp_lock held. */
static bool scan(struct srcu_domain *d, bool arm)
{
	for (;;) {
		unsigned int cur = d->cur, old = !cur;

		if (empty(d, old))
			d->need &= ~(1u << old);
		if (empty(d, cur))
			d->need &= ~(1u << cur);
		if (!d->need)
			return true;

		if (!(d->need & 1u << old)) {
			/* Only the current one is busy: send new readers to the other. */
			WRITE_ONCE(d->cur, old);
			continue;
		}
		if (!arm)
			return false;
		/* [wake], with the load in srcu_read_unlock. */
		xchg(&d->waiting, old);
		if (!empty(d, old))
			return false;
	}
}

bool srcu_advance(struct srcu_domain *d, unsigned long snap, bool arm)
{
	bool finished = false, done;

	/* Acquire: [leave], through whoever ran the grace period. Pairs with the store below. */
	if (reached(smp_load_acquire(&d->gp_seq), snap))
		return true;

	spin_lock(&d->gp_lock);
	while (!(done = reached(READ_ONCE(d->gp_seq), snap))) {
		if (!(READ_ONCE(d->gp_seq) & 1))
			gp_start(d);
		if (!scan(d, arm))
			break;
		WRITE_ONCE(d->waiting, SRCU_NOBODY);
		smp_store_release(&d->gp_seq, READ_ONCE(d->gp_seq) + 1);
		finished = true;
	}
	spin_unlock(&d->gp_lock);

	if (finished) {
		wake_up_all(&d->gp_wait);
		srcu_worker_notify(d);
	}
	return done;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* How long to hope that a reader is about to leave, before paying for a sleep and a wake-up. */
#define SPIN_NS 10000

void srcu_wait(struct srcu_domain *d, unsigned long snap)
{
	uint64_t end;

	if (srcu_advance(d, snap, false))
		return;
	end = now_ns() + SPIN_NS;
	do {
		cpu_relax();
		if (srcu_advance(d, snap, false))
			return;
	} while (now_ns() < end);
	wait_event(d->gp_wait, srcu_advance(d, snap, true));
}

void synchronize_srcu(struct srcu_struct *ssp)
{
	struct srcu_domain *d = srcu_domain(ssp);

	might_sleep();
	srcu_assert_not_reader(d, "synchronize_srcu()");
	srcu_wait(d, srcu_snap(d));
}

/* ---- polled: whoever asks drives, so that no worker is needed ---- */

unsigned long get_state_synchronize_srcu(struct srcu_struct *ssp)
{
	return srcu_snap(srcu_domain(ssp));
}

unsigned long start_poll_synchronize_srcu(struct srcu_struct *ssp)
{
	struct srcu_domain *d = srcu_domain(ssp);
	unsigned long snap = srcu_snap(d);

	srcu_advance(d, snap, false);
	return snap;
}

bool poll_state_synchronize_srcu(struct srcu_struct *ssp, unsigned long state)
{
	return srcu_advance(srcu_domain(ssp), state, false);
}
