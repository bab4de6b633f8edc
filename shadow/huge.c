/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries of level 2 that map 2 MiB (K-34). Where the guest has a large page, and its 512 pages lie
 * in the host as one, one entry takes the place of a direct table and its 512.
 *
 * All of these must allow it:
 *
 *   the guest   one entry of its maps 2 MiB, or 1 GiB of which this is an aligned piece
 *   the slot    has all of it; gfn and hva agree in their low bits; not read-only, not logged
 *   the tables  no page of it is shadowed as a table of the guest's: a store to one must be seen
 *   the host    has all pages, in frames that follow each other from an aligned one on, with the
 *		 same rights (hva_to_huge_pfn)
 *   the links   nothing is linked at that entry: a direct table, once it is there, stays until it
 *		 goes for a reason of its own (below)
 *
 * Rules:
 *  1. A huge leaf is in the rmap of its region, and in that of no page. Whoever asks who maps a
 * page asks both (invalidate.c, age.c, zap_slot.c).
 *  2. What takes anything from one of the 512 pages takes the whole leaf: a window over one page
 *     (invalidate.c), a page that becomes a table (huge_forbid). Then the next access finds what
 * the host has by now: the leaf again, if the pages are alike again, else a direct table, which
 * maps each page for itself. That is the split, made by the accesses that need it.
 *  3. The host's entries are read under mmu_lock, while no window is open over any of the 512
 * pages. What is checked of the faulting page alone (invalidate_retry) says nothing of the others:
 *
 *       fault on page 0                         invalidation of page 7
 *       ---------------                         ----------------------
 *                                               start: nothing to zap; returns
 *       mmu_lock: no window over page 0; reads
 *         512 entries that are alike; installs
 *                                               moves page 7, frees its frame
 *         ^ forbidden: a window is open over
 *           page 7
 *
 *     Replayed by tests/unit/test_huge_races.c (window_over_a_neighbour).
 *  4. On a region with a table there is no huge leaf, not even one to be read: so a table that is
 *     protected later needs no look at its region.
 *
 * Why a direct table is not replaced when its pages have become alike: that would clear and shoot
 * down 512 translations that are good, to save one table and 511 faults that have been had already.
 * The table goes anyhow when the page becomes dirty, when it is recycled, or when the guest flushes
 * after an edit; the fault that follows looks again.
 */
#include "shadow/gpte.h"
#include "shadow/huge.h"

/* The 512 pages of @slot from @first on. */
static bool shadow_allows(struct shadow *shadow, const struct memslot *slot, uint64_t first)
{
	if (!shadow->machine->huge || shadow->no_huge)
		return false;
	if (!memslot_allows_huge(slot))
		return false;
	return gfn_set_next(&slot->tables, first, first + HUGE_PAGES) == first + HUGE_PAGES;
}

static bool window_open(const struct shadow *shadow, hva_t start, hva_t end)
{
	lockdep_assert_held(&shadow->mmu_lock);
	return shadow->invalidate_in_progress && start < shadow->invalidate_end &&
	       end > shadow->invalidate_start;
}

/* The leaf for @fault, or 0 where there may be none. */
static spte_t make_huge_spte(struct shadow *shadow, const struct huge_fault *fault)
{
	const struct memslot *slot = fault->slot;
	uint64_t rel_gfn = fault->walk->gfn - slot->base_gfn;
	uint64_t in_page = fault->walk->gfn & (HUGE_PAGES - 1);
	unsigned int rights = fault->rights;
	bool writable;
	hva_t hva;
	pfn_t pfn;

	if (!huge_region(slot, rel_gfn) || !shadow_allows(shadow, slot, rel_gfn - in_page))
		return 0;
	hva = memslot_hva(slot, fault->walk->gfn - in_page);
	if (!(shadow->broken & SHADOW_BREAK_RETRY) && window_open(shadow, hva, hva + MM_HUGE_SIZE))
		return 0;
	if (!hva_to_huge_pfn(shadow->mm, hva, rights & ACC_WRITE, &pfn, &writable) ||
	    pfn + in_page != fault->pfn)
		return 0;
	if (!writable)
		rights &= ~ACC_WRITE;
	return make_leaf_spte(pfn, rights) | SPTE_HUGE;
}

/* An invalidation had taken some of the pages. */
static void note_refaults(struct shadow *shadow, struct memslot *slot, uint64_t first)
{
	for (uint64_t i = first; i < first + HUGE_PAGES; i++) {
		if (!slot->zapped[i])
			continue;
		slot->zapped[i] = 0;
		atomic64_inc(&shadow->stats.refaults);
	}
}

static void note_origin(struct shadow_page *sp, unsigned int index, const struct guest_walk *walk)
{
	if (unlikely(sp->gptes) && !sp->role.direct)
		sp->gptes[index] = walk->gpte[HUGE_LEVEL] | (walk->dirty ? GPTE_DIRTY : 0);
}

