/* SPDX-License-Identifier: 0BSD */
/* The four functions that a compiler may call even in a freestanding program, less memmove. */
#ifndef GUESTS_LIB_MEM_H
#define GUESTS_LIB_MEM_H

#include <stddef.h>

void *memset(void *to, int byte, size_t len);
void *memcpy(void *restrict to, const void *restrict from, size_t len);
int memcmp(const void *a, const void *b, size_t len);

#endif
