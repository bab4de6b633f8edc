/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stores carried out by the VMM and by the real CPU: the same bytes, at the same addresses, with
 * the same registers and memory, at random. Registers, flags and memory must be the same
 * afterwards.
 */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "notifier/sync/util.h"
#include "tests/model/guest_mem.h"
#include "tests/support/native_insn.h"
#include "tests/support/test.h"
#include "vmm/alu.h"
#include "vmm/emulate_store.h"

#define CODE_GPA 0x2000UL
#define DATA_LEN (2 * PAGE_SIZE)
#define RFLAGS	 0x202UL

enum { RSP = GPR_RSP, NO_REG = 16 };

/* Where the two pages of data are in the guest: not neighbours. */
static const gpa_t data_gpa[2] = {0x7000, 0x4000};

struct rig {
	struct guest_mem g;
	struct guest_regs regs;
	struct emulate_ctxt ctxt;
	uint64_t random;
	uint8_t *data;
	uint64_t stack_top;
	size_t at; /* of the instruction, in the page of code */
	uint8_t insn[15];
	size_t len;
	struct native_regs native;
	unsigned int crossings, left_to_cpu;
};

static uint64_t next(struct rig *r)
{
	r->random ^= r->random << 13;
	r->random ^= r->random >> 7;
	r->random ^= r->random << 17;
	return r->random;
}

static bool one_in(struct rig *r, unsigned int n)
{
	return (next(r) >> 20) % n == 0;
}

/* Values at the edges as often as any. */
static uint64_t value(struct rig *r)
{
	static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0x7fff, 0x8000, 0x7fffffff, 0x80000000};
	uint64_t edge = edges[next(r) % ARRAY_SIZE(edges)];

	switch (next(r) % 5) {
	case 0:
		return edge;
	case 1:
		return -edge;
	case 2:
		return edge << 32 | edge;
	case 3:
		return next(r) >> next(r) % 64;
	default:
		return next(r);
	}
}

static void setup(struct rig *r)
{
	static const struct guest_mem_config config = {0};
	uint64_t flags = GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D;
	uint8_t *stack;

	*r = (struct rig){.random = 0x1234567 + test_long()};
	native_insn_init();
	r->data = native_memory(DATA_LEN, PROT_READ | PROT_WRITE);
	stack = native_memory(0x10000, PROT_READ | PROT_WRITE);
	r->stack_top = (uint64_t)stack + 0xf000;

	guest_mem_create(&r->g, &config);
	guest_map(&r->g, r->g.cr3, (gva_t)native_code, CODE_GPA, flags);
	for (unsigned int i = 0; i < 2; i++)
		guest_map(&r->g, r->g.cr3, (gva_t)r->data + i * PAGE_SIZE, data_gpa[i], flags);
	for (size_t i = 0; i < DATA_LEN; i++)
		r->data[i] = next(r);
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(shadow_write_gpa(r->g.shadow, data_gpa[i], r->data + i * PAGE_SIZE,
					   PAGE_SIZE),
			  0);
	r->ctxt = (struct emulate_ctxt){.shadow = r->g.shadow, .regs = &r->regs};
}

static void teardown(struct rig *r)
{
	guest_mem_destroy(&r->g);
}

/* To the CPU's memory and the guest's. */
static void poke(struct rig *r, uint64_t pos, uint64_t v, unsigned int len)
{
	memcpy(r->data + pos, &v, len);
	for (unsigned int i = 0; i < len; i++) {
		gpa_t gpa = data_gpa[(pos + i) / PAGE_SIZE] + (pos + i) % PAGE_SIZE;

		expect_eq(shadow_write_gpa(r->g.shadow, gpa, r->data + pos + i, 1), 0);
	}
}

static void emit(struct rig *r, uint64_t bytes, unsigned int len)
{
	memcpy(r->insn + r->len, &bytes, len);
	r->len += len;
}

static void random_registers(struct rig *r)
{
	for (unsigned int i = 0; i < 16; i++)
		r->native.gpr[i] = value(r);
	r->native.gpr[RSP] = r->stack_top - next(r) % 64 * 16;
	r->native.rflags = RFLAGS | (next(r) & RFLAGS_ARITHMETIC);
}

