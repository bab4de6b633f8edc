/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine of the hosted engine for guests that mean harm (tests/support/engine_rig.h), with
 * writable pages at STACK. The engine's own structures may be looked at: tests here are of what it
 * promises in vmm/engine_hosted.h.
 */
#ifndef TESTS_HOSTED_RIG_H
#define TESTS_HOSTED_RIG_H

#include <errno.h>

#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "tests/support/engine_rig.h"
#include "vmm/engine_hosted.h"

#define STACK	    0x700000ul
#define STACK_PAGES 4
#define STACK_END   (STACK + STACK_PAGES * PAGE_SIZE)

#define RO     (P | U | 0x20ul)
#define POISON PHYS_POISON /* of words that no guest should have changed */

/*
 * What these tests wait for happens in another process, which wakes nobody: one looks, and in a
 * moment again. Who looked in a loop would be in the way of it.
 */
static inline void look_again_in(unsigned int usecs)
{
	fsleep(usecs);
}

static inline struct hosted_engine *rig_hosted(struct rig *rig)
{
	return to_hosted_engine(rig->engine);
}

/* Where vCPU @vcpu was last. Its child may be dead. */
static inline struct hosted_space *rig_space(struct rig *rig, unsigned int vcpu)
{
	return smp_load_acquire(
		&rig_hosted(rig)->cpus[vcpu].space); /* pairs with hosted_attach() */
}

/* The frame at STACK + @n pages: they follow those of code and data. */
static inline pfn_t rig_stack(struct rig *rig, unsigned int n)
{
	return rig->pages[2 + n];
}

static inline void rig_map_stack(struct rig *rig, pfn_t root)
{
	for (unsigned int i = 0; i < STACK_PAGES; i++)
		rig_map_at(rig, root, STACK + i * PAGE_SIZE, rig_stack(rig, i), RWX | NX);
}

/* A root with what all guests have. */
static inline pfn_t rig_root(struct rig *rig)
{
	pfn_t root = rig_table(rig, 4);

	rig_map_at(rig, root, CODE, rig->code, RO);
	rig_map_at(rig, root, DATA, rig->data, RWX | NX);
	rig_map_stack(rig, root);
	return root;
}

static inline void rig_create_hosted(struct rig *rig, uint64_t nr_frames, unsigned int nr_vcpus)
{
	rig_create(rig, &engine_hosted, nr_frames, nr_vcpus);
	for (unsigned int i = 0; i < STACK_PAGES; i++)
		rig_page(rig);
	rig_map_stack(rig, rig->root);
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
static inline void rig_create_hosted_here(struct rig *rig)
{
	rig_create_hosted(rig, 1024, 1);
	rig_init_vcpu(rig, 0);
}

static inline struct guest_regs *rig_regs(struct rig *rig, unsigned int vcpu)
{
	return engine_hosted.regs(rig->engine, vcpu);
}

/* Put a program at CODE + @offset, and @vcpu before it. */
static inline struct guest_regs *rig_start_at(struct rig *rig, unsigned int vcpu, size_t offset,
					      const char *program, const char *end)
{
	struct guest_regs *regs = rig_regs(rig, vcpu);

	expect(offset + (end - program) <= PAGE_SIZE);
	memcpy((char *)rig_words(rig, rig->code) + offset, program, end - program);
	regs->rip = CODE + offset;
	return regs;
}

/* Whatever exit comes next. */
static inline struct engine_exit rig_exit(struct rig *rig, unsigned int vcpu)
{
	struct engine_exit exit;

	engine_hosted.vcpu_run(rig->engine, vcpu, &exit);
	return exit;
}

/* To the next exception of @vcpu. */
static inline struct engine_exit rig_trap_of(struct rig *rig, unsigned int vcpu)
{
	struct engine_exit exit = rig_run(rig, vcpu);

	expect_eq(exit.kind, ENGINE_EXIT_TRAP);
	return exit;
}

#endif
