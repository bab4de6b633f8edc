/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/mmmodel/ops.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/sync/util.h"

#define OP_NAME(kind, name) #name,
const char *const op_names[NR_OP_KINDS] = {OP_KINDS(OP_NAME)};
#undef OP_NAME

static const struct field {
	const char *name;
	size_t offset; /* of an int, or an unsigned int of the same bits */
} fields[] = {
	{"mm", offsetof(struct op, mm)},	   {"page", offsetof(struct op, page)},
	{"nr", offsetof(struct op, nr)},	   {"to", offsetof(struct op, to)},
	{"nr_to", offsetof(struct op, nr_to)},	   {"skew", offsetof(struct op, skew)},
	{"skew_to", offsetof(struct op, skew_to)}, {"cut", offsetof(struct op, cut)},
	{"prot", offsetof(struct op, prot)},	   {"flags", offsetof(struct op, flags)},
	{"object", offsetof(struct op, object)},   {"pgoff", offsetof(struct op, pgoff)},
	{"value", offsetof(struct op, value)},
};

static int *field_of(struct op *op, const struct field *field)
{
	return (int *)(void *)((char *)op + field->offset);
}

void op_print(FILE *f, const struct op *op)
{
	struct op copy = *op;

	fprintf(f, "%s", op_names[op->kind]);
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (*field_of(&copy, &fields[i]))
			fprintf(f, " %s=%d", fields[i].name, *field_of(&copy, &fields[i]));
	}
	fprintf(f, "\n");
}

static bool parse_kind(const char *word, struct op *op)
{
	for (int kind = 0; kind < NR_OP_KINDS; kind++) {
		if (strcmp(word, op_names[kind]))
			continue;
		op->kind = kind;
		return true;
	}
	return false;
}

static bool parse_field(char *word, struct op *op)
{
	char *equals = strchr(word, '=');

	if (!equals)
		return false;
	*equals = 0;
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		if (strcmp(word, fields[i].name))
			continue;
		*field_of(op, &fields[i]) = (int)strtol(equals + 1, NULL, 0);
		return true;
	}
	return false;
}

bool op_parse(const char *line, struct op *op)
{
	char copy[256], *word;

	*op = (struct op){0};
	snprintf(copy, sizeof(copy), "%s", line);
	word = strtok(copy, " \t\n");
	if (!word || !parse_kind(word, op))
		return false;
	while ((word = strtok(NULL, " \t\n"))) {
		if (!parse_field(word, op))
			return false;
	}
	return true;
}
