/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ways out of KVM_RUN that no guest of ours should find: each is the end of the guest, with a
 * line that says what happened and, where it is known, why. Exits are the guest's doing, or might
 * be (ENGINE_EXIT_FAIL); an errno is the host's (ENGINE_EXIT_ERROR).
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Newer than the oldest headers that we build with. */
#define EXIT_MEMORY_FAULT 39

/* The line is kept in the vCPU: it is handed out again should the VMM try once more. */
static void fail_for_good(struct kvm_cpu *cpu, struct engine_exit *exit, enum engine_exit_kind kind)
{
	cpu->at = CPU_FAILED;
	cpu->failed = kind;
	exit->kind = kind;
	exit->why = cpu->why;
}

void kvm_exit_fail(struct kvm_cpu *cpu, struct engine_exit *exit, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cpu->why, sizeof(cpu->why), fmt, ap);
	va_end(ap);
	fail_for_good(cpu, exit, ENGINE_EXIT_FAIL);
}

static const char *suberror_name(unsigned int suberror)
{
	switch (suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "it cannot emulate an instruction";
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "two exceptions at once";
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "a fault while it delivered an exception";
	default:
		return "an unexpected exit";
	}
}

static void explain_internal_error(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	const struct kvm_run *run = cpu->run;
	const struct kvm_sync_regs *sync = &run->s.regs;
	unsigned int size = 0;
	char bytes[3 * sizeof(run->emulation_failure.insn_bytes) + 1] = "";

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 3 &&
	    run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
		size = run->emulation_failure.insn_size;
	for (unsigned int i = 0; i < size && i < sizeof(run->emulation_failure.insn_bytes); i++)
		sprintf(bytes + 3 * i, " %02x", run->emulation_failure.insn_bytes[i]);
	kvm_exit_fail(cpu, exit, "KVM gave up: %s (suberror %u) at rip %#llx, cs %#x%s%s",
		      suberror_name(run->internal.suberror), run->internal.suberror, sync->regs.rip,
		      sync->sregs.cs.selector, *bytes ? ", bytes" : "", bytes);
}

void kvm_exit_explain(struct kvm_cpu *cpu, struct engine_exit *exit)
{
	const struct kvm_run *run = cpu->run;
	unsigned long long rip = run->s.regs.regs.rip;

	switch (run->exit_reason) {
	case KVM_EXIT_INTERNAL_ERROR:
		explain_internal_error(cpu, exit);
		return;
	case KVM_EXIT_SHUTDOWN:
		kvm_exit_fail(cpu, exit,
			      "triple fault at rip %#llx: an exception could not be delivered",
			      rip);
		return;
	case KVM_EXIT_FAIL_ENTRY:
		kvm_exit_fail(cpu, exit, "the CPU refused the guest's state (reason %#llx)",
			      run->fail_entry.hardware_entry_failure_reason);
		return;
	case KVM_EXIT_MMIO:
		kvm_exit_fail(cpu, exit, "a table names frame %#llx, which is not the machine's",
			      run->mmio.phys_addr >> PAGE_SHIFT);
		return;
	case KVM_EXIT_HLT:
		kvm_exit_fail(cpu, exit, "the monitor ran off the end of a stub: rip %#llx", rip);
		return;
	case KVM_EXIT_UNKNOWN:
		kvm_exit_fail(cpu, exit,
			      "the CPU left the guest for a reason KVM does not know (%#llx)",
			      run->hw.hardware_exit_reason);
		return;
	default:
		kvm_exit_fail(cpu, exit, "KVM exit %u at rip %#llx, which gnomon does not use",
			      run->exit_reason, rip);
	}
}

void kvm_exit_explain_errno(struct kvm_cpu *cpu, struct engine_exit *exit, int err)
{
	if (err == EFAULT && cpu->run->exit_reason == EXIT_MEMORY_FAULT)
		snprintf(cpu->why, sizeof(cpu->why),
			 "it cannot reach a frame of the machine: is the host out of memory?");
	else
		snprintf(cpu->why, sizeof(cpu->why), "KVM_RUN: %s", strerror(err));
	fail_for_good(cpu, exit, ENGINE_EXIT_ERROR);
}
