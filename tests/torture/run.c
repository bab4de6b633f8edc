/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/torture/run.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void print_usage(const struct run *run, FILE *f)
{
	fprintf(f,
		"usage: %s [OPTION...]\n"
		"  --threads N    %s (default %d)\n"
		"  --seconds S    how long (default %d; 60 if GNOMON_TEST_LONG is set)\n",
		run->program, run->threads_are, run->threads, run->seconds);
	if (run->forks)
		fprintf(f, "  --forks N      fork N children meanwhile; each runs the same for a "
			   "second\n");
	fprintf(f,
		"  --seed N       of the threads' choices (default %lu)\n"
		"  --json FILE    the counts, for programs\n"
		"On a terminal it shows how it gets on. Exit code: 0, 1 if something went wrong, "
		"or never\n"
		"happened, 64 for bad usage, 73 if FILE cannot be written.\n",
		(unsigned long)run->seed);
}

static bool is_sane(const struct run *run)
{
	return run->threads >= 1 && run->threads <= RUN_MAX_THREADS && run->seconds >= 1 &&
	       run->children >= 0 && run->children <= (run->forks ? RUN_MAX_CHILDREN : 0);
}

int run_parse(struct run *run, int argc, char **argv)
{
	static const struct option options[] = {
		{"threads", 1, NULL, 't'}, {"seconds", 1, NULL, 's'}, {"forks", 1, NULL, 'f'},
		{"seed", 1, NULL, 'r'},	   {"json", 1, NULL, 'j'},    {"help", 0, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	const struct run defaults = *run;
	int c;

	if (getenv("GNOMON_TEST_LONG"))
		run->seconds = 60;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 't')
			run->threads = atoi(optarg);
		else if (c == 's')
			run->seconds = atoi(optarg);
		else if (c == 'f')
			run->children = atoi(optarg);
		else if (c == 'r')
			run->seed = strtoul(optarg, NULL, 0);
		else if (c == 'j')
			run->json = optarg;
		else
			break;
	}
	if (c == 'h')
		return print_usage(&defaults, stdout), 0;
	if (c == -1 && optind == argc && is_sane(run))
		return -1;
	print_usage(&defaults, stderr);
	return 64;
}

static long value(const atomic64_t *count)
{
	return (long)atomic64_read(count);
}

void run_progress(const struct run *run, uint64_t left_ns)
{
	static uint64_t last_shown = UINT64_MAX;

	if (!isatty(STDERR_FILENO) || last_shown / 1000000000 == left_ns / 1000000000)
		return;
	last_shown = left_ns;
	fprintf(stderr, "\r%3d s left: %ld %s, %ld %s, %ld errors ", (int)(left_ns / 1000000000),
		value(run->shown[0]), run->shown_as[0], value(run->shown[1]), run->shown_as[1],
		value(run->errors));
}

void run_progress_end(void)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%70s\r", "");
}

int run_report(const struct run *run, const char *who, enum run_need need)
{
	int status = value(run->errors) ? 1 : 0;

	printf("%s%d %s, %d s:", who, run->threads, run->threads_are, run->seconds);
	for (size_t i = 0; i < run->nr_counts; i++)
		printf("%s %s %ld", i ? "," : "", run->counts[i].name, value(run->counts[i].value));
	printf("\n");
	for (size_t i = 0; i < run->nr_counts; i++) {
		if (value(run->counts[i].value) || run->counts[i].need < need)
			continue;
		printf("%s%s never happened: this run shows nothing\n", who, run->counts[i].name);
		status = 1;
	}
	fflush(stdout);
	return status;
}

int run_json(const struct run *run)
{
	FILE *f;

	if (!run->json)
		return 0;
	f = fopen(run->json, "w");
	if (f) {
		fprintf(f, "{\"threads\": %d, \"seconds\": %d", run->threads, run->seconds);
		for (size_t i = 0; i < run->nr_counts; i++)
			fprintf(f, ", \"%s\": %ld", run->counts[i].name,
				value(run->counts[i].value));
		fprintf(f, "}\n");
	}
	if (f && !fclose(f))
		return 0;
	perror(run->json);
	return 73;
}
