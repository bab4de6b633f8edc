/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Privileged instructions, byte by byte, of a guest on the model machine: what each does to
 * registers, ports and translations, and that what is refused changes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "notifier/sync/util.h"
#include "tests/model/guest_mem.h"
#include "tests/support/hoard.h"
#include "tests/support/test.h"
#include "vmm/emulate.h"

/* The fixture maps gva == gpa for the lower part of RAM. */
#define CODE 0x2000UL
#define OLD  0x8000UL /* pages that probes are mapped to, before and after an edit */
#define NEW  0x9000UL

#define IN_OLD 0x01d01d01d01d01d0UL
#define IN_NEW 0x2e32e32e32e32e32UL

#define PTE_FLAGS (GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D)
#define PTE_NX	  (1UL << 63)

#define RFLAGS_START 0x10246 /* RF, as after a fault */

struct port_log {
	unsigned int ins, outs;
	uint16_t port;
	unsigned int size;
	uint32_t val;
	uint32_t answer;
};

struct emu {
	struct guest_mem g;
	struct bus bus;
	struct port_log log;
	struct guest_regs regs;
	struct vcpu_cr cr;
	struct emulate_ctxt ctxt;
};

static uint32_t log_in(void *dev, uint16_t reg, unsigned int size)
{
	struct port_log *log = dev;

	log->ins++;
	log->port = reg;
	log->size = size;
	return log->answer;
}

static void log_out(void *dev, uint16_t reg, unsigned int size, uint32_t val)
{
	struct port_log *log = dev;

	log->outs++;
	log->port = reg;
	log->size = size;
	log->val = val;
}

/* All ports but the last, so that offsets are port numbers. */
static const struct bus_ops log_ops = {.name = "log", .width = 4, .in = log_in, .out = log_out};

static void setup(struct emu *e)
{
	struct guest_mem_config config = {0};

	memset(e, 0, sizeof(*e));
	guest_mem_create(&e->g, &config);
	bus_init(&e->bus);
	expect_eq(bus_register(&e->bus, 0, 0xffff, &log_ops, &e->log), 0);
	vcpu_cr_init(&e->cr, e->g.cr3);
	e->ctxt = (struct emulate_ctxt){
		.shadow = e->g.shadow,
		.cr = &e->cr,
		.bus = &e->bus,
		.regs = &e->regs,
	};
	/* Recognisable values, none of them a valid address. */
	for (unsigned int i = 0; i < ARRAY_SIZE(e->regs.gpr); i++)
		e->regs.gpr[i] = 0xdead000000000000 | i << 8 | i;
	e->regs.rip = CODE;
	e->regs.rflags = RFLAGS_START;
}

static void teardown(struct emu *e)
{
	bus_destroy(&e->bus);
	guest_mem_destroy(&e->g);
}

static enum emulate_result run_at(struct emu *e, gva_t rip, gpa_t gpa, const void *bytes,
				  size_t len)
{
	expect_eq(shadow_write_gpa(e->g.shadow, gpa, bytes, len), 0);
	e->regs.rip = rip;
	e->regs.rflags = RFLAGS_START;
	return emulate_trap(&e->ctxt);
}

static enum emulate_result run(struct emu *e, const void *bytes, size_t len)
{
	return run_at(e, CODE, CODE, bytes, len);
}

/* String literals with embedded zeroes. */
#define BYTES(s)      (s), sizeof(s) - 1
#define RUN(e, bytes) run(e, BYTES(bytes))

/* Carried out: over the whole instruction, and RF is gone. */
static void expect_done_after(struct emu *e, enum emulate_result result,
			      enum emulate_result expected, size_t len)
{
	if (result != expected)
		fail("%s instead of %s: %s", emulate_result_name(result),
		     emulate_result_name(expected), e->ctxt.why);
	expect_eq(e->regs.rip, CODE + len);
	expect_eq(e->regs.rflags, RFLAGS_START & ~0x10000);
	expect_str_eq(e->ctxt.why, "");
}

#define expect_done(e, bytes) expect_done_after(e, RUN(e, bytes), EMULATE_DONE, sizeof(bytes) - 1)

