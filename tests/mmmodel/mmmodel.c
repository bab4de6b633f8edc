/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random operations on several address spaces, forked from each other, against a model of them
 * (world.h). Rounds are of ROUND operations in a world of their own each; pools differ in size, and
 * the smallest runs out of frames all the time. A difference is shrunk to a short list of
 * operations, which --replay does again.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "notifier/sync/util.h"
#include "tests/mmmodel/run.h"

#define ROUND	       5000
#define CHECK_EVERY    16
#define SHRINK_SECONDS 120

/* One thread: ThreadSanitizer makes it slow, and finds nothing. */
#ifdef GNOMON_TSAN
#define STEPS 25000
#else
#define STEPS 50000
#endif

static const struct {
	uint64_t nr_frames;
	bool swap;
} pools[] = {{1024, false}, {96, false}, {64, true}, {320, false}, {160, true}};

static bool planted;

static int usage(FILE *f, int status)
{
	fprintf(f,
		"usage: mmmodel [--steps N] [--seed N] [--replay FILE]\n"
		"  --steps N      operations in all (default 50000, or 25000 in tsan; 1000000 if "
		"GNOMON_TEST_LONG is "
		"set)\n"
		"  --seed N       of the first round; later rounds count on from it (default 1)\n"
		"  --replay FILE  a list of operations, as it is printed when something differs\n"
		"  --plant        the model is wrong on purpose, and must be found out\n"
		"Exit code: 0, 1 if anything differs, or never happened, 64 for bad usage.\n");
	return status;
}

static int fail_with(struct list *list, struct verdict *verdict, const char *where)
{
	int before = list->nr, runs;

	printf("mmmodel: %s: operation %d: %s\n", where, verdict->at + 1, verdict->what);
	fflush(stdout);
	runs = shrink(list, verdict, SHRINK_SECONDS, planted);
	printf("mmmodel: %d operations of %d are enough (found in %d runs): %s\n", list->nr, before,
	       runs, verdict->what);
	list_print(stdout, list);
	return 1;
}

static int replay(const char *path)
{
	const struct how how = {.check_every = 1, .limit = 600, .planted = planted};
	struct verdict verdict;
	struct list list;

	if (!list_read(path, &list))
		return 1;
	verdict = run_list(&list, &how);
	if (!verdict.failed) {
		printf("mmmodel: %d operations, no difference\n", list.nr);
		return 0;
	}
	printf("mmmodel: operation %d: %s\n", verdict.at + 1, verdict.what);
	return 1;
}

static int report(uint64_t steps, double seconds)
{
	int status = 0;

	printf("mmmodel: %llu steps in %.1f s, no difference:", (unsigned long long)steps, seconds);
	for (int kind = 0; kind < NR_OP_KINDS; kind++)
		printf(" %s %llu", op_names[kind], (unsigned long long)run_count(kind));
	printf("; pages swapped in %llu, given up %llu, merged %llu\n",
	       (unsigned long long)run_swapped_in(), (unsigned long long)run_given_up(),
	       (unsigned long long)run_merged());
	/* Less is for playing with. */
	if (steps < ARRAY_SIZE(pools) * ROUND)
		return 0;
	if (!run_swapped_in() || !run_given_up() || !run_merged()) {
		printf("mmmodel: nothing left memory: this run shows nothing\n");
		status = 1;
	}
	for (int kind = 0; kind < NR_OP_KINDS; kind++) {
		if (run_count(kind))
			continue;
		printf("mmmodel: %s never happened: this run shows nothing\n", op_names[kind]);
		status = 1;
	}
	return status;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static int explore(uint64_t steps, uint64_t seed)
{
	struct list list = list_create(ROUND, 0);
	double start = now();
	uint64_t done = 0;

	for (uint64_t round = 0; done < steps; round++) {
		const struct how how = {.generate = true,
					.seed = (seed + round) * 0x2545f4914f6cdd1dULL,
					.check_every = CHECK_EVERY,
					.limit = 600,
					.planted = planted};
		struct verdict verdict;
		char where[64];

		list.nr = ROUND;
		list.nr_frames = pools[(seed + round) % ARRAY_SIZE(pools)].nr_frames;
		list.swap = pools[(seed + round) % ARRAY_SIZE(pools)].swap;
		verdict = run_list(&list, &how);
		snprintf(where, sizeof(where), "round of seed %llu",
			 (unsigned long long)(seed + round));
		if (verdict.failed)
			return fail_with(&list, &verdict, where);
		done += ROUND;
	}
	return report(done, now() - start);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"steps", 1, NULL, 'n'},  {"seed", 1, NULL, 's'},
						{"replay", 1, NULL, 'r'}, {"plant", 0, NULL, 'p'},
						{"help", 0, NULL, 'h'},	  {NULL, 0, NULL, 0}};
	uint64_t steps = getenv("GNOMON_TEST_LONG") ? 1000000 : STEPS, seed = 1;
	const char *replayed = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			steps = strtoull(optarg, NULL, 0);
		else if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'r')
			replayed = optarg;
		else if (c == 'p')
			planted = true;
		else
			return c == 'h' ? usage(stdout, 0) : usage(stderr, 64);
	}
	if (optind != argc || !steps)
		return usage(stderr, 64);
	return replayed ? replay(replayed) : explore(steps, seed);
}
