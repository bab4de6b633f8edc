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

/* ---- what is done in a walk ---- */

struct table {
	atomic_t linked, stop;
	uint64_t used; /* by who walks while it is linked, and by who waited after he unlinked it */
	int64_t walks;
};

static void use_in_walks(void *arg)
{
	struct table *table = arg;
	struct shadow_vcpu *vcpu = &guest.shadow->vcpu[1];

	while (!atomic_read(&table->stop)) {
		walk_begin(vcpu);
		if (atomic_read_acquire(&table->linked)) {
			table->used++;
			WRITE_ONCE(table->walks, table->walks + 1);
		}
		walk_end(vcpu);
	}
}

/* It is over before the table is another's: no use is lost, and ThreadSanitizer knows why. */
TEST(fast_fault_walk, what_is_done_is_done)
{
	const struct guest_mem_config config = {.nr_cpus = 2};
	struct table table = {.walks = 0};
	struct kthread thread;
	uint64_t mine = 0;

	guest_mem_create(&guest, &config);
	expect_eq(kthread_run(&thread, "walks", use_in_walks, &table), 0);
	while (mine < 2000 || READ_ONCE(table.walks) < 2000) {
		atomic_set(&table.linked, 0);
		shadow_wait_for_walks(guest.shadow);
		table.used++;
		mine++;
		atomic_set_release(&table.linked, 1);
		relax(mine % 64);
	}
	atomic_set(&table.stop, 1);
	kthread_join(&thread);
	expect_eq(table.used, mine + (uint64_t)table.walks);
	guest_mem_destroy(&guest);
}
