/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An invalidation that comes and goes when a fault has its frame, and has looked for the last time
 * before mmu_lock: by the file itself, whose last step before that is the look at the log.
 */
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
