/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fetching and decoding one guest instruction. Private to emulate*.c: the only files that know
 * Zydis.
 */
#ifndef VMM_DECODE_H
#define VMM_DECODE_H

#include <Zydis/Zydis.h>

#include "vmm/emulate.h"

struct insn {
	gva_t rip;
	uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
	unsigned int nr_bytes; /* fetched; at least info.length if the instruction is valid */
	bool incomplete;       /* the bytes end before the instruction does */
	bool valid;	       /* the following two hold something */
	ZydisDecodedInstruction info;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/*
 * Fetch and decode what is at the guest's RIP. 0: look at insn->valid. -EFAULT with ctxt->fault
 * set, -ENXIO, -ENOMEM, -EAGAIN as shadow_read_gva gave it for the first page that could not be
 * read and that the instruction reaches into; bytes before it are in @insn.
 */
int insn_fetch(struct emulate_ctxt *ctxt, struct insn *insn);

/* "hlt (f4) at 0x100000". */
void insn_describe(const struct insn *insn, char *buf, size_t len);

/* A general register of any width. A write of 32 bits clears the upper half, as on a CPU. */
uint64_t insn_get_gpr(const struct guest_regs *regs, ZydisRegister reg);
void insn_set_gpr(struct guest_regs *regs, ZydisRegister reg, uint64_t value);

/* The linear address of a memory operand whose segment base is 0. */
gva_t insn_effective_address(const struct insn *insn, const struct guest_regs *regs,
			     const ZydisDecodedOperand *operand);

#endif
