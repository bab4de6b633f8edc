/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal at each place that looks for one, in turn. All of them are in notifier/mm_locks.c, which
 * is part of the test that includes this, with a signal_pending() that counts.
 */
#ifndef TESTS_SUPPORT_INTERRUPT_H
#define TESTS_SUPPORT_INTERRUPT_H

#include <gnomon/signal.h>

/* Of this thread: how often it has looked, and the look that finds a signal; -1: none. */
static __thread int nr_looks, signal_at = -1;

static inline bool look_for_signal(void)
{
	return signal_at == nr_looks++ || signal_pending();
}

#define signal_pending() look_for_signal()
#include "notifier/mm_locks.c"
#undef signal_pending

static inline void interrupt_at(int look)
{
	nr_looks = 0;
	signal_at = look;
}

#endif
