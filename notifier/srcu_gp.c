// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * SRCU grace periods. The order of everything is argued here; names in [brackets] stand at both
 * ends of each pairing. M is srcu_heavy_barrier(): a full barrier here and, at some moment during
 * it, one in every other thread. So each thread's instructions are cut in two, before its barrier
 * and after it, and a compiler barrier there is as good as a full one against M here. Readers that
 * use locked instructions instead have their full barriers themselves, and need only the one here.
 *
 * A grace period has to see each index *empty* once after it began, at any two moments, whoever
 * looks: all unlocks summed; M; all locks summed, and the sums equal.
 *
 * [count] A section that is in the unlock sum is in the lock sum: its lock came before its unlock
 *    (on another thread too: the hand-over orders them), we saw the unlock, and M forces the lock
 *    out before we sum. So equal sums mean that every section counted as entered has left. In the
 *    other order a section can slip in and out between the sums, and its unlock stand in for that
 *    of an older one that is still inside:
 *
 *	reader A		reader B		scan, wrong way round
 *	lock (1)
 *							sum of locks: 1
 *				lock (2)
 *				unlock (1)
 *							sum of unlocks: 1, "empty", with A inside
 *
 * [enter] updater: unpublishes p; M; sum of locks. reader: lock++, compiler barrier; loads p. If M
 *    cut the reader before the load, that finds p unpublished; if after, the lock is in the sum.
 *
 * [leave] reader: uses p; compiler barrier, unlock++. scan: sum of unlocks; M; updater: frees p. An
 *    unlock that we saw lies before the cut, and so do the uses before it. This is why M comes
 *    after the unlocks, not before: it must hold back what the reader did, on machines that would
 *    still be doing it.
 *
 * [wake] reader: unlock++, compiler barrier; loads waiting[cookie]. scan: waiting[cookie] = 1; M;
 *    sum of unlocks. Either the scan sees the unlock, or the unlock sees that somebody sleeps.
 *
 * [register] new thread: hi = number + 1; lock++. scan: M; loads hi; sum of locks. A thread whose
 *    lock came before the cut is within hi.
 *
 * [poll] updater: unpublishes p; full barrier and load of gp_seq in one (srcu_snap). grace period:
 *    gp_seq odd, full barrier; sums. Who found gp_seq even had unpublished p before those sums;
 *    who found it odd asks for the grace period after this one.
 *
 * Why two indexes: readers that follow each other closely keep one index busy for ever. So the scan
 * looks at the index that is not current, which drains; then it makes that one current, and the
 * other drains. New readers never delay a grace period. Which index a reader chose does not matter
 * for safety: one that loaded cur long ago and counts only now is met by [enter] like any other.
 *
 * Cost, in M: one when nobody is inside, two when somebody is, one more to go to sleep.
 */
#include "notifier/srcu_internal.h"

#include <time.h>

unsigned long srcu_snap(struct srcu_domain *d)
{
	/* [poll]. If one runs, it may have begun too early for us: the one after it. */
	return (__atomic_fetch_add(&d->gp_seq, 0, __ATOMIC_SEQ_CST) + 3) & ~1UL;
}

static bool reached(unsigned long seq, unsigned long snap)
{
	return (long)(seq - snap) >= 0;
}

bool srcu_reached(struct srcu_domain *d, unsigned long snap)
{
	/* [leave], through whoever ran the grace period. Pairs with the store in scan_end(). */
	return reached(smp_load_acquire(&d->gp_seq), snap);
}

/* ---- a scan; gp_lock held in each half, but not between ---- */

static void disarm(struct srcu_domain *d)
{
	for (unsigned int idx = 0; idx < 2; idx++)
		WRITE_ONCE(__srcu_waiting[srcu_offset(d, idx)], 0);
}

static void scan_begin(struct srcu_domain *d, struct srcu_scan *scan, bool arm)
{
	unsigned int old = !srcu_idx(d);

	if (!(READ_ONCE(d->gp_seq) & 1)) {
		/* [poll]: full barrier between this and the sums. */
		xchg(&d->gp_seq, READ_ONCE(d->gp_seq) + 1);
		d->need = 3;
	}
	scan->idx = old;
	scan->seq = READ_ONCE(d->gp_seq);
	scan->arm = arm;
	scan->armed = arm && d->need & 1u << old;
	/* [wake], with the load in the unlock. */
	if (scan->armed)
		xchg(&__srcu_waiting[srcu_offset(d, old)], 1);
	srcu_sum_unlocks(d, scan->unlocks);
}

static enum srcu_progress scan_end(struct srcu_domain *d, struct srcu_scan *scan)
{
	unsigned int old;
	uint64_t locks[2];

