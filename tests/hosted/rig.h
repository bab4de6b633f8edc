/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine of the hosted engine with tables made by hand through its machine operations, and no
 * shadow MMU above, for guests that mean harm. Guest programs are a few instructions each.
 *
 * One page of code at CODE for all, one page of data at DATA, writable pages at STACK. The engine's
 * own structures may be looked at: tests here are of what it promises in vmm/engine_hosted.h.
 */
#ifndef TESTS_HOSTED_RIG_H
#define TESTS_HOSTED_RIG_H

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/support/test.h"
#include "vmm/cpl3.h"
#include "vmm/engine_hosted.h"

#define CODE  0x400000ul
#define DATA  0x600000ul
#define STACK 0x700000ul   /* STACK_PAGES of them, writable */
#define OTHER 0x40000000ul /* nothing there, and no table either */

#define STACK_PAGES 4
#define STACK_END   (STACK + STACK_PAGES * PAGE_SIZE)

#define P      0x1ul
#define W      0x2ul
#define U      0x4ul
#define AD     0x60ul
#define NX     (1ul << 63)
#define RO     (P | U | 0x20ul)
#define RWX    (P | W | U | AD)
#define TABLE  (P | W | U | 0x20ul)
#define POISON 0xdeadf4a3e0ddba11ul /* of words that no guest should have changed */

enum {
	VECTOR_DE,
	VECTOR_DB,
	VECTOR_BP = 3,
	VECTOR_OF,
	VECTOR_SS = 12,
	VECTOR_MF = 16,
	VECTOR_AC,
	VECTOR_XM = 19
};

/* A guest program: guest_##name, ending at guest_##name##_end. */
#define GUEST(name, code)                                       \
	extern const char guest_##name[], guest_##name##_end[]; \
	asm(".pushsection .rodata\n"                            \
	    "guest_" #name ":\n" code "\n"                      \
	    "guest_" #name "_end:\n"                            \
	    ".popsection\n")

/*
 * What these tests wait for happens in another process, which wakes nobody: one looks, and in a
 * moment again. Who looked in a loop would be in the way of it.
 */
static inline void look_again_in(unsigned int usecs)
{
	const struct timespec moment = {0, usecs * 1000l};

	ppoll(NULL, 0, &moment, NULL);
}

struct rig {
	struct phys *phys;
	struct engine *engine;
	struct machine *machine;
	pfn_t root, code, data, stack[STACK_PAGES];
	pfn_t tables[512], pages[256];
	unsigned int nr_tables, nr_pages;
};

static inline struct hosted_engine *rig_hosted(struct rig *rig)
{
	return to_hosted_engine(rig->engine);
}

/* Where vCPU @vcpu was last. Its child may be dead. */
static inline struct hosted_space *rig_space(struct rig *rig, unsigned int vcpu)
{
	return rig_hosted(rig)->cpus[vcpu].space;
}

