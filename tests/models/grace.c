// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A grace period: unpublish, scan, perhaps flip and scan again, free; against readers of every
 * kind. This is what all the rest is for.
 */
#include "tests/models/srcu_model.h"

MODEL("[count] [enter] [leave]",
      "notifier/srcu_gp.c: srcu_advance, scan_begin, scan_end; "
      "notifier/srcu_slots.c: srcu_sum_unlocks, srcu_sum_locks, srcu_heavy_barrier");

enum { NOTHING, FENCE, HEAVY };

/* The barriers of one scan. As shipped: unlocks; M; locks. */
struct scan_how {
	int before, between, after;
	bool locks_first;
};

static const struct scan_how shipped = {.between = HEAVY}, fallback = {.between = FENCE};

struct grace_how {
	struct scan_how first, second;
	bool no_confirm; /* after the flip */
	bool one_index;
};

static const struct grace_how grace_shipped = {.first = shipped, .second = shipped};
static const struct grace_how grace_fallback = {.first = fallback, .second = fallback};

static void barrier_of(struct wm_program *p, int kind)
{
	if (kind != NOTHING)
		wm_op(p, kind == HEAVY ? WM_M : WM_MB);
}

/* The registers of a scan: sums of slots 0 and 1, by index. */
static uint8_t sum_reg(unsigned int scan, bool locks, unsigned int idx, unsigned int slot)
{
	return (uint8_t)((scan ? 8u + locks * 2u : locks * 4u + idx * 2u) + slot);
}

static uint16_t sum_regs(unsigned int scan, bool locks, unsigned int idx, unsigned int slots)
{
	uint16_t regs = 0;

	for (unsigned int slot = 0; slot < slots; slot++)
		regs |= (uint16_t)R(sum_reg(scan, locks, idx, slot));
	return regs;
}

static void sum(struct wm_program *p, unsigned int scan, bool locks, unsigned int slots)
{
	/* The second scan has to see index 0 only. */
	for (unsigned int idx = 0; idx < (scan ? 1 : 2); idx++)
		for (unsigned int slot = 0; slot < slots; slot++)
			wm_load(p, sum_reg(scan, locks, idx, slot),
				(uint8_t)((locks ? lock_of(slot) : unlock_of(slot)) + idx),
				WM_RELAXED);
}

static void scan(struct wm_program *p, unsigned int n, struct scan_how how, unsigned int slots)
{
	barrier_of(p, how.before);
	sum(p, n, how.locks_first, slots);
	barrier_of(p, how.between);
	sum(p, n, !how.locks_first, slots);
	barrier_of(p, how.after);
}

static struct wm_cond empty(unsigned int scan, unsigned int idx, unsigned int slots)
{
	return wm_eq(sum_regs(scan, false, idx, slots), sum_regs(scan, true, idx, slots), 0);
}

static struct wm_cond busy(unsigned int scan, unsigned int idx, unsigned int slots)
{
	struct wm_cond cond = empty(scan, idx, slots);

	cond.differ = true;
	return cond;
}

#define FLIPPED 15

/*
 * srcu_advance(): the index that is not current, 1, has to be empty; if 0 is not, it becomes the
 * one that is not current, and is scanned again. Executions in which the updater would go on
 * waiting are not looked at: nothing is freed in them.
 */
static void updater(struct wm_model *model, struct grace_how how, unsigned int slots)
{
	struct wm_program *p = wm_thread(model, "updater");
	unsigned int done, flip;

	wm_keep(p, R(FLIPPED));
	wm_store(p, PTR, 1, WM_RELAXED);
	scan(p, 0, how.first, slots);
	if (!how.one_index)
		wm_assume(p, empty(0, 1, slots));
	flip = wm_branch(p, busy(0, 0, slots));
	wm_set(p, FLIPPED, 0);
	wm_store(p, FREED, 1, WM_RELAXED);
	done = wm_jump(p);
	wm_land(p, flip);
	wm_set(p, FLIPPED, 1);
	wm_store(p, CUR, 1, WM_RELAXED);
	if (!how.no_confirm) {
		scan(p, 1, how.second, slots);
		wm_assume(p, empty(1, 0, slots));
	}
	wm_store(p, FREED, 1, WM_RELAXED);
	wm_land(p, done);
}

static bool flipped(const struct wm_final *final)
{
	return final->regs[0][FLIPPED];
}

static bool passed_at_once(const struct wm_final *final)
{
	return !final->regs[0][FLIPPED];
}

static bool saw_old(const struct wm_final *final)
{
	return !final->regs[1][section_ptr(0)];
}

static bool saw_new(const struct wm_final *final)
{
	return final->regs[1][section_ptr(0)] && final->mem[FREED] == 1;
}

static struct wm_model model;

static void begin(struct grace_how how, unsigned int slots)
{
	model_init(&model);
	model.bad = (struct wm_outcome){"use after free", used_after_free};
	model.reached[0] = (struct wm_outcome){"the grace period ends at once", passed_at_once};
	model.reached[1] = (struct wm_outcome){"it ends after a flip", flipped};
	model.reached[2] = (struct wm_outcome){"a section saw the old pointer", saw_old};
	model.reached[3] = (struct wm_outcome){"a section saw it unpublished", saw_new};
	updater(&model, how, slots);
}

