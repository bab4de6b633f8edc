/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk without a lock marks its vCPU, and a table that was unlinked is reused only once nobody
 * walks through it. The two barriers of that, by the file itself: each of its sides loads what the
 * other stored, unless that is still in a store buffer (fast_fault.c).
 */
#include <sched.h>

#include "shadow/fast_fault.c"
#include "tests/support/beside.h"
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

#define WALKS 300

struct table {
	atomic_t linked; /* 0, or the round in which it is */
	atomic_t stop;
	uint64_t used; /* by who walks while it is linked, and by who waited after he unlinked it */
	int walks;     /* that came while it was linked */
};

/* @walks is another thread. When it has come to the table, that is unlinked, and then used. */
static void use_after_walks(void (*walks)(void *table))
{
	const struct guest_mem_config config = {.nr_cpus = 2};
	struct table table = {.walks = 0};
	struct kthread thread;

	guest_mem_create(&guest, &config);
	expect_eq(kthread_run(&thread, "walks", walks, &table), 0);
	for (int round = 1; round <= WALKS; round++) {
		atomic_set_release(&table.linked, round);
		while (READ_ONCE(table.walks) < round)
			sched_yield();
		atomic_set(&table.linked, 0);
		shadow_wait_for_walks(guest.shadow);
		table.used++;
	}
	atomic_set(&table.stop, 1);
	kthread_join(&thread);
	expect_eq(table.walks, WALKS);
	expect_eq(table.used, 2 * WALKS);
	guest_mem_destroy(&guest);
}

static void use_in_walks(void *arg)
{
	struct table *table = arg;
	struct shadow_vcpu *vcpu = &guest.shadow->vcpu[1];

	while (!atomic_read(&table->stop)) {
		int round;

		walk_begin(vcpu);
		round = atomic_read_acquire(&table->linked);
		if (round) {
			WRITE_ONCE(table->walks, table->walks + 1);
			while (atomic_read(&table->linked) == round)
				sched_yield();
			sched_yield(); /* until his barrier is behind him, as a rule */
			table->used++;
		}
		walk_end(vcpu);
	}
}

/*
 * It is over before the table is another's: no use is lost, and ThreadSanitizer knows why. It would
 * not if the barrier of who waits came after the use; so a walk waits until he is about to: what it
 * sees of him, and he of it, orders nothing.
 */
TEST(fast_fault_walk, what_is_done_is_done)
{
	use_after_walks(use_in_walks);
}

static void use_and_rest(void *arg)
{
	struct table *table = arg;
	struct shadow_vcpu *vcpu = &guest.shadow->vcpu[1];

	for (int round = 1; round <= WALKS; round++) {
		while (atomic_read_acquire(&table->linked) != round)
			sched_yield();
		walk_begin(vcpu);
		table->used++;
		walk_end(vcpu);
		WRITE_ONCE(table->walks, round);
	}
}

/* The walk is over when he looks first. No other begins before he is through: its barrier would
 * order the use, too. */
TEST(fast_fault_walk, what_was_done_is_done)
{
	use_after_walks(use_and_rest);
}

/* ---- what a walk comes to ---- */

struct chain {
	struct shadow_page *root; /* of level 2 */
	struct shadow_page *child;
	struct shadow_page links[TABLE_ENTRIES]; /* @child, for each entry of @root that links it */
};

static void link_again(void *arg)
{
	struct chain *chain = arg;

	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		chain->child->spt[i] = i + 1;
		chain->links[i].table = chain->child->table;
		shadow_page_link(&chain->links[i], &chain->root->spt[i], NULL);
		relax(i % 64);
	}
}

/* Who comes to a table by its link finds in it what was there before; a plain load, for
 * ThreadSanitizer to judge. And no barrier of a walk's, or of anything else, helps. */
TEST(fast_fault_walk, table_before_its_link)
{
	const struct guest_mem_config config = {.nr_cpus = 1};
	static struct chain chain;
	struct beside beside;

	guest_mem_create(&guest, &config);
	chain.root = shadow_page_alloc(guest.shadow, 2);
	chain.child = shadow_page_alloc(guest.shadow, 1);
	expect(chain.root && chain.child);
	chain.root->role.level = 2;
	beside_start(&beside, link_again, &chain);
	for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
		bool huge = false;
		spte_t *leaf;

		do {
			leaf = find_leaf(guest.shadow, chain.root, i << 21 | i << 12, &huge);
		} while (!leaf);
		expect(!huge);
		expect_eq(*leaf, i + 1);
	}
	kthread_join(&beside.thread);
	shadow_page_free_unused(guest.shadow, chain.child);
	shadow_page_free_unused(guest.shadow, chain.root);
	guest_mem_destroy(&guest);
}
