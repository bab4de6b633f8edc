// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The frame: options, the order in which samples are taken, and what is made of them. bench.h has
 * the rules. Nothing here knows what is measured.
 */
#include "tests/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

/* How often a disturbed sample is taken again. */
#define PATIENCE 20

static volatile sig_atomic_t interrupted;

static struct {
	unsigned int reps;
	unsigned int sample_us;
	const char *json;
	bool json_is_new; /* we made the file: remove it if there is nothing to put in */
	const char *only;
	regex_t only_regex;
	bool list;
	bool progress;
} opt = {.reps = 21, .sample_us = 1000};

static struct bench_report report;

bool bench_interrupted(void)
{
	return interrupted;
}

static void on_signal(int sig)
{
	interrupted = sig;
}

static void catch_signals(void)
{
	/* The second one ends the program whatever it does. */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* ---- what is wanted ---- */

static const struct bench_variant *variant_named(const struct bench *b, const char *name)
{
	for (size_t i = 0; i < b->nr_variants; i++)
		if (strcmp(b->variants[i].name, name) == 0)
			return &b->variants[i];
	return NULL;
}

static bool matches(const struct bench *b, const struct bench_variant *v)
{
	char name[256];

	if (!opt.only)
		return true;
	snprintf(name, sizeof(name), "%s/%u/%s", b->name, b->threads, v->name);
	return regexec(&opt.only_regex, name, 0, NULL, 0) == 0;
}

/* The variants to measure, each with its base: without that there would be no ratio. */
static size_t choose(const struct bench *b, bool *chosen)
{
	size_t nr = 0;

	memset(chosen, 0, b->nr_variants * sizeof(*chosen));
	for (size_t i = 0; i < b->nr_variants; i++) {
		const struct bench_variant *base = variant_named(b, b->variants[i].base);

		if (!matches(b, &b->variants[i]))
			continue;
		chosen[i] = true;
		if (base)
			chosen[base - b->variants] = true;
	}
	for (size_t i = 0; i < b->nr_variants; i++)
		nr += chosen[i];
	return nr;
}

/* ---- measuring ---- */

static int fail(const struct bench *b, const struct bench_variant *v, int err)
{
	fprintf(stderr, "bench: %s%s%s: %s\n", b->name, v ? ", " : "", v ? v->name : "",
		strerror(-err));
	return err;
}

static int take(const struct bench *b, const struct bench_variant *v, uint64_t n,
		struct bench_sample *s)
{
	int err = 0;

	for (int i = 0; i < PATIENCE && !interrupted; i++) {
		*s = (struct bench_sample){0};
		err = b->sample(b, v, n, s);
		if (err)
			return fail(b, v, err);
		if (!s->disturbed)
			break;
	}
	return 0;
}

/*
 * An n for samples of about the time that was asked for. Found by the slowest of three: some are
 * fast only because the partner was not running, and an n from those makes true samples so long
 * that the scheduler interrupts every one of them.
 */
static int calibrate(const struct bench *b, const struct bench_variant *v, uint64_t *n)
{
	double target = opt.sample_us * 1e3;

	*n = b->unit;
	while (*n < b->max && !interrupted) {
		double slowest = 1;
		double factor;

		for (int i = 0; i < 3 && !interrupted; i++) {
			struct bench_sample s;
			int err = take(b, v, *n, &s);

			if (err)
				return err;
			slowest = fmax(slowest, s.ns);
		}
		if (slowest >= target / 2)
			break;
		factor = fmax(2, fmin(8, target / slowest));
		*n = (uint64_t)((double)*n * factor) / b->unit * b->unit;
		if (*n > b->max)
			*n = b->max;
	}
	return 0;
}

static void progress(const struct bench *b, unsigned int rep)
{
	if (!opt.progress)
		return;
	if (b)
		fprintf(stderr, "\r\033[K%s, threads %u: %u of %u", b->name, b->threads, rep,
			opt.reps);
	else
		fprintf(stderr, "\r\033[K");
	fflush(stderr);
}

static void add_row(const struct bench *b, const struct bench_variant *v, double *ns, double *base,
		    unsigned int disturbed)
{
	struct bench_row row = {.bench = b, .variant = v, .disturbed = disturbed};
	size_t nr = opt.reps;
	double ratio[nr];

	/* Pairs first: finding a quantile sorts. */
	for (size_t i = 0; base && i < nr; i++)
		ratio[i] = ns[i] / base[i];
	row.ns = bench_quantile(ns, nr, 0.5);
	row.ns_low = bench_quantile(ns, nr, 0.25);
	row.ns_high = bench_quantile(ns, nr, 0.75);
	if (base) {
		row.ratio = bench_quantile(ratio, nr, 0.5);
		row.ratio_min = ratio[0];
		row.ratio_max = ratio[nr - 1];
		row.has_ratio = isfinite(row.ratio) && isfinite(row.ratio_max);
	}
	if (row.has_ratio && b->goal)
		row.goal = b->goal(b, v);
	report.rows[report.nr++] = row;
}

/* ns[i] has the repetitions of variant i, one after the other. */
static int repeat(const struct bench *b, const bool *chosen, double (*ns)[opt.reps],
		  unsigned int *disturbed)
{
	uint64_t n[b->nr_variants];
	struct bench_sample s;
	int err;

	for (size_t i = 0; i < b->nr_variants && !interrupted; i++) {
		err = chosen[i] ? calibrate(b, &b->variants[i], &n[i]) : 0;
		if (err)
			return err;
	}
	for (unsigned int rep = 0; rep < opt.reps && !interrupted; rep++) {
		progress(b, rep);
		for (size_t i = 0; i < b->nr_variants && !interrupted; i++) {
			/* Another one begins each time: none is always after the same one. */
			size_t k = (i + rep) % b->nr_variants;

			if (!chosen[k])
				continue;
			err = take(b, &b->variants[k], n[k], &s);
			if (err)
				return err;
			ns[k][rep] = s.ns / (double)n[k];
			disturbed[k] += s.disturbed;
		}
	}
	return 0;
}

static void add_rows(const struct bench *b, const bool *chosen, double (*ns)[opt.reps],
		     const unsigned int *disturbed)
{
	for (size_t i = 0; i < b->nr_variants; i++) {
		const struct bench_variant *base = variant_named(b, b->variants[i].base);
		double mine[opt.reps];

		if (!chosen[i])
			continue;
		memcpy(mine, ns[i], sizeof(mine));
		add_row(b, &b->variants[i], mine, base ? ns[base - b->variants] : NULL,
			disturbed[i]);
	}
}

static int run(const struct bench *b)
{
	unsigned int disturbed[b->nr_variants];
	bool chosen[b->nr_variants];
	const char *missing;
	double(*ns)[opt.reps];
	int err;

	if (!choose(b, chosen))
		return 0;
	if (bench_nr_cpus() < b->cpus) {
		fprintf(stderr, "bench: %s, threads %u: left out, it needs %u processors\n",
			b->name, b->threads, b->cpus);
		return 0;
	}
	missing = b->missing ? b->missing(b) : NULL;
	if (missing) {
		fprintf(stderr, "bench: %s, threads %u: left out: %s\n", b->name, b->threads,
			missing);
		return 0;
	}
	ns = calloc(b->nr_variants, sizeof(*ns));
	if (!ns)
		return fail(b, NULL, -ENOMEM);
	memset(disturbed, 0, sizeof(disturbed));
	progress(b, 0);
	err = b->setup ? b->setup(b) : 0;
	if (err) {
		free(ns);
		return fail(b, NULL, err);
	}
	err = repeat(b, chosen, ns, disturbed);
	if (b->teardown)
		b->teardown(b);
	progress(NULL, 0);
	/* A bench that was cut short has no medians. */
	if (!err && !interrupted) {
		size_t first = report.nr;

		add_rows(b, chosen, ns, disturbed);
		bench_report_table(&report, first);
	}
	free(ns);
	return err;
}

/* ---- the program ---- */

static const char usage_text[] =
	"  --json FILE     write the results as JSON too\n"
	"  --only REGEX    only what matches as BENCH/THREADS/VARIANT, and its base\n"
	"  --reps N        repetitions (21)\n"
	"  --sample-us N   time of one sample (1000)\n"
	"  --list          say what there is, and measure nothing\n"
	"  --help          this text\n"
	"\n"
	"Exit: 0 measured, 64 bad usage, 70 a benchmark failed, 73 FILE cannot be written,\n"
	"130 interrupted (benches that were complete are shown, FILE is not written).\n";

/* 0 if @text is no number in 1..max. */
static unsigned int number(const char *text, unsigned long max)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	return errno || *end || end == text || *text == '-' || n > max ? 0 : (unsigned int)n;
}

