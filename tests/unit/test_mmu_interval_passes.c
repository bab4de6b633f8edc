/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interval notifiers in two passes: all first ones, then the second ones in their order, whatever
 * became of the window; and tokens, which are the core's only in between.
 */
#include "notifier/sync/alloc.h"
#include "tests/support/interval_fixture.h"

/* In the log a first pass is the name in small, a second pass in capitals. */
struct two_pass {
	struct interval i;
	bool no_token;
	atomic_t tokens, finished;
	struct park *finish_park;
};

struct token {
	struct mmu_interval_notifier_finish finish;
	struct two_pass *owner;
	uint64_t thread; /* that made it, for a window of its own */
	unsigned long seq;
};

static bool first(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
		  unsigned long cur_seq, struct mmu_interval_notifier_finish **finish)
{
	struct two_pass *t = container_of(sub, struct two_pass, i.sub);
	struct token *token;

	expect(!*finish);
	if (!interval_told(&t->i, range, cur_seq))
		return false;
	if (t->no_token)
		return true;
	token = kmalloc(sizeof(*token), GFP_ATOMIC);
	expect(token);
	/* The core fills its fields in, whatever stood there. */
	memset(token, 0xee, sizeof(*token));
	token->owner = t;
	token->thread = thread_id();
	token->seq = cur_seq;
	atomic_inc(&t->tokens);
	*finish = &token->finish;
	return true;
}

/* The token is ours: so it goes, and the core must not look at it again. */
static void second(struct mmu_interval_notifier_finish *finish)
{
	struct token *token = container_of(finish, struct token, finish);
	struct two_pass *t = token->owner;

	expect(finish->notifier == &t->i.sub);
	expect_eq(token->thread, thread_id());
	/* The phase is still open: nobody's lookup was let through meanwhile. */
	expect_eq(READ_ONCE(t->i.sub.mm->notifier_subscriptions->invalidate_seq), token->seq);
	log_name(t->i.log, t->i.name - 'a' + 'A');
	if (t->finish_park)
		park_enter(t->finish_park);
	atomic_inc(&t->finished);
	memset(token, 0xee, sizeof(*token));
	kfree(token);
}

static const struct mmu_interval_notifier_ops two_pass_ops = {
	.invalidate_start = first,
	.invalidate_finish = second,
};

static void two_pass_join(struct two_pass *t, struct host *h, char name, char *log, uint64_t page)
{
	*t = (struct two_pass){.no_token = false};
	interval_init(&t->i, name, log);
	expect_eq(mmu_interval_notifier_insert(&t->i.sub, h->mm, AT(page), PAGE_SIZE,
					       &two_pass_ops),
		  0);
}

static void two_pass_leave(struct two_pass *t)
{
	expect_eq(atomic_read(&t->tokens), atomic_read(&t->finished));
	mmu_interval_notifier_remove(&t->i.sub);
	memset(t, 0xee, sizeof(*t));
}

/* N-39: first in, first out; and those with one pass, or with nothing to wait for, in between. */
TEST(mmu_interval_passes, order)
{
	struct two_pass a, c, d, e;
	struct interval b;
	char log[32] = "";
	struct recorder r;
	struct host h;

	host_init(&h);
	recorder_init(&r, 'r', log);
	expect_eq(mmu_notifier_register(&r.mn, h.mm), 0);
	two_pass_join(&e, &h, 'e', log, 4);
	two_pass_join(&c, &h, 'c', log, 2);
	two_pass_join(&a, &h, 'a', log, 0);
	two_pass_join(&d, &h, 'd', log, 3);
	interval_init(&b, 'b', log);
	interval_join(&b, &h, 1, 1);
	d.no_token = true;

	window_pages(&h, 0, PAGES);
	expect_str_eq(log, "abcdeACErr");
	log[0] = '\0';
	window_pages(&h, 2, 2);
	expect_str_eq(log, "cdCrr");
	log[0] = '\0';
	window_pages(&h, 3, 1);
	expect_str_eq(log, "drr");
	log[0] = '\0';
	expect_eq(window_nonblock(h.mm), 0);
	expect_str_eq(log, "abcdeACErr");
	expect_state(&h, 10, 0);
	expect_eq(atomic_read(&d.tokens), 0);
	two_pass_leave(&a);
	two_pass_leave(&c);
	two_pass_leave(&d);
	two_pass_leave(&e);
	interval_leave(&b);
	mmu_notifier_unregister(&r.mn, h.mm);
	host_destroy(&h);
}

/* Somebody refuses: what others have begun is finished, before the phase ends (second() looks). */
TEST(mmu_interval_passes, refused)
{
	for (int refuser = 0; refuser < 4; refuser++) {
		static const char *const logs[] = {"a", "abA", "abcAB", "abcdABC"};
		struct two_pass t[4];
		char log[32] = "";
		struct host h;

		host_init(&h);
		for (int n = 0; n < 4; n++)
			two_pass_join(&t[n], &h, 'a' + n, log, n);
		t[refuser].i.refuse = true;
		expect_eq(window_nonblock(h.mm), -EAGAIN);
		expect_str_eq(log, logs[refuser]);
		expect_state(&h, 4, 0);
		for (int n = 0; n < 4; n++) {
			expect_eq(atomic_read(&t[n].finished), n < refuser);
			two_pass_leave(&t[n]);
		}
		host_destroy(&h);
	}
}

/* The same when it is one with a single pass. */
TEST(mmu_interval_passes, refused_by_one_with_one_pass)
{
	struct two_pass a, c;
	struct interval b;
	char log[32] = "";
	struct host h;

	host_init(&h);
	two_pass_join(&a, &h, 'a', log, 0);
	two_pass_join(&c, &h, 'c', log, 2);
	interval_init(&b, 'b', log);
	interval_join(&b, &h, 1, 1);
	b.refuse = true;
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	expect_str_eq(log, "abA");
	expect_state(&h, 4, 0);
	two_pass_leave(&a);
	two_pass_leave(&c);
	interval_leave(&b);
	host_destroy(&h);
}

