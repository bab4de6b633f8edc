// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Going to sleep for a reader: an updater or the worker arms the word that unlocks look at, scans,
 * and sleeps; the reader's unlock wakes it. Nothing must sleep on when everybody has left.
 */
#include "tests/models/srcu_model.h"

static struct wm_model model;

/* What became of the updater. */
enum { PASSED = 1, AGAIN, ASLEEP };

#define FATE 15 /* in this register */

/* ---- the updater's half ---- */

MODEL("[wake]", "notifier/srcu_gp.c: scan_begin, scan_end");

struct arm_how {
	int barrier;	 /* M, or a fence */
	bool stores;	 /* arms with a plain store, not an exchange */
	bool after_m;	 /* arms behind M */
	bool no_recheck; /* sleeps on the first sum of unlocks */
};

static const struct arm_how arm_shipped = {.barrier = WM_M}, arm_fallback = {.barrier = WM_MB};

static void arm(struct wm_program *p, struct arm_how how)
{
	if (how.stores)
		wm_store(p, WAITING, 1, WM_RELAXED);
	else
		wm_xchg(p, WM_NONE, WAITING, 1, WM_FULL);
}

/* Registers: sums of unlocks, of locks, of unlocks again. */
static void scan_begin(struct wm_program *p, struct arm_how how)
{
	if (!how.after_m)
		arm(p, how);
	model_sum(p, 0, unlock_of(0));
}

/* Leaves in FATE what it came to; two branches, to be landed where the others' ways end. */
static void scan_end(struct wm_program *p, struct arm_how how, unsigned int ends[2])
{
	unsigned int busy, blocked;

	model_sum(p, 2, lock_of(0));
	busy = wm_branch(p, wm_ne(R(0) | R(1), R(2) | R(3), 0));
	wm_set(p, FATE, PASSED);
	ends[0] = wm_jump(p);
	wm_land(p, busy);
	if (how.after_m)
		arm(p, how);
	if (!how.no_recheck) {
		model_sum(p, 4, unlock_of(0));
		blocked = wm_branch(p, wm_ne(R(4) | R(5), R(2) | R(3), 0));
		wm_set(p, FATE, AGAIN);
		ends[1] = wm_jump(p);
		wm_land(p, blocked);
	} else {
		ends[1] = ends[0];
	}
	wm_set(p, FATE, ASLEEP);
}

static void land_both(struct wm_program *p, const unsigned int ends[2])
{
	wm_land(p, ends[0]);
	wm_land(p, ends[1]);
}

/* ---- the reader's half ---- */

MODEL("[wake]", "notifier/include/gnomon/srcu_reader.h: srcu_read_unlock; "
		"notifier/srcu.c: leave, __srcu_wake");

struct wake_how {
	struct count_how count;
	bool looks_first; /* at the word, and counts then */
	bool tells_first; /* and disarms then */
};

/* How it tells: by the tail that a model gives. */
typedef void tell_fn(struct wm_program *p);

/* Register 0 and up are used by it, 8 and up by @tell. */
static void unlock(struct wm_program *p, unsigned int slot, struct wake_how how, tell_fn *tell)
{
	unsigned int nobody;

	if (how.looks_first)
		wm_load(p, 0, WAITING, WM_RELAXED);
	model_count(p, unlock_of(slot), WM_NONE, how.count);
	if (!how.looks_first)
		wm_load(p, 0, WAITING, WM_RELAXED);
	nobody = wm_branch(p, wm_eq(R(0), 0, 0));
	if (how.tells_first)
		tell(p);
	wm_xchg(p, WM_NONE, WAITING, 0, WM_FULL);
	if (!how.tells_first)
		tell(p);
	wm_land(p, nobody);
}

/* A section that was open when the model begins. */
static void leaves(const char *name, unsigned int slot, struct wake_how how, tell_fn *tell)
{
	model.init[lock_of(slot)]++;
	unlock(wm_thread(&model, name), slot, how, tell);
}

/* One that begins now, in the index that is not current. */
static void straggles(const char *name, unsigned int slot, struct wake_how how, tell_fn *tell)
{
	struct wm_program *p = wm_thread(&model, name);

	model_count(p, lock_of(slot), WM_NONE, how.count);
	unlock(p, slot, how, tell);
}

