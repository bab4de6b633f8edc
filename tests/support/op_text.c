/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/op_text.h"

#include <stdlib.h>
#include <string.h>

static int number_of(const struct op *op, size_t offset)
{
	int number;

	memcpy(&number, (const char *)op + offset, sizeof(number));
	return number;
}

void op_print(FILE *f, const struct op_format *format, const struct op *op)
{
	fprintf(f, "%s", format->kinds[number_of(op, 0)]);
	for (int i = 0; i < format->nr_fields; i++) {
		int number = number_of(op, format->fields[i].offset);

		if (number)
			fprintf(f, " %s=%d", format->fields[i].name, number);
	}
	fprintf(f, "\n");
}

static bool parse_kind(const char *word, const struct op_format *format, struct op *op)
{
	for (int kind = 0; kind < format->nr_kinds; kind++) {
		if (strcmp(word, format->kinds[kind]))
			continue;
		*op_number(op, 0) = kind;
		return true;
	}
	return false;
}

static bool parse_field(char *word, const struct op_format *format, struct op *op)
{
	char *equals = strchr(word, '=');

	if (!equals)
		return false;
	*equals = 0;
	for (int i = 0; i < format->nr_fields; i++) {
		if (strcmp(word, format->fields[i].name))
			continue;
		*op_number(op, format->fields[i].offset) = (int)strtol(equals + 1, NULL, 0);
		return true;
	}
	return false;
}

bool op_parse(const char *line, const struct op_format *format, struct op *op)
{
	char copy[256], *word;

	memset(op, 0, format->size);
	snprintf(copy, sizeof(copy), "%s", line);
	word = strtok(copy, " \t\n");
	if (!word || !parse_kind(word, format, op))
		return false;
	while ((word = strtok(NULL, " \t\n"))) {
		if (!parse_field(word, format, op))
			return false;
	}
	return true;
}