/* -1 to go on, or the exit code. */
static int parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", required_argument, NULL, 'j'},
		{"only", required_argument, NULL, 'o'},
		{"reps", required_argument, NULL, 'r'},
		{"sample-us", required_argument, NULL, 's'},
		{"list", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	bool good = true;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'j':
			opt.json = optarg;
			break;
		case 'o':
			opt.only = optarg;
			break;
		case 'r':
			opt.reps = number(optarg, 10000);
			break;
		case 's':
			opt.sample_us = number(optarg, 1000000);
			break;
		case 'l':
			opt.list = true;
			break;
		case 'h':
			printf("usage: %s [OPTION...]\n\n%s", program_invocation_short_name,
			       usage_text);
			return EX_OK;
		default:
			good = false;
		}
	}
	if (optind < argc || !opt.reps || !opt.sample_us) {
		fprintf(stderr, "bench: %s\n",
			optind < argc ? "takes options only" : "a number is out of range");
		good = false;
	}
	if (good && opt.only && regcomp(&opt.only_regex, opt.only, REG_EXTENDED | REG_NOSUB) != 0) {
		fprintf(stderr, "bench: '%s' is no regular expression\n", opt.only);
		good = false;
	}
	return good ? -1 : EX_USAGE;
}

/* Better to hear of it now than after the measuring. Does not touch a file that exists. */
static int probe_json(void)
{
	int fd = open(opt.json, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

	opt.json_is_new = fd >= 0;
	if (fd < 0 && errno == EEXIST)
		fd = open(opt.json, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "bench: %s: %s\n", opt.json, strerror(errno));
		return EX_CANTCREAT;
	}
	close(fd);
	return EX_OK;
}

