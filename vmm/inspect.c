/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "notifier/sync/util.h"
#include "vmm/inspect.h"
#include "vmm/messages.h"

#define PATIENCE_MS 1000

static bool on_stdout(const struct inspect *inspect)
{
	return inspect->args->dump_path && strcmp(inspect->args->dump_path, "-") == 0;
}

int inspect_open(struct inspect *inspect, const struct run_args *args)
{
	*inspect = (struct inspect){.args = args, .fd = -1};
	if (on_stdout(inspect))
		inspect->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
	else if (args->dump_path)
		inspect->fd = open(args->dump_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	else if (args->why)
		inspect->fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	else
		return 0;
	return inspect->fd < 0 ? -errno : 0;
}

static void put_line(void *arg, const char *line)
{
	fprintf(arg, "%s\n", line);
}

/* *@text is to be freed. 0 or -ENOMEM. */
static int render(const struct inspect *inspect, struct vm *vm, bool tables, const char *when,
		  char **text, size_t *len)
{
	FILE *stream = open_memstream(text, len);
	int err = 0;

	if (!stream)
		return -ENOMEM;
	fprintf(stream, "%s, %s\n", inspect->args->guest, when);
	if (tables)
		err = shadow_dump(vm->shadow, put_line, stream);
	for (unsigned int i = 0; inspect->args->why && i < VM_MAX_VCPUS; i++)
		shadow_explain(vm->shadow, i, inspect->args->why_gva, put_line, stream);
	if (ferror(stream))
		err = -ENOMEM;
	if (fclose(stream) && !err)
		err = -ENOMEM;
	if (err) {
		free(*text);
		*text = NULL;
	}
	return err;
}

/* In pieces that a pipe with room for anything has room for; @patience: -1 for ever. */
static int write_text(int fd, const char *text, size_t len, int patience)
{
	struct pollfd room = {.fd = fd, .events = POLLOUT};

	while (len) {
		int ready = poll(&room, 1, patience);
		ssize_t n;

		if (ready < 0)
			continue; /* EINTR */
		if (!ready)
			return -EAGAIN;
		n = write(fd, text, min(len, (size_t)PIPE_BUF));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		text += n;
		len -= n;
	}
	return 0;
}

void inspect_now(struct inspect *inspect, struct vm *vm)
{
	bool to_file = inspect->args->dump_path && !on_stdout(inspect);
	size_t len;
	char *text;
	int err = render(inspect, vm, true, "on SIGUSR1", &text, &len);

	if (!err) {
		msg_progress_clear();
		err = write_text(to_file ? inspect->fd : STDERR_FILENO, text, len, PATIENCE_MS);
		free(text);
	}
	/* That stderr does not take it cannot be told there. */
	if (err && (to_file || err == -ENOMEM))
		msg_error("cannot tell the shadow tables: %s", strerror(-err));
}

int inspect_at_end(struct inspect *inspect, struct vm *vm)
{
	if (inspect->fd < 0)
		return 0;
	return render(inspect, vm, inspect->args->dump_path, "at its end", &inspect->last,
		      &inspect->last_len);
}

int inspect_close(struct inspect *inspect)
{
	int err = 0;

	if (inspect->fd < 0)
		return 0;
	if (inspect->last)
		err = write_text(inspect->fd, inspect->last, inspect->last_len, -1);
	free(inspect->last);
	if (close(inspect->fd) < 0 && !err)
		err = -errno;
	return err;
}