/* --- running both --- */

static void differ(const struct rig *r, const char *name, const char *what, uint64_t cpu,
		   uint64_t vmm)
{
	char bytes[64] = "";

	for (size_t i = 0; i < r->len; i++)
		sprintf(bytes + strlen(bytes), " %02x", r->insn[i]);
	fail("%s (%s ): %s is 0x%lx with the CPU, 0x%lx with the VMM", name, bytes + 1, what, cpu,
	     vmm);
}

static void compare(struct rig *r, const char *name, uint64_t undefined)
{
	static uint8_t found[DATA_LEN];
	uint64_t flags = (RFLAGS_ARITHMETIC & ~undefined) | RFLAGS_DF;
	char what[16];

	for (unsigned int i = 0; i < 16; i++) {
		snprintf(what, sizeof(what), "register %u", i);
		if (r->regs.gpr[i] != r->native.gpr[i])
			differ(r, name, what, r->native.gpr[i], r->regs.gpr[i]);
	}
	if ((r->regs.rflags ^ r->native.rflags) & flags)
		differ(r, name, "RFLAGS", r->native.rflags & flags, r->regs.rflags & flags);
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(shadow_read_gpa(r->g.shadow, data_gpa[i], found + i * PAGE_SIZE,
					  PAGE_SIZE),
			  0);
	for (size_t i = 0; i < DATA_LEN && memcmp(found, r->data, DATA_LEN); i++) {
		snprintf(what, sizeof(what), "byte 0x%zx", i);
		if (found[i] != r->data[i])
			differ(r, name, what, r->data[i], found[i]);
	}
}

/* The instruction by the VMM, once. */
static enum emulate_result emulate(struct rig *r)
{
	expect_eq(shadow_write_gpa(r->g.shadow, CODE_GPA + r->at, r->insn, r->len), 0);
	memcpy(r->regs.gpr, r->native.gpr, sizeof(r->regs.gpr));
	r->regs.rip = (uint64_t)native_code + r->at;
	r->regs.rflags = r->native.rflags;
	return emulate_store(&r->ctxt);
}

static void run_native(struct rig *r)
{
	memcpy(native_code + r->at, r->insn, r->len);
	native_insn_run(r->at, r->len, &r->native);
}

static void run_both(struct rig *r, const char *name, uint64_t undefined)
{
	enum emulate_result result = emulate(r);

	if (result != EMULATE_DONE)
		differ(r, name, emulate_result_name(result), EMULATE_DONE, result);
	if (r->regs.rip != (uint64_t)native_code + r->at + r->len)
		differ(r, name, "RIP", (uint64_t)native_code + r->at + r->len, r->regs.rip);
	run_native(r);
	compare(r, name, undefined);
}

/* A LOCKed operand that is in two words: left to the CPU, and nothing done. */
static void run_refused(struct rig *r, const char *name)
{
	enum emulate_result result = emulate(r);

	if (result != EMULATE_UNPROTECT)
		differ(r, name, emulate_result_name(result), EMULATE_UNPROTECT, result);
	expect_eq(r->regs.rip, (uint64_t)native_code + r->at);
	compare(r, name, 0);
	r->left_to_cpu++;
}

/* --- forms of instructions --- */

enum immediate { IMM_NONE, IMM_BYTE, IMM_FULL };

#define B8   0x1u
#define B16  0x2u
#define B32  0x4u
#define B64  0x8u
#define WIDE (B16 | B32 | B64)

#define LOCKABLE   0x1u /* takes LOCK */
#define LOCKED	   0x2u /* is LOCKed anyway */
#define SETS_REG   0x4u /* writes its register */
#define BIT_STRING 0x8u /* the register picks a bit of all memory */
#define COMPARES   0x10u
#define MOFFS	   0x20u /* the address is in the instruction, whole, and no ModRM */

#define REG (-1)

struct form {
	const char *name;
	unsigned int sizes;
	uint8_t nr_opcode, opcode[3];
	int reg; /* ModRM.reg, or REG: a register */
	enum immediate imm;
	unsigned int flags;
	uint64_t undefined; /* arithmetic flags that the manual promises nothing about */
};

