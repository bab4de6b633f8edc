// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Callbacks and the worker's comings and goings: queued while it starts, while it stops, and while
 * a barrier runs callbacks in its place. None may be left where nobody will look.
 */
#include "tests/models/srcu_model.h"

enum { TAIL = FLAG, PID = FLAG2, STACK = HI, STOP = CUR, CB_RUN = GP_LOCK };

#define FATE  15
#define FOUND 14
#define SEQ   13

static struct wm_model model;

static void begin(void)
{
	model_init(&model);
	model.loc_names[TAIL] = "cb_tail";
	model.loc_names[PID] = "pid";
	model.loc_names[STACK] = "the stack";
	model.loc_names[STOP] = "stop";
	model.loc_names[CB_RUN] = "cb_run";
	model.loc_names[NUMBER_TAKEN] = "kicked";
}

enum { KICKED_ = NUMBER_TAKEN };

/* push_kicked() of the only domain, wake_up_all(). */
static void kick(struct wm_program *p)
{
	unsigned int there, nobody;

	wm_xchg(p, 0, KICKED_, 1, WM_FULL);
	there = wm_branch(p, wm_ne(R(0), 0, 0));
	wm_xchg(p, WM_NONE, STACK, 1, WM_FULL);
	wm_land(p, there);
	wm_add(p, 1, Q_WAITERS, 0, WM_FULL);
	nobody = wm_branch(p, wm_eq(R(1), 0, 0));
	wm_add(p, WM_NONE, Q_SEQ, 1, WM_FULL);
	wm_land(p, nobody);
}

/* ---- start ---- */

MODEL("[start]", "notifier/srcu_callback.c: call_srcu, srcu_worker_kick, srcu_workers_start, "
		 "kick_if_queued");

static bool left_behind(const struct wm_final *final)
{
	return final->mem[TAIL] && !final->mem[KICKED];
}

static bool kicked(const struct wm_final *final)
{
	return final->mem[KICKED];
}

/* The caller finds the worker, or the starter finds the callback. */
static void start(enum wm_order order)
{
	struct wm_program *p;
	unsigned int none, empty, idle;

	begin();
	model.bad = (struct wm_outcome){"a callback is left behind", left_behind};
	model.reached[0] = (struct wm_outcome){"kicked", kicked};

	p = wm_thread(&model, "starter");
	wm_xchg(p, WM_NONE, PID, 1, order);
	wm_xchg(p, WM_NONE, GP_LOCK, 1, WM_ACQUIRE);
	wm_load(p, 0, TAIL, WM_ACQUIRE);
	empty = wm_branch(p, wm_eq(R(0), 0, 0));
	wm_store(p, KICKED, 1, WM_RELAXED);
	wm_land(p, empty);
	wm_load(p, 1, WORKER_WAITS, WM_ACQUIRE);
	idle = wm_branch(p, wm_eq(R(1), 0, 0));
	wm_store(p, KICKED, 1, WM_RELAXED);
	wm_land(p, idle);

	p = wm_thread(&model, "caller");
	wm_add(p, WM_NONE, TAIL, 1, WM_FULL);
	wm_xchg(p, WM_NONE, WORKER_WAITS, 1, WM_FULL);
	wm_load(p, 0, PID, WM_RELAXED);
	none = wm_branch(p, wm_eq(R(0), 0, 0));
	wm_store(p, KICKED, 1, WM_RELAXED);
	wm_land(p, none);
	model.loc_names[WORKER_WAITS] = "cb_busy";
	model.loc_names[GP_LOCK] = "lock of the pool";
}

TEST(start_stop, start)
{
	start(WM_FULL);
	must_hold(&model, "started meanwhile");
}

TEST(broken_start_stop, start)
{
	start(WM_RELAXED);
	must_break(&model, "pid set with no barrier but that of the pool's lock, an acquire");
}

/* ---- stop ---- */

MODEL("[stop]", "notifier/srcu_callback.c: srcu_workers_stop, take_ready, may_end");

enum { ENDED = 1, SERVED };

