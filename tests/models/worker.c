// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The worker parks a domain whose readers are in the way, and must hear of whatever lets it go on:
 * a reader that leaves, or a synchronize_srcu() that ended the grace period for it. And call_srcu()
 * spares itself the waking of somebody who is awake, but must wake who is not.
 */
#include "tests/models/srcu_model.h"

static struct wm_model model;

/* ---- parked ---- */

MODEL("[wake]", "notifier/srcu_callback.c: scan_first_half, scan_second_half, srcu_worker_notify; "
		"notifier/srcu_gp.c: srcu_scan_begin, srcu_scan_end, srcu_advance");

#define FATE 15

enum { GOES_ON = 1, PARKED };

struct worker_how {
	bool waits_late;   /* worker_waits is set behind the second half of the scan */
	bool waits_stores; /* and before it, but by a store; the word is armed by one too */
	bool no_seq_check; /* the second half does not ask if the grace period is still the same */
	bool no_recheck;   /* the second sum of unlocks is left out */
};

/*
 * One reader is inside when the grace period begins that runs (gp_seq is 1). The domain's other
 * index is empty, and left out.
 */
static void worker(struct worker_how how)
{
	struct wm_program *p = wm_thread(&model, "worker");
	unsigned int done, changed = 0, passed, again = 0;

	wm_keep(p, (uint16_t)R(FATE));
	if (!how.waits_late && how.waits_stores)
		wm_store(p, WORKER_WAITS, 1, WM_RELAXED);
	else if (!how.waits_late)
		wm_xchg(p, WM_NONE, WORKER_WAITS, 1, WM_FULL);
	wm_lock(p, GP_LOCK);
	wm_load(p, 0, GP_SEQ, WM_RELAXED);
	done = wm_branch(p, wm_ne(R(0), 0, 1));
	if (how.waits_stores)
		wm_store(p, WAITING, 1, WM_RELAXED);
	else
		wm_xchg(p, WM_NONE, WAITING, 1, WM_FULL);
	model_sum(p, 1, unlock_of(0));
	wm_unlock(p, GP_LOCK);

	wm_op(p, WM_M);

	wm_lock(p, GP_LOCK);
	if (!how.no_seq_check) {
		wm_load(p, 7, GP_SEQ, WM_RELAXED);
		changed = wm_branch(p, wm_ne(R(7), 0, 1));
	}
	model_sum(p, 3, lock_of(0));
	passed = wm_branch(p, wm_eq(R(1) | R(2), R(3) | R(4), 0));
	if (!how.no_recheck) {
		model_sum(p, 5, unlock_of(0));
		again = wm_branch(p, wm_eq(R(5) | R(6), R(3) | R(4), 0));
	}
	wm_unlock(p, GP_LOCK);
	if (how.waits_late)
		wm_xchg(p, WM_NONE, WORKER_WAITS, 1, WM_FULL);
	wm_set(p, FATE, PARKED);
	unsigned int end = wm_jump(p);

	wm_land(p, passed);
	if (!how.no_recheck)
		wm_land(p, again);
	if (!how.no_seq_check)
		wm_land(p, changed);
	wm_unlock(p, GP_LOCK);
	wm_set(p, FATE, GOES_ON);
	unsigned int other_end = wm_jump(p);

	wm_land(p, done);
	wm_unlock(p, GP_LOCK);
	wm_set(p, FATE, GOES_ON);
	wm_land(p, other_end);
	wm_land(p, end);
}

/* srcu_tell_waiters(), of which the wait queue is in wake.c; srcu_worker_notify(). */
static void notify(struct wm_program *p)
{
	unsigned int nobody, somebody_else;

	wm_load(p, 8, WORKER_WAITS, WM_RELAXED);
	nobody = wm_branch(p, wm_eq(R(8), 0, 0));
	wm_xchg(p, 9, WORKER_WAITS, 0, WM_FULL);
	somebody_else = wm_branch(p, wm_eq(R(9), 0, 0));
	wm_store(p, KICKED, 1, WM_RELAXED);
	wm_land(p, somebody_else);
	wm_land(p, nobody);
}

