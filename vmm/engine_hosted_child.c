/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Children: processes that hold the stub and, later, what the guest maps, and nothing else. Each is
 * begun by vfork and exec of the stub's own ELF, so that nothing of ours is in it for a moment that
 * a guest could see: no memory, no file but three, no vDSO.
 *
 * A child ends by us (hosted_child_kill), by a signal that its guest's doing made fatal, or by
 * itself soon after we are gone: its mapper looks for its parent twice a second. PDEATHSIG would do
 * that at once, but it means the thread that began the child, and that is any vCPU's.
 */
#include "vmm/engine_hosted.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notifier/sync/bug.h"
#include "vmm/why.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define ORPHAN_MSECS 500    /* how long a child may outlive us */
#define SLICE_NSECS  100000 /* of the mapper: the shorter, the sooner it runs when it is woken */

/* --- the program */

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t done = write(fd, data, len);

		if (done < 0)
			return -errno;
		data += done;
		len -= done;
	}
	return 0;
}

/* A file with the stub in it that can be executed, and no longer be written. Its fd or -errno. */
int hosted_stub_create(char *why, size_t why_len)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("gnomon-stub", flags | MFD_EXEC);
	int err;

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 all of them can be executed */
		fd = memfd_create("gnomon-stub", flags);
	if (fd < 0) {
		err = -errno;
		return why_fail(why, why_len, err, "no file for the stub: memfd_create: %s%s",
				strerror(-err),
				err == -EACCES ? " (sysctl vm.memfd_noexec is 2: set it to 1 or 0)"
					       : "");
	}
	err = write_all(fd, hosted_stub_elf, hosted_stub_elf_end - hosted_stub_elf);
	if (!err &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		err = -errno;
	if (err) {
		close(fd);
		return why_fail(why, why_len, err, "cannot write the stub: %s", strerror(-err));
	}
	return fd;
}

/* --- birth */

struct birth {
	int fds[3]; /* in the order of STUB_FD_* */
	const char *step;
	int error; /* of exec, or of what comes before it */
};

/*
 * On a stack of its own in our memory, while the thread that called clone() waits. Bare system
 * calls: whatever libc or a sanitizer notes down would be noted in us.
 */
__attribute__((no_sanitize("address", "thread", "undefined"))) static int be_born(void *arg)
{
	static const struct rlimit no_core;
	static char name[] = "gnomon-guest", *const argv[] = {name, NULL}, *const envp[] = {NULL};
	struct birth *birth = arg;
	long persona;

	birth->step = "closing what is not the child's";
	for (unsigned int i = 0; i < 3; i++) {
		birth->fds[i] = syscall(SYS_fcntl, birth->fds[i], F_DUPFD_CLOEXEC, 16);
		if (birth->fds[i] < 0)
			goto fail;
	}
	for (unsigned int i = 0; i < 3; i++)
		if (syscall(SYS_dup2, birth->fds[i], STUB_FD_CODE + (int)i) < 0)
			goto fail;
	if (syscall(SYS_close_range, 0u, STUB_FD_CODE - 1u, 0u) ||
	    syscall(SYS_close_range, STUB_FD_FRAMES + 1u, ~0u, 0u))
		goto fail;

	birth->step = "giving up privileges";
	persona = syscall(SYS_personality, 0xffffffffl);
	/* Only where it must: containers let few values through. */
	if ((persona & READ_IMPLIES_EXEC &&
	     syscall(SYS_personality, persona & ~READ_IMPLIES_EXEC) < 0) ||
	    syscall(SYS_prlimit64, 0, RLIMIT_CORE, &no_core, NULL) ||
	    syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1l, 0l, 0l, 0l))
		goto fail;

	birth->step = "execveat of the stub";
	syscall(SYS_execveat, STUB_FD_CODE, "", argv, envp, AT_EMPTY_PATH);
	/* valgrind does not know it, and need not: it does not follow us. */
	syscall(SYS_execve, "/proc/self/fd/" __stringify(STUB_FD_CODE), argv, envp);
fail:
	birth->error = errno;
	syscall(SYS_exit, 127);
	return 0;
}

/*
 * Not libc's clone(): TSan has one of its own, and notes down for our thread what the child does.
 * Returns the child's pid, or -errno.
 */