#define BIT_UNDEFINED (RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF)

#define ALU(name, nr, undefined)                                                      \
	{name, B8, 1, {(nr) << 3}, REG, IMM_NONE, LOCKABLE, undefined},               \
		{name, WIDE, 1, {(nr) << 3 | 1}, REG, IMM_NONE, LOCKABLE, undefined}, \
		{name, B8, 1, {0x80}, nr, IMM_BYTE, LOCKABLE, undefined},             \
		{name, WIDE, 1, {0x81}, nr, IMM_FULL, LOCKABLE, undefined},           \
	{                                                                             \
		name, WIDE, 1, {0x83}, nr, IMM_BYTE, LOCKABLE, undefined              \
	}

#define UNARY(name, op, nr)                                          \
	{name, B8, 1, {op}, nr, IMM_NONE, LOCKABLE, 0},              \
	{                                                            \
		name, WIDE, 1, {(op) + 1}, nr, IMM_NONE, LOCKABLE, 0 \
	}

#define BIT(name, op, nr)                                                                 \
	{name, WIDE, 2, {0x0f, op}, REG, IMM_NONE, LOCKABLE | BIT_STRING, BIT_UNDEFINED}, \
	{                                                                                 \
		name, WIDE, 2, {0x0f, 0xba}, nr, IMM_BYTE, LOCKABLE, BIT_UNDEFINED        \
	}

#define SET(name, cc)                                               \
	{                                                           \
		name, B8, 2, {0x0f, 0x90 | (cc)}, 0, IMM_NONE, 0, 0 \
	}

static const struct form forms[] = {
	{"mov", B8, 1, {0x88}, REG, IMM_NONE, 0, 0},
	{"mov", WIDE, 1, {0x89}, REG, IMM_NONE, 0, 0},
	{"mov", B8, 1, {0xc6}, 0, IMM_BYTE, 0, 0},
	{"mov", WIDE, 1, {0xc7}, 0, IMM_FULL, 0, 0},
	{"mov", B8, 1, {0xa2}, 0, IMM_NONE, MOFFS, 0},
	{"mov", WIDE, 1, {0xa3}, 0, IMM_NONE, MOFFS, 0},
	{"movnti", B32 | B64, 2, {0x0f, 0xc3}, REG, IMM_NONE, 0, 0},
	{"movbe", WIDE, 3, {0x0f, 0x38, 0xf1}, REG, IMM_NONE, 0, 0},
	{"xchg", B8, 1, {0x86}, REG, IMM_NONE, LOCKABLE | LOCKED | SETS_REG, 0},
	{"xchg", WIDE, 1, {0x87}, REG, IMM_NONE, LOCKABLE | LOCKED | SETS_REG, 0},
	{"xadd", B8, 2, {0x0f, 0xc0}, REG, IMM_NONE, LOCKABLE | SETS_REG, 0},
	{"xadd", WIDE, 2, {0x0f, 0xc1}, REG, IMM_NONE, LOCKABLE | SETS_REG, 0},
	{"cmpxchg", B8, 2, {0x0f, 0xb0}, REG, IMM_NONE, LOCKABLE | COMPARES, 0},
	{"cmpxchg", WIDE, 2, {0x0f, 0xb1}, REG, IMM_NONE, LOCKABLE | COMPARES, 0},
	{"cmpxchg8b", B32, 2, {0x0f, 0xc7}, 1, IMM_NONE, LOCKABLE | COMPARES, 0},
	ALU("add", 0, 0),
	ALU("or", 1, RFLAGS_AF),
	ALU("adc", 2, 0),
	ALU("sbb", 3, 0),
	ALU("and", 4, RFLAGS_AF),
	ALU("sub", 5, 0),
	ALU("xor", 6, RFLAGS_AF),
	UNARY("inc", 0xfe, 0),
	UNARY("dec", 0xfe, 1),
	UNARY("not", 0xf6, 2),
	UNARY("neg", 0xf6, 3),
	BIT("bts", 0xab, 5),
	BIT("btr", 0xb3, 6),
	BIT("btc", 0xbb, 7),
	SET("seto", 0),
	SET("setno", 1),
	SET("setb", 2),
	SET("setnb", 3),
	SET("setz", 4),
	SET("setnz", 5),
	SET("setbe", 6),
	SET("setnbe", 7),
	SET("sets", 8),
	SET("setns", 9),
	SET("setp", 10),
	SET("setnp", 11),
	SET("setl", 12),
	SET("setnl", 13),
	SET("setle", 14),
	SET("setnle", 15),
};

