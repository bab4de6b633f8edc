/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stores that the VMM carries out: whole or not at all, atomic, and what is left to the CPU. What
 * they compute is compared with the CPU in test_emulate_native.c.
 */
#include <errno.h>
#include <string.h>

#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/hoard.h"
#include "tests/support/test.h"
#include "vmm/alu.h"
#include "vmm/emulate_store.h"

#define CODE   0x2000UL /* gva == gpa */
#define GVA    0x10000000UL
#define SECOND (GVA + PAGE_SIZE)
#define GPA_A  0x8000UL
#define GPA_B  0x6000UL

#define PTE_MARKS    (GUEST_PTE_A | GUEST_PTE_D)
#define RFLAGS_START 0x10246UL /* RF, as after a fault */

struct emu {
	struct guest_mem g;
	struct guest_regs regs;
	struct emulate_ctxt ctxt;
};

static void setup(struct emu *e)
{
	static const struct guest_mem_config config = {.audit = true,
						       .nr_cpus = 2,
						       .reserve_slot = 7};

	*e = (struct emu){0};
	guest_mem_create(&e->g, &config);
	guest_map(&e->g, e->g.cr3, GVA, GPA_A, GUEST_PTE_RW);
	guest_map(&e->g, e->g.cr3, SECOND, GPA_B, GUEST_PTE_RW);
	for (unsigned int i = 0; i < 16; i++)
		e->regs.gpr[i] = 0x1111111111111111UL * i;
	e->regs.gpr[GPR_RDI] = GVA;
	e->ctxt = (struct emulate_ctxt){.shadow = e->g.shadow, .regs = &e->regs};
}

static void teardown(struct emu *e)
{
	guest_mem_destroy(&e->g);
}

#define BYTES(s) (s), sizeof(s) - 1

static enum emulate_result run(struct emu *e, const void *bytes, size_t len)
{
	expect_eq(shadow_write_gpa(e->g.shadow, CODE, bytes, len), 0);
	e->regs.rip = CODE;
	e->regs.rflags = RFLAGS_START;
	return emulate_store(&e->ctxt);
}

static void done(struct emu *e, const void *bytes, size_t len)
{
	enum emulate_result result = run(e, bytes, len);

	if (result != EMULATE_DONE)
		fail("%s: %s", emulate_result_name(result), e->ctxt.why);
	expect_eq(e->regs.rip, CODE + len);
	expect_eq(e->regs.rflags & 0x10000, 0);
}

#define DONE(e, bytes) done(e, BYTES(bytes))

/* Neither registers nor memory have changed. */
static void expect_untouched(struct emu *e, const void *bytes, size_t len,
			     enum emulate_result expected)
{
	struct guest_regs before = e->regs;
	char memory[2][PAGE_SIZE], after[2][PAGE_SIZE];
	static const gpa_t gpas[2] = {GPA_A, GPA_B};
	enum emulate_result result;

	for (unsigned int i = 0; i < 2; i++)
		expect_eq(shadow_read_gpa(e->g.shadow, gpas[i], memory[i], PAGE_SIZE), 0);
	result = run(e, bytes, len);
	if (result != expected)
		fail("%s instead of %s: %s", emulate_result_name(result),
		     emulate_result_name(expected), e->ctxt.why);
	before.rip = CODE;
	before.rflags = RFLAGS_START;
	expect_eq(memcmp(&before, &e->regs, sizeof(before)), 0);
	for (unsigned int i = 0; i < 2; i++)
		expect_eq(shadow_read_gpa(e->g.shadow, gpas[i], after[i], PAGE_SIZE), 0);
	expect_eq(memcmp(memory, after, sizeof(after)), 0);
}

#define UNTOUCHED(e, bytes, result) expect_untouched(e, BYTES(bytes), result)

static uint64_t marks(struct emu *e, gva_t gva)
{
	return guest_read(&e->g, guest_pte_gpa(&e->g, e->g.cr3, gva, 1)) & PTE_MARKS;
}

#define MOV_RDI_RAX	 "\x48\x89\x07"
#define ADD_RDI_RAX	 "\x48\x01\x07"
#define LOCK_ADD_RDI_RAX "\xf0\x48\x01\x07"
#define STOSQ		 "\x48\xab"
#define REP_STOSQ	 "\xf3\x48\xab"
#define REP_MOVSQ	 "\xf3\x48\xa5"

/* --- what is left to the CPU --- */

