// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A grace period with two drivers: what either saw empty since it began counts for both. An updater
 * begins it, sees the index that is not current empty, flips, and leaves; the worker sees the other
 * one empty, and ends it; the updater goes on by gp_seq alone.
 */
#include "tests/models/srcu_model.h"

MODEL("[count] [enter] [leave] [poll]",
      "notifier/srcu_gp.c: srcu_advance, srcu_scan_begin, srcu_scan_end, scan_end");

enum { NEED_0 = FLAG };

struct drivers_how {
	bool stale_need; /* broken: need is not set again when a grace period begins */
	bool no_order;	 /* broken: gp_seq is loaded and stored without any */
	int barrier;	 /* of the worker's scan, if it is not M */
};

static struct wm_model model;

/* Registers 0 to 3: sums of unlocks, of locks, of @idx. */
static void sum_index(struct wm_program *p, unsigned int idx, int barrier)
{
	model_sum(p, 0, (uint8_t)(unlock_of(0) + idx));
	wm_op(p, (enum wm_op)(barrier ?: WM_M));
	model_sum(p, 2, (uint8_t)(lock_of(0) + idx));
	wm_assume(p, wm_eq(R(0) | R(1), R(2) | R(3), 0));
}

/* Executions in which the other index is not seen busy, or this one not empty, are in grace.c. */
static void updater(struct drivers_how how)
{
	struct wm_program *p = wm_thread(&model, "updater");

	wm_store(p, PTR, 1, WM_RELAXED);
	wm_lock(p, GP_LOCK);
	wm_xchg(p, WM_NONE, GP_SEQ, 1, WM_FULL);
	if (!how.stale_need)
		wm_store(p, NEED_0, 1, WM_RELAXED);
	sum_index(p, 1, WM_M);
	wm_store(p, CUR, 1, WM_RELAXED);
	wm_unlock(p, GP_LOCK);
	wm_await(p, WM_NONE, GP_SEQ, 2, how.no_order ? WM_RELAXED : WM_ACQUIRE);
	wm_store(p, FREED, 1, WM_RELAXED);
	wm_load(p, 4, FLAG2, WM_RELAXED);
	wm_keep(p, R(4));
}

static void worker(struct drivers_how how)
{
	struct wm_program *p = wm_thread(&model, "worker");

	if (how.stale_need) {
		/* It saw the index empty before, in a grace period that is over. */
		sum_index(p, 0, WM_M);
		wm_op(p, WM_MB);
		wm_await(p, WM_NONE, GP_SEQ, 1, WM_RELAXED);
		wm_lock(p, GP_LOCK);
	} else {
		wm_lock(p, GP_LOCK);
		wm_load(p, 4, GP_SEQ, WM_RELAXED);
		wm_assume(p, wm_eq(R(4), 0, 1));
		wm_load(p, 5, NEED_0, WM_RELAXED);
		wm_assume(p, wm_eq(R(5), 0, 1));
		sum_index(p, 0, how.barrier);
	}
	wm_store(p, GP_SEQ, 2, how.no_order ? WM_RELAXED : WM_RELEASE);
	wm_unlock(p, GP_LOCK);
}

static void reader(const char *name, unsigned int slot, struct section_how how)
{
	struct wm_program *p = wm_thread(&model, name);
	uint8_t index = section_index(0);

	if (how.straggler)
		wm_set(p, index, (uint8_t)(how.straggler - 1));
	else
		wm_load(p, index, CUR, WM_RELAXED);
	model_count(p, lock_of(slot), index, how.lock);
	wm_load(p, section_ptr(0), PTR, WM_RELAXED);
	wm_load(p, section_freed(0), FREED, WM_RELAXED);
	wm_keep(p, (uint16_t)(R(section_ptr(0)) | R(section_freed(0))));
	if (!slot)
		wm_store(p, FLAG2, 1, WM_RELAXED);
	model_count(p, unlock_of(slot), index, how.unlock);
}

static bool saw_old(const struct wm_final *final)
{
	return !final->regs[2][section_ptr(0)];
}

static bool saw_new(const struct wm_final *final)
{
	return final->regs[2][section_ptr(0)];
}

/* Or, of the first reader, what the section did is not seen after the grace period. */
static bool used_or_missed(const struct wm_final *final)
{
	return used_after_free(final) || (saw_old(final) && !final->regs[0][4]);
}

static void drivers(struct drivers_how how)
{
	model_init(&model);
	model.bad = (struct wm_outcome){"the grace period is no good", used_or_missed};
	model.reached[0] = (struct wm_outcome){"a section saw the old pointer", saw_old};
	model.reached[1] = (struct wm_outcome){"a section saw it unpublished", saw_new};
	model.loc_names[NEED_0] = "need";
	model.loc_names[FLAG2] = "what the section did";
	updater(how);
	worker(how);
}

static const struct section_how plain, old_0 = {.straggler = 1}, old_1 = {.straggler = 2};

TEST(drivers, two)
{
	const struct drivers_how shipped = {0};

	drivers(shipped);
	reader("reader", 0, plain);
	must_hold(&model, "two drivers");
	drivers(shipped);
	reader("reader A", 0, plain);
	reader("reader B", 1, old_0);
	must_hold(&model, "two drivers, one with an old cur");
	drivers(shipped);
	reader("reader A", 0, plain);
	reader("reader B", 1, old_1);
	must_hold(&model, "two drivers, one with a cur that is older still");
}

TEST(broken_drivers, two)
{
	drivers((struct drivers_how){.stale_need = true});
	reader("reader", 0, plain);
	must_break(&model, "need is not set again");
	drivers((struct drivers_how){.barrier = WM_MB});
	reader("reader", 0, plain);
	must_break(&model, "a fence in the place of the worker's M");
	drivers((struct drivers_how){.no_order = true});
	reader("reader", 0, plain);
	must_break(&model, "gp_seq without order");
}
