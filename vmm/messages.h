/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that the program says on stderr: errors, notes, one line of progress that is rewritten in
 * place, and what the libraries report through their log hook. Any thread, under any lock: each
 * message is one write(2) and nothing here blocks on a lock.
 */
#ifndef VMM_MESSAGES_H
#define VMM_MESSAGES_H

#include <stdbool.h>

/* Take over the libraries' log hook. */
void messages_init(void);

/* From here on notes and progress are dropped. */
void messages_quiet(void);

/* "gnomon: ..." Each is one line, without a newline. */
void msg_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void msg_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Is there anyone to see progress? */
bool msg_progress_wanted(void);
void msg_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Before anybody else writes to the terminal: take the line of progress away. */
void msg_progress_clear(void);

/* Warnings of the libraries so far: each is a bug of ours that was survived. */
unsigned int msg_warnings(void);

#endif