TEST(emulate_store, left_to_the_cpu)
{
	struct emu e;

	setup(&e);
	UNTOUCHED(&e, "\x0f\x29\x07", EMULATE_UNPROTECT);	  /* movaps [rdi], xmm0 */
	UNTOUCHED(&e, "\xf2\x0f\x11\x07", EMULATE_UNPROTECT);	  /* movsd [rdi], xmm0 */
	UNTOUCHED(&e, "\x66\x0f\x7e\x07", EMULATE_UNPROTECT);	  /* movd [rdi], xmm0 */
	UNTOUCHED(&e, "\xc5\xfe\x7f\x07", EMULATE_UNPROTECT);	  /* vmovdqu [rdi], ymm0 */
	UNTOUCHED(&e, "\x0f\xae\x07", EMULATE_UNPROTECT);	  /* fxsave [rdi] */
	UNTOUCHED(&e, "\x0f\xae\x27", EMULATE_UNPROTECT);	  /* xsave [rdi] */
	UNTOUCHED(&e, "\xdd\x1f", EMULATE_UNPROTECT);		  /* fstp qword [rdi] */
	UNTOUCHED(&e, "\xf0\x48\x0f\xc7\x0f", EMULATE_UNPROTECT); /* lock cmpxchg16b [rdi] */
	UNTOUCHED(&e, "\x48\xd1\x27", EMULATE_UNPROTECT);	  /* shl qword [rdi] */
	UNTOUCHED(&e, "\x48\x0f\xa4\x07\x01", EMULATE_UNPROTECT); /* shld [rdi], rax, 1 */
	UNTOUCHED(&e, "\x8c\x1f", EMULATE_UNPROTECT);		  /* mov [rdi], ds */
	UNTOUCHED(&e, "\x50", EMULATE_UNPROTECT);		  /* push rax */
	UNTOUCHED(&e, "\xff\x37", EMULATE_UNPROTECT);		  /* push [rdi] */
	UNTOUCHED(&e, "\x8f\x07", EMULATE_UNPROTECT);		  /* pop [rdi] */
	UNTOUCHED(&e, "\xff\x17", EMULATE_UNPROTECT);		  /* call [rdi] */
	UNTOUCHED(&e, "\xe8\0\0\0\0", EMULATE_UNPROTECT);	  /* call */
	UNTOUCHED(&e, "\x64\x48\x89\x07", EMULATE_UNPROTECT);	  /* mov fs:[rdi], rax */
	UNTOUCHED(&e, "\x65\x48\x89\x07", EMULATE_UNPROTECT);	  /* mov gs:[rdi], rax */
	UNTOUCHED(&e, "\x65\x48\xa5", EMULATE_UNPROTECT);	  /* movsq, from gs:[rsi] */
	UNTOUCHED(&e, "\xf2\x48\xab", EMULATE_UNPROTECT);	  /* repne stosq */
	UNTOUCHED(&e, "\x48\x01\xc0", EMULATE_UNPROTECT);	  /* add rax, rax */
	UNTOUCHED(&e, "\x48\x03\x07", EMULATE_UNPROTECT);	  /* add rax, [rdi] */
	UNTOUCHED(&e, "\xf0\x48\x89\x07", EMULATE_UNPROTECT);	  /* lock mov */
	UNTOUCHED(&e, "\x06", EMULATE_UNPROTECT);		  /* no instruction */
	expect_eq(marks(&e, GVA), 0);
	teardown(&e);
}

TEST(emulate_store, single_step_is_left_to_the_cpu)
{
	struct emu e;

	setup(&e);
	expect_eq(shadow_write_gpa(e.g.shadow, CODE, BYTES(MOV_RDI_RAX)), 0);
	e.regs.rip = CODE;
	e.regs.rflags = RFLAGS_START | RFLAGS_TF;
	expect_eq(emulate_store(&e.ctxt), EMULATE_UNPROTECT);
	expect_eq(e.regs.rip, CODE);
	teardown(&e);
}

/* --- pages and words --- */