TEST(mmu_interval_passes, exit_finishes)
{
	struct two_pass a, b;
	char log[32] = "";
	struct host h;

	host_init(&h);
	two_pass_join(&a, &h, 'a', log, 0);
	two_pass_join(&b, &h, 'b', log, 1);
	mmput(h.mm);
	/* Of exit itself, and of the window in which it unmaps. */
	expect_str_eq(log, "abABabAB");
	expect_eq(atomic_read(&a.i.releases), 1);
	two_pass_leave(&a);
	two_pass_leave(&b);
	h.mm = NULL;
	host_destroy(&h);
}

/* A token of one that refused is nobody's: it is not called for it, and somebody is told. */
static struct token wrong_token;

static bool refuse_with_a_token(struct mmu_interval_notifier *sub,
				const struct mmu_notifier_range *range, unsigned long cur_seq,
				struct mmu_interval_notifier_finish **finish)
{
	(void)range;
	mmu_interval_set_seq(sub, cur_seq);
	*finish = &wrong_token.finish;
	return false;
}

static void never(struct mmu_interval_notifier_finish *finish)
{
	(void)finish;
	fail("a second pass after a first that refused");
}

static const struct mmu_interval_notifier_ops wrong_ops = {
	.invalidate_start = refuse_with_a_token,
	.invalidate_finish = never,
};

TEST(mmu_interval_passes, token_of_a_refusal)
{
	struct two_pass a;
	struct interval b;
	struct host h;

	host_init(&h);
	two_pass_join(&a, &h, 'a', NULL, 0);
	interval_init(&b, 'b', NULL);
	expect_eq(mmu_interval_notifier_insert(&b.sub, h.mm, AT(1), PAGE_SIZE, &wrong_ops), 0);
	warnings_begin();
	expect_eq(window_nonblock(h.mm), -EAGAIN);
	warnings_end(1);
	expect_str_contains(last_warning, "finish");
	expect(!wrong_token.finish.notifier);
	expect_eq(atomic_read(&a.finished), 1);
	two_pass_leave(&a);
	interval_leave(&b);
	host_destroy(&h);
}

/*
 *   window 1: first pass of a, of b; second of a ...
 *							window 2: both passes of both
 *   ... second of b
 *
 * Each of them has tokens of its own: second() knows who made which.
 */
static void run_window_of(void *arg)
{
	window_pages(arg, 0, 2);
}

TEST(mmu_interval_passes, windows_overlap)
{
	struct kthread first_window, second_window;
	struct park in_first, in_second;
	struct two_pass a, b;
	struct host h;

	host_init(&h);
	park_init(&in_first);
	park_init(&in_second);
	two_pass_join(&a, &h, 'a', NULL, 0);
	two_pass_join(&b, &h, 'b', NULL, 1);
	b.i.park = &in_first;
	a.finish_park = &in_second;
	expect_eq(kthread_run(&first_window, "window", run_window_of, &h), 0);
	park_wait(&in_first, 1);
	/* Neither waits for the other: both are in their first passes at once, then in the second.
	 */
	expect_eq(kthread_run(&second_window, "window", run_window_of, &h), 0);
	park_wait(&in_first, 2);
	expect_eq(atomic_read(&a.tokens), 2);
	expect_eq(atomic_read(&in_second.arrived), 0);
	park_release(&in_first);
	park_wait(&in_second, 2);
	expect_eq(atomic_read(&b.tokens), 2);
	expect_eq(atomic_read(&b.finished), 0);
	window_pages(&h, 1, 1);
	expect_eq(atomic_read(&b.finished), 1);
	expect_state(&h, 3, 2);
	park_release(&in_second);
	kthread_join(&first_window);
	kthread_join(&second_window);
	expect_eq(atomic_read(&a.finished), 2);
	expect_eq(atomic_read(&b.finished), 3);
	expect_state(&h, 4, 0);
	two_pass_leave(&a);
	two_pass_leave(&b);
	host_destroy(&h);
}

/* Many windows at once, with nobody parked: tokens neither get lost nor change hands. */
#define OPENERS 4

struct crowd {
	struct host h;
	struct two_pass t[PAGES];
	uint64_t windows;
};

static void open_many(void *arg)
{
	struct crowd *c = arg;

	for (uint64_t n = 0; n < c->windows; n++)
		window_pages(&c->h, n % PAGES, 1 + n % (PAGES - n % PAGES));
}

TEST(mmu_interval_passes, many_windows_at_once)
{
	struct crowd c = {.windows = test_long() ? 100000 : 5000};
	struct kthread threads[OPENERS];
	uint64_t told = 0;

	host_init(&c.h);
	for (uint64_t n = 0; n < PAGES; n++)
		two_pass_join(&c.t[n], &c.h, 'a', NULL, n);
	for (int n = 0; n < OPENERS; n++)
		expect_eq(kthread_run(&threads[n], "windows", open_many, &c), 0);
	for (int n = 0; n < OPENERS; n++)
		kthread_join(&threads[n]);
	for (uint64_t n = 0; n < PAGES; n++) {
		told += atomic_read(&c.t[n].finished);
		two_pass_leave(&c.t[n]);
	}
	expect_ge(told, OPENERS * c.windows);
	expect_eq(c.h.mm->notifier_subscriptions->active_invalidate_ranges, 0);
	expect_eq(global_seq(&c.h) & 1, 0);
	host_destroy(&c.h);
}
