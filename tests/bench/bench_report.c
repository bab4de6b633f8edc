// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What the benchmarks say: a table for people, JSON for programs.
 */
#include "tests/bench/bench.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <jansson.h>

#ifdef CONFIG_LOCKDEP
#define BUILD "debug"
#else
#define BUILD "release"
#endif

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_quantile(double *v, size_t nr, double q)
{
	double at = q * (double)(nr - 1);
	size_t low = (size_t)at, high = low + 1 < nr ? low + 1 : low;

	qsort(v, nr, sizeof(*v), compare);
	return v[low] + (v[high] - v[low]) * (at - (double)low);
}

/* ---- the machine ---- */

static void cpu_model(char *buf, size_t len)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(buf, len, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		char *value = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || !value)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(buf, len, "%s", value + 1 + strspn(value + 1, " "));
		break;
	}
	if (file)
		fclose(file);
}

static json_t *machine(const struct bench_report *r)
{
	char cpu[256], kernel[256];
	struct utsname uts;

	cpu_model(cpu, sizeof(cpu));
	uname(&uts);
	snprintf(kernel, sizeof(kernel), "%s %s %s", uts.sysname, uts.release, uts.machine);
	return json_pack("{s:s, s:s, s:i, s:i, s:[f, f, f], s:s, s:s, s:i}", "cpu", cpu, "kernel",
			 kernel, "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "cores_allowed",
			 (int)bench_nr_cpus(), "load", r->load[0], r->load[1], r->load[2],
			 "compiler", __VERSION__, "build", BUILD, "repetitions", (int)r->reps);
}

void bench_report_machine(const struct bench_report *r)
{
	json_t *m = machine(r);

	if (!m)
		return;
	printf("%s, %d cores (%d allowed), %s\n", json_string_value(json_object_get(m, "cpu")),
	       (int)json_integer_value(json_object_get(m, "cores")), (int)bench_nr_cpus(),
	       json_string_value(json_object_get(m, "kernel")));
	printf("load %.2f %.2f %.2f, %u repetitions, gcc %s, %s build\n", r->load[0], r->load[1],
	       r->load[2], r->reps, __VERSION__, BUILD);
	if (strcmp(BUILD, "release") != 0)
		printf("This is no release build: these times mean nothing.\n");
	fflush(stdout);
	json_decref(m);
}

/* ---- the table ---- */

/* Three digits that matter, and a unit that keeps them short. */
static const char *duration(double ns, char buf[16])
{
	static const char *const units[] = {"ns", "us", "ms", "s"};
	size_t unit = 0;

	while (ns >= 999.5 && unit + 1 < ARRAY_SIZE(units)) {
		ns /= 1000;
		unit++;
	}
	snprintf(buf, 16, "%.*f %s", ns < 9.995 ? 2 : ns < 99.95 ? 1 : 0, ns, units[unit]);
	return buf;
}

static const char *amount(const struct bench *b, double value, char buf[16])
{
	if (!b->bytes)
		return duration(value, buf);
	snprintf(buf, 16, "%.*f B", value < 99.95 ? 1 : 0, value);
	return buf;
}

static bool goal_met(const struct bench_row *row)
{
	return row->ratio <= row->goal;
}

void bench_report_table(const struct bench_report *r, size_t first)
{
	const struct bench *b;

	if (first >= r->nr)
		return;
	b = r->rows[first].bench;
	printf("\n%s, threads %u: %s\n", b->name, b->threads, b->what);
	printf("  %-18s %10s  %23s  %8s  %17s\n", "", "median", "quartiles", "ratio",
	       "smallest..largest");
	for (size_t i = first; i < r->nr; i++) {
		const struct bench_row *row = &r->rows[i];
		char median[16], low[16], high[16], quartiles[40];

		snprintf(quartiles, sizeof(quartiles), "%s .. %s", amount(b, row->ns_low, low),
			 amount(b, row->ns_high, high));
		printf("  %-18s %10s  %23s", row->variant->name, amount(b, row->ns, median),
		       quartiles);
		if (row->has_ratio)
			printf("  %8.3g  %7.3g .. %-7.3g to %s", row->ratio, row->ratio_min,
			       row->ratio_max, row->variant->base);
		if (row->goal)
			printf(", goal %.4g: %s", row->goal, goal_met(row) ? "met" : "MISSED");
		if (row->disturbed)
			printf("  (disturbed: %u of %u)", row->disturbed, r->reps);
		printf("\n");
	}
	fflush(stdout);
}

void bench_report_goals(const struct bench_report *r)
{
	unsigned int met = 0, missed = 0;

	for (size_t i = 0; i < r->nr; i++) {
		if (!r->rows[i].goal)
			continue;
		if (goal_met(&r->rows[i]))
			met++;
		else
			missed++;
	}
	if (met + missed)
		printf("\ngoals: %u met, %u missed\n", met, missed);
}

/* ---- JSON ---- */

static json_t *row_json(const struct bench_row *row)
{
	json_t *json = json_pack("{s:s, s:s, s:i, s:f}", "bench", row->bench->name, "variant",
				 row->variant->name, "threads", (int)row->bench->threads,
				 row->bench->bytes ? "bytes" : "ns", row->ns);

	if (!json)
		return NULL;
	/* A base that was not built in leaves them null: the keys are always there. */
	json_object_set_new(json, "ratio_to",
			    row->has_ratio ? json_string(row->variant->base) : json_null());
	json_object_set_new(json, "ratio", row->has_ratio ? json_real(row->ratio) : json_null());
	json_object_set_new(json, "goal", row->goal ? json_real(row->goal) : json_null());
	json_object_set_new(json, "met", row->goal ? json_boolean(goal_met(row)) : json_null());
	return json;
}

int bench_report_json(const struct bench_report *r, const char *path)
{
	json_t *rows = json_array(), *root;
	FILE *file;
	int err = 0;

	for (size_t i = 0; i < r->nr; i++)
		json_array_append_new(rows, row_json(&r->rows[i]));
	root = json_pack("{s:o, s:o}", "machine", machine(r), "rows", rows);
	if (!root || json_array_size(rows) != r->nr) {
		json_decref(root);
		return -ENOMEM;
	}
	file = fopen(path, "we");
	if (!file) {
		err = -errno;
	} else {
		if (json_dumpf(root, file, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) != 0 ||
		    fputc('\n', file) == EOF)
			err = -EIO;
		if (fclose(file) != 0 && !err)
			err = -errno;
	}
	json_decref(root);
	return err;
}
