/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lives and deaths of the hosted engine's children: they end with us, however we end, and by
 * nothing that is meant for us; and when one ends by itself we go on.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/hosted/rig.h"
#include "tests/support/child.h"

#define FRAME	    (STACK + PAGE_SIZE)
#define ORPHAN_TIME 2 /* seconds that a child may outlive us */

GUEST(spin, "1: jmp 1b");
GUEST(spin_in_data, "1: movq $1, (%rdi); jmp 1b");
/* Reads what a mapper does at present, so that the stub lets it go on, and wakes it; then the
 * other. 136(%rsp) is rbx of the frame that it comes back by. */
GUEST(wake_mappers, "xorq $0x2000, 136(%rsp); movl 4(%rbx), %r14d; jmp *%rdx");
_Static_assert(offsetof(struct stub_frame, rbx) == 136 && (STUB_CMD(0) ^ 0x2000) == STUB_CMD(1),
	       "what the guest knows");

/* Where the stub has these bytes. */
static uint64_t stub_place(const void *bytes, size_t len)
{
	const char *code = hosted_stub_elf + PAGE_SIZE;
	const char *at = memmem(code, PAGE_SIZE, bytes, len);

	expect(at != NULL);
	return STUB_CODE + (at - code);
}

/* A program with a guest, which is killed. @start puts the guest there. */
static void killed(void (*start_guest)(struct rig *rig))
{
	int fds[2], status;
	pid_t program, child;
	time_t begun;

	expect_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	expect_eq(pipe(fds), 0);
	program = fork();
	expect_ge(program, 0);
	if (!program) {
		struct rig rig;
		pid_t pid;

		alarm(60);
		rig_create_hosted_here(&rig);
		start(&rig, ud2);
		rig_trap_of(&rig, 0);
		pid = rig_space(&rig, 0)->pid;
		start_guest(&rig);
		expect_eq(write(fds[1], &pid, sizeof(pid)), sizeof(pid));
		for (;;)
			rig_exit(&rig, 0);
	}
	close(fds[1]);
	if (read(fds[0], &child, sizeof(child)) != sizeof(child))
		skip("there is no guest");
	for (unsigned int i = 0; i < 100; i++) /* it is at it by then */
		look_again_in(1000);
	expect_eq(kill(child, 0), 0);
	expect_eq(kill(program, SIGKILL), 0);
	begun = time(NULL);
	expect_eq(waitpid(program, &status, 0), program);
	while (waitpid(child, &status, WNOHANG) != child) {
		if (time(NULL) - begun > ORPHAN_TIME) {
			kill(child, SIGKILL);
			fail("a child is alive %d seconds after its program", ORPHAN_TIME);
		}
		look_again_in(1000);
	}
}

static void start_spin(struct rig *rig)
{
	start(rig, spin);
}

TEST(hosted_life, child_ends_with_a_killed_program)
{
	killed(start_spin);
}

/* Its mappers look for us when they have slept for a while. This guest never lets them. */
static void start_wakes(struct rig *rig)
{
	static const uint8_t wake[] = {0x48, 0x8d, 0x3b, 0xbe, 1, 0, 0, 0}; /* of exits; WAKE */
	struct guest_regs *regs = start(rig, wake_mappers);
	struct stub_frame *frame = (void *)rig_words(rig, rig_stack(rig, 1));

	*frame = (struct stub_frame){
		.uc_flags = 7,
		.uc_stack = {.ss_sp = (void *)(STUB_VCPU(0) + STUB_VCPU_SIZE - STUB_STACK_SIZE),
			     .ss_size = STUB_STACK_SIZE},
		.rip = CODE,
		.rsp = FRAME,
		.rbx = STUB_CMD(0),
		.r13 = STUB_CMD(0),
		.rdx = stub_place(wake, sizeof(wake)),
		.cs = SEL_USER_CS,
		.ss = SEL_USER_SS,
		.eflags = X86_FLAGS_FIXED,
	};
	regs->gpr[GPR_RSP] = frame->rsp;
	regs->gpr[GPR_RBX] = frame->rbx;
	regs->gpr[GPR_RDX] = frame->rdx;
	regs->gpr[13] = frame->r13;
}

TEST(hosted_life, child_ends_though_its_guest_keeps_it_awake)
{
	killed(start_wakes);
}

TEST(hosted_life, destroy_ends_all)
{
	pid_t pids[3];
	struct rig rig;

	rig_create_hosted_here(&rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(pids); i++) {
		rig_load_root(&rig, 0, rig_root(&rig));
		start(&rig, ud2);
		expect_eq(rig_trap_of(&rig, 0).vector, VECTOR_UD);
		pids[i] = rig_space(&rig, 0)->pid;
		expect_eq(kill(pids[i], 0), 0);
	}
	rig_destroy(&rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(pids); i++)
		expect_eq(kill(pids[i], 0), -1);
	expect_eq(waitpid(-1, NULL, WNOHANG), -1); /* and reaped */
}

