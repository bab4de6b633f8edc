/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests by random programs do, as text: one operation a line, "edit cpu=1 page=4 to=7
 * flags=39", where what is 0 is left out.
 */
#ifndef TESTS_SUPPORT_OP_TEXT_H
#define TESTS_SUPPORT_OP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct op; /* each test has its own: first its kind, then numbers, all of them an int's size */

struct op_field {
	const char *name;
	size_t offset;
};

#define OP_FIELD(name)                           \
	{                                        \
#name, offsetof(struct op, name) \
	}

struct op_format {
	size_t size;
	const char *const *kinds;
	int nr_kinds;
	const struct op_field *fields;
	int nr_fields;
};

/* Number @i of an array. */
static inline struct op *op_at(const struct op_format *format, struct op *ops, int i)
{
	return (struct op *)(void *)((char *)ops + i * format->size);
}

/* The number at @offset of @op. */
static inline int *op_number(struct op *op, size_t offset)
{
	return (int *)(void *)((char *)op + offset);
}

void op_print(FILE *f, const struct op_format *format, const struct op *op);
/* False: no such line. */
bool op_parse(const char *line, const struct op_format *format, struct op *op);

#endif
