/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a torture with counts for an oracle shares with others: options, progress, the report, its
 * JSON. A run in which something never happened has failed, as it shows nothing.
 */
#ifndef TESTS_TORTURE_RUN_H
#define TESTS_TORTURE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "notifier/sync/atomic.h"

#define RUN_MAX_THREADS	 256
#define RUN_MAX_CHILDREN 64

/* What has to happen for a run to mean anything; in a child's second not every kind of it. */
enum run_need { NO_MATTER, NEEDED, NEEDED_BY_CHILDREN };

struct run_count {
	const char *name;
	const atomic64_t *value;
	enum run_need need;
};

struct run {
	const char *program, *threads_are; /* for --help, and the report */
	bool forks;			   /* has the option --forks */
	const struct run_count *counts;
	size_t nr_counts;
	const atomic64_t *errors;
	const atomic64_t *shown[2]; /* the counts that tell how it gets on, and their names */
	const char *shown_as[2];

	/* As on the command line. */
	int threads, seconds, children;
	uintptr_t seed;
	const char *json;
};

/* Fills in the options from the defaults in @run. -1: go on; else the exit code. */
int run_parse(struct run *run, int argc, char **argv);

/* One line on a terminal, now and then. */
void run_progress(const struct run *run, uint64_t left_ns);
void run_progress_end(void);

/* To stdout. The exit code: 0, or 1. */
int run_report(const struct run *run, const char *who, enum run_need need);
/* 0, or the exit code. Nothing is written if nobody asked. */
int run_json(const struct run *run);

#endif
