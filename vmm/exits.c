/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One switch from exit to handler. Each handler has three ways out: the guest runs on, the guest
 * erred and is killed (vm_kill), or the host cannot carry on (vm_fail). What the guest lacks only
 * for a while it waits for, and then runs on, into the same exit again (holes.h).
 *
 * A guest has no IDT of its own yet, so every exception that is not ours to handle ends it. Each
 * reason names the instruction, its address and what it wanted: it is all that the author of the
 * guest gets to see.
 */
#include <inttypes.h>
#include <stdio.h>

#include <gnomon/swap.h>

#include "notifier/sync/bug.h"
#include "vmm/cpl3.h"
#include "vmm/emulate_store.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

static const char *const exception_names[32] = {
	[0] = "#DE (division)",
	[1] = "#DB (debug)",
	[2] = "NMI",
	[3] = "#BP (breakpoint)",
	[4] = "#OF (overflow)",
	[5] = "#BR (bound range)",
	[6] = "#UD (invalid opcode)",
	[7] = "#NM (no FPU)",
	[8] = "#DF (double fault)",
	[10] = "#TS (invalid TSS)",
	[11] = "#NP (segment not present)",
	[12] = "#SS (stack fault)",
	[VECTOR_GP] = "#GP (general protection)",
	[VECTOR_PF] = "#PF (page fault)",
	[16] = "#MF (x87)",
	[17] = "#AC (alignment)",
	[18] = "#MC (machine check)",
	[19] = "#XM (SIMD)",
	[20] = "#VE (virtualization)",
	[21] = "#CP (control protection)",
};

/* "write", "read", "instruction fetch". */
static const char *access_name(uint32_t error_code)
{
	if (error_code & PFERR_FETCH)
		return "instruction fetch";
	return error_code & PFERR_WRITE ? "write" : "read";
}

/*
 * The instruction at RIP, for a reason. The guest ends, but its code may be out of reach just now.
 */
static void describe(struct vcpu *vcpu, char *buf, size_t len)
{
	struct emulate_ctxt *ctxt = &vcpu->emulate;

	do {
		vcpu->holes_seq = holes_seq(&vcpu->vm->holes);
		emulate_describe(ctxt, buf, len);
	} while (vcpu_wait_for_hole(vcpu, ctxt->fault.hva) && !vm_ended(vcpu->vm));
}

/* The guest's own tables forbid what the instruction at RIP did. */
static void kill_by_guest_fault(struct vcpu *vcpu, const struct shadow_fault *guest_fault)
{
	const struct shadow_fault fault = *guest_fault; /* describe() may have another */
	const struct engine *engine = vcpu->vm->engine;
	const char *cause = "not present";
	char insn[128];

	if (fault.error_code & PFERR_RSVD)
		cause = "reserved bit set";
	else if (fault.error_code & PFERR_PRESENT)
		cause = "not allowed";
	describe(vcpu, insn, sizeof(insn));
	if (!machine_reaches(&engine->machine, fault.gva)) {
		vm_kill(vcpu->vm,
			"#PF by %s on address 0x%" PRIx64
			" (%s): the %s engine's CPUs have no addresses below 0x%" PRIx64
			", nor from 0x%" PRIx64 " on",
			insn, fault.gva, access_name(fault.error_code), engine->ops->name,
			engine->machine.gva_first, engine->machine.gva_end);
		return;
	}
	vm_kill(vcpu->vm, "#PF by %s on address 0x%" PRIx64 " (%s, %s): the guest has no IDT", insn,
		fault.gva, access_name(fault.error_code), cause);
}

static void kill_by_exception(struct vcpu *vcpu, const struct engine_exit *exit)
{
	const char *name = exit->vector < 32 ? exception_names[exit->vector] : NULL;
	char insn[128];

	describe(vcpu, insn, sizeof(insn));
	vm_kill(vcpu->vm, "%s, vector %u, error code 0x%" PRIx32 ", by %s: the guest has no IDT",
		name ? name : "exception", exit->vector, exit->error_code, insn);
}

/* Someone took it for a while; or there is a memslot with nothing behind it, which is our bug. */
static void handle_bad_hva(struct vcpu *vcpu, const struct shadow_fault *fault)
{
	if (!vcpu_wait_for_hole(vcpu, fault->hva))
		vm_fail(vcpu->vm, VM_INTERNAL,
			"guest address 0x%" PRIx64 " is in a memslot, but the host's address space "
			"does not allow the access at 0x%" PRIx64,
			fault->gva, fault->hva);
}

static void kill_by_lack_of_frames(struct vm *vm, gva_t gva)
{
	struct reclaim_stats reclaim;
	char swap[64] = "there is no swap file";

	phys_reclaim_stats(vm->phys, &reclaim);
	if (reclaim.swap_slots)
		snprintf(swap, sizeof(swap), "of %" PRIu64 " pages of swap %" PRIu64 " are used",
			 reclaim.swap_slots, reclaim.swap_used);
	vm_kill(vm,
		"out of frames: %" PRIu64 " of %" PRIu64
		" are free, and none for address 0x%" PRIx64 " or its tables; %s",
		phys_nr_free(vm->phys), phys_nr_frames(vm->phys), gva, swap);
}

/* How an instruction that was carried out for the guest went. EMULATE_HALT and EMULATE_UNPROTECT
 * are for who asked. */
