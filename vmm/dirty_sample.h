/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --dirty-log: a thread that asks, every so many milliseconds, which pages the guest has written,
 * and a map of that (dirty_map.h) in a file, when the guest has ended.
 *
 * The main thread's calls, in this order: open, start, stop after the vCPUs have been joined (not
 * if it did not come to that), close. Before open, fd is -1.
 */
#ifndef VMM_DIRTY_SAMPLE_H
#define VMM_DIRTY_SAMPLE_H

#include <stdbool.h>

#include "notifier/sync/thread.h"
#include "notifier/sync/wait.h"
#include "vmm/dirty_map.h"
#include "vmm/run_args.h"
#include "vmm/vm.h"

struct dirty_sample {
	const struct run_args *args;
	int fd; /* -1: none is wanted */
	struct vm *vm;
	struct kthread thread;
	wait_queue_head_t wait;
	bool stop;
	bool sampled; /* there is a map to be written */
	uint64_t start_ns;
	uint64_t *bitmap;
	struct dirty_map map; /* the thread's, until it is joined */
};

/* Open the file that was asked for. 0 or -errno. */
int dirty_sample_open(struct dirty_sample *dirty, const struct run_args *args);

/* No vCPU runs yet, and no chaos, and the guest is loaded: from now on RAM is logged. 0 or -errno.
 */
int dirty_sample_start(struct dirty_sample *dirty, struct vm *vm);
/* One last look, at what the guest wrote at its end. Nothing if start was not called, or failed. */
void dirty_sample_stop(struct dirty_sample *dirty);

/* Write the map. 0 or -errno. */
int dirty_sample_close(struct dirty_sample *dirty);

#endif