static long clone_bare(unsigned long flags, char *stack_end, int *pidfd, struct birth *birth)
{
	register unsigned long child_tid __asm__("r10") = 0;
	register int (*fn)(void *) __asm__("r8") = be_born;
	register void *arg __asm__("r9") = birth;
	long pid = SYS_clone;

	__asm__ __volatile__("syscall\n\t"
			     "testq %%rax, %%rax\n\t"
			     "jnz 1f\n\t"
			     "xorl %%ebp, %%ebp\n\t"
			     "movq %%r9, %%rdi\n\t"
			     "callq *%%r8\n\t"
			     "ud2\n" /* it does not return */
			     "1:"
			     : "+a"(pid)
			     : "D"(flags), "S"(stack_end), "d"(pidfd), "r"(child_tid), "r"(fn),
			       "r"(arg)
			     : "rcx", "r11", "cc", "memory");
	return pid;
}

/* No signal may run a handler of ours in the child, and its mapper is to have none either. */
static int clone_child(struct hosted_space *space, struct birth *birth)
{
	_Alignas(16) char stack[16384];
	sigset_t all, old;
	long pid;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = clone_bare(CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, stack + sizeof(stack),
			 &space->pidfd, birth);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	space->pid = max(pid, 0l);
	return min(pid, 0l);
}

static void init_cmd(struct hosted_space *space)
{
	struct stub_cmd *cmd = hosted_cmd(space);
	uint16_t *errnos = (uint16_t *)((char *)cmd + STUB_CMD_ERRNOS);

	cmd->parent = getpid();
	cmd->fsgsbase = space->engine->fsgsbase;
	cmd->patience = (struct timespec){0, ORPHAN_MSECS * 1000000l};
	memcpy(cmd->name, "gnomon-mapper", sizeof("gnomon-mapper"));
	for (unsigned int i = 0; i <= STUB_MAX_ERRNO; i++)
		errnos[i] = i;
}

static int create_ctl(struct hosted_space *space)
{
	size_t size = STUB_CTL_VCPU(space->engine->nr_cpus);

	space->ctl_fd = memfd_create("gnomon-ctl", MFD_CLOEXEC);
	if (space->ctl_fd < 0 || ftruncate(space->ctl_fd, size))
		return -errno;
	space->ctl = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, space->ctl_fd, 0);
	if (space->ctl == MAP_FAILED) {
		space->ctl = NULL;
		return -errno;
	}
	/* A child of the program that embeds us is nobody that the guest runs for. */
	madvise(space->ctl, size, MADV_DONTFORK);

	for (space->mapper = 0; space->mapper < STUB_NR_MAPPERS; space->mapper++)
		init_cmd(space);
	return 0;
}

/* Linux 6.12 and newer take a request for a slice from anybody; others do without. */
static void ask_for_short_slices(pid_t tid)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {.size = sizeof(attr), .runtime = SLICE_NSECS};

	syscall(SYS_sched_setattr, tid, &attr, 0);
}

/* The first list: signals stop a vCPU in the stub's handler. */
static int first_list(struct hosted_space *space)
{
	static const int caught[] = HOSTED_SIGNALS;
	struct stub_call *calls = hosted_list(space, MAPPER_FILLS);
	unsigned int nr = 0;

	calls[nr++] = (struct stub_call){SYS_prctl,
					 {PR_SET_NAME,
					  hosted_cmd_gva(space) + offsetof(struct stub_cmd, name)}};
	for (unsigned int i = 0; i < ARRAY_SIZE(caught); i++)
		calls[nr++] = (struct stub_call){
			SYS_rt_sigaction,
			{caught[i], STUB_CODE + (hosted_stub_action - hosted_stub_code), 0, 8}};
	return hosted_do(space, nr);
}

/*
 * The other mapper. Its tid is told in what will be the first vCPU's area, which the guest can
 * write: but there is none yet. To take that away is its own first list.
 */
static int second_mapper(struct hosted_space *space)
{
	struct stub_call *calls = hosted_list(space, MAPPER_FILLS);
	int err;

	calls[0] = hosted_vcpu_area_call(0);
	calls[1] = hosted_clone_call(0, STUB_CLONE_MAPPER);
	err = hosted_do(space, 2);
	if (err)
		return err;
	space->mappers[MAPPER_SHOOTS] =
		(struct hosted_mapper){.tid = hosted_vcpu_area(space, 0)->tid};
	hosted_list(space, MAPPER_SHOOTS)[0] =
		(struct stub_call){SYS_munmap, {STUB_VCPU(0), STUB_VCPU_SIZE}};
	return hosted_do(space, 1);
}

/* If it may not, it does without. */
static int reserve_addresses(struct hosted_space *space)
{
	int err;

	hosted_list(space, MAPPER_FILLS)[0] =
		hosted_reserve_call(HOSTED_GVA_FIRST, HOSTED_GVA_END - HOSTED_GVA_FIRST);
	err = hosted_do(space, 1);
	space->reserved = !err;
	return err == -ESRCH ? err : 0;
}