static const struct wake_how wake_shipped, wake_locked = {.count = {.locked = true}};

/* ---- the word alone ---- */

static void just_wake(struct wm_program *p)
{
	wm_add(p, WM_NONE, FLAG, 1, WM_RELAXED);
}

static bool lost(const struct wm_final *final)
{
	return final->regs[0][FATE] == ASLEEP && !final->mem[FLAG] && model_all_left(final);
}

static bool was_woken(const struct wm_final *final)
{
	return final->regs[0][FATE] == ASLEEP && final->mem[FLAG];
}

static bool passed(const struct wm_final *final)
{
	return final->regs[0][FATE] == PASSED;
}

static bool again(const struct wm_final *final)
{
	return final->regs[0][FATE] == AGAIN;
}

static bool woke_for_nothing(const struct wm_final *final)
{
	return final->regs[0][FATE] != ASLEEP && final->mem[FLAG];
}

static void word(struct arm_how how)
{
	struct wm_program *p;
	unsigned int ends[2];

	model_init(&model);
	model.bad = (struct wm_outcome){"asleep for ever", lost};
	model.reached[0] = (struct wm_outcome){"passed", passed};
	model.reached[1] = (struct wm_outcome){"woken", was_woken};
	model.reached[2] = (struct wm_outcome){"woken for nothing", woke_for_nothing};
	if (!how.no_recheck)
		model.reached[3] = (struct wm_outcome){"the second look finds it", again};
	p = wm_thread(&model, "updater");
	wm_keep(p, (uint16_t)R(FATE));
	scan_begin(p, how);
	wm_op(p, (enum wm_op)how.barrier);
	scan_end(p, how, ends);
	land_both(p, ends);
}

static void word_and_one(struct arm_how how, struct wake_how wake)
{
	word(how);
	leaves("reader", 0, wake, just_wake);
}

TEST(wake, word)
{
	word_and_one(arm_shipped, wake_shipped);
	must_hold(&model, "one reader leaves");
	word(arm_shipped);
	leaves("reader A", 0, wake_shipped, just_wake);
	leaves("reader B", 1, wake_shipped, just_wake);
	must_hold(&model, "two readers leave");
	word(arm_shipped);
	leaves("reader A", 0, wake_shipped, just_wake);
	straggles("reader B", 1, wake_shipped, just_wake);
	must_hold(&model, "one leaves, one comes late and leaves");
	word(arm_shipped);
	straggles("reader A", 0, wake_shipped, just_wake);
	straggles("reader B", 1, wake_shipped, just_wake);
	must_hold(&model, "two come late and leave");
}

TEST(wake, word_locked)
{
	word_and_one(arm_fallback, wake_locked);
	must_hold(&model, "locked: one reader leaves");
	word(arm_fallback);
	leaves("reader A", 0, wake_locked, just_wake);
	straggles("reader B", 1, wake_locked, just_wake);
	must_hold(&model, "locked: one leaves, one comes late and leaves");
	word(arm_shipped);
	leaves("reader A", 0, wake_locked, just_wake);
	straggles("reader B", 1, wake_shipped, just_wake);
	must_hold(&model, "mixed: one leaves, one comes late and leaves");
}

TEST(broken_wake, word)
{
	word_and_one((struct arm_how){.barrier = WM_MB}, wake_shipped);
	must_break(&model, "a fence in the place of M");
	word_and_one((struct arm_how){.barrier = WM_M, .after_m = true}, wake_shipped);
	must_break(&model, "armed after M");
	word_and_one((struct arm_how){.barrier = WM_M, .no_recheck = true}, wake_shipped);
	must_break(&model, "sleeps on the first sum of unlocks");
	word_and_one(arm_shipped, (struct wake_how){.looks_first = true});
	must_break(&model, "the unlock looks before it counts");
	word_and_one(arm_shipped, (struct wake_how){.count = {.without_order = true}});
	must_break(&model, "no compiler barrier after the unlock");
	word_and_one(arm_fallback,
		     (struct wake_how){.count = {.locked = true, .without_order = true}});
	must_break(&model, "locked, and orders nothing");
	word_and_one((struct arm_how){.barrier = WM_CB, .stores = true}, wake_locked);
	must_break(&model, "locked, no barrier in the updater");
}

