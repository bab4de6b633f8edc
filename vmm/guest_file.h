/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From the word on the command line to an ELF file in memory.
 *
 * A word without a slash is looked for among the bundled guests first, and then it is a path like
 * any other: ./hello is always the file.
 */
#ifndef VMM_GUEST_FILE_H
#define VMM_GUEST_FILE_H

#include <stddef.h>

struct guest_file {
	const void *data;
	size_t size;
	void *owned; /* what to free; NULL for a bundled guest */
};

/*
 * 0; or, with one line in @why: -ENOENT (no such guest, nor such a file), -ENOEXEC (a file, but
 * larger than any guest may be), -ENOMEM, another errno of open or read.
 */
int guest_file_load(struct guest_file *guest, const char *name, char *why, size_t why_len);
void guest_file_free(struct guest_file *guest);

#endif
