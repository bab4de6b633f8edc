/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where tests have the text for people go: all lines, each with its newline. */
#ifndef TESTS_SUPPORT_SINK_H
#define TESTS_SUPPORT_SINK_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

struct sink {
	char text[1 << 16];
	size_t len;
	unsigned int nr_lines;
};

static inline void sink_line(void *arg, const char *line)
{
	struct sink *sink = arg;
	size_t room = sizeof(sink->text) - sink->len;
	int len = snprintf(sink->text + sink->len, room, "%s\n", line);

	expect(!strchr(line, '\n'));
	expect(len > 0 && (size_t)len < room);
	sink->len += len;
	sink->nr_lines++;
}

static inline void sink_clear(struct sink *sink)
{
	sink->len = 0;
	sink->nr_lines = 0;
	sink->text[0] = '\0';
}

__attribute__((format(printf, 2, 3))) static inline void expect_text(const struct sink *sink,
								     const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	expect((size_t)vsnprintf(text, sizeof(text), fmt, ap) < sizeof(text));
	va_end(ap);
	expect_str_eq(sink->text, text);
}

#endif
