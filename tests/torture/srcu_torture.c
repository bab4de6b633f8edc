/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU torture: readers of every kind against updates of every kind, and the age of what readers
 * hold as the oracle. An element is published (0), unpublished (1), and after a grace period
 * poisoned and freed (2): who holds one of age 2 was not waited for. A run in which something never
 * happened has failed, too.
 */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/torture/srcu_torture.h"

#define MAX_THREADS  256
#define MAX_CHILDREN 64

struct torture torture;

static struct options {
	int threads, seconds, children;
	uintptr_t seed;
	const char *json;
} opt = {.threads = 4, .seconds = 4, .seed = 1};

static const char usage[] =
	"usage: srcu_torture [OPTION...]\n"
	"  --threads N    readers (default 4); five threads more do the rest\n"
	"  --seconds S    how long (default 4; 60 if GNOMON_TEST_LONG is set)\n"
	"  --forks N      fork N children meanwhile; each runs the same for a second\n"
	"  --seed N       of the readers' choices (default 1)\n"
	"  --json FILE    the counts, for programs\n"
	"On a terminal it shows how it gets on. Exit code: 0, 1 if a reader was not waited for, or "
	"if\n"
	"something never happened, 64 for bad usage, 73 if FILE cannot be written.\n";

/* ---- what happened ---- */

/* What has to happen for a run to mean anything; in a child's second not every kind of it. */
enum need { NO_MATTER, NEEDED, NEEDED_BY_CHILDREN };

static const struct {
	const char *name;
	size_t offset;
	enum need need;
} counts[] = {
#define COUNT(field, need)                                  \
	{                                                   \
#field, offsetof(struct tally, field), need \
	}
	{"age_0", offsetof(struct tally, ages[0]), NEEDED_BY_CHILDREN},
	{"age_1", offsetof(struct tally, ages[1]), NEEDED},
	{"age_2", offsetof(struct tally, ages[2]), NO_MATTER},
	COUNT(errors, NO_MATTER),
	COUNT(slept, NEEDED),
	COUNT(handed_over, NEEDED),
	COUNT(nested, NEEDED),
	COUNT(signals, NEEDED),
	COUNT(short_threads, NEEDED),
	COUNT(synchronized, NEEDED_BY_CHILDREN),
	COUNT(polled, NEEDED),
	COUNT(called, NEEDED_BY_CHILDREN),
	COUNT(barriers, NEEDED),
	COUNT(domains, NEEDED),
	COUNT(naps, NEEDED),
	COUNT(beside_worst_nap, NO_MATTER),
#undef COUNT
};

static long count(size_t i)
{
	return (long)atomic64_read(
		(const atomic64_t *)(const void *)((const char *)&torture.did + counts[i].offset));
}

static int write_json(void)
{
	FILE *f = fopen(opt.json, "w");

	if (!f)
		return 73;
	fprintf(f, "{\"threads\": %d, \"seconds\": %d", opt.threads, opt.seconds);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		fprintf(f, ", \"%s\": %ld", counts[i].name, count(i));
	fprintf(f, "}\n");
	return fclose(f) ? 73 : 0;
}

static int report(const char *who, enum need need)
{
	int status = atomic64_read(&torture.did.errors) ? 1 : 0;

	printf("%s%d readers, %d s:", who, opt.threads, opt.seconds);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		printf("%s %s %ld", i ? "," : "", counts[i].name, count(i));
	printf("\n");
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		if (count(i) || counts[i].need < need)
			continue;
		printf("%s%s never happened: this run shows nothing\n", who, counts[i].name);
		status = 1;
	}
	/* A nap that was not cut short has a second of the others' work beside it. */
	if (need == NEEDED && opt.seconds >= 4 && !atomic64_read(&torture.did.beside_worst_nap)) {
		printf("%snothing happened while a reader of another domain slept\n", who);
		status = 1;
	}
	fflush(stdout);
	return status;
}

static void show_progress(uint64_t left_ns)
{
	fprintf(stderr, "\r%3d s left: %ld sections, %ld grace periods, %ld errors ",
		(int)(left_ns / 1000000000),
		(long)(atomic64_read(&torture.did.ages[0]) + atomic64_read(&torture.did.ages[1])),
		(long)(atomic64_read(&torture.did.synchronized) +
		       atomic64_read(&torture.did.polled)),
		(long)atomic64_read(&torture.did.errors));
}

/* ---- a run ---- */

static void (*const others[])(void *) = {torture_thread_churn, torture_updater, torture_updater,
					 torture_domain_churn, torture_napper};

static struct kthread threads[MAX_THREADS + ARRAY_SIZE(others)];

static void start(void)
{
	struct sigaction action = {.sa_handler = torture_read_in_handler, .sa_flags = SA_RESTART};

	BUG_ON(srcu_workers_start());
	torture.slot = new_element();
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < opt.threads; i++)
		BUG_ON(kthread_run(&threads[i], "reader", torture_reader,
				   (void *)(opt.seed + (uintptr_t)i)));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		BUG_ON(kthread_run(&threads[(size_t)opt.threads + i], "other", others[i],
				   (void *)opt.seed));
}