static void reader(const char *name, unsigned int slot, bool late)
{
	struct wm_program *p = wm_thread(&model, name);
	unsigned int nobody;

	if (late)
		model_count(p, lock_of(slot), WM_NONE, (struct count_how){0});
	else
		model.init[lock_of(slot)]++;
	model_count(p, unlock_of(slot), WM_NONE, (struct count_how){0});
	wm_load(p, 0, WAITING, WM_RELAXED);
	nobody = wm_branch(p, wm_eq(R(0), 0, 0));
	wm_xchg(p, WM_NONE, WAITING, 0, WM_FULL);
	notify(p);
	wm_land(p, nobody);
}

/* A synchronize_srcu() that drives the same grace period, and ends it if it can. */
static void driver(void)
{
	struct wm_program *p = wm_thread(&model, "updater");
	unsigned int busy, over, end;

	wm_lock(p, GP_LOCK);
	wm_load(p, 0, GP_SEQ, WM_RELAXED);
	over = wm_branch(p, wm_ne(R(0), 0, 1));
	model_sum(p, 1, unlock_of(0));
	wm_op(p, WM_M);
	model_sum(p, 3, lock_of(0));
	busy = wm_branch(p, wm_ne(R(1) | R(2), R(3) | R(4), 0));
	wm_store(p, WAITING, 0, WM_RELAXED);
	wm_store(p, GP_SEQ, 2, WM_RELEASE);
	wm_unlock(p, GP_LOCK);
	notify(p);
	end = wm_jump(p);
	wm_land(p, busy);
	wm_land(p, over);
	wm_unlock(p, GP_LOCK);
	wm_land(p, end);
}

/* Parked for ever: nobody is inside, or the grace period is over, and nobody will say so. */
static bool forgotten(const struct wm_final *final)
{
	return final->regs[0][FATE] == PARKED && !final->mem[KICKED] &&
	       (model_all_left(final) || final->mem[GP_SEQ] != 1);
}

static bool was_kicked(const struct wm_final *final)
{
	return final->regs[0][FATE] == PARKED && final->mem[KICKED];
}

static bool went_on(const struct wm_final *final)
{
	return final->regs[0][FATE] == GOES_ON && !final->mem[KICKED];
}

static bool kicked_for_nothing(const struct wm_final *final)
{
	return final->regs[0][FATE] == GOES_ON && final->mem[KICKED];
}

static void begin(struct worker_how how)
{
	model_init(&model);
	model.bad = (struct wm_outcome){"parked for ever", forgotten};
	model.reached[0] = (struct wm_outcome){"parked and kicked", was_kicked};
	model.reached[1] = (struct wm_outcome){"went on by itself", went_on};
	model.reached[2] = (struct wm_outcome){"kicked for nothing", kicked_for_nothing};
	model.init[GP_SEQ] = 1;
	worker(how);
}

static void readers_and_worker(struct worker_how how, bool late, bool was_armed)
{
	begin(how);
	/* By a synchronize_srcu() that looks again by itself. */
	model.init[WAITING] = was_armed;
	reader("reader A", 0, false);
	reader("reader B", 1, late);
}

TEST(worker, readers_kick)
{
	begin((struct worker_how){0});
	reader("reader", 0, false);
	must_hold(&model, "a reader leaves");
	for (int was_armed = 0; was_armed < 2; was_armed++) {
		readers_and_worker((struct worker_how){0}, false, was_armed);
		must_hold(&model, was_armed ? "two leave, armed before" : "two leave");
		readers_and_worker((struct worker_how){0}, true, was_armed);
		must_hold(&model, was_armed ? "one leaves, one comes late, armed before"
					    : "one leaves, one comes late");
	}
}

TEST(worker, updater_kicks)
{
	begin((struct worker_how){0});
	driver();
	reader("reader", 0, false);
	must_hold(&model, "an updater ends the grace period");
}

