/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine of an engine's with tables made by hand through its machine operations, and no shadow
 * MMU above. Guest programs are a few instructions each. Where the engine is not usable the test is
 * skipped, with the engine's own words for why.
 *
 * One page of code at CODE, one page of data at DATA; whatever else a test maps has its tables made
 * on the way. rig_destroy gives everything back and checks that no frame is missing.
 */
#ifndef TESTS_SUPPORT_ENGINE_RIG_H
#define TESTS_SUPPORT_ENGINE_RIG_H

#include <sched.h>
#include <string.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/util.h"
#include "tests/support/test.h"
#include "vmm/cpl3.h"
#include "vmm/engine.h"

#define CODE  0x400000ul
#define DATA  0x600000ul
#define OTHER 0x40000000ul /* nothing there, and no table either */

#define P     0x1ul
#define W     0x2ul
#define U     0x4ul
#define AD    0x60ul
#define NX    (1ul << 63)
#define RWX   (P | W | U | AD)
#define TABLE (P | W | U | 0x20ul)

/* A guest program: guest_##name, ending at guest_##name##_end. */
#define GUEST(name, code)                                       \
	extern const char guest_##name[], guest_##name##_end[]; \
	asm(".pushsection .rodata\n"                            \
	    "guest_" #name ":\n" code "\n"                      \
	    "guest_" #name "_end:\n"                            \
	    ".popsection\n")

GUEST(load, "mov (%rdi), %rax; ud2");
GUEST(store, "mov %rax, (%rdi); ud2");
GUEST(count, "1: incq (%rdi); jmp 1b");
GUEST(ud2, "ud2");

/* A case that is included into the tests of several engines. */
#define ENGINE_TEST(name)	  ENGINE_TEST_(SUITE, name)
#define ENGINE_TEST_(suite, name) TEST(suite, name)

struct rig {
	const struct engine_ops *ops;
	struct phys *phys;
	struct engine *engine;
	struct machine *machine;
	pfn_t root, code, data;
	pfn_t tables[512], pages[256];
	unsigned int nr_tables, nr_pages;
};

/* Measured once for a test, which is about one engine. */
static inline const struct engine_report *host(const struct engine_ops *ops)
{
	static const struct engine_ops *asked;
	static struct engine_report report;

	if (!asked)
		ops->probe(&report);
	expect(!asked || asked == ops);
	asked = ops;
	if (!report.usable)
		skip("%s", report.why);
	return &report;
}

static inline pfn_t rig_table(struct rig *rig, int level)
{
	pfn_t pfn = rig->machine->ops->alloc_table(rig->machine, level);

	expect_ne(pfn, INVALID_PFN);
	expect(rig->nr_tables < ARRAY_SIZE(rig->tables));
	rig->tables[rig->nr_tables++] = pfn;
	return pfn;
}

/* The rig does not own this table any more. */
static inline void rig_forget_table(struct rig *rig, pfn_t table)
{
	for (unsigned int i = 0; i < rig->nr_tables; i++)
		if (rig->tables[i] == table)
			rig->tables[i] = rig->tables[--rig->nr_tables];
}

static inline pfn_t rig_page(struct rig *rig)
{
	pfn_t pfn = phys_alloc_zeroed(rig->phys);

	expect_ne(pfn, INVALID_PFN);
	expect(rig->nr_pages < ARRAY_SIZE(rig->pages));
	rig->pages[rig->nr_pages++] = pfn;
	return pfn;
}

static inline uint64_t *rig_words(struct rig *rig, pfn_t pfn)
{
	return rig->machine->ops->map_frame(rig->machine, pfn);
}

static inline uint64_t *rig_entry_at(struct rig *rig, pfn_t root, uint64_t gva, int level)
{
	pfn_t table = root;

	for (int l = 4;; l--) {
		uint64_t *entry = &rig_words(rig, table)[gva >> (3 + 9 * l) & 511];

		if (l == level)
			return entry;
		if (!*entry)
			*entry = rig_table(rig, l - 1) << PAGE_SHIFT | TABLE;
		table = (*entry & 0x000ffffffffff000) >> PAGE_SHIFT;
	}
}

