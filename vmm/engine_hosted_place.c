/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a vCPU runs. Our thread and the child's take turns, so that together they are worth one
 * CPU. The scheduler does not know that: it wakes each on a CPU that is idle, which is another one
 * every time, and a wakeup across CPUs costs several times one that stays (the figures are in
 * docs/engines.md). So both are bound to the CPU that our thread is on. A mapper takes turns with
 * whoever asks it, who waits for its answer: it runs there.
 *
 * A CPU that was a good one may become a busy one. Hence our thread is let loose for a moment some
 * times a second; where the scheduler has then put it, there they are bound again.
 *
 * A program's first thread is left alone, since the threads that it begins would inherit its CPU.
 */
#include "vmm/engine_hosted.h"

#include <time.h>
#include <unistd.h>

#define BOUND_NSECS 64000000ull
#define LOOSE_NSECS 4000000ull

static uint64_t coarse_nsecs(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* On the thread that will run @cpu. */
void hosted_place_init(struct hosted_cpu *cpu)
{
	cpu->placed = -1;
	cpu->may_bind =
		gettid() != getpid() && !sched_getaffinity(0, sizeof(cpu->allowed), &cpu->allowed);
	if (cpu->may_bind && CPU_COUNT(&cpu->allowed) == 1) /* somebody has chosen for us */
		cpu->placed = sched_getcpu();
}

static void bind(pid_t tid, int where)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(where, &set);
	sched_setaffinity(tid, sizeof(set), &set);
}

/* The tid is what a thread's starter found in the guest's reach: only if it is one of the child's.
 */
static void bind_child(struct hosted_cpu *cpu)
{
	struct hosted_space *space = cpu->space;

	if (space->placed[cpu->id] == cpu->placed + 1)
		return;
	if (!tgkill(space->pid, space->tids[cpu->id], 0))
		bind(space->tids[cpu->id], cpu->placed);
	space->placed[cpu->id] = cpu->placed + 1;
}

/* Before a list is posted; under space->lock. */
void hosted_place_mapper(struct hosted_space *space)
{
	struct hosted_mapper *mapper = &space->mappers[space->mapper];
	int here = sched_getcpu();

	if (here < 0 || here + 1 == mapper->placed)
		return;
	bind(mapper->tid, here);
	mapper->placed = here + 1;
}

/* Our thread: bound to where it is, or let loose for a moment. */
static void follow_scheduler(struct hosted_cpu *cpu)
{
	uint64_t now = coarse_nsecs();

	if (now < cpu->place_at)
		return;
	if (cpu->bound) {
		sched_setaffinity(0, sizeof(cpu->allowed), &cpu->allowed);
		cpu->place_at = now + LOOSE_NSECS;
	} else {
		cpu->placed = sched_getcpu();
		bind(0, cpu->placed);
		cpu->place_at = now + BOUND_NSECS;
	}
	cpu->bound = !cpu->bound;
}

/* Before an entry. */
void hosted_place(struct hosted_cpu *cpu)
{
	if (!cpu->may_bind)
		return;
	if (CPU_COUNT(&cpu->allowed) > 1)
		follow_scheduler(cpu);
	if (cpu->placed >= 0)
		bind_child(cpu);
}
