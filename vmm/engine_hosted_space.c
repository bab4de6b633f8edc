/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Spaces: which child stands for which shadow root, as an ASID does on a CPU.
 *
 * There are a few more than the vCPUs can be in. A root without one gets, in this order: one whose
 * root is gone, one that has no child yet, the one that was left longest ago. A vCPU that moves
 * takes its signal frame along: the same bytes at the same address of another process, with all
 * that the guest has in its registers, vectors included.
 */
#include "vmm/engine_hosted.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "vmm/why.h"

/*
 * With a child that is alive. One that has died stays as it is for the vCPUs in it, which may not
 * know yet, and whose guest it was: -ESRCH. Under both locks.
 */
static int revive(struct hosted_space *space, char *why, size_t why_len)
{
	if (space->pid && hosted_child_alive(space))
		return 0;
	if (space->users) {
		hosted_child_explain(space, why, why_len);
		return -ESRCH;
	}
	hosted_child_reap(space);
	return hosted_child_start(space, why, why_len);
}

/*
 * Where the kernel puts a signal frame, and what it says there that is not the guest's: the same
 * for all, so it is learned once, from a vCPU that has never run anything of a guest's.
 */
static int learn(struct hosted_engine *engine, char *why, size_t why_len)
{
	struct hosted_space *space = &engine->spaces[0];
	const struct stub_frame *frame;
	int err;

	mutex_lock(&space->lock);
	err = hosted_child_start(space, why, why_len);
	if (!err)
		err = hosted_thread_start(space, 0, why, why_len);
	if (err == -ESRCH) /* nobody's guest is to blame */
		err = -ENODEV;
	if (!err) {
		engine->frame_offset = hosted_vcpu_area(space, 0)->frame - STUB_VCPU(0);
		if (engine->frame_offset > STUB_VCPU_SIZE - sizeof(*frame))
			err = why_fail(why, why_len, -ENODEV,
				       "this kernel's signal frame is not where it should be");
	}
	if (!err) {
		frame = (void *)((char *)hosted_vcpu_area(space, 0) + engine->frame_offset);
		engine->fpstate = frame->fpstate;
		engine->uc_flags = frame->uc_flags;
	}
	mutex_unlock(&space->lock);
	return err;
}

int hosted_spaces_init(struct hosted_engine *engine, char *why, size_t why_len)
{
	int err = 0;

	engine->nr_spaces = engine->nr_cpus * HOSTED_SPACES_PER_CPU;
	engine->spaces = kcalloc(engine->nr_spaces, sizeof(*engine->spaces), GFP_KERNEL);
	if (!engine->spaces) {
		engine->nr_spaces = 0;
		return why_fail(why, why_len, -ENOMEM, "out of memory");
	}
	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		struct hosted_space *space = &engine->spaces[i];

		space->engine = engine;
		mutex_init(&space->lock);
		space->root = INVALID_PFN;
		space->pidfd = space->ctl_fd = -1;
		space->dead = true;
		err = err ?: hosted_tlb_init(&space->tlb, engine->tlb_size);
	}
	if (err)
		return why_fail(why, why_len, err, "out of memory");
	return learn(engine, why, why_len);
}

void hosted_spaces_destroy(struct hosted_engine *engine)
{
	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		struct hosted_space *space = &engine->spaces[i];

		mutex_lock(&space->lock);
		hosted_child_reap(space);
		mutex_unlock(&space->lock);
		hosted_tlb_destroy(&space->tlb);
	}
	kfree(engine->spaces);
}

/* --- roots */

static struct hosted_space *space_of_root(struct hosted_engine *engine, pfn_t root)
{
	for (unsigned int i = 0; i < engine->nr_spaces; i++)
		if (engine->spaces[i].root == root)
			return &engine->spaces[i];
	return NULL;
}

/* How gladly one gives up @space, which nobody is in. */
static uint64_t worth(const struct hosted_space *space)
{
	if (space->root == INVALID_PFN)
		return space->pid ? 0 : 1;
	return 1 + space->last_used;
}

static struct hosted_space *space_to_take(struct hosted_engine *engine)
{
	struct hosted_space *best = NULL;

	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		struct hosted_space *space = &engine->spaces[i];

		if (!space->users && (!best || worth(space) < worth(best)))
			best = space;
	}
	ASSERT(best, "there are more spaces than vCPUs");
	return best;
}

/* All that the guest has in its CPU, from where @cpu was last. The other thread has stopped, too.
 */
static void move_state(struct hosted_cpu *cpu, struct hosted_space *to)
{
	struct stub_vcpu *old = hosted_vcpu_area(cpu->space, cpu->id);
	struct stub_vcpu *new = hosted_vcpu_area(to, cpu->id);
	uint64_t offset = cpu->engine->frame_offset;

	memcpy((char *)new + offset, (char *)old + offset, STUB_VCPU_SIZE - offset);
	new->fsbase = old->fsbase;
	new->gsbase = old->gsbase;
}

/*
 * Have @cpu in the space of its root, with a thread there. 0 or -errno with @why; then it is where
 * it was.
 */
int hosted_attach(struct hosted_cpu *cpu, char *why, size_t why_len)
{
	struct hosted_engine *engine = cpu->engine;
	struct hosted_space *space;
	int err = 0;

	if (cpu->space && READ_ONCE(cpu->space->root) == cpu->root)
		return 0;
	mutex_lock(&engine->spaces_lock);
	space = space_of_root(engine, cpu->root) ?: space_to_take(engine);
	mutex_lock(&space->lock);
	if (READ_ONCE(engine->halted)) /* children that begin now would not be killed */
		err = -ESHUTDOWN;
	err = err ?: revive(space, why, why_len);
	if (!err && space->root != cpu->root) {
		hosted_tlb_flush(space);
		WRITE_ONCE(space->root, cpu->root);
	}
	if (!err && !(space->started & 1ull << cpu->id))
		err = hosted_thread_start(space, cpu->id, why, why_len);
	mutex_unlock(&space->lock);
	if (!err) {
		if (cpu->space && cpu->space != space && cpu->at == HOSTED_STOPPED)
			move_state(cpu, space);
		if (cpu->space)
			cpu->space->users--;
		smp_store_release(&cpu->space, space); /* for who looks on */
		space->users++;
		space->last_used = ++engine->clock;
	}
	mutex_unlock(&engine->spaces_lock);
	return err;
}

/*
 * @table has left the shadow tables. No fill walks through it after this: one that had begun has
 * given its space's lock back. Of a root the leaves are shot down, so that what is flushed is what
 * somebody left out.
 */
void hosted_drop_table(struct hosted_engine *engine, pfn_t table)
{
	mutex_lock(&engine->spaces_lock);
	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		struct hosted_space *space = &engine->spaces[i];

		mutex_lock(&space->lock);
		if (space->root == table) {
			WRITE_ONCE(space->root, INVALID_PFN);
			if (space->tlb.nr)
				hosted_tlb_flush(space);
		}
		mutex_unlock(&space->lock);
	}
	mutex_unlock(&engine->spaces_lock);
}

/* The first reason stays. On return no guest code runs: there is no child left. */
void hosted_halt_all(struct hosted_engine *engine, const char *why)
{
	cmpxchg(&engine->halted, (const char *)NULL, why);
	mutex_lock(&engine->spaces_lock);
	for (unsigned int i = 0; i < engine->nr_spaces; i++) {
		struct hosted_space *space = &engine->spaces[i];

		mutex_lock(&space->lock);
		hosted_child_kill(space);
		mutex_unlock(&space->lock);
	}
	mutex_unlock(&engine->spaces_lock);
}
