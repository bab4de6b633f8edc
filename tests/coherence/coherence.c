/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random programs of guest table edits, flushes, accesses, device writes, slot changes and mm
 * mutations on 1 to 4 model CPUs: whatever an access comes to, some legal order must allow
 * (oracle.h).
 *
 * Without --threads one thread interleaves all by the seed; a program that fails is shrunk to a
 * short one, which --replay does again. With it each CPU has a thread, and so have those who change
 * the host and the slots.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/shadow.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/util.h"
#include "tests/coherence/run.h"

#define ROUND 2000

#ifdef GNOMON_TSAN
#define STEPS	       12000
#define STEPS_THREADED 16000
#else
#define STEPS	       24000
#define STEPS_THREADED 40000
#endif

static struct {
	uint64_t steps, seed;
	int cpus; /* 0: each round another number */
	bool threads;
	const char *replay;
	bool audit;
	unsigned int broken;
} opt = {.seed = 1, .audit = true};

static const struct {
	const char *name;
	unsigned int what;
} breaks[] = {{"zap", SHADOW_BREAK_ZAP},
	      {"shootdown", SHADOW_BREAK_SHOOTDOWN},
	      {"shootdown-wait", SHADOW_BREAK_SHOOTDOWN_WAIT},
	      {"retry", SHADOW_BREAK_RETRY},
	      {"retire", SHADOW_BREAK_RETIRE}};

static int usage(FILE *f, int status)
{
	fprintf(f,
		"usage: coherence [--steps N] [--cpus N] [--seed N] [--threads] [--no-audit]\n"
		"                 [--break WHAT] [--replay FILE]\n"
		"  --steps N      operations in all (default %d, or %d with threads; ten times "
		"that\n"
		"                 if GNOMON_TEST_LONG is set)\n"
		"  --cpus N       1 to 4 (default: another number each round)\n"
		"  --seed N       of the first round; later rounds count on from it (default 1)\n"
		"  --threads      each CPU has a thread\n"
		"  --no-audit     the oracle alone judges; with threads, but for one audit at the "
		"end\n"
		"  --break WHAT   without a protection: zap, shootdown, shootdown-wait, retry, "
		"retire\n"
		"  --replay FILE  a program, as it is printed when something differs\n"
		"Exit code: 0, 1 if anything differs, or never happened, 64 for bad usage.\n",
		STEPS, STEPS_THREADED);
	return status;
}

/* Every third round is short of pages. */
static int prepare(struct setup *setup, uint64_t round, uint64_t left)
{
	setup->cpus = opt.cpus ? opt.cpus : 1 + (int)(round % 4);
	setup->budget = round % 3 ? 0 : shadow_min_page_budget(4, setup->cpus) + round % 8;
	setup->threads = opt.threads;
	setup->audit = opt.audit && (!opt.threads || round % 2);
	return left < ROUND ? (int)left : ROUND;
}

static void print_setup(FILE *f, const struct setup *setup)
{
	fprintf(f, "cpus=%d budget=%lu\n", setup->cpus, setup->budget);
}

static bool parse_setup(const char *line, struct setup *setup)
{
	return sscanf(line, "cpus=%d budget=%lu", &setup->cpus, &setup->budget) == 2;
}

static void describe(FILE *f, const struct setup *setup)
{
	fprintf(f, "%d CPUs, budget %lu", setup->cpus, setup->budget);
}

/* What must happen in 10000 steps, at least; a quarter, or less, of what does. Of all else some, in
 * a run that is long enough. */
static const unsigned int least[NR_COUNTS] = {
	[COUNT_STORES] = 100, [COUNT_FAULTS] = 400,	[COUNT_DEVICE] = 200, [COUNT_EMULATED] = 60,
	[COUNT_STALE] = 5,    [COUNT_LET_THROUGH] = 60, [COUNT_SYNCED] = 100, [COUNT_UNSYNC] = 20,
};

/* Does it show anything? */
static int floors(uint64_t steps, const struct tally *tally)
{
	int status = 0;

	/* Less is for playing with. */
	if (steps < 12000)
		return 0;
	for (int kind = 0; kind < NR_OP_KINDS; kind++) {
		if (tally->done[kind] >= (kind <= OP_EDIT ? steps / 100 : 5))
			continue;
		printf("coherence: %s hardly happened: this run shows nothing\n", op_names[kind]);
		status = 1;
	}
	for (int count = 0; count < NR_COUNTS; count++) {
		if (tally->count[count] > steps * least[count] / 10000 ||
		    (opt.threads && count == COUNT_INSIDE) || (!least[count] && steps < 24000))
			continue;
		printf("coherence: hardly any %s: this run shows nothing\n", count_names[count]);
		status = 1;
	}
	return status;
}

static bool parse_break(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		if (!strcmp(name, breaks[i].name))
			opt.broken |= breaks[i].what;
	}
	return opt.broken;
}

/* What is left happens one after the other. */
static const struct simpler simpler[] = {{offsetof(struct op, inside), 0}};

static struct setup setup;
static struct explorer explorer = {
	.name = "coherence",
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
	static const struct option options[] = {
		{"steps", 1, NULL, 'n'},    {"cpus", 1, NULL, 'c'},    {"seed", 1, NULL, 's'},
		{"break", 1, NULL, 'b'},    {"threads", 0, NULL, 't'}, {"replay", 1, NULL, 'r'},
		{"no-audit", 0, NULL, 'a'}, {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0}};
	bool good = true;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			opt.steps = strtoull(optarg, NULL, 0);
		else if (c == 'c')
			opt.cpus = atoi(optarg);
		else if (c == 's')
			opt.seed = strtoull(optarg, NULL, 0);
		else if (c == 'a')
			opt.audit = false;
		else if (c == 't')
			opt.threads = true;
		else if (c == 'r')
			opt.replay = optarg;
		else if (c == 'b')
			good &= parse_break(optarg);
		else
			return c == 'h' ? usage(stdout, 0) : usage(stderr, 64);
	}
	if (optind != argc || opt.cpus < 0 || opt.cpus > 4 || !good)
		return usage(stderr, 64);
	if (!opt.steps)
		opt.steps = (opt.threads ? STEPS_THREADED : STEPS) *
			    (getenv("GNOMON_TEST_LONG") ? 10 : 1);
	setup = (struct setup){.cpus = 1, .audit = opt.audit, .broken = opt.broken};
	explorer.describe = opt.threads ? describe : NULL;
	return opt.replay ? replay(&explorer, opt.replay) : explore(&explorer, opt.steps, opt.seed);
}