/* Refused, with @why in the reason, and nothing changed. */
static void expect_kill_of(struct emu *e, const void *bytes, size_t len, const char *why)
{
	struct guest_regs before = e->regs;
	struct port_log log = e->log;
	struct vcpu_cr cr = e->cr;
	enum emulate_result result = run(e, bytes, len);

	if (result != EMULATE_KILL)
		fail("%s instead of killed with \"%s\"", emulate_result_name(result), why);
	expect_str_contains(e->ctxt.why, why);
	expect_str_contains(e->ctxt.why, "at 0x2000: ");
	expect(!strchr(e->ctxt.why, '\n'));
	before.rip = CODE;
	before.rflags = RFLAGS_START;
	expect_eq(memcmp(&before, &e->regs, sizeof(before)), 0);
	expect_eq(memcmp(&log, &e->log, sizeof(log)), 0);
	expect_eq(memcmp(&cr, &e->cr, sizeof(cr)), 0);
}

#define expect_kill(e, bytes, why) expect_kill_of(e, BYTES(bytes), why)

/* --- IN and OUT --- */

#define RAX 0x1122334455667788UL
#define DX  0xdead00000000b005UL

struct port_case {
	const char *bytes;
	size_t len;
	bool in;
	uint16_t port;
	unsigned int size;
	uint64_t value; /* OUT: what arrives; IN: RAX after 0xa1b2c3d4 was read */
};

static const struct port_case port_cases[] = {
	{BYTES("\xe4\xf5"), true, 0xf5, 1, 0x11223344556677d4},
	{BYTES("\xe5\x10"), true, 0x10, 4, 0x00000000a1b2c3d4},
	{BYTES("\x66\xe5\x10"), true, 0x10, 2, 0x112233445566c3d4},
	{BYTES("\xec"), true, 0xb005, 1, 0x11223344556677d4},
	{BYTES("\xed"), true, 0xb005, 4, 0x00000000a1b2c3d4},
	{BYTES("\x66\xed"), true, 0xb005, 2, 0x112233445566c3d4},
	{BYTES("\x66\xec"), true, 0xb005, 1, 0x11223344556677d4},
	/* REX.W makes no port access wider, nor does it keep the upper half of RAX. */
	{BYTES("\x48\xed"), true, 0xb005, 4, 0x00000000a1b2c3d4},
	{BYTES("\x48\xe5\xff"), true, 0xff, 4, 0x00000000a1b2c3d4},
	/* As long as an instruction can be. */
	{BYTES("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\xed"), true, 0xb005, 2,
	 0x112233445566c3d4},

	{BYTES("\xe6\xf4"), false, 0xf4, 1, 0x88},
	{BYTES("\xe7\x80"), false, 0x80, 4, 0x55667788},
	{BYTES("\x66\xe7\x80"), false, 0x80, 2, 0x7788},
	{BYTES("\xee"), false, 0xb005, 1, 0x88},
	{BYTES("\xef"), false, 0xb005, 4, 0x55667788},
	{BYTES("\x66\xef"), false, 0xb005, 2, 0x7788},
	{BYTES("\x48\xef"), false, 0xb005, 4, 0x55667788},
};

TEST(emulate, in_and_out)
{
	struct emu e;

	setup(&e);
	for (size_t i = 0; i < ARRAY_SIZE(port_cases); i++) {
		const struct port_case *c = &port_cases[i];
		uint64_t others[16];

		e.regs.gpr[GPR_RAX] = RAX;
		e.regs.gpr[GPR_RDX] = DX;
		memcpy(others, e.regs.gpr, sizeof(others));
		e.log = (struct port_log){.answer = 0xa1b2c3d4};
		expect_done_after(&e, run(&e, c->bytes, c->len), EMULATE_DONE, c->len);

		expect_eq(e.log.ins, c->in);
		expect_eq(e.log.outs, !c->in);
		expect_eq(e.log.port, c->port);
		expect_eq(e.log.size, c->size);
		if (c->in)
			expect_eq(e.regs.gpr[GPR_RAX], c->value);
		else
			expect_eq(e.log.val, c->value);
		others[GPR_RAX] = c->in ? c->value : RAX;
		expect_eq(memcmp(others, e.regs.gpr, sizeof(others)), 0);
	}
	teardown(&e);
}

TEST(emulate, string_io_is_refused)
{
	struct emu e;

	setup(&e);
	expect_kill(&e, "\x6c", "insb");
	expect_kill(&e, "\x66\x6d", "string I/O is not carried out");
	expect_kill(&e, "\x6d", "insd");
	expect_kill(&e, "\x6e", "outsb");
	expect_kill(&e, "\x66\x6f", "outsw");
	expect_kill(&e, "\xf3\x6e", "rep outsb (f3 6e) at 0x2000: string I/O is not carried out");
	teardown(&e);
}

/* --- HLT, CLI, STI --- */