static inline pfn_t rig_table(struct rig *rig, int level)
{
	pfn_t pfn = rig->machine->ops->alloc_table(rig->machine, level);

	expect_ne(pfn, INVALID_PFN);
	expect(rig->nr_tables < ARRAY_SIZE(rig->tables));
	rig->tables[rig->nr_tables++] = pfn;
	return pfn;
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

static inline uint64_t *rig_entry_at(struct rig *rig, pfn_t root, uint64_t gva)
{
	pfn_t table = root;

	for (int level = 4;; level--) {
		uint64_t *entry = &rig_words(rig, table)[gva >> (3 + 9 * level) & 511];

		if (level == 1)
			return entry;
		if (!*entry)
			*entry = rig_table(rig, level - 1) << PAGE_SHIFT | TABLE;
		table = (*entry & 0x000ffffffffff000) >> PAGE_SHIFT;
	}
}

static inline void rig_map_at(struct rig *rig, pfn_t root, uint64_t gva, pfn_t pfn, uint64_t bits)
{
	WRITE_ONCE(*rig_entry_at(rig, root, gva), pfn << PAGE_SHIFT | bits);
}

static inline void rig_map(struct rig *rig, uint64_t gva, pfn_t pfn, uint64_t bits)
{
	rig_map_at(rig, rig->root, gva, pfn, bits);
}

static inline void rig_shoot(struct rig *rig, pfn_t pfn)
{
	expect_eq(rig->machine->ops->shootdown(rig->machine, &pfn, 1), 0);
}

/* A root with what all guests have. */
static inline pfn_t rig_root(struct rig *rig)
{
	pfn_t root = rig_table(rig, 4);

	rig_map_at(rig, root, CODE, rig->code, RO);
	rig_map_at(rig, root, DATA, rig->data, RWX | NX);
	for (unsigned int i = 0; i < STACK_PAGES; i++)
		rig_map_at(rig, root, STACK + i * PAGE_SIZE, rig->stack[i], RWX | NX);
	return root;
}

static inline void rig_create(struct rig *rig, uint64_t nr_frames, unsigned int nr_vcpus)
{
	char why[256] = "";
	int err;

	memset(rig, 0, sizeof(*rig));
	expect_eq(phys_create(&rig->phys, nr_frames), 0);
	err = engine_hosted.create(&rig->engine, rig->phys, nr_vcpus, why, sizeof(why));
	if (err == -ENODEV || err == -EACCES || err == -EPERM)
		skip("%s", why);
	if (err)
		fail("create: %s", why);
	rig->machine = &rig->engine->machine;
	rig->code = rig_page(rig);
	rig->data = rig_page(rig);
	for (unsigned int i = 0; i < STACK_PAGES; i++)
		rig->stack[i] = rig_page(rig);
	rig->root = rig_root(rig);
}

static inline void rig_load_root(struct rig *rig, unsigned int vcpu, pfn_t root)
{
	rig->machine->ops->load_root(rig->machine, vcpu, root);
}

/* @vcpu on the thread that calls. */
static inline void rig_init_vcpu(struct rig *rig, unsigned int vcpu)
{
	expect_eq(engine_hosted.vcpu_init(rig->engine, vcpu), 0);
	rig_load_root(rig, vcpu, rig->root);
}

/* vCPU 0 on this thread. */
static inline void rig_create_here(struct rig *rig)
{
	rig_create(rig, 1024, 1);
	rig_init_vcpu(rig, 0);
}

/* Every frame comes back: what a guest did has not upset whose they are. */
static inline void rig_destroy(struct rig *rig)
{
	while (rig->nr_tables)
		rig->machine->ops->retire_table(rig->machine, rig->tables[--rig->nr_tables]);
	engine_hosted.destroy(rig->engine);
	while (rig->nr_pages)
		phys_put(rig->phys, rig->pages[--rig->nr_pages]);
	expect_eq(phys_nr_free(rig->phys), phys_nr_frames(rig->phys));
	phys_destroy(rig->phys);
}

static inline struct guest_regs *rig_regs(struct rig *rig, unsigned int vcpu)
{
	return engine_hosted.regs(rig->engine, vcpu);
}

/* Put a program at CODE + @offset, and @vcpu before it. */
static inline struct guest_regs *rig_start(struct rig *rig, unsigned int vcpu, size_t offset,
					   const char *program, const char *end)
{
	struct guest_regs *regs = rig_regs(rig, vcpu);

	expect(offset + (end - program) <= PAGE_SIZE);
	memcpy((char *)rig_words(rig, rig->code) + offset, program, end - program);
	regs->rip = CODE + offset;
	return regs;
}

#define start(rig, name) rig_start(rig, 0, 0, guest_##name, guest_##name##_end)

static inline struct engine_exit rig_run(struct rig *rig, unsigned int vcpu)
{
	struct engine_exit exit;

	engine_hosted.vcpu_run(rig->engine, vcpu, &exit);
	return exit;
}

/* To its next exception; a kick may come late. */
static inline struct engine_exit rig_trap(struct rig *rig, unsigned int vcpu)
{
	struct engine_exit exit;

	do {
		exit = rig_run(rig, vcpu);
	} while (exit.kind == ENGINE_EXIT_KICK);
	if (exit.kind != ENGINE_EXIT_TRAP)
		fail("no exception, but exit %d: %s", exit.kind, exit.why);
	return exit;
}

GUEST(load, "mov (%rdi), %rax; ud2");

/* The word at @gva as the guest reads it, or POISON if it faults. */
static inline uint64_t rig_read(struct rig *rig, uint64_t gva)
{
	struct guest_regs *regs = start(rig, load);
	struct engine_exit exit;

	regs->gpr[GPR_RDI] = gva;
	exit = rig_trap(rig, 0);
	if (exit.vector == VECTOR_UD)
		return regs->gpr[GPR_RAX];
	expect_eq(exit.vector, VECTOR_PF);
	expect_eq(exit.fault_address, gva);
	return POISON;
}

#endif