	/* Others ended the grace period meanwhile, and may even have cleaned the domain up. */
	if (READ_ONCE(d->gp_seq) != scan->seq)
		return SRCU_AGAIN;

	old = !srcu_idx(d);
	srcu_sum_locks(d, locks);
	for (unsigned int idx = 0; idx < 2; idx++)
		if (scan->unlocks[idx] == locks[idx])
			d->need &= ~(1u << idx);
	if (!d->need) {
		disarm(d);
		smp_store_release(&d->gp_seq, scan->seq + 1);
		return SRCU_PASSED;
	}
	if (!(d->need & 1u << old)) {
		/* Only the current one is busy: send new readers to the other. */
		WRITE_ONCE(d->ssp->cur, srcu_offset(d, old));
		return SRCU_AGAIN;
	}
	if (!scan->arm)
		return SRCU_BLOCKED;
	if (!scan->armed || scan->idx != old)
		return SRCU_AGAIN;
	/*
	 * May we sleep? The unlocks of the first half came before M, so they do not count for
	 * [wake]. If these differ from the locks, then by an unlock that comes after the cut, and
	 * so finds waiting armed: one that is not here yet, or one that is, but whose lock came too
	 * late for the other sum.
	 */
	srcu_sum_unlocks(d, scan->unlocks);
	return scan->unlocks[old] == locks[old] ? SRCU_AGAIN : SRCU_BLOCKED;
}

/* Without M this proves nothing; but while it is false, M would be paid for in vain. */
static bool looks_worth_it(struct srcu_domain *d)
{
	uint64_t unlocks[2], locks[2];

	srcu_sum_unlocks(d, unlocks);
	srcu_sum_locks(d, locks);
	return (d->need & 1 && unlocks[0] == locks[0]) || (d->need & 2 && unlocks[1] == locks[1]);
}

void srcu_tell_waiters(struct srcu_domain *d)
{
	wake_up_all(&d->gp_wait);
	srcu_worker_notify(d);
}

bool srcu_advance(struct srcu_domain *d, unsigned long snap, bool arm)
{
	enum srcu_progress progress = SRCU_AGAIN;
	bool finished = false, done;

	if (srcu_reached(d, snap))
		return true;

	/* Held over M: who comes to this domain meanwhile would only pay for another. */
	spin_lock(&d->gp_lock);
	while (!(done = reached(READ_ONCE(d->gp_seq), snap)) && progress != SRCU_BLOCKED) {
		struct srcu_scan scan;

		if (READ_ONCE(d->gp_seq) & 1 && !arm && !looks_worth_it(d))
			break;
		scan_begin(d, &scan, arm);
		srcu_heavy_barrier();
		progress = scan_end(d, &scan);
		finished |= progress == SRCU_PASSED;
	}
	spin_unlock(&d->gp_lock);

	if (finished)
		srcu_tell_waiters(d);
	return done;
}

bool srcu_scan_begin(struct srcu_domain *d, unsigned long snap, struct srcu_scan *scan)
{
	bool wanted;

	spin_lock(&d->gp_lock);
	wanted = !reached(READ_ONCE(d->gp_seq), snap);
	if (wanted)
		scan_begin(d, scan, true);
	spin_unlock(&d->gp_lock);
	return wanted;
}

enum srcu_progress srcu_scan_end(struct srcu_domain *d, struct srcu_scan *scan)
{
	enum srcu_progress progress;

	spin_lock(&d->gp_lock);
	progress = scan_end(d, scan);
	spin_unlock(&d->gp_lock);
	return progress;
}

bool srcu_readers_active(struct srcu_domain *d)
{
	uint64_t unlocks[2], locks[2];

	srcu_sum_unlocks(d, unlocks);
	srcu_heavy_barrier();
	srcu_sum_locks(d, locks);
	return unlocks[0] != locks[0] || unlocks[1] != locks[1];
}

/* ---- waiting ---- */

static uint64_t now_ns(void)
{
	struct timespec now;

	sync_clock(&now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void srcu_wait(struct srcu_domain *d, unsigned long snap)
{
	uint64_t end;

	if (srcu_advance(d, snap, false))
		return;
	end = now_ns() + SRCU_SPIN_NS;
	do {
		cpu_relax();
		if (srcu_advance(d, snap, false))
			return;
	} while (now_ns() < end);
	wait_event(d->gp_wait, srcu_advance(d, snap, true));
}

/* The child: other threads' locks and waits are gone; a grace period that ran starts over. */
void srcu_gp_forked(struct srcu_domain *d)
{
	spin_lock_init(&d->gp_lock);
	init_waitqueue_head(&d->gp_wait);
	disarm(d);
	d->need = 3;
}