TEST(emulate, halt_and_interrupt_flag)
{
	struct emu e;

	setup(&e);
	expect(!e.ctxt.interrupts);
	expect_done_after(&e, RUN(&e, "\xf4"), EMULATE_HALT, 1);
	expect_done(&e, "\xfb");
	expect(e.ctxt.interrupts);
	expect_done(&e, "\xfb");
	expect(e.ctxt.interrupts);
	expect_done_after(&e, RUN(&e, "\xf4"), EMULATE_HALT, 1);
	expect(e.ctxt.interrupts);
	expect_done(&e, "\xfa");
	expect(!e.ctxt.interrupts);
	teardown(&e);
}

/* --- control registers --- */

TEST(emulate, read_control_registers)
{
	struct emu e;

	setup(&e);
	e.cr.cr2 = 0x123456789abcdef0;
	expect_done(&e, "\x0f\x20\xc0"); /* mov rax, cr0 */
	expect_eq(e.regs.gpr[GPR_RAX], 0x80010031);
	expect_done(&e, "\x0f\x20\xd4"); /* mov rsp, cr2 */
	expect_eq(e.regs.gpr[GPR_RSP], 0x123456789abcdef0);
	expect_done(&e, "\x41\x0f\x20\xdf"); /* mov r15, cr3 */
	expect_eq(e.regs.gpr[15], e.g.cr3);
	expect_done(&e, "\x0f\x20\xe3"); /* mov rbx, cr4 */
	expect_eq(e.regs.gpr[GPR_RBX], 0x20);
	/* The operand-size prefix and ModRM.mod say nothing here. */
	expect_done(&e, "\x66\x0f\x20\xc1");
	expect_eq(e.regs.gpr[GPR_RCX], 0x80010031);
	expect_done(&e, "\x0f\x20\x06");
	expect_eq(e.regs.gpr[GPR_RSI], 0x80010031);
	teardown(&e);
}

TEST(emulate, write_cr0_and_cr4)
{
	struct emu e;

	setup(&e);
	/* What is so already. */
	e.regs.gpr[GPR_RAX] = 0x80010031;
	expect_done(&e, "\x0f\x22\xc0");
	e.regs.gpr[GPR_RAX] = 0x80010021; /* ET cannot be cleared, and that is no fault */
	expect_done(&e, "\x0f\x22\xc0");
	expect_eq(e.cr.cr0, 0x80010031);
	e.regs.gpr[9] = 0x20;
	expect_done(&e, "\x41\x0f\x22\xe1"); /* mov cr4, r9 */

	e.regs.gpr[GPR_RAX] = 0x00010031;
	expect_kill(&e, "\x0f\x22\xc0",
		    "mov cr0, rax (0f 22 c0) at 0x2000: changes bits of CR0 that are not "
		    "virtualised (0x80010031 to 0x10031): PG (bit 31)");
	e.regs.gpr[GPR_RAX] = 0x80010033;
	expect_kill(&e, "\x0f\x22\xc0", "): MP (bit 1)");
	/* Nor is what may be changed, together with something that may not. */
	e.regs.gpr[GPR_RAX] = 0x80040031;
	expect_kill(&e, "\x0f\x22\xc0", "): AM (bit 18)");
	e.regs.gpr[GPR_RAX] = 0xe0010031;
	expect_kill(&e, "\x0f\x22\xc0", "): NW (bit 29), CD (bit 30)");
	e.regs.gpr[GPR_RAX] = 0x180010031;
	expect_kill(&e, "\x0f\x22\xc0", "): bit 32");
	e.regs.gpr[GPR_RAX] = ~0UL;
	expect_kill(&e, "\x0f\x22\xc0", "MP (bit 1), EM (bit 2), TS (bit 3)");

	e.regs.gpr[GPR_RAX] = 0x20 | 3 << 9;
	expect_kill(&e, "\x0f\x22\xe0",
		    "bits of CR4 that are not virtualised (0x20 to 0x620): "
		    "OSFXSR (bit 9), OSXMMEXCPT (bit 10)");
	e.regs.gpr[GPR_RAX] = 0;
	expect_kill(&e, "\x0f\x22\xe0", "): PAE (bit 5)");
	e.regs.gpr[GPR_RAX] = 0x20 | 1 << 17;
	expect_kill(&e, "\x0f\x22\xe0", "): PCIDE (bit 17)");
	e.regs.gpr[GPR_RAX] = 0x20 | 1 << 12 | 1 << 20 | 1 << 21 | 1 << 22;
	expect_kill(&e, "\x0f\x22\xe0", "): LA57 (bit 12), SMAP (bit 21), PKE (bit 22)");

	expect_kill(&e, "\x44\x0f\x20\xc0", "control register is not virtualised"); /* cr8 */
	expect_kill(&e, "\x44\x0f\x22\xc0", "control register is not virtualised");
	expect_kill(&e, "\x0f\x20\xc8", "an invalid instruction"); /* cr1 */
	expect_kill(&e, "\x0f\x21\xc0", "mov rax, dr0");
	expect_kill(&e, "\x0f\x23\xf8", "mov dr7, rax");
	expect_eq(e.cr.cr0, 0x80010031);
	expect_eq(e.cr.cr4, 0x20);
	teardown(&e);
}

