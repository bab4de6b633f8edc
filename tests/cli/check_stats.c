/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks into a file of JSON, as --stats writes it.
 *
 *     check_stats FILE EXPECTATION...
 *
 * An expectation is KEY, an operator of = > <, and a value: "outcome=exited", "corruptions=0",
 * "refaults>999", "kill_reason=null". A dot goes one object down, a number into an array:
 * "mutations.unmap>0", "engines.0.usable=true". The file must be one JSON value and nothing else,
 * and all expectations must hold: exit 0. Otherwise each that does not is told, and the exit is 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* What @path names below @json, or NULL. */
static const json_t *find(const json_t *json, const char *path)
{
	char key[64];

	while (json && *path) {
		size_t len = strcspn(path, ".");

		if (len >= sizeof(key))
			return NULL;
		memcpy(key, path, len);
		key[len] = '\0';
		json = json_is_array(json) ? json_array_get(json, strtoul(key, NULL, 10))
					   : json_object_get(json, key);
		path += len + (path[len] == '.');
	}
	return json;
}

static void describe(const json_t *json, char *buf, size_t len)
{
	char *text;

	if (json_is_string(json)) {
		snprintf(buf, len, "%s", json_string_value(json));
		return;
	}
	text = json ? json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
	snprintf(buf, len, "%s", text ? text : "missing");
	free(text);
}

static int holds(const json_t *root, const char *expectation)
{
	size_t key_len = strcspn(expectation, "=<>");
	const char *value = expectation + key_len + 1;
	char key[128], found[512];
	const json_t *json;
	int ok;

	if (!expectation[key_len] || key_len >= sizeof(key)) {
		printf("%s: no expectation\n", expectation);
		return 0;
	}
	memcpy(key, expectation, key_len);
	key[key_len] = '\0';
	json = find(root, key);
	describe(json, found, sizeof(found));
	if (expectation[key_len] == '=')
		ok = json && strcmp(found, value) == 0;
	else
		ok = json_is_number(json) &&
		     (expectation[key_len] == '>' ? json_number_value(json) > atof(value)
						  : json_number_value(json) < atof(value));
	if (!ok)
		printf("expected %s, it is %s\n", expectation, found);
	return ok;
}

int main(int argc, char **argv)
{
	json_error_t error;
	json_t *root;
	int bad = 0;

	if (argc < 2) {
		fprintf(stderr, "usage: check_stats FILE EXPECTATION...\n");
		return 2;
	}
	root = json_load_file(argv[1], 0, &error);
	if (!root) {
		printf("%s is no JSON: line %d: %s\n", argv[1], error.line, error.text);
		return 1;
	}
	for (int i = 2; i < argc; i++)
		bad |= !holds(root, argv[i]);
	json_decref(root);
	return bad;
}
