/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages of a guest were written, while it runs: for who copies it to another place, or wants
 * to look where it works.
 *
 * A slot is logged while it has MEMSLOT_LOG_DIRTY (gnomon/shadow.h). A page of it is then *dirty*
 * from any store to it until somebody asks: a store of a CPU's, an A or D bit that a walk sets in a
 * table there, shadow_write_gpa(), an operand, and what shadow_gpte_written() is told of. There are
 * two ways to ask, and a guest uses one of them: a bitmap of each slot, or rings of pages.
 *
 * In both, a store that was over before a call began, and began after the call before it was over,
 * is reported by it. One that runs beside a call may be reported by the next. None is lost: who
 * copies what was reported after the call, and asks again, has all that was stored before. A page
 * may be reported that was not stored to, where the right to store was given and not used.
 */
#ifndef GNOMON_SHADOW_DIRTY_H
#define GNOMON_SHADOW_DIRTY_H

#include <gnomon/shadow.h>

/* --- a bitmap for each slot --- */

/* To be changed at any time; for those slots that begin to be logged, and calls that begin, later.
 */
#define SHADOW_DIRTY_MANUAL_PROTECT (1u << 0) /* shadow_get_dirty_log() only looks */
#define SHADOW_DIRTY_INITIALLY_SET                                                               \
	(1u << 1) /* a slot begins all dirty, and nothing is protected then: with the other only \
		   */

/* 0; -EINVAL for what is not there, or not together. (Linux: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) */
int shadow_set_dirty_log_mode(struct shadow *shadow, unsigned int mode);

/* 64-bit words in the bitmap of a slot: bit n of word m is page m * 64 + n. */
static inline uint64_t shadow_dirty_words(uint64_t npages)
{
	return (npages + 63) / 64;
}

/*
 * The pages of slot @id that are dirty, in @bitmap, which has shadow_dirty_words() of the slot; and
 * they are clean now, so that the next store to any of them is noticed: unless
 * SHADOW_DIRTY_MANUAL_PROTECT. 0; -EINVAL: no such id; -ENOENT: no such slot, or not logged;
 * -ENXIO: the guest has rings. May wait as shadow_set_memslot() does.
 */
int shadow_get_dirty_log(struct shadow *shadow, unsigned int id, uint64_t *bitmap);

/*
 * Of the @npages pages of slot @id from @first on those are clean now that are set in @bitmap,
 * whose bit 0 is page @first. To be copied after the call, not before. @first, and @npages if the
 * range does not end with the slot, are multiples of 64: else, or beyond its end, -EINVAL.
 */
int shadow_clear_dirty_log(struct shadow *shadow, unsigned int id, uint64_t first, uint64_t npages,
			   const uint64_t *bitmap);

/* --- rings --- */

/*
 * One for each vCPU, of pages that it was given the right to store to, and one more, the last, for
 * what no CPU stored. An entry is written by us, DIRTY last, read by whoever collects, who then
 * sets RESET, and is free again once shadow_reset_dirty_rings() has seen that. Entries are used in
 * turn, and reset in turn.
 */
struct shadow_dirty_gfn {
	uint32_t flags; /* of SHADOW_DIRTY_GFN_*, one; 0: free */
	uint32_t slot;
	uint64_t offset; /* of the page, in pages, in that slot */
};

#define SHADOW_DIRTY_GFN_DIRTY (1u << 0)
#define SHADOW_DIRTY_GFN_RESET (1u << 1)

#define SHADOW_DIRTY_RING_MIN 16
#define SHADOW_DIRTY_RING_MAX 65536

/*
 * The guest has rings from now on, of @entries each: a power of two. 0; -EINVAL; -EBUSY: a slot is
 * logged; -EEXIST: it has; -ENOMEM.
 */
int shadow_enable_dirty_rings(struct shadow *shadow, unsigned int entries);
/* Of vCPU @vcpu, or the last one for nr_vcpus. NULL: there is none. Stays as long as the guest. */
struct shadow_dirty_gfn *shadow_dirty_ring(struct shadow *shadow, unsigned int vcpu);

/* Whoever collects, one thread: is there something in this entry? Then it is his to read. */
static inline bool shadow_dirty_gfn_filled(const struct shadow_dirty_gfn *entry)
{
	/* Pairs with the release in dirty_ring.c. */
	return __atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) == SHADOW_DIRTY_GFN_DIRTY;
}

/* He has read it. Pairs with the acquire in dirty_ring.c: it is not written over before. */
static inline void shadow_dirty_gfn_done(struct shadow_dirty_gfn *entry)
{
	__atomic_store_n(&entry->flags, SHADOW_DIRTY_GFN_RESET, __ATOMIC_RELEASE);
}

/*
 * Entries that are RESET are free, and their pages clean: to be copied after this, not before. And
 * what no CPU stored goes to the last ring, as far as there is room. Returns how many were freed,
 * or -ENXIO: there are no rings.
 */
long shadow_reset_dirty_rings(struct shadow *shadow);

/*
 * A vCPU's ring is nearly full: its stores end as RET_PF_DIRTY_RING_FULL, and it has to wait, in
 * here if it likes. Until there is room, or @give_up(@arg) says so, who has to call
 * shadow_wake_dirty_ring() when it would.
 */
void shadow_wait_dirty_ring(struct shadow *shadow, unsigned int vcpu, bool (*give_up)(void *arg),
			    void *arg);
void shadow_wake_dirty_ring(struct shadow *shadow);

#endif