TEST(emulate, write_cr2)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RDI] = 0xfeedfacecafebeef;
	expect_done(&e, "\x0f\x22\xd7");
	expect_eq(e.cr.cr2, 0xfeedfacecafebeef);
	teardown(&e);
}

/* A second address space: the code, and OLD's address mapped to NEW's page. */
static gpa_t second_space(struct emu *e)
{
	gpa_t cr3 = guest_new_table(&e->g);

	guest_map(&e->g, cr3, CODE, CODE, PTE_FLAGS);
	guest_map(&e->g, cr3, OLD, NEW, PTE_FLAGS);
	guest_write(&e->g, OLD, IN_OLD);
	guest_write(&e->g, NEW, IN_NEW);
	return cr3;
}

TEST(emulate, write_cr3)
{
	struct emu e;
	gpa_t other;

	setup(&e);
	other = second_space(&e);
	expect_eq(guest_load(&e.g, 0, OLD), IN_OLD);

	e.regs.gpr[GPR_RAX] = other;
	expect_done(&e, "\x0f\x22\xd8");
	expect_eq(e.cr.cr3, other);
	expect_eq(guest_load(&e.g, 0, OLD), IN_NEW);

	/* PWT, PCD and the rest of the low bits: kept, and no part of the address. */
	e.regs.gpr[GPR_RAX] = e.g.cr3 | 0xfff;
	expect_done(&e, "\x0f\x22\xd8");
	expect_eq(e.cr.cr3, e.g.cr3 | 0xfff);
	expect_eq(guest_load(&e.g, 0, OLD), IN_OLD);
	expect_done(&e, "\x0f\x20\xd9"); /* mov rcx, cr3 */
	expect_eq(e.regs.gpr[GPR_RCX], e.g.cr3 | 0xfff);

	e.regs.gpr[GPR_RAX] = other | 1UL << 63;
	expect_kill(&e, "\x0f\x22\xd8", "has reserved bits above the 52-bit address");
	e.regs.gpr[GPR_RAX] = other | 1UL << 52;
	expect_kill(&e, "\x0f\x22\xd8", "has reserved bits above the 52-bit address");
	expect_eq(guest_load(&e.g, 0, OLD), IN_OLD);
	teardown(&e);
}

/* A root outside RAM is the guest's own affair: it loads, and then nothing is mapped. */
TEST(emulate, cr3_to_nowhere)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RAX] = 0xffffffffff000;
	expect_done(&e, "\x0f\x22\xd8");
	expect_eq(RUN(&e, "\xf4"), EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, CODE);
	expect_eq(e.ctxt.fault.error_code, PFERR_FETCH);
	teardown(&e);
}

/* No frames for tables: some load of a new root fails, and that one changes nothing. */
TEST(emulate, no_memory_for_cr3)
{
	enum emulate_result result = EMULATE_DONE;
	static struct hoard hoard;
	unsigned int loads;
	gpa_t roots[32];
	struct emu e;

	setup(&e);
	for (unsigned int i = 0; i < ARRAY_SIZE(roots); i++)
		roots[i] = CODE + 0x1000 + i * PAGE_SIZE;
	RUN(&e, "\x0f\x22\xd8"); /* not carried out here: only to have the code in place */
	hoard_frames(&hoard, e.g.phys);
	for (loads = 0; loads < ARRAY_SIZE(roots) && result == EMULATE_DONE; loads++) {
		/* The code is fetched through the first root. */
		if (loads)
			(void)shadow_load_cr3(e.g.shadow, 0, e.g.cr3);
		e.cr.cr3 = e.g.cr3;
		e.regs.gpr[GPR_RAX] = roots[loads];
		e.regs.rip = CODE;
		result = emulate_trap(&e.ctxt);
	}
	expect_eq(result, EMULATE_NO_MEMORY);
	expect_str_contains(e.ctxt.why, "no memory");
	expect_eq(e.regs.rip, CODE);
	expect_eq(e.cr.cr3, e.g.cr3);

	hoard_release(&hoard);
	expect_eq(emulate_trap(&e.ctxt), EMULATE_DONE);
	teardown(&e);
}

