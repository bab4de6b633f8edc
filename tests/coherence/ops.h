/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program of the coherence test: what model CPUs, the guest's devices and the host do, one line
 * of numbers each. So a run is a list, and a shorter list is a run, too: what makes no sense where
 * it stands is passed by.
 */
#ifndef TESTS_COHERENCE_OPS_H
#define TESTS_COHERENCE_OPS_H

#include <stdint.h>

#include "tests/support/op_text.h"

/* X(kind, name): first what a CPU does, then a device, then the host. */
#define OP_KINDS(X)            \
	X(OP_LOAD, load)       \
	X(OP_FETCH, fetch)     \
	X(OP_STORE, store)     \
	X(OP_EDIT, edit)       \
	X(OP_CR3, cr3)         \
	X(OP_INVLPG, invlpg)   \
	X(OP_INVPCID, invpcid) \
	X(OP_STATE, state)     \
	X(OP_DEVICE, device)   \
	X(OP_TELL, tell)       \
	X(OP_MIGRATE, migrate) \
	X(OP_ZAP, zap)         \
	X(OP_UNMAP, unmap)     \
	X(OP_MAP, map)         \
	X(OP_PROTECT, protect) \
	X(OP_FORK, fork)       \
	X(OP_EXIT, exit)       \
	X(OP_PAGEOUT, pageout) \
	X(OP_MERGE, merge)     \
	X(OP_PUNCH, punch)     \
	X(OP_CLEAN, clean)     \
	X(OP_AGE, age)         \
	X(OP_SLOT, slot)       \
	X(OP_POLICY, policy)

#define OP_ENUM(kind, name) kind,
enum op_kind { OP_KINDS(OP_ENUM) NR_OP_KINDS };
#undef OP_ENUM

/* What a field means to a kind stands where the kind is done (cpu.c, host.c). */
struct op {
	int kind;
	int inside; /* 1 + a hook of the operation behind it, in the middle of which it happens; 0:
		       before it */
	int cpu;
	int gva;  /* number of a virtual page (world.h) */
	int word; /* of a page */
	int page; /* of guest or host memory */
	int to;	  /* a page, a root, a place */
	int flags;
	int how;
};

extern const char *const op_names[NR_OP_KINDS];
extern const struct op_format op_format;

#endif
