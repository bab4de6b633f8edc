/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/signals.h"

int signals_open(struct signals *signals)
{
	struct sigaction hup;
	int err;

	sigemptyset(&signals->mask);
	sigaddset(&signals->mask, SIGINT);
	sigaddset(&signals->mask, SIGTERM);
	sigaddset(&signals->mask, SIGUSR1);
	if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
		sigaddset(&signals->mask, SIGHUP);

	signals->fd = signalfd(-1, &signals->mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals->fd < 0)
		return -errno;
	err = pthread_sigmask(SIG_BLOCK, &signals->mask, &signals->old_mask);
	if (err)
		close(signals->fd);
	return -err;
}

int signals_read(struct signals *signals)
{
	struct signalfd_siginfo info;

	return read(signals->fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

const char *signals_name(int signal)
{
	switch (signal) {
	case SIGINT:
		return "SIGINT";
	case SIGTERM:
		return "SIGTERM";
	case SIGUSR1:
		return "SIGUSR1";
	default:
		return "SIGHUP";
	}
}

void signals_close(struct signals *signals)
{
	while (signals_read(signals))
		;
	close(signals->fd);
	pthread_sigmask(SIG_SETMASK, &signals->old_mask, NULL);
}
