/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a signal says about the guest, as the exception that a CPU would have raised.
 * docs/engines.md has what arrives how, and what does not arrive at all.
 *
 * The kernel fills in trapno, err and cr2 for faults; for signals that it makes up itself they are
 * those of some fault before. So each is looked at only where signal and si_code say that it is of
 * this one. The guest may have written all of it: the worst that comes out is an exception that it
 * did not raise, at a place where it could have raised it.
 */
#include "vmm/engine_hosted.h"

#include <inttypes.h>
#include <linux/audit.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <gnomon/shadow.h>

#include "vmm/cpl3.h"

#define VSYSCALL_PAGE	0xffffffffff600000ul
#define INT80_ERROR	0x402 /* vector 0x80, in an IDT: what INT gets where there is no gate */
#define FROM_THE_KERNEL 0x80  /* si_code of a fault that has no address */

/* The line is kept in the vCPU: it is handed out again should the VMM try once more. */
void hosted_fail(struct hosted_cpu *cpu, struct engine_exit *exit, enum engine_exit_kind kind,
		 const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cpu->why, sizeof(cpu->why), fmt, ap);
	va_end(ap);
	cpu->at = HOSTED_FAILED;
	cpu->failed = kind;
	exit->kind = kind;
	exit->why = cpu->why;
}

static void trap(struct engine_exit *exit, unsigned int vector, uint32_t error_code)
{
	exit->kind = ENGINE_EXIT_TRAP;
	exit->vector = vector;
	exit->error_code = error_code;
	exit->fault_address = 0;
}

static void page_fault(struct engine_exit *exit, gva_t gva, uint32_t error_code)
{
	trap(exit, VECTOR_PF, error_code | PFERR_USER);
	exit->fault_address = gva;
}

static bool in_stub(uint64_t address)
{
	return address >= STUB_BASE && address < STUB_ADDR_END;
}

/*
 * A system call that the filter refused. It is over: RIP is behind it, and what SYSCALL does to RCX
 * and R11 has been done.
 */
static void take_syscall(struct hosted_cpu *cpu, const siginfo_t *info, struct engine_exit *exit)
{
	uint64_t at = (uintptr_t)info->si_call_addr;

	if ((at & PAGE_MASK) == VSYSCALL_PAGE) {
		/* The kernel has returned from it as well: undo that. */
		cpu->regs.gpr[GPR_RSP] -= sizeof(uint64_t);
		cpu->regs.rip = at;
		page_fault(exit, at, PFERR_FETCH);
		return;
	}
	cpu->regs.rip -= SYSCALL_INSN_LENGTH;
	if (info->si_arch == AUDIT_ARCH_X86_64)
		trap(exit, VECTOR_UD, 0);
	else
		trap(exit, VECTOR_GP, INT80_ERROR);
}

static void take_segv(struct hosted_cpu *cpu, const struct stub_frame *frame,
		      struct engine_exit *exit)
{
	int code = frame->info.si_code;

	if (frame->trapno == VECTOR_PF && code != FROM_THE_KERNEL && !canonical(frame->cr2))
		trap(exit, VECTOR_GP, 0); /* the host's tables have five levels, the guest's four */
	else if (frame->trapno == VECTOR_PF && code != FROM_THE_KERNEL)
		page_fault(exit, frame->cr2, frame->err & (PFERR_WRITE | PFERR_FETCH));
	else if ((frame->rip & PAGE_MASK) == VSYSCALL_PAGE)
		page_fault(exit, frame->rip, PFERR_FETCH); /* not at an entry of that page */
	else if (frame->trapno == VECTOR_OF)
		trap(exit, VECTOR_OF, 0);
	else if (frame->trapno == VECTOR_GP && code == FROM_THE_KERNEL)
		trap(exit, VECTOR_GP, frame->err);
	else
		hosted_fail(cpu, exit, ENGINE_EXIT_FAIL,
			    "SIGSEGV at rip %#" PRIx64 ", code %d after exception %" PRIu64
			    ": not a way that a guest faults",
			    frame->rip, code, frame->trapno);
}

static void take_bus(struct hosted_cpu *cpu, const struct stub_frame *frame,
		     struct engine_exit *exit)
{
	if (frame->trapno == VECTOR_SS)
		trap(exit, VECTOR_SS, frame->err);
	else if (frame->trapno == VECTOR_AC)
		trap(exit, VECTOR_AC, 0);
	else
		hosted_fail(cpu, exit, ENGINE_EXIT_ERROR,
			    "the host has no page for the frame at guest address %#" PRIx64
			    ": is it out of memory?",
			    frame->cr2);
}

/* What the guest's registers say is in cpu->regs; where the exception has changed them it is undone
 * there. */
void hosted_decode(struct hosted_cpu *cpu, const struct stub_frame *frame, uint32_t signal,
		   struct engine_exit *exit)
{
	if (frame->cs != SEL_USER_CS) {
		hosted_fail(cpu, exit, ENGINE_EXIT_FAIL,
			    "the guest left 64-bit mode: cs %#x at rip %#" PRIx64, frame->cs,
			    frame->rip);
		return;
	}
	if (signal == HOSTED_KICK) {
		exit->kind = ENGINE_EXIT_KICK;
		return;
	}
	/* Whatever it did there: to where it has no page it cannot have gone. */
	if (in_stub(frame->rip)) {
		page_fault(exit, frame->rip, PFERR_FETCH);
		return;
	}
	switch (signal) {
	case SIGSEGV:
		take_segv(cpu, frame, exit);
		return;
	case SIGBUS:
		take_bus(cpu, frame, exit);
		return;
	case SIGILL:
		trap(exit, VECTOR_UD, 0);
		return;
	case SIGFPE:
		trap(exit,
		     frame->trapno == VECTOR_MF	  ? VECTOR_MF
		     : frame->trapno == VECTOR_XM ? VECTOR_XM
						  : VECTOR_DE,
		     0);
		return;
	case SIGTRAP:
		trap(exit, frame->trapno == VECTOR_BP ? VECTOR_BP : VECTOR_DB, 0);
		return;
	case SIGSYS:
		take_syscall(cpu, &frame->info, exit);
		return;
	default:
		hosted_fail(cpu, exit, ENGINE_EXIT_FAIL, "the guest forged signal %u", signal);
	}
}