/*
 * Not needed for [wake], as M comes between the store and all that counts: the exchange that arms
 * could be a store.
 */
TEST(spare_wake, exchange_that_arms)
{
	word((struct arm_how){.barrier = WM_M, .stores = true});
	leaves("reader A", 0, wake_shipped, just_wake);
	straggles("reader B", 1, wake_shipped, just_wake);
	must_hold(&model, "armed by a store");
}

/* ---- the whole of a synchronize_srcu() that sleeps ---- */

MODEL("[wake]", "notifier/srcu_gp.c: srcu_wait, srcu_tell_waiters; "
		"notifier/sync/wait.c: wait_prepare, wake_up_all");

/* wake_up_all() */
static void wake_up_all(struct wm_program *p)
{
	unsigned int nobody;

	wm_add(p, 8, Q_WAITERS, 0, WM_FULL);
	nobody = wm_branch(p, wm_eq(R(8), 0, 0));
	wm_add(p, WM_NONE, Q_SEQ, 1, WM_FULL);
	wm_land(p, nobody);
}

#define SEQ 14

static bool sleeps_on(const struct wm_final *final)
{
	return final->regs[0][FATE] == ASLEEP && final->mem[Q_SEQ] == final->regs[0][SEQ] &&
	       model_all_left(final);
}

static bool does_not_sleep(const struct wm_final *final)
{
	return final->regs[0][FATE] == ASLEEP && final->mem[Q_SEQ] != final->regs[0][SEQ];
}

static bool disarmed(const struct wm_final *final)
{
	return !final->mem[WAITING];
}

/* One turn of wait_event(); the word may be armed from the turn before. */
static void waits(struct arm_how how, bool was_armed)
{
	struct wm_program *p;
	unsigned int ends[2];

	model_init(&model);
	model.bad = (struct wm_outcome){"asleep for ever", sleeps_on};
	model.reached[0] = (struct wm_outcome){"passed", passed};
	model.reached[1] = (struct wm_outcome){"woken", does_not_sleep};
	model.reached[2] = (struct wm_outcome){"disarmed", disarmed};
	model.init[WAITING] = was_armed;
	p = wm_thread(&model, "updater");
	wm_keep(p, (uint16_t)(R(FATE) | R(SEQ)));
	wm_add(p, WM_NONE, Q_WAITERS, 1, WM_FULL);
	wm_load(p, SEQ, Q_SEQ, WM_ACQUIRE);
	scan_begin(p, how);
	wm_op(p, (enum wm_op)how.barrier);
	scan_end(p, how, ends);
	land_both(p, ends);
}

TEST(wake, wait_queue)
{
	for (int was_armed = 0; was_armed < 2; was_armed++) {
		waits(arm_shipped, was_armed);
		leaves("reader A", 0, wake_shipped, wake_up_all);
		leaves("reader B", 1, wake_shipped, wake_up_all);
		must_hold(&model, was_armed ? "two leave, armed before" : "two leave");
		waits(arm_shipped, was_armed);
		leaves("reader A", 0, wake_shipped, wake_up_all);
		straggles("reader B", 1, wake_shipped, wake_up_all);
		must_hold(&model, was_armed ? "one leaves, one comes late, armed before"
					    : "one leaves, one comes late");
		waits(arm_fallback, was_armed);
		leaves("reader A", 0, wake_locked, wake_up_all);
		straggles("reader B", 1, wake_locked, wake_up_all);
		must_hold(&model, was_armed ? "locked, armed before" : "locked");
	}
}

/* A disarms late what was armed again meanwhile: only B can wake the updater, and finds nothing. */
TEST(broken_wake, wait_queue)
{
	waits(arm_shipped, true);
	leaves("reader A", 0, (struct wake_how){.tells_first = true}, wake_up_all);
	leaves("reader B", 1, wake_shipped, wake_up_all);
	must_break(&model, "disarms after it told");
	waits((struct arm_how){.barrier = WM_M, .no_recheck = true}, false);
	leaves("reader A", 0, wake_shipped, wake_up_all);
	must_break(&model, "sleeps on the first sum of unlocks");
}
