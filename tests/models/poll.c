// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * gp_seq, through which one thread's grace period serves another: who may say that a grace period
 * has passed, when somebody else ran it, began it, or ended it.
 */
#include "tests/models/srcu_model.h"

static struct wm_model model;

/* ---- one thread unpublishes and asks, another runs grace periods ---- */

MODEL("[poll] [leave]", "notifier/srcu_gp.c: srcu_snap, srcu_reached, scan_begin, scan_end");

#define SAW_WRITE 5 /* register of the poller: what it finds that the section wrote */
#define SNAP	  6

struct poll_how {
	bool fallback;	 /* locked readers, a fence */
	bool snap_loads; /* no full barrier */
	bool snap_early; /* a grace period that runs will do */
	bool reached_relaxed;
	bool odd_stores; /* gp_seq made odd by a plain store */
	bool odd_late;	 /* behind the sums */
	bool end_relaxed;
	bool fence; /* in the place of M */
};

static void poller(struct poll_how how)
{
	struct wm_program *p = wm_thread(&model, "poller");
	unsigned int odd, reached, next;

	wm_keep(p, (uint16_t)(R(SAW_WRITE) | R(SNAP)));
	wm_store(p, PTR, 1, WM_RELAXED);
	if (how.snap_loads)
		wm_load(p, SNAP, GP_SEQ, WM_RELAXED);
	else
		wm_add(p, SNAP, GP_SEQ, 0, WM_FULL);
	wm_load(p, 1, GP_SEQ, how.reached_relaxed ? WM_RELAXED : WM_ACQUIRE);
	odd = wm_branch(p, wm_ne(R(SNAP), 0, 0));
	/* gp_seq was 0: done at 2. */
	wm_assume(p, wm_ne(R(1), 0, 0));
	wm_assume(p, wm_ne(R(1), 0, 1));
	reached = wm_jump(p);
	/* 1 or 2: done at 4. (3 would be done at 6, and that is never.) */
	wm_land(p, odd);
	wm_assume(p, wm_ne(R(SNAP), 0, 3));
	wm_assume(p, wm_ne(R(SNAP), 0, 4));
	if (how.snap_early) {
		wm_assume(p, wm_eq(R(SNAP), 0, 1));
		wm_assume(p, wm_ne(R(1), 0, 1));
	} else {
		next = wm_branch(p, wm_eq(R(1), 0, 4));
		wm_assume(p, wm_ne(0, 0, 0));
		wm_land(p, next);
	}
	wm_land(p, reached);
	wm_store(p, FREED, 1, WM_RELAXED);
	wm_load(p, SAW_WRITE, FLAG, WM_RELAXED);
}

/* Two grace periods; one index is enough to show what gp_seq does. */
static void runner(struct poll_how how)
{
	struct wm_program *p = wm_thread(&model, "runner");

	for (uint8_t seq = 1; seq < 4; seq += 2) {
		if (how.odd_late)
			wm_op(p, WM_CB);
		else if (how.odd_stores)
			wm_store(p, GP_SEQ, seq, WM_RELAXED);
		else
			wm_xchg(p, WM_NONE, GP_SEQ, seq, WM_FULL);
		wm_load(p, 0, unlock_of(0), WM_RELAXED);
		wm_op(p, how.fallback || how.fence ? WM_MB : WM_M);
		wm_load(p, 1, lock_of(0), WM_RELAXED);
		wm_assume(p, wm_eq(R(0), R(1), 0));
		if (how.odd_late)
			wm_xchg(p, WM_NONE, GP_SEQ, seq, WM_FULL);
		wm_store(p, GP_SEQ, (uint8_t)(seq + 1), how.end_relaxed ? WM_RELAXED : WM_RELEASE);
		wm_op(p, WM_MB);
	}
}

/* It uses what it found, and leaves a word of that. */
static void reader(struct poll_how how)
{
	struct wm_program *p = wm_thread(&model, "reader");
	const struct count_how count = {.locked = how.fallback};

	model_count(p, lock_of(0), WM_NONE, count);
	wm_load(p, section_ptr(0), PTR, WM_RELAXED);
	wm_load(p, section_freed(0), FREED, WM_RELAXED);
	wm_store(p, FLAG, 1, WM_RELAXED);
	wm_keep(p, (uint16_t)(R(section_ptr(0)) | R(section_freed(0))));
	model_count(p, unlock_of(0), WM_NONE, count);
}

static bool saw_old(const struct wm_final *final)
{
	return !final->regs[2][section_ptr(0)];
}

/* The section came first, and yet not all that it did was to be seen after the grace period. */
static bool used_or_missed(const struct wm_final *final)
{
	return used_after_free(final) || (saw_old(final) && !final->regs[0][SAW_WRITE]);
}

