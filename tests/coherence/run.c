/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/coherence/run.h"

#include <gnomon/swap.h>

#include "tests/coherence/steps.h"
#include "tests/coherence/threads.h"

const char *const count_names[NR_COUNTS] = {
	[COUNT_STORES] = "stores landed", [COUNT_FAULTS] = "guest faults",
	[COUNT_DEVICE] = "of devices",	  [COUNT_REFUSED] = "refused by the host",
	[COUNT_EMULATED] = "emulated",	  [COUNT_LET_THROUGH] = "let through",
	[COUNT_STALE] = "stale",	  [COUNT_INSIDE] = "inside another",
	[COUNT_SWAPPED] = "swapped in",	  [COUNT_MERGED] = "merged",
	[COUNT_MIGRATED] = "migrated",	  [COUNT_UNSYNC] = "made unsync",
	[COUNT_SYNCED] = "synced",	  [COUNT_RECYCLED] = "recycled",
};

static void count_all(struct world *w, const struct tally *tally)
{
	struct shadow_stats shadow;
	struct reclaim_stats reclaim;
	struct ksm_stats ksm;
	struct mm_stats mm;

	shadow_get_stats(w->g.shadow, &shadow);
	phys_reclaim_stats(w->g.phys, &reclaim);
	ksm_get_stats(w->ksm, &ksm);
	mm_get_stats(w->g.mm, &mm);
	for (int i = 0; i < NR_OP_KINDS; i++)
		tally->done[i] += atomic64_read(&w->done[i]);
	tally->count[COUNT_STORES] += atomic64_read(&w->stores);
	tally->count[COUNT_FAULTS] += atomic64_read(&w->faults);
	tally->count[COUNT_DEVICE] += atomic64_read(&w->device_accesses);
	tally->count[COUNT_REFUSED] += atomic64_read(&w->refused);
	tally->count[COUNT_EMULATED] += atomic64_read(&w->emulated);
	tally->count[COUNT_LET_THROUGH] += atomic64_read(&w->let_through);
	tally->count[COUNT_STALE] += atomic64_read(&w->stale);
	tally->count[COUNT_INSIDE] += atomic64_read(&w->inside);
	tally->count[COUNT_SWAPPED] += reclaim.swap_in;
	tally->count[COUNT_MERGED] += ksm.pages_merged;
	tally->count[COUNT_MIGRATED] += mm.pages_migrated;
	tally->count[COUNT_UNSYNC] += shadow.unsync_made;
	tally->count[COUNT_SYNCED] += shadow.synced;
	tally->count[COUNT_RECYCLED] += shadow.pages_recycled;
}

static void run_program(struct world *w, struct list *list, const struct how *how)
{
	uint64_t random = how->seed;

	step_init(w);
	for (int i = 0; i < list->nr; i++) {
		child_is_at(i);
		if (how->generate)
			generate(w, &random, &list->ops[i]);
		step(w, &list->ops[i]);
	}
	child_is_at(list->nr);
	step_last(w);
}

void run(struct list *list, const struct how *how, const struct setup *setup)
{
	static struct world w;

	world_create(&w, setup->cpus, setup->broken, setup->threads, setup->audit, setup->budget);
	if (setup->threads)
		run_threads(&w, list->nr, how->seed);
	else
		run_program(&w, list, how);
	if (how->tally)
		count_all(&w, how->tally);
	world_destroy(&w);
}
