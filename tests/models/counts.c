// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Numbers of threads: a scan must know of a thread before that thread's first section matters to
 * it, and a number that changes hands must take its counts along.
 */
#include "tests/models/srcu_model.h"

static struct wm_model model;

/* ---- a new thread ---- */

MODEL("[register]", "notifier/srcu_slots.c: make_accessible, srcu_sum_unlocks, srcu_sum_locks");

struct register_how {
	bool hi_once;	   /* hi is loaded before M only */
	bool hi_late;	   /* the thread raises hi when its section has begun */
	bool hi_unordered; /* with nothing between that and its count, which come in any order */
	bool fence;	   /* in the place of M */
	bool shipped;	   /* with the barriers that [register] does not use */
};

/* Slot 0 is there from the beginning; slot 1 is the new thread's, and there once hi is 2. */
static void sum_below(struct wm_program *p, uint8_t hi, uint8_t reg, uint8_t loc)
{
	unsigned int none, end;

	wm_load(p, reg, loc, WM_RELAXED);
	none = wm_branch(p, wm_eq((uint16_t)R(hi), 0, 1));
	wm_load(p, (uint8_t)(reg + 1), (uint8_t)(loc + lock_of(1) - lock_of(0)), WM_RELAXED);
	end = wm_jump(p);
	wm_land(p, none);
	wm_set(p, (uint8_t)(reg + 1), 0);
	wm_land(p, end);
}

/* Registers 0, 1: hi. 2, 3: unlocks. 4, 5: locks. */
static void updater(struct register_how how)
{
	struct wm_program *p = wm_thread(&model, "updater");
	enum wm_order order = how.shipped ? WM_ACQUIRE : WM_RELAXED;
	uint8_t hi = how.hi_once ? 0 : 1;

	wm_store(p, PTR, 1, WM_RELAXED);
	/* srcu_snap(), or gp_seq made odd. */
	if (how.shipped)
		wm_add(p, WM_NONE, GP_SEQ, 0, WM_FULL);
	wm_load(p, 0, HI, order);
	sum_below(p, 0, 2, unlock_of(0));
	wm_op(p, how.fence ? WM_MB : WM_M);
	if (!how.hi_once)
		wm_load(p, 1, HI, order);
	sum_below(p, hi, 4, lock_of(0));
	wm_assume(p, wm_eq(R(2) | R(3), R(4) | R(5), 0));
	wm_store(p, FREED, 1, WM_RELAXED);
}

static void new_thread(struct register_how how)
{
	struct wm_program *p = wm_thread(&model, "new thread");
	uint8_t index = section_index(0);

	wm_set(p, index, 0);
	if (!how.hi_late)
		wm_add(p, WM_NONE, HI, 1, how.shipped ? WM_FULL : WM_RELAXED);
	if (!how.hi_unordered)
		wm_op(p, WM_CB);
	wm_add_at(p, WM_NONE, lock_of(1), index, 1, WM_RELAXED);
	wm_op(p, WM_CB);
	wm_load(p, section_ptr(0), PTR, WM_RELAXED);
	if (how.hi_late)
		wm_add(p, WM_NONE, HI, 1, WM_FULL);
	wm_load(p, section_freed(0), FREED, WM_RELAXED);
	wm_keep(p, (uint16_t)(R(section_ptr(0)) | R(section_freed(0))));
	model_count(p, unlock_of(1), index, (struct count_how){0});
}

static bool saw_old(const struct wm_final *final)
{
	return !final->regs[1][section_ptr(0)];
}

static bool saw_new(const struct wm_final *final)
{
	return final->regs[1][section_ptr(0)];
}

static void registers(struct register_how how, bool beside_another)
{
	model_init(&model);
	model.bad = (struct wm_outcome){"use after free", used_after_free};
	model.reached[0] = (struct wm_outcome){"its section saw the old pointer", saw_old};
	model.reached[1] = (struct wm_outcome){"its section saw it unpublished", saw_new};
	model.init[HI] = 1;
	updater(how);
	new_thread(how);
	if (beside_another)
		model_section(wm_thread(&model, "reader"), 0, 0,
			      (struct section_how){.straggler = 1});
}

TEST(numbers, new_thread)
{
	registers((struct register_how){0}, false);
	must_hold(&model, "a new thread");
	registers((struct register_how){0}, true);
	must_hold(&model, "a new thread beside another");
	registers((struct register_how){.shipped = true}, true);
	must_hold(&model, "a new thread beside another, with all barriers");
}

TEST(broken_numbers, new_thread)
{
	registers((struct register_how){.hi_once = true}, false);
	must_break(&model, "hi is loaded before M only");
	registers((struct register_how){.hi_late = true, .shipped = true}, false);
	must_break(&model, "hi is raised when the section has begun");
	registers((struct register_how){.fence = true}, false);
	must_break(&model, "a fence in the place of M");
}

/*
 * [register] needs M alone. As it is, hi is raised by a full barrier too, and loaded behind the one
 * of srcu_snap(): so a thread that the first load misses finds p unpublished. And of hi and the
 * count only both have to come before the section; that hi comes first is for the memory below it.
 */
TEST(spare_numbers, new_thread)
{
	registers((struct register_how){.hi_once = true, .shipped = true}, true);
	must_hold(&model, "hi is loaded before M only, but with all barriers");
	registers((struct register_how){.hi_unordered = true}, true);
	must_hold(&model, "hi and the count in any order");
}

/* ---- a number changes hands ---- */

MODEL("[number]", "notifier/srcu_slots.c: number_get, number_put, thread_ends");

/* Two instructions here: that is what a number with two owners would lose counts by. */
static void count(struct wm_program *p, uint8_t loc, uint8_t reg)
{
	wm_op(p, WM_CB);
	wm_load(p, reg, loc, WM_RELAXED);
	wm_store_sum(p, loc, 1, (uint16_t)R(reg));
	wm_op(p, WM_CB);
}

static bool count_is_lost(const struct wm_final *final)
{
	return final->mem[lock_of(1)] != 2 || final->mem[unlock_of(1)] != 2;
}

static bool all_counted(const struct wm_final *final)
{
	return !count_is_lost(final);
}

static void changes_hands(enum wm_order put, enum wm_order get)
{
	struct wm_program *p;

	model_init(&model);
	model.bad = (struct wm_outcome){"a count is lost", count_is_lost};
	model.reached[0] = (struct wm_outcome){"all are counted", all_counted};
	model.init[NUMBER_TAKEN] = 1;

	p = wm_thread(&model, "old owner");
	count(p, lock_of(1), 0);
	count(p, unlock_of(1), 1);
	wm_xchg(p, WM_NONE, NUMBER_TAKEN, 0, put);

	p = wm_thread(&model, "new owner");
	wm_insn(p, (struct wm_insn){.op = WM_XCHG,
				    .order = get,
				    .loc = NUMBER_TAKEN,
				    .index = WM_NONE,
				    .reg = WM_NONE,
				    .await = true,
				    .expected = 0,
				    .value = {.k = 1}});
	count(p, lock_of(1), 0);
	count(p, unlock_of(1), 1);
}

TEST(numbers, change_hands)
{
	changes_hands(WM_FULL, WM_FULL);
	must_hold(&model, "a number changes hands");
	changes_hands(WM_RELEASE, WM_ACQUIRE);
	must_hold(&model, "a number changes hands by release and acquire");
}

TEST(broken_numbers, change_hands)
{
	changes_hands(WM_RELAXED, WM_FULL);
	must_break(&model, "given back without a release");
	changes_hands(WM_FULL, WM_RELAXED);
	must_break(&model, "taken without an acquire");
}
