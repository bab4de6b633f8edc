// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The calls of SRCU: readers out of line, and the doors to grace periods. Readers that have counts
 * of their own are inline, in <gnomon/srcu_reader.h>; the order of everything is argued in
 * srcu_gp.c.
 *
 * Out of line go readers in debug builds, which are tracked; the first section of a thread, which
 * registers it; and threads that cannot be registered.
 */
#include "notifier/srcu_internal.h"

/* ---- readers ---- */

static int enter(struct srcu_domain *d, bool track)
{
	unsigned int offset = READ_ONCE(d->ssp->cur);
	unsigned int section = track ? srcu_track_lock(d, offset) : 0;

	/* [enter] */
	srcu_count_slow(offset);
	return srcu_cookie(section, offset);
}

static void leave(struct srcu_domain *d, int cookie)
{
	unsigned int offset = srcu_cookie_offset(cookie);

	ASSERT(cookie >= 0 && (offset & ~8u) == srcu_offset(d, 0),
	       "unlock of domain %u with cookie %#x, which is not of this domain", d->number,
	       (unsigned int)cookie);
	srcu_track_unlock(d, cookie);
	/* [leave], [count]. From here on the srcu_struct may be gone, d not. */
	srcu_count_slow(offset + __SRCU_UNLOCK);
	/* [wake], with the exchange in scan_begin(). */
	if (unlikely(READ_ONCE(__srcu_waiting[offset])))
		__srcu_wake((int)offset);
}

int __srcu_read_lock_slow(struct srcu_struct *ssp)
{
	return enter(srcu_domain(ssp), true);
}

void __srcu_read_unlock_slow(struct srcu_struct *ssp, int cookie)
{
	leave(srcu_domain(ssp), cookie);
}

int srcu_down_read(struct srcu_struct *ssp)
{
	return enter(srcu_domain(ssp), false);
}

void srcu_up_read(struct srcu_struct *ssp, int cookie)
{
	leave(srcu_domain(ssp), cookie);
}

uint8_t __srcu_waiting[__SRCU_MAX_COOKIE];

void __srcu_wake(int cookie)
{
	/*
	 * Disarm, so that the next unlock has nothing to do, and let everyone who waits look again
	 * and arm it again. What we disarm may be a later grace period's, even a later owner's: the
	 * wake-ups below reach whoever armed it, so nothing is lost.
	 */
	xchg(&__srcu_waiting[cookie], 0);
	srcu_tell_waiters(srcu_domains[(unsigned int)cookie / sizeof(struct srcu_counts)]);
}

bool srcu_read_lock_held(const struct srcu_struct *ssp)
{
	return srcu_track_held(srcu_domain(ssp), true);
}

/* ---- updaters ---- */

void synchronize_srcu(struct srcu_struct *ssp)
{
	struct srcu_domain *d = srcu_domain(ssp);

	might_sleep();
	srcu_assert_not_reader(d, "synchronize_srcu()");
	srcu_wait(d, srcu_snap(d));
}

/* Polled: whoever asks drives, so that no worker is needed. */

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
