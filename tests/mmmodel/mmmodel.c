/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random operations on several address spaces, forked from each other, against a model of them
 * (world.h). Rounds are of ROUND operations in a world of their own each; pools differ in size, and
 * the smallest runs out of frames all the time. A difference is shrunk to a short list of
 * operations, which --replay does again.
 */
#include <getopt.h>
#include <stdlib.h>

#include <gnomon/ksm.h>
#include <gnomon/swap.h>

#include "notifier/sync/util.h"
#include "tests/mmmodel/world.h"
#include "tests/support/explore.h"

#define ROUND	    5000
#define CHECK_EVERY 16

/* One thread: ThreadSanitizer makes it slow, and finds nothing. */
#ifdef GNOMON_TSAN
#define STEPS 25000
#else
#define STEPS 50000
#endif

struct setup {
	uint64_t nr_frames;
	bool swap;
	bool planted; /* world.h */
};

static const struct {
	uint64_t nr_frames;
	bool swap;
} pools[] = {{1024, false}, {96, false}, {64, true}, {320, false}, {160, true}};

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

static int prepare(struct setup *setup, uint64_t round, uint64_t left)
{
	(void)left;
	setup->nr_frames = pools[round % ARRAY_SIZE(pools)].nr_frames;
	setup->swap = pools[round % ARRAY_SIZE(pools)].swap;
	return ROUND;
}

static void print_setup(FILE *f, const struct setup *setup)
{
	fprintf(f, "frames=%llu swap=%d\n", (unsigned long long)setup->nr_frames, setup->swap);
}

static bool parse_setup(const char *line, struct setup *setup)
{
	unsigned long long nr_frames;
	int swap = setup->swap;

	if (sscanf(line, "frames=%llu swap=%d", &nr_frames, &swap) < 1)
		return false;
	setup->nr_frames = nr_frames;
	setup->swap = swap;
	return true;
}

/* ---- a run ---- */

enum count { COUNT_SWAPPED_IN, COUNT_GIVEN_UP, COUNT_MERGED, NR_COUNTS };
static const char *const count_names[NR_COUNTS] = {
	[COUNT_SWAPPED_IN] = "pages swapped in",
	[COUNT_GIVEN_UP] = "given up", /* after MM_MADV_FREE */
	[COUNT_MERGED] = "merged",
};

static void count_pages(const struct world *w, const struct tally *tally)
{
	struct reclaim_stats reclaim;
	struct ksm_stats ksm;

	phys_reclaim_stats(w->phys, &reclaim);
	ksm_get_stats(w->ksm, &ksm);
	tally->count[COUNT_SWAPPED_IN] += reclaim.swap_in;
	tally->count[COUNT_GIVEN_UP] += reclaim.lazyfreed;
	tally->count[COUNT_MERGED] += ksm.pages_merged;
}

/* What these leave behind is gone soon: so all is looked at at once. */
static bool is_seldom(enum op_kind kind)
{
	return kind == OP_FORK || kind == OP_PUNCH || kind == OP_SYNC || kind == OP_MSYNC ||
	       kind == OP_SOFT_CLEAR || kind == OP_RECLAIM || kind == OP_MERGE;
}

/* Operations between two looks at everything. A list that is to be shrunk is soon a short one. */
static int check_every(const struct list *list, const struct how *how)
{
	if (how->generate)
		return CHECK_EVERY;
	return how->quiet && list->nr > 2000 ? 64 : 1;
}

static void run(struct list *list, const struct how *how, const struct setup *setup)
{
	int every = check_every(list, how);
	uint64_t random = how->seed;
	static struct world w;

	world_create(&w, setup->nr_frames, setup->swap);
	w.planted = setup->planted;
	for (int i = 0; i < list->nr; i++) {
		child_is_at(i);
		if (how->generate)
			generate(&w, &random, &list->ops[i]);
		apply(&w, &list->ops[i]);
		check_frames_used(&w);
		if ((i + 1) % every == 0 || is_seldom(list->ops[i].kind))
			check_world(&w);
	}
	child_is_at(list->nr);
	if (how->tally)
		count_pages(&w, how->tally);
	/* By operations, too. */
	world_destroy(&w);
	for (int i = 0; i < NR_OP_KINDS && how->tally; i++)
		how->tally->done[i] += w.done[i];
}

static int floors(uint64_t steps, const struct tally *tally)
{
	int status = 0;

	/* Less is for playing with. */
	if (steps < ARRAY_SIZE(pools) * ROUND)
		return 0;
	for (int count = 0; count < NR_COUNTS; count++)
		status |= !tally->count[count];
	if (status)
		printf("mmmodel: nothing left memory: this run shows nothing\n");
	for (int kind = 0; kind < NR_OP_KINDS; kind++) {
		if (tally->done[kind])
			continue;
		printf("mmmodel: %s never happened: this run shows nothing\n", op_names[kind]);
		status = 1;
	}
	return status;
}

/* ---- all runs ---- */

static const struct simpler simpler[] = {{offsetof(struct op, skew), 0},
					 {offsetof(struct op, cut), 0},
					 {offsetof(struct op, value), 0},
					 {offsetof(struct op, object), 0},
					 {offsetof(struct op, nr), 1}};

static struct setup setup;
static const struct explorer explorer = {
	.name = "mmmodel",
	.format = &op_format,
	.max_ops = ROUND,
	.setup = &setup,
	.prepare = prepare,
	.run = run,
	.print_setup = print_setup,
	.parse_setup = parse_setup,
	.simpler = simpler,
	.nr_simpler = ARRAY_SIZE(simpler),
	.counts = count_names,
	.nr_counts = NR_COUNTS,
	.floors = floors,
};

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
			setup.planted = true;
		else
			return c == 'h' ? usage(stdout, 0) : usage(stderr, 64);
	}
	if (optind != argc || !steps)
		return usage(stderr, 64);
	return replayed ? replay(&explorer, replayed) : explore(&explorer, steps, seed);
}
