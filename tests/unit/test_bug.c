/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log hook, and that a bug of ours ends at a trap with one line that says where and why.
 *
 * The file under test is part of this program, to see when the hook is being changed.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "notifier/sync/bug.c"
#include "notifier/sync/thread.h"
#include "tests/support/relax.h"
#include "tests/support/step.h"
#include "tests/support/test.h"

struct heard {
	int calls;
	enum gnomon_log_level level;
	char message[512];
};

static void hear(enum gnomon_log_level level, const char *message, void *arg)
{
	struct heard *heard = arg;

	heard->calls++;
	heard->level = level;
	snprintf(heard->message, sizeof(heard->message), "%s", message);
}

TEST(bug, hook_gets_level_and_line)
{
	struct heard heard = {0};

	gnomon_set_log(hear, &heard);
	pr_info("%d frames", 7);
	expect_eq(heard.calls, 1);
	expect_eq(heard.level, GNOMON_LOG_INFO);
	expect_str_eq(heard.message, "7 frames");

	pr_warn("low");
	expect_eq(heard.level, GNOMON_LOG_WARN);
	expect_str_eq(heard.message, "low");
	expect_eq(heard.calls, 2);
}

TEST(bug, long_line_is_cut_not_overrun)
{
	struct heard heard = {0};
	char text[2048];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	gnomon_set_log(hear, &heard);
	pr_info("%s", text);
	expect_eq(heard.calls, 1);
	expect(strlen(heard.message) > 400 && strlen(heard.message) < sizeof(heard.message));
	WARN(true, "%s", text);
	expect_eq(heard.calls, 2);
	/* So is one of which the place alone fills the line. */
	gnomon_warn(text, 1, "func", "%s", "after");
	expect_eq(heard.calls, 3);
	expect_eq(strlen(heard.message), sizeof(heard.message) - 1);
	expect_str_contains(heard.message, "WARNING at xxx");
}

/* --- without a hook: what matters goes to stderr --- */

static void say_all(void *arg)
{
	if (arg)
		gnomon_set_log(NULL, NULL);
	pr_info("informed");
	pr_warn("%s", "warned");
	WARN_ON(arg != (void *)1);
	fprintf(stderr, "said\n");
	BUG();
}

static void say_info(void *arg)
{
	struct heard heard = {0};
	char text[256] = "";
	int fds[2];

	(void)arg;
	if (pipe(fds) || dup2(fds[1], STDERR_FILENO) < 0)
		return;
	gnomon_set_log(hear, &heard);
	pr_info("heard");
	gnomon_set_log(NULL, NULL);
	pr_info("informed");
	pr_warn("warned");
	if (read(fds[0], text, sizeof(text) - 1) > 0 && !strcmp(text, "gnomon: warned\n"))
		__builtin_trap();
}

TEST(bug, default_hook)
{
	expect_bug(say_all, NULL, "gnomon: warned\ngnomon: WARNING at ");
	expect_bug(say_all, NULL, "arg != (void *)1\nsaid\ngnomon: BUG at ");
	expect_bug(say_all, "", "gnomon: warned\ngnomon: WARNING at ");
	/* One line, and that alone: so nothing is left for the parent to see. */
	expect_bug(say_info, NULL, "");
}

/* Nor does a line run over when the place alone is longer: what lies behind it stays. */
TEST(bug, long_place_is_cut_not_overrun)
{
	static char place[4096];
	volatile char behind[4096];
	struct heard heard = {0};

	gnomon_set_log(hear, &heard);
	for (unsigned int i = 0; i < sizeof(behind); i++)
		behind[i] = 'x';
	memset(place, 'y', 400);
	for (int len = 400; len < 2000; len++) {
		place[len] = 'y';
		gnomon_warn(place, 1, "func", "%s", "!!!!");
		for (unsigned int i = 0; i < sizeof(behind); i++)
			expect_eq(behind[i], 'x');
		expect_le(strlen(heard.message), sizeof(heard.message) - 1);
	}
	expect_eq(heard.calls, 1600);
}

static bool warn_once(bool cond)
{
	return WARN_ON_ONCE(cond);
}

TEST(bug, warn_reports_and_carries_on)
{
	struct heard heard = {0};
	int zero = 0;

	gnomon_set_log(hear, &heard);
	expect(!WARN_ON(zero));
	expect_eq(heard.calls, 0);
	expect(WARN_ON(zero == 0));
	expect_eq(heard.calls, 1);
	expect_eq(heard.level, GNOMON_LOG_WARN);
	expect_str_contains(heard.message, "zero == 0");
	expect_str_contains(heard.message, "test_bug.c");
	expect(WARN(zero == 0, "zero is %d", zero));
	expect_str_contains(heard.message, "zero is 0");

	heard.calls = 0;
	expect(!warn_once(false));
	expect(warn_once(true));
	expect(warn_once(true));
	expect_eq(heard.calls, 1);
}

static void hit_bug_on(void *arg)
{
	int seven = 7;

	(void)arg;
	BUG_ON(seven == 7);
}

static void hit_assert(void *arg)
{
	int found = 3;

	(void)arg;
	ASSERT(found == 4, "wanted 4 frames, found %d", found);
}

static void hit_bug(void *arg)
{
	(void)arg;
	BUG();
}

