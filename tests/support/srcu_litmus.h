/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* litmus.h, of readers of SRCU: the mark is a count, and who waits does so for a grace period. */
#ifndef TESTS_SUPPORT_SRCU_LITMUS_H
#define TESTS_SUPPORT_SRCU_LITMUS_H

#include <gnomon/srcu.h>

#include "tests/support/litmus.h"

static inline int litmus_lock(void *arg)
{
	return srcu_read_lock(arg);
}

static inline void litmus_unlock(void *arg, int cookie)
{
	srcu_read_unlock(arg, cookie);
}

static inline void srcu_reader(void *arg)
{
	litmus_read(litmus_lock, litmus_unlock, arg);
}

static inline void run_srcu_litmus(struct srcu_struct *ssp, int nr_readers, int64_t want,
				   void (*pass_grace_period)(uint64_t i))
{
	run_litmus(srcu_reader, ssp, nr_readers, want, pass_grace_period);
}

#endif
