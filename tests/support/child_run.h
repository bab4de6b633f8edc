/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Something that is run in a forked child: so a difference, a BUG, a warning, a crash and a hang
 * are all just the end of that run, and the next begins anew.
 */
#ifndef TESTS_SUPPORT_CHILD_RUN_H
#define TESTS_SUPPORT_CHILD_RUN_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/support/differ.h"

struct child_run {
	const char *name; /* of the program, before what it says */
	void (*body)(const void *arg);
	const void *arg;
	bool quiet;	    /* nothing of what the child says is seen */
	unsigned int limit; /* seconds; more is a hang */
};

struct verdict {
	bool failed;
	int at;		/* what the child was about */
	char what[300]; /* the words of differ(), of a BUG or a warning; else how it ended */
};

struct verdict child_run(const struct child_run *run);
/* Of the child: what it is about from now on. */
void child_is_at(int at);

/* What children write to is seen by who forked them. Zero at first. */
void *shared_memory(size_t size);

#endif
