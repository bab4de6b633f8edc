/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guests/bundled.h"
#include "notifier/sync/alloc.h"
#include "vmm/guest_file.h"
#include "vmm/why.h"

/* More than any guest needs, symbols included, and little enough to read into memory. */
#define MAX_FILE_SIZE (256L << 20)

static int no_such_guest(const char *name, char *why, size_t why_len)
{
	char names[256] = "";
	size_t at = 0;

	for (size_t i = 0; i < nr_bundled_guests && at < sizeof(names); i++)
		at += snprintf(names + at, sizeof(names) - at, "%s%s", i ? ", " : "",
			       bundled_guests[i].name);
	return why_fail(why, why_len, -ENOENT,
			"there is no guest and no file '%s'; the guests are %s", name, names);
}

/* Read @fd to its end: at most @size bytes, its size a moment ago. Returns how many, or -errno. */
static ssize_t read_file(int fd, char *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

static int load_path(struct guest_file *guest, const char *path, char *why, size_t why_len)
{
	struct stat st;
	ssize_t size;
	void *buf;
	int err, fd;

	/* Nonblocking, so that a FIFO is refused below instead of waited for. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return no_such_guest(path, why, why_len);
	if (fd < 0)
		return why_fail(why, why_len, -errno, "cannot open '%s': %s", path,
				strerror(errno));
	if (fstat(fd, &st) < 0) {
		err = why_fail(why, why_len, -errno, "cannot look at '%s': %s", path,
			       strerror(errno));
		goto close_fd;
	}
	if (!S_ISREG(st.st_mode)) {
		err = why_fail(why, why_len, -ENOENT, "'%s' is not a regular file", path);
		goto close_fd;
	}
	if (st.st_size > MAX_FILE_SIZE) {
		err = why_fail(why, why_len, -ENOEXEC, "'%s' is larger than %ldM, no guest is",
			       path, MAX_FILE_SIZE >> 20);
		goto close_fd;
	}

	buf = kmalloc(st.st_size + 1, GFP_KERNEL); /* an empty file is a file, too */
	if (!buf) {
		err = why_fail(why, why_len, -ENOMEM, "out of memory for '%s'", path);
		goto close_fd;
	}
	size = read_file(fd, buf, st.st_size);
	if (size < 0) {
		err = why_fail(why, why_len, size, "cannot read '%s': %s", path, strerror(-size));
		kfree(buf);
		goto close_fd;
	}
	*guest = (struct guest_file){.data = buf, .size = size, .owned = buf};
	err = 0;

close_fd:
	close(fd);
	return err;
}

int guest_file_load(struct guest_file *guest, const char *name, char *why, size_t why_len)
{
	for (size_t i = 0; i < nr_bundled_guests; i++) {
		if (strcmp(name, bundled_guests[i].name) == 0) {
			*guest = (struct guest_file){.data = bundled_guests[i].start,
						     .size = bundled_guests[i].size};
			return 0;
		}
	}
	return load_path(guest, name, why, why_len);
}

void guest_file_free(struct guest_file *guest)
{
	kfree(guest->owned);
	*guest = (struct guest_file){0};
}
