/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What can be done to the world of the mm model: one line of numbers each, so that a run is a list,
 * and a shorter list is a run, too. An operation that makes no sense where it stands (no such mm,
 * beyond the pages that there are) is passed by: so any part of a list can be left out.
 */
#ifndef TESTS_MMMODEL_OPS_H
#define TESTS_MMMODEL_OPS_H

#include <stdint.h>

#include "tests/support/op_text.h"

/* X(kind, name) */
#define OP_KINDS(X)                          \
	X(OP_NEW, new)                       \
	X(OP_FORK, fork)                     \
	X(OP_EXIT, exit)                     \
	X(OP_OBJECT, object)                 \
	X(OP_MMAP, mmap)                     \
	X(OP_MUNMAP, munmap)                 \
	X(OP_MREMAP, mremap)                 \
	X(OP_MPROTECT, mprotect)             \
	X(OP_ZAP, zap)                       \
	X(OP_MADVISE, madvise)               \
	X(OP_READ, read)                     \
	X(OP_WRITE, write)                   \
	X(OP_CMPXCHG, cmpxchg)               \
	X(OP_READ_ATOMIC, read_atomic)       \
	X(OP_SECONDARY, secondary)           \
	X(OP_PIN, pin)                       \
	X(OP_UNPIN, unpin)                   \
	X(OP_MIGRATE_RANGE, migrate_range)   \
	X(OP_MIGRATE_FRAME, migrate_frame)   \
	X(OP_MIGRATE_OBJECT, migrate_object) \
	X(OP_PUNCH, punch)                   \
	X(OP_SYNC, sync)                     \
	X(OP_MSYNC, msync)                   \
	X(OP_SOFT_CLEAR, soft_clear)         \
	X(OP_SOFT_TEST, soft_test)           \
	X(OP_EXCLUSIVE, exclusive)           \
	X(OP_RECLAIM, reclaim)               \
	X(OP_TO_DEVICE, to_device)           \
	X(OP_TO_RAM, to_ram)                 \
	X(OP_MERGE, merge)

#define OP_ENUM(kind, name) kind,
enum op_kind { OP_KINDS(OP_ENUM) NR_OP_KINDS };
#undef OP_ENUM

/* What a field means to a kind stands where the kind is done (apply*.c). */
struct op {
	enum op_kind kind;
	int mm;		   /* its slot */
	int page, nr;	   /* a range of the pages of world.h; page -1: all of the address space */
	int to, nr_to;	   /* a second one; a slot; a word of the page */
	int skew, skew_to; /* bytes by which an address is off */
	int cut;	   /* bytes by which a length is short */
	unsigned int prot, flags;
	int object, pgoff;  /* slot plus one, 0: none */
	unsigned int value; /* of what is written */
};

extern const char *const op_names[NR_OP_KINDS];
extern const struct op_format op_format;

#endif
