/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the guest's kernel may do although it has no privilege.
 *
 * Rules.
 *   1. An instruction is carried out whole, RIP advanced, or not at all.
 *   2. What is not virtualised is refused by name, never ignored: a guest that believes to have
 *      switched something on goes wrong later and elsewhere.
 *   3. There is no virtual CPL yet: all guest code is the guest's kernel.
 *   4. The guest cannot raise exceptions in itself yet (it has no IDT), so what would be a #GP on a
 *      CPU kills as well.
 */
#include "vmm/emulate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/cpl3.h"
#include "vmm/emulate_internal.h"

#define CR3_RESERVED 0xfff0000000000000ULL

/*
 * What is virtualised of CR0 and CR4: the shadow MMU does it, whatever the real CPU has. Not the
 * rest of paging's bits: with SMAP we should have to know RFLAGS.AC, which POPF changes at CPL3
 * without a word; PKE comes with WRPKRU and PCIDE with INVPCID, which are not carried out; and LA57
 * is the machine's.
 */
#define CR0_VIRTUAL CR0_WP
#define CR4_VIRTUAL (CR4_PGE | CR4_SMEP)

/* Only bits that a guest may find missing have names; the others are told by number. */
struct bit_name {
	unsigned int bit;
	const char *name;
};

static const struct bit_name cr0_bits[] = {
	{0, "PE"},  {1, "MP"},	{2, "EM"},  {3, "TS"},	{4, "ET"},  {5, "NE"},
	{16, "WP"}, {18, "AM"}, {29, "NW"}, {30, "CD"}, {31, "PG"},
};

static const struct bit_name cr4_bits[] = {
	{0, "VME"},	    {1, "PVI"},	   {2, "TSD"},	    {3, "DE"},	  {4, "PSE"},
	{5, "PAE"},	    {6, "MCE"},	   {7, "PGE"},	    {8, "PCE"},	  {9, "OSFXSR"},
	{10, "OSXMMEXCPT"}, {11, "UMIP"},  {12, "LA57"},    {13, "VMXE"}, {14, "SMXE"},
	{16, "FSGSBASE"},   {17, "PCIDE"}, {18, "OSXSAVE"}, {20, "SMEP"}, {21, "SMAP"},
	{22, "PKE"},	    {23, "CET"},   {24, "PKS"},
};

const char *emulate_result_name(enum emulate_result result)
{
	switch (result) {
	case EMULATE_DONE:
		return "done";
	case EMULATE_HALT:
		return "halt";
	case EMULATE_RETRY:
		return "retry";
	case EMULATE_GUEST_PF:
		return "guest page fault";
	case EMULATE_KILL:
		return "kill";
	case EMULATE_BAD_HVA:
		return "refused by the host";
	case EMULATE_NO_MEMORY:
		return "no memory";
	case EMULATE_UNPROTECT:
		return "to be unprotected";
	}
	return "unknown";
}

void vcpu_cr_init(struct vcpu_cr *cr, uint64_t cr3)
{
	*cr = (struct vcpu_cr){
		.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG,
		.cr3 = cr3,
		.cr4 = CR4_PAE,
	};
}

int vcpu_cr_load(struct shadow *shadow, unsigned int vcpu, const struct vcpu_cr *cr)
{
	struct guest_cpu cpu = *shadow_get_cpu(shadow, vcpu);

	cpu.cr0 = cr->cr0;
	cpu.cr3 = cr->cr3;
	cpu.cr4 = cr->cr4;
	return shadow_set_cpu(shadow, vcpu, &cpu);
}

enum emulate_result emulate_refuse(struct emulate_ctxt *ctxt, const struct insn *insn,
				   enum emulate_result result, const char *fmt, ...)
{
	size_t used;
	va_list ap;

	/* However long the instruction, there is room for what is wrong with it. */
	insn_describe(insn, ctxt->why, sizeof(ctxt->why) - 80);
	used = strlen(ctxt->why);
	used += snprintf(ctxt->why + used, sizeof(ctxt->why) - used, ": ");
	va_start(ap, fmt);
	vsnprintf(ctxt->why + used, sizeof(ctxt->why) - used, fmt, ap);
	va_end(ap);
	return result;
}

/* The port operand of IN and OUT: DX or an immediate byte. */
static uint16_t port_of(const struct emulate_ctxt *ctxt, const ZydisDecodedOperand *operand)
{
	if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return operand->imm.value.u & 0xff;
	return ctxt->regs->gpr[GPR_RDX];
}

static enum emulate_result emulate_in(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	uint64_t *rax = &ctxt->regs->gpr[GPR_RAX];
	unsigned int size = insn->operands[0].size / 8;
	uint32_t val;

	bus_in(ctxt->bus, port_of(ctxt, &insn->operands[1]), size, &val);
	/* AL and AX leave the rest of RAX alone; EAX, as every 32-bit result, clears its upper
	 * half. */
	if (size == 1)
		*rax = (*rax & ~0xffUL) | val;
	else if (size == 2)
		*rax = (*rax & ~0xffffUL) | val;
	else
		*rax = val;
	return finish(ctxt, insn, EMULATE_DONE);
}

