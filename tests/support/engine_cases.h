/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests under any engine: what they can do, and with which exception everything else comes back.
 * An engine's test says which it is (ENGINE) and the name of its suite (SUITE), which flags are a
 * guest's own (ENGINE_FLAGS), which bits of a page fault's error code it does not tell
 * (ENGINE_UNTOLD), whether RSP may hold anything (ENGINE_ANY_RSP), and includes this.
 */
#ifndef TESTS_SUPPORT_ENGINE_CASES_H
#define TESTS_SUPPORT_ENGINE_CASES_H

#include "tests/support/engine_rig.h"

#define MONITOR 0x7f8000000000ul /* the engine's own slot, 512 GiB from here */

GUEST(jump, "jmp *%rdi");
GUEST(pushf, "pushfq; pop %rax; ud2");
GUEST(syscall, "syscall; mov %rsp, %rax; ud2");
GUEST(selectors, "mov %cs, %eax; mov %ss, %ebx; ud2");

ENGINE_TEST(loads_and_stores)
{
	struct guest_regs *regs;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	rig_words(&rig, rig.data)[5] = 0x1122334455667788;
	expect_eq(rig_read(&rig, DATA + 40), 0x1122334455667788);

	regs = start(&rig, store);
	regs->gpr[GPR_RDI] = DATA + 4088;
	regs->gpr[GPR_RAX] = 0xfedcba9876543210;
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	expect_eq(regs->rip, CODE + 3);
	expect_eq(rig_words(&rig, rig.data)[511], 0xfedcba9876543210);
	rig_destroy(&rig);
}

/* What ages pages relies on it: once a frame was shot down, the next use is marked in its leaf. */
ENGINE_TEST(accessed_bits)
{
	struct rig rig;
	uint64_t *leaf;

	rig_create_here(&rig, &ENGINE);
	leaf = rig_entry(&rig, DATA, 1);
	*rig_words(&rig, rig.data) = 0x1234;
	for (int i = 0; i < 10; i++) {
		__atomic_fetch_and(leaf, ~0x20UL, __ATOMIC_SEQ_CST);
		rig_shoot(&rig, rig.data);
		expect_eq(READ_ONCE(*leaf) & 0x20, 0);
		expect_eq(rig_read(&rig, DATA), 0x1234);
		expect_eq(READ_ONCE(*leaf) & 0x20, 0x20);
	}
	rig_destroy(&rig);
}

ENGINE_TEST(page_faults)
{
	static const struct {
		const char *program, *end;
		uint64_t bits;
		uint32_t error_code;
	} cases[] = {
		{guest_load, guest_load_end, 0, 0x4},
		{guest_store, guest_store_end, 0, 0x6},
		{guest_jump, guest_jump_end, 0, 0x14},
		{guest_store, guest_store_end, P | U | 0x20, 0x7},
		{guest_jump, guest_jump_end, RWX | NX, 0x15},
		{guest_load, guest_load_end, P | W | AD, 0x5},
		{guest_store, guest_store_end, P | W | AD, 0x7},
		{guest_jump, guest_jump_end, P | W | AD, 0x15},
	};
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		bool fetch = cases[i].error_code & 0x10;
		uint64_t gva = OTHER + i * PAGE_SIZE + 0x123;
		struct guest_regs *regs = rig_start(&rig, 0, cases[i].program, cases[i].end);
		struct engine_exit exit;

		rig_map(&rig, gva, rig.data, cases[i].bits);
		regs->gpr[GPR_RDI] = gva;
		exit = rig_trap(&rig);
		expect_eq(exit.vector, VECTOR_PF);
		expect_eq(exit.error_code | ENGINE_UNTOLD, cases[i].error_code | ENGINE_UNTOLD);
		expect_eq(exit.fault_address, gva);
		expect_eq(regs->rip, fetch ? gva : CODE);
	}
	rig_destroy(&rig);
}

GUEST(in, "in %dx, %al");
GUEST(in_imm, "in $0x40, %al");
GUEST(out, "out %al, %dx");
GUEST(out_imm, "out %al, $0x4e");
GUEST(outs, "outsb");
GUEST(hlt, "hlt");
GUEST(cli, "cli");
GUEST(sti, "sti");
GUEST(read_cr3, "mov %cr3, %rax");
GUEST(write_cr3, "mov %rax, %cr3");
GUEST(write_cr4, "mov %rax, %cr4");
GUEST(write_dr7, "mov %rax, %dr7");
GUEST(invlpg, "invlpg (%rdi)");
GUEST(lgdt, "lgdt (%rdi)");
GUEST(lidt, "lidt (%rdi)");
GUEST(ltr, "ltr %ax");
GUEST(rdmsr, "rdmsr");
GUEST(wrmsr, "wrmsr");
GUEST(clts, "clts");
GUEST(swapgs, "swapgs");
GUEST(wbinvd, "wbinvd");
GUEST(load_noncanonical, "movabs $0x800000000000, %rdi; mov (%rdi), %rax");

