/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guests inside the program. The list of them is in guests/CMakeLists.txt. */
#ifndef GUESTS_BUNDLED_H
#define GUESTS_BUNDLED_H

#include <stddef.h>

struct bundled_guest {
	const char *name;
	const char *summary; /* one line, no full stop */
	const void *start;   /* an ELF file, 16-byte aligned */
	size_t size;
};

_Static_assert(offsetof(struct bundled_guest, summary) == 8 &&
		       offsetof(struct bundled_guest, start) == 16 &&
		       offsetof(struct bundled_guest, size) == 24 &&
		       sizeof(struct bundled_guest) == 32,
	       "bundled.S.in lays the table out");

extern const struct bundled_guest bundled_guests[];
extern const size_t nr_bundled_guests;

#endif
