/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stores that the CPU could not do, carried out for the guest: to a page that its entry in the
 * shadow tables must not make writable, because it is a table of the guest's own.
 */
#ifndef VMM_EMULATE_STORE_H
#define VMM_EMULATE_STORE_H

#include "vmm/emulate.h"

/*
 * Carry out the instruction at RIP, for which the CPU raised #PF on a write that the guest's tables
 * allow. With REP a part of it, at most EMULATE_REP_MAX times: RIP moves on with the last.
 *
 * EMULATE_UNPROTECT: it is none of those that are carried out here (docs/guests.md lists them).
 * Nothing has been done; the page is to be made writable, and the guest to be run on. EMULATE_HALT
 * is never the answer.
 */
enum emulate_result emulate_store(struct emulate_ctxt *ctxt);

#define EMULATE_REP_MAX 512

#endif
