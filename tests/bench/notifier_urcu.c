/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a window that nobody watches is measured by: the cheapest thing that would say "do not
 * change this now".
 */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-memb.h>

#include "tests/bench/notifier.h"

static __attribute__((noinline)) void pairs(uint64_t n)
{
	rcu_register_thread();
	for (uint64_t i = 0; i < n; i++) {
		rcu_read_lock();
		bench_barrier();
		rcu_read_unlock();
		bench_barrier();
	}
	rcu_unregister_thread();
}

const struct notifier_op notifier_urcu = {pairs};