/* --- a case --- */

/* How the operand is addressed. */
struct address {
	uint64_t target;
	bool short_address; /* the prefix: 32 bits */
	unsigned int mod, rm, base, index, scale;
	int32_t disp;
};

/* One of the ways that there are, no register set yet. */
static void choose_form(struct rig *r, struct address *a)
{
	a->mod = next(r) % 3;
	a->rm = next(r) % 8;
	a->base = a->rm | (next(r) & 8);
	a->index = NO_REG;
	a->short_address = one_in(r, 8);
	if (a->rm == 4) {
		a->base = next(r) % 16;
		a->index = next(r) % 16;
		a->scale = next(r) % 4;
		if (a->index == RSP)
			a->index = NO_REG;
	}
	if (a->mod == 0 && (a->base & 7) == 5)
		a->base = NO_REG; /* RIP, or with SIB nothing */
	if (a->base == RSP || (a->base == a->index && a->base != NO_REG))
		a->mod = 2;
}

static uint64_t scaled(const struct rig *r, const struct address *a)
{
	return a->index == NO_REG ? 0 : r->native.gpr[a->index] << a->scale;
}

/* Registers and displacement, so that the sum is a->target. RIP's is known only later. */
static void aim(struct rig *r, struct address *a)
{
	uint64_t *gpr = r->native.gpr;
	bool free_base = a->base != NO_REG && a->base != RSP && a->base != a->index;

	a->disp = a->mod == 1 ? (int8_t)next(r) : a->mod == 2 ? (int32_t)next(r) : 0;
	if (free_base) {
		gpr[a->base] = a->target - a->disp - scaled(r, a);
		if (a->short_address)
			gpr[a->base] ^= next(r) << 32;
		return;
	}
	if (a->index != NO_REG)
		gpr[a->index] = next(r) % 0x10000;
	a->disp = a->target - scaled(r, a) - (a->base == NO_REG ? 0 : gpr[a->base]);
}

/* @tail: how many bytes of immediate follow. */
static void emit_address(struct rig *r, const struct address *a, unsigned int reg,
			 unsigned int tail)
{
	unsigned int index = a->index == NO_REG ? 4 : a->index & 7;
	unsigned int base = a->base == NO_REG ? 5 : a->base & 7;

	emit(r, a->mod << 6 | (reg & 7) << 3 | a->rm, 1);
	if (a->rm == 4)
		emit(r, a->scale << 6 | index << 3 | base, 1);
	if (a->mod == 0 && a->rm == 5)
		emit(r, a->target - ((uint64_t)native_code + r->at + r->len + 4 + tail), 4);
	else if (a->mod == 2 || (a->mod == 0 && base == 5))
		emit(r, a->disp, 4);
	else if (a->mod == 1)
		emit(r, a->disp, 1);
}

static unsigned int immediate_length(const struct form *f, unsigned int bits)
{
	if (f->imm == IMM_FULL)
		return bits == 16 ? 2 : 4;
	return f->imm == IMM_BYTE ? 1 : 0;
}

struct operation {
	const struct form *form;
	unsigned int bits;
	unsigned int reg; /* ModRM.reg, with REX.R */
	bool lock, rex;
	struct address address;
};

/* Is @op->reg of ModRM a register, and this one (as opposed to AH for RSP)? */
static bool uses(const struct operation *op, unsigned int reg)
{
	return op->form->reg == REG && op->reg == reg && (op->bits > 8 || op->rex || reg < 4);
}

