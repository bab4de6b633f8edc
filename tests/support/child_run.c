/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/child_run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gnomon/log.h>

static const char *name;
/* What a child tells, however it ends. */
static struct verdict *told;

void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memory;
}

void child_is_at(int at)
{
	told->at = at;
}

/* The first who comes has the word. */
void differ(const char *fmt, ...)
{
	static int differing;
	va_list args;

	while (__atomic_exchange_n(&differing, 1, __ATOMIC_ACQ_REL))
		pause();
	va_start(args, fmt);
	vsnprintf(told->what, sizeof(told->what), fmt, args);
	va_end(args);
	fprintf(stderr, "%s: %s\n", name, told->what);
	/* TSan's _exit() would report the threads that are done and not joined yet. */
	syscall(SYS_exit_group, 1);
	__builtin_unreachable();
}

/* The words of a BUG are those of the verdict. A warning is as bad. */
static void hear(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	if (level == GNOMON_LOG_WARN)
		differ("%s", message);
	if (level != GNOMON_LOG_BUG)
		return;
	snprintf(told->what, sizeof(told->what), "%s", message);
	fprintf(stderr, "%s\n", message);
}

static void child(const struct child_run *run)
{
	int null = run->quiet ? open("/dev/null", O_WRONLY) : -1;

	if (null >= 0)
		dup2(null, STDERR_FILENO);
	name = run->name;
	gnomon_set_log(hear, NULL);
	alarm(run->limit);
	run->body(run->arg);
	exit(0);
}

struct verdict child_run(const struct child_run *run)
{
	struct verdict verdict;
	int status;
	pid_t pid;

	if (!told)
		told = shared_memory(sizeof(*told));
	*told = (struct verdict){0};
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		child(run);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("fork");
		exit(1);
	}
	verdict = *told;
	verdict.failed = status != 0;
	if (verdict.failed && !verdict.what[0])
		snprintf(verdict.what, sizeof(verdict.what), "ended by %s %d%s",
			 WIFSIGNALED(status) ? "signal" : "exit code",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			 WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ", a hang" : "");
	return verdict;
}
