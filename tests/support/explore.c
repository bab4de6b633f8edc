/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/explore.h"

#include <stdlib.h>
#include <time.h>

#define LIMIT 600 /* seconds for a round */

struct list list_create(const struct explorer *e, int max)
{
	return (struct list){.ops = shared_memory(max * e->format->size), .nr = max};
}

static struct op *nth(const struct explorer *e, const struct list *list, int i)
{
	return op_at(e->format, list->ops, i);
}

struct run {
	const struct explorer *e;
	struct list *list;
	const struct how *how;
};

static void run_in_child(const void *arg)
{
	const struct run *run = arg;

	run->e->run(run->list, run->how, run->e->setup);
}

struct verdict list_run(const struct explorer *e, struct list *list, const struct how *how)
{
	const struct run run = {e, list, how};
	const struct child_run child = {.name = e->name,
					.body = run_in_child,
					.arg = &run,
					.quiet = how->quiet,
					.limit = how->limit};

	return child_run(&child);
}

/* ---- lists as text ---- */

static void list_print(FILE *f, const struct explorer *e, const struct list *list)
{
	e->print_setup(f, e->setup);
	for (int i = 0; i < list->nr; i++)
		op_print(f, e->format, nth(e, list, i));
}

/* False: not such a file, which has been said. */
static bool list_read(const char *path, const struct explorer *e, struct list *list)
{
	char line[256];
	int max = 0;
	FILE *f = fopen(path, "r");

	if (!f)
		return perror(path), false;
	while (fgets(line, sizeof(line), f))
		max++;
	rewind(f);
	*list = list_create(e, max + 1);
	list->nr = 0;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || line[0] == '\n' || e->parse_setup(line, e->setup))
			continue;
		if (!op_parse(line, e->format, nth(e, list, list->nr++))) {
			fprintf(stderr, "%s: no operation: %s", path, line);
			fclose(f);
			return false;
		}
	}
	fclose(f);
	return true;
}

int replay(const struct explorer *e, const char *path)
{
	const struct how how = {.limit = LIMIT};
	struct verdict verdict;
	struct list list;

	if (!list_read(path, e, &list))
		return 1;
	verdict = list_run(e, &list, &how);
	if (verdict.failed)
		printf("%s: operation %d: %s\n", e->name, verdict.at + 1, verdict.what);
	else
		printf("%s: %d operations, no difference\n", e->name, list.nr);
	return verdict.failed;
}

/* ---- rounds ---- */

static int fail_with(const struct explorer *e, struct list *list, struct verdict *verdict,
		     uint64_t round)
{
	int before = list->nr, runs;

	printf("%s: round of seed %llu: ", e->name, (unsigned long long)round);
	if (e->describe) {
		e->describe(stdout, e->setup);
		printf(": %s\n", verdict->what);
		return 1;
	}
	printf("operation %d: %s\n", verdict->at + 1, verdict->what);
	fflush(stdout);
	runs = shrink(e, list, verdict);
	printf("%s: %d operations of %d are enough (found in %d runs): %s\n", e->name, list->nr,
	       before, runs, verdict->what);
	list_print(stdout, e, list);
	return 1;
}

static void report(const struct explorer *e, uint64_t steps, double seconds,
		   const struct tally *tally)
{
	printf("%s: %llu steps in %.1f s, no difference:", e->name, (unsigned long long)steps,
	       seconds);
	for (int kind = 0; kind < e->format->nr_kinds; kind++)
		printf(" %s %llu", e->format->kinds[kind], (unsigned long long)tally->done[kind]);
	for (int count = 0; count < e->nr_counts; count++)
		printf("%s %s %llu", count ? "," : ";", e->counts[count],
		       (unsigned long long)tally->count[count]);
	printf("\n");
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

int explore(const struct explorer *e, uint64_t steps, uint64_t seed)
{
	const struct tally tally = {.done = shared_memory(e->format->nr_kinds * sizeof(uint64_t)),
				    .count = shared_memory(e->nr_counts * sizeof(uint64_t))};
	struct list list = list_create(e, e->max_ops);
	double start = now();
	uint64_t done = 0;

	for (uint64_t round = seed; done < steps; round++) {
		const struct how how = {.generate = true,
					.seed = round * 0x2545f4914f6cdd1dULL,
					.limit = LIMIT,
					.tally = &tally};
		struct verdict verdict;

		list.nr = e->prepare(e->setup, round, steps - done);
		verdict = list_run(e, &list, &how);
		if (verdict.failed)
			return fail_with(e, &list, &verdict, round);
		done += list.nr;
	}
	report(e, done, now() - start, &tally);
	return e->floors(done, &tally);
}
