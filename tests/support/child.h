/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Something that is done, and looked at, in the child of a fork. */
#ifndef TESTS_SUPPORT_CHILD_H
#define TESTS_SUPPORT_CHILD_H

#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test.h"

/* In a child: what does not hold is its exit code, never 0, and a hang its end. */
#define child_expects(cond)                        \
	do {                                       \
		if (!(cond))                       \
			_exit(__LINE__ % 255 + 1); \
	} while (0)

static inline void in_child(void (*body)(void), unsigned int seconds)
{
	int status;
	pid_t pid = fork();

	expect_ge(pid, 0);
	if (!pid) {
		alarm(seconds);
		body();
		_exit(0);
	}
	expect_eq(waitpid(pid, &status, 0), pid);
	if (status)
		fail("the child: signal %d, or what it expects in line %d, modulo 255",
		     WTERMSIG(status), WEXITSTATUS(status) - 1);
}

#endif
