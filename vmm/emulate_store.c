/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One store of the guest's, done by us.
 *
 * Rules.
 *   1. The instruction is taken as it is found at RIP now. It may not be the one that faulted:
 *	another vCPU rewrote it, and then a CPU might have executed either.
 *   2. All checks come before any effect (shadow_operand_get); then memory, then registers and
 *	flags. What fails leaves nothing done, and with REP nothing of the round at hand.
 *   3. A change within eight aligned bytes is atomic, LOCKed or not. One that goes across is read,
 *	then written, as the architecture allows; LOCKed it is left to the CPU.
 *   4. What is not known in all its parts is left to the CPU, which has no trouble with it once the
 *	page is writable. Better slow than nearly right.
 */
#include "vmm/emulate_store.h"

#include <errno.h>
#include <inttypes.h>

#include "notifier/sync/util.h"
#include "vmm/alu.h"
#include "vmm/emulate_internal.h"

struct store {
	const struct insn *insn;
	struct shadow_operand operand;
	struct alu alu;
};

/* --- the operand in memory --- */

static enum emulate_result access_failed(struct emulate_ctxt *ctxt, const struct insn *insn,
					 uint32_t access, int err)
{
	const struct shadow_fault *fault = &ctxt->fault;

	switch (err) {
	case -EFAULT:
		return EMULATE_GUEST_PF;
	case -EAGAIN:
		return EMULATE_RETRY;
	case -ENOMEM:
		return emulate_refuse(ctxt, insn, EMULATE_NO_MEMORY, "no memory for its operand");
	case -EACCES:
		return kill_guest(ctxt, insn,
				  "0x%" PRIx64 " is in the part of memory that is the VMM's",
				  fault->gva);
	default:
		if (fault->hva != INVALID_HVA)
			return EMULATE_BAD_HVA;
		return kill_guest(ctxt, insn,
				  "0x%" PRIx64 ": guest physical address 0x%" PRIx64
				  " (%s) is neither memory nor a device",
				  fault->gva, fault->gpa, access ? "write" : "read");
	}
}

static enum emulate_result get_operand(struct emulate_ctxt *ctxt, const struct insn *insn,
				       gva_t gva, unsigned int bits, uint32_t access,
				       struct shadow_operand *operand)
{
	const struct guest_cpu *cpu = shadow_get_cpu(ctxt->shadow, ctxt->vcpu);
	unsigned int len = bits / 8;
	int err;

	/* The CPU raises #GP or #SS, and we have no such thing to raise. Let it. */
	if (!guest_canonical(cpu, gva) || !guest_canonical(cpu, gva + len - 1))
		return EMULATE_RETRY;
	err = shadow_operand_get(ctxt->shadow, ctxt->vcpu, gva, len, access, operand, &ctxt->fault);
	return err ? access_failed(ctxt, insn, access, err) : EMULATE_DONE;
}

/* The bases of all other segments are 0 in 64-bit mode. These two the guest may have changed
 * without the VMM. */
static bool base_unknown(const ZydisDecodedOperand *operand)
{
	return operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
	       (operand->mem.segment == ZYDIS_REGISTER_FS ||
		operand->mem.segment == ZYDIS_REGISTER_GS);
}

/* --- read, modify, write --- */

static void old_to_source(struct guest_regs *regs, const struct store *store)
{
	insn_set_gpr(regs, store->insn->operands[1].reg.value, store->alu.old);
}

static const ZydisRegister accumulators[] = {
	[1] = ZYDIS_REGISTER_AL,
	[2] = ZYDIS_REGISTER_AX,
	[4] = ZYDIS_REGISTER_EAX,
	[8] = ZYDIS_REGISTER_RAX,
};

static void old_to_accumulator(struct guest_regs *regs, const struct store *store)
{
	if (!(store->alu.rflags & RFLAGS_ZF))
		insn_set_gpr(regs, accumulators[store->alu.bits / 8], store->alu.old);
}