static void emulated(struct vcpu *vcpu, enum emulate_result result)
{
	struct emulate_ctxt *ctxt = &vcpu->emulate;
	struct vm *vm = vcpu->vm;

	switch (result) {
	case EMULATE_DONE:
		if (dev_console_failed(&vm->console))
			vm_fail(vm, VM_FAILED, "the guest's output cannot be written");
		return;
	case EMULATE_RETRY:
		return;
	case EMULATE_GUEST_PF:
		kill_by_guest_fault(vcpu, &ctxt->fault);
		return;
	case EMULATE_KILL:
		vm_kill(vm, "%s", ctxt->why);
		return;
	case EMULATE_BAD_HVA:
		handle_bad_hva(vcpu, &ctxt->fault);
		return;
	case EMULATE_NO_MEMORY:
		if (vcpu_wait_for_memory(vcpu))
			return;
		vm_kill(vm, "out of frames: %s", ctxt->why);
		return;
	case EMULATE_HALT:
	case EMULATE_UNPROTECT:
		break;
	}
	ASSERT(false, "an instruction ended with %d", result);
}

/*
 * A store to one of the guest's page tables, at @gpa, that is write-protected: carried out, so that
 * it stays so, or left to the CPU.
 */
static void handle_table_store(struct vcpu *vcpu, gpa_t gpa)
{
	enum emulate_result result = emulate_store(&vcpu->emulate);

	if (result == EMULATE_UNPROTECT) {
		atomic64_inc(&vcpu->unprotected);
		shadow_unprotect_gpa(vcpu->vm->shadow, gpa);
		return;
	}
	if (result == EMULATE_DONE)
		atomic64_inc(&vcpu->stores);
	emulated(vcpu, result);
}

static void handle_page_fault(struct vcpu *vcpu, const struct engine_exit *exit)
{
	struct vm *vm = vcpu->vm;
	struct shadow_fault fault = {
		.gva = exit->fault_address,
		.error_code = exit->error_code & (PFERR_WRITE | PFERR_FETCH),
	};
	char insn[128];
	enum ret_pf ret;

	if (exit->error_code & PFERR_RSVD) {
		vm_fail(vm, VM_INTERNAL,
			"a shadow entry for address 0x%" PRIx64 " has a reserved bit set",
			fault.gva);
		return;
	}
	ret = shadow_handle_fault(vm->shadow, vcpu->id, &fault);
	switch (ret) {
	case RET_PF_FIXED:
	case RET_PF_SPURIOUS:
	case RET_PF_RETRY:
		return;
	case RET_PF_GUEST:
		kill_by_guest_fault(vcpu, &fault);
		return;
	case RET_PF_RESERVED:
		describe(vcpu, insn, sizeof(insn));
		vm_kill(vm, "%s on address 0x%" PRIx64 " (%s): that part of memory is the VMM's",
			insn, fault.gva, access_name(fault.error_code));
		return;
	case RET_PF_EMULATE:
		describe(vcpu, insn, sizeof(insn));
		vm_kill(vm,
			"%s on address 0x%" PRIx64 ": guest physical address 0x%" PRIx64
			" (%s) is neither memory nor a device",
			insn, fault.gva, fault.gpa, access_name(fault.error_code));
		return;
	case RET_PF_NO_MEMORY:
		if (vcpu_wait_for_memory(vcpu))
			return;
		kill_by_lack_of_frames(vm, fault.gva);
		return;
	case RET_PF_BAD_HVA:
		handle_bad_hva(vcpu, &fault);
		return;
	case RET_PF_EXEC_ONLY:
		describe(vcpu, insn, sizeof(insn));
		vm_kill(vm,
			"%s: the guest's tables allow it to execute the page at 0x%" PRIx64
			" and not to read it, which shadow tables cannot express",
			insn, fault.gva);
		return;
	case RET_PF_WRITE_PROTECTED:
		handle_table_store(vcpu, fault.gpa);
		return;
	case RET_PF_DIRTY_RING_FULL:
		vcpu_wait_for_dirty_ring(vcpu);
		return;
	case RET_PF_HALTED:
		/* The machine says why when it is asked to run again. */
		return;
	}
	vm_fail(vm, VM_INTERNAL, "a page fault ended with %d", ret);
}

/*
 * #GP: a privileged instruction, or the guest's own mistake. No instruction that emulate.c carries
 * out raises anything else on any CPU.
 */
static void handle_general_protection(struct vcpu *vcpu)
{
	gva_t rip = vcpu->regs->rip;
	enum emulate_result result = emulate_trap(&vcpu->emulate);

	if (result == EMULATE_HALT)
		vm_kill(vcpu->vm, "hlt at 0x%" PRIx64 ": halted, and nothing can wake it", rip);
	else
		emulated(vcpu, result);
}

void vcpu_handle_exit(struct vcpu *vcpu, const struct engine_exit *exit)
{
	struct vm *vm = vcpu->vm;

	switch (exit->kind) {
	case ENGINE_EXIT_TRAP:
		atomic64_inc(&vcpu->traps);
		if (exit->vector == VECTOR_PF)
			handle_page_fault(vcpu, exit);
		else if (exit->vector == VECTOR_GP)
			handle_general_protection(vcpu);
		else
			kill_by_exception(vcpu, exit);
		return;
	case ENGINE_EXIT_KICK:
		return;
	case ENGINE_EXIT_HALTED:
		vm_fail(vm, VM_FAILED, "the machine was halted: %s", exit->why);
		return;
	case ENGINE_EXIT_ERROR:
		vm_fail(vm, VM_FAILED, "the %s engine: %s", vm->engine->ops->name, exit->why);
		return;
	case ENGINE_EXIT_FAIL:
		vm_kill(vm, "the %s engine cannot run it on: %s", vm->engine->ops->name, exit->why);
		return;
	}
}