TEST(broken_worker, parked)
{
	begin((struct worker_how){.waits_late = true});
	reader("reader", 0, false);
	must_break(&model, "worker_waits set when it parks");
	begin((struct worker_how){.waits_late = true});
	driver();
	reader("reader", 0, false);
	must_break(&model, "worker_waits set when it parks, beside an updater");
	readers_and_worker((struct worker_how){.waits_stores = true}, true, true);
	must_break(&model, "worker_waits and the word set by stores");
	begin((struct worker_how){.no_recheck = true});
	reader("reader", 0, false);
	must_break(&model, "parks on the first sum of unlocks");
	begin((struct worker_how){.no_seq_check = true, .no_recheck = true});
	driver();
	reader("reader", 0, false);
	must_break(&model, "the second half does not ask for gp_seq");
}

/* ---- call_srcu() and whoever ran the last callback ---- */

MODEL("[queue]", "notifier/srcu_callback.c: enqueue, call_srcu, rest, srcu_callbacks_idle");

enum { TAIL = FLAG, CB_BUSY = FLAG2, RAN = NUMBER_TAKEN };

struct queue_how {
	bool append_stores; /* no full barrier in the append */
	bool clear_stores;  /* nor where cb_busy is cleared */
	bool looks_first;   /* at the queue, and clears cb_busy then */
};

/* Who ran the last callback was not told to look again, and cb_busy kept the caller from it. */
static bool left_behind(const struct wm_final *final)
{
	return final->regs[0][FATE] == PARKED && final->mem[TAIL] && !final->mem[KICKED];
}

static bool kicked(const struct wm_final *final)
{
	return final->regs[0][FATE] == PARKED && final->mem[KICKED];
}

static bool found_by_itself(const struct wm_final *final)
{
	return final->regs[0][FATE] == GOES_ON && !final->mem[KICKED];
}

static void queue(struct queue_how how, unsigned int callers)
{
	static const char *const names[] = {"caller A", "caller B"};
	struct wm_program *p;
	unsigned int more, end;

	model_init(&model);
	model.bad = (struct wm_outcome){"a callback is left behind", left_behind};
	model.reached[0] = (struct wm_outcome){"kicked", kicked};
	model.reached[1] = (struct wm_outcome){"found without a kick", found_by_itself};
	model.loc_names[TAIL] = "cb_tail";
	model.loc_names[CB_BUSY] = "cb_busy";
	model.init[CB_BUSY] = 1;

	p = wm_thread(&model, "worker");
	wm_keep(p, (uint16_t)R(FATE));
	if (how.looks_first)
		wm_load(p, 0, TAIL, WM_RELAXED);
	if (how.clear_stores)
		wm_store(p, CB_BUSY, 0, WM_RELAXED);
	else
		wm_xchg(p, WM_NONE, CB_BUSY, 0, WM_FULL);
	if (!how.looks_first)
		wm_load(p, 0, TAIL, WM_RELAXED);
	more = wm_branch(p, wm_ne(R(0), 0, 0));
	wm_set(p, FATE, PARKED);
	end = wm_jump(p);
	wm_land(p, more);
	wm_xchg(p, WM_NONE, CB_BUSY, 1, WM_FULL);
	wm_set(p, FATE, GOES_ON);
	wm_land(p, end);

	for (unsigned int i = 0; i < callers; i++) {
		unsigned int busy, other;

		p = wm_thread(&model, names[i]);
		wm_add(p, WM_NONE, TAIL, 1, how.append_stores ? WM_RELAXED : WM_FULL);
		wm_load(p, 0, CB_BUSY, WM_RELAXED);
		busy = wm_branch(p, wm_ne(R(0), 0, 0));
		wm_xchg(p, 1, CB_BUSY, 1, WM_FULL);
		other = wm_branch(p, wm_ne(R(1), 0, 0));
		wm_store(p, KICKED, 1, WM_RELAXED);
		wm_land(p, other);
		wm_land(p, busy);
	}
}

