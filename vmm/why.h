/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Refusals. What a user did wrong, or what the host lacks, is told by -errno and one line of text
 * for a human: what is wrong, where, and what would be right. The line has no newline and no
 * prefix; whoever prints it adds both.
 */
#ifndef VMM_WHY_H
#define VMM_WHY_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* Put the line into @why (may be NULL) and return @err: return why_fail(why, why_len, -ENOEXEC,
 * ...). */
__attribute__((format(printf, 4, 5))) static inline int why_fail(char *why, size_t why_len, int err,
								 const char *fmt, ...)
{
	va_list ap;

	if (why && why_len) {
		va_start(ap, fmt);
		vsnprintf(why, why_len, fmt, ap);
		va_end(ap);
	}
	return err;
}

#endif