TEST(emulate_store, across_pages)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RAX] = 0x0807060504030201;
	for (unsigned int in_first = 1; in_first < 8; in_first++) {
		uint64_t value = 0;

		e.regs.gpr[GPR_RDI] = SECOND - in_first;
		DONE(&e, MOV_RDI_RAX);
		DONE(&e, ADD_RDI_RAX);
		expect_eq(shadow_read_gpa(e.g.shadow, GPA_A + PAGE_SIZE - in_first, &value,
					  in_first),
			  0);
		expect_eq(shadow_read_gpa(e.g.shadow, GPA_B, (char *)&value + in_first,
					  8 - in_first),
			  0);
		expect_eq(value, 2 * e.regs.gpr[GPR_RAX]);
		UNTOUCHED(&e, LOCK_ADD_RDI_RAX, EMULATE_UNPROTECT);
		UNTOUCHED(&e, "\x48\x87\x07", EMULATE_UNPROTECT); /* xchg */
	}
	expect_eq(marks(&e, GVA), PTE_MARKS);
	expect_eq(marks(&e, SECOND), PTE_MARKS);
	teardown(&e);
}

/* Left to the CPU: so no D bit, either, of a store that may never come. */
TEST(emulate_store, locked_across_words)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RDI] = GVA + 1;
	UNTOUCHED(&e, LOCK_ADD_RDI_RAX, EMULATE_UNPROTECT);
	UNTOUCHED(&e, "\x48\x87\x07", EMULATE_UNPROTECT);
	expect_eq(marks(&e, GVA), 0);
	DONE(&e, "\xf0\x66\x01\x47\x05"); /* lock add [rdi+5], ax */
	teardown(&e);
}

/* --- faults --- */

TEST(emulate_store, second_page_faults)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, SECOND, GPA_B, GUEST_PTE_P);
	e.regs.gpr[GPR_RDI] = SECOND - 3;
	UNTOUCHED(&e, MOV_RDI_RAX, EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, SECOND);
	expect_eq(e.ctxt.fault.error_code, PFERR_PRESENT | PFERR_WRITE);
	UNTOUCHED(&e, ADD_RDI_RAX, EMULATE_GUEST_PF);
	UNTOUCHED(&e, STOSQ, EMULATE_GUEST_PF);
	expect_eq(marks(&e, GVA), 0);
	expect_eq(marks(&e, SECOND), 0);
	teardown(&e);
}

TEST(emulate_store, fetch_faults)
{
	struct emu e;

	setup(&e);
	e.regs.rip = 0x123456789;
	expect_eq(emulate_store(&e.ctxt), EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, 0x123456789);
	expect_eq(e.ctxt.fault.error_code, PFERR_FETCH);
	teardown(&e);
}

/* The CPU raises #GP: so it is let to. */
TEST(emulate_store, not_canonical)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RDI] = 1UL << 60;
	UNTOUCHED(&e, MOV_RDI_RAX, EMULATE_RETRY);
	e.regs.gpr[GPR_RDI] = (1UL << 47) - 1;
	UNTOUCHED(&e, MOV_RDI_RAX, EMULATE_RETRY);
	teardown(&e);
}

TEST(emulate_store, no_memory_there)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, SECOND, 0x7000000000, GUEST_PTE_RW);
	e.regs.gpr[GPR_RDI] = SECOND - 3;
	UNTOUCHED(&e, MOV_RDI_RAX, EMULATE_KILL);
	expect_str_eq(e.ctxt.why, "mov [rdi], rax (48 89 07) at 0x2000: 0x10001000: guest physical "
				  "address 0x7000000000 (write) is neither memory nor a device");
	e.regs.gpr[GPR_RSI] = SECOND;
	e.regs.gpr[GPR_RDI] = GVA;
	UNTOUCHED(&e, "\x48\xa5", EMULATE_KILL);
	expect_str_contains(e.ctxt.why, "0x7000000000 (read)");
	e.regs.gpr[GPR_RDI] = 7UL << 39;
	UNTOUCHED(&e, MOV_RDI_RAX, EMULATE_KILL);
	expect_str_contains(e.ctxt.why, "0x38000000000 is in the part of memory that is the VMM's");
	teardown(&e);
}

TEST(emulate_store, host_refuses)
{
	struct emu e;

	setup(&e);
	expect_eq(mm_mprotect(e.g.mm, guest_hva(GPA_B), PAGE_SIZE, MM_PROT_READ), 0);
	e.regs.gpr[GPR_RDI] = SECOND - 3;
	UNTOUCHED(&e, MOV_RDI_RAX, EMULATE_BAD_HVA);
	expect_eq(e.ctxt.fault.hva, guest_hva(GPA_B));
	expect_eq(e.ctxt.fault.gva, SECOND);
	expect_eq(mm_mprotect(e.g.mm, guest_hva(GPA_B), PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE),
		  0);
	DONE(&e, MOV_RDI_RAX);
	teardown(&e);
}

