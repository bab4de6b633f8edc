/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One test of each kind of ending, for planted/check-verdicts. Never run as a test by itself.
 */
#include "tests/support/test.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void trap_with_words(void *arg)
{
	fprintf(stderr, "BUG: %s\n", (const char *)arg);
	__builtin_trap();
}

static void just_return(void *arg)
{
	(void)arg;
}

static void *fail_here(void *arg)
{
	fail("from a thread: %s", (const char *)arg);
	return NULL;
}

TEST(good, passes)
{
	expect(true);
	expect_eq(-1, (int64_t)-1);
	expect_ne(0, 1);
	expect_ge(0, -1);
	expect_le(-1, 0);
	expect_str_eq("gnomon", "gnomon");
	expect_str_contains("gnomon", "no");
	expect_bug(trap_with_words, "the words", "the words");
}

TEST(skipped, says_why)
{
	skip("no sun today");
}

TEST(bad, expect)
{
	expect(1 == 2);
}

TEST(bad, expect_eq)
{
	expect_eq(1, 2);
}

TEST(bad, expect_str_eq)
{
	expect_str_eq("a", "b");
}

TEST(bad, thread)
{
	pthread_t thread;

	expect_eq(pthread_create(&thread, NULL, fail_here, "words"), 0);
	pthread_join(thread, NULL);
}

TEST(bad, crash)
{
	__builtin_trap();
}

TEST(bad, no_bug)
{
	expect_bug(just_return, NULL, "");
}

TEST(bad, other_bug)
{
	expect_bug(trap_with_words, "these", "those");
}

TEST(bad, hangs)
{
	for (;;)
		pause();
}
