/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SRCU torture: readers of every kind against updates of every kind, and the age of what readers
 * hold as the oracle. An element is published (0), unpublished (1), and after a grace period
 * poisoned and freed (2): who holds one of age 2 was not waited for. A run in which something never
 * happened has failed, too.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/torture/run.h"
#include "tests/torture/srcu_torture.h"

struct torture torture;

static const struct run_count counts[] = {
#define COUNT(field, need)                       \
	{                                        \
#field, &torture.did.field, need \
	}
	{"age_0", &torture.did.ages[0], NEEDED_BY_CHILDREN},
	{"age_1", &torture.did.ages[1], NEEDED},
	{"age_2", &torture.did.ages[2], NO_MATTER},
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

/* Five threads more do the rest. */
static struct run run = {
	.program = "srcu_torture",
	.threads_are = "readers",
	.forks = true,
	.counts = counts,
	.nr_counts = ARRAY_SIZE(counts),
	.errors = &torture.did.errors,
	.shown = {&torture.did.ages[0], &torture.did.synchronized},
	.shown_as = {"sections", "grace periods"},
	.threads = 4,
	.seconds = 4,
	.seed = 1,
};

static int report(const char *who, enum run_need need)
{
	int status = run_report(&run, who, need);

	/* A nap that was not cut short has a second of the others' work beside it. */
	if (need == NEEDED && run.seconds >= 4 && !atomic64_read(&torture.did.beside_worst_nap)) {
		printf("%snothing happened while a reader of another domain slept\n", who);
		status = 1;
	}
	return status;
}

/* ---- a run ---- */

static void (*const others[])(void *) = {torture_thread_churn, torture_updater, torture_updater,
					 torture_domain_churn, torture_napper};

static struct kthread threads[RUN_MAX_THREADS + ARRAY_SIZE(others)];

static void start(void)
{
	struct sigaction action = {.sa_handler = torture_read_in_handler, .sa_flags = SA_RESTART};

	BUG_ON(srcu_workers_start());
	torture.slot = new_element();
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < run.threads; i++)
		BUG_ON(kthread_run(&threads[i], "reader", torture_reader,
				   (void *)(run.seed + (uintptr_t)i)));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		BUG_ON(kthread_run(&threads[(size_t)run.threads + i], "other", others[i],
				   (void *)run.seed));
}

static void stop(void)
{
	const struct kthread *end = threads + run.threads + ARRAY_SIZE(others);

	atomic_set(&torture.stop, 1);
	/* Readers, and the thread that makes more: they may post a last parcel each. */
	for (struct kthread *t = threads; t <= threads + run.threads; t++)
		kthread_join(t);
	torture_empty_mailbox();
	for (struct kthread *t = threads + run.threads + 1; t < end; t++)
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
		for (int i = 0; i < run.threads; i++)
			pthread_kill(threads[i].handle, SIGUSR1);
		if (each_ms)
			each_ms(end - now);
	}
}

/* ---- children ---- */

static pid_t children[RUN_MAX_CHILDREN];
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
	run.seed += 1000 * (uintptr_t)(nr_children + 1);
	run.seconds = 1;
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
	uint64_t all_ns = (uint64_t)run.seconds * 1000000000;

	/* Evenly over the run. */
	if (nr_children < run.children &&
	    all_ns - left_ns > all_ns / (uint64_t)(run.children + 1) * (uint64_t)(nr_children + 1))
		fork_one();
	run_progress(&run, left_ns);
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
	int status = run_parse(&run, argc, argv);

	if (status >= 0)
		return status;
	BUG_ON(init_srcu_struct(&torture.srcu));
	BUG_ON(init_srcu_struct(&torture.sleepy));
	while (FORK_EARLY && nr_children < run.children)
		fork_one();
	start();
	look_on(run.seconds, each_ms);
	stop();
	run_progress_end();
	status = report("", NEEDED);
	status |= wait_for_children();
	return run_json(&run) ? 73 : status;
}
