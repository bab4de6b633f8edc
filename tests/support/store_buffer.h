/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A store that is to stay in a store buffer for a while is put behind others, to lines that are in
 * no cache: evict, then fill, then the store.
 */
#ifndef TESTS_SUPPORT_STORE_BUFFER_H
#define TESTS_SUPPORT_STORE_BUFFER_H

#include "notifier/sync/atomic.h"

#define COLD_LINES 16

static __thread char cold_lines[COLD_LINES][4096 + 64] __attribute__((aligned(64)));

static inline __attribute__((always_inline)) void store_buffer_evict(void)
{
	for (int i = 0; i < COLD_LINES; i++)
		__builtin_ia32_clflush(cold_lines[i]);
}

static inline __attribute__((always_inline)) void store_buffer_fill(void)
{
	for (int i = 0; i < COLD_LINES; i++)
		WRITE_ONCE(cold_lines[i][0], 1);
}

#endif
