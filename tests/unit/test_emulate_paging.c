/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes of CR0 and CR4 that paging depends on: what the guest may do afterwards.
 */
#include "tests/model/guest_mem.h"
#include "tests/support/hoard.h"
#include "tests/support/test.h"
#include "vmm/emulate.h"

#define CODE 0x2000UL
#define PAGE 0x8000UL

#define CR0_START (CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG)

struct emu {
	struct guest_mem g;
	struct bus bus;
	struct guest_regs regs;
	struct vcpu_cr cr;
	struct emulate_ctxt ctxt;
};

static const struct guest_mem_config config = {.audit = true};

static void setup(struct emu *e)
{
	*e = (struct emu){0};
	guest_mem_create(&e->g, &config);
	bus_init(&e->bus);
	vcpu_cr_init(&e->cr, e->g.cr3);
	e->ctxt = (struct emulate_ctxt){
		.shadow = e->g.shadow,
		.cr = &e->cr,
		.bus = &e->bus,
		.regs = &e->regs,
	};
}

static void teardown(struct emu *e)
{
	bus_destroy(&e->bus);
	guest_mem_destroy(&e->g);
}

/* MOV to CR@nr, from RAX. */
static enum emulate_result mov_to_cr(struct emu *e, unsigned int nr, uint64_t value)
{
	const uint8_t insn[] = {0x0f, 0x22, 0xc0 | nr << 3};

	expect_eq(shadow_write_gpa(e->g.shadow, CODE, insn, sizeof(insn)), 0);
	e->regs.rip = CODE;
	e->regs.gpr[GPR_RAX] = value;
	return emulate_trap(&e->ctxt);
}

TEST(emulate_paging, write_protection)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, PAGE, PAGE, GUEST_PTE_P);
	expect_eq(guest_try(&e.g, 0, MODEL_STORE, PAGE, NULL), RET_PF_GUEST);
	for (int i = 0; i < 2; i++) {
		expect_eq(mov_to_cr(&e, 0, CR0_START & ~CR0_WP), EMULATE_DONE);
		expect_eq(e.cr.cr0, CR0_START & ~CR0_WP);
		expect_eq(e.regs.rip, CODE + 3);
		guest_store(&e.g, 0, PAGE, i);
		expect_eq(mov_to_cr(&e, 0, CR0_START), EMULATE_DONE);
		expect_eq(guest_try(&e.g, 0, MODEL_STORE, PAGE, NULL), RET_PF_GUEST);
		expect_eq(guest_load(&e.g, 0, PAGE), i);
	}
	teardown(&e);
}

TEST(emulate_paging, smep_and_global_pages)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, PAGE, PAGE, GUEST_PTE_RW | GUEST_PTE_U);
	expect_eq(guest_try(&e.g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_FIXED);
	expect_eq(mov_to_cr(&e, 4, CR4_PAE | CR4_PGE | CR4_SMEP), EMULATE_DONE);
	expect_eq(e.cr.cr4, CR4_PAE | CR4_PGE | CR4_SMEP);
	expect_eq(guest_try(&e.g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_GUEST);
	guest_store(&e.g, 0, PAGE, 1);
	expect_eq(mov_to_cr(&e, 4, CR4_PAE), EMULATE_DONE);
	expect_eq(guest_try(&e.g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_FIXED);
	teardown(&e);
}

/* Of a write that is refused nothing is done, also not what might be. */
TEST(emulate_paging, all_or_nothing)
{
	struct emu e;

	setup(&e);
	guest_map(&e.g, e.g.cr3, PAGE, PAGE, GUEST_PTE_P);
	expect_eq(mov_to_cr(&e, 0, (CR0_START & ~CR0_WP) | CR0_MP), EMULATE_KILL);
	expect_eq(mov_to_cr(&e, 4, CR4_PAE | CR4_SMEP | GUEST_CR4_SMAP), EMULATE_KILL);
	expect_eq(e.cr.cr0, CR0_START);
	expect_eq(e.cr.cr4, CR4_PAE);
	expect_eq(shadow_get_cpu(e.g.shadow, 0)->cr4, GUEST_CR4_PAE);
	expect_eq(guest_try(&e.g, 0, MODEL_STORE, PAGE, NULL), RET_PF_GUEST);
	teardown(&e);
}

/* No frame for the root of the new view: the instruction has not happened. */
TEST(emulate_paging, no_memory_for_the_view)
{
	static struct hoard hoard;
	struct emu e;

	setup(&e);
	expect_eq(mov_to_cr(&e, 4, CR4_PAE), EMULATE_DONE); /* no change; the code is in place */
	hoard_frames(&hoard, e.g.phys);
	e.regs.rip = CODE;
	e.regs.gpr[GPR_RAX] = CR4_PAE | CR4_SMEP;
	expect_eq(emulate_trap(&e.ctxt), EMULATE_NO_MEMORY);
	expect_eq(e.regs.rip, CODE);
	expect_eq(e.cr.cr4, CR4_PAE);
	hoard_release(&hoard);
	expect_eq(emulate_trap(&e.ctxt), EMULATE_DONE);
	expect_eq(e.cr.cr4, CR4_PAE | CR4_SMEP);
	teardown(&e);
}
