/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a window that nobody watches is measured by: the cheapest thing that would say "do not
 * change this now".
 */
#define _LGPL_SOURCE
#define URCU_API_MAP
#include <urcu/urcu-memb.h>

#include "tests/bench/notifier.h"

NOTIFIER_WINDOWS(pairs, rcu_read_lock(), rcu_read_unlock())

static void registered_pairs(uint64_t n)
{
	rcu_register_thread();
	pairs(n);
	rcu_unregister_thread();
}

const struct notifier_op notifier_urcu = {registered_pairs};
