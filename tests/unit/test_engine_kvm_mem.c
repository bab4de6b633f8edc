/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory under the kvm engine: as under any, and the quarantine. Each protection is also left out,
 * to show that its test would see the difference.
 */
#include <errno.h>
#include <sys/mman.h>

#define ENGINE engine_kvm
#define SUITE  engine_kvm_mem
/* A CPU that walks our own tables may forget by itself. */
#define ENGINE_REMEMBERS engine_noted(host(&ENGINE), "host_shadows_tables")
#include "tests/support/engine_mem_cases.h"

ENGINE_TEST(retire_is_needed)
{
	uint64_t drains;

	if (!engine_noted(host(&ENGINE), "needs_quarantine"))
		skip("this host does not remember tables");
	expect_ge(reuse(64, 10, false, &drains), 1);
}

/*
 * Why an unlinked table is zapped whole and retired, also when another directory still names it: a
 * host that knows the table by its frame keeps the old way to it, and it is not empty.
 */
ENGINE_TEST(unlinked_table_must_not_stay_in_use)
{
	pfn_t table;
	struct rig rig;

	if (!engine_noted(host(&ENGINE), "needs_quarantine"))
		skip("this host does not remember tables");
	rig_create_here(&rig, &ENGINE);
	table = rig_table(&rig, 1);
	rig_words(&rig, table)[0] = rig.data << PAGE_SHIFT | RWX;
	rig_words(&rig, rig.data)[0] = 7;
	*rig_entry(&rig, OTHER, 2) = table << PAGE_SHIFT | TABLE;
	*rig_entry(&rig, 2 * OTHER, 2) = table << PAGE_SHIFT | TABLE;
	expect_eq(rig_read(&rig, OTHER), 7);
	expect_eq(rig_read(&rig, 2 * OTHER), 7);

	*rig_entry(&rig, OTHER, 2) = 0;
	rig_shoot(&rig, table);
	expect_eq(rig_read(&rig, OTHER), 7); /* the tables say: fault */

	rig_words(&rig, table)[0] = 0;
	rig_shoot(&rig, rig.data);
	expect_eq(rig_read(&rig, OTHER), PHYS_POISON);
	expect_eq(rig_read(&rig, 2 * OTHER), PHYS_POISON);
	rig_destroy(&rig);
}

/* The other way to drain: the quarantine is full. A pool of 64 holds 4, one of 512 holds 32. */
ENGINE_TEST(quarantine_has_a_limit)
{
	uint64_t sizes[] = {64, 128, 512};

	if (!engine_noted(host(&ENGINE), "needs_quarantine"))
		skip("this host does not remember tables");
	for (unsigned int n = 0; n < ARRAY_SIZE(sizes); n++) {
		uint64_t limit = sizes[n] / 16, drains, drained, before;
		struct machine *machine;
		struct rig rig;

		rig_create(&rig, &ENGINE, sizes[n], 1);
		machine = rig.machine;
		before = phys_nr_free(rig.phys);
		for (unsigned int i = 1; i <= 3 * limit; i++) {
			pfn_t table = machine->ops->alloc_table(machine, 1);

			expect_ne(table, INVALID_PFN);
			machine->ops->retire_table(machine, table);
			ENGINE.stats(rig.engine, &drains, &drained);
			expect_eq(drains, i / limit);
			expect_eq(drained, i / limit * limit);
			expect_eq(phys_nr_free(rig.phys), before - i % limit);
		}
		rig_destroy(&rig);
	}
}

/* Draining stops a guest and lets it go on; it also must not wait for a vCPU that is outside. */
static void drain_vcpu(void *arg)
{
	struct rig *rig = arg;
	struct engine_exit exit;

	expect_eq(ENGINE.vcpu_init(rig->engine, 1), 0);
	rig->machine->ops->load_root(rig->machine, 1, rig->root);
	rig_start(rig, 1, guest_count, guest_count_end)->gpr[GPR_RDI] = DATA;
	exit = rig_run(rig, 1);
	expect_eq(exit.kind, ENGINE_EXIT_HALTED);
	expect_str_eq(exit.why, "enough");
}

ENGINE_TEST(drain_while_a_guest_runs)
{
	unsigned int drains = test_long() ? 500 : 50;
	struct kthread thread;
	struct rig rig;
	uint64_t *word;

	if (!engine_noted(host(&ENGINE), "needs_quarantine"))
		skip("this host does not remember tables");
	rig_create(&rig, &ENGINE, 64, 2);
	word = rig_words(&rig, rig.data);
	expect_eq(kthread_run(&thread, "vcpu", drain_vcpu, &rig), 0);
	for (unsigned int i = 0; i < 4 * drains; i++) {
		wait_while_equal(word, READ_ONCE(*word));
		rig.machine->ops->retire_table(rig.machine,
					       rig.machine->ops->alloc_table(rig.machine, 1));
	}
	wait_while_equal(word, READ_ONCE(*word));
	rig.machine->ops->halt(rig.machine, "enough");
	kthread_join(&thread);
	rig_destroy(&rig);
}

/* madvise refuses locked memory: nobody can vouch for the CPUs, so they stop. */
ENGINE_TEST(shootdown_that_fails)
{
	struct engine_exit exit;
	struct rig rig;
	pfn_t page;
	int err;

	rig_create_here(&rig, &ENGINE);
	page = rig.data;
	start(&rig, ud2);
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		skip("mlockall: %s", strerror(errno));
	err = rig.machine->ops->shootdown(rig.machine, &page, 1);
	if (err == 0)
		skip("mlockall does nothing here (a sanitizer replaces it)");
	expect_eq(err, -EINVAL);

	exit = rig_run(&rig, 0);
	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	rig.machine->ops->retire_table(rig.machine, rig.machine->ops->alloc_table(rig.machine, 1));
	exit = rig_run(&rig, 0);
	expect_eq(exit.kind, ENGINE_EXIT_HALTED);
	expect_str_contains(exit.why, "shootdown");
	munlockall();
	rig_destroy(&rig);
}
