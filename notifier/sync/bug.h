/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the libraries speak (the log hook of gnomon/log.h) and how they stop.
 *
 * A failed BUG_ON or ASSERT is a bug of ours: one line to the hook at GNOMON_LOG_BUG, then
 * __builtin_trap(), so that a debugger or a core stands at the place and no exit handler runs over
 * broken state. All of them stay on in release builds: the isolation of guests rests on some. A
 * guest's mistakes and a full host never come here; those have error paths.
 */
#ifndef NOTIFIER_SYNC_BUG_H
#define NOTIFIER_SYNC_BUG_H

#include <stdbool.h>

#include <gnomon/log.h>

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Format one line and hand it to the hook. Safe under any lock, in any thread. */
void gnomon_log(enum gnomon_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

void gnomon_bug(const char *file, int line, const char *func, const char *fmt, ...)
	__attribute__((noreturn, cold, format(printf, 4, 5)));
void gnomon_warn(const char *file, int line, const char *func, const char *fmt, ...)
	__attribute__((cold, format(printf, 4, 5)));

#define pr_warn(...) gnomon_log(GNOMON_LOG_WARN, __VA_ARGS__)
#define pr_info(...) gnomon_log(GNOMON_LOG_INFO, __VA_ARGS__)

#define BUG() gnomon_bug(__FILE__, __LINE__, __func__, "reached what cannot be reached")

#define BUG_ON(cond)                                                           \
	do {                                                                   \
		if (unlikely(cond))                                            \
			gnomon_bug(__FILE__, __LINE__, __func__, "%s", #cond); \
	} while (0)

/* ASSERT(cond, "what was expected, and what was found: %d", found): the condition that must hold.
 */
#define ASSERT(cond, ...)                                                      \
	do {                                                                   \
		if (unlikely(!(cond)))                                         \
			gnomon_bug(__FILE__, __LINE__, __func__, __VA_ARGS__); \
	} while (0)

/* WARN(cond, "fmt", ...), WARN_ON(cond): report and carry on; the value is that of cond. */
#define WARN(cond, ...)                                                         \
	({                                                                      \
		bool __warn = !!(cond);                                         \
		if (unlikely(__warn))                                           \
			gnomon_warn(__FILE__, __LINE__, __func__, __VA_ARGS__); \
		unlikely(__warn);                                               \
	})

#define WARN_ON(cond) WARN(cond, "%s", #cond)

#define WARN_ON_ONCE(cond)                                                      \
	({                                                                      \
		static bool __warned;                                           \
		bool __warn_once = !!(cond);                                    \
		if (unlikely(__warn_once) &&                                    \
		    !__atomic_exchange_n(&__warned, true, __ATOMIC_RELAXED))    \
			gnomon_warn(__FILE__, __LINE__, __func__, "%s", #cond); \
		unlikely(__warn_once);                                          \
	})

#endif
