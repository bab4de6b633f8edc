/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk without a lock marks its vCPU, and a table that was unlinked is reused only once nobody
 * walks through it. The two barriers of that, by the file itself: each of its sides loads what the
 * other stored, unless that is still in a store buffer (fast_fault.c).
 */
#include "shadow/fast_fault.c"
#include "tests/support/guest_fixture.h"
#include "tests/support/litmus.h"

static struct guest_mem guest;

static int enter(void *vcpu)
{
	walk_begin(vcpu);
	return 0;
}

static void leave(void *vcpu, int cookie)
{
	(void)cookie;
	walk_end(vcpu);
}

static void walk_again(void *vcpu)
{
	litmus_read(enter, leave, vcpu);
}

static void wait_for_walks(uint64_t i)
{
	shadow_wait_for_walks(guest.shadow);
	smp_store_release(&litmus_y, i);
}

TEST(fast_fault_walk, litmus)
{
	const struct guest_mem_config config = {.nr_cpus = 2};

	guest_mem_create(&guest, &config);
	run_litmus(walk_again, &guest.shadow->vcpu[1], 1, test_long() ? 4000000 : 200000,
		   wait_for_walks);
	guest_mem_destroy(&guest);
}
