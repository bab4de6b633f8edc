/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One vCPU: a thread of ours, and in each space that it has been in a thread of the child, of which
 * one at most runs guest code. Every signal stops it in the stub's handler, with all registers in
 * the signal frame; there we read and change them.
 *
 *   us                                  the child's thread
 *   --                                  ------------------
 *                                       signal: frame, exits + 1   (after the frame)
 *                                       wakes us; sleeps while run != exits
 *   exits has changed    (acquire)
 *   reads the frame, or writes it
 *   run = exits          (release)
 *   wake                                sees run == exits, reads the frame: rt_sigreturn
 *
 * A page that the tables allow is mapped without leaving this file: hosted_fill() posts the mmap
 * and with it the write to run.
 *
 * Rules:
 *  1. The guest may write exits, run and the frame, from another vCPU's thread even now. So what
 *     is taken for an exit may be none. It makes nothing worse: no shootdown relies on a vCPU that
 *     has stopped, and the frame holds nothing but the guest's own.
 *  2. What the frame holds besides registers (signal mask, signal stack, selectors, where the
 *     vector registers are) is written anew before each entry, as the first frame had it. If the
 *     guest makes a frame of its own and returns by that, it is without until its next exit.
 *  3. A kick is a signal. A guest that has blocked it (rule 2) loses all its mappings after a
 *     while, which harms no other. The fault that comes of it is an exit as good as the signal's;
 *     if that is blocked as well, it ends the child.
 *
 * How no kick is lost: cpu->kick_lock orders each kick and each entry.
 *
 *       kick                                entry
 *       ----                                -----
 *       kicked = true                       kicked? -> out
 *       running? -> signal                  running = true
 *
 * A signal that comes before the thread runs on finds it in the handler, where it is pending until
 * rt_sigreturn.
 */
#include "vmm/engine_hosted.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notifier/sync/bug.h"
#include "vmm/cpl3.h"
#include "vmm/why.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

#define CLONE_THREAD_OF_CHILD 0x150f00 /* VM FS FILES SIGHAND THREAD SYSVSEM PARENT_SETTID */

#define POLL_MSECS     50   /* while a vCPU runs, before we look whether all is well */
#define KICKS_TO_FLUSH 2    /* polls without an answer to a kick */
#define FAULTS_IN_VAIN 1000 /* on a page that is there: others that fill it first are fewer */

/* What a vCPU's thread never sees: all signals that are not its guest's doing, or a kick. */
static uint64_t blocked_signals(void)
{
	static const int open[] = HOSTED_SIGNALS;
	uint64_t set = ~0ul;

	for (unsigned int i = 0; i < ARRAY_SIZE(open); i++)
		set &= ~(1ul << (open[i] - 1));
	return set;
}

static stack_t signal_stack(unsigned int vcpu)
{
	return (stack_t){
		.ss_sp = (void *)(STUB_VCPU(vcpu) + STUB_VCPU_SIZE - STUB_STACK_SIZE),
		.ss_flags = (int)SS_AUTODISARM,
		.ss_size = STUB_STACK_SIZE,
	};
}

struct stub_call hosted_vcpu_area_call(unsigned int vcpu)
{
	return (struct stub_call){SYS_mmap,
				  {STUB_VCPU(vcpu), STUB_VCPU_SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_FIXED, STUB_FD_CTL, STUB_CTL_VCPU(vcpu)}};
}

struct stub_call hosted_clone_call(unsigned int vcpu, unsigned int what)
{
	return (struct stub_call){SYS_clone,
				  {CLONE_THREAD_OF_CHILD, 0,
				   STUB_VCPU(vcpu) + offsetof(struct stub_vcpu, tid), 0, 0, what}};
}

/* Until the thread has stopped in its handler for the first time, or the child is dead. */
static int wait_for_birth(struct hosted_space *space, unsigned int vcpu)
{
	struct stub_vcpu *area = hosted_vcpu_area(space, vcpu);

	while (smp_load_acquire(&area->exits) == 0) {
		hosted_futex_wait(&area->exits, 0, POLL_MSECS);
		if (smp_load_acquire(&area->exits) == 0 && !hosted_child_alive(space))
			return -ESRCH;
	}
	return 0;
}

