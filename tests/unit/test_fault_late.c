/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An invalidation that comes and goes when a fault has its frame, and has looked for the last time
 * before mmu_lock: by the file itself, whose last step before that is the look at the log.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/dirty.h"
#include "tests/support/guest_fixture.h"

#define PAGE 0x3000UL

static struct guest_mem guest;
static bool to_migrate;

static bool look_at_the_log(const struct memslot *slot)
{
	if (to_migrate) {
		to_migrate = false;
		expect_eq(mm_migrate_range(guest.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	}
	return slot_is_logged(slot);
}

#define slot_is_logged(slot) look_at_the_log(slot)
#include "shadow/fault.c"
#undef slot_is_logged

/*
 *   fault                              migration
 *   -----                              ---------
 *   reads the sequence
 *   walks, has the frame
 *                                      window opens, closes: the sequence is another
 *   mmu_lock: is it as it was?
 */
TEST(fault_late, migrated_before_the_lock)
{
	const struct guest_mem_config config = {.audit = true};
	struct shadow_fault fault;

	guest_mem_create(&guest, &config);
	guest_write(&guest, PAGE, 7);
	guest_load(&guest, 0, PAGE + PAGE_SIZE);
	to_migrate = true;
	expect_eq(guest_fault(&guest, 0, PAGE, 0, &fault), RET_PF_RETRY);
	expect(!to_migrate);
	expect_eq(guest_load(&guest, 0, PAGE), 7);
	destroy(&guest);
}

/* ---- and one that is over when it begins ---- */

static uint64_t left_by_the_host, found;

static void run_window(void *arg)
{
	struct mmu_notifier_range *range = arg;
	struct mmu_notifier *notifier = &guest.shadow->notifier;

	shadow_mmu_notifier_ops.invalidate_range_start(notifier, range);
	left_by_the_host++;
	shadow_mmu_notifier_ops.invalidate_range_end(notifier, range);
}

static void look(void *arg)
{
	(void)arg;
	found = left_by_the_host;
}

/* In some of them nothing else is on the way from the window to who comes after. */
#define ROUNDS 40

/* Whoever begins with the sequence that a window has left reads what the host has: faults, and
 * accesses that we carry out. With ThreadSanitizer this says how. */
TEST(fault_late, after_a_window)
{
	const struct guest_mem_config config = {.nr_cpus = 1};
	struct mmu_notifier_range range;

	guest_mem_create(&guest, &config);
	left_by_the_host = 0;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, guest.mm, guest_hva(PAGE),
				guest_hva(PAGE + PAGE_SIZE));
	shadow_set_hook(guest.shadow, SHADOW_HOOK_WALK_BEFORE_MARK, look, NULL);
	for (unsigned int round = 0; round < 2 * ROUNDS; round++) {
		unsigned long seq = READ_ONCE(guest.shadow->invalidate_seq);
		struct shadow_operand operand;
		struct shadow_fault fault;
		struct kthread thread;

		found = 0;
		expect_eq(kthread_run(&thread, "window", run_window, &range), 0);
		while (READ_ONCE(guest.shadow->invalidate_seq) == seq)
			sched_yield();
		if (round % 2) {
			expect_eq(shadow_operand_get(guest.shadow, 0, PAGE, 8, 0, &operand, &fault),
				  0);
			shadow_operand_put(guest.shadow, &operand);
		} else {
			guest_fault(&guest, 0, PAGE, 0, &fault);
		}
		expect_eq(found, round + 1);
		kthread_join(&thread);
	}
	destroy(&guest);
}