static bool began_after(const struct wm_final *final)
{
	return saw_old(final) && final->regs[0][SNAP] == 0;
}

static bool ran_already(const struct wm_final *final)
{
	return saw_old(final) && final->regs[0][SNAP] == 1;
}

static bool section_came_later(const struct wm_final *final)
{
	return !saw_old(final) && !final->regs[0][SAW_WRITE];
}

static void poll(struct poll_how how)
{
	model_init(&model);
	model.bad = (struct wm_outcome){"the grace period is no good", used_or_missed};
	model.reached[0] = (struct wm_outcome){"none ran, and the next one did", began_after};
	model.reached[1] = (struct wm_outcome){"one ran, and the one after did", ran_already};
	model.reached[2] = (struct wm_outcome){"the section came later", section_came_later};
	model.loc_names[FLAG] = "what the section did";
	poller(how);
	runner(how);
	reader(how);
}

TEST(poll, another_runs_it)
{
	poll((struct poll_how){0});
	must_hold(&model, "polled");
	poll((struct poll_how){.fallback = true});
	must_hold(&model, "polled, locked");
}

TEST(broken_poll, another_runs_it)
{
	for (int locked = 0; locked < 2; locked++) {
		poll((struct poll_how){.fallback = locked, .snap_loads = true});
		must_break(&model, "snap without a barrier");
		poll((struct poll_how){.fallback = locked, .snap_early = true});
		must_break(&model, "a grace period that ran already will do");
		poll((struct poll_how){.fallback = locked, .odd_late = true});
		must_break(&model, "gp_seq odd behind the sums");
		poll((struct poll_how){.fallback = locked, .reached_relaxed = true});
		must_break(&model, "gp_seq loaded without an acquire");
	}
	poll((struct poll_how){.fence = true});
	must_break(&model, "a fence in the place of M");
}

/*
 * M, or the fence that stands for it, comes between the store that makes gp_seq odd and the sum of
 * the locks, and between all sums and the end: it is enough for [poll] also.
 */
TEST(spare_poll, barriers_of_gp_seq)
{
	for (int locked = 0; locked < 2; locked++) {
		poll((struct poll_how){.fallback = locked, .odd_stores = true});
		must_hold(&model,
			  locked ? "locked, gp_seq odd by a store" : "gp_seq odd by a store");
		poll((struct poll_how){.fallback = locked, .end_relaxed = true});
		must_hold(&model, locked ? "locked, gp_seq even without a release"
					 : "gp_seq even without a release");
	}
}

/* ---- a scan by halves, and others that end the grace period in between ---- */

MODEL("[poll]", "notifier/srcu_gp.c: srcu_scan_begin, srcu_scan_end, scan_begin, scan_end");

#define STALE 15 /* register of the worker: it found another grace period */

/* The worker: half a scan of grace period 1; M; the other half, of whatever it finds. */
static void halves(bool no_seq_check)
{
	struct wm_program *p = wm_thread(&model, "worker");
	unsigned int same, end;

	wm_keep(p, (uint16_t)R(STALE));
	wm_lock(p, GP_LOCK);
	wm_load(p, 0, GP_SEQ, WM_RELAXED);
	wm_assume(p, wm_eq(R(0), 0, 1));
	wm_load(p, 1, unlock_of(0), WM_RELAXED);
	wm_unlock(p, GP_LOCK);
	wm_op(p, WM_M);
	wm_lock(p, GP_LOCK);
	wm_load(p, 2, GP_SEQ, WM_RELAXED);
	same = wm_branch(p, wm_eq(R(2), 0, 1));
	if (no_seq_check) {
		/* Only a grace period that runs can be ended: 3. */
		wm_assume(p, wm_eq(R(2), 0, 3));
		wm_load(p, 3, lock_of(0), WM_RELAXED);
		wm_assume(p, wm_eq(R(1), R(3), 0));
		wm_store(p, GP_SEQ, 4, WM_RELEASE);
	}
	wm_unlock(p, GP_LOCK);
	wm_set(p, STALE, 1);
	end = wm_jump(p);
	wm_land(p, same);
	wm_load(p, 3, lock_of(0), WM_RELAXED);
	wm_assume(p, wm_eq(R(1), R(3), 0));
	wm_store(p, GP_SEQ, 2, WM_RELEASE);
	wm_unlock(p, GP_LOCK);
	wm_set(p, STALE, 0);
	wm_land(p, end);
}

