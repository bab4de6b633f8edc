/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <gnomon/log.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/util.h"
#include "vmm/messages.h"

#define CLEAR_LINE "\r\033[K"

static struct {
	bool quiet; /* set before there is a second thread */
	atomic_t warnings;
	atomic_t progress; /* a line of progress is on the terminal */
} messages;

/* One line and its end in one write; a lost message has nobody to be reported to. */
static void say(const char *prefix, const char *end, const char *fmt, va_list ap)
{
	char line[1024];
	size_t room = sizeof(line) - 2, len;

	len = snprintf(line, room, "%s%s", atomic_xchg(&messages.progress, 0) ? CLEAR_LINE : "",
		       prefix);
	len += vsnprintf(line + len, room - len, fmt, ap);
	len = min(len, room - 1);
	if (*end)
		line[len++] = *end;
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

static void say_fmt(const char *prefix, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(prefix, "\n", fmt, ap);
	va_end(ap);
}

static void log_hook(enum gnomon_log_level level, const char *message, void *arg)
{
	(void)arg;
	switch (level) {
	case GNOMON_LOG_BUG:
		say_fmt("gnomon: internal error: ", "%s", message);
		break;
	case GNOMON_LOG_WARN:
		atomic_inc(&messages.warnings);
		say_fmt("gnomon: internal warning: ", "%s", message);
		break;
	case GNOMON_LOG_INFO:
		break;
	}
}

void messages_init(void)
{
	gnomon_set_log(log_hook, NULL);
}

void messages_quiet(void)
{
	messages.quiet = true;
}

void msg_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("gnomon: ", "\n", fmt, ap);
	va_end(ap);
}

void msg_note(const char *fmt, ...)
{
	va_list ap;

	if (messages.quiet)
		return;
	va_start(ap, fmt);
	say("gnomon: ", "\n", fmt, ap);
	va_end(ap);
}

bool msg_progress_wanted(void)
{
	return !messages.quiet && isatty(STDERR_FILENO);
}

void msg_progress(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("gnomon: ", "", fmt, ap);
	va_end(ap);
	atomic_set(&messages.progress, 1);
}

void msg_progress_clear(void)
{
	if (atomic_xchg(&messages.progress, 0) &&
	    write(STDERR_FILENO, CLEAR_LINE, sizeof(CLEAR_LINE) - 1) < 0)
		return;
}

unsigned int msg_warnings(void)
{
	return atomic_read(&messages.warnings);
}
