/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting is done in poll, on stdout and on the order to give up; a write that follows takes what a
 * pipe is then sure to have room for, and so does not wait itself. stdout is not made nonblocking:
 * it is shared with whoever started us.
 *
 * mid_line and error belong to whoever may use the stream: dev_console, under its lock, and after
 * the vCPUs stopped the thread that closes.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/console_out.h"
#include "vmm/messages.h"

/* 0 once something can be written (or a write will say what is wrong); -EAGAIN: give up. */
static int wait_for_room(const struct console_out *console)
{
	struct pollfd fds[] = {
		{.fd = console->fd, .events = POLLOUT},
		{.fd = console->give_up_fd, .events = POLLIN},
	};

	while (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		; /* EINTR */
	return fds[0].revents ? 0 : -EAGAIN;
}

/* A cookie_write_function_t: 0 is failure, and there is no partial success worth telling. */
static ssize_t console_write(void *cookie, const char *buf, size_t len)
{
	struct console_out *console = cookie;
	size_t done = 0;

	msg_progress_clear();
	while (done < len) {
		int err = wait_for_room(console);
		ssize_t n = 0;

		if (err == 0) {
			n = write(console->fd, buf + done, min(len - done, (size_t)PIPE_BUF));
			if (n < 0 && errno == EINTR)
				continue;
			err = n < 0 ? -errno : n == 0 ? -ENOSPC : 0;
		}
		if (err) {
			if (!console->error && err != -EAGAIN)
				console->error = -err;
			return 0;
		}
		done += n;
		console->mid_line = buf[done - 1] != '\n';
	}
	return len;
}

int console_out_open(struct console_out *console, int fd)
{
	cookie_io_functions_t functions = {.write = console_write};
	int err;

	*console = (struct console_out){.fd = fd};
	console->give_up_fd = eventfd(0, EFD_CLOEXEC);
	if (console->give_up_fd < 0)
		return -errno;
	console->stream = fopencookie(console, "w", functions);
	if (!console->stream) {
		err = -errno;
		close(console->give_up_fd);
		return err;
	}
	return 0;
}

void console_out_give_up(struct console_out *console)
{
	uint64_t one = 1;

	WARN_ON(write(console->give_up_fd, &one, sizeof(one)) != sizeof(one));
}

int console_out_close(struct console_out *console, bool end_line)
{
	if (fflush(console->stream) == 0 && end_line && console->mid_line)
		fputc('\n', console->stream);
	fclose(console->stream);
	close(console->give_up_fd);
	return -console->error;
}
