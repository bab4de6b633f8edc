/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* To know that a thread waits, and does not merely take its time. */
#ifndef TESTS_SUPPORT_ASLEEP_H
#define TESTS_SUPPORT_ASLEEP_H

#include <dirent.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

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

static inline bool others_are_asleep(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	bool all = dir;

	while (all && (entry = readdir(dir))) {
		pid_t tid = atoi(entry->d_name);

		all = tid == 0 || tid == gettid() || is_asleep(tid);
	}
	if (dir)
		closedir(dir);
	return all;
}

/*
 * Until every other thread sleeps: what they can do without us, they have done. One that slept when
 * we looked may have been woken by another that slept when we came to that: hence several looks in
 * a row.
 */
static inline void until_others_sleep(void)
{
	for (int looks = 0; looks < 3; looks++) {
		sched_yield();
		if (!others_are_asleep())
			looks = -1;
	}
}

#endif
