/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --dump-shadow and --why: what the libraries tell about the shadow tables (gnomon/shadow.h), as
 * text in a file. Once when the guest has ended, if that was asked for; and at any time for who
 * sends SIGUSR1, while the guest goes on.
 *
 * The main thread's, all of it. The order of calls is open, any number of now, at_end (or not, if
 * it did not come to that), close.
 */
#ifndef VMM_INSPECT_H
#define VMM_INSPECT_H

#include <stdbool.h>

#include "vmm/run_args.h"
#include "vmm/vm.h"

struct inspect {
	const struct run_args *args;
	int fd;	    /* where the last word goes, as the options say; -1: none is wanted */
	char *last; /* it, between at_end and close */
	size_t last_len;
};

/* Open the file that was asked for. 0 or -errno. */
int inspect_open(struct inspect *inspect, const struct run_args *args);

/*
 * For SIGUSR1: the tables, and the address of --why, on the file of --dump-shadow, or on stderr
 * without one or where that is stdout, which is the guest's. A reader who does not read for a
 * second misses the rest: the guest's end must not wait for him.
 */
void inspect_now(struct inspect *inspect, struct vm *vm);

/* The guest has ended, its vCPUs are joined: keep what was asked for. 0 or -ENOMEM. */
int inspect_at_end(struct inspect *inspect, struct vm *vm);

/* Write it. 0 or -errno. */
int inspect_close(struct inspect *inspect);

#endif
