/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reports of lock checking, to the last line: who reads one has nothing else. Debug builds only.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "notifier/sync/lock.h"
#include "notifier/sync/thread.h"
#include "tests/support/test.h"

#ifndef CONFIG_LOCKDEP

TEST(lockdep_report, needs_a_debug_build)
{
	skip("built without CONFIG_LOCKDEP");
}

#else

#define MAX_LINES 48

/* Shared with the child that ends at the report. */
struct lines {
	unsigned int nr;
	char text[MAX_LINES][512];
};

static struct lines *lines;
static bool hook_locks;

static DEFINE_MUTEX(hook_mutex);
static DECLARE_RWSEM(hook_sem);
static DEFINE_SPINLOCK(hook_spin);
static struct lockdep_map hook_map = LOCKDEP_MAP_INIT(&hook_map, "hook");
static uint64_t hook_token = 1;

/* None of this is seen, or the report would report: most of it must not be done where we are. */
static void use_locks(void)
{
	static const struct lock_site site = {__FILE__, __LINE__, __func__, "hook"};

	spin_lock(&hook_spin);
	might_sleep();
	mutex_lock(&hook_mutex);
	down_write(&hook_sem);
	downgrade_write(&hook_sem);
	lockdep_section_enter(&hook_map, &hook_token, 1, &site);
	lockdep_thread_exit();
	lockdep_section_leave(&hook_token);
	up_read(&hook_sem);
	mutex_unlock(&hook_mutex);
	spin_unlock(&hook_spin);
	/* Left behind, if it were seen. */
	expect(spin_trylock(&hook_spin));
	lockdep_section_enter(&hook_map, &hook_token, 1, &site);
}

static void take_line(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)level, (void)arg;
	if (hook_locks && !lines->nr)
		use_locks();
	if (lines->nr < MAX_LINES)
		snprintf(lines->text[lines->nr++], sizeof(lines->text[0]), "%s", message);
}

/*
 * @fn(@arg) ends at a report of these lines, no more and no less, where * stands for any text: ids,
 * addresses, paths.
 */