TEST(emulate_store, host_has_no_frame)
{
	static struct hoard hoard;
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, SECOND, 0x9000, GUEST_PTE_RW); /* never touched */
	e.regs.gpr[GPR_RDI] = SECOND;
	hoard_frames(&hoard, e.g.phys);
	/* UNTOUCHED would need a frame itself. */
	e.regs.rip = CODE;
	expect_eq(mm_zap_range(e.g.mm, guest_hva(CODE), PAGE_SIZE), 0);
	expect_eq(emulate_store(&e.ctxt), EMULATE_NO_MEMORY);
	expect_str_contains(e.ctxt.why, "no memory to fetch it");
	hoard_release(&hoard);

	expect_eq(shadow_write_gpa(e.g.shadow, CODE, BYTES(MOV_RDI_RAX)), 0);
	hoard_frames(&hoard, e.g.phys);
	expect_eq(emulate_store(&e.ctxt), EMULATE_NO_MEMORY);
	expect_str_contains(e.ctxt.why, "mov [rdi], rax (48 89 07) at 0x2000: no memory for its "
					"operand");
	expect_eq(e.regs.rip, CODE);
	hoard_release(&hoard);
	DONE(&e, MOV_RDI_RAX);
	teardown(&e);
}

/* An entry that changes in each walk: the guest is to run on, and come back. */
static void edit_entry(void *arg)
{
	struct emu *e = arg;
	gpa_t pte = guest_pte_gpa(&e->g, e->g.cr3, GVA, 1);

	guest_write(&e->g, pte, (guest_read(&e->g, pte) & ~PTE_MARKS) ^ 1UL << 9);
}

TEST(emulate_store, tables_change_all_the_time)
{
	struct emu e;

	setup(&e);
	DONE(&e, ADD_RDI_RAX);
	shadow_set_hook(e.g.shadow, SHADOW_HOOK_WALK_BEFORE_MARK, edit_entry, &e);
	UNTOUCHED(&e, ADD_RDI_RAX, EMULATE_RETRY);
	shadow_set_hook(e.g.shadow, SHADOW_HOOK_WALK_BEFORE_MARK, NULL, NULL);
	DONE(&e, ADD_RDI_RAX);
	teardown(&e);
}

/* --- strings --- */

TEST(emulate_store, string_faults_half_way)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, SECOND, GPA_B, GUEST_PTE_P);
	e.regs.gpr[GPR_RAX] = 0x4711;
	e.regs.gpr[GPR_RDI] = SECOND - 24;
	e.regs.gpr[GPR_RCX] = 5;
	expect_eq(run(&e, BYTES(REP_STOSQ)), EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, SECOND);
	expect_eq(e.regs.gpr[GPR_RDI], SECOND);
	expect_eq(e.regs.gpr[GPR_RCX], 2);
	expect_eq(e.regs.rip, CODE);
	for (unsigned int i = 1; i <= 3; i++)
		expect_eq(guest_read(&e.g, GPA_A + PAGE_SIZE - 8 * i), 0x4711);

	/* The rest, once it may be written. */
	guest_map(&e.g, e.g.cr3, SECOND, GPA_B, GUEST_PTE_RW);
	expect_eq(emulate_store(&e.ctxt), EMULATE_DONE);
	expect_eq(e.regs.rip, CODE + 3);
	expect_eq(e.regs.gpr[GPR_RCX], 0);
	expect_eq(guest_read(&e.g, GPA_B + 8), 0x4711);
	expect_eq(guest_read(&e.g, GPA_B + 16), 0);
	teardown(&e);
}

/* The source is looked at first, for reading only; then nothing is stored. */
TEST(emulate_store, string_source_faults)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, GVA, 0, 0);
	e.regs.gpr[GPR_RSI] = GVA + 8;
	e.regs.gpr[GPR_RDI] = SECOND;
	e.regs.gpr[GPR_RCX] = 1;
	UNTOUCHED(&e, REP_MOVSQ, EMULATE_GUEST_PF);
	expect_eq(e.ctxt.fault.gva, GVA + 8);
	expect_eq(e.ctxt.fault.error_code, 0);
	expect_eq(marks(&e, SECOND), 0);
	guest_map(&e.g, e.g.cr3, GVA, GPA_A, GUEST_PTE_P);
	DONE(&e, REP_MOVSQ);
	expect_eq(marks(&e, GVA), GUEST_PTE_A);
	expect_eq(marks(&e, SECOND), PTE_MARKS);
	teardown(&e);
}