static void old_to_edx_eax(struct guest_regs *regs, const struct store *store)
{
	if (store->alu.rflags & RFLAGS_ZF)
		return;
	insn_set_gpr(regs, ZYDIS_REGISTER_EAX, store->alu.old);
	insn_set_gpr(regs, ZYDIS_REGISTER_EDX, store->alu.old >> 32);
}

/* What the CPU does with a memory operand, the first, and a source, the second if there is one. */
struct store_op {
	ZydisMnemonic mnemonic;
	void (*compute)(struct alu *alu);
	/* After the store: what registers change; NULL: none. */
	void (*registers)(struct guest_regs *regs, const struct store *store);
};

static const struct store_op store_ops[] = {
	{ZYDIS_MNEMONIC_MOV, alu_mov, NULL},
	{ZYDIS_MNEMONIC_MOVNTI, alu_mov, NULL},
	{ZYDIS_MNEMONIC_MOVBE, alu_movbe, NULL},
	{ZYDIS_MNEMONIC_XCHG, alu_mov, old_to_source},
	{ZYDIS_MNEMONIC_XADD, alu_add, old_to_source},
	{ZYDIS_MNEMONIC_CMPXCHG, alu_cmpxchg, old_to_accumulator},
	{ZYDIS_MNEMONIC_CMPXCHG8B, alu_cmpxchg8b, old_to_edx_eax},
	{ZYDIS_MNEMONIC_ADD, alu_add, NULL},
	{ZYDIS_MNEMONIC_OR, alu_or, NULL},
	{ZYDIS_MNEMONIC_ADC, alu_adc, NULL},
	{ZYDIS_MNEMONIC_SBB, alu_sbb, NULL},
	{ZYDIS_MNEMONIC_AND, alu_and, NULL},
	{ZYDIS_MNEMONIC_SUB, alu_sub, NULL},
	{ZYDIS_MNEMONIC_XOR, alu_xor, NULL},
	{ZYDIS_MNEMONIC_INC, alu_inc, NULL},
	{ZYDIS_MNEMONIC_DEC, alu_dec, NULL},
	{ZYDIS_MNEMONIC_NEG, alu_neg, NULL},
	{ZYDIS_MNEMONIC_NOT, alu_not, NULL},
	{ZYDIS_MNEMONIC_BTS, alu_bts, NULL},
	{ZYDIS_MNEMONIC_BTR, alu_btr, NULL},
	{ZYDIS_MNEMONIC_BTC, alu_btc, NULL},
};

static const struct store_op *find_op(const struct insn *insn)
{
	static const struct store_op setcc = {ZYDIS_MNEMONIC_INVALID, alu_mov, NULL};

	if (insn->info.meta.category == ZYDIS_CATEGORY_SETCC)
		return &setcc;
	for (size_t i = 0; i < ARRAY_SIZE(store_ops); i++) {
		if (store_ops[i].mnemonic == insn->info.mnemonic)
			return &store_ops[i];
	}
	return NULL;
}