#define expect_report(fn, arg, ...) \
	check_report(__LINE__, #fn, fn, arg, (const char *const[]){__VA_ARGS__, NULL})

static void check_report(int line, const char *name, void (*fn)(void *arg), void *arg,
			 const char *const *expected)
{
	unsigned int i;

	if (!lines) {
		lines = mmap(NULL, sizeof(*lines), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		expect(lines != MAP_FAILED);
	}
	lines->nr = 0;
	gnomon_set_log(take_line, NULL);
	test_bug(__FILE__, line, name, fn, arg, "");
	for (i = 0; expected[i]; i++) {
		if (i >= lines->nr)
			test_fail(__FILE__, line, "%s: no line like \"%s\"", name, expected[i]);
		if (fnmatch(expected[i], lines->text[i], 0))
			test_fail(__FILE__, line, "%s: \"%s\" is not like \"%s\"", name,
				  lines->text[i], expected[i]);
	}
	if (i < lines->nr)
		test_fail(__FILE__, line, "%s: one line too many: %s", name, lines->text[i]);
}

static DEFINE_MUTEX(a);
static DEFINE_MUTEX(b);
static DECLARE_RWSEM(sem);
static DEFINE_SPINLOCK(spin);

/* --- orders --- */

static void invert(void *arg)
{
	(void)arg;
	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&b);
	mutex_unlock(&a);
	spin_lock(&spin);
	spin_unlock(&spin);
	down_read(&sem);
	mutex_lock(&b);
	mutex_lock(&a);
}

TEST(lockdep_report, inversion)
{
	expect_report(invert, NULL,
		      "BUG: lock order: thread 1 takes a (mutex) in invert() at *.c:*[0-9]",
		      "  while it holds b (mutex), taken in invert() at *.c:*[0-9]",
		      "  but the order seen before is a -> b:",
		      "    thread 1: a, taken in invert() at *.c:*[0-9]",
		      "      then b, taken in invert() at *.c:*[0-9]",
		      "  locks that thread 1 holds, innermost first:",
		      "    b (mutex 0x*[0-9a-f]), taken in invert() at *.c:*[0-9]",
		      "    sem (rwsem for reading 0x*[0-9a-f]), taken in invert() at *.c:*[0-9]");
}

/* A chain of @len orders, each first seen by a thread of its own, closed by this one. */
#define MAX_CHAIN_LEN 20

static struct mutex chain[MAX_CHAIN_LEN + 1];

static void init_chain(void)
{
	static const char names[][2] = {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K",
					"L", "M", "N", "O", "P", "Q", "R", "S", "T", "U"};

	for (int i = 0; i <= MAX_CHAIN_LEN; i++)
		__mutex_init(&chain[i], names[i], &chain[i]);
}

static void nest_at(void *arg)
{
	struct mutex *outer = arg;

	mutex_lock(outer);
	mutex_lock(outer + 1);
	mutex_unlock(outer + 1);
	mutex_unlock(outer);
}

static void close_chain(void *arg)
{
	int len = *(int *)arg;

	init_chain();
	for (int i = 0; i < len; i++) {
		struct kthread t;

		kthread_run(&t, "nester", nest_at, &chain[i]);
		kthread_join(&t);
	}
	mutex_lock(&chain[len]);
	mutex_lock(&chain[0]);
}

#define STEP(nr, outer, inner)                                     \
	"    thread *" #nr ": " outer ", taken in nest_at() at *", \
		"      then " inner ", taken in nest_at() at *"

TEST(lockdep_report, chain)
{
	int len = 3;

	expect_report(close_chain, &len,
		      "BUG: lock order: thread * takes A (mutex) in close_chain() at *",
		      "  while it holds D (mutex), taken in close_chain() at *",
		      "  but the order seen before is A -> ... -> D:", STEP(1, "A", "B"),
		      STEP(2, "B", "C"), STEP(3, "C", "D"),
		      "  locks that thread * holds, innermost first:",
		      "    D (mutex 0x*), taken in close_chain() at *");
}

#define FIRST_15                                                                               \
	STEP(1, "A", "B"), STEP(2, "B", "C"), STEP(3, "C", "D"), STEP(4, "D", "E"),            \
		STEP(5, "E", "F"), STEP(6, "F", "G"), STEP(7, "G", "H"), STEP(8, "H", "I"),    \
		STEP(9, "I", "J"), STEP(10, "J", "K"), STEP(11, "K", "L"), STEP(12, "L", "M"), \
		STEP(13, "M", "N"), STEP(14, "N", "O"), STEP(15, "O", "P")

TEST(lockdep_report, chain_longer_than_a_report)
{
	int len = 16;

	expect_report(close_chain, &len, "BUG: lock order: *", "  while it holds Q (mutex), *",
		      "  but the order seen before is A -> ... -> Q:", FIRST_15, STEP(16, "P", "Q"),
		      "  locks that thread * holds, innermost first:", "    Q (mutex 0x*), *");
	len = 19;
	expect_report(close_chain, &len, "BUG: lock order: *", "  while it holds T (mutex), *",
		      "  but the order seen before is A -> ... -> T:", FIRST_15, STEP(16, "P", "Q"),
		      "    and 3 more steps",
		      "  locks that thread * holds, innermost first:", "    T (mutex 0x*), *");
}

/* Of several ways from one lock to another, the shortest. */
static void two_ways(void *arg)
{
	init_chain();
	for (int i = 0; i < 4; i++)
		nest_at(&chain[i]);
	mutex_lock(&chain[1]);
	mutex_lock(&chain[4]);
	mutex_unlock(&chain[4]);
	mutex_unlock(&chain[1]);
	mutex_lock(&chain[4]);
	mutex_lock(&chain[0]);
	(void)arg;
}

TEST(lockdep_report, shortest_chain)
{
	expect_report(two_ways, NULL, "BUG: lock order: *", "  while it holds E (mutex), *",
		      "  but the order seen before is A -> ... -> E:", STEP(1, "A", "B"),
		      "    thread 1: B, taken in two_ways() at *",
		      "      then E, taken in two_ways() at *",
		      "  locks that thread 1 holds, innermost first:", "    E (mutex 0x*), *");
}

/* --- recursion --- */

static void twice(void *arg)
{
	(void)arg;
	down_write(&sem);
	down_read(&sem);
}

static void two_of_a_class(void *arg)
{
	static struct mutex two[2];

	(void)arg;
	for (int i = 0; i < 2; i++)
		mutex_init(&two[i]);
	mutex_lock(&two[0]);
	mutex_lock(&two[1]);
}

TEST(lockdep_report, recursion)
{
	expect_report(
		twice, NULL,
		"BUG: sem (rwsem for reading 0x*), taken in twice() at *.c:*[0-9], is held by "
		"this thread already, as rwsem for writing taken in twice() at *.c:*[0-9]",
		"  locks that thread 1 holds, innermost first:",
		"    sem (rwsem for writing 0x*), taken in twice() at *.c:*[0-9]");
	expect_report(two_of_a_class, NULL,
		      "BUG: two?i? (mutex 0x*), taken in two_of_a_class() at *: this thread holds "
		      "another one of its class (0x*), taken in two_of_a_class() at *, and nothing "
		      "says in which order",
		      "  locks that thread 1 holds, innermost first:",
		      "    two?i? (mutex 0x*), taken in two_of_a_class() at *");
}

/* --- sleeping --- */

static void hold_spinlock(void)
{
	spin_lock(&spin);
}

static void sleep_under_spinlock(void *arg)
{
	mutex_lock(&a);
	hold_spinlock();
	expect(mutex_trylock(&b));
	mutex_lock(&chain[0]);
	(void)arg;
}

static void promise(void)
{
	non_block_start();
}

static void sleep_in_non_block(void *arg)
{
	(void)arg;
	promise();
	non_block_start();
	mutex_lock(&a);
}

TEST(lockdep_report, sleep)
{
	expect_report(
		sleep_under_spinlock, NULL,
		"BUG: &chain?0?, in sleep_under_spinlock() at *, may sleep, but this thread holds "
		"a spinlock (0x*), taken in hold_spinlock() at *",
		"  locks that thread 1 holds, innermost first:", "    b (mutex 0x*), *",
		"    spin (spinlock 0x*), *", "    a (mutex 0x*), *");

	expect_report(sleep_in_non_block, NULL,
		      "BUG: a, in sleep_in_non_block() at *, may sleep, but this thread must not "
		      "block, in promise() at *",
		      "  locks that thread * holds, innermost first: none");
}

/* Locks of a hook are its own business. */
TEST(lockdep_report, hook_that_locks)
{
	hook_locks = true;
	expect_report(sleep_under_spinlock, NULL, "BUG: &chain?0?, in sleep_under_spinlock() at *",
		      "  locks that thread * holds, innermost first:", "    b (mutex 0x*), *",
		      "    spin (spinlock 0x*), *", "    a (mutex 0x*), *");
}

/* --- a thread that ends, and a deep stack --- */

static void keep(void *arg)
{
	(void)arg;
	mutex_lock(&a);
	spin_lock(&spin);
}

static void end_with_locks(void *arg)
{
	struct kthread t;

	(void)arg;
	kthread_run(&t, "keeper", keep, NULL);
	kthread_join(&t);
}

TEST(lockdep_report, thread_that_ends)
{
	expect_report(end_with_locks, NULL,
		      "BUG: thread ends with 2 locks held, the last a spinlock (0x*), taken in "
		      "keep() at *",
		      "  locks that thread 1 holds, innermost first:", "    spin (spinlock 0x*), *",
		      "    a (mutex 0x*), *");
}

static void deep(void *arg)
{
	static struct rw_semaphore sems[20];

	mutex_lock(&a);
	for (int i = 0; i < *(int *)arg; i++) {
		init_rwsem(&sems[i]);
		down_write_nest_lock(&sems[i], &a);
	}
	mutex_lock(&a);
}

#define FIVE_SEMS                                                                           \
	"    sems?i? (rwsem for writing 0x*), *", "    sems?i? (rwsem for writing 0x*), *", \
		"    sems?i? (rwsem for writing 0x*), *",                                   \
		"    sems?i? (rwsem for writing 0x*), *", "    sems?i? (rwsem for writing 0x*), *"

TEST(lockdep_report, deep_stack)
{
	int nr = 15;

	expect_report(deep, &nr, "BUG: a (mutex 0x*), * is held by this thread already, as mutex *",
		      "  locks that thread 1 holds, innermost first:", FIVE_SEMS, FIVE_SEMS,
		      FIVE_SEMS, "    a (mutex 0x*), *");
	nr = 20;
	expect_report(deep, &nr, "BUG: a (mutex 0x*), * is held by this thread already, as mutex *",
		      "  locks that thread 1 holds, innermost first:", FIVE_SEMS, FIVE_SEMS,
		      FIVE_SEMS, "    sems?i? (rwsem for writing 0x*), *", "    and 5 more");
}

#endif