static void choose(struct rig *r, const struct form *f, unsigned int bits, struct operation *op)
{
	struct address *a = &op->address;

	*op = (struct operation){.form = f, .bits = bits};
	choose_form(r, a);
	op->reg = f->reg == REG ? next(r) % 16 : (unsigned int)f->reg;
	op->lock = (f->flags & LOCKABLE) && one_in(r, 4);
	op->rex = bits == 64 || op->reg >= 8 || (a->base >= 8 && a->base != NO_REG) ||
		  (a->index >= 8 && a->index != NO_REG) || one_in(r, 4);
}

/* What would make a signal, or the CPU, trip: to be chosen again. */
static bool unfit(const struct operation *op)
{
	const struct address *a = &op->address;

	if ((op->form->flags & SETS_REG) && uses(op, RSP))
		return true;
	/* The register is to hold a bit's number, and nothing else. */
	return (op->form->flags & BIT_STRING) &&
	       (op->reg == RSP || op->reg == a->base || op->reg == a->index);
}

static void emit_operation(struct rig *r, const struct operation *op)
{
	const struct address *a = &op->address;
	const struct form *f = op->form;
	unsigned int base = a->base == NO_REG ? 0 : a->base;
	unsigned int index = a->index == NO_REG ? 0 : a->index;
	unsigned int tail = immediate_length(f, op->bits);

	r->len = 0;
	if (op->lock)
		emit(r, 0xf0, 1);
	if (op->bits == 16)
		emit(r, 0x66, 1);
	if (a->short_address)
		emit(r, 0x67, 1);
	if (op->rex)
		emit(r,
		     0x40 | (op->bits == 64) << 3 | op->reg >> 3 << 2 | index >> 3 << 1 | base >> 3,
		     1);
	for (unsigned int i = 0; i < f->nr_opcode; i++)
		emit(r, f->opcode[i], 1);
	if (f->flags & MOFFS)
		emit(r, a->target, a->short_address ? 4 : 8);
	else
		emit_address(r, a, op->reg, tail);
	emit(r, value(r), tail);
}

/* Where the operand is; of a bit string, where it begins to count. Mostly in one page. */
static uint64_t choose_place(struct rig *r, const struct form *f)
{
	if (f->flags & BIT_STRING)
		return 3000 + next(r) % 2000;
	if (one_in(r, 4))
		return PAGE_SIZE - next(r) % 9;
	return next(r) % (DATA_LEN - 8);
}

/*
 * The byte that the operand of a bit string begins with. A short address is cut off after the bit's
 * place was added.
 */
static uint64_t pick_bit(struct rig *r, const struct operation *op, uint64_t pos)
{
	int64_t bit = (int64_t)(next(r) % 20000) - 10000;
	uint64_t garbage = op->bits == 64 ? 0 : next(r) << op->bits;

	r->native.gpr[op->reg] = garbage | (bit & ~0UL >> (64 - op->bits));
	if (op->bits == 64 && op->address.short_address)
		r->native.gpr[op->reg] += (next(r) & 0xffff) << (32 + 3);
	return pos + (bit & -(int64_t)op->bits) / 8;
}

static void one_case(struct rig *r, const struct form *f, unsigned int bits)
{
	bool pair = !strcmp(f->name, "cmpxchg8b");
	unsigned int len = pair ? 8 : bits / 8;
	uint64_t pos = choose_place(r, f);
	struct operation op;

	do
		choose(r, f, bits, &op);
	while (unfit(&op));
	op.address.target = (uint64_t)r->data + pos;
	random_registers(r);
	aim(r, &op.address);
	if (f->flags & BIT_STRING)
		pos = pick_bit(r, &op, pos);
	r->at = next(r) % 64;
	emit_operation(r, &op);

	poke(r, pos, value(r), len);
	if ((f->flags & COMPARES) && next(r) & 1 << 20)
		poke(r, pos,
		     pair ? r->native.gpr[GPR_RDX] << 32 | (uint32_t)r->native.gpr[GPR_RAX]
			  : r->native.gpr[GPR_RAX],
		     len);
	r->crossings += pos % PAGE_SIZE + len > PAGE_SIZE;
	if ((op.lock || (f->flags & LOCKED)) && pos % 8 + len > 8)
		run_refused(r, f->name);
	else
		run_both(r, f->name, f->undefined);
}