ENGINE_TEST(privileged_instructions_trap)
{
#define CASE(name, at)                                      \
	{                                                   \
#name, guest_##name, guest_##name##_end, at \
	}
	static const struct {
		const char *name, *program, *end;
		unsigned int at;
	} cases[] = {
		CASE(in, 0),	    CASE(in_imm, 0),
		CASE(out, 0),	    CASE(out_imm, 0),
		CASE(outs, 0),	    CASE(hlt, 0),
		CASE(cli, 0),	    CASE(sti, 0),
		CASE(read_cr3, 0),  CASE(write_cr3, 0),
		CASE(write_cr4, 0), CASE(write_dr7, 0),
		CASE(invlpg, 0),    CASE(lgdt, 0),
		CASE(lidt, 0),	    CASE(ltr, 0),
		CASE(rdmsr, 0),	    CASE(wrmsr, 0),
		CASE(clts, 0),	    CASE(swapgs, 0),
		CASE(wbinvd, 0),    CASE(load_noncanonical, 10),
	};
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		struct guest_regs *regs = rig_start(&rig, 0, cases[i].program, cases[i].end);
		struct engine_exit exit;

		regs->gpr[GPR_RDX] = 0x3f8;
		regs->gpr[GPR_RDI] = regs->gpr[GPR_RSI] = DATA;
		exit = rig_trap(&rig);
		if (exit.vector != VECTOR_GP || exit.error_code != 0 ||
		    regs->rip != CODE + cases[i].at)
			fail("%s: vector %u, error code %#x, rip %#lx", cases[i].name, exit.vector,
			     exit.error_code, regs->rip);
	}
	rig_destroy(&rig);
}

GUEST(int3, "int3");
GUEST(divide, "xor %ecx, %ecx; div %ecx");
GUEST(int_80, "int $0x80");
GUEST(int_14, "int $14");
GUEST(iret_kernel,
      "push $0x10; push %rsp; push $2; push $0x08; lea (%rip), %rax; push %rax; iretq");

ENGINE_TEST(other_exceptions)
{
	struct guest_regs *regs;
	struct engine_exit exit;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);

	regs = start(&rig, ud2);
	exit = rig_trap(&rig);
	expect_eq(exit.vector, VECTOR_UD);
	expect_eq(exit.error_code, 0);
	expect_eq(regs->rip, CODE);

	start(&rig, int3);
	expect_eq(rig_trap(&rig).vector, VECTOR_BP);
	expect_eq(regs->rip, CODE + 1);

	start(&rig, divide);
	expect_eq(rig_trap(&rig).vector, VECTOR_DE);
	expect_eq(regs->rip, CODE + 2);

	/* Never through the gate itself: a guest cannot make up a page fault. */
	start(&rig, int_80);
	exit = rig_trap(&rig);
	expect(exit.vector == VECTOR_UD || (exit.vector == VECTOR_GP && exit.error_code == 0x402));
	expect_eq(regs->rip, CODE);
	start(&rig, int_14);
	exit = rig_trap(&rig);
	expect(exit.vector == VECTOR_UD || (exit.vector == VECTOR_GP && exit.error_code == 0x72));
	expect_eq(regs->rip, CODE);

	start(&rig, iret_kernel);
	regs->gpr[GPR_RSP] = DATA + PAGE_SIZE;
	exit = rig_trap(&rig);
	expect_eq(exit.vector, VECTOR_GP);
	expect_eq(exit.error_code, 0x08);
	rig_destroy(&rig);
}

GUEST(add_numbers, "lea 1(%rax), %rax; lea 2(%rcx), %rcx; lea 3(%rdx), %rdx; lea 4(%rbx), %rbx;"
		   "lea 5(%rsp), %rsp; lea 6(%rbp), %rbp; lea 7(%rsi), %rsi; lea 8(%rdi), %rdi;"
		   "lea 9(%r8), %r8; lea 10(%r9), %r9; lea 11(%r10), %r10; lea 12(%r11), %r11;"
		   "lea 13(%r12), %r12; lea 14(%r13), %r13; lea 15(%r14), %r14; lea 16(%r15), %r15;"
		   "ud2");

/* Values that are no addresses: nothing may look at what RSP points to. */
static uint64_t start_value(unsigned int round, unsigned int gpr)
{
	if (gpr == GPR_RSP && !ENGINE_ANY_RSP)
		return 0x555500001000 + round;
	return (round == 1 ? 0x8000000000000000 : 0x5555000000001000) + gpr * 0x0101010101;
}

ENGINE_TEST(registers_round_trip)
{
	struct guest_regs *regs;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int round = 0; round < 3; round++) {
		regs = start(&rig, add_numbers);
		for (unsigned int n = 0; n < 16; n++)
			regs->gpr[n] = start_value(round, n);
		expect_eq(rig_trap(&rig).vector, VECTOR_UD);
		for (unsigned int n = 0; n < 16; n++)
			expect_eq(regs->gpr[n], start_value(round, n) + n + 1);
	}
	/* What is not touched stays. */
	start(&rig, ud2);
	rig_trap(&rig);
	for (unsigned int n = 0; n < 16; n++)
		expect_eq(regs->gpr[n], start_value(2, n) + n + 1);
	rig_destroy(&rig);
}

