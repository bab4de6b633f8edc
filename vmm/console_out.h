/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's output on our stdout, as a stdio stream for dev_console. It takes the line of
 * progress off the terminal first, remembers how the output ended, and gives up when told to: a
 * vCPU must not hang for ever on a pipe that nobody reads.
 */
#ifndef VMM_CONSOLE_OUT_H
#define VMM_CONSOLE_OUT_H

#include <stdbool.h>
#include <stdio.h>

struct console_out {
	FILE *stream;
	int fd;
	int give_up_fd; /* an eventfd, readable once it is time to give up */
	bool mid_line;	/* the last byte written was no newline */
	int error;	/* errno of the first write that failed by itself; 0: none */
};

/* 0 or -errno. */
int console_out_open(struct console_out *console, int fd);

/* From now on a write that would wait fails instead, and so does one that waits. Any thread. */
void console_out_give_up(struct console_out *console);

/*
 * After the last vCPU stopped; @end_line: somebody else's output follows, it begins on a new line.
 * Returns 0, or -errno of the first write that ever failed.
 */
int console_out_close(struct console_out *console, bool end_line);

#endif
