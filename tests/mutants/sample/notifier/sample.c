// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What check-mutants plants faults in: a line for most of the rules, and spin_lock(&comments) that
 * must not count.
 */
#include "notifier/sample.h"

#define READ_ONCE(x)	    __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define smp_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)

static void spin_lock(int *lock)
{
	while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE))
		;
}

static void spin_unlock(int *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

bool sample_add(struct sample *s, int n)
{
	bool odd;

	if (n < 0 || n > 1000)
		return false; /* the test does not try: a fault here survives */
	spin_lock(&s->lock);
	s->total += n;
	s->calls++;
	odd = s->calls & 1;
	spin_unlock(&s->lock);
	if (odd)
		s->state = 1; /* "s->state = 2;" in a string or a comment is none */
	return true;
}

long sample_total(struct sample *s)
{
	return smp_load_acquire(&s->total);
}