/* ---- readers ---- */

static void one_reader(struct grace_how how, struct section_how section)
{
	begin(how, 1);
	model_section(wm_thread(&model, "reader"), 0, 0, section);
}

static void two_sections(struct grace_how how, struct section_how first, struct section_how second)
{
	struct wm_program *p;

	begin(how, 1);
	p = wm_thread(&model, "reader");
	model_section(p, 0, 0, first);
	model_section(p, 1, 0, second);
}

static void two_readers(struct grace_how how, struct section_how a, struct section_how b)
{
	begin(how, 2);
	model_section(wm_thread(&model, "reader A"), 0, 0, a);
	model_section(wm_thread(&model, "reader B"), 0, 1, b);
}

static void two_sections_of(const char *name, unsigned int slot, struct section_how how)
{
	struct wm_program *p = wm_thread(&model, name);

	model_section(p, 0, slot, how);
	model_section(p, 1, slot, how);
}

/* One of the two saw the old pointer, which is the section's, and one of them its end. */
static bool handed_over_used_after_free(const struct wm_final *final)
{
	bool old = !final->regs[1][section_ptr(0)];

	return old && (final->regs[1][section_freed(0)] || final->regs[2][section_freed(0)]);
}

/* Reader A locks, reader B unlocks: srcu_down_read() and srcu_up_read(). */
static void handed_over(struct grace_how how, struct section_how section, enum wm_order release)
{
	uint8_t index = section_index(0);
	struct wm_program *p;

	begin(how, 2);
	p = wm_thread(&model, "reader A");
	wm_load(p, index, CUR, WM_RELAXED);
	model_count(p, lock_of(0), index, section.lock);
	wm_load(p, section_ptr(0), PTR, WM_RELAXED);
	wm_load(p, section_freed(0), FREED, WM_RELAXED);
	wm_keep(p, (uint16_t)(R(section_ptr(0)) | R(section_freed(0))));
	wm_store_sum(p, FLAG2, 0, (uint16_t)R(index));
	wm_store(p, FLAG, 1, release);

	p = wm_thread(&model, "reader B");
	wm_await(p, section_ptr(1), FLAG, 1, WM_ACQUIRE);
	wm_load(p, index, FLAG2, WM_RELAXED);
	wm_load(p, section_ptr(0), PTR, WM_RELAXED);
	wm_load(p, section_freed(0), FREED, WM_RELAXED);
	wm_keep(p, (uint16_t)(R(section_ptr(0)) | R(section_freed(0))));
	model_count(p, unlock_of(1), index, section.unlock);
	model.bad.holds = handed_over_used_after_free;
}

static const struct section_how plain;
static const struct section_how plain_writes = {.writes = true};
static const struct section_how old_0 = {.straggler = 1}, old_1 = {.straggler = 2};
static const struct section_how locked = {.lock = {.locked = true}, .unlock = {.locked = true}};
static const struct section_how locked_writes = {.lock = {.locked = true},
						 .unlock = {.locked = true},
						 .writes = true};
static const struct section_how locked_old_1 = {.lock = {.locked = true},
						.unlock = {.locked = true},
						.straggler = 2};
static const struct section_how ends_locked = {.unlock = {.locked = true}};

TEST(grace, one_reader)
{
	one_reader(grace_shipped, plain);
	must_hold(&model, "one reader");
	one_reader(grace_shipped, plain_writes);
	must_hold(&model, "one reader that writes");
	two_sections(grace_shipped, plain, plain);
	must_hold(&model, "one reader, two sections");
	two_sections(grace_shipped, plain_writes, plain);
	must_hold(&model, "one reader, two sections, the first one writes");
}

TEST(grace, two_readers)
{
	two_readers(grace_shipped, plain, plain);
	must_hold(&model, "two readers");
	two_readers(grace_shipped, plain_writes, plain);
	must_hold(&model, "two readers, one writes");
}

/*
 * Without any locked instruction these are ten million states and 1.5 GB, and hold: too much for
 * every day.
 */
TEST(grace, two_readers_two_sections)
{
	begin(grace_fallback, 2);
	two_sections_of("reader A", 0, locked);
	two_sections_of("reader B", 1, locked);
	must_hold(&model, "locked: two readers, two sections each");
	if (!test_long())
		return;
	begin(grace_shipped, 2);
	two_sections_of("reader A", 0, locked);
	two_sections_of("reader B", 1, plain);
	must_hold(&model, "mixed: two readers, two sections each");
}

/* They count now in the index that was current when they last looked, whenever that was. */
TEST(grace, stragglers)
{
	two_sections(grace_shipped, old_0, old_1);
	must_hold(&model, "one reader, two sections, both with an old cur");
	two_readers(grace_shipped, plain, old_0);
	must_hold(&model, "two readers, one with an old cur");
	two_readers(grace_shipped, plain, old_1);
	must_hold(&model, "two readers, one with a cur that is older still");
}

