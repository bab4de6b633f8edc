/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* To know that a thread waits, and does not merely take its time. */
#ifndef TESTS_SUPPORT_ASLEEP_H
#define TESTS_SUPPORT_ASLEEP_H

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

/* Does the thread @tid of ours sleep in the kernel? If it has ended, it does not. */
static inline bool is_asleep(pid_t tid)
{
	char path[64], text[512], *state;
	FILE *file;
	size_t len;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	len = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[len] = '\0';
	state = strrchr(text, ')');
	return state && state[2] == 'S';
}

static inline void until_asleep(pid_t tid)
{
	while (!is_asleep(tid))
		sched_yield();
}

#endif