/* --- INVLPG --- */

/* Addresses whose translations are edited behind the CPU's back. */
static const gva_t probes[] = {
	0x4000,		    /* 0x2000 above the code */
	0x10000000,	    /* plain */
	0xfffff000,	    /* the last page of 32 bits */
	0x100004000,	    /* the first probe, 4 GiB up */
	0x7f7ffffff000,	    /* the last page below the monitor's slot */
	0xffffffff80000000, /* what a sign-extended disp32 reaches */
};

#define NONE -1

static uint64_t load(struct emu *e, gva_t gva)
{
	return guest_load(&e->g, 0, gva);
}

/* Every probe's translation is cached, and its entry says something newer. */
static void make_stale(struct emu *e)
{
	guest_write(&e->g, OLD, IN_OLD);
	guest_write(&e->g, NEW, IN_NEW);
	for (unsigned int i = 0; i < ARRAY_SIZE(probes); i++) {
		guest_map(&e->g, e->g.cr3, probes[i], OLD, PTE_FLAGS);
		shadow_invlpg(e->g.shadow, 0, probes[i]);
		expect_eq(load(e, probes[i]), IN_OLD);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(probes); i++) {
		guest_map(&e->g, e->g.cr3, probes[i], NEW, PTE_FLAGS);
		expect_eq(load(e, probes[i]), IN_OLD);
	}
}

struct invlpg_case {
	const char *bytes;
	size_t len;
	int probe; /* the one that is invalidated, or NONE */
	struct {
		int reg;
		uint64_t value;
	} regs[2];
};

static const struct invlpg_case invlpg_cases[] = {
	{BYTES("\x0f\x01\x38"), 1, {{0, 0x10000000}}},		       /* [rax] */
	{BYTES("\x0f\x01\x38"), 1, {{0, 0x10000fff}}},		       /* any address in the page */
	{BYTES("\x0f\x01\x38"), 3, {{0, 0x100004008}}},		       /* 64 bits of it */
	{BYTES("\x0f\x01\x38"), 4, {{0, 0x7f7ffffff123}}},	       /* */
	{BYTES("\x0f\x01\x38"), 5, {{0, 0xffffffff80000000}}},	       /* the upper half */
	{BYTES("\x0f\x01\x3f"), 1, {{GPR_RDI, 0x10000000}}},	       /* [rdi] */
	{BYTES("\x41\x0f\x01\x3f"), 1, {{15, 0x10000000}}},	       /* [r15] */
	{BYTES("\x0f\x01\x3c\x24"), 1, {{GPR_RSP, 0x10000000}}},       /* [rsp] */
	{BYTES("\x41\x0f\x01\x3c\x24"), 1, {{12, 0x10000000}}},	       /* [r12] */
	{BYTES("\x0f\x01\x7d\x00"), 1, {{GPR_RBP, 0x10000000}}},       /* [rbp+0] */
	{BYTES("\x41\x0f\x01\x7d\x00"), 1, {{13, 0x10000000}}},	       /* [r13+0] */
	{BYTES("\x0f\x01\x78\xf0"), 1, {{0, 0x10000010}}},	       /* [rax-0x10] */
	{BYTES("\x0f\x01\xb8\x00\x00\x00\xf0"), 1, {{0, 0x20000000}}}, /* [rax-0x10000000] */
	{BYTES("\x0f\x01\x3c\x98"), 1, {{0, 0x0f000000}, {3, 0x400000}}},  /* [rax+rbx*4] */
	{BYTES("\x42\x0f\x01\x3c\xf8"), 1, {{0, 0x10000008}, {15, -1UL}}}, /* [rax+r15*8] */
	{BYTES("\x0f\x01\x3c\x20"), 1, {{0, 0x10000000}, {GPR_RSP, 5}}},   /* no index */
	{BYTES("\x42\x0f\x01\x3c\x20"), 1, {{0, 0x10000000}, {12, 8}}},	   /* [rax+r12] */
	{BYTES("\x0f\x01\x3c\xdd\x00\x00\x00\x08"), 1, {{3, 0x1000000}}},  /* [rbx*8+0x8000000] */
	{BYTES("\x0f\x01\x3c\x25\x00\x00\x00\x10"), 1, {{0, 0}}},	   /* [0x10000000] */
	{BYTES("\x0f\x01\x3c\x25\x00\x00\x00\x80"), 5, {{0, 0}}}, /* [0xffffffff80000000] */
	{BYTES("\x0f\x01\x3d\xf9\x1f\x00\x00"), 0, {{0, 0}}},	  /* [rip+0x1ff9] = 0x4000 */
	{BYTES("\x0f\x01\x3d\xf8\x1f\x00\x00"), NONE, {{0, 0}}},  /* one byte less: 0x3fff */
	/* The address-size prefix: the sum is cut off, not its parts. */
	{BYTES("\x67\x0f\x01\x38"), 0, {{0, 0x100004000}}},
	{BYTES("\x67\x0f\x01\x3c\x18"), 0, {{0, 0xfffff000}, {3, 0x5000}}},
	{BYTES("\x67\x0f\x01\x78\xff"), 2, {{0, 0xdead00000000}}},
	{BYTES("\x67\x0f\x01\x3d\xf8\x1f\x00\x00"), 0, {{0, 0}}}, /* [eip+0x1ff8] */
	{BYTES("\x0f\x01\x3c\x18"), 3, {{0, 0xfffff000}, {3, 0x5000}}},
	/* Segments whose base is 0. */
	{BYTES("\x2e\x0f\x01\x38"), 1, {{0, 0x10000000}}},
	{BYTES("\x3e\x0f\x01\x38"), 1, {{0, 0x10000000}}},
	{BYTES("\x26\x0f\x01\x38"), 1, {{0, 0x10000000}}},
	{BYTES("\x36\x0f\x01\x38"), 1, {{0, 0x10000000}}},
	/* Non-canonical: does nothing. */
	{BYTES("\x0f\x01\x38"), NONE, {{0, 0x800010000000}}},
	{BYTES("\x0f\x01\x38"), NONE, {{0, 0xff7fffff80000000}}},
	{BYTES("\x0f\x01\x38"), NONE, {{0, 1UL << 63}}},
	/* Mapped to nothing, and never touched: does nothing either. */
	{BYTES("\x0f\x01\x38"), NONE, {{0, 0x555500000000}}},
	{BYTES("\x0f\x01\x38"), NONE, {{0, 0xffff800000000000}}},
};

