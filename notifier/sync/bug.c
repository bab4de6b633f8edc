// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The log hook and the two reports that end in it.
 *
 * The hook and its argument change together: they sit under a sequence count, odd while somebody
 * stores. No lock of lock.h here, as lock checking reports through this file, and no allocation.
 */
#include "notifier/sync/bug.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "notifier/sync/atomic.h"

#define LOG_LINE_MAX 512

static struct {
	uint32_t seq;
	gnomon_log_fn hook; /* NULL: default_hook */
	void *arg;
} log_target;

void gnomon_set_log(gnomon_log_fn hook, void *arg)
{
	uint32_t seq = READ_ONCE(log_target.seq) & ~1u;

	while (!try_cmpxchg(&log_target.seq, &seq, seq + 1)) {
		seq &= ~1u;
		cpu_relax();
	}
	/* Release: whoever loads the new value finds seq odd or moved on. Pairs with log_load. */
	smp_store_release(&log_target.hook, hook);
	smp_store_release(&log_target.arg, arg);
	smp_store_release(&log_target.seq, seq + 2);
}

static gnomon_log_fn log_load(void **arg)
{
	gnomon_log_fn hook;
	uint32_t seq;

	do {
		while ((seq = smp_load_acquire(&log_target.seq)) & 1)
			cpu_relax();
		/* Acquire keeps the second look at seq behind both. Pairs with gnomon_set_log. */
		hook = smp_load_acquire(&log_target.hook);
		*arg = smp_load_acquire(&log_target.arg);
	} while (READ_ONCE(log_target.seq) != seq);
	return hook;
}

static void default_hook(enum gnomon_log_level level, const char *message)
{
	char line[LOG_LINE_MAX + 16];
	int len;

	if (level > GNOMON_LOG_WARN)
		return;
	/* One write, so that lines of many threads do not mix; what cannot be written is lost. */
	len = snprintf(line, sizeof(line), "gnomon: %s\n", message);
	if (write(STDERR_FILENO, line, (size_t)len) < 0)
		return;
}

static void log_line(enum gnomon_log_level level, const char *message)
{
	void *arg;
	gnomon_log_fn hook = log_load(&arg);

	if (hook)
		hook(level, message, arg);
	else
		default_hook(level, message);
}

void gnomon_log(enum gnomon_log_level level, const char *fmt, ...)
{
	char message[LOG_LINE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	log_line(level, message);
}

static void report(enum gnomon_log_level level, const char *title, const char *file, int line,
		   const char *func, const char *fmt, va_list args)
{
	char message[LOG_LINE_MAX];
	int used =
		snprintf(message, sizeof(message), "%s at %s:%d %s(): ", title, file, line, func);

	if (used > 0 && (size_t)used < sizeof(message))
		vsnprintf(message + used, sizeof(message) - (size_t)used, fmt, args);
	log_line(level, message);
}

void gnomon_bug(const char *file, int line, const char *func, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report(GNOMON_LOG_BUG, "BUG", file, line, func, fmt, args);
	va_end(args);
	__builtin_trap();
}

void gnomon_warn(const char *file, int line, const char *func, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	report(GNOMON_LOG_WARN, "WARNING", file, line, func, fmt, args);
	va_end(args);
}