ENGINE_TEST(flags)
{
	const uint64_t own = ENGINE_FLAGS,
		       not_own = 0x1ff000 & ~own; /* IOPL NT RF VM VIF VIP ... */
	struct guest_regs *regs;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	regs = start(&rig, pushf);
	regs->gpr[GPR_RSP] = DATA + PAGE_SIZE;
	regs->rflags = own | not_own;
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	expect_eq(regs->gpr[GPR_RAX] & ~0x202ul, own);
	expect_eq(regs->rflags & ~0x202ul, own);
	start(&rig, pushf);
	regs->rflags = 0;
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	expect_eq(regs->gpr[GPR_RAX] & ~0x202ul, 0);

	/* TF is the guest's: one instruction, then #DB. */
	start(&rig, pushf);
	regs->rflags = 0x100;
	expect_eq(rig_trap(&rig).vector, VECTOR_DB);
	expect_eq(regs->rip, CODE + 1);
	regs->rflags = 0;
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	rig_destroy(&rig);
}

ENGINE_TEST(rip_that_iretq_would_refuse)
{
	struct guest_regs *regs;
	struct engine_exit exit;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < 2; i++) { /* cold, and behind a trap */
		regs = start(&rig, ud2);
		regs->rip = 0x0000800000000000;
		exit = rig_trap(&rig);
		expect_eq(exit.vector, VECTOR_GP);
		expect_eq(exit.error_code, 0);
		expect_eq(regs->rip, 0x0000800000000000);
		start(&rig, ud2);
		expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	}
	/* Canonical, but in the other half, where nothing is mapped. */
	regs->rip = 0xffff800000000000;
	exit = rig_trap(&rig);
	expect_eq(exit.vector, VECTOR_PF);
	expect_eq(exit.fault_address, 0xffff800000000000);
	rig_destroy(&rig);
}

ENGINE_TEST(selectors_are_the_same_everywhere)
{
	struct guest_regs *regs;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	regs = start(&rig, selectors);
	expect_eq(rig_trap(&rig).vector, VECTOR_UD);
	expect_eq(regs->gpr[GPR_RAX], 0x33);
	expect_eq(regs->gpr[GPR_RBX], 0x2b);
	rig_destroy(&rig);
}

ENGINE_TEST(syscall_is_undefined)
{
	struct guest_regs *regs;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (unsigned int i = 0; i < 3; i++) {
		regs = start(&rig, syscall);
		regs->gpr[GPR_RSP] = 0x123456789000 + i;
		regs->gpr[GPR_RBX] = 77 + i;
		expect_eq(rig_trap(&rig).vector, VECTOR_UD);
		expect_eq(regs->rip, CODE);
		expect_eq(regs->gpr[GPR_RSP], 0x123456789000 + i);

		/* The guest goes on behind it. */
		regs->rip = CODE + 2;
		expect_eq(rig_trap(&rig).vector, VECTOR_UD);
		expect_eq(regs->rip, CODE + 5);
		expect_eq(regs->gpr[GPR_RAX], 0x123456789000 + i);
		expect_eq(regs->gpr[GPR_RBX], 77 + i);
	}
	rig_destroy(&rig);
}

/* Whether a page of the monitor is there or a hole, and however the guest asks. */
ENGINE_TEST(monitor_is_out_of_reach)
{
	struct guest_regs *regs;
	struct engine_exit exit;
	struct rig rig;

	rig_create_here(&rig, &ENGINE);
	for (uint64_t page = 0; page < 16; page++) {
		uint64_t gva = MONITOR + page * PAGE_SIZE + 0x10;

		regs = start(&rig, load);
		regs->gpr[GPR_RDI] = gva;
		exit = rig_trap(&rig);
		expect_eq(exit.vector, VECTOR_PF);
		expect_eq(exit.error_code & ~P, 0x4);
		expect_eq(exit.fault_address, gva);

		start(&rig, store);
		exit = rig_trap(&rig);
		expect_eq(exit.vector, VECTOR_PF);
		expect_eq(exit.error_code & ~P, 0x6);

		start(&rig, jump);
		exit = rig_trap(&rig);
		expect_eq(exit.vector, VECTOR_PF);
		expect_eq(exit.error_code & ~P, 0x14);
		expect_eq(regs->rip, gva);
	}
	/* A root gives no rights on the slot either, and a table below has no such entry. */
	expect_eq(rig_words(&rig, rig.root)[255] & U, 0);
	expect_ne(rig_words(&rig, rig.root)[255] & P, 0);
	expect_eq(rig_words(&rig, rig_table(&rig, 3))[255], 0);
	rig_destroy(&rig);
}

ENGINE_TEST(probe_measures)
{
	const struct engine_report *report = host(&ENGINE);

	expect(engine_noted(report, "shootdown_works"));
	expect(report->trap_floor_us > 0.1 && report->trap_floor_us < 1e5);
	expect(report->shootdown_us > 0.01 && report->shootdown_us < 1e5);
}

#endif
