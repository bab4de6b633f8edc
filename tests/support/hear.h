/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the libraries say meanwhile: for tests of misuse that is reported, and carried on from. */
#ifndef TESTS_SUPPORT_HEAR_H
#define TESTS_SUPPORT_HEAR_H

#include <stdio.h>

#include <gnomon/log.h>

#include "notifier/sync/atomic.h"
#include "tests/support/test.h"

static struct {
	atomic_t warnings;
	char last[512];
} heard;

static inline void hear(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	if (level != GNOMON_LOG_WARN)
		return;
	snprintf(heard.last, sizeof(heard.last), "%s", message);
	atomic_inc(&heard.warnings);
}

static inline void hear_start(void)
{
	atomic_set(&heard.warnings, 0);
	gnomon_set_log(hear, NULL);
}

/* Since the last call: @nr warnings, the last of which says @text. */
static inline void expect_warnings(int nr, const char *text)
{
	expect_eq(atomic_read(&heard.warnings), nr);
	if (nr)
		expect_str_contains(heard.last, text);
	atomic_set(&heard.warnings, 0);
}

#endif
