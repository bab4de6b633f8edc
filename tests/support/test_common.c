/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What both flavours of the harness share: the comparisons that are too long for a macro, a test's
 * clock, and death tests.
 */
#include "tests/support/test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

bool test_long(void)
{
	const char *value = getenv("GNOMON_TEST_LONG");

	return value && strcmp(value, "1") == 0;
}

void test_str(const char *file, int line, const char *a_text, const char *a, const char *b_text,
	      const char *b, bool whole)
{
	if (a && b && (whole ? strcmp(a, b) == 0 : strstr(a, b) != NULL))
		return;
	test_fail(file, line, "expected %s %s %s: got \"%s\" and \"%s\"", a_text,
		  whole ? "==" : "to contain", b_text, a ? a : "(null)", b ? b : "(null)");
}

/*
 * In a signal handler, so only write and _exit. The exit code makes the test red in both flavours;
 * a hung thread may hold any lock, so nothing is cleaned up.
 */
static void on_alarm(int sig)
{
	static const char message[] = "test ran out of time (GNOMON_TEST_TIMEOUT)\n";
	ssize_t ignored = write(STDERR_FILENO, message, sizeof(message) - 1);

	(void)sig;
	(void)ignored;
	_exit(124);
}

void test_run_body(void (*body)(void))
{
	const char *value = getenv("GNOMON_TEST_TIMEOUT");
	int seconds = value ? atoi(value) : 0;

	/* Criterion's workers are sessions of their own: one whose thread spins would outlive a
	 * run that ends with the first failure. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (seconds > 0) {
		signal(SIGALRM, on_alarm);
		alarm(seconds);
	}
	body();
	alarm(0);
}

/* The child's stderr goes to @fd. It has no core file to leave behind, and no handlers of ours. */
static _Noreturn void bug_child(int fd, void (*fn)(void *arg), void *arg)
{
	const struct rlimit no_core = {0, 0};

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* not inherited; nor is the alarm */
	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGILL, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
	dup2(fd, STDERR_FILENO);
	fn(arg);
	_exit(0);
}

static size_t read_all(int fd, char *buffer, size_t size)
{
	size_t used = 0;

	for (;;) {
		char waste[256];
		bool full = used + 1 >= size;
		ssize_t n = full ? read(fd, waste, sizeof(waste))
				 : read(fd, buffer + used, size - 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (!full)
			used += n;
	}
	buffer[used] = '\0';
	return used;
}

void test_bug(const char *file, int line, const char *fn_text, void (*fn)(void *arg), void *arg,
	      const char *text)
{
	char output[4096];
	int fds[2], status;
	pid_t pid;

	if (pipe(fds) < 0)
		test_fail(file, line, "pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		test_fail(file, line, "fork: %s", strerror(errno));
	if (pid == 0)
		bug_child(fds[1], fn, arg);
	close(fds[1]);
	read_all(fds[0], output, sizeof(output));
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;

	/* __builtin_trap is SIGILL with gcc and clang on x86; a debugger's int3 is SIGTRAP. */
	if (!WIFSIGNALED(status) || (WTERMSIG(status) != SIGILL && WTERMSIG(status) != SIGTRAP))
		test_fail(file, line, "%s did not end at a BUG: wait status %#x, stderr: %s",
			  fn_text, status, output);
	if (!strstr(output, text))
		test_fail(file, line, "%s ended at a BUG that does not say \"%s\": %s", fn_text,
			  text, output);
}
