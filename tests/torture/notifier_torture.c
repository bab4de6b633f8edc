/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notifier torture: threads that come and go at mms which come and go, of every kind and in every
 * order that one seed makes of it, while others change the memory. The oracles are in the callbacks
 * (notifier_torture_subscribers.c) and at the end: nothing is left, neither a subscriber nor a
 * frame.
 */
#include <poll.h>
#include <stdio.h>

#include "notifier/sync/thread.h"
#include "notifier/sync/util.h"
#include "tests/support/relax.h"
#include "tests/torture/notifier_torture.h"
#include "tests/torture/run.h"

struct torture torture;

static const struct run_count counts[] = {
#define COUNT(field, need)                       \
	{                                        \
#field, &torture.did.field, need \
	}
	COUNT(errors, NO_MATTER),   COUNT(callbacks, NEEDED),	 COUNT(slept, NEEDED),
	COUNT(refused, NEEDED),	    COUNT(registered, NEEDED),	 COUNT(no_release, NEEDED),
	COUNT(gets, NEEDED),	    COUNT(frees, NEEDED),	 COUNT(intervals, NEEDED),
	COUNT(two_pass, NEEDED),    COUNT(lookups, NEEDED),	 COUNT(retries, NO_MATTER),
	COUNT(windows, NEEDED),	    COUNT(nonblock, NEEDED),	 COUNT(zapped, NEEDED),
	COUNT(migrated, NEEDED),    COUNT(aged, NEEDED),	 COUNT(exits, NEEDED),
	COUNT(interrupted, NEEDED), COUNT(synchronized, NEEDED),
#undef COUNT
};

static struct run run = {
	.program = "notifier_torture",
	.threads_are = "threads",
	.counts = counts,
	.nr_counts = ARRAY_SIZE(counts),
	.errors = &torture.did.errors,
	.shown = {&torture.did.callbacks, &torture.did.exits},
	.shown_as = {"callbacks", "exits"},
	.threads = 4,
	.seconds = 4,
	.seed = 1,
};

void torture_error(const char *what, const void *object)
{
	if (atomic64_inc_return(&torture.did.errors) <= 10)
		fprintf(stderr, "notifier_torture: %s (%p)\n", what, object);
}

int main(int argc, char **argv)
{
	static struct kthread threads[RUN_MAX_THREADS];
	int status = run_parse(&run, argc, argv);
	uint64_t end, now;

	if (status >= 0)
		return status;
	BUG_ON(srcu_workers_start());
	BUG_ON(worlds_create());
	for (int i = 0; i < run.threads; i++)
		BUG_ON(kthread_run(&threads[i], "torture", torture_thread,
				   (void *)(run.seed * RUN_MAX_THREADS + (uintptr_t)i)));
	end = now_ns() + (uint64_t)run.seconds * 1000000000;
	while ((now = now_ns()) < end) {
		poll(NULL, 0, 100);
		run_progress(&run, end - now);
	}
	atomic_set(&torture.stop, 1);
	for (int i = 0; i < run.threads; i++)
		kthread_join(&threads[i]);
	worlds_destroy();
	subscribers_check();
	srcu_workers_stop();
	run_progress_end();
	status = run_report(&run, "", NEEDED);
	return run_json(&run) ? 73 : status;
}
