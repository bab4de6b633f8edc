/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/mmmodel/run.h"

#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "tests/mmmodel/world.h"

/* Of all children that were not quiet. */
static struct report {
	uint64_t done[NR_OP_KINDS];
	uint64_t swapped_in, given_up, merged;
} * report;

uint64_t run_swapped_in(void)
{
	return report->swapped_in;
}

uint64_t run_given_up(void)
{
	return report->given_up;
}

uint64_t run_merged(void)
{
	return report->merged;
}

struct list list_create(int max, uint64_t nr_frames)
{
	if (!report)
		report = shared_memory(sizeof(*report));
	return (struct list){.ops = shared_memory(max * sizeof(struct op)),
			     .nr = max,
			     .nr_frames = nr_frames};
}

uint64_t run_count(enum op_kind kind)
{
	return report->done[kind];
}

/* What these leave behind is gone soon: so all is looked at at once. */
static bool is_seldom(enum op_kind kind)
{
	return kind == OP_FORK || kind == OP_PUNCH || kind == OP_SYNC || kind == OP_MSYNC ||
	       kind == OP_SOFT_CLEAR || kind == OP_RECLAIM || kind == OP_MERGE;
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
	struct reclaim_stats stats;
	struct ksm_stats ksm_stats;
	static struct world w;
	uint64_t random = how->seed;

	world_create(&w, list->nr_frames, list->swap);
	w.planted = how->planted;
	for (int i = 0; i < list->nr; i++) {
		child_is_at(i);
		if (how->generate)
			generate(&w, &random, &list->ops[i]);
		apply(&w, &list->ops[i]);
		check_frames_used(&w);
		if ((i + 1) % how->check_every == 0 || is_seldom(list->ops[i].kind))
			check_world(&w);
	}
	child_is_at(list->nr);
	phys_reclaim_stats(w.phys, &stats);
	ksm_get_stats(w.ksm, &ksm_stats);
	world_destroy(&w);
	if (!how->quiet) {
		report->swapped_in += stats.swap_in;
		report->given_up += stats.lazyfreed;
		report->merged += ksm_stats.pages_merged;
	}
	for (int i = 0; i < NR_OP_KINDS && !how->quiet; i++)
		report->done[i] += w.done[i];
}

struct verdict run_list(struct list *list, const struct how *how)
{
	const struct run run = {list, how};
	const struct child_run in_child = {.name = "mmmodel",
					   .body = run_body,
					   .arg = &run,
					   .quiet = how->quiet,
					   .limit = how->limit};

	return child_run(&in_child);
}

/* ---- lists as text ---- */

void list_print(FILE *f, const struct list *list)
{
	fprintf(f, "frames=%llu swap=%d\n", (unsigned long long)list->nr_frames, list->swap);
	for (int i = 0; i < list->nr; i++)
		op_print(f, &op_format, &list->ops[i]);
}

bool list_read(const char *path, struct list *list)
{
	unsigned long long nr_frames;
	int swap = 0;
	char line[256];
	int max = 0;
	FILE *f = fopen(path, "r");

	if (!f)
		return perror(path), false;
	while (fgets(line, sizeof(line), f))
		max++;
	rewind(f);
	*list = list_create(max + 1, 0);
	list->nr = 0;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line, "frames=%llu swap=%d", &nr_frames, &swap) >= 1) {
			list->nr_frames = nr_frames;
			list->swap = swap;
		} else if (!op_parse(line, &op_format, &list->ops[list->nr++])) {
			fprintf(stderr, "%s: no operation: %s", path, line);
			fclose(f);
			return false;
		}
	}
	fclose(f);
	return true;
}