static void stop(void)
{
	const struct kthread *end = threads + opt.threads + ARRAY_SIZE(others);

	atomic_set(&torture.stop, 1);
	/* Readers, and the thread that makes more: they may post a last parcel each. */
	for (struct kthread *t = threads; t <= threads + opt.threads; t++)
		kthread_join(t);
	torture_empty_mailbox();
	for (struct kthread *t = threads + opt.threads + 1; t < end; t++)
		kthread_join(t);
	BUG_ON(cleanup_srcu_struct(&torture.srcu));
	BUG_ON(cleanup_srcu_struct(&torture.sleepy));
	srcu_workers_stop();
	retire_element(torture.slot);
}

/* Every millisecond a signal to each reader; and @each_ms, with what is left. */
static void look_on(int seconds, void (*each_ms)(uint64_t left_ns))
{
	uint64_t end = now_ns() + (uint64_t)seconds * 1000000000, now;

	while ((now = now_ns()) < end) {
		poll(NULL, 0, 1);
		for (int i = 0; i < opt.threads; i++)
			pthread_kill(threads[i].handle, SIGUSR1);
		if (each_ms)
			each_ms(end - now);
	}
}

/* ---- children ---- */

static pid_t children[MAX_CHILDREN];
static int nr_children;

/*
 * The parent's threads are gone, in the middle of whatever they did; its domains go on, with what
 * was queued in them, and so does all that was published.
 */
static _Noreturn void child_main(void)
{
	char who[32];

	snprintf(who, sizeof(who), "child %d: ", nr_children + 1);
	torture_forget_mailbox();
	torture.did = (struct tally){0};
	opt.seed += 1000 * (uintptr_t)(nr_children + 1);
	opt.seconds = 1;
	start();
	look_on(1, NULL);
	stop();
	/* Not exit(): what the parent's threads had in their hands is not ours to free. */
	_exit(report(who, NEEDED_BY_CHILDREN));
}

static void fork_one(void)
{
	pid_t pid = fork();

	BUG_ON(pid < 0);
	if (!pid)
		child_main();
	children[nr_children++] = pid;
}

static void each_ms(uint64_t left_ns)
{
	static uint64_t last_shown = UINT64_MAX;
	uint64_t all_ns = (uint64_t)opt.seconds * 1000000000;

	/* Evenly over the run. */
	if (nr_children < opt.children &&
	    all_ns - left_ns > all_ns / (uint64_t)(opt.children + 1) * (uint64_t)(nr_children + 1))
		fork_one();
	if (isatty(STDERR_FILENO) && last_shown / 1000000000 != left_ns / 1000000000) {
		last_shown = left_ns;
		show_progress(left_ns);
	}
}

static int wait_for_children(void)
{
	int failed = 0, status;

	for (int i = 0; i < nr_children; i++) {
		if (waitpid(children[i], &status, 0) == children[i] && !status)
			continue;
		printf("child %d ended with status %#x\n", i + 1, (unsigned int)status);
		failed = 1;
	}
	return failed;
}

/* ---- options ---- */

static int parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"threads", 1, NULL, 't'}, {"seconds", 1, NULL, 's'}, {"forks", 1, NULL, 'f'},
		{"seed", 1, NULL, 'r'},	   {"json", 1, NULL, 'j'},    {"help", 0, NULL, 'h'},
		{NULL, 0, NULL, 0}};
	int c;

	if (getenv("GNOMON_TEST_LONG"))
		opt.seconds = 60;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 't')
			opt.threads = atoi(optarg);
		else if (c == 's')
			opt.seconds = atoi(optarg);
		else if (c == 'f')
			opt.children = atoi(optarg);
		else if (c == 'r')
			opt.seed = strtoul(optarg, NULL, 0);
		else if (c == 'j')
			opt.json = optarg;
		else if (c == 'h')
			return fputs(usage, stdout) < 0 ? 64 : 0;
		else
			return fputs(usage, stderr), 64;
	}
	if (optind == argc && opt.threads >= 1 && opt.threads <= MAX_THREADS && opt.seconds >= 1 &&
	    opt.children >= 0 && opt.children <= MAX_CHILDREN)
		return -1;
	fputs(usage, stderr);
	return 64;
}

/*
 * ThreadSanitizer allows no threads in the child of a process that had some, and AddressSanitizer's
 * allocator may be locked there: these fork before there are any.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FORK_EARLY true
#else
#define FORK_EARLY false
#endif

int main(int argc, char **argv)
{
	int status = parse(argc, argv);

	if (status >= 0)
		return status;
	BUG_ON(init_srcu_struct(&torture.srcu));
	BUG_ON(init_srcu_struct(&torture.sleepy));
	while (FORK_EARLY && nr_children < opt.children)
		fork_one();
	start();
	look_on(opt.seconds, each_ms);
	stop();
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r%60s\r", "");
	status = report("", NEEDED);
	status |= wait_for_children();
	if (opt.json && write_json())
		return 73;
	return status;
}