/* Under space->lock. 0; -ESRCH: the child has died; or another -errno. With @why. */
int hosted_thread_start(struct hosted_space *space, unsigned int vcpu, char *why, size_t why_len)
{
	struct stub_vcpu *area = hosted_vcpu_area(space, vcpu);
	struct stub_call *calls;
	struct stub_cmd *cmd;
	int err;

	hosted_settle(space);
	if (space->dead) {
		hosted_child_explain(space, why, why_len);
		return -ESRCH;
	}
	calls = hosted_list(space, MAPPER_FILLS);
	cmd = hosted_cmd(space);
	cmd->stack = signal_stack(vcpu);
	cmd->signals = blocked_signals() | 1ul << (HOSTED_KICK - 1);
	calls[0] = hosted_vcpu_area_call(vcpu);
	calls[1] = hosted_clone_call(vcpu, STUB_CLONE_VCPU);
	err = hosted_do(space, 2);
	err = err ?: wait_for_birth(space, vcpu);
	if (err == -ESRCH) {
		hosted_child_explain(space, why, why_len);
		return err;
	}
	if (err)
		return why_fail(why, why_len, err, "cannot begin a vCPU in a child: %s",
				strerror(-err));
	space->started |= 1ull << vcpu;
	space->tids[vcpu] = READ_ONCE(area->tid);
	space->exits[vcpu] = 1;
	space->placed[vcpu] = 0;
	return 0;
}

/* --- registers */

static struct stub_frame *frame_of(struct hosted_cpu *cpu)
{
	return (void *)((char *)hosted_vcpu_area(cpu->space, cpu->id) + cpu->engine->frame_offset);
}

/* Where a frame keeps general register @n of our numbering. */
static const size_t gpr_offsets[16] = {
	offsetof(struct stub_frame, rax), offsetof(struct stub_frame, rcx),
	offsetof(struct stub_frame, rdx), offsetof(struct stub_frame, rbx),
	offsetof(struct stub_frame, rsp), offsetof(struct stub_frame, rbp),
	offsetof(struct stub_frame, rsi), offsetof(struct stub_frame, rdi),
	offsetof(struct stub_frame, r8),  offsetof(struct stub_frame, r9),
	offsetof(struct stub_frame, r10), offsetof(struct stub_frame, r11),
	offsetof(struct stub_frame, r12), offsetof(struct stub_frame, r13),
	offsetof(struct stub_frame, r14), offsetof(struct stub_frame, r15),
};

static void save_registers(struct hosted_cpu *cpu, const struct stub_frame *frame)
{
	for (unsigned int n = 0; n < 16; n++)
		cpu->regs.gpr[n] = *(const uint64_t *)((const char *)frame + gpr_offsets[n]);
	cpu->regs.rip = frame->rip;
	cpu->regs.rflags = guest_flags(frame->eflags);
}

static void load_registers(struct hosted_cpu *cpu)
{
	struct stub_frame *frame = frame_of(cpu);

	for (unsigned int n = 0; n < 16; n++)
		*(uint64_t *)((char *)frame + gpr_offsets[n]) = cpu->regs.gpr[n];
	frame->rip = cpu->regs.rip;
	frame->eflags = guest_flags(cpu->regs.rflags);
	frame->cs = SEL_USER_CS;
	frame->ss = SEL_USER_SS;
	/* Rule 2. */
	frame->uc_flags = cpu->engine->uc_flags;
	frame->uc_stack = signal_stack(cpu->id);
	frame->fpstate = cpu->engine->fpstate + STUB_VCPU(cpu->id) - STUB_VCPU(0);
	frame->sigmask = blocked_signals();
}

/* --- entry and exit */

static void resume(struct hosted_cpu *cpu)
{
	struct stub_vcpu *area = hosted_vcpu_area(cpu->space, cpu->id);

	/* Pairs with the handler's look at run: the frame is complete. */
	smp_store_release(&area->run, cpu->space->exits[cpu->id]);
	hosted_futex_wake(&area->run);
}