bool huge_install(struct shadow *shadow, struct shadow_page *sp, const struct huge_fault *fault,
		  struct rmap_desc **spare, struct zap_batch *batch, enum ret_pf *ret)
{
	unsigned int index = table_index(fault->walk->gva, HUGE_LEVEL);
	/* Also of a piece of 1 GiB, whose direct table of level 2 @sp is then. */
	gfn_t gfn = fault->walk->gfn & ~(gfn_t)(HUGE_PAGES - 1);
	uint64_t rel_gfn = gfn - fault->slot->base_gfn;
	spte_t *sptep = &sp->spt[index];
	spte_t old = READ_ONCE(*sptep); /* whoever asks for ages clears A, without mmu_lock */
	struct huge_region *region;
	spte_t new;

	ASSERT(sp->role.level == HUGE_LEVEL, "leaves of 2 MiB are in tables of level 2");
	if (spte_present(old) && !(old & SPTE_HUGE))
		return false;
	new = make_huge_spte(shadow, fault);
	if (spte_present(old)) {
		*ret = RET_PF_RETRY;
		if (new && sp->gfns[index] == gfn && spte_allows(old, new)) {
			*ret = RET_PF_SPURIOUS;
		} else if (new && sp->gfns[index] == gfn && spte_allows(new, old)) {
			/* Rights are only gained: CPUs notice that without being told. What was
			 * done to it without mmu_lock is judged anew. */
			if (!try_cmpxchg(sptep, &old, new))
				return true;
			note_origin(sp, index, fault->walk);
			*ret = RET_PF_FIXED;
		} else {
			drop_leaf(shadow, sp, index, batch);
		}
		return true;
	}
	if (!new)
		return false;

	region = huge_region(fault->slot, rel_gfn);
	/* As of a page (K-07). */
	if (rmap_count(&region->rmap) >= RMAP_RECYCLE_THRESHOLD) {
		zap_rmap(shadow, &region->rmap, batch);
		*ret = RET_PF_RETRY;
		return true;
	}
	sp->gfns[index] = gfn;
	note_origin(sp, index, fault->walk);
	huge_rmap_add(fault->slot, rel_gfn, sptep, spare);
	smp_store_release(sptep, new);
	note_refaults(shadow, fault->slot, rel_gfn);
	atomic64_inc(&shadow->stats.huge_made);
	*ret = RET_PF_FIXED;
	return true;
}

/* ---- pages that become tables ---- */

static struct huge_region *region_of_gfn(struct shadow *shadow, gfn_t gfn)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), gfn);

	lockdep_assert_held(&shadow->mmu_lock);
	return slot ? huge_region(slot, gfn - slot->base_gfn) : NULL;
}

/* One more: the gfn itself may have to be protected. */
bool huge_forbid_fits(struct shadow *shadow, gfn_t gfn, const struct zap_batch *batch)
{
	const struct huge_region *region = region_of_gfn(shadow, gfn);
	unsigned int nr = region ? rmap_count(&region->rmap) : 0;

	return batch->nr_entries + nr + 1 <= ZAP_BATCH_ENTRIES &&
	       batch->nr_frames + 2 <= ZAP_BATCH_FRAMES;
}

void huge_forbid(struct shadow *shadow, gfn_t gfn, struct zap_batch *batch)
{
	const struct huge_region *region = region_of_gfn(shadow, gfn);
	spte_t *sptep;

	while (region && (sptep = rmap_first(&region->rmap))) {
		struct shadow_page *sp = sptep_to_sp(shadow, sptep);

		ASSERT(sp, "an rmap names entries of live shadow pages");
		drop_leaf(shadow, sp, sptep - sp->spt, batch);
		batch->huge_forbidden = true;
	}
}

/* ---- slots that change ---- */

bool huge_zap(struct shadow *shadow, struct memslot *slot, uint64_t *region,
	      struct zap_batch *batch)
{
	uint64_t i;

	for_each_gfn(i, &slot->huge_mapped, *region, nr_huge(slot)) {
		*region = i;
		if (!zap_rmap(shadow, &slot->huge[i].rmap, batch))
			return false;
	}
	return true;
}

/* ---- rmaps ---- */

void huge_rmap_add(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep, struct rmap_desc **spare)
{
	struct huge_region *region = huge_region(slot, rel_gfn);

	ASSERT(region, "a huge leaf maps a region of a slot");
	gfn_set_add(&slot->huge_mapped, (uint64_t)(region - slot->huge));
	rmap_add(&region->rmap, sptep, spare);
}

void huge_rmap_remove(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep)
{
	struct huge_region *region = huge_region(slot, rel_gfn);

	ASSERT(region, "a huge leaf maps a region of a slot");
	rmap_remove(&region->rmap, sptep);
	if (!rmap_count(&region->rmap))
		gfn_set_remove(&slot->huge_mapped, (uint64_t)(region - slot->huge));
}

/* No lock: before the first vCPU runs. */
void shadow_set_huge(struct shadow *shadow, bool on)
{
	shadow->no_huge = !on;
}