static enum emulate_result emulate_out(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	unsigned int size = insn->operands[1].size / 8;

	bus_out(ctxt->bus, port_of(ctxt, &insn->operands[0]), size, ctxt->regs->gpr[GPR_RAX]);
	return finish(ctxt, insn, EMULATE_DONE);
}

/* "OSFXSR (bit 9), bit 40": the bits set in @bits. */
static void name_bits(uint64_t bits, const struct bit_name *names, size_t nr, char *buf, size_t len)
{
	size_t used = 0, i;
	unsigned int bit;

	buf[0] = '\0';
	for (bit = 0; bit < 64 && used < len; bit++) {
		const char *name = NULL;

		if (!(bits & (1UL << bit)))
			continue;
		for (i = 0; i < nr; i++) {
			if (names[i].bit == bit)
				name = names[i].name;
		}
		used += snprintf(buf + used, len - used, name ? "%s%s (bit %u)" : "%s%sbit %u",
				 used ? ", " : "", name ? name : "", bit);
	}
}

static enum emulate_result refuse_bits(struct emulate_ctxt *ctxt, const struct insn *insn,
				       const char *reg, uint64_t old, uint64_t value,
				       uint64_t changed, const struct bit_name *names, size_t nr)
{
	char bits[96];

	name_bits(changed, names, nr, bits, sizeof(bits));
	return kill_guest(ctxt, insn,
			  "changes bits of %s that are not virtualised (0x%" PRIx64 " to 0x%" PRIx64
			  "): %s",
			  reg, old, value, bits);
}

/* The vCPU goes on as @cr says. */
static enum emulate_result load_cr(struct emulate_ctxt *ctxt, const struct insn *insn,
				   const struct vcpu_cr *cr)
{
	if (vcpu_cr_load(ctxt->shadow, ctxt->vcpu, cr))
		return emulate_refuse(ctxt, insn, EMULATE_NO_MEMORY,
				      "no memory for the new shadow root");
	*ctxt->cr = *cr;
	return finish(ctxt, insn, EMULATE_DONE);
}

static enum emulate_result write_cr0(struct emulate_ctxt *ctxt, const struct insn *insn,
				     uint64_t value)
{
	struct vcpu_cr cr = *ctxt->cr;
	uint64_t changed;

	value |= CR0_ET; /* hardwired: a write of 0 is no change */
	changed = (value ^ cr.cr0) & ~(uint64_t)CR0_VIRTUAL;
	if (changed)
		return refuse_bits(ctxt, insn, "CR0", cr.cr0, value, changed, cr0_bits,
				   ARRAY_SIZE(cr0_bits));
	cr.cr0 = value;
	return load_cr(ctxt, insn, &cr);
}

static enum emulate_result write_cr4(struct emulate_ctxt *ctxt, const struct insn *insn,
				     uint64_t value)
{
	struct vcpu_cr cr = *ctxt->cr;
	uint64_t changed = (value ^ cr.cr4) & ~(uint64_t)CR4_VIRTUAL;

	if (changed)
		return refuse_bits(ctxt, insn, "CR4", cr.cr4, value, changed, cr4_bits,
				   ARRAY_SIZE(cr4_bits));
	cr.cr4 = value;
	return load_cr(ctxt, insn, &cr);
}

static enum emulate_result write_cr3(struct emulate_ctxt *ctxt, const struct insn *insn,
				     uint64_t value)
{
	int err;

	if (value & CR3_RESERVED)
		return kill_guest(ctxt, insn,
				  "CR3 0x%" PRIx64 " has reserved bits above the 52-bit address",
				  value);
	/* The low 12 bits are cacheability hints and, without CR4.PCIDE, nothing. */
	err = shadow_load_cr3(ctxt->shadow, ctxt->vcpu, value);
	if (err)
		return emulate_refuse(ctxt, insn, EMULATE_NO_MEMORY,
				      "no memory for the new shadow root");
	ctxt->cr->cr3 = value;
	return finish(ctxt, insn, EMULATE_DONE);
}

static enum emulate_result write_cr(struct emulate_ctxt *ctxt, const struct insn *insn,
				    ZydisRegister reg, uint64_t value)
{
	struct vcpu_cr *cr = ctxt->cr;

	switch (reg) {
	case ZYDIS_REGISTER_CR0:
		return write_cr0(ctxt, insn, value);
	case ZYDIS_REGISTER_CR2:
		cr->cr2 = value;
		return finish(ctxt, insn, EMULATE_DONE);
	case ZYDIS_REGISTER_CR3:
		return write_cr3(ctxt, insn, value);
	case ZYDIS_REGISTER_CR4:
		return write_cr4(ctxt, insn, value);
	default:
		return kill_guest(ctxt, insn, "this control register is not virtualised");
	}
}

