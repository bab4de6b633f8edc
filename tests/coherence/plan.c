/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is worth doing in a row: pieces of programs that chance would seldom make. Other operations
 * come in between, and the pieces know nothing of what they should lead to.
 */
#include "tests/coherence/generate.h"

static void plan(struct world *w, struct op op)
{
	if (w->planned < MAX_PLAN)
		w->plan[w->planned++] = op;
}

static void plan_flush(struct world *w, uint64_t *random, int cpu, int inside)
{
	struct op op = {.kind = OP_INVLPG, .cpu = cpu, .gva = w->hot, .inside = inside};
	unsigned int n = below(random, 4);

	if (n == 0)
		op = (struct op){.kind = OP_CR3,
				 .cpu = cpu,
				 .inside = inside,
				 .to = w->cpu[cpu].root,
				 .flags = (int)w->cpu[cpu].pcid};
	if (n == 1)
		op = (struct op){.kind = OP_INVPCID,
				 .cpu = cpu,
				 .inside = inside,
				 .gva = w->hot,
				 .how = below(random, 4),
				 .flags = (int)w->cpu[cpu].pcid};
	plan(w, op);
}

static const struct op other_view = {.kind = OP_STATE, .how = 7};

/* @cpu is in other address spaces, perhaps in more than it keeps the roots of. */
static void plan_hops(struct world *w, uint64_t *random, int cpu)
{
	int hops = below(random, 2) ? 1 : 6;

	for (int i = 0; i < hops; i++) {
		struct op load = {.kind = OP_CR3, .cpu = cpu, .how = 1};

		load.to = below(random, NR_ROOTS);
		load.flags = below(random, NR_PCIDS);
		plan(w, load);
	}
}

/* Use, edit, flush, use: edited by the same CPU or another, and flushed perhaps in another view, or
 * another address space. */
static void plan_edit(struct world *w, uint64_t *random)
{
	int cpu = below(random, w->nr_cpus), other = below(random, w->nr_cpus);
	struct op use = {.kind = below(random, 3) ? OP_LOAD : OP_STORE, .cpu = cpu, .gva = w->hot};
	struct op edit = {.kind = OP_EDIT, .cpu = other, .how = below(random, 4)};
	struct op back = {.kind = OP_CR3, .cpu = cpu, .to = w->cpu[cpu].root, .how = 1};
	struct op view = other_view;
	unsigned int away = below(random, 5);

	back.flags = (int)w->cpu[cpu].pcid;
	view.cpu = cpu;
	use.word = below(random, 4);
	some_entry(random, entry_of_gva(w, cpu, w->hot, 1 + below(random, 4), &edit), &edit);
	plan(w, use);
	if (away == 0)
		plan(w, view);
	if (away == 1)
		plan_hops(w, random, cpu);
	plan(w, edit);
	plan_flush(w, random, cpu, 0);
	if (away == 0)
		plan(w, view);
	if (away == 1)
		plan(w, back);
	plan(w, use);
}

/* The host takes a page away while a fault is about to map it. */
static void plan_race(struct world *w, uint64_t *random)
{
	static const int kinds[] = {OP_MIGRATE, OP_ZAP, OP_UNMAP, OP_PROTECT};
	int cpu = below(random, w->nr_cpus), page = page_of_gva(w, cpu, w->hot);
	struct op zap = {.kind = OP_ZAP, .page = page};
	struct op op = {.kind = kinds[below(random, 4)], .page = page};
	struct op use = {.cpu = cpu, .gva = w->hot, .word = below(random, 4)};

	if (page < 0)
		return;
	if (page < FIRST_SHARED)
		op.kind = OP_MIGRATE;
	op.inside = 1 + below(random, 3);
	use.kind = below(random, 2) ? OP_LOAD : OP_STORE;
	plan(w, zap);
	plan(w, op);
	plan(w, use);
}

/* Another CPU goes where @cpu is, edits what leads to the hot page while @cpu is in the middle of
 * something, and may flush as well. */
static int plan_edit_inside(struct world *w, uint64_t *random, int cpu, int inside, bool flush)
{
	int other = below(random, w->nr_cpus);
	struct op edit = {.kind = OP_EDIT, .cpu = other, .inside = inside, .how = below(random, 4)};
	int stop = below(random, 2) ? 1 : 2 + below(random, 3);

	some_entry(random, entry_of_gva(w, cpu, w->hot, stop, &edit), &edit);
	plan(w, edit);
	if (flush)
		plan_flush(w, random, other, inside);
	return other;
}

static void plan_edit_in_a_fault(struct world *w, uint64_t *random)
{
	int cpu = below(random, w->nr_cpus), page = page_of_gva(w, cpu, w->hot);
	struct op use = {.kind = below(random, 2) ? OP_LOAD : OP_STORE, .cpu = cpu, .gva = w->hot};
	struct op load = {.kind = OP_CR3, .to = w->cpu[cpu].root},
		  zap = {.kind = OP_ZAP, .page = page};
	int inside = 1 + below(random, 3);

	load.cpu = below(random, w->nr_cpus);
	plan(w, load);
	if (page >= 0)
		plan(w, zap);
	use.word = below(random, 4);
	load.cpu = plan_edit_inside(w, random, cpu, inside, true);
	plan(w, use);
	use.cpu = load.cpu;
	plan(w, use);
}

static void plan_edit_in_a_flush(struct world *w, uint64_t *random)
{
	int cpu = below(random, w->nr_cpus);
	struct op use = {.kind = OP_LOAD, .cpu = cpu, .gva = w->hot, .word = below(random, 4)};

	plan(w, use);
	plan_edit_inside(w, random, cpu, NR_INSIDE, below(random, 2));
	plan_flush(w, random, cpu, 0);
	plan_flush(w, random, cpu, 0);
	plan(w, use);
}

static void make_plan(struct world *w, uint64_t *random)
{
	w->planned = 0;
	w->hot = below(random, 4) ? (int)below(random, NR_WILD) : w->hot;
	switch (below(random, 6)) {
	case 0:
		plan_race(w, random);
		break;
	case 1:
		plan_edit_in_a_fault(w, random);
		break;
	case 2:
		plan_edit_in_a_flush(w, random);
		break;
	default:
		plan_edit(w, random);
		break;
	}
}

/* The next of the plan: true. */
bool planned(struct world *w, uint64_t *random, struct op *op)
{
	if (!w->planned && !below(random, 8))
		make_plan(w, random);
	if (!w->planned || !below(random, 6))
		return false;
	*op = w->plan[0];
	w->planned--;
	for (int i = 0; i < w->planned; i++)
		w->plan[i] = w->plan[i + 1];
	return true;
}
