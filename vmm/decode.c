/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One guest instruction: its bytes, what they mean, and the addresses and registers that it names.
 * Zydis decodes; which of what it finds is allowed is emulate.c's business.
 */
#include "vmm/decode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "notifier/sync/bug.h"

static bool init_decoder(ZydisDecoder *decoder)
{
	return ZYAN_SUCCESS(
		ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64));
}

/* Read @len more bytes of @insn, which do not cross into another page. */
static int fetch(struct emulate_ctxt *ctxt, struct insn *insn, unsigned int len)
{
	int err;

	ctxt->fault = (struct shadow_fault){
		.gva = insn->rip + insn->nr_bytes,
		.error_code = PFERR_FETCH,
	};
	err = shadow_read_gva(ctxt->shadow, ctxt->vcpu, insn->rip + insn->nr_bytes,
			      insn->bytes + insn->nr_bytes, len, PFERR_FETCH, &ctxt->fault);
	if (!err)
		insn->nr_bytes += len;
	return err;
}

static void decode(struct insn *insn)
{
	ZydisDecoder decoder;
	ZyanStatus status;

	if (WARN_ON(!init_decoder(&decoder)))
		return;
	status = ZydisDecoderDecodeFull(&decoder, insn->bytes, insn->nr_bytes, &insn->info,
					insn->operands);
	insn->valid = ZYAN_SUCCESS(status);
	insn->incomplete = status == ZYDIS_STATUS_NO_MORE_DATA;
}

/*
 * Page by page: the page after the one with RIP is read only if the instruction reaches into it, as
 * the CPU does. It need not be mapped otherwise, and must not become Accessed.
 */
int insn_fetch(struct emulate_ctxt *ctxt, struct insn *insn)
{
	unsigned int len = sizeof(insn->bytes);
	uint64_t left;
	int err;

	insn->rip = ctxt->regs->rip;
	insn->nr_bytes = 0;
	insn->valid = false;
	insn->incomplete = false;

	left = PAGE_SIZE - (insn->rip & ~PAGE_MASK);
	err = fetch(ctxt, insn, left < len ? left : len);
	if (err)
		return err;
	decode(insn);
	if (!insn->incomplete || insn->nr_bytes == len)
		return 0;
	err = fetch(ctxt, insn, len - insn->nr_bytes);
	if (err)
		return err;
	decode(insn);
	return 0;
}

static void format_bytes(const struct insn *insn, char *buf, size_t len)
{
	unsigned int i, n = insn->valid ? insn->info.length : insn->nr_bytes;
	size_t used = 0;

	buf[0] = '\0';
	for (i = 0; i < n && used < len; i++)
		used += snprintf(buf + used, len - used, "%s%02x", i ? " " : "", insn->bytes[i]);
}

void insn_describe(const struct insn *insn, char *buf, size_t len)
{
	char text[96], bytes[3 * sizeof(insn->bytes) + 1];
	ZydisFormatter formatter;

	if (insn->nr_bytes == 0) {
		snprintf(buf, len, "the instruction at 0x%" PRIx64, insn->rip);
		return;
	}
	if (!insn->valid)
		snprintf(text, sizeof(text), "an %s instruction",
			 insn->incomplete ? "incomplete" : "invalid");
	else if (!ZYAN_SUCCESS(ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)) ||
		 !ZYAN_SUCCESS(
			 ZydisFormatterFormatInstruction(&formatter, &insn->info, insn->operands,
							 insn->info.operand_count_visible, text,
							 sizeof(text), insn->rip, NULL)))
		snprintf(text, sizeof(text), "an instruction");
	format_bytes(insn, bytes, sizeof(bytes));
	snprintf(buf, len, "%s (%s) at 0x%" PRIx64, text, bytes, insn->rip);
}

/* Where a general register is: number, width and, of AH to BH, how far from the lowest bit. */
struct gpr_part {
	unsigned int nr, bits, shift;
};

static struct gpr_part gpr_part(ZydisRegister reg)
{
	unsigned int id = ZydisRegisterGetId(reg);

	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_GPR64:
		return (struct gpr_part){.nr = id, .bits = 64};
	case ZYDIS_REGCLASS_GPR32:
		return (struct gpr_part){.nr = id, .bits = 32};
	case ZYDIS_REGCLASS_GPR16:
		return (struct gpr_part){.nr = id, .bits = 16};
	default:
		ASSERT(ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8,
		       "register %d is a general one", (int)reg);
		/* AL CL DL BL, AH CH DH BH, SPL BPL SIL DIL, R8B to R15B. */
		if (id < 4)
			return (struct gpr_part){.nr = id, .bits = 8};
		return (struct gpr_part){.nr = id - 4, .bits = 8, .shift = id < 8 ? 8 : 0};
	}
}

uint64_t insn_get_gpr(const struct guest_regs *regs, ZydisRegister reg)
{
	struct gpr_part part = gpr_part(reg);

	return regs->gpr[part.nr] >> part.shift & ~0UL >> (64 - part.bits);
}

void insn_set_gpr(struct guest_regs *regs, ZydisRegister reg, uint64_t value)
{
	struct gpr_part part = gpr_part(reg);
	uint64_t mask = ~0UL >> (64 - part.bits) << part.shift;
	uint64_t kept = part.bits < 32 ? regs->gpr[part.nr] & ~mask : 0;

	regs->gpr[part.nr] = kept | (value << part.shift & mask);
}

/* What a register adds to an address: the instruction pointer's is that after @insn. */
static uint64_t address_part(const struct insn *insn, const struct guest_regs *regs,
			     ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_NONE)
		return 0;
	if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_IP)
		return insn->rip + insn->info.length;
	return insn_get_gpr(regs, reg);
}

gva_t insn_effective_address(const struct insn *insn, const struct guest_regs *regs,
			     const ZydisDecodedOperand *operand)
{
	gva_t gva = address_part(insn, regs, operand->mem.base) +
		    address_part(insn, regs, operand->mem.index) * operand->mem.scale;

	if (operand->mem.disp.has_displacement)
		gva += (uint64_t)operand->mem.disp.value;
	/* The address-size prefix: the sum is what is cut off, EIP-relative ones included. */
	if (insn->info.address_width == 32)
		gva = (uint32_t)gva;
	return gva;
}