/* What goes into the computation beside the operand in memory. False: a source not known here. */
static bool gather(const struct guest_regs *regs, const struct insn *insn, struct alu *alu)
{
	const ZydisDecodedOperand *from = &insn->operands[1];

	*alu = (struct alu){.bits = insn->operands[0].size, .rflags = regs->rflags};
	alu->acc = regs->gpr[GPR_RAX] & ~0UL >> (64 - alu->bits);
	if (insn->info.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B) {
		alu->src = regs->gpr[GPR_RCX] << 32 | (uint32_t)regs->gpr[GPR_RBX];
		alu->acc = regs->gpr[GPR_RDX] << 32 | (uint32_t)regs->gpr[GPR_RAX];
		return true;
	}
	if (insn->info.meta.category == ZYDIS_CATEGORY_SETCC) {
		alu->src = alu_condition(insn->info.opcode & 0xf, regs->rflags);
		return true;
	}
	if (insn->info.operand_count_visible == 1)
		return true;
	if (from->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		alu->src = from->imm.value.u & ~0UL >> (64 - alu->bits);
		return true;
	}
	if (from->type != ZYDIS_OPERAND_TYPE_REGISTER || from->size != alu->bits)
		return false;
	switch (ZydisRegisterGetClass(from->reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		alu->src = insn_get_gpr(regs, from->reg.value);
		return true;
	default:
		return false;
	}
}

static bool is_bit_string(const struct insn *insn)
{
	return insn->info.meta.category == ZYDIS_CATEGORY_BITBYTE &&
	       insn->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/*
 * A bit number in a register counts from the operand's address over all of memory, in both
 * directions: it says which operand as well as which bit of it.
 */
static gva_t operand_address(const struct guest_regs *regs, const struct insn *insn,
			     const struct alu *alu)
{
	gva_t gva = insn_effective_address(insn, regs, &insn->operands[0]);

	if (is_bit_string(insn)) {
		unsigned int unused = 64 - alu->bits;
		int64_t bit = (int64_t)(alu->src << unused) >> unused;

		gva += (bit & -(int64_t)alu->bits) / 8;
		if (insn->info.address_width == 32)
			gva = (uint32_t)gva;
	}
	return gva;
}

/* And put it. If the host has taken the operand away nothing is done: EMULATE_RETRY. */
static enum emulate_result modify(struct shadow *shadow, struct store *store,
				  void (*compute)(struct alu *alu))
{
	struct alu *alu = &store->alu;
	bool at_once = shadow_operand_in_word(&store->operand);
	uint64_t rflags = alu->rflags;
	int ret;

	alu->old = shadow_operand_read(shadow, &store->operand);
	do {
		alu->rflags = rflags; /* of the guest, not of an attempt that came to nothing */
		compute(alu);
		ret = at_once ? shadow_operand_cmpxchg(shadow, &store->operand, &alu->old,
						       alu->result)
			      : shadow_operand_write(shadow, &store->operand, alu->result);
	} while (ret > 0);
	shadow_operand_put(shadow, &store->operand);
	return ret ? EMULATE_RETRY : EMULATE_DONE;
}

/* XCHG with memory is LOCKed, whether it says so or not. */
static bool locked(const struct insn *insn)
{
	return (insn->info.attributes & ZYDIS_ATTRIB_HAS_LOCK) ||
	       insn->info.mnemonic == ZYDIS_MNEMONIC_XCHG;
}

static enum emulate_result emulate_rmw(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	const struct store_op *op = find_op(insn);
	const ZydisDecodedOperand *to = &insn->operands[0];
	struct store store = {.insn = insn};
	enum emulate_result result;
	gva_t gva;

	if (!op || to->type != ZYDIS_OPERAND_TYPE_MEMORY || base_unknown(to) ||
	    !gather(ctxt->regs, insn, &store.alu))
		return EMULATE_UNPROTECT;
	gva = operand_address(ctxt->regs, insn, &store.alu);
	if (locked(insn) && gva % 8 + store.alu.bits / 8 > 8)
		return EMULATE_UNPROTECT;
	result = get_operand(ctxt, insn, gva, store.alu.bits, PFERR_WRITE, &store.operand);
	if (result != EMULATE_DONE)
		return result;
	result = modify(ctxt->shadow, &store, op->compute);
	if (result != EMULATE_DONE)
		return result;

	ctxt->regs->rflags = store.alu.rflags;
	if (op->registers)
		op->registers(ctxt->regs, &store);
	return finish(ctxt, insn, EMULATE_DONE);
}

/* --- STOS and MOVS --- */

static bool is_stos(const struct insn *insn)
{
	switch (insn->info.mnemonic) {
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		return true;
	default:
		return false;
	}
}

static bool is_movs(const struct insn *insn)
{
	switch (insn->info.mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD: /* also the name of one with SSE registers */
	case ZYDIS_MNEMONIC_MOVSQ:
		return insn->info.meta.category == ZYDIS_CATEGORY_STRINGOP;
	default:
		return false;
	}
}

/* RSI, RDI and RCX of a string instruction; their lower halves with an address-size prefix. */
static ZydisRegister string_reg(const struct insn *insn, unsigned int gpr)
{
	return (insn->info.address_width == 32 ? ZYDIS_REGISTER_EAX : ZYDIS_REGISTER_RAX) + gpr;
}

static void advance(struct guest_regs *regs, const struct insn *insn, unsigned int gpr)
{
	ZydisRegister reg = string_reg(insn, gpr);
	int64_t bytes = insn->operands[0].size / 8;

	insn_set_gpr(regs, reg,
		     insn_get_gpr(regs, reg) + (regs->rflags & RFLAGS_DF ? -bytes : bytes));
}

static enum emulate_result load_source(struct emulate_ctxt *ctxt, const struct insn *insn,
				       uint64_t *value)
{
	gva_t gva = insn_get_gpr(ctxt->regs, string_reg(insn, GPR_RSI));
	struct shadow_operand operand;
	enum emulate_result result;

	result = get_operand(ctxt, insn, gva, insn->operands[1].size, 0, &operand);
	if (result != EMULATE_DONE)
		return result;
	*value = shadow_operand_read(ctxt->shadow, &operand);
	shadow_operand_put(ctxt->shadow, &operand);
	return EMULATE_DONE;
}

/* Once, without RCX. */
static enum emulate_result string_round(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	struct store store = {.insn = insn, .alu = {.bits = insn->operands[0].size}};
	gva_t gva = insn_get_gpr(ctxt->regs, string_reg(insn, GPR_RDI));
	enum emulate_result result = EMULATE_DONE;

	if (is_movs(insn))
		result = load_source(ctxt, insn, &store.alu.src);
	else
		store.alu.src = ctxt->regs->gpr[GPR_RAX] & ~0UL >> (64 - store.alu.bits);
	if (result == EMULATE_DONE)
		result = get_operand(ctxt, insn, gva, store.alu.bits, PFERR_WRITE, &store.operand);
	if (result != EMULATE_DONE)
		return result;
	result = modify(ctxt->shadow, &store, alu_mov);
	if (result != EMULATE_DONE)
		return result;

	advance(ctxt->regs, insn, GPR_RDI);
	if (is_movs(insn))
		advance(ctxt->regs, insn, GPR_RSI);
	return EMULATE_DONE;
}

/*
 * With REP each round is an instruction as far as faults and interrupts can tell: so a fault of the
 * tenth finds nine done and in the registers, and the guest may be let go on after any.
 */
static enum emulate_result emulate_string(struct emulate_ctxt *ctxt, const struct insn *insn)
{
	ZydisRegister count = string_reg(insn, GPR_RCX);
	enum emulate_result result;

	if (base_unknown(&insn->operands[1]) || (insn->info.attributes & ZYDIS_ATTRIB_HAS_REPNE))
		return EMULATE_UNPROTECT;
	if (!(insn->info.attributes & ZYDIS_ATTRIB_HAS_REP)) {
		result = string_round(ctxt, insn);
		return result == EMULATE_DONE ? finish(ctxt, insn, result) : result;
	}
	for (unsigned int i = 0; i < EMULATE_REP_MAX; i++) {
		uint64_t left = insn_get_gpr(ctxt->regs, count);

		if (left) {
			result = string_round(ctxt, insn);
			if (result != EMULATE_DONE)
				return result;
			insn_set_gpr(ctxt->regs, count, --left);
		}
		if (!left)
			return finish(ctxt, insn, EMULATE_DONE);
	}
	return EMULATE_DONE;
}

enum emulate_result emulate_store(struct emulate_ctxt *ctxt)
{
	struct insn insn;
	enum emulate_result result = emulate_fetch(ctxt, &insn);

	if (result != EMULATE_DONE)
		return result;
	/* After this instruction there is a trap to be raised: the CPU's part. */
	if (!insn.valid || (ctxt->regs->rflags & RFLAGS_TF))
		return EMULATE_UNPROTECT;
	if (is_stos(&insn) || is_movs(&insn))
		return emulate_string(ctxt, &insn);
	return emulate_rmw(ctxt, &insn);
}
