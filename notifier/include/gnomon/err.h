/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A pointer or an error in one word, for calls that return an object (kernel:
 * include/linux/err.h). Errors are -errno; no object lies in the last page.
 */
#ifndef GNOMON_ERR_H
#define GNOMON_ERR_H

#include <stdbool.h>
#include <stdint.h>

#include <gnomon/decls.h>

GNOMON_BEGIN_DECLS

#define MAX_ERRNO 4095

static inline void *ERR_PTR(long error)
{
	return (void *)(intptr_t)error;
}

static inline long PTR_ERR(const void *ptr)
{
	return (long)(intptr_t)ptr;
}

static inline bool IS_ERR(const void *ptr)
{
	return (uintptr_t)ptr >= (uintptr_t)-MAX_ERRNO;
}

GNOMON_END_DECLS

#endif
