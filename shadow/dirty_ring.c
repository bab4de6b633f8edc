/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty rings (K-33): the pages that were written, in the order in which that began, instead of a
 * bitmap that somebody has to look through.
 *
 * An entry is one of
 *
 *   free    ours to fill		made by shadow_reset_dirty_rings()
 *   DIRTY   the collector's to read	made by dirty_ring_push(), last of all
 *   RESET   he has read it		made by him
 *
 * and they are in this order, from reset_index on: RESET, DIRTY, then free. A ring has one producer
 * and so needs no lock: that of a vCPU its own thread, which pushes where it marks; the last one
 * whoever has slots_lock. A writable leaf has an entry, DIRTY or RESET, or is about to have one.
 *
 * What no CPU stored, a device's writes or the walk's A and D bits, is marked in the slot's bitmap
 * by any thread at any time. From there a reset moves it to the last ring, as far as there is room,
 * and what is left waits. So a writer from outside needs no room, and cannot be told to wait.
 *
 * A vCPU can be told to. A fault pushes one entry at most, and only for a store; so before one that
 * is for a store there has to be room. Where there is none that ends as RET_PF_DIRTY_RING_FULL,
 * nothing has been done, and the vCPU comes again when a reset has made room.
 *
 * A reset protects the page of each entry, and returns after the shootdown. Only then may the page
 * be copied, by the third ladder of dirty_log.c. An entry is free before its page is protected, or
 * after: who grants the right meanwhile pushes another.
 */
#include <errno.h>

#include "shadow/dirty.h"

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/alloc.h"

struct dirty_ring {
	struct shadow_dirty_gfn *gfns; /* [size] */
	uint32_t size;		       /* a power of two */
	uint32_t dirty_index;	       /* the next to be filled; counts on, as the other does */
	uint32_t reset_index;	       /* the first that is not free; slots_lock */
};

static struct shadow_dirty_gfn *ring_at(const struct dirty_ring *ring, uint32_t index)
{
	return &ring->gfns[index & (ring->size - 1)];
}

bool dirty_ring_full(const struct dirty_ring *ring)
{
	/* Acquire: an entry that is free was read before it is filled. Pairs with reset_some(). */
	return ring->dirty_index - smp_load_acquire(&ring->reset_index) == ring->size;
}

void dirty_ring_push(struct dirty_ring *ring, unsigned int slot, uint64_t rel_gfn)
{
	struct shadow_dirty_gfn *entry = ring_at(ring, ring->dirty_index);

	ASSERT(!dirty_ring_full(ring), "who pushes has looked for room before");
	entry->slot = slot;
	entry->offset = rel_gfn;
	/* Pairs with shadow_dirty_gfn_filled(). */
	smp_store_release(&entry->flags, SHADOW_DIRTY_GFN_DIRTY);
	ring->dirty_index++;
}

/* ---- they come and go ---- */

static void rings_free(struct dirty_ring *rings, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		kvfree(rings[i].gfns, rings[i].size * sizeof(*rings[i].gfns));
	kfree(rings);
}

static struct dirty_ring *rings_alloc(unsigned int nr, unsigned int entries)
{
	struct dirty_ring *rings = kzalloc(nr * sizeof(*rings), GFP_KERNEL);

	for (unsigned int i = 0; rings && i < nr; i++) {
		rings[i].size = entries;
		rings[i].gfns = kvcalloc(entries, sizeof(*rings[i].gfns), GFP_KERNEL);
		if (!rings[i].gfns) {
			rings_free(rings, nr);
			return NULL;
		}
	}
	return rings;
}

void dirty_rings_destroy(struct shadow *shadow)
{
	if (shadow->rings)
		rings_free(shadow->rings, shadow->nr_vcpus + 1);
}

static bool any_slot_logged(const struct memslots *slots)
{
	for (unsigned int i = 0; i < slots->nr; i++) {
		if (slot_is_logged(slots->by_gfn[i]))
			return true;
	}
	return false;
}

/* vCPUs may run. They look at their ring where a slot is logged, and there is none yet: one that
 * comes is published after this. */
int shadow_enable_dirty_rings(struct shadow *shadow, unsigned int entries)
{
	struct dirty_ring *rings = NULL;
	int ret = 0;

	if (entries < SHADOW_DIRTY_RING_MIN || entries > SHADOW_DIRTY_RING_MAX ||
	    (entries & (entries - 1)))
		return -EINVAL;
	mutex_lock(&shadow->slots_lock);
	if (shadow->rings)
		ret = -EEXIST;
	else if (any_slot_logged(shadow->slots))
		ret = -EBUSY;
	else
		rings = rings_alloc(shadow->nr_vcpus + 1, entries);
	if (rings) {
		shadow->rings = rings;
		for (unsigned int i = 0; i < shadow->nr_vcpus; i++)
			smp_store_release(&shadow->vcpu[i].ring, &rings[i]); /* vcpu_ring() */
	} else if (!ret) {
		ret = -ENOMEM;
	}
	mutex_unlock(&shadow->slots_lock);
	return ret;
}

