/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a vCPU's thread may still do when it stops for the first time. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/hosted/rig.h"

GUEST(ud2, "ud2");

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

	rig_create(&rig, 256, 2);
	rig_init_vcpu(&rig, 0);
	start(&rig, ud2);
	expect_eq(rig_trap(&rig, 0).vector, VECTOR_UD);
	space = rig_space(&rig, 0);
	expect_eq(kill(space->pid, SIGUSR1), 0);
	start_second_vcpu(space);
	expect_eq(status_of(space->pid, space->tids[1], "Seccomp", 10), 2);
	expect_eq(status_of(space->pid, space->tids[1], "NoNewPrivs", 10), 1);

	/* It works as any other. */
	rig_init_vcpu(&rig, 1);
	rig_regs(&rig, 1)->rip = CODE;
	expect_eq(rig_trap(&rig, 1).vector, VECTOR_UD);
	rig_destroy(&rig);
}

/*
 * The mapper, which makes system calls, has no stack that is its own: it must never run a handler.
 * What is sent to a whole process group by a terminal means nothing to it.
 */
TEST(hosted_jail, the_mapper_is_deaf)
{
	static const int deaf_to[] = {SIGSEGV, SIGBUS, SIGILL,	SIGFPE,	 SIGTRAP, SIGSYS, SIGUSR1,
				      SIGUSR2, SIGINT, SIGQUIT, SIGTERM, SIGHUP,  SIGTSTP};
	struct rig rig;
	uint64_t blocked;
	pid_t pid;

	rig_create_here(&rig);
	start(&rig, ud2);
	expect_eq(rig_trap(&rig, 0).vector, VECTOR_UD);
	pid = rig_space(&rig, 0)->pid;
	blocked = status_of(pid, pid, "SigBlk", 16);
	for (unsigned int i = 0; i < ARRAY_SIZE(deaf_to); i++)
		if (!(blocked & 1ul << (deaf_to[i] - 1)))
			fail("it hears %s", strsignal(deaf_to[i]));
	rig_destroy(&rig);
}
