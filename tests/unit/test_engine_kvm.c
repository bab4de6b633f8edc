/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests under the kvm engine, on the CPU that this machine has: as under any engine, and what a
 * monitor of our own can see to.
 */
#include <errno.h>

#define ENGINE	       engine_kvm
#define SUITE	       engine_kvm
#define ENGINE_FLAGS   0x240cd5
#define ENGINE_UNTOLD  0u
#define ENGINE_ANY_RSP true
#include "tests/support/engine_cases.h"

GUEST(sgdt, "sgdt (%rdi); ud2");
GUEST(sidt, "sidt (%rdi); ud2");
GUEST(sldt, "sldt %rax; ud2");
GUEST(str, "str %rax; ud2");
GUEST(smsw, "smsw %rax; ud2");

ENGINE_TEST(umip)
{
	static const struct {
		const char *program, *end;
	} cases[] = {{guest_sgdt, guest_sgdt_end},
		     {guest_sidt, guest_sidt_end},
		     {guest_sldt, guest_sldt_end},
		     {guest_str, guest_str_end},
		     {guest_smsw, guest_smsw_end}};
	struct rig rig;

	if (!engine_noted(host(&ENGINE), "umip"))
		skip("this host's KVM does not offer UMIP");
	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		rig_start(&rig, 0, cases[i].program, cases[i].end)->gpr[GPR_RDI] = DATA;
		expect_eq(rig_trap(&rig).vector, VECTOR_GP);
	}
	rig_destroy(&rig);
}

GUEST(far_return, "push %rdi; lea 1f(%rip), %rax; push %rax; lretq; 1: ud2");

/* Selectors that are other descriptors of the host's, or of ours, or nothing at all. */
ENGINE_TEST(no_way_out_of_64_bit_user_mode)
{
	static const uint16_t selectors[] = {0x08, 0x10, 0x1b, 0x23, 0x3b, 0x43};
	struct guest_regs *regs;
	struct engine_exit exit;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < ARRAY_SIZE(selectors); i++) {
		regs = start(&rig, far_return);
		regs->gpr[GPR_RSP] = DATA + PAGE_SIZE / 2; /* some CPUs look further up */
		regs->gpr[GPR_RDI] = selectors[i];
		exit = rig_trap(&rig);
		expect_eq(exit.vector, VECTOR_GP);
		expect_eq(exit.error_code, selectors[i] & ~3);
		expect_eq(regs->rip, CODE + 9);
	}
	start(&rig, far_return);
	regs->gpr[GPR_RSP] = DATA + PAGE_SIZE;
	regs->gpr[GPR_RDI] = 0x33;
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	rig_destroy(&rig);
}

ENGINE_TEST(create_refuses)
{
	struct engine *engine = NULL;
	struct phys *phys;
	char why[256];

	host(&ENGINE);
	expect_eq(phys_create(&phys, 4), 0);
	expect_eq(ENGINE.create(&engine, phys, 0, why, sizeof(why)), -EINVAL);
	expect_str_contains(why, "vCPUs");
	expect_eq(ENGINE.create(&engine, phys, 4096, why, sizeof(why)), -EINVAL);
	expect_eq(ENGINE.create(&engine, phys, 1, why, sizeof(why)), -ENOMEM);
	expect_str_contains(why, "monitor");
	expect_eq(engine, NULL);
	expect_eq(phys_nr_free(phys), 4);
	phys_destroy(phys);
}