static void hear(int signal)
{
	(void)signal;
}

/* What a terminal sends to all of a process group, and what one may send to stop a service. */
static void signal_the_group(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM};
	struct rig rig;

	setpgid(0, 0);
	rig_create_hosted_here(&rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(signals); i++) {
		signal(signals[i], hear);
		rig_words(&rig, rig.data)[0] = i;
		child_expects(rig_read(&rig, DATA) == i);
		child_expects(kill(0, signals[i]) == 0);
		child_expects(rig_read(&rig, DATA) == i);
	}
	mutex_lock(&rig_space(&rig, 0)->lock);
	child_expects(hosted_child_alive(rig_space(&rig, 0)));
	mutex_unlock(&rig_space(&rig, 0)->lock);
	rig_destroy(&rig);
}

TEST(hosted_life, signals_to_the_group)
{
	in_child(signal_the_group, 30);
}

struct runner {
	struct rig *rig;
	struct kthread thread;
	struct engine_exit exit;
};

static void run_thread(void *arg)
{
	struct runner *r = arg;

	do {
		r->exit = rig_exit(r->rig, 0);
	} while (r->exit.kind == ENGINE_EXIT_KICK || r->exit.kind == ENGINE_EXIT_TRAP);
}

/* vCPU 0 has begun to run a loop, on a thread of its own. */
static void begin_loop(struct runner *r, struct rig *rig)
{
	struct guest_regs *regs = start(rig, spin_in_data);

	r->rig = rig;
	regs->gpr[GPR_RDI] = DATA;
	expect_eq(kthread_run(&r->thread, "vcpu", run_thread, r), 0);
	while (READ_ONCE(rig_words(rig, rig->data)[0]) == 0)
		look_again_in(1000);
}

static void expect_new_machine_works(void)
{
	struct rig rig;

	rig_create_hosted_here(&rig);
	rig_words(&rig, rig.data)[0] = 5;
	expect_eq(rig_read(&rig, DATA), 5);
	rig_destroy(&rig);
}

TEST(hosted_life, child_is_killed)
{
	struct runner r;
	struct rig rig;

	rig_create_hosted_here(&rig);
	begin_loop(&r, &rig);
	expect_eq(kill(rig_space(&rig, 0)->pid, SIGKILL), 0);
	kthread_join(&r.thread);
	expect_eq(r.exit.kind, ENGINE_EXIT_FAIL);
	expect_str_contains(r.exit.why, "triple fault");
	expect_eq(rig_exit(&rig, 0).kind, ENGINE_EXIT_FAIL); /* and it stays so */
	rig_shoot(&rig, rig.data);
	expect_new_machine_works();
	rig_destroy(&rig);
}

/* While its vCPU is with us. */
TEST(hosted_life, child_is_killed_while_stopped)
{
	struct rig rig;

	rig_create_hosted_here(&rig);
	expect_eq(rig_read(&rig, DATA), 0);
	expect_eq(kill(rig_space(&rig, 0)->pid, SIGKILL), 0);
	start(&rig, ud2);
	expect_eq(rig_exit(&rig, 0).kind, ENGINE_EXIT_FAIL);
	rig_destroy(&rig);
}

/* Another vCPU comes to the root of a child that has died, while the first is still in it. */
TEST(hosted_life, nobody_revives_a_child_with_vcpus_in_it)
{
	struct engine_exit exit;
	struct runner r;
	siginfo_t info;
	struct rig rig;

	for (unsigned int i = 0; i < 10; i++) {
		rig_create_hosted(&rig, 256, 2);
		rig_init_vcpu(&rig, 0);
		begin_loop(&r, &rig);
		expect_eq(kill(rig_space(&rig, 0)->pid, SIGKILL), 0);
		expect_eq(waitid(P_PID, rig_space(&rig, 0)->pid, &info, WEXITED | WNOWAIT), 0);
		rig_init_vcpu(&rig, 1);
		rig_regs(&rig, 1)->rip = CODE + 16;
		exit = rig_exit(&rig, 1);
		expect_eq(exit.kind, ENGINE_EXIT_FAIL);
		kthread_join(&r.thread);
		expect_eq(r.exit.kind, ENGINE_EXIT_FAIL);
		expect_str_contains(r.exit.why, "triple fault");
		rig_destroy(&rig);
	}
}
