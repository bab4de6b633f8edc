/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Getting a vCPU of any engine out of the guest, for a while or for good.
 * An engine's test says which it is (ENGINE) and the name of its suite (SUITE), and includes this.
 */
#ifndef TESTS_SUPPORT_ENGINE_GATE_CASES_H
#define TESTS_SUPPORT_ENGINE_GATE_CASES_H

#include "notifier/sync/thread.h"
#include "tests/support/engine_rig.h"

struct kicked {
	struct rig rig;
	unsigned int kicks;
};

static void kicked_vcpu(void *arg)
{
	struct kicked *k = arg;
	struct guest_regs *regs;
	struct engine_exit exit;

	expect_eq(ENGINE.vcpu_init(k->rig.engine, 0), 0);
	k->rig.machine->ops->load_root(k->rig.machine, 0, k->rig.root);
	regs = start(&k->rig, count);
	regs->gpr[GPR_RDI] = DATA;
	for (;;) {
		ENGINE.vcpu_run(k->rig.engine, 0, &exit);
		if (exit.kind != ENGINE_EXIT_KICK)
			break;
		WRITE_ONCE(k->kicks, k->kicks + 1);
	}
	expect_eq(exit.kind, ENGINE_EXIT_HALTED);
	expect_str_eq(exit.why, "first");
}

/* Every kick of a guest that never traps gets it out, from wherever it is on its way in. */
ENGINE_TEST(kick_and_halt)
{
	unsigned int rounds = test_long() ? 10000 : 2000;
	struct kicked k = {0};
	struct kthread thread;
	uint64_t *word, then;

	rig_create(&k.rig, &ENGINE, 64, 1);
	word = rig_words(&k.rig, k.rig.data);
	expect_eq(kthread_run(&thread, "vcpu", kicked_vcpu, &k), 0);
	for (unsigned int i = 0; i < rounds; i++) {
		unsigned int kicks = READ_ONCE(k.kicks);

		/* Now and then let it run: a kick finds it inside. Else it is on its way. */
		if (i % 16 == 0)
			wait_while_equal(word, READ_ONCE(*word));
		ENGINE.kick(k.rig.engine, 0);
		while (READ_ONCE(k.kicks) == kicks)
			sched_yield();
	}
	wait_while_equal(word, READ_ONCE(*word));

	k.rig.machine->ops->halt(k.rig.machine, "first");
	then = READ_ONCE(*word);
	k.rig.machine->ops->halt(k.rig.machine, "second");
	kthread_join(&thread);
	expect_eq(READ_ONCE(*word), then);
	rig_destroy(&k.rig);
}

ENGINE_TEST(halt_by_its_own_vcpu)
{
	struct engine_exit exit;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	start(&rig, ud2);
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	ENGINE.kick(rig.engine, 0);
	rig.machine->ops->halt(rig.machine, "by myself");
	for (unsigned int i = 0; i < 2; i++) {
		exit = rig_run(&rig, 0);
		expect_eq(exit.kind, ENGINE_EXIT_HALTED);
		expect_str_eq(exit.why, "by myself");
	}
	rig_destroy(&rig);
}

/* A kick before the first entry is not lost, and costs no register. */
ENGINE_TEST(kick_before_run)
{
	struct guest_regs *regs;
	struct engine_exit exit;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < 3; i++) {
		regs = start(&rig, load);
		regs->gpr[GPR_RDI] = DATA;
		rig_words(&rig, rig.data)[0] = i;
		ENGINE.kick(rig.engine, 0);
		ENGINE.kick(rig.engine, 0);
		ENGINE.vcpu_run(rig.engine, 0, &exit);
		expect_eq(exit.kind, ENGINE_EXIT_KICK);
		ENGINE.vcpu_run(rig.engine, 0, &exit);
		expect_eq(exit.kind, ENGINE_EXIT_TRAP);
		expect_eq(exit.vector, VECTOR_UD);
		expect_eq(regs->gpr[GPR_RAX], i);
	}
	rig_destroy(&rig);
}

#endif
