/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ctrl-C and its kin as something to poll: SIGINT and SIGTERM, and SIGHUP unless somebody (nohup)
 * had it ignored; and SIGUSR1, which asks for a look at the tables (inspect.h). They are blocked,
 * in this thread and those it starts, and read from a signalfd; no work is done in a handler, and a
 * second Ctrl-C during the clean-up waits for nobody.
 */
#ifndef VMM_SIGNALS_H
#define VMM_SIGNALS_H

#include <signal.h>

struct signals {
	int fd; /* readable when one has come */
	sigset_t mask, old_mask;
};

/* Before the first thread is started. 0 or -errno. */
int signals_open(struct signals *signals);

/* One that has come, or 0. Does not wait. */
int signals_read(struct signals *signals);

/* "SIGINT"; of those above. */
const char *signals_name(int signal);

/* Those that came by now are dropped; later ones end the process, as ever. */
void signals_close(struct signals *signals);

#endif
