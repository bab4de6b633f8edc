/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is a file what `--json` promises (docs/bench.md)?
 *
 *     check_rows FILE BENCH/THREADS/VARIANT...
 *
 * Exactly these rows, in this order, each with exactly the keys of the form, and a ratio to a row
 * of the same bench. No time is judged, nor memory: only that it is one. Prints how many rows have
 * a goal.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

static int bad;
static int goals;

#define complain(...) (bad = 1, printf(__VA_ARGS__), printf("\n"))

static void check_keys(const json_t *json, const char *what, const char *const *keys, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (!json_object_get(json, keys[i]))
			complain("%s: no key %s", what, keys[i]);
	if (json_object_size(json) != nr)
		complain("%s: %zu keys, expected %zu", what, json_object_size(json), nr);
}

static void check_machine(const json_t *machine)
{
	static const char *const keys[] = {"cpu",  "kernel",   "cores", "cores_allowed",
					   "load", "compiler", "build", "repetitions"};

	check_keys(machine, "machine", keys, sizeof(keys) / sizeof(keys[0]));
	if (json_array_size(json_object_get(machine, "load")) != 3)
		complain("machine: load is not three numbers");
	if (json_integer_value(json_object_get(machine, "cores")) < 1 ||
	    json_integer_value(json_object_get(machine, "repetitions")) < 1)
		complain("machine: cores and repetitions are at least 1");
}

static const char *text(const json_t *row, const char *key)
{
	const char *value = json_string_value(json_object_get(row, key));

	return value ? value : "";
}

static const json_t *find(const json_t *rows, const json_t *like, const char *variant)
{
	const json_t *row;
	size_t i;

	json_array_foreach((json_t *)rows, i,
			   row) if (strcmp(text(row, "bench"), text(like, "bench")) == 0 &&
				    strcmp(text(row, "variant"), variant) == 0 &&
				    json_equal(json_object_get(row, "threads"),
					       json_object_get(like, "threads"))) return row;
	return NULL;
}

/* The verdict is of this ratio and this goal, which are rounded here; and none is without both. */
static void check_goal(const json_t *row, const char *name)
{
	const json_t *goal = json_object_get(row, "goal"), *met = json_object_get(row, "met");
	double over = json_real_value(json_object_get(row, "ratio")) - json_real_value(goal);

	if (json_is_null(goal) && json_is_null(met))
		return;
	goals++;
	if (!json_is_real(goal) || !(json_real_value(goal) > 0) ||
	    !json_is_real(json_object_get(row, "ratio")))
		complain("%s: the goal is no positive number, or there is no ratio", name);
	else if (!json_is_boolean(met) ||
		 (fabs(over) > 1e-4 * json_real_value(goal) && json_is_true(met) != (over < 0)))
		complain("%s: the verdict is not that of ratio and goal", name);
}

static void check_row(const json_t *rows, const json_t *row, const char *expected)
{
	const char *measure = json_object_get(row, "bytes") ? "bytes" : "ns";
	const char *const keys[] = {"bench",	"variant", "threads", measure,
				    "ratio_to", "ratio",   "goal",    "met"};
	double value = json_real_value(json_object_get(row, measure));
	const json_t *ratio = json_object_get(row, "ratio");
	const char *base = text(row, "ratio_to");
	char name[256];

	check_keys(row, expected, keys, sizeof(keys) / sizeof(keys[0]));
	snprintf(name, sizeof(name), "%s/%d/%s", text(row, "bench"),
		 (int)json_integer_value(json_object_get(row, "threads")), text(row, "variant"));
	if (strcmp(name, expected) != 0)
		complain("row %s stands where %s is expected", name, expected);
	if (!isfinite(value) || value <= 0)
		complain("%s: %s is %g", name, measure, value);
	check_goal(row, name);

	if (json_is_null(ratio) && json_is_null(json_object_get(row, "ratio_to")))
		return;
	if (!json_is_real(ratio) || !isfinite(json_real_value(ratio)) ||
	    json_real_value(ratio) <= 0)
		complain("%s: the ratio is no positive number", name);
	if (!find(rows, row, base))
		complain("%s: there is no row for its base, '%s'", name, base);
	if (strcmp(base, text(row, "variant")) == 0 && json_real_value(ratio) != 1)
		complain("%s: its ratio to itself is %g", name, json_real_value(ratio));
}

int main(int argc, char **argv)
{
	const json_t *rows, *row;
	json_error_t error;
	json_t *root;
	size_t i;

	if (argc < 3) {
		fprintf(stderr, "usage: check_rows FILE BENCH/THREADS/VARIANT...\n");
		return 2;
	}
	root = json_load_file(argv[1], 0, &error);
	if (!root) {
		printf("%s is no JSON: line %d: %s\n", argv[1], error.line, error.text);
		return 1;
	}
	check_keys(root, "the file", (const char *const[]){"machine", "rows"}, 2);
	check_machine(json_object_get(root, "machine"));
	rows = json_object_get(root, "rows");
	if (json_array_size(rows) != (size_t)argc - 2)
		complain("%zu rows, expected %d", json_array_size(rows), argc - 2);
	json_array_foreach((json_t *)rows, i, row)
		check_row(rows, row, i + 2 < (size_t)argc ? argv[i + 2] : "nothing");
	json_decref(root);
	printf("goals: %d\n", goals);
	return bad;
}
