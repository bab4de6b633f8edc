/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/mmmodel/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gnomon/ksm.h>
#include <gnomon/log.h>
#include <gnomon/swap.h>

#include "tests/mmmodel/world.h"

/* What a child tells, however it ends. */
static struct report {
	int at;
	char what[300];
	uint64_t done[NR_OP_KINDS];
	uint64_t swapped_in, given_up, merged;
} * report;

uint64_t run_swapped_in(void)
{
	return report->swapped_in;
}

uint64_t run_given_up(void)
{
	return report->given_up;
}

uint64_t run_merged(void)
{
	return report->merged;
}

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memory;
}

struct list list_create(int max, uint64_t nr_frames)
{
	if (!report)
		report = shared_memory(sizeof(*report));
	return (struct list){.ops = shared_memory(max * sizeof(struct op)),
			     .nr = max,
			     .nr_frames = nr_frames};
}

uint64_t run_count(enum op_kind kind)
{
	return report->done[kind];
}

void differ(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(report->what, sizeof(report->what), fmt, args);
	va_end(args);
	fprintf(stderr, "mmmodel: %s\n", report->what);
	_exit(1);
}

/* The words of a BUG are those of the verdict. A warning is as bad. */
static void hear(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	if (level == GNOMON_LOG_WARN)
		differ("%s", message);
	if (level != GNOMON_LOG_BUG)
		return;
	snprintf(report->what, sizeof(report->what), "%s", message);
	fprintf(stderr, "%s\n", message);
}

/* What these leave behind is gone soon: so all is looked at at once. */
static bool is_seldom(enum op_kind kind)
{
	return kind == OP_FORK || kind == OP_PUNCH || kind == OP_SYNC || kind == OP_MSYNC ||
	       kind == OP_SOFT_CLEAR || kind == OP_RECLAIM || kind == OP_MERGE;
}

static void run_all(struct list *list, const struct how *how)
{
	struct reclaim_stats stats;
	struct ksm_stats ksm_stats;
	static struct world w;
	uint64_t random = how->seed;

	world_create(&w, list->nr_frames, list->swap);
	w.planted = how->planted;
	for (int i = 0; i < list->nr; i++) {
		report->at = i;
		if (how->generate)
			generate(&w, &random, &list->ops[i]);
		apply(&w, &list->ops[i]);
		check_frames_used(&w);
		if ((i + 1) % how->check_every == 0 || is_seldom(list->ops[i].kind))
			check_world(&w);
	}
	report->at = list->nr;
	phys_reclaim_stats(w.phys, &stats);
	ksm_get_stats(w.ksm, &ksm_stats);
	world_destroy(&w);
	if (!how->quiet) {
		report->swapped_in += stats.swap_in;
		report->given_up += stats.lazyfreed;
		report->merged += ksm_stats.pages_merged;
	}
	for (int i = 0; i < NR_OP_KINDS && !how->quiet; i++)
		report->done[i] += w.done[i];
}

static void child(struct list *list, const struct how *how)
{
	int null = how->quiet ? open("/dev/null", O_WRONLY) : -1;

	if (null >= 0)
		dup2(null, STDERR_FILENO);
	gnomon_set_log(hear, NULL);
	alarm(how->limit);
	run_all(list, how);
	exit(0);
}

struct verdict run_list(struct list *list, const struct how *how)
{
	struct verdict verdict = {0};
	int status;
	pid_t pid;

	report->what[0] = 0;
	report->at = 0;
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		child(list, how);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("fork");
		exit(1);
	}
	verdict.failed = status != 0;
	verdict.at = report->at;
	memcpy(verdict.what, report->what, sizeof(verdict.what));
	if (verdict.failed && !verdict.what[0])
		snprintf(verdict.what, sizeof(verdict.what), "ended by %s %d%s",
			 WIFSIGNALED(status) ? "signal" : "exit code",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			 WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ", a hang" : "");
	return verdict;
}

/* ---- lists as text ---- */

void list_print(FILE *f, const struct list *list)
{
	fprintf(f, "frames=%llu swap=%d\n", (unsigned long long)list->nr_frames, list->swap);
	for (int i = 0; i < list->nr; i++)
		op_print(f, &op_format, &list->ops[i]);
}

bool list_read(const char *path, struct list *list)
{
	unsigned long long nr_frames;
	int swap = 0;
	char line[256];
	int max = 0;
	FILE *f = fopen(path, "r");

	if (!f)
		return perror(path), false;
	while (fgets(line, sizeof(line), f))
		max++;
	rewind(f);
	*list = list_create(max + 1, 0);
	list->nr = 0;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line, "frames=%llu swap=%d", &nr_frames, &swap) >= 1) {
			list->nr_frames = nr_frames;
			list->swap = swap;
		} else if (!op_parse(line, &op_format, &list->ops[list->nr++])) {
			fprintf(stderr, "%s: no operation: %s", path, line);
			fclose(f);
			return false;
		}
	}
	fclose(f);
	return true;
}
