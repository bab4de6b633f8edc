/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plain flavour of the harness: a main that needs nothing but libc. It takes the options of
 * Criterion's main that tests/run-test uses, and writes the same results.
 *
 *	--list            name the tests
 *	--filter GLOB     run those whose "suite/name" matches
 *	--tap=FILE        write the results there, as TAP
 *	--fail-fast       end with the first test that fails
 *	-j1               accepted: one test at a time is all it does
 *
 * Each test runs in a forked child, one at a time. The parent never starts a thread, so the fork is
 * one that ThreadSanitizer supports; a child ends through exit(), because that is where the
 * sanitizers look for leaks and set their exit code.
 */
#include "tests/support/test.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern const struct test_case *const __start_gnomon_tests[];
extern const struct test_case *const __stop_gnomon_tests[];

/* Written by a child, read by the parent after the child ended. */
struct verdict {
	bool finished; /* the body returned: a stray exit(0) is not a pass */
	bool skipped;
	char why[512];
};

static struct verdict *verdict;

/*
 * _exit, not exit: this may be any thread, with others running, and the test is red whatever the
 * sanitizers would add.
 */
void test_fail(const char *file, int line, const char *fmt, ...)
{
	char message[4096];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	fprintf(stderr, "%s:%d: %s\n", file, line, message);
	fflush(NULL);
	_exit(1);
}

void test_skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(verdict->why, sizeof(verdict->why), fmt, args);
	va_end(args);
	verdict->skipped = true;
	exit(0);
}

static void describe_failure(int status)
{
	if (WIFSIGNALED(status))
		snprintf(verdict->why, sizeof(verdict->why), "killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status))
		snprintf(verdict->why, sizeof(verdict->why), "exit %d", WEXITSTATUS(status));
	else
		snprintf(verdict->why, sizeof(verdict->why), "exit(0) before its end");
}

static bool run_test(const struct test_case *test, FILE *tap)
{
	bool passed;
	int status;
	pid_t pid;

	memset(verdict, 0, sizeof(*verdict));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(70);
	}
	if (pid == 0) {
		test_run_body(test->body);
		verdict->finished = true;
		exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;

	passed = status == 0 && (verdict->finished || verdict->skipped);
	if (!passed)
		describe_failure(status);
	fprintf(tap, "%s - %s::%s%s%s\n", passed ? "ok" : "not ok", test->suite, test->name,
		passed && verdict->skipped ? " # SKIP " : "",
		passed && verdict->skipped ? verdict->why : "");
	if (!passed)
		fprintf(stderr, "[FAIL] %s::%s: %s\n", test->suite, test->name, verdict->why);
	return passed;
}

static bool selected(const struct test_case *test, const char *filter)
{
	char name[256];

	snprintf(name, sizeof(name), "%s/%s", test->suite, test->name);
	return !filter || fnmatch(filter, name, 0) == 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"list", no_argument, NULL, 'l'},
		{"filter", required_argument, NULL, 'f'},
		{"tap", required_argument, NULL, 't'},
		{"fail-fast", no_argument, NULL, 'F'},
		{NULL, 0, NULL, 0},
	};
	const char *filter = NULL;
	bool list = false, fail_fast = false;
	FILE *tap = stdout;
	int opt, failed = 0, ran = 0;

	while ((opt = getopt_long(argc, argv, "lj:", options, NULL)) != -1) {
		switch (opt) {
		case 'l':
			list = true;
			break;
		case 'f':
			filter = optarg;
			break;
		case 't':
			tap = fopen(optarg, "w");
			if (!tap) {
				perror(optarg);
				return 71;
			}
			break;
		case 'F':
			fail_fast = true;
			break;
		case 'j':
			break;
		default:
			return 64;
		}
	}

	verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (verdict == MAP_FAILED) {
		perror("mmap");
		return 71;
	}
	for (const struct test_case *const *t = __start_gnomon_tests; t < __stop_gnomon_tests;
	     t++) {
		if (!selected(*t, filter))
			continue;
		if (list) {
			printf("%s/%s\n", (*t)->suite, (*t)->name);
			continue;
		}
		ran++;
		failed += !run_test(*t, tap);
		if (failed && fail_fast)
			break;
	}
	if (!list)
		fprintf(stderr, "%d ran, %d failed\n", ran, failed);
	if (tap != stdout)
		fclose(tap);
	return failed != 0;
}
