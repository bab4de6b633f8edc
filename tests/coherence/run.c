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

/* Of all children that were not quiet. */
static struct report {
	uint64_t done[NR_OP_KINDS], count[NR_COUNTS];
} * report;

struct list list_create(int max)
{
	if (!report)
		report = shared_memory(sizeof(*report));
	return (struct list){.ops = shared_memory(max * sizeof(struct op)), .nr = max, .cpus = 1};
}

uint64_t run_count(enum count count)
{
	return report->count[count];
}

uint64_t run_count_op(enum op_kind kind)
{
	return report->done[kind];
}

static void count_all(struct world *w)
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
		report->done[i] += atomic64_read(&w->done[i]);
	report->count[COUNT_STORES] += atomic64_read(&w->stores);
	report->count[COUNT_FAULTS] += atomic64_read(&w->faults);
	report->count[COUNT_DEVICE] += atomic64_read(&w->device_accesses);
	report->count[COUNT_REFUSED] += atomic64_read(&w->refused);
	report->count[COUNT_EMULATED] += atomic64_read(&w->emulated);
	report->count[COUNT_LET_THROUGH] += atomic64_read(&w->let_through);
	report->count[COUNT_STALE] += atomic64_read(&w->stale);
	report->count[COUNT_INSIDE] += atomic64_read(&w->inside);
	report->count[COUNT_SWAPPED] += reclaim.swap_in;
	report->count[COUNT_MERGED] += ksm.pages_merged;
	report->count[COUNT_MIGRATED] += mm.pages_migrated;
	report->count[COUNT_UNSYNC] += shadow.unsync_made;
	report->count[COUNT_SYNCED] += shadow.synced;
	report->count[COUNT_RECYCLED] += shadow.pages_recycled;
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

struct run {
	struct list *list;
	const struct how *how;
};

static void run_body(const void *arg)
{
	const struct run *run = arg;
	const struct how *how = run->how;
	struct list *list = run->list;
	static struct world w;

	world_create(&w, list->cpus, how->broken, how->threads, how->audit, list->budget);
	if (how->threads)
		run_threads(&w, list->nr, how->seed);
	else
		run_program(&w, list, how);
	if (!how->quiet)
		count_all(&w);
	world_destroy(&w);
}

struct verdict run_list(struct list *list, const struct how *how)
{
	const struct run run = {list, how};
	const struct child_run in_child = {.name = "coherence",
					   .body = run_body,
					   .arg = &run,
					   .quiet = how->quiet,
					   .limit = how->limit};

	return child_run(&in_child);
}

/* ---- lists as text ---- */

void list_print(FILE *f, const struct list *list)
{
	fprintf(f, "cpus=%d budget=%lu\n", list->cpus, list->budget);
	for (int i = 0; i < list->nr; i++)
		op_print(f, &op_format, &list->ops[i]);
}

bool list_read(const char *path, struct list *list)
{
	char line[256];
	int max = 0;
	FILE *f = fopen(path, "r");

	if (!f)
		return perror(path), false;
	while (fgets(line, sizeof(line), f))
		max++;
	rewind(f);
	*list = list_create(max + 1);
	list->nr = 0;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || line[0] == '\n' ||
		    sscanf(line, "cpus=%d budget=%lu", &list->cpus, &list->budget) == 2)
			continue;
		if (!op_parse(line, &op_format, &list->ops[list->nr++])) {
			fprintf(stderr, "%s: no operation: %s", path, line);
			fclose(f);
			return false;
		}
	}
	fclose(f);
	return true;
}