static enum emulate_result read_cr(struct emulate_ctxt *ctxt, const struct insn *insn,
				   ZydisRegister reg, uint64_t *value)
{
	const struct vcpu_cr *cr = ctxt->cr;

	switch (reg) {
	case ZYDIS_REGISTER_CR0:
		*value = cr->cr0;
		break;
	case ZYDIS_REGISTER_CR2:
		*value = cr->cr2;
		break;
	case ZYDIS_REGISTER_CR3:
		*value = cr->cr3;
		break;
	case ZYDIS_REGISTER_CR4:
		*value = cr->cr4;
		break;
	default:
		return kill_guest(ctxt, insn, "this control register is not virtualised");
	}
	return finish(ctxt, insn, EMULATE_DONE);
}

static bool is_register(const ZydisDecodedOperand *operand, ZydisRegisterClass class)
{
	return operand->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(operand->reg.value) == class;
}

static enum emulate_result emulate_mov(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	const ZydisDecodedOperand *to = &insn->operands[0], *from = &insn->operands[1];
	uint64_t *gpr = ctxt->regs->gpr;

	if (is_register(to, ZYDIS_REGCLASS_CONTROL) && is_register(from, ZYDIS_REGCLASS_GPR64))
		return write_cr(ctxt, insn, to->reg.value,
				gpr[ZydisRegisterGetId(from->reg.value)]);
	if (is_register(to, ZYDIS_REGCLASS_GPR64) && is_register(from, ZYDIS_REGCLASS_CONTROL))
		return read_cr(ctxt, insn, from->reg.value,
			       &gpr[ZydisRegisterGetId(to->reg.value)]);
	return kill_guest(ctxt, insn,
			  "raised #GP, and is not a privileged instruction that the VMM "
			  "carries out");
}

static enum emulate_result emulate_invlpg(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	const ZydisDecodedOperand *operand = &insn->operands[0];
	gva_t gva;

	/* The bases of all others are 0 in 64-bit mode. These two the guest may have changed
	 * (WRGSBASE) without the VMM. */
	if (operand->mem.segment == ZYDIS_REGISTER_FS || operand->mem.segment == ZYDIS_REGISTER_GS)
		return kill_guest(ctxt, insn, "FS and GS are not virtualised");

	gva = insn_effective_address(insn, ctxt->regs, operand);
	if (canonical(gva))
		shadow_invlpg(ctxt->shadow, ctxt->vcpu, gva);
	return finish(ctxt, insn, EMULATE_DONE);
}

static enum emulate_result emulate_insn(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	switch (insn->info.mnemonic) {
	case ZYDIS_MNEMONIC_IN:
		return emulate_in(ctxt, insn);
	case ZYDIS_MNEMONIC_OUT:
		return emulate_out(ctxt, insn);
	case ZYDIS_MNEMONIC_HLT:
		return finish(ctxt, insn, EMULATE_HALT);
	case ZYDIS_MNEMONIC_CLI:
		ctxt->interrupts = false;
		return finish(ctxt, insn, EMULATE_DONE);
	case ZYDIS_MNEMONIC_STI:
		ctxt->interrupts = true;
		return finish(ctxt, insn, EMULATE_DONE);
	case ZYDIS_MNEMONIC_MOV:
		return emulate_mov(ctxt, insn);
	case ZYDIS_MNEMONIC_INVLPG:
		return emulate_invlpg(ctxt, insn);
	case ZYDIS_MNEMONIC_INSB:
	case ZYDIS_MNEMONIC_INSW:
	case ZYDIS_MNEMONIC_INSD:
	case ZYDIS_MNEMONIC_OUTSB:
	case ZYDIS_MNEMONIC_OUTSW:
	case ZYDIS_MNEMONIC_OUTSD:
		return kill_guest(ctxt, insn,
				  "string I/O is not carried out: use IN or OUT in a loop");
	default:
		return kill_guest(ctxt, insn,
				  "raised #GP, and is not a privileged instruction that "
				  "the VMM carries out");
	}
}

enum emulate_result emulate_fetch(struct emulate_ctxt *ctxt, struct insn *insn)
{
	ctxt->why[0] = '\0';
	switch (insn_fetch(ctxt, insn)) {
	case 0:
		return EMULATE_DONE;
	case -EFAULT:
		return EMULATE_GUEST_PF;
	case -EAGAIN:
		return EMULATE_RETRY;
	case -ENOMEM:
		return emulate_refuse(ctxt, insn, EMULATE_NO_MEMORY, "no memory to fetch it");
	default:
		if (ctxt->fault.hva != INVALID_HVA)
			return EMULATE_BAD_HVA;
		return kill_guest(ctxt, insn,
				  "it cannot be fetched: 0x%" PRIx64
				  " maps to no memory of the guest",
				  ctxt->fault.gva);
	}
}

enum emulate_result emulate_trap(struct emulate_ctxt *ctxt)
{
	struct insn insn;
	enum emulate_result result = emulate_fetch(ctxt, &insn);

	if (result != EMULATE_DONE)
		return result;
	if (!insn.valid)
		return kill_guest(ctxt, &insn, "raised #GP");
	return emulate_insn(ctxt, &insn);
}

void emulate_describe(struct emulate_ctxt *ctxt, char *buf, size_t len)
{
	struct insn insn;

	/* What could be fetched is told; why the rest could not is of no interest here. */
	(void)insn_fetch(ctxt, &insn);
	insn_describe(&insn, buf, len);
}