TEST(queue, no_callback_is_left_behind)
{
	queue((struct queue_how){0}, 1);
	must_hold(&model, "one call_srcu()");
	queue((struct queue_how){0}, 2);
	must_hold(&model, "two call_srcu()");
}

TEST(broken_queue, busy)
{
	queue((struct queue_how){.append_stores = true}, 1);
	must_break(&model, "no full barrier in the append");
	queue((struct queue_how){.clear_stores = true}, 1);
	must_break(&model, "cb_busy cleared without a full barrier");
	queue((struct queue_how){.looks_first = true}, 1);
	must_break(&model, "cb_busy cleared after the look at the queue");
}

/* ---- srcu_callbacks_idle() ---- */

struct idle_how {
	bool busy_first; /* cb_busy before the queue */
	bool no_acquire;
	bool clear_stores; /* cb_busy is cleared by a relaxed store */
};

/* It said so, and a callback had not run, or what it did is not seen. */
static bool idle_too_early(const struct wm_final *final)
{
	return final->regs[1][FATE] && !final->regs[1][4];
}

static bool idle_and_right(const struct wm_final *final)
{
	return final->regs[1][FATE] && final->regs[1][4];
}

static bool not_idle(const struct wm_final *final)
{
	return !final->regs[1][FATE];
}

/* One callback is queued; the worker takes it and runs it, while somebody asks. */
static void idle(struct idle_how how)
{
	enum wm_order order = how.no_acquire ? WM_RELAXED : WM_ACQUIRE;
	struct wm_program *p;
	unsigned int first, second;

	model_init(&model);
	model.bad = (struct wm_outcome){"idle, and a callback has not run", idle_too_early};
	model.reached[0] = (struct wm_outcome){"idle", idle_and_right};
	model.reached[1] = (struct wm_outcome){"not idle", not_idle};
	model.loc_names[TAIL] = "cb_tail";
	model.loc_names[CB_BUSY] = "cb_busy";
	model.loc_names[RAN] = "what the callback does";
	model.init[TAIL] = 1;

	/* take_batch(): rest(), the exchange that empties the queue; run_batch(), rest(). */
	p = wm_thread(&model, "worker");
	wm_xchg(p, WM_NONE, CB_BUSY, 0, WM_FULL);
	wm_xchg(p, WM_NONE, CB_BUSY, 1, WM_FULL);
	wm_xchg(p, WM_NONE, TAIL, 0, WM_FULL);
	wm_store(p, RAN, 1, WM_RELAXED);
	if (how.clear_stores)
		wm_store(p, CB_BUSY, 0, WM_RELAXED);
	else
		wm_xchg(p, WM_NONE, CB_BUSY, 0, WM_FULL);

	p = wm_thread(&model, "asker");
	wm_keep(p, (uint16_t)(R(FATE) | R(4)));
	wm_set(p, FATE, 0);
	wm_op(p, WM_MB);
	wm_load(p, 0, how.busy_first ? CB_BUSY : TAIL, order);
	first = wm_branch(p, wm_ne(R(0), 0, 0));
	wm_load(p, 1, how.busy_first ? TAIL : CB_BUSY, order);
	second = wm_branch(p, wm_ne(R(1), 0, 0));
	wm_load(p, 4, RAN, WM_RELAXED);
	wm_op(p, WM_MB);
	wm_set(p, FATE, 1);
	wm_land(p, second);
	wm_land(p, first);
}

TEST(queue, idle)
{
	idle((struct idle_how){0});
	must_hold(&model, "idle?");
}

TEST(broken_queue, idle)
{
	idle((struct idle_how){.busy_first = true});
	must_break(&model, "cb_busy before the queue");
	idle((struct idle_how){.no_acquire = true});
	must_break(&model, "idle? without acquires");
	idle((struct idle_how){.clear_stores = true});
	must_break(&model, "cb_busy cleared by a relaxed store");
}
