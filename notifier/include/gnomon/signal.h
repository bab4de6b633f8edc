/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a pending signal is to a task of the kernel: a call that may take long gives up when it sees
 * one, and says -EINTR. Which signals count is the program's business: its handler calls
 * set_signal_pending().
 *
 * All of them are about the calling thread, and may be called in a signal handler.
 */
#ifndef GNOMON_SIGNAL_H
#define GNOMON_SIGNAL_H

#include <stdbool.h>

#include <gnomon/decls.h>

GNOMON_BEGIN_DECLS

/* From here on calls of this thread that are documented so return -EINTR, with nothing done. */
void set_signal_pending(void);

/* Until this, which is not done for the caller: whoever was told -EINTR decides what to do. */
void clear_signal_pending(void);

bool signal_pending(void);

GNOMON_END_DECLS

#endif
