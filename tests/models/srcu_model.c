// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Readers as the models have them, and the judgement of a model.
 */
#include "tests/models/srcu_model.h"

MODEL("[enter] [leave]", "notifier/include/gnomon/srcu_reader.h: srcu_read_lock, srcu_read_unlock");

void model_count(struct wm_program *p, uint8_t loc, uint8_t index, struct count_how how)
{
	enum wm_order locked = how.locked && !how.without_order ? WM_FULL : WM_RELAXED;

	/*
	 * One event also where it is not a locked instruction: nobody else writes to this thread's
	 * counts. (counts.c has a model of two instructions, for a number that changes hands.)
	 */
	if (!how.locked && !how.without_order)
		wm_op(p, WM_CB);
	wm_add_at(p, WM_NONE, loc, index, 1, locked);
	if (!how.locked && !how.without_order)
		wm_op(p, WM_CB);
}

void model_section(struct wm_program *p, unsigned int n, unsigned int slot, struct section_how how)
{
	uint8_t index = section_index(n), ptr = section_ptr(n), freed = section_freed(n);

	if (how.straggler)
		wm_set(p, index, (uint8_t)(how.straggler - 1));
	else
		wm_load(p, index, CUR, WM_RELAXED);
	model_count(p, lock_of(slot), index, how.lock);
	wm_load(p, ptr, PTR, WM_RELAXED);
	if (how.writes) {
		unsigned int unpublished = wm_branch(p, wm_ne((uint16_t)R(ptr), 0, 0));

		wm_store(p, FREED, 2, WM_RELAXED);
		wm_land(p, unpublished);
		wm_keep(p, (uint16_t)R(ptr));
	} else {
		/* No dependency on the pointer: weaker than any use of it. */
		wm_load(p, freed, FREED, WM_RELAXED);
		wm_keep(p, (uint16_t)(R(ptr) | R(freed)));
	}
	model_count(p, unlock_of(slot), index, how.unlock);
}

bool used_after_free(const struct wm_final *final)
{
	for (unsigned int t = 1; t < WM_THREADS; t++)
		for (unsigned int n = 0; n < 2; n++)
			if (!final->regs[t][section_ptr(n)] &&
			    final->regs[t][section_freed(n)] == 1)
				return true;
	/* A write that came after the free, which is a write of 1. */
	return final->mem[FREED] == 2;
}

void model_sum(struct wm_program *p, unsigned int reg, uint8_t loc)
{
	for (unsigned int slot = 0; slot < 2; slot++)
		wm_load(p, (uint8_t)(reg + slot), (uint8_t)(loc + lock_of(slot) - lock_of(0)),
			WM_RELAXED);
}

bool model_all_left(const struct wm_final *final)
{
	unsigned int inside = 0;

	for (unsigned int slot = 0; slot < SLOTS; slot++)
		for (unsigned int idx = 0; idx < 2; idx++)
			inside += final->mem[lock_of(slot) + idx] -
				  (unsigned int) final->mem[unlock_of(slot) + idx];
	return !inside;
}

/* ---- judgement ---- */

void model_init(struct wm_model *model)
{
	static char names[SLOTS * 4][16];
	static const char *const single[] = {"the pointer",  "the object",  "cur",     "gp_seq",
					     "gp_lock",	     "waiting",	    "waiters", "seq",
					     "worker_waits", "worker kick", "hi",      "number",
					     "flag",	     "flag2"};

	*model = (struct wm_model){0};
	for (unsigned int i = 0; i < sizeof(single) / sizeof(single[0]); i++)
		model->loc_names[i] = single[i];
	for (unsigned int i = 0; i < SLOTS * 4; i++) {
		snprintf(names[i], sizeof(names[i]), "%u.%s[%u]", i / 4,
			 i % 4 < 2 ? "lock" : "unlock", i % 2);
		model->loc_names[COUNTS + i] = names[i];
	}
	model->trace = stdout;
}

static struct wm_result run(struct wm_model *model, const char *name)
{
	struct wm_result result = wm_explore(model);

	printf("%s: %zu states, %zu ends, %zu outcomes, %zu bad\n", name, result.states,
	       result.finals, result.outcomes, result.bad);
	fflush(stdout);
	return result;
}

void must_hold(struct wm_model *model, const char *name)
{
	struct wm_result result = run(model, name);

	if (result.bad)
		fail("%s: %s in %zu ends", name, model->bad.name, result.bad);
	if (result.stuck)
		fail("%s: a thread waits for ever", name);
	for (unsigned int i = 0; i < WM_OUTCOMES; i++)
		if (model->reached[i].holds && !result.reached[i])
			fail("%s: never '%s': the model is silent", name, model->reached[i].name);
}

void must_break(struct wm_model *model, const char *name)
{
	model->to_first_bad = true;
	if (!run(model, name).bad)
		fail("broken, and the model does not see it: %s", name);
}