TEST(emulate, invlpg)
{
	unsigned int dropped = 0;
	struct emu e;

	setup(&e);
	for (size_t i = 0; i < ARRAY_SIZE(invlpg_cases); i++) {
		const struct invlpg_case *c = &invlpg_cases[i];

		make_stale(&e);
		for (unsigned int j = 0; j < ARRAY_SIZE(c->regs); j++)
			e.regs.gpr[c->regs[j].reg] = c->regs[j].value;
		/* The entry without a second register names RAX: the first has the last word. */
		e.regs.gpr[c->regs[0].reg] = c->regs[0].value;
		expect_done_after(&e, run(&e, c->bytes, c->len), EMULATE_DONE, c->len);
		for (int p = 0; p < (int)ARRAY_SIZE(probes); p++) {
			bool fresh = load(&e, probes[p]) == IN_NEW;

			if (fresh != (p == c->probe))
				fail("case %zu: probe %d is %s", i, p,
				     fresh ? "gone" : "still there");
			dropped += fresh;
		}
	}
	expect_ge(dropped, 25);
	teardown(&e);
}

TEST(emulate, invlpg_with_unknown_segment_base)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RAX] = 0x4000;
	expect_kill(&e, "\x64\x0f\x01\x38", "FS and GS are not virtualised");
	expect_kill(&e, "\x65\x0f\x01\x38", "FS and GS are not virtualised");
	teardown(&e);
}

/* --- everything else --- */

TEST(emulate, what_is_refused)
{
	struct emu e;

	setup(&e);
	expect_kill(&e, "\x0f\x30", "wrmsr (0f 30) at 0x2000: raised #GP, and is not a privileged");
	expect_kill(&e, "\x0f\x32", "rdmsr (0f 32)");
	expect_kill(&e, "\x0f\x01\x10", "lgdt");
	expect_kill(&e, "\x0f\x01\x18", "lidt");
	expect_kill(&e, "\x0f\x01\x00", "sgdt");
	expect_kill(&e, "\x0f\x01\xf0", "lmsw ax");
	expect_kill(&e, "\x0f\x06", "clts");
	expect_kill(&e, "\x0f\x08", "invd");
	expect_kill(&e, "\x0f\x09", "wbinvd");
	expect_kill(&e, "\x0f\x01\xf8", "swapgs");
	expect_kill(&e, "\x0f\x00\xd8", "ltr ax");
	expect_kill(&e, "\x48\xcf", "iretq");
	expect_kill(&e, "\x8e\xd8", "mov ds, ax");
	expect_kill(&e, "\x48\x8b\x00", "mov rax, [rax] (48 8b 00)"); /* non-canonical */
	expect_kill(&e, "\x90", "nop");
	expect_kill(&e, "\xf0\xf4", "an invalid instruction (f0 f4"); /* lock hlt */
	expect_kill(&e, "\xf0\xec", "an invalid instruction (f0 ec");
	expect_kill(&e, "\x06", "an invalid instruction (06");
	expect_kill(&e, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\xed",
		    "an invalid instruction (66 66 66 66 66 66 66 66 66 66 66 66 66 66 66)");
	teardown(&e);
}

