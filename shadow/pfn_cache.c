/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Caches of frames (pfn_cache.h; K-20): how one becomes good, and how it is in time no longer.
 *
 * Nothing pins the frame. What is promised to the host is what the shadow tables promise: when
 * invalidate_range_start has returned nobody is at the old frame, nor comes to it. An access is a
 * section of gpc->lock that begins with gpc_check(), and an invalidation takes that lock after it
 * is counted as open, and before mmu_lock:
 *
 *   access                                  invalidation of the page
 *   ------                                  ------------------------
 *   gpc->lock: good
 *                                           is open
 *                                           gpc->lock: waits
 *   stores to frame A; unlock
 *                                           not good any more; unlock
 *   gpc->lock: not good                     start returns, the host copies A and frees it
 *
 * A refresh looks the frame up in between, with no lock:
 *
 *   refresh                                 invalidation of the page
 *   -------                                 ------------------------
 *   gpc->lock: not good, uhva is stored,
 *     seq is 4; unlock
 *   no invalidation of uhva is open
 *   hva_to_pfn -> frame A
 *                                           is open
 *                                           gpc->lock: nothing good here; seq 5; unlock
 *                                           start returns, the host copies A and frees it
 *   gpc->lock: seq is not 4: once more
 *     (without the look: frame A is good)
 *
 * (R-16; in Linux 58cd407ca4c6.) What opens before the look for open ones is found by that, what
 * opens after it finds uhva, since both go through mn_invalidate_lock: an invalidation is added to
 * the open ones and then reads uhva, a refresh stores uhva and then reads the open ones. While one
 * is open the frame cannot be had, as the host may be about to change it; whoever wants the page
 * now goes by mm_read() and mm_write().
 *
 * Only invalidations of the very page count: others come as often as they like, and no refresh has
 * to begin again for them (open_ranges.h).
 *
 * What page it is depends on the slots. A cache is of one generation of them, and is used in a
 * section of slots_srcu, for which a change of the slots waits:
 *
 *   access                                  delete of the slot
 *   ------                                  ------------------
 *   section; gpc->lock: good, and of this
 *     generation
 *                                           publishes the set without it; waits for the section
 *   stores; unlock; end of section
 *   section; gpc->lock: another generation  returns
 *
 * Replayed by tests/unit/test_pfn_cache.c.
 */
#include "shadow/pfn_cache.h"

#include <errno.h>

#include "shadow/shadow_internal.h"

void gpc_init(struct gfn_to_pfn_cache *gpc, struct shadow *shadow, spinlock_t *lock)
{
	*gpc = (struct gfn_to_pfn_cache){.shadow = shadow,
					 .lock = lock,
					 .gfn = INVALID_GFN,
					 .uhva = INVALID_HVA};
	INIT_LIST_HEAD(&gpc->list);
	mutex_init(&gpc->refresh_lock);
}

bool gpc_check(const struct gfn_to_pfn_cache *gpc, gfn_t gfn)
{
	lockdep_assert_held(gpc->lock);
	return gpc->valid && gpc->gfn == gfn &&
	       gpc->generation == READ_ONCE(shadow_memslots(gpc->shadow)->generation);
}

/* Nobody uses the old frame for @gfn; returns what the look-up that begins is to be compared with.
 */
static unsigned long begin(struct gfn_to_pfn_cache *gpc, gfn_t gfn, hva_t uhva, uint64_t generation)
{
	unsigned long seq;

	spin_lock(gpc->lock);
	gpc->valid = false;
	gpc->gfn = gfn;
	gpc->generation = generation;
	/* Before the look for open invalidations, and a release: who does not find his page here
	 * any more sees what was stored to it by way of the cache. Pairs with the look of
	 * gfn_to_pfn_cache_invalidate_start(). */
	smp_store_release(&gpc->uhva, uhva);
	seq = gpc->invalidate_seq;
	spin_unlock(gpc->lock);
	return seq;
}

/* False: an invalidation of the page has come since @seq. */
static bool finish(struct gfn_to_pfn_cache *gpc, unsigned long seq, pfn_t pfn, bool writable)
{
	bool unchanged;

	spin_lock(gpc->lock);
	unchanged = gpc->invalidate_seq == seq;
	if (unchanged) {
		gpc->khva = phys_map(mm_phys(gpc->shadow->mm), pfn);
		gpc->writable = writable;
		gpc->valid = true;
	}
	spin_unlock(gpc->lock);
	return unchanged;
}

static int look_up(struct gfn_to_pfn_cache *gpc, gfn_t gfn)
{
	struct shadow *shadow = gpc->shadow;
	const struct memslots *slots = shadow_memslots(shadow);
	uint64_t generation = READ_ONCE(slots->generation);
	const struct memslot *slot = gfn_to_memslot(slots, gfn);
	bool usable = slot && !(slot->flags & MEMSLOT_INVALID);
	hva_t uhva = usable ? memslot_hva(slot, gfn) : INVALID_HVA;
	unsigned long seq;
	bool writable;
	pfn_t pfn;
	int ret;

	do {
		seq = begin(gpc, gfn, uhva, generation);
		if (!slot || READ_ONCE(shadow->dead))
			return -ENXIO;
		if (!usable || mn_invalidation_open(shadow, uhva))
			return -EAGAIN;
		ret = hva_to_pfn(shadow->mm, uhva, false, &pfn, &writable);
		if (ret)
			return ret;
		shadow_hook(shadow, SHADOW_HOOK_CACHE_BEFORE_VALID);
	} while (!finish(gpc, seq, pfn, writable && !(slot->flags & MEMSLOT_READONLY)));
	return 0;
}

int gpc_activate(struct gfn_to_pfn_cache *gpc, gfn_t gfn)
{
	struct shadow *shadow = gpc->shadow;
	int ret;

	mutex_lock(&gpc->refresh_lock);
	if (list_empty(&gpc->list)) {
		spin_lock(&shadow->gpc_lock);
		list_add(&gpc->list, &shadow->gpc_list);
		spin_unlock(&shadow->gpc_lock);
	}
	ret = look_up(gpc, gfn);
	mutex_unlock(&gpc->refresh_lock);
	return ret;
}

int gpc_refresh(struct gfn_to_pfn_cache *gpc)
{
	int ret;

	mutex_lock(&gpc->refresh_lock);
	ret = look_up(gpc, gpc->gfn);
	mutex_unlock(&gpc->refresh_lock);
	return ret;
}

void gpc_deactivate(struct gfn_to_pfn_cache *gpc)
{
	mutex_lock(&gpc->refresh_lock);
	begin(gpc, INVALID_GFN, INVALID_HVA, 0);
	spin_lock(&gpc->shadow->gpc_lock);
	list_del_init(&gpc->list);
	spin_unlock(&gpc->shadow->gpc_lock);
	mutex_unlock(&gpc->refresh_lock);
}

void gfn_to_pfn_cache_invalidate_start(struct shadow *shadow, hva_t start, hva_t end)
{
	struct gfn_to_pfn_cache *gpc;

	spin_lock(&shadow->gpc_lock);
	list_for_each_entry(gpc, &shadow->gpc_list, list) {
		hva_t uhva = smp_load_acquire(&gpc->uhva); /* pairs with begin() */

		if (uhva < start || uhva >= end)
			continue;
		spin_lock(gpc->lock);
		gpc->valid = false;
		gpc->invalidate_seq++;
		spin_unlock(gpc->lock);
	}
	spin_unlock(&shadow->gpc_lock);
}
