/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The Criterion flavour of the harness. Criterion has the main, runs each test in a process of its
 * own and writes the results; here is only how a body ends early.
 *
 * criterion_test_die works on any thread, where Criterion's own assertions jump out of the test
 * function and so belong to its thread alone.
 */
#include "tests/support/test.h"

#include <stdarg.h>
#include <stdio.h>

void test_fail(const char *file, int line, const char *fmt, ...)
{
	char message[4096];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	criterion_test_die("%s:%d: %s", file, line, message);
	__builtin_unreachable(); /* it ends the process, without being declared so */
}

void test_skip(const char *fmt, ...)
{
	char message[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	criterion_skip_test("%s", message);
}