/* --- fetching --- */

#define PAGE_A 0x5000UL /* gpas of two pages that gvas FIRST and SECOND are mapped to */
#define PAGE_B 0x3000UL /* below the other: what follows in gva does not follow in gpa */
#define FIRST  0x40000000UL
#define SECOND (FIRST + PAGE_SIZE)

static void map_pages(struct emu *e, uint64_t second_flags)
{
	guest_map(&e->g, e->g.cr3, FIRST, PAGE_A, PTE_FLAGS);
	guest_map(&e->g, e->g.cr3, SECOND, PAGE_B, second_flags);
	expect_eq(shadow_load_cr3(e->g.shadow, 0, e->g.cr3), 0);
}

/* @bytes of which @in_first lie at the end of the first page. */
static enum emulate_result run_across(struct emu *e, const void *bytes, size_t len, size_t in_first)
{
	const uint8_t *b = bytes;

	if (len > in_first)
		expect_eq(shadow_write_gpa(e->g.shadow, PAGE_B, b + in_first, len - in_first), 0);
	return run_at(e, SECOND - in_first, PAGE_A + PAGE_SIZE - in_first, b, in_first);
}

static uint64_t second_pte(struct emu *e)
{
	return guest_read(&e->g, guest_pte_gpa(&e->g, e->g.cr3, SECOND, 1));
}

TEST(emulate, instruction_at_the_end_of_a_page)
{
	struct emu e;

	setup(&e);
	/* The next page is not mapped, and not needed. */
	map_pages(&e, 0);
	expect_eq(run_across(&e, BYTES("\xf4"), 1), EMULATE_HALT);
	expect_eq(e.regs.rip, SECOND);
	expect_eq(run_across(&e, BYTES("\xe6\xf4"), 2), EMULATE_DONE);
	expect_eq(e.regs.rip, SECOND);
	expect_eq(e.log.outs, 1);

	/* It is mapped, but the guest does not see it looked at. */
	map_pages(&e, GUEST_PTE_RW);
	expect_eq(run_across(&e, BYTES("\x0f\x22\xd7"), 3), EMULATE_DONE);
	expect_eq(second_pte(&e), PAGE_B | GUEST_PTE_RW);
	teardown(&e);
}

TEST(emulate, instruction_across_pages)
{
	static const char code[] = "\x67\x66\x41\x0f\x22\xd7"; /* mov cr2, r15 */
	struct emu e;

	setup(&e);
	map_pages(&e, GUEST_PTE_RW);
	for (size_t in_first = 1; in_first < sizeof(code) - 1; in_first++) {
		e.regs.gpr[15] = 0x1000 + in_first;
		expect_eq(run_across(&e, BYTES(code), in_first), EMULATE_DONE);
		expect_eq(e.cr.cr2, 0x1000 + in_first);
		expect_eq(e.regs.rip, SECOND - in_first + sizeof(code) - 1);
		/* Looked at now. */
		expect_eq(second_pte(&e), PAGE_B | GUEST_PTE_RW | GUEST_PTE_A);
	}
	teardown(&e);
}

TEST(emulate, fetch_that_faults)
{
	struct guest_regs before;
	struct emu e;

	setup(&e);
	map_pages(&e, 0);
	before = e.regs;
	expect_eq(run_across(&e, BYTES("\xe6\xf4"), 1), EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, SECOND);
	expect_eq(e.ctxt.fault.error_code, PFERR_FETCH);
	before.rip = SECOND - 1;
	before.rflags = RFLAGS_START;
	expect_eq(memcmp(&before, &e.regs, sizeof(before)), 0);
	expect_eq(e.log.outs, 0);

	map_pages(&e, PTE_FLAGS | PTE_NX);
	expect_eq(run_across(&e, BYTES("\xe6\xf4"), 1), EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, SECOND);
	expect_eq(e.ctxt.fault.error_code, PFERR_FETCH | PFERR_PRESENT);

	e.regs.rip = 0x123456789;
	expect_eq(emulate_trap(&e.ctxt), EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, 0x123456789);
	e.regs.rip = 0x8000000000000000;
	expect_eq(emulate_trap(&e.ctxt), EMULATE_GUEST_PF);
	teardown(&e);
}