static bool has_movbe(void)
{
	unsigned int eax, ebx, ecx, edx;

	return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_MOVBE;
}

TEST(emulate_native, read_modify_write)
{
	unsigned int rounds = test_long() ? 20000 : 500, nr = 0;
	struct rig r;

	setup(&r);
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (!strcmp(forms[i].name, "movbe") && !has_movbe())
			continue;
		for (unsigned int size = 0; size < 4; size++) {
			if (!(forms[i].sizes & 1 << size))
				continue;
			for (unsigned int n = 0; n < rounds; n++, nr++)
				one_case(&r, &forms[i], 8 << size);
		}
	}
	expect_ge(nr, 130 * rounds);
	expect_ge(r.crossings, nr / 50);
	expect_ge(r.left_to_cpu, nr / 100);
	teardown(&r);
}

/* --- STOS and MOVS --- */

struct string_insn {
	const char *name;
	uint8_t opcode;
	bool source;
};

/* Somewhere from which @rounds of @len bytes stay inside the data. */
static uint64_t place_string(struct rig *r, uint64_t rounds, unsigned int len)
{
	uint64_t span = (rounds ? rounds : 1) * len, pos = next(r) % (DATA_LEN - span + 1);

	if (r->native.rflags & RFLAGS_DF)
		pos += span - len;
	return (uint64_t)r->data + pos;
}

static void string_case(struct rig *r, const struct string_insn *insn, unsigned int len, bool rep)
{
	bool short_address = one_in(r, 4);
	uint64_t rounds = !rep ? 1 : one_in(r, 16) ? next(r) % 1000 : next(r) % 12;
	uint64_t garbage = short_address ? next(r) << 32 : 0, *gpr = r->native.gpr;
	unsigned int calls = 0;

	random_registers(r);
	r->native.rflags |= next(r) & RFLAGS_DF;
	gpr[GPR_RDI] = place_string(r, rounds, len) ^ garbage;
	if (insn->source)
		gpr[GPR_RSI] = place_string(r, rounds, len) ^ garbage;
	if (rep)
		gpr[GPR_RCX] = rounds ^ garbage;
	r->at = next(r) % 64;
	r->len = 0;
	if (rep)
		emit(r, 0xf3, 1);
	if (len == 2)
		emit(r, 0x66, 1);
	if (short_address)
		emit(r, 0x67, 1);
	if (len == 8)
		emit(r, 0x48, 1);
	emit(r, insn->opcode | (len > 1), 1);

	expect_eq(emulate(r), EMULATE_DONE);
	for (calls = 1; r->regs.rip == (uint64_t)native_code + r->at; calls++) {
		if ((gpr[GPR_RCX] ^ garbage) - (r->regs.gpr[GPR_RCX] & 0xffffffff) !=
		    calls * EMULATE_REP_MAX)
			differ(r, insn->name, "RCX, half way,", rounds, r->regs.gpr[GPR_RCX]);
		expect_eq(emulate_store(&r->ctxt), EMULATE_DONE);
	}
	expect_eq(r->regs.rip, (uint64_t)native_code + r->at + r->len);
	expect_eq(calls, rounds > EMULATE_REP_MAX ? 2 : 1);
	r->left_to_cpu += calls > 1;
	run_native(r);
	compare(r, insn->name, 0);
}

TEST(emulate_native, strings)
{
	static const struct string_insn insns[] = {{"stos", 0xaa, false}, {"movs", 0xa4, true}};
	unsigned int rounds = test_long() ? 20000 : 500;
	struct rig r;

	setup(&r);
	for (size_t i = 0; i < ARRAY_SIZE(insns); i++) {
		for (unsigned int len = 1; len <= 8; len *= 2) {
			for (unsigned int n = 0; n < rounds; n++) {
				string_case(&r, &insns[i], len, false);
				string_case(&r, &insns[i], len, true);
			}
		}
	}
	expect_ge(r.left_to_cpu, rounds / 10);
	teardown(&r);
}