static inline uint64_t *rig_entry(struct rig *rig, uint64_t gva, int level)
{
	return rig_entry_at(rig, rig->root, gva, level);
}

static inline void rig_map_at(struct rig *rig, pfn_t root, uint64_t gva, pfn_t pfn, uint64_t bits)
{
	WRITE_ONCE(*rig_entry_at(rig, root, gva, 1), pfn << PAGE_SHIFT | bits);
}

static inline void rig_map(struct rig *rig, uint64_t gva, pfn_t pfn, uint64_t bits)
{
	rig_map_at(rig, rig->root, gva, pfn, bits);
}

static inline void rig_shoot(struct rig *rig, pfn_t pfn)
{
	expect_eq(rig->machine->ops->shootdown(rig->machine, &pfn, 1), 0);
}

static inline void rig_create(struct rig *rig, const struct engine_ops *ops, uint64_t nr_frames,
			      unsigned int nr_vcpus)
{
	char why[256] = "";

	host(ops);
	memset(rig, 0, sizeof(*rig));
	rig->ops = ops;
	expect_eq(phys_create(&rig->phys, nr_frames), 0);
	if (ops->create(&rig->engine, rig->phys, nr_vcpus, why, sizeof(why)))
		fail("create: %s", why);
	rig->machine = &rig->engine->machine;
	rig->root = rig_table(rig, 4);
	rig->code = rig_page(rig);
	rig->data = rig_page(rig);
	rig_map(rig, CODE, rig->code, P | U | 0x20);
	rig_map(rig, DATA, rig->data, RWX | NX);
}

/* vCPU 0 on this thread. */
static inline void rig_create_here(struct rig *rig, const struct engine_ops *ops)
{
	rig_create(rig, ops, 256, 1);
	expect_eq(ops->vcpu_init(rig->engine, 0), 0);
	rig->machine->ops->load_root(rig->machine, 0, rig->root);
}

static inline void rig_destroy(struct rig *rig)
{
	while (rig->nr_tables)
		rig->machine->ops->retire_table(rig->machine, rig->tables[--rig->nr_tables]);
	rig->ops->destroy(rig->engine);
	while (rig->nr_pages)
		phys_put(rig->phys, rig->pages[--rig->nr_pages]);
	expect_eq(phys_nr_free(rig->phys), phys_nr_frames(rig->phys));
	phys_destroy(rig->phys);
}

static inline struct guest_regs *rig_start(struct rig *rig, unsigned int vcpu, const char *program,
					   const char *end)
{
	struct guest_regs *regs = rig->ops->regs(rig->engine, vcpu);

	memcpy(rig_words(rig, rig->code), program, end - program);
	regs->rip = CODE;
	return regs;
}

#define start(rig, name) rig_start(rig, 0, guest_##name, guest_##name##_end)

static inline struct engine_exit rig_run(struct rig *rig, unsigned int vcpu)
{
	struct engine_exit exit;

	do {
		rig->ops->vcpu_run(rig->engine, vcpu, &exit);
	} while (exit.kind == ENGINE_EXIT_KICK);
	if (exit.kind == ENGINE_EXIT_FAIL || exit.kind == ENGINE_EXIT_ERROR)
		fail("the engine failed: %s", exit.why);
	return exit;
}

static inline struct engine_exit rig_trap(struct rig *rig)
{
	struct engine_exit exit = rig_run(rig, 0);

	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	return exit;
}

/* The word at @gva as the guest reads it, or the poison that no page here holds if it faults. */
static inline uint64_t rig_read(struct rig *rig, uint64_t gva)
{
	struct guest_regs *regs = start(rig, load);
	struct engine_exit exit;

	regs->gpr[GPR_RDI] = gva;
	exit = rig_trap(rig);
	if (exit.vector == VECTOR_UD)
		return regs->gpr[GPR_RAX];
	expect_eq(exit.vector, VECTOR_PF);
	expect_eq(exit.fault_address, gva);
	return PHYS_POISON;
}

/* Until a word of guest memory is no longer @value. The test's timeout is the bound. */
static inline void wait_while_equal(const uint64_t *word, uint64_t value)
{
	while (READ_ONCE(*word) == value)
		sched_yield();
}

#endif
