/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/coherence/run.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gnomon/log.h>
#include <gnomon/swap.h>

#include "tests/coherence/steps.h"
#include "tests/coherence/threads.h"

const char *const count_names[NR_COUNTS] = {
	[COUNT_STORES] = "stores landed", [COUNT_FAULTS] = "guest faults",
	[COUNT_DEVICE] = "of devices",	  [COUNT_REFUSED] = "refused by the host",
	[COUNT_EMULATED] = "emulated",	  [COUNT_LET_THROUGH] = "let through",
	[COUNT_STALE] = "stale",	  [COUNT_INSIDE] = "inside another",
	[COUNT_SWAPPED] = "swapped in",	  [COUNT_MERGED] = "merged",
	[COUNT_MIGRATED] = "migrated",	  [COUNT_UNSYNC] = "made unsync",
	[COUNT_SYNCED] = "synced",	  [COUNT_RECYCLED] = "recycled",
};

/* What a child tells, however it ends. */
static struct report {
	int at;
	char what[300];
	uint64_t done[NR_OP_KINDS], count[NR_COUNTS];
} * report;

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memory;
}

struct list list_create(int max)
{
	if (!report)
		report = shared_memory(sizeof(*report));
	return (struct list){.ops = shared_memory(max * sizeof(struct op)), .nr = max, .cpus = 1};
}

uint64_t run_count(enum count count)
{
	return report->count[count];
}

uint64_t run_count_op(enum op_kind kind)
{
	return report->done[kind];
}

/* The first who comes has the word. */
void differ(const char *fmt, ...)
{
	static int differing;
	va_list args;

	while (__atomic_exchange_n(&differing, 1, __ATOMIC_ACQ_REL))
		pause();
	va_start(args, fmt);
	vsnprintf(report->what, sizeof(report->what), fmt, args);
	va_end(args);
	fprintf(stderr, "coherence: %s\n", report->what);
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

static void count_all(struct world *w)
{
	struct shadow_stats shadow;
	struct reclaim_stats reclaim;
	struct ksm_stats ksm;
	struct mm_stats mm;

	shadow_get_stats(w->g.shadow, &shadow);
	phys_reclaim_stats(w->g.phys, &reclaim);
	ksm_get_stats(w->ksm, &ksm);
	mm_get_stats(w->g.mm, &mm);
	for (int i = 0; i < NR_OP_KINDS; i++)
		report->done[i] += atomic64_read(&w->done[i]);
	report->count[COUNT_STORES] += atomic64_read(&w->stores);
	report->count[COUNT_FAULTS] += atomic64_read(&w->faults);
	report->count[COUNT_DEVICE] += atomic64_read(&w->device_accesses);
	report->count[COUNT_REFUSED] += atomic64_read(&w->refused);
	report->count[COUNT_EMULATED] += atomic64_read(&w->emulated);
	report->count[COUNT_LET_THROUGH] += atomic64_read(&w->let_through);
	report->count[COUNT_STALE] += atomic64_read(&w->stale);
	report->count[COUNT_INSIDE] += atomic64_read(&w->inside);
	report->count[COUNT_SWAPPED] += reclaim.swap_in;
	report->count[COUNT_MERGED] += ksm.pages_merged;
	report->count[COUNT_MIGRATED] += mm.pages_migrated;
	report->count[COUNT_UNSYNC] += shadow.unsync_made;
	report->count[COUNT_SYNCED] += shadow.synced;
	report->count[COUNT_RECYCLED] += shadow.pages_recycled;
}

static void run_program(struct world *w, struct list *list, const struct how *how)
{
	uint64_t random = how->seed;

	step_init(w);
	for (int i = 0; i < list->nr; i++) {
		report->at = i;
		if (how->generate)
			generate(w, &random, &list->ops[i]);
		step(w, &list->ops[i]);
	}
	report->at = list->nr;
	step_last(w);
}

static void child(struct list *list, const struct how *how)
{
	int null = how->quiet ? open("/dev/null", O_WRONLY) : -1;
	static struct world w;

	if (null >= 0)
		dup2(null, STDERR_FILENO);
	gnomon_set_log(hear, NULL);
	alarm(how->limit);
	world_create(&w, list->cpus, how->broken, how->threads, how->audit, list->budget);
	if (how->threads)
		run_threads(&w, list->nr, how->seed);
	else
		run_program(&w, list, how);
	if (!how->quiet)
		count_all(&w);
	world_destroy(&w);
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
	fprintf(f, "cpus=%d budget=%lu\n", list->cpus, list->budget);
	for (int i = 0; i < list->nr; i++)
		op_print(f, &op_format, &list->ops[i]);
}

bool list_read(const char *path, struct list *list)
{
	char line[256];
	int max = 0;
	FILE *f = fopen(path, "r");

	if (!f)
		return perror(path), false;
	while (fgets(line, sizeof(line), f))
		max++;
	rewind(f);
	*list = list_create(max + 1);
	list->nr = 0;
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#' || line[0] == '\n' ||
		    sscanf(line, "cpus=%d budget=%lu", &list->cpus, &list->budget) == 2)
			continue;
		if (!op_parse(line, &op_format, &list->ops[list->nr++])) {
			fprintf(stderr, "%s: no operation: %s", path, line);
			fclose(f);
			return false;
		}
	}
	fclose(f);
	return true;
}