/* Neither hook nor trap can be talked out of it. */
static void hit_bug_hooked(void *arg)
{
	struct heard heard = {0};

	(void)arg;
	gnomon_set_log(hear, &heard);
	fprintf(stderr, "hooked\n");
	BUG();
}

TEST(bug, bugs_trap)
{
	expect_bug(hit_bug_on, NULL, "seven == 7");
	expect_bug(hit_bug_on, NULL, "hit_bug_on()");
	expect_bug(hit_assert, NULL, "wanted 4 frames, found 3");
	expect_bug(hit_bug, NULL, "BUG at ");
	expect_bug(hit_bug_hooked, NULL, "hooked");
}

/* Two hooks that each know their argument: a line that reaches one with the argument of the other
 * would be a torn update. */
static uint32_t stop, heard_a, heard_b;
static char arg_a, arg_b;

static void hook_a(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)level, (void)message;
	expect(arg == &arg_a);
	__atomic_fetch_add(&heard_a, 1, __ATOMIC_RELAXED);
}

static void hook_b(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)level, (void)message;
	expect(arg == &arg_b);
	__atomic_fetch_add(&heard_b, 1, __ATOMIC_RELAXED);
}

static void talk(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		pr_info("x");
}

static void change_hooks(void *arg)
{
	const uint32_t want = test_long() ? 1000000 : 100000;

	(void)arg;
	while (__atomic_load_n(&heard_a, __ATOMIC_RELAXED) < want ||
	       __atomic_load_n(&heard_b, __ATOMIC_RELAXED) < want) {
		gnomon_set_log(hook_b, &arg_b);
		gnomon_set_log(hook_a, &arg_a);
	}
}

static void run_changers(int nr)
{
	struct kthread talkers[2], changers[2];

	gnomon_set_log(hook_a, &arg_a);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&talkers[i], "talker", talk, NULL), 0);
	for (int i = 0; i < nr; i++)
		expect_eq(kthread_run(&changers[i], "changer", change_hooks, NULL), 0);
	for (int i = 0; i < nr; i++)
		kthread_join(&changers[i]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		kthread_join(&talkers[i]);
}

TEST(bug, hook_and_argument_change_together)
{
	run_changers(1);
}

TEST(bug, two_change_the_hook)
{
	run_changers(2);
}

/*
 * The same, instruction by instruction: between two CPUs the few that count are hard to meet, as
 * all of the words travel in one cache line.
 */
static void do_nothing(struct step *step)
{
	(void)step;
}

static void change_once(struct step *step)
{
	if (step->nr == *(unsigned int *)step->arg)
		gnomon_set_log(hook_b, &arg_b);
}

TEST(bug, hook_changes_at_each_step_of_a_line)
{
	struct step count = {.at_each = do_nothing};

	step_skip();
	gnomon_set_log(hook_a, &arg_a);
	pr_info("x"); /* the first calls of libc take longer */
	step_begin(&count);
	pr_info("x");
	step_end();
	/* Before that the line is made, which takes many. */
	for (unsigned int n = count.nr < 150 ? 1 : count.nr - 150; n <= count.nr; n++) {
		struct step step = {.at_each = change_once, .arg = &n};

		gnomon_set_log(hook_a, &arg_a);
		step_begin(&step);
		pr_info("x");
		step_end();
	}
	expect_ge(heard_a, 1);
	expect_ge(heard_b, 1);
}

static uint32_t lines_heard(void)
{
	return __atomic_load_n(&heard_a, __ATOMIC_RELAXED) +
	       __atomic_load_n(&heard_b, __ATOMIC_RELAXED);
}

/*
 * Two whole lines of it: the first may have begun before. In the middle of a change it has to wait
 * for us, if all is well, so there is nothing to wait for: it has some turns.
 */
static void let_others_talk(struct step *step)
{
	uint32_t before = lines_heard();
	bool must_wait = READ_ONCE(log_target.seq) & 1;

	(void)step;
	for (int turns = 0; must_wait ? turns < 4 : lines_heard() < before + 2; turns++)
		sched_yield();
}

TEST(bug, lines_at_each_step_of_a_change)
{
	struct step step = {.at_each = let_others_talk};
	struct sweep sweep = sweep_start(4);
	struct kthread talker;

	step_skip();
	gnomon_set_log(hook_a, &arg_a);
	expect_eq(kthread_run(&talker, "talker", talk, NULL), 0);
	for (int64_t i = 1; sweep_goes_on(&sweep, i); i++) {
		step_begin(&step);
		gnomon_set_log(hook_b, &arg_b);
		gnomon_set_log(hook_a, &arg_a);
		step_end();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	kthread_join(&talker);
}

/* What a hook reads by its argument was written before it was set: it may be plain. */
static uint32_t heard_plain;

static void read_plain(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)level, (void)message;
	expect_eq(*(int *)arg, 5);
	__atomic_store_n(&heard_plain, 1, __ATOMIC_RELAXED);
}

TEST(bug, argument_is_published)
{
	struct kthread talker;
	int plain;

	expect_eq(kthread_run(&talker, "talker", talk, NULL), 0);
	plain = 5;
	gnomon_set_log(read_plain, &plain);
	while (!__atomic_load_n(&heard_plain, __ATOMIC_RELAXED))
		;
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	kthread_join(&talker);
}
