/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Privileged instructions of a deprivileged guest. The guest's kernel runs at CPL3, so the CPU
 * refuses them with #GP and the run loop brings them here: IN, OUT, HLT, CLI, STI, MOV to and from
 * CR0, CR2, CR3 and CR4, INVLPG. Whatever else ends in #GP kills the guest, with the instruction in
 * the reason.
 *
 * A ctxt belongs to one vCPU and is used on its thread only.
 */
#ifndef VMM_EMULATE_H
#define VMM_EMULATE_H

#include <gnomon/shadow.h>

#include "vmm/bus.h"
#include "vmm/engine.h"

enum emulate_result {
	EMULATE_DONE,  /* carried out, RIP advanced. After an OUT, see whether dev_exit was hit */
	EMULATE_HALT,  /* HLT, RIP advanced: the guest wants to sleep */
	EMULATE_RETRY, /* the instruction could not be fetched just now: run the guest again */
	EMULATE_GUEST_PF,  /* the guest's own tables forbid the fetch: #PF with ctxt->fault */
	EMULATE_KILL,	   /* the guest may not do this: ctxt->why */
	EMULATE_BAD_HVA,   /* the host's mm does not let us at the instruction: ctxt->fault.hva */
	EMULATE_NO_MEMORY, /* the host ran out: ctxt->why. The instruction was not carried out */
	EMULATE_UNPROTECT, /* emulate_store() only: not one that is carried out; the CPU has to */
};

const char *emulate_result_name(enum emulate_result result);

/*
 * The control registers as the guest sees them. Those that the CPU really has are the engine's. Of
 * CR0 WP may change, of CR4 PGE and SMEP; a write that changes another bit kills. CR2 is plain
 * storage. CR3 is kept as written; its address part is the shadow's root.
 */
struct vcpu_cr {
	uint64_t cr0;
	uint64_t cr2;
	uint64_t cr3;
	uint64_t cr4;
};

#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_PG (1u << 31)

#define CR4_PAE	 (1u << 5)
#define CR4_PGE	 (1u << 7)
#define CR4_SMEP (1u << 20)

/* As at entry to the guest (guests/lib/boot.h). The caller loads them. */
void vcpu_cr_init(struct vcpu_cr *cr, uint64_t cr3);
/* The shadow MMU walks and maps for @vcpu as @cr says. 0 or -ENOMEM: then as before. */
int vcpu_cr_load(struct shadow *shadow, unsigned int vcpu, const struct vcpu_cr *cr);

struct emulate_ctxt {
	/* Set up by the caller, once. */
	struct shadow *shadow;
	unsigned int vcpu;
	struct vcpu_cr *cr;
	struct bus *bus;
	struct guest_regs *regs; /* engine_ops.regs; looked at while the vCPU is out of the guest */

	/* Kept here. The guest's IF, off at entry; there is nothing yet that could interrupt it. */
	bool interrupts;

	/* The outcome of the last call. */
	struct shadow_fault fault; /* EMULATE_GUEST_PF: gva and error_code; BAD_HVA: gva and hva */
	char why[256];		   /* EMULATE_KILL, EMULATE_NO_MEMORY: one line */
};

/* Carry out the instruction at RIP, for which the CPU raised #GP. */
enum emulate_result emulate_trap(struct emulate_ctxt *ctxt);

/*
 * The instruction at RIP for a human, such as "ud2 (0f 0b) at 0x100120", to be used in the reason
 * why any other exception killed the guest. Always gives something, at worst the address.
 */
void emulate_describe(struct emulate_ctxt *ctxt, char *buf, size_t len);

#endif
