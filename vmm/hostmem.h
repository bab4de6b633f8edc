/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much memory this process may still take from the host. Guest memory comes from a memfd, page
 * by page as it is touched: taking more than there is does not fail, it gets the process killed. So
 * what cannot be backed is refused before the guest starts.
 */
#ifndef VMM_HOSTMEM_H
#define VMM_HOSTMEM_H

#include <stdint.h>

struct host_memory {
	uint64_t bytes;	  /* a memfd of this many can be backed and mapped twice */
	const char *what; /* which limit that is, for a message */
};

void host_memory_limit(struct host_memory *limit);

/* The same read from a proc and a cgroup tree under @root ("" for the real ones), for tests. */
void host_memory_limit_at(const char *root, struct host_memory *limit);

#endif
