/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the shadow MMU's own files need of the dirty log (dirty_log.c) and the rings (dirty_ring.c).
 */
#ifndef SHADOW_DIRTY_H
#define SHADOW_DIRTY_H

#include "shadow/shadow_internal.h"

/* Of a slot that is logged. Shared by the copies of the slot that are; freed when nobody has one
 * any more. Bits are set at any time, without a lock. */
struct dirty_log {
	uint64_t nr_words;
	bool gather; /* rings only: a bit is set that is not in a ring yet */
	atomic64_t *bits;
};

static inline bool slot_is_logged(const struct memslot *slot)
{
	return slot->dirty;
}

/*
 * A page of @slot was written, or may be from now on, by a CPU: @vcpu then, which is the caller's
 * thread; else NULL. In a section of slots_srcu, in which @slot was found; no other lock. When,
 * says dirty_log.c. Nothing if the slot is not logged.
 */
void mark_page_dirty_in_slot(struct shadow *shadow, struct shadow_vcpu *vcpu,
			     const struct memslot *slot, gfn_t gfn);
/* The same of whatever slot has @gfn, for memory that was written by no CPU. */
void mark_page_dirty(struct shadow *shadow, gfn_t gfn);

/* mmu_lock: no leaf of the page may be stored through, once the batch, which has room, is
 * flushed. */
void log_protect_page(struct shadow *shadow, struct memslot *slot, uint64_t rel_gfn,
		      struct zap_batch *batch);

/* --- memslot.c, under slots_lock --- */

/* @new is a copy of @old, or new, with its own flags: give it a log if they say so. 0 or -ENOMEM.
 */
int dirty_log_prepare(struct shadow *shadow, const struct memslot *old, struct memslot *new);
/* That @new is not published after all; or it is, and @old not any more: what only one of them has
 * goes. Either may be NULL. */
void dirty_log_drop(struct memslot *gone, const struct memslot *stays);
/* @slot is published, and was not logged before: the first store to each page is noticed. */
void dirty_log_begin(struct shadow *shadow, struct memslot *slot);

/* --- dirty_ring.c --- */

struct dirty_ring;

/* NULL: there are none, or not yet. Acquire: one that is found is whole. Pairs with
 * shadow_enable_dirty_rings(). */
static inline struct dirty_ring *vcpu_ring(const struct shadow_vcpu *vcpu)
{
	return smp_load_acquire(&vcpu->ring);
}

void dirty_ring_push(struct dirty_ring *ring, unsigned int slot, uint64_t rel_gfn);
/* The vCPU's thread: is there no room for what a fault may push? */
bool dirty_ring_full(const struct dirty_ring *ring);
/* No vCPU runs, and nobody collects. */
void dirty_rings_destroy(struct shadow *shadow);

#endif
