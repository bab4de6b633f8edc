// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The ladder at the top of notifier/sync/wait.h, one turn of it, with the condition in one word and
 * what it publishes in another.
 */
#include "tests/models/srcu_model.h"

MODEL("[queue]", "notifier/sync/wait.c: wait_prepare, wake_up_all; "
		 "notifier/sync/wait.h: wait_event");

enum { CONDITION = FLAG, PUBLISHED = FLAG2 };

#define SLEPT 15
#define SEQ   14
#define FOUND 13

struct wait_how {
	bool prepare_relaxed; /* no full barrier where the waiter counts itself */
	bool seq_late;	      /* seq is taken after the look at the condition */
	bool wake_loads;      /* no full barrier where the waker looks for waiters */
	bool no_bump;	      /* it wakes, and leaves seq as it was */
	bool cond_relaxed;    /* the condition is loaded without an acquire */
};

static struct wm_model model;

static bool bad(const struct wm_final *final)
{
	bool slept = final->regs[0][SLEPT];

	/* futex_wait() sleeps while seq is what it was; a wake-up without a change finds no one. */
	return slept ? final->mem[Q_SEQ] == final->regs[0][SEQ] : !final->regs[0][FOUND];
}

static bool woken(const struct wm_final *final)
{
	return final->regs[0][SLEPT];
}

static bool found(const struct wm_final *final)
{
	return !final->regs[0][SLEPT];
}

static bool found_and_woken(const struct wm_final *final)
{
	return !final->regs[0][SLEPT] && final->mem[Q_SEQ];
}

static void wait_queue(struct wait_how how, unsigned int wakers)
{
	struct wm_program *p;
	unsigned int leave;

	model_init(&model);
	model.bad = (struct wm_outcome){"sleeps on, or finds nothing published", bad};
	model.reached[0] = (struct wm_outcome){"sleeps, and is woken", woken};
	model.reached[1] = (struct wm_outcome){"finds the condition", found};
	model.reached[2] = (struct wm_outcome){"finds it, and is woken too", found_and_woken};
	model.loc_names[CONDITION] = "condition";
	model.loc_names[PUBLISHED] = "published";

	p = wm_thread(&model, "waiter");
	wm_keep(p, (uint16_t)(R(SLEPT) | R(SEQ) | R(FOUND)));
	wm_add(p, WM_NONE, Q_WAITERS, 1, how.prepare_relaxed ? WM_RELAXED : WM_FULL);
	if (!how.seq_late)
		wm_load(p, SEQ, Q_SEQ, WM_ACQUIRE);
	wm_load(p, 0, CONDITION, how.cond_relaxed ? WM_RELAXED : WM_ACQUIRE);
	if (how.seq_late)
		wm_load(p, SEQ, Q_SEQ, WM_ACQUIRE);
	leave = wm_branch(p, wm_ne(R(0), 0, 0));
	wm_set(p, SLEPT, 1);
	unsigned int end = wm_jump(p);

	wm_land(p, leave);
	wm_load(p, FOUND, PUBLISHED, WM_RELAXED);
	wm_set(p, SLEPT, 0);
	wm_land(p, end);

	for (unsigned int i = 0; i < wakers; i++) {
		unsigned int nobody;

		p = wm_thread(&model, i ? "waker B" : "waker A");
		wm_store(p, PUBLISHED, 1, WM_RELAXED);
		wm_store(p, CONDITION, 1, WM_RELEASE);
		if (how.wake_loads)
			wm_load(p, 0, Q_WAITERS, WM_RELAXED);
		else
			wm_add(p, 0, Q_WAITERS, 0, WM_FULL);
		nobody = wm_branch(p, wm_eq(R(0), 0, 0));
		if (!how.no_bump)
			wm_add(p, WM_NONE, Q_SEQ, 1, WM_FULL);
		wm_land(p, nobody);
	}
}

TEST(wait_queue, wakes)
{
	wait_queue((struct wait_how){0}, 1);
	must_hold(&model, "one waker");
	wait_queue((struct wait_how){0}, 2);
	must_hold(&model, "two wakers");
}

TEST(broken_wait_queue, wakes)
{
	wait_queue((struct wait_how){.prepare_relaxed = true}, 1);
	must_break(&model, "no full barrier where the waiter counts itself");
	wait_queue((struct wait_how){.seq_late = true}, 1);
	must_break(&model, "seq is taken after the look at the condition");
	wait_queue((struct wait_how){.wake_loads = true}, 1);
	must_break(&model, "no full barrier where the waker looks for waiters");
	wait_queue((struct wait_how){.no_bump = true}, 1);
	must_break(&model, "seq stays as it is");
	wait_queue((struct wait_how){.cond_relaxed = true}, 1);
	must_break(&model, "the condition without an acquire");
}