/* A count of years: the guest can be interrupted between calls. */
TEST(emulate_store, string_is_bounded)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RAX] = 0x61;
	e.regs.gpr[GPR_RCX] = ~0UL;
	expect_eq(run(&e, BYTES("\xf3\xaa")), EMULATE_DONE); /* rep stosb */
	expect_eq(e.regs.rip, CODE);
	expect_eq(e.regs.gpr[GPR_RCX], ~0UL - EMULATE_REP_MAX);
	expect_eq(e.regs.gpr[GPR_RDI], GVA + EMULATE_REP_MAX);
	expect_eq(guest_read(&e.g, GPA_A + EMULATE_REP_MAX - 8), 0x6161616161616161);
	expect_eq(guest_read(&e.g, GPA_A + EMULATE_REP_MAX), 0);
	teardown(&e);
}

/* --- to a table --- */

#define EDITED	 (3UL << 39)  /* mapped by tables of its own */
#define EDIT_GVA 0x20000000UL /* where the guest has the page of the entry, at @level */

static gva_t map_entry(struct emu *e, int level)
{
	gpa_t gpa = guest_pte_gpa(&e->g, e->g.cr3, EDITED, level);

	guest_map(&e->g, e->g.cr3, EDIT_GVA, gpa & PAGE_MASK, GUEST_PTE_RW);
	shadow_invlpg(e->g.shadow, 0, EDIT_GVA);
	return EDIT_GVA | (gpa & ~PAGE_MASK);
}

/* Another table where @level's entry leads: maps EDITED to GPA_B. */
static uint64_t other_table(struct emu *e, int level)
{
	gpa_t table = guest_new_table(&e->g);
	uint64_t next = level == 2 ? GPA_B : other_table(e, level - 1) & PAGE_MASK;

	guest_write(&e->g, table + (EDITED >> (PAGE_SHIFT + 9 * (level - 2)) & 511) * 8,
		    next | GUEST_PTE_RW);
	return table | GUEST_PTE_RW;
}

/*
 * A store to a directory that is in use faults; carried out, it counts at once, and the directory
 * stays protected. Left to the CPU it counts from INVLPG on.
 */
TEST(emulate_store, directory_entry)
{
	struct shadow_fault fault;
	struct emu e;

	setup(&e);
	guest_write(&e.g, GPA_A, 1);
	guest_write(&e.g, GPA_B, 2);
	for (int level = 2; level <= 4; level++) {
		gva_t at = map_entry(&e, level);
		uint64_t other;

		guest_map(&e.g, e.g.cr3, EDITED, GPA_A, GUEST_PTE_RW);
		shadow_invlpg(e.g.shadow, 0, EDITED);
		other = other_table(&e, level);
		expect_eq(guest_load(&e.g, 0, EDITED), 1);
		expect_eq(guest_fault(&e.g, 0, at, PFERR_WRITE, &fault), RET_PF_WRITE_PROTECTED);
		e.regs.gpr[GPR_RAX] = other;
		e.regs.gpr[GPR_RDI] = at;
		DONE(&e, "\x48\x87\x07"); /* xchg [rdi], rax */
		expect_eq(guest_load(&e.g, 0, EDITED), 2);
		expect_eq(guest_fault(&e.g, 0, at, PFERR_WRITE, &fault), RET_PF_WRITE_PROTECTED);
		DONE(&e, "\x48\x87\x07");
		expect_eq(e.regs.gpr[GPR_RAX], other | GUEST_PTE_A);
		expect_eq(guest_load(&e.g, 0, EDITED), 1);

		shadow_unprotect_gpa(e.g.shadow, fault.gpa);
		guest_store(&e.g, 0, at, other);
		shadow_invlpg(e.g.shadow, 0, EDITED);
		expect_eq(guest_load(&e.g, 0, EDITED), 2);
	}
	teardown(&e);
}

/* --- others write at the same time --- */

struct meanwhile {
	struct emu *e;
	uint64_t value;
	unsigned int nr;
};

static void write_once(void *arg)
{
	struct meanwhile *m = arg;

	if (m->nr++ == 0)
		guest_write(&m->e->g, GPA_A, m->value);
}

/* @bytes, with @value stored to the operand when the CPU would have it in its hands. */
static void race(struct emu *e, const void *bytes, size_t len, uint64_t before, uint64_t value)
{
	struct meanwhile m = {.e = e, .value = value};

	guest_write(&e->g, GPA_A, before);
	shadow_set_hook(e->g.shadow, SHADOW_HOOK_OPERAND_BEFORE_SWAP, write_once, &m);
	done(e, bytes, len);
	shadow_set_hook(e->g.shadow, SHADOW_HOOK_OPERAND_BEFORE_SWAP, NULL, NULL);
	expect_ge(m.nr, 1);
}