static void signal_thread(struct hosted_cpu *cpu)
{
	syscall(SYS_tgkill, cpu->kick_pid, cpu->kick_tid, HOSTED_KICK);
}

/* It has not come out for @polls looks: rule 3. Under space->lock. */
static void insist(struct hosted_cpu *cpu, unsigned int polls)
{
	bool kicked;

	spin_lock(&cpu->kick_lock);
	kicked = cpu->kicked;
	if (kicked)
		signal_thread(cpu);
	spin_unlock(&cpu->kick_lock);
	if (kicked && polls >= cpu->engine->kicks_to_kill)
		hosted_child_kill(cpu->space);
	else if (kicked && polls >= KICKS_TO_FLUSH)
		hosted_tlb_flush(cpu->space);
}

/*
 * It runs long. Perhaps it runs guest code; perhaps its child is dead, or the list that should have
 * let it run again was given up, and then it is let run here: once more does no harm.
 */
static bool still_runs(struct hosted_cpu *cpu, unsigned int polls)
{
	struct hosted_space *space = cpu->space;
	bool alive;

	mutex_lock(&space->lock);
	hosted_settle(space);
	insist(cpu, polls);
	alive = hosted_child_alive(space);
	mutex_unlock(&space->lock);
	if (alive)
		resume(cpu);
	return alive;
}

static bool kicked(struct hosted_cpu *cpu)
{
	return READ_ONCE(cpu->kicked);
}

/* False: the child is dead. */
static bool wait_for_exit(struct hosted_cpu *cpu)
{
	struct stub_vcpu *area = hosted_vcpu_area(cpu->space, cpu->id);
	uint32_t *seen = &cpu->space->exits[cpu->id], now;
	unsigned int polls = 0;

	/* Pairs with the handler's store to exits: the frame is complete. */
	while ((now = smp_load_acquire(&area->exits)) == *seen) {
		hosted_futex_wait(&area->exits, now, POLL_MSECS);
		if (smp_load_acquire(&area->exits) != now)
			continue;
		polls = kicked(cpu) ? polls + 1 : 0;
		if (!still_runs(cpu, polls))
			return false;
	}
	*seen = now;
	return true;
}

/* False: it was kicked, and stays out. */
static bool enter(struct hosted_cpu *cpu)
{
	bool out;

	spin_lock(&cpu->kick_lock);
	out = cpu->kicked;
	WRITE_ONCE(cpu->kicked, false);
	cpu->running = !out;
	cpu->kick_pid = cpu->space->pid;
	cpu->kick_tid = cpu->space->tids[cpu->id];
	spin_unlock(&cpu->kick_lock);
	return !out;
}

/* An exit by a kick answers all kicks up to here; after another the next entry answers. */
static void leave(struct hosted_cpu *cpu, bool by_kick)
{
	spin_lock(&cpu->kick_lock);
	if (by_kick)
		WRITE_ONCE(cpu->kicked, false);
	cpu->running = false;
	spin_unlock(&cpu->kick_lock);
}

void hosted_cpu_kick(struct hosted_cpu *cpu)
{
	spin_lock(&cpu->kick_lock);
	WRITE_ONCE(cpu->kicked, true);
	if (cpu->running)
		signal_thread(cpu);
	spin_unlock(&cpu->kick_lock);
}

/* --- the loop */

/* By the tables of its root, what @exit lacks. */
static enum hosted_fill fill(struct hosted_cpu *cpu, const struct engine_exit *exit)
{
	struct hosted_space *space = cpu->space;
	enum hosted_fill result;
	uint32_t *posted;

	mutex_lock(&space->lock);
	result = hosted_fill(space, cpu->root, exit->fault_address, exit->error_code, cpu->id,
			     space->exits[cpu->id]);
	posted = result == FILL_POSTED ? hosted_posted(space) : NULL;
	mutex_unlock(&space->lock);
	if (posted)
		hosted_futex_wake(posted);
	return result;
}

static bool is_page_fault(const struct engine_exit *exit)
{
	return exit->kind == ENGINE_EXIT_TRAP && exit->vector == VECTOR_PF;
}

