// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Debug builds: which thread is inside which domain, and whether a cookie is good.
 *
 * Each section is a record: one word that names its thread, domain and index, and whose number is
 * in the cookie. So an unlock finds the record from whatever thread, and a section that another
 * thread ended is off the books of the one that began it. A thread finds its own by looking where
 * it would put them: a bucket that the pair (thread, domain) hashes to.
 *
 * Relaxed atomics, no lock: anything stronger would order readers and updaters behind SRCU's back,
 * and hide from ThreadSanitizer a barrier that is missing elsewhere.
 */
#include "notifier/srcu_internal.h"

#ifdef CONFIG_LOCKDEP

#include "notifier/sync/thread.h"

#define BUCKET	   16u
#define NR_BUCKETS (SRCU_MAX_SECTIONS / BUCKET)

/* | thread:47 | offset:17 |, 0 for a free one. Record 0 is never used. */
static uint64_t records[SRCU_MAX_SECTIONS];

/* Some section was not recorded, for want of room: from then on "not inside" is a guess. */
static bool lost_track;

static uint64_t record_of(unsigned int offset)
{
	return thread_id() << SRCU_OFFSET_BITS | offset;
}

static unsigned int bucket_of(const struct srcu_domain *d)
{
	uint64_t hash = (thread_id() << SRCU_DOMAIN_BITS | d->number) * 0x9e3779b97f4a7c15ULL;

	return (unsigned int)(hash >> 32) % NR_BUCKETS * BUCKET;
}

unsigned int srcu_track_lock(struct srcu_domain *d, unsigned int offset)
{
	unsigned int first = bucket_of(d);

	for (unsigned int i = first; i < first + BUCKET; i++) {
		uint64_t free = 0;

		if (i && __atomic_compare_exchange_n(&records[i], &free, record_of(offset), false,
						     __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			lockdep_section_enter(&d->dep, &records[i], record_of(offset),
					      LOCK_SITE_OF("srcu_read_lock"));
			return i;
		}
	}
	WRITE_ONCE(lost_track, true);
	return 0;
}

void srcu_track_unlock(struct srcu_domain *d, int cookie)
{
	const uint64_t mask = (1u << SRCU_OFFSET_BITS) - 1;
	uint64_t want = srcu_cookie_offset(cookie);
	unsigned int section = srcu_cookie_section(cookie);
	uint64_t found;

	if (!section)
		return;
	lockdep_section_leave(&records[section]);
	found = __atomic_exchange_n(&records[section], 0, __ATOMIC_RELAXED);
	ASSERT(found && (found & mask) == want,
	       "unlock of domain %u with cookie %#x, which is not that of an open section: "
	       "unlocked twice?",
	       d->number, (unsigned int)cookie);
}

bool srcu_track_held(const struct srcu_domain *d, bool unknown)
{
	unsigned int first = bucket_of(d);

	for (unsigned int i = first; i < first + BUCKET; i++) {
		uint64_t record = READ_ONCE(records[i]);

		if (record == record_of(srcu_offset(d, 0)) ||
		    record == record_of(srcu_offset(d, 1)))
			return true;
	}
	return READ_ONCE(lost_track) && unknown;
}

void srcu_track_forked(void)
{
	for (unsigned int i = 0; i < SRCU_MAX_SECTIONS; i++)
		if (records[i] && records[i] >> SRCU_OFFSET_BITS != thread_id())
			records[i] = 0;
}

#endif /* CONFIG_LOCKDEP */
