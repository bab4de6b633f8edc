/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fetching and decoding one guest instruction. Private to emulate.c: the only two files that know
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

/* The value of a 16-, 32- or 64-bit general register, or of IP after @insn, as an address uses it.
 */
uint64_t insn_read_reg(const struct insn *insn, const struct guest_regs *regs, ZydisRegister reg);

/* The linear address of a memory operand whose segment base is 0. */
gva_t insn_effective_address(const struct insn *insn, const struct guest_regs *regs,
			     const ZydisDecodedOperand *operand);

#endif