/* Under space->lock. 0 or -errno with a line in @why, and then there is no child. */
int hosted_child_start(struct hosted_space *space, char *why, size_t why_len)
{
	struct birth birth = {0};
	int err;

	ASSERT(!space->pid && !space->ctl, "the child before this one is reaped");
	err = create_ctl(space);
	if (err) {
		why_fail(why, why_len, err, "no memory to talk to a child by: %s", strerror(-err));
		goto fail;
	}
	birth.fds[0] = space->engine->stub_fd;
	birth.fds[1] = space->ctl_fd;
	birth.fds[2] = phys_memfd(space->engine->phys);
	err = clone_child(space, &birth);
	if (err) {
		why_fail(why, why_len, err, "cannot begin a process: %s", strerror(-err));
		goto fail;
	}
	if (birth.error) {
		err = -birth.error;
		why_fail(why, why_len, err, "a process without anything in it: %s: %s", birth.step,
			 strerror(-err));
		goto fail;
	}
	space->dead = false;
	space->refused = 0;
	space->mappers[MAPPER_FILLS] = (struct hosted_mapper){.tid = space->pid};
	ask_for_short_slices(space->pid);
	err = first_list(space);
	err = err ?: second_mapper(space);
	err = err ?: reserve_addresses(space);
	if (err == -ESRCH) {
		hosted_child_explain(space, why, why_len);
		err = -ENODEV;
	} else if (err) {
		why_fail(why, why_len, err, "a child cannot begin its work: %s", strerror(-err));
	}
	if (!err)
		return 0;
fail:
	hosted_child_reap(space);
	return err;
}

/* --- death */

static bool has_ended(struct hosted_space *space, int msecs)
{
	struct pollfd fd = {.fd = space->pidfd, .events = POLLIN};

	return poll(&fd, 1, msecs) > 0;
}

/* Under space->lock. Of a child that has died nothing is mapped any more. */
bool hosted_child_alive(struct hosted_space *space)
{
	lockdep_assert_held(&space->lock);
	if (space->dead || !has_ended(space, 0))
		return !space->dead;
	space->dead = true;
	hosted_tlb_forget(space);
	return false;
}

void hosted_child_kill(struct hosted_space *space)
{
	lockdep_assert_held(&space->lock);
	if (space->dead)
		return;
	/* valgrind does not know the former. */
	if (syscall(SYS_pidfd_send_signal, space->pidfd, SIGKILL, NULL, 0) && errno == ENOSYS)
		kill(space->pid, SIGKILL);
	while (!has_ended(space, -1))
		;
	space->dead = true;
	hosted_tlb_forget(space);
}

/* Gives back all that hosted_child_start() took, as far as it came. */
void hosted_child_reap(struct hosted_space *space)
{
	siginfo_t info;

	if (space->pid) {
		if (!space->dead)
			hosted_child_kill(space);
		while (waitid(P_PIDFD, space->pidfd, &info, WEXITED) && errno == EINTR)
			;
		close(space->pidfd);
	}
	if (space->ctl)
		munmap(space->ctl, STUB_CTL_VCPU(space->engine->nr_cpus));
	if (space->ctl_fd >= 0)
		close(space->ctl_fd);
	space->pid = 0;
	space->pidfd = space->ctl_fd = -1;
	space->ctl = NULL;
	space->dead = true;
	space->started = 0;
	space->pending = false;
}

/* How a dead child ended. */
void hosted_child_explain(struct hosted_space *space, char *why, size_t why_len)
{
	siginfo_t info = {0};

	if (waitid(P_PIDFD, space->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
		snprintf(why, why_len, "the child of the guest is gone");
	else if (info.si_code != CLD_EXITED)
		snprintf(why, why_len, "triple fault: %s while a signal was being handled",
			 strsignal(info.si_status));
	else if (info.si_status == STUB_EXIT_NO_MAP)
		snprintf(why, why_len,
			 "a child cannot empty its address space: does the kernel seal the "
			 "mappings that it makes itself (CONFIG_MSEAL_SYSTEM_MAPPINGS)?");
	else if (info.si_status == STUB_EXIT_NO_JAIL)
		snprintf(why, why_len,
			 "a child cannot take on its seccomp filter: is CONFIG_SECCOMP_FILTER off, "
			 "or does a filter of this container forbid it?");
	else
		snprintf(why, why_len, "the child of the guest exited with %d", info.si_status);
}
