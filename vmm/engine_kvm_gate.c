/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The run gate: who may be inside KVM_RUN, and how everybody else gets them out.
 *
 * Three flags ask a vCPU to come out. All are levels, not edges:
 *
 *   cpu->kicked      vcpu_run is to return; cleared by the vCPU's thread as it does
 *   engine->closed   the memslot is being toggled: nobody may be inside
 *   engine->halted   nobody may be inside ever again; names the reason
 *
 * Rules:
 *  1. cpu->running is written by the vCPU's thread alone. It is 1 from before the last look at the
 *     flags until KVM_RUN has returned and what it left has been read.
 *  2. Whoever raises a flag looks at running afterwards, with a full barrier in between. One of
 *     the two sees the other:
 *
 *       raises a flag                       the vCPU's thread
 *       -------------                       -----------------
 *       closed = 1                          running = 1
 *       smp_mb                              smp_mb
 *       reads running == 0                  reads closed == 0
 *           `-- both at once cannot be: so either the vCPU stays out, or it is waited for
 *
 *  3. immediate_exit is cleared before rule 1's running = 1, and set after the flag. So a clear
 *     that hides the set comes before a look that sees the flag:
 *
 *       raises a flag                       the vCPU's thread
 *       -------------                       -----------------
 *       closed = 1
 *       smp_mb
 *       immediate_exit = 1
 *                                           immediate_exit = 0
 *                                           running = 1
 *                                           smp_mb
 *                                           reads closed: 1, stays out
 *
 *  4. immediate_exit is set before the signal is sent. A signal that arrives before the ioctl runs
 *     a handler that does nothing, but then KVM sees immediate_exit; one that arrives later makes
 *     KVM leave the guest. So no kick is lost, and one is enough.
 *  5. A vCPU that is outside is never waited for, and inside it holds no lock of ours. So whoever
 *     waits for the gate waits for the kernel only, and may hold any lock while doing so, even
 *     one that the vCPU's thread wants next, but no spinlock: the wait sleeps.
 */
#include "vmm/engine_kvm.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notifier/sync/atomic.h"

/*
 * Not a realtime signal: those queue, and a full queue loses some. This one is a level as well. Nor
 * SIGUSR1, which people send (vmm/inspect.h): the vCPU's thread would have it.
 */
#define KICK_SIGNAL SIGUSR2

static void kick_handler(int signal)
{
	(void)signal;
}

/*
 * Any handler will do: a program that has one of its own keeps it. SA_RESTART is for what else the
 * vCPU's thread may be doing when a late signal finds it; KVM_RUN ends with EINTR regardless.
 */
void kvm_gate_init_signal(void)
{
	struct sigaction action;

	sigaction(KICK_SIGNAL, NULL, &action);
	if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN)
		return;
	action = (struct sigaction){.sa_handler = kick_handler, .sa_flags = SA_RESTART};
	sigaction(KICK_SIGNAL, &action, NULL);
}

/*
 * Thread ids are recycled, but tgkill reaches threads of this process only, and it is used only on
 * a vCPU seen running: the worst that a stale one can do is run the handler for nothing.
 */
void kvm_gate_bind_thread(struct kvm_cpu *cpu)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	WRITE_ONCE(cpu->tid, (pid_t)syscall(SYS_gettid));
}

/*
 * Asked where vcpu_run is about to return. A full barrier: who raised a flag of his own and then
 * kicked finds that flag read after this.
 */
bool kvm_gate_was_kicked(struct kvm_cpu *cpu)
{
	return xchg(&cpu->kicked, 0);
}

enum gate_answer kvm_gate_enter(struct kvm_cpu *cpu)
{
	struct kvm_engine *engine = cpu->engine;

	for (;;) {
		WRITE_ONCE(cpu->run->immediate_exit, 0);
		WRITE_ONCE(cpu->running, 1);
		smp_mb(); /* Rules 2 and 3; pairs with call_out(). */

		if (READ_ONCE(engine->halted)) {
			kvm_gate_leave(cpu);
			return GATE_HALTED;
		}
		if (kvm_gate_was_kicked(cpu)) {
			kvm_gate_leave(cpu);
			return GATE_KICKED;
		}
		if (!READ_ONCE(engine->closed))
			return GATE_OPEN;

		kvm_gate_leave(cpu);
		/* Acquire pairs with kvm_gate_open(): the slot is back before KVM_RUN. */
		wait_event(engine->gate_wait, !smp_load_acquire(&engine->closed));
	}
}

void kvm_gate_leave(struct kvm_cpu *cpu)
{
	/* Pairs with wait_until_out(): what the guest did is over. */
	smp_store_release(&cpu->running, 0);
	wake_up_all(&cpu->engine->gate_wait);
}

/* After a flag was raised. */
static void call_out(struct kvm_cpu *cpu)
{
	smp_mb(); /* Rules 2 and 3; pairs with kvm_gate_enter(). */
	WRITE_ONCE(cpu->run->immediate_exit, 1);
	if (READ_ONCE(cpu->running))
		syscall(SYS_tgkill, getpid(), READ_ONCE(cpu->tid), KICK_SIGNAL);
}

static void wait_until_out(struct kvm_engine *engine)
{
	for (unsigned int i = 0; i < engine->nr_cpus; i++)
		call_out(&engine->cpus[i]);
	for (unsigned int i = 0; i < engine->nr_cpus; i++)
		wait_event(engine->gate_wait, !smp_load_acquire(&engine->cpus[i].running));
}

void kvm_gate_kick(struct kvm_cpu *cpu)
{
	WRITE_ONCE(cpu->kicked, 1);
	call_out(cpu);
}

/* One closer at a time: quarantine_lock. */
void kvm_gate_close(struct kvm_engine *engine)
{
	lockdep_assert_held(&engine->quarantine_lock);
	WRITE_ONCE(engine->closed, 1);
	wait_until_out(engine);
}

void kvm_gate_open(struct kvm_engine *engine)
{
	lockdep_assert_held(&engine->quarantine_lock);
	smp_store_release(&engine->closed, 0);
	wake_up_all(&engine->gate_wait);
}

/* The first reason stays. Whoever calls late still waits: on return nobody is inside. */
void kvm_gate_halt(struct kvm_engine *engine, const char *why)
{
	cmpxchg(&engine->halted, (const char *)NULL, why);
	wait_until_out(engine);
}