static size_t count_chosen(const struct bench *benches, size_t nr, bool list)
{
	size_t sum = 0;

	for (size_t i = 0; i < nr; i++) {
		const struct bench *b = &benches[i];
		bool chosen[b->nr_variants];

		sum += choose(b, chosen);
		for (size_t k = 0; list && k < b->nr_variants; k++)
			if (chosen[k])
				printf("%s/%u/%s\n", b->name, b->threads, b->variants[k].name);
	}
	return sum;
}

static int measure(const struct bench *benches, size_t nr)
{
	int err = 0;

	bench_report_machine(&report);
	for (size_t i = 0; i < nr && !err && !interrupted; i++)
		err = run(&benches[i]);
	if (interrupted) {
		fprintf(stderr, "bench: interrupted\n");
		return 128 + interrupted;
	}
	if (err)
		return EX_SOFTWARE;
	bench_report_goals(&report);
	if (opt.json) {
		err = bench_report_json(&report, opt.json);
		if (err) {
			fprintf(stderr, "bench: %s: %s\n", opt.json, strerror(-err));
			return EX_CANTCREAT;
		}
		opt.json_is_new = false;
	}
	return fflush(stdout) == 0 ? EX_OK : EX_IOERR;
}

int bench_main(int argc, char **argv, const struct bench *benches, size_t nr)
{
	int status = parse(argc, argv);
	size_t chosen;

	if (status >= 0)
		return status;
	chosen = count_chosen(benches, nr, opt.list);
	if (!chosen)
		fprintf(stderr, "bench: nothing matches '%s' (--list)\n", opt.only);
	if (!chosen || opt.list)
		return chosen ? EX_OK : EX_USAGE;
	if (opt.json && (status = probe_json()) != EX_OK)
		return status;

	opt.progress = isatty(STDERR_FILENO);
	catch_signals();
	bench_nr_cpus(); /* before anything is pinned */
	report.reps = opt.reps;
	if (getloadavg(report.load, 3) != 3)
		memset(report.load, 0, sizeof(report.load));
	report.rows = calloc(chosen, sizeof(*report.rows));
	status = report.rows ? measure(benches, nr) : EX_OSERR;
	if (opt.json_is_new)
		unlink(opt.json);
	free(report.rows);
	return status;
}
