/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frame of every benchmark (docs/bench.md): a program fills in an array of struct bench and
 * calls bench_main(). Rules of the frame:
 *
 *   1. A repetition measures every variant of a bench once, one after the other. What the machine
 *      does meanwhile (other load, another clock rate) then meets all of them alike.
 *   2. A ratio is made within one repetition; the median of these ratios is reported. Two medians
 *      are never divided.
 *   3. A sample that was interrupted by the scheduler is thrown away and taken again, as long as
 *      patience lasts. What is left of them is told.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#endif

/* What a loop needs around its body so that the compiler keeps it. No instruction. */
#define bench_barrier() __asm__ __volatile__("" ::: "memory")

struct bench_sample {
	double ns;	/* for all n operations; bytes, if the bench is of those */
	bool disturbed; /* somebody else had the CPU, or the partner did not run */
};

struct bench_variant {
	const char *name;
	const char *base; /* the variant that this one is divided by */
	const void *arg;
};

struct bench {
	const char *name; /* of the rows: srcu_read_pair */
	const char *what; /* what one operation is, for people */
	unsigned int threads;
	unsigned int cpus; /* how many it must have for itself; 0 is 1 */
	uint64_t unit;	   /* n is a multiple of this */
	uint64_t max;	   /* and at most this; equal to unit: n is always that */
	bool bytes;	   /* what is measured: memory, not time */
	const void *arg;
	const struct bench_variant *variants;
	size_t nr_variants;

	/* What it needs and this machine has not, in a line; NULL: nothing. May itself be NULL. */
	const char *(*missing)(const struct bench *b);
	/* What all samples share; either may be NULL. 0 or -errno. */
	int (*setup)(const struct bench *b);
	void (*teardown)(const struct bench *b);
	/* Measure @n operations of @v. 0, or -errno: the program then ends. */
	int (*sample)(const struct bench *b, const struct bench_variant *v, uint64_t n,
		      struct bench_sample *s);
	/* What the ratio of @v is to be at most; 0: it has no goal. NULL: none has. */
	double (*goal)(const struct bench *b, const struct bench_variant *v);
};

/* All of main(): options, measuring, table, JSON. Returns the exit code. */
int bench_main(int argc, char **argv, const struct bench *benches, size_t nr);

/* Ctrl-C was pressed. A sample that can take long looks at this, and may return any value then. */
bool bench_interrupted(void);

/* ---- bench_time.c: clocks, processors, threads ---- */

struct bench_timer {
	clockid_t clock;
	uint64_t start;
	long switches;
};

uint64_t bench_now(clockid_t clock);

/*
 * CLOCK_THREAD_CPUTIME_ID for what never blocks: it does not count what others did with the CPU.
 * CLOCK_MONOTONIC where waiting is the cost. Both ends on the same thread.
 */
void bench_start(struct bench_timer *t, clockid_t clock);
void bench_stop(const struct bench_timer *t, struct bench_sample *s);

/* The processors that this process may use, from 0. */
unsigned int bench_nr_cpus(void);
/* Bind the calling thread to one of them, or to all again. Threads inherit the binding. */
void bench_pin(unsigned int cpu);
void bench_unpin(void);

/* Like pthread_create, with a small stack. 0 or -errno. */
int bench_thread(pthread_t *thread, void *(*fn)(void *arg), void *arg);

/* What bench_parallel() runs on each thread. enter and leave are not timed. */
struct bench_job {
	void (*enter)(void);
	void (*loop)(uint64_t n);
	void (*leave)(void);
	clockid_t clock;
	uint64_t unit;
};

/*
 * @nr threads run @job->loop(@n) at the same time, each on a processor of its own. Who is done
 * first goes on, unmeasured, so that nobody is ever measured alone. The mean of the threads.
 */
int bench_parallel(const struct bench_job *job, unsigned int nr, uint64_t n,
		   struct bench_sample *s);

/* ---- bench_report.c: numbers in, tables and JSON out ---- */

/* Sorts @v. @q in 0..1; between two values, in proportion. */
double bench_quantile(double *v, size_t nr, double q);

struct bench_row {
	const struct bench *bench;
	const struct bench_variant *variant;
	double ns, ns_low, ns_high; /* median, quartiles */
	double ratio, ratio_min, ratio_max;
	bool has_ratio;
	double goal;		/* 0: none, or no ratio */
	unsigned int disturbed; /* repetitions */
};

struct bench_report {
	struct bench_row *rows;
	size_t nr;
	unsigned int reps;
	double load[3]; /* of the machine before we began */
};

void bench_report_machine(const struct bench_report *r);
/* The rows from @first on, which are of one bench. */
void bench_report_table(const struct bench_report *r, size_t first);
/* How many goals were met; nothing if there were none. */
void bench_report_goals(const struct bench_report *r);
/* 0 or -errno. */
int bench_report_json(const struct bench_report *r, const char *path);

#endif
