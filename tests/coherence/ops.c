/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/coherence/ops.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/sync/util.h"

#define OP_NAME(kind, name) #name,
const char *const op_names[NR_OP_KINDS] = {OP_KINDS(OP_NAME)};
#undef OP_NAME

#define FIELD(name)                              \
	{                                        \
#name, offsetof(struct op, name) \
	}
static const struct field {
	const char *name;
	size_t offset;
} fields[] = {FIELD(inside), FIELD(cpu), FIELD(gva),   FIELD(word),
	      FIELD(page),   FIELD(to),	 FIELD(flags), FIELD(how)};

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
	for (op->kind = 0; op->kind < NR_OP_KINDS; op->kind++) {
		if (!strcmp(word, op_names[op->kind]))
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
