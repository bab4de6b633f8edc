/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a vCPU's thread may still do when it stops for the first time. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/hosted/rig.h"

GUEST(jump, "movq $1, (%rdi); jmp *%rdx");

#define NR_SHOT 16

/* A line of /proc/PID/task/TID/status, as a number of the base that it is written in. */
static uint64_t status_of(pid_t pid, pid_t tid, const char *key, int base)
{
	char path[64], line[256];
	uint64_t value = 0;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	f = fopen(path, "re");
	expect(f != NULL);
	while (!found && fgets(line, sizeof(line), f)) {
		found = strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':';
		if (found)
			value = strtoull(line + strlen(key) + 1, NULL, base);
	}
	fclose(f);
	expect(found);
	return value;
}

static void start_second_vcpu(struct hosted_space *space)
{
	char why[256] = "";
	int err;

	mutex_lock(&space->lock);
	err = hosted_thread_start(space, 1, why, sizeof(why));
	mutex_unlock(&space->lock);
	if (err)
		fail("%s", why);
}

/*
 * A signal is pending for the process when the thread begins. It stops in the handler, with a frame
 * that a vCPU beside it can write: it may go anywhere from there, so its filter must be on.
 */
TEST(hosted_jail, filter_is_on_before_a_signal)
{
	struct hosted_space *space;
	struct rig rig;

	rig_create_hosted(&rig, 256, 2);
	rig_init_vcpu(&rig, 0);
	start(&rig, ud2);
	expect_eq(rig_trap_of(&rig, 0).vector, VECTOR_UD);
	space = rig_space(&rig, 0);
	expect_eq(kill(space->pid, SIGUSR1), 0);
	start_second_vcpu(space);
	expect_eq(status_of(space->pid, space->tids[1], "Seccomp", 10), 2);
	expect_eq(status_of(space->pid, space->tids[1], "NoNewPrivs", 10), 1);

	/* It works as any other. */
	rig_init_vcpu(&rig, 1);
	rig_regs(&rig, 1)->rip = CODE;
	expect_eq(rig_trap_of(&rig, 1).vector, VECTOR_UD);
	rig_destroy(&rig);
}

/*
 * A mapper, which makes system calls, has no stack that is its own: it must never run a handler.
 * What is sent to a whole process group by a terminal means nothing to it.
 */
TEST(hosted_jail, mappers_are_deaf)
{
	static const int deaf_to[] = {SIGSEGV, SIGBUS, SIGILL,	SIGFPE,	 SIGTRAP, SIGSYS, SIGUSR1,
				      SIGUSR2, SIGINT, SIGQUIT, SIGTERM, SIGHUP,  SIGTSTP};
	struct hosted_space *space;
	struct rig rig;

	rig_create_hosted_here(&rig);
	start(&rig, ud2);
	expect_eq(rig_trap_of(&rig, 0).vector, VECTOR_UD);
	space = rig_space(&rig, 0);
	for (unsigned int m = 0; m < STUB_NR_MAPPERS; m++) {
		uint64_t blocked = status_of(space->pid, space->mappers[m].tid, "SigBlk", 16);

		for (unsigned int i = 0; i < ARRAY_SIZE(deaf_to); i++)
			if (!(blocked & 1ul << (deaf_to[i] - 1)))
				fail("mapper %u hears %s", m, strsignal(deaf_to[i]));
	}
	rig_destroy(&rig);
}

static void run_thread(void *arg)
{
	struct rig *rig = arg;

	while (rig_exit(rig, 0).kind != ENGINE_EXIT_KICK)
		;
}

/*
 * A vCPU that waits where we wait for the mapper, by the stub's own loop: it is woken when we are,
 * not in our place. Else each shootdown would take as long as our patience.
 */
TEST(hosted_jail, nobody_takes_our_wakeups)
{
	static const uint8_t wait[] = {0x8b, 0x53, VCPU_RUN}; /* mov VCPU_RUN(%rbx), %edx */
	const char *code = hosted_stub_elf + PAGE_SIZE;
	const char *at = memmem(code, PAGE_SIZE, wait, sizeof(wait));
	struct timespec begun, done;
	pfn_t pages[NR_SHOT];
	struct kthread thread;
	struct guest_regs *regs;
	struct rig rig;

	expect(at != NULL);
	rig_create_hosted_here(&rig);
	for (unsigned int i = 0; i < NR_SHOT; i++) {
		pages[i] = rig_page(&rig);
		rig_map(&rig, OTHER + i * PAGE_SIZE, pages[i], RWX);
		expect_eq(rig_read(&rig, OTHER + i * PAGE_SIZE), 0);
	}
	regs = start(&rig, jump);
	regs->gpr[GPR_RDI] = DATA;
	regs->gpr[GPR_RBX] = STUB_ACK(MAPPER_SHOOTS) + ACK_SEQ - VCPU_RUN;
	regs->gpr[GPR_RDX] = STUB_CODE + (at - code);
	regs->gpr[14] = ~0ul;
	expect_eq(kthread_run(&thread, "vcpu", run_thread, &rig), 0);
	while (READ_ONCE(rig_words(&rig, rig.data)[0]) == 0)
		sched_yield();
	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (unsigned int i = 0; i < NR_SHOT; i++)
		rig_shoot(&rig, pages[i]);
	clock_gettime(CLOCK_MONOTONIC, &done);
	/* 50 ms each and more, if it did. */
	expect_le((done.tv_sec - begun.tv_sec) * 1000 + (done.tv_nsec - begun.tv_nsec) / 1000000,
		  NR_SHOT * 25);
	engine_hosted.kick(rig.engine, 0);
	kthread_join(&thread);
	rig_destroy(&rig);
}
