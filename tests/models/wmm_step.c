// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * One access of one thread, and what follows from it at once.
 *
 * Barriers, M and branches happen as soon as they can. That leaves out nothing: they change no
 * memory, and an M that begins early, cuts early and ends early only permits more. So accesses
 * alone are what an exploration has to choose from.
 */
#include <stdarg.h>

#include "tests/models/wmm_internal.h"
#include "tests/support/test.h"

static void set_reg(struct wm_state *s, unsigned int thread, unsigned int reg, uint64_t value)
{
	s->regs[thread] = (s->regs[thread] & ~(15ULL << 4 * reg)) | value << 4 * reg;
}

static void set_mem(struct wm_state *s, unsigned int loc, uint64_t value)
{
	if (value > 15)
		fail("a value is too large for a model");
	s->mem[loc / 16] =
		(s->mem[loc / 16] & ~(15ULL << 4 * (loc % 16))) | value << 4 * (loc % 16);
}

static unsigned int sum(const struct wm_state *s, unsigned int thread, uint16_t regs)
{
	unsigned int total = 0;

	wm_for_each_bit(r, regs) total += wm_reg(s, thread, r);
	return total;
}

static unsigned int evaluate(const struct wm_state *s, unsigned int thread,
			     const struct wm_value *value)
{
	return value->k + sum(s, thread, value->regs);
}

unsigned int wm_address(const struct wm_path *p, const struct wm_state *s, unsigned int thread,
			unsigned int i)
{
	const struct wm_insn *insn = &p->insn[i];

	return insn->loc + (insn->index == WM_NONE ? 0u : wm_reg(s, thread, insn->index) & 1u);
}

/*
 * What load @i finds, if nothing but its location is in the way: its own thread's last store that
 * is not in memory yet, or else what memory holds. False: it has to wait for one of its own
 * accesses. For other accesses, only whether they have to.
 */
static bool find(const struct wm_path *p, const struct wm_state *s, unsigned int thread,
		 unsigned int i, unsigned int *found)
{
	unsigned int loc = wm_address(p, s, thread, i), source = WM_INSNS;
	uint32_t done = s->done[thread];

	wm_for_each_bit(e, p->alias[i] & ~done)
	{
		const struct wm_insn *earlier = &p->insn[e];

		if (p->address[e] & ~done)
			return false;
		if (wm_address(p, s, thread, e) != loc)
			continue;
		if (p->insn[i].op != WM_LD || earlier->op != WM_ST || p->data[e] & ~done)
			return false;
		source = e;
	}
	*found = source == WM_INSNS ? wm_mem(s, loc) : evaluate(s, thread, &p->insn[source].value);
	return true;
}

bool wm_enabled(const struct wm_run *run, const struct wm_state *s, unsigned int thread,
		unsigned int i)
{
	const struct wm_path *p = wm_path_of(run, s, thread);
	unsigned int found;

	return !(p->before[i] & ~s->done[thread]) && find(p, s, thread, i, &found) &&
	       (!p->insn[i].await || found == p->insn[i].expected);
}

static void say(FILE *out, const struct wm_run *run, unsigned int thread, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* A column for each thread. */
static void say(FILE *out, const struct wm_run *run, unsigned int thread, const char *fmt, ...)
{
	va_list args;

	if (!out)
		return;
	fprintf(out, "%*s%s: ", (int)thread * 26, "", run->model->threads[thread].name);
	va_start(args, fmt);
	vfprintf(out, fmt, args);
	va_end(args);
	fputc('\n', out);
}

void wm_step(const struct wm_run *run, struct wm_state *s, unsigned int thread, unsigned int i,
	     FILE *out)
{
	static const char *const orders[] = {"", " acquire", " release", " full"};
	const struct wm_path *p = wm_path_of(run, s, thread);
	const struct wm_insn *insn = &p->insn[i];
	unsigned int loc = wm_address(p, s, thread, i), found = 0, value = 0;
	const char *name = run->model->loc_names[loc] ?: "?", *order = orders[insn->order];

	find(p, s, thread, i, &found);
	if (insn->op != WM_LD) {
		value = evaluate(s, thread, &insn->value) + (insn->op == WM_ADD ? found : 0);
		set_mem(s, loc, value);
	}
	if (insn->reg != WM_NONE)
		set_reg(s, thread, insn->reg, found);
	s->done[thread] |= 1u << i;

	if (insn->op == WM_LD)
		say(out, run, thread, "loads %s: %u%s", name, found, order);
	else if (insn->op == WM_ST)
		say(out, run, thread, "%s = %u%s", name, value, order);
	else
		say(out, run, thread, "%s %u -> %u%s", name, found, value, order);
}

/* ---- what follows ---- */

/* Is all done that stands before the last compiler barrier behind which anything is done? */
static bool can_be_cut(const struct wm_path *p, uint32_t done)
{
	uint32_t accesses = done & p->accesses;

	return !accesses || !(p->pre_cut[31 - __builtin_clz(accesses)] & ~done);
}

/* True once M is over. */
static bool heavy_barrier(const struct wm_run *run, struct wm_state *s, unsigned int thread,
			  FILE *out)
{
	unsigned int n = run->model->nr_threads;

	if (!s->cut[thread]) {
		s->cut[thread] = (uint8_t)(1u << thread);
		say(out, run, thread, "M begins");
	}
	for (unsigned int u = 0; u < n; u++) {
		if (s->cut[thread] >> u & 1 || !can_be_cut(wm_path_of(run, s, u), s->done[u]))
			continue;
		s->cut[thread] |= (uint8_t)(1u << u);
		say(out, run, u, "cut by M of %s", run->model->threads[thread].name);
	}
	if (s->cut[thread] != (1u << n) - 1)
		return false;
	s->cut[thread] = 0;
	say(out, run, thread, "M is over");
	return true;
}

static bool holds(const struct wm_state *s, unsigned int thread, const struct wm_cond *cond)
{
	return (sum(s, thread, cond->a) == sum(s, thread, cond->b) + cond->k) != cond->differ;
}

/* One thread as far as it goes. */
static bool settle_thread(const struct wm_run *run, struct wm_state *s, unsigned int thread,
			  FILE *out)
{
	const struct wm_path *p = wm_path_of(run, s, thread);

	/* In the order of the text, so that one turn is enough. */
	wm_for_each_bit(i, p->all & ~p->accesses & ~s->done[thread])
	{
		const struct wm_insn *insn = &p->insn[i];

		if (p->before[i] & ~s->done[thread])
			continue;
		if (insn->op == WM_ASSUME && !holds(s, thread, &insn->cond))
			return false;
		if (insn->op == WM_M && !heavy_barrier(run, s, thread, out))
			continue;
		if (insn->op == WM_SET)
			set_reg(s, thread, insn->reg, evaluate(s, thread, &insn->value));
		s->done[thread] |= 1u << i;
	}
	/* States that differ only in what nobody will look at are one. */
	wm_for_each_bit(r, p->forget) if (!(p->reg_uses[r] & ~s->done[thread]))
		set_reg(s, thread, r, 0);
	return true;
}

bool wm_settle(const struct wm_run *run, struct wm_state *s, FILE *out)
{
	/* A thread that goes on is not cut anywhere else by that: one turn is enough here, too. */
	for (unsigned int t = 0; t < run->model->nr_threads; t++)
		if (!settle_thread(run, s, t, out))
			return false;
	return true;
}
