/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The libraries never print and never exit: whoever links them decides where words go.
 */
#ifndef GNOMON_LOG_H
#define GNOMON_LOG_H

#include <gnomon/decls.h>

GNOMON_BEGIN_DECLS

enum gnomon_log_level {
	GNOMON_LOG_BUG, /* our own state is wrong; the process traps right after the hook returns */
	GNOMON_LOG_WARN, /* something that must not happen did; the library carries on */
	GNOMON_LOG_INFO,
};

typedef void (*gnomon_log_fn)(enum gnomon_log_level level, const char *message, void *arg);

/*
 * Set the process-wide hook. NULL restores the default, which writes GNOMON_LOG_BUG and
 * GNOMON_LOG_WARN to stderr and drops the rest. @message is one line without a newline. The hook
 * may be called from any thread with any library lock held: it must not call back into the library.
 */
void gnomon_set_log(gnomon_log_fn hook, void *arg);

GNOMON_END_DECLS

#endif
