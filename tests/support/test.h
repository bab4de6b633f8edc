/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The test harness: one source, two flavours.
 *
 *	TEST(frame, freed_is_poisoned)
 *	{
 *		expect_eq(frame_refs(f), 1);
 *	}
 *
 * A body is a plain function. The Criterion flavour (test_criterion.c) wraps it in a Criterion
 * test; the plain flavour (test_plain.c) lists it in a linker section and has a main of its own,
 * for the builds that Criterion does not start in (ThreadSanitizer). The preset chooses the
 * flavour; tests/support is built once, in that flavour, and linked into every test program.
 *
 * Rules, in both flavours:
 *  1. Each test runs in a process of its own: a crash costs one result, and no state leaks over.
 *  2. The first expectation that does not hold ends the test, from whatever thread.
 *  3. skip() says why; a skipped test is counted and shown, never silently passed.
 *  4. A test that runs longer than GNOMON_TEST_TIMEOUT seconds (tests/run-test sets it) fails.
 *  5. A program in which no test ran has failed (tests/run-test reads the results).
 */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

#include <stdbool.h>
#include <stdint.h>

#ifndef TEST_PLAIN
#include <criterion/criterion.h>
#endif

/* End the test as failed, or as skipped; @why and @fmt are one line without a newline. */
#define fail(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define skip(...) test_skip(__VA_ARGS__)

#define expect(cond)                                \
	do {                                        \
		if (!(cond))                        \
			fail("expected %s", #cond); \
	} while (0)

/* Integers and pointers, compared as 64-bit values: a negative int is sign-extended first. */
#define expect_eq(a, b) test_compare(a, ==, b, uint64_t)
#define expect_ne(a, b) test_compare(a, !=, b, uint64_t)

/* Compared as signed 64-bit values. Minimum counts want expect_ge. */
#define expect_ge(a, b) test_compare(a, >=, b, int64_t)
#define expect_le(a, b) test_compare(a, <=, b, int64_t)

#define expect_str_eq(a, b)	  test_str(__FILE__, __LINE__, #a, a, #b, b, true)
#define expect_str_contains(a, b) test_str(__FILE__, __LINE__, #a, a, #b, b, false)

/*
 * @fn(@arg), called in a forked child, must end at a BUG_ON, ASSERT or BUG of ours: killed by the
 * trap, with @text on its stderr. Call it before the test starts threads.
 */
#define expect_bug(fn, arg, text) test_bug(__FILE__, __LINE__, #fn, fn, arg, text)

/* `./dev test --long`: the full volume. Otherwise a tenth of it, or what a test says. */
bool test_long(void);

_Noreturn void test_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void test_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Everything below is the harness's own. */

#define test_compare(a, op, b, type)                                                              \
	do {                                                                                      \
		type a_ = (type)(a), b_ = (type)(b);                                              \
                                                                                                  \
		if (!(a_ op b_))                                                                  \
			fail("expected %s %s %s: got %lld (%#llx) and %lld (%#llx)", #a, #op, #b, \
			     (long long)a_, (unsigned long long)a_, (long long)b_,                \
			     (unsigned long long)b_);                                             \
	} while (0)

void test_str(const char *file, int line, const char *a_text, const char *a, const char *b_text,
	      const char *b, bool whole);
void test_bug(const char *file, int line, const char *fn_text, void (*fn)(void *arg), void *arg,
	      const char *text);

/* Starts the clock of rule 4, then runs @body. */
void test_run_body(void (*body)(void));

#ifdef TEST_PLAIN

struct test_case {
	const char *suite;
	const char *name;
	void (*body)(void);
};

/* The section holds pointers: an array of them has no holes, whatever a structure's alignment. */
#define TEST(suite_, name_)                                                                \
	static void suite_##_##name_##_body(void);                                         \
	static const struct test_case suite_##_##name_##_case = {#suite_, #name_,          \
								 suite_##_##name_##_body}; \
	static const struct test_case *const suite_##_##name_##_entry                      \
		__attribute__((used, section("gnomon_tests"))) = &suite_##_##name_##_case; \
	static void suite_##_##name_##_body(void)

#else

#define TEST(suite_, name_)                             \
	static void suite_##_##name_##_body(void);      \
	Test(suite_, name_)                             \
	{                                               \
		test_run_body(suite_##_##name_##_body); \
	}                                               \
	static void suite_##_##name_##_body(void)

#endif

#endif