/* Wait for it to stop, and see why. False: it never will. */
static bool next_exit(struct hosted_cpu *cpu, struct engine_exit *exit)
{
	struct stub_frame frame;
	char why[200];

	if (!wait_for_exit(cpu)) {
		mutex_lock(&cpu->space->lock);
		hosted_child_explain(cpu->space, why, sizeof(why));
		mutex_unlock(&cpu->space->lock);
		hosted_fail(cpu, exit, ENGINE_EXIT_FAIL, "%s", why);
		return false;
	}
	memcpy(&frame, frame_of(cpu), sizeof(frame)); /* once: rule 1 */
	save_registers(cpu, &frame);
	hosted_decode(cpu, &frame, READ_ONCE(hosted_vcpu_area(cpu->space, cpu->id)->signal), exit);
	return true;
}

/* Let it run until its exit is one that the VMM has to know of. */
static void run_inside(struct hosted_cpu *cpu, struct engine_exit *exit)
{
	enum hosted_fill filled = FILL_DONE;
	unsigned int in_vain = 0;

	/* What it faulted on last may be in the tables now: then it need not fault on it again. */
	if (is_page_fault(&cpu->last) && cpu->last_rip == cpu->regs.rip)
		filled = fill(cpu, &cpu->last);
	for (;;) {
		if (filled != FILL_POSTED)
			resume(cpu);
		if (!next_exit(cpu, exit) || !is_page_fault(exit))
			return;
		if (kicked(cpu)) { /* rule 3: it may be deaf, and its frame is not written anew here
				    */
			exit->kind = ENGINE_EXIT_KICK;
			return;
		}
		filled = fill(cpu, exit);
		if (filled == FILL_FAULT)
			return;
		if (filled == FILL_REFUSED) {
			hosted_fail(cpu, exit, ENGINE_EXIT_ERROR,
				    "the host maps no page for the guest: %s (RLIMIT_AS? "
				    "vm.max_map_count? memory?)",
				    strerror(cpu->space->refusal));
			return;
		}
		in_vain = filled == FILL_DONE ? in_vain + 1 : 0;
		if (in_vain == FAULTS_IN_VAIN) {
			hosted_fail(cpu, exit, ENGINE_EXIT_FAIL,
				    "address %#" PRIx64
				    " is mapped, and the access at rip %#" PRIx64
				    " faults all the same (does the guest use protection keys?)",
				    exit->fault_address, cpu->regs.rip);
			return;
		}
	}
}

void hosted_cpu_run(struct hosted_cpu *cpu, struct engine_exit *exit)
{
	struct hosted_engine *engine = cpu->engine;
	char why[200];
	int err;

	memset(exit, 0, sizeof(*exit));
	BUG_ON(cpu->root == INVALID_PFN);
	if (cpu->at == HOSTED_FAILED) {
		exit->kind = cpu->failed;
		exit->why = cpu->why;
		return;
	}
	if (!canonical(cpu->regs.rip)) {
		exit->kind = ENGINE_EXIT_TRAP;
		exit->vector = VECTOR_GP;
		return;
	}
	err = hosted_attach(cpu, why, sizeof(why));
	if (READ_ONCE(engine->halted))
		goto halted;
	if (err) {
		hosted_fail(cpu, exit, err == -ESRCH ? ENGINE_EXIT_FAIL : ENGINE_EXIT_ERROR, "%s",
			    why);
		return;
	}
	hosted_place(cpu);
	if (!enter(cpu)) {
		exit->kind = ENGINE_EXIT_KICK;
		return;
	}
	load_registers(cpu);
	cpu->at = HOSTED_STOPPED;
	run_inside(cpu, exit);
	leave(cpu, exit->kind == ENGINE_EXIT_KICK);
	cpu->last = *exit;
	cpu->last_rip = cpu->regs.rip;
	if (!READ_ONCE(engine->halted))
		return;
halted:
	cpu->at = HOSTED_FAILED;
	cpu->failed = exit->kind = ENGINE_EXIT_HALTED;
	snprintf(cpu->why, sizeof(cpu->why), "%s", READ_ONCE(engine->halted));
	exit->why = cpu->why;
}
