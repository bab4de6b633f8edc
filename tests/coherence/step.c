/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread interleaves everybody: operation by operation, and where an operation says so in the
 * middle of another, at the points where the shadow MMU has let go of its lock and must look again.
 */
#include "tests/coherence/steps.h"

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "shadow/shadow_internal.h"

static bool by_cpu(const struct op *op)
{
	return op->kind <= OP_STATE;
}

static bool accesses(const struct op *op)
{
	return op->kind <= OP_EDIT;
}

static void apply(struct world *w, const struct op *op)
{
	uint64_t start = tick(w);

	if (by_cpu(op))
		apply_cpu(w, op, start);
	else
		apply_host(w, op);
	/* An access has looked. */
	if (!accesses(op))
		look(w, NULL, NULL, NULL);
	atomic64_inc(&w->done[op->kind]);
}

static struct op take_waiting(struct world *w)
{
	struct op op = w->waiting[0];

	w->nr_waiting--;
	for (int i = 0; i < w->nr_waiting; i++)
		w->waiting[i] = w->waiting[i + 1];
	return op;
}

/* May the first that waits happen at @point of what is under way? A CPU does one thing at a time.
 */
static bool fits(struct world *w, int point)
{
	const struct op *op = &w->waiting[0];

	return w->nr_waiting && op->inside == point && host_can(op) &&
	       !(by_cpu(op) && by_cpu(w->outer) && op->cpu == w->outer->cpu);
}

static void in_the_middle(struct world *w, int point)
{
	struct op *outer = w->outer;

	while (w->outer && fits(w, point)) {
		struct op op = take_waiting(w);

		w->outer = NULL;
		w->nested = true;
		apply(w, &op);
		w->outer = outer;
		atomic64_inc(&w->inside);
	}
}

#define POINT(n)                         \
	static void point_##n(void *arg) \
	{                                \
		in_the_middle(arg, n);   \
	}
POINT(1)
POINT(2)
POINT(3)
POINT(4)

void step_init(struct world *w)
{
	shadow_set_hook(w->g.shadow, SHADOW_HOOK_FAULT_BEFORE_WALK, point_1, w);
	shadow_set_hook(w->g.shadow, SHADOW_HOOK_WALK_BEFORE_MARK, point_2, w);
	shadow_set_hook(w->g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, point_3, w);
	shadow_set_hook(w->g.shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE, point_4, w);
}

static void do_one(struct world *w, const struct op *op)
{
	struct op copy = *op;
	char why[256];

	w->nested = false;
	w->outer = &copy;
	apply(w, &copy);
	w->outer = NULL;
	if (w->g.config.audit && shadow_audit(w->g.shadow, why, sizeof(why)))
		differ("audit: %s", why);
}

void step_last(struct world *w)
{
	while (w->nr_waiting) {
		struct op op = take_waiting(w);

		do_one(w, &op);
	}
}

void step(struct world *w, const struct op *op)
{
	if (op->kind >= NR_OP_KINDS || (by_cpu(op) && op->cpu >= (int)w->nr_cpus))
		return;
	if (op->inside && w->nr_waiting < MAX_WAITING) {
		w->waiting[w->nr_waiting++] = *op;
		return;
	}
	do_one(w, op);
	step_last(w);
}
