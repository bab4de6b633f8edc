// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * From the text of a program to the paths through its branches, and the rules of wmm.h as sets of
 * instructions that must be done before another one.
 */
#include <string.h>

#include "tests/models/wmm_internal.h"
#include "tests/support/test.h"

struct wm_program *wm_thread(struct wm_model *model, const char *name)
{
	struct wm_program *p;

	if (model->nr_threads == WM_THREADS)
		fail("too many threads");
	p = &model->threads[model->nr_threads++];
	p->name = name;
	return p;
}

unsigned int wm_insn(struct wm_program *p, struct wm_insn insn)
{
	if (p->n == WM_TEXT)
		fail("%s: the text is too long", p->name);
	p->text[p->n] = insn;
	return p->n++;
}

/* ---- the rules ---- */

static bool is_barrier(const struct wm_insn *insn)
{
	return insn->op == WM_MB || insn->op == WM_M ||
	       (wm_is_access(insn) && insn->order == WM_FULL);
}

static unsigned int span(const struct wm_insn *insn)
{
	return insn->index == WM_NONE ? 1 : 2;
}

static bool may_be_same(const struct wm_insn *a, const struct wm_insn *b)
{
	return wm_is_access(a) && wm_is_access(b) && a->loc < b->loc + span(b) &&
	       b->loc < a->loc + span(a);
}

/* Must @a, which stands before @b, also happen before it, wherever they go? */
static bool ordered(const struct wm_insn *a, const struct wm_insn *b)
{
	bool decides = a->op == WM_ASSUME || a->await;

	if (is_barrier(b))
		return true;
	if (is_barrier(a))
		return wm_is_access(b);
	if (wm_is_write(b) && decides)
		return true;
	if (!wm_is_access(a) || !wm_is_access(b))
		return false;
	return a->order == WM_ACQUIRE || b->order == WM_RELEASE;
}

static uint16_t index_reg(const struct wm_insn *insn)
{
	return insn->index == WM_NONE ? 0 : (uint16_t)R(insn->index);
}

static uint16_t data_regs(const struct wm_insn *insn)
{
	return insn->value.regs | insn->cond.a | insn->cond.b;
}

/* The instructions before @j that last made each of the registers in @regs. */
static uint32_t makers(const struct wm_path *p, unsigned int j, uint16_t regs, const char *name)
{
	uint32_t found = 0;

	wm_for_each_bit(r, regs)
	{
		unsigned int i = j;

		while (i && p->insn[i - 1].reg != r)
			i--;
		if (!i)
			fail("%s: instruction %u uses register %u, which nobody made", name, j, r);
		found |= 1u << (i - 1);
	}
	return found;
}

/* A register may be made again, but only behind a barrier: a text has no register renaming. */
static void check_reuse(const struct wm_path *p, unsigned int j, const char *name)
{
	uint8_t reg = p->insn[j].reg;

	if (reg == WM_NONE || is_barrier(&p->insn[j]))
		return;
	for (unsigned int i = j; i--;) {
		const struct wm_insn *insn = &p->insn[i];

		if (is_barrier(insn))
			return;
		if (insn->reg == reg || (index_reg(insn) | data_regs(insn)) & R(reg))
			fail("%s: register %u is made again too soon", name, reg);
	}
}

static void find_rules(struct wm_path *p, const char *name)
{
	for (unsigned int j = 0; j < p->n; j++) {
		const struct wm_insn *insn = &p->insn[j];

		check_reuse(p, j, name);
		p->address[j] = makers(p, j, index_reg(insn), name);
		p->data[j] = makers(p, j, data_regs(insn), name);
		p->before[j] = p->address[j] | p->data[j];
		for (unsigned int i = 0; i < j; i++) {
			if (ordered(&p->insn[i], insn))
				p->before[j] |= 1u << i;
			if (may_be_same(&p->insn[i], insn))
				p->alias[j] |= 1u << i;
		}
		wm_for_each_bit(r, index_reg(insn) | data_regs(insn)) p->reg_uses[r] |= 1u << j;
		p->all |= 1u << j;
		if (!wm_is_access(insn))
			continue;
		p->accesses |= 1u << j;
		for (unsigned int loc = insn->loc; loc < insn->loc + span(insn); loc++) {
			p->touches[loc] |= 1u << j;
			if (wm_is_write(insn))
				p->writes[loc] |= 1u << j;
		}
	}
}

/* ---- the paths ---- */

struct walk {
	const struct wm_program *program;
	struct wm_path *paths;
	unsigned int n;
	uint32_t pre_cut; /* the accesses before the last compiler barrier */
};

static void append(struct walk *w, struct wm_path *p, const struct wm_insn *insn)
{
	if (p->n == WM_INSNS)
		fail("%s: a path is too long", w->program->name);
	p->pre_cut[p->n] = w->pre_cut;
	p->insn[p->n++] = *insn;
}

static uint32_t accesses_so_far(const struct wm_path *p)
{
	uint32_t found = 0;

	for (unsigned int i = 0; i < p->n; i++)
		if (wm_is_access(&p->insn[i]))
			found |= 1u << i;
	return found;
}

/* @so_far is the path up to @pc. */
static void walk(struct walk *w, struct wm_path so_far, unsigned int pc)
{
	const struct wm_program *program = w->program;

	for (; pc < program->n; pc++) {
		struct wm_insn insn = program->text[pc];

		if (insn.op == WM_BRANCH) {
			struct wm_path taken = so_far;
			struct walk saved;

			if (insn.target <= pc)
				fail("%s: a branch that leads nowhere", program->name);
			/* wm_jump() */
			if (!insn.cond.a && !insn.cond.b) {
				pc = insn.target - 1u;
				continue;
			}
			insn.op = WM_ASSUME;
			append(w, &taken, &insn);
			saved = *w;
			walk(w, taken, insn.target);
			w->pre_cut = saved.pre_cut;
			insn.cond.differ = !insn.cond.differ;
		} else if (insn.op == WM_CB) {
			w->pre_cut = accesses_so_far(&so_far);
			continue;
		}
		append(w, &so_far, &insn);
	}
	if (w->n == WM_PATHS)
		fail("%s: too many paths", program->name);
	for (unsigned int r = 0; r < WM_REGS; r++)
		if (!(program->keep & R(r)))
			so_far.forget |= (uint16_t)R(r);
	w->paths[w->n++] = so_far;
}

void wm_make_paths(const struct wm_model *model, struct wm_paths *paths)
{
	memset(paths, 0, sizeof(*paths));
	for (unsigned int t = 0; t < model->nr_threads; t++) {
		struct walk w = {.program = &model->threads[t], .paths = paths->path[t]};

		walk(&w, (struct wm_path){0}, 0);
		paths->n[t] = w.n;
		for (unsigned int i = 0; i < w.n; i++)
			find_rules(&paths->path[t][i], model->threads[t].name);
	}
}
