/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine's memory: one memfd of frames, sealed against resizing. Guest data, guest page
 * tables, shadow page tables and monitors all live in frames of it; frame n is at offset n <<
 * PAGE_SHIFT.
 *
 * Two kinds of mapping exist of the memfd. Ours ("A", phys_map) is how all host code reads and
 * writes frames. An engine may add its own ("W") for the hardware; nobody else touches that one
 * (DESIGN: facts 4 and 5; docs/engines.md).
 */
#ifndef GNOMON_PHYS_H
#define GNOMON_PHYS_H

#include <gnomon/decls.h>
#include <gnomon/types.h>

GNOMON_BEGIN_DECLS

struct phys;
struct frame;

/*
 * Make a pool of @nr_frames frames. Memory is taken from the host only as frames are first touched.
 * 0, or -EINVAL (no frames), -ENOMEM, or the errno of memfd_create, ftruncate, fcntl(F_ADD_SEALS)
 * or mmap.
 */
int phys_create(struct phys **physp, uint64_t nr_frames);

/* Every frame must have been freed: a frame still in use is our bug and is reported as such (WARN),
 * then unmapped. */
void phys_destroy(struct phys *phys);

int phys_memfd(const struct phys *phys);
uint64_t phys_nr_frames(const struct phys *phys);
uint64_t phys_nr_free(const struct phys *phys);

/* Mapping A of a frame: PAGE_SIZE bytes, valid until phys_destroy. */
void *phys_map(const struct phys *phys, pfn_t pfn);

/*
 * Allocate one frame with one reference. Never sleeps. INVALID_PFN when the pool is empty. Free
 * frames are reused first in, first out, so that a stale mapping of a freed frame shows its poison
 * for as long as possible; frames that were never used come before all others. Contents: zeroes
 * from phys_alloc_zeroed; from phys_alloc poison, or zeroes in a frame that was never used (the
 * caller overwrites all of it). Either one checks the poison of the frame that it hands out, in
 * debug builds: a frame that was written while free is a missed invalidation, and a BUG.
 */
pfn_t phys_alloc(struct phys *phys);
pfn_t phys_alloc_zeroed(struct phys *phys);

/* References. The last put poisons the frame and frees it. phys_get_unless_zero also fails while a
 * migration has it frozen. */
void phys_get(struct phys *phys, pfn_t pfn);
bool phys_get_unless_zero(struct phys *phys, pfn_t pfn);
void phys_put(struct phys *phys, pfn_t pfn);

/* What free frames are filled with: no valid stamp, pointer or opcode sequence of ours. Eight of
 * these per 64-byte line. */
#define PHYS_POISON 0xdeadf4a3e0ddba11ULL

GNOMON_END_DECLS

#endif