struct shadow_dirty_gfn *shadow_dirty_ring(struct shadow *shadow, unsigned int vcpu)
{
	ASSERT(vcpu <= shadow->nr_vcpus, "a ring for each vCPU, and one more");
	return shadow->rings ? shadow->rings[vcpu].gfns : NULL;
}

/* ---- reset ---- */

/* What the collector gave back; he may have written anything there. */
static struct memslot *logged_page(struct shadow *shadow, const struct shadow_dirty_gfn *entry)
{
	struct memslot *slot = NULL;

	if (entry->slot < MEMSLOT_MAX)
		slot = shadow->slots->by_id[entry->slot];
	return slot && slot_is_logged(slot) && entry->offset < slot->npages ? slot : NULL;
}

/* Free entries that are RESET until there are none (true), or it is enough for one section. */
static bool reset_some(struct shadow *shadow, struct dirty_ring *ring, bool protect,
		       struct zap_batch *batch, long *freed)
{
	for (unsigned int seen = 0; seen < ZAP_BATCH_FRAMES; seen++) {
		struct shadow_dirty_gfn *entry = ring_at(ring, ring->reset_index);
		struct memslot *slot;

		/* Pairs with shadow_dirty_gfn_done(). */
		if (smp_load_acquire(&entry->flags) != SHADOW_DIRTY_GFN_RESET)
			return true;
		slot = logged_page(shadow, entry);
		if (slot && protect)
			log_protect_page(shadow, slot, entry->offset, batch);
		WRITE_ONCE(entry->flags, 0);
		/* Pairs with dirty_ring_full(). */
		smp_store_release(&ring->reset_index, ring->reset_index + 1);
		++*freed;
	}
	return false;
}

/* @protect: the pages are a CPU's. What no CPU stored has no right that could be taken. */
static long reset_ring(struct shadow *shadow, struct dirty_ring *ring, bool protect)
{
	struct zap_batch batch;
	long freed = 0;
	bool done;

	if (READ_ONCE(ring_at(ring, ring->reset_index)->flags) != SHADOW_DIRTY_GFN_RESET)
		return 0;
	zap_batch_init(&batch);
	do {
		spin_lock(&shadow->mmu_lock);
		done = reset_some(shadow, ring, protect, &batch, &freed);
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		/* Also if nothing was writable any more: dirty_log.c, rule 5. */
		zap_batch_flush(shadow, &batch);
		shadow_hook(shadow, SHADOW_HOOK_DIRTY_BREAK);
	} while (!done);
	return freed;
}

static void gather_word(struct dirty_ring *ring, const struct memslot *slot, uint64_t n)
{
	atomic64_t *word = &slot->dirty->bits[n];

	for (uint64_t bits = (uint64_t)atomic64_read(word); bits && !dirty_ring_full(ring);
	     bits &= bits - 1) {
		uint64_t bit = bits & -bits;

		/* Off before the collector can copy the page: dirty_log.c, rule 3. */
		atomic64_fetch_and((int64_t)~bit, word);
		dirty_ring_push(ring, slot->id, n * 64 + (unsigned int)__builtin_ctzl(bit));
	}
}

/* What no CPU stored, to the last ring. */
static void gather(struct dirty_ring *ring, const struct memslot *slot)
{
	struct dirty_log *log = slot->dirty;

	/* Before the look at the bits. Pairs with mark_page_dirty_in_slot(). */
	if (!READ_ONCE(log->gather) || !xchg(&log->gather, false))
		return;
	for (uint64_t n = 0; n < log->nr_words; n++) {
		if (dirty_ring_full(ring)) {
			WRITE_ONCE(log->gather, true);
			return;
		}
		gather_word(ring, slot, n);
		if (atomic64_read(&log->bits[n]))
			WRITE_ONCE(log->gather, true);
	}
}

long shadow_reset_dirty_rings(struct shadow *shadow)
{
	long freed = -ENXIO;

	mutex_lock(&shadow->slots_lock);
	if (shadow->rings) {
		struct dirty_ring *last = &shadow->rings[shadow->nr_vcpus];

		freed = reset_ring(shadow, last, false);
		for (unsigned int i = 0; i < shadow->nr_vcpus; i++)
			freed += reset_ring(shadow, &shadow->rings[i], true);
		for (unsigned int i = 0; i < shadow->slots->nr; i++) {
			const struct memslot *slot = shadow->slots->by_gfn[i];

			if (slot_is_logged(slot))
				gather(last, slot);
		}
	}
	mutex_unlock(&shadow->slots_lock);
	wake_up_all(&shadow->ring_wait);
	return freed;
}

/* ---- a vCPU waits ---- */

void shadow_wait_dirty_ring(struct shadow *shadow, unsigned int vcpu, bool (*give_up)(void *arg),
			    void *arg)
{
	const struct dirty_ring *ring = vcpu_ring(&shadow->vcpu[vcpu]);

	if (ring)
		wait_event(shadow->ring_wait, !dirty_ring_full(ring) || give_up(arg));
}

void shadow_wake_dirty_ring(struct shadow *shadow)
{
	wake_up_all(&shadow->ring_wait);
}