TEST(emulate_store, computed_anew_when_it_has_changed)
{
	struct emu e;

	setup(&e);
	e.regs.gpr[GPR_RAX] = 1;
	race(&e, BYTES(ADD_RDI_RAX), 5, ~0UL);
	expect_eq(guest_read(&e.g, GPA_A), 0);
	expect_eq(e.regs.rflags & RFLAGS_ARITHMETIC, RFLAGS_CF | RFLAGS_ZF | RFLAGS_PF | RFLAGS_AF);

	/* ADC reads CF as it was, not as the first attempt left it. */
	e.regs.gpr[GPR_RAX] = ~0UL;
	race(&e, BYTES("\x48\x11\x07"), 5, 7);
	expect_eq(guest_read(&e.g, GPA_A), 6);

	/* Was equal, and is not. */
	e.regs.gpr[GPR_RAX] = 5;
	e.regs.gpr[GPR_RCX] = 8;
	race(&e, BYTES("\x48\x0f\xb1\x0f"), 5, 6); /* cmpxchg [rdi], rcx */
	expect_eq(guest_read(&e.g, GPA_A), 6);
	expect_eq(e.regs.gpr[GPR_RAX], 6);
	expect_eq(e.regs.rflags & RFLAGS_ZF, 0);

	race(&e, BYTES("\x48\x87\x0f"), 1, 2); /* xchg [rdi], rcx */
	expect_eq(guest_read(&e.g, GPA_A), 8);
	expect_eq(e.regs.gpr[GPR_RCX], 2);

	/* One byte, beside which another changes. */
	race(&e, BYTES("\xc6\x47\x03\xaa"), 0x1111111111111111, 0x2222222222222222);
	expect_eq(guest_read(&e.g, GPA_A), 0x22222222aa222222);
	teardown(&e);
}

struct counter {
	struct emu *e;
	struct guest_regs regs;
	struct emulate_ctxt ctxt;
	unsigned int rounds;
};

/* Where the host moves the page meanwhile, the instruction is begun anew: a retry has done nothing.
 */
static void count_as_guest(void *arg)
{
	struct counter *c = arg;

	for (unsigned int i = 0; i < c->rounds; i++) {
		enum emulate_result result;

		c->regs.rip = CODE;
		while ((result = emulate_store(&c->ctxt)) == EMULATE_RETRY)
			expect_eq(c->regs.rip, CODE);
		expect_eq(result, EMULATE_DONE);
	}
}

static void count_as_device(void *arg)
{
	struct counter *c = arg;

	for (unsigned int i = 0; i < c->rounds; i++) {
		uint64_t old = 0;

		while (mm_cmpxchg64(c->e->g.mm, guest_hva(GPA_A), &old, old + 1) > 0)
			;
	}
}

static void migrate_all_the_time(void *arg)
{
	struct counter *c = arg;

	for (unsigned int i = 0; i < c->rounds / 8; i++)
		expect_ge(mm_migrate_range(c->e->g.mm, guest_hva(GPA_A), PAGE_SIZE), 0);
}

/* Two vCPUs (without LOCK), a device, and a host that moves the page. */
TEST(emulate_store, nobody_loses_a_count)
{
	unsigned int rounds = test_long() ? 50000 : 5000;
	struct counter c[4];
	struct kthread threads[4];
	static void (*const fns[4])(void *arg) = {
		count_as_guest,
		count_as_guest,
		count_as_device,
		migrate_all_the_time,
	};
	struct emu e;

	setup(&e);
	expect_eq(shadow_write_gpa(e.g.shadow, CODE, BYTES("\x48\xff\x07")), 0); /* inc */
	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++) {
		c[i] = (struct counter){.e = &e, .regs = e.regs, .rounds = rounds};
		c[i].ctxt = (struct emulate_ctxt){.shadow = e.g.shadow,
						  .vcpu = i & 1,
						  .regs = &c[i].regs};
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++)
		expect_eq(kthread_run(&threads[i], "counter", fns[i], &c[i]), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(c); i++)
		kthread_join(&threads[i]);
	expect_eq(guest_read(&e.g, GPA_A), 3 * rounds);
	teardown(&e);
}