static bool ended_with_work(const struct wm_final *final)
{
	return final->regs[0][FATE] == ENDED && final->mem[STACK];
}

static bool served_first(const struct wm_final *final)
{
	return final->regs[0][FATE] == SERVED;
}

/* What was kicked before the stop is served. The worker is at the turn in which it sees the stop.
 */
static void stop(bool takes_first)
{
	struct wm_program *p;
	unsigned int work, end;

	begin();
	model.bad = (struct wm_outcome){"ended, and something was kicked", ended_with_work};
	model.reached[0] = (struct wm_outcome){"something to do first", served_first};

	p = wm_thread(&model, "worker");
	wm_keep(p, (uint16_t)R(FATE));
	if (!takes_first)
		wm_await(p, WM_NONE, STOP, 1, WM_ACQUIRE);
	wm_xchg(p, 0, STACK, 0, WM_RELAXED);
	if (takes_first)
		wm_await(p, WM_NONE, STOP, 1, WM_ACQUIRE);
	work = wm_branch(p, wm_ne(R(0), 0, 0));
	wm_set(p, FATE, ENDED);
	end = wm_jump(p);
	wm_land(p, work);
	wm_set(p, FATE, SERVED);
	wm_land(p, end);

	p = wm_thread(&model, "stopper");
	kick(p);
	wm_store(p, STOP, 1, WM_RELEASE);
}

TEST(start_stop, stop)
{
	stop(false);
	must_hold(&model, "kicked, then stopped");
}

TEST(broken_start_stop, stop)
{
	stop(true);
	must_break(&model, "the stack taken before the look at stop");
}

/* ---- somebody else runs the callbacks ---- */

MODEL("[cb_run]", "notifier/srcu_callback.c: srcu_barrier, scan_first_half, run_what_passed");

static bool parked_for_ever(const struct wm_final *final)
{
	return final->regs[0][FATE] != SERVED && !final->regs[0][FOUND] &&
	       final->mem[Q_SEQ] == final->regs[0][SEQ];
}

static bool parked_and_kicked(const struct wm_final *final)
{
	return final->regs[0][FATE] != SERVED && !parked_for_ever(final);
}

static void barrier_has_it(bool kicks_first)
{
	struct wm_program *p;
	unsigned int free, parked;

	begin();
	model.bad = (struct wm_outcome){"parked for ever", parked_for_ever};
	model.reached[0] = (struct wm_outcome){"parked and kicked", parked_and_kicked};
	model.reached[1] = (struct wm_outcome){"served", served_first};
	model.init[CB_RUN] = 1;
	model.init[KICKED_] = 1;

	/* It took the domain from the stack; cb_run is free or it parks; it looks again, sleeps. */
	p = wm_thread(&model, "worker");
	wm_keep(p, (uint16_t)(R(FATE) | R(FOUND) | R(SEQ)));
	wm_xchg(p, WM_NONE, KICKED_, 0, WM_FULL);
	wm_xchg(p, 0, CB_RUN, 1, WM_ACQUIRE);
	free = wm_branch(p, wm_eq(R(0), 0, 0));
	wm_set(p, FATE, 0);
	parked = wm_jump(p);
	wm_land(p, free);
	wm_set(p, FATE, SERVED);
	wm_land(p, parked);
	wm_add(p, WM_NONE, Q_WAITERS, 1, WM_FULL);
	wm_load(p, SEQ, Q_SEQ, WM_ACQUIRE);
	wm_load(p, FOUND, STACK, WM_RELAXED);

	p = wm_thread(&model, "barrier");
	if (kicks_first)
		kick(p);
	wm_store(p, CB_RUN, 0, WM_RELEASE);
	if (!kicks_first)
		kick(p);
}

TEST(start_stop, barrier_runs_callbacks)
{
	barrier_has_it(false);
	must_hold(&model, "a barrier has cb_run");
}

TEST(broken_start_stop, barrier_runs_callbacks)
{
	barrier_has_it(true);
	must_break(&model, "the barrier kicks before it drops cb_run");
}