TEST(grace, handed_over)
{
	handed_over(grace_shipped, plain, WM_RELEASE);
	must_hold(&model, "handed over");
	handed_over(grace_fallback, locked, WM_RELEASE);
	must_hold(&model, "handed over, locked instructions");
}

/* No membarrier: every count is a locked instruction, and a fence does in the updater. */
TEST(grace, fallback)
{
	two_sections(grace_fallback, locked, locked);
	must_hold(&model, "locked instructions: two sections");
	two_readers(grace_fallback, locked, locked);
	must_hold(&model, "locked instructions: two readers");
	two_readers(grace_fallback, locked_writes, locked);
	must_hold(&model, "locked instructions: two readers, one writes");
	two_readers(grace_fallback, locked, locked_old_1);
	must_hold(&model, "locked instructions: two readers, one with an old cur");
}

/* A thread that has no number counts by locked instructions; the others do not. */
TEST(grace, mixed)
{
	two_readers(grace_shipped, locked, plain);
	must_hold(&model, "mixed: two readers");
	two_readers(grace_shipped, locked_writes, plain);
	must_hold(&model, "mixed: two readers, one writes");
	/* In a destructor: the lock with a number, the unlock without. */
	two_sections(grace_shipped, ends_locked, plain);
	must_hold(&model, "mixed: a section that loses its number");
}

/* ---- broken ---- */

static struct grace_how first_scan(struct scan_how how)
{
	return (struct grace_how){.first = how, .second = shipped};
}

static struct grace_how second_scan(struct scan_how how)
{
	return (struct grace_how){.first = shipped, .second = how};
}

TEST(broken_grace, barriers_of_the_scan)
{
	one_reader(first_scan((struct scan_how){.between = FENCE}), plain);
	must_break(&model, "a fence in the place of M");
	one_reader(first_scan((struct scan_how){0}), plain);
	must_break(&model, "no barrier at all");
	one_reader(first_scan((struct scan_how){.before = HEAVY}), plain);
	must_break(&model, "M before both sums");
	one_reader(first_scan((struct scan_how){.before = HEAVY, .between = FENCE}), plain);
	must_break(&model, "M before both sums, a fence between");
	one_reader(first_scan((struct scan_how){.after = HEAVY}), plain);
	must_break(&model, "M after both sums");
	two_readers(first_scan((struct scan_how){.before = HEAVY, .after = HEAVY}), plain, plain);
	must_break(&model, "M before and after the sums, nothing between");
	two_readers(first_scan((struct scan_how){.between = HEAVY, .locks_first = true}), plain,
		    plain);
	must_break(&model, "locks summed first");
}

TEST(broken_grace, flip)
{
	one_reader(second_scan((struct scan_how){.between = FENCE}), plain);
	must_break(&model, "a fence in the place of the second M");
	one_reader(second_scan((struct scan_how){0}), plain);
	must_break(&model, "no second M");
	one_reader((struct grace_how){.first = shipped, .no_confirm = true}, plain);
	must_break(&model, "the flip is not confirmed");
	one_reader((struct grace_how){.first = shipped, .second = shipped, .one_index = true},
		   old_1);
	must_break(&model, "only one index is looked at");
}

TEST(broken_grace, compiler_barriers)
{
	const struct count_how loose = {.without_order = true};

	one_reader(grace_shipped, (struct section_how){.lock = loose});
	must_break(&model, "[enter] no compiler barrier at the lock");
	one_reader(grace_shipped, (struct section_how){.unlock = loose});
	must_break(&model, "[leave] no compiler barrier at the unlock");
	one_reader(grace_shipped, (struct section_how){.unlock = loose, .writes = true});
	must_break(&model, "[leave] no compiler barrier at the unlock, after a write");
	two_sections(grace_shipped, (struct section_how){.lock = loose, .unlock = loose}, plain);
	must_break(&model, "[count] no compiler barrier in a section");
}

TEST(broken_grace, locked_instructions)
{
	const struct count_how relaxed = {.locked = true, .without_order = true};

	one_reader(first_scan((struct scan_how){0}), locked);
	must_break(&model, "locked instructions, no fence in the updater");
	one_reader(grace_fallback, plain);
	must_break(&model, "a fence in the updater, and no locked instructions");
	two_readers(grace_fallback, locked, plain);
	must_break(&model, "mixed readers with a fence");
	one_reader(grace_fallback,
		   (struct section_how){.lock = relaxed, .unlock = {.locked = true}});
	must_break(&model, "[enter] a locked lock that orders nothing");
	one_reader(grace_fallback,
		   (struct section_how){.lock = {.locked = true}, .unlock = relaxed});
	must_break(&model, "[leave] a locked unlock that orders nothing");
	two_readers((struct grace_how){.first = {.between = FENCE, .locks_first = true},
				       .second = fallback},
		    locked, locked);
	must_break(&model, "locked instructions, locks summed first");
}

TEST(broken_grace, handed_over)
{
	handed_over(grace_shipped, plain, WM_RELAXED);
	must_break(&model, "the cookie reaches the other thread without any order");
}