/* Ends grace period 1; unpublishes; and runs the next one, by halves too. */
static void ends_and_begins(void)
{
	struct wm_program *p = wm_thread(&model, "updater");
	unsigned int ended, ended_2;

	wm_lock(p, GP_LOCK);
	wm_load(p, 0, GP_SEQ, WM_RELAXED);
	ended = wm_branch(p, wm_ne(R(0), 0, 1));
	wm_load(p, 1, unlock_of(0), WM_RELAXED);
	wm_op(p, WM_M);
	wm_load(p, 2, lock_of(0), WM_RELAXED);
	wm_assume(p, wm_eq(R(1), R(2), 0));
	wm_store(p, GP_SEQ, 2, WM_RELEASE);
	wm_land(p, ended);
	wm_unlock(p, GP_LOCK);

	wm_store(p, PTR, 1, WM_RELAXED);
	wm_add(p, 3, GP_SEQ, 0, WM_FULL);
	wm_lock(p, GP_LOCK);
	wm_xchg(p, WM_NONE, GP_SEQ, 3, WM_FULL);
	wm_load(p, 4, unlock_of(0), WM_RELAXED);
	wm_unlock(p, GP_LOCK);
	wm_op(p, WM_M);
	wm_lock(p, GP_LOCK);
	wm_load(p, 5, GP_SEQ, WM_RELAXED);
	ended_2 = wm_branch(p, wm_eq(R(5), 0, 4));
	wm_load(p, 6, lock_of(0), WM_RELAXED);
	wm_assume(p, wm_eq(R(4), R(6), 0));
	wm_store(p, GP_SEQ, 4, WM_RELEASE);
	wm_land(p, ended_2);
	wm_unlock(p, GP_LOCK);
	wm_store(p, FREED, 1, WM_RELAXED);
}

static bool stale(const struct wm_final *final)
{
	return saw_old(final) && final->regs[0][STALE];
}

static bool in_time(const struct wm_final *final)
{
	return saw_old(final) && !final->regs[0][STALE];
}

static void by_halves(bool no_seq_check)
{
	model_init(&model);
	model.bad = (struct wm_outcome){"use after free", used_after_free};
	model.reached[0] = (struct wm_outcome){"the worker comes too late", stale};
	model.reached[1] = (struct wm_outcome){"the worker ends it", in_time};
	model.init[GP_SEQ] = 1;
	halves(no_seq_check);
	ends_and_begins();
	reader((struct poll_how){0});
}

TEST(poll, halves)
{
	by_halves(false);
	must_hold(&model, "a scan by halves");
}

TEST(broken_poll, halves)
{
	by_halves(true);
	must_break(&model, "the second half does not ask for gp_seq");
}

/* ---- call_srcu(), a batch, its grace period, the callback ---- */

MODEL("[call]", "notifier/srcu_callback.c: enqueue, next_in_queue, take_batch, run_batch");

enum { TAIL = FLAG, NEXT = FLAG2 };

static void call(bool without_order)
{
	struct wm_program *p;

	model_init(&model);
	model.bad = (struct wm_outcome){"use after free", used_after_free};
	model.reached[0] = (struct wm_outcome){"the section saw the old pointer", saw_old};
	model.loc_names[TAIL] = "cb_tail";
	model.loc_names[NEXT] = "cb_first.next";

	p = wm_thread(&model, "caller");
	wm_store(p, PTR, 1, WM_RELAXED);
	wm_xchg(p, WM_NONE, TAIL, 1, without_order ? WM_RELAXED : WM_FULL);
	wm_store(p, NEXT, 1, without_order ? WM_RELAXED : WM_RELEASE);

	p = wm_thread(&model, "worker");
	wm_await(p, WM_NONE, TAIL, 1, WM_RELAXED);
	wm_await(p, WM_NONE, NEXT, 1, WM_ACQUIRE);
	wm_store(p, NEXT, 0, WM_RELAXED);
	wm_xchg(p, WM_NONE, TAIL, 0, WM_FULL);
	wm_add(p, WM_NONE, GP_SEQ, 0, WM_FULL);
	wm_load(p, 1, unlock_of(0), WM_RELAXED);
	wm_op(p, WM_M);
	wm_load(p, 2, lock_of(0), WM_RELAXED);
	wm_assume(p, wm_eq(R(1), R(2), 0));
	wm_store(p, FREED, 1, WM_RELAXED);

	p = wm_thread(&model, "reader");
	wm_set(p, section_index(0), 0);
	model_count(p, lock_of(0), section_index(0), (struct count_how){0});
	wm_load(p, section_ptr(0), PTR, WM_RELAXED);
	wm_load(p, section_freed(0), FREED, WM_RELAXED);
	wm_keep(p, (uint16_t)(R(section_ptr(0)) | R(section_freed(0))));
	model_count(p, unlock_of(0), section_index(0), (struct count_how){0});
}

TEST(poll, callback)
{
	call(false);
	must_hold(&model, "a callback frees");
}

TEST(broken_poll, callback)
{
	call(true);
	must_break(&model, "call_srcu() orders nothing");
}