TEST(emulate, fetch_from_no_memory)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, FIRST, 0x7ff0000000, PTE_FLAGS);
	e.regs.rip = FIRST + 0x123;
	expect_eq(emulate_trap(&e.ctxt), EMULATE_KILL);
	expect_str_eq(e.ctxt.why, "the instruction at 0x40000123: it cannot be fetched: "
				  "0x40000123 maps to no memory of the guest");
	teardown(&e);
}

TEST(emulate, describe)
{
	char text[128];
	struct emu e;

	setup(&e);
	RUN(&e, "\x0f\x0b");
	emulate_describe(&e.ctxt, text, sizeof(text));
	expect_str_eq(text, "ud2 (0f 0b) at 0x2000");
	e.regs.rip = 0x123456789;
	emulate_describe(&e.ctxt, text, sizeof(text));
	expect_str_eq(text, "the instruction at 0x123456789");

	/* The rest is on a page that is not there. */
	map_pages(&e, 0);
	run_across(&e, BYTES("\x0f\x01"), 2);
	emulate_describe(&e.ctxt, text, sizeof(text));
	expect_str_eq(text, "an incomplete instruction (0f 01) at 0x40000ffe");
	emulate_describe(&e.ctxt, text, 10);
	expect_str_eq(text, "an incomp");
	teardown(&e);
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/*
 * Bytes of any kind, half of them behind the opcodes that matter. Whatever comes out, the guest has
 * moved over one whole instruction or nothing has changed.
 */
TEST(emulate, random_instructions)
{
	static const char *const stems[] = {"\xe4",	"\xe5",	    "\xe6",	"\xe7",
					    "\xec",	"\xed",	    "\xee",	"\xef",
					    "\xf4",	"\xfa",	    "\xfb",	"\x0f\x01\x38",
					    "\x0f\x20", "\x0f\x22", "\x0f\x01", "\x0f\x01\x3c"};
	unsigned int rounds = test_long() ? 1000000 : 30000;
	unsigned int counts[EMULATE_NO_MEMORY + 1] = {0};
	uint64_t state = 4711;
	struct emu e;

	setup(&e);
	for (unsigned int round = 0; round < rounds; round++) {
		struct guest_regs before;
		enum emulate_result result;
		uint8_t code[24];
		size_t at = 0;

		for (size_t i = 0; i < sizeof(code); i++)
			code[i] = next_random(&state);
		if (round & 1) {
			const char *stem = stems[next_random(&state) % ARRAY_SIZE(stems)];
			static const uint8_t prefixes[] = {0x66, 0x67, 0x2e, 0x48, 0x41, 0x4f};

			if (next_random(&state) & 1)
				code[at++] = prefixes[next_random(&state) % sizeof(prefixes)];
			memcpy(code + at, stem, strlen(stem));
		}
		for (unsigned int i = 0; i < 16; i++)
			e.regs.gpr[i] = next_random(&state) >> next_random(&state) % 64;
		before = e.regs;
		before.rip = CODE;
		before.rflags = RFLAGS_START;
		result = run(&e, code, sizeof(code));
		expect_le(result, EMULATE_NO_MEMORY);
		counts[result]++;
		if (result == EMULATE_DONE || result == EMULATE_HALT) {
			expect(e.regs.rip > CODE && e.regs.rip <= CODE + 15);
			expect_str_eq(e.ctxt.why, "");
		} else {
			expect_eq(memcmp(&before, &e.regs, sizeof(before)), 0);
			expect_eq(result, EMULATE_KILL);
			expect(e.ctxt.why[0] && strlen(e.ctxt.why) < sizeof(e.ctxt.why));
		}
		if (e.cr.cr3 != e.g.cr3) {
			e.cr.cr3 = e.g.cr3;
			expect_eq(shadow_load_cr3(e.g.shadow, 0, e.g.cr3), 0);
		}
	}
	expect_ge(counts[EMULATE_DONE], rounds / 10);
	expect_ge(counts[EMULATE_HALT], rounds / 100);
	expect_ge(counts[EMULATE_KILL], rounds / 10);
	expect_ge(e.log.ins, rounds / 50);
	expect_ge(e.log.outs, rounds / 50);
	teardown(&e);
}
