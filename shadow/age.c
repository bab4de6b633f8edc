/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Has the guest used a page (K-40)? The accessed bits of the leaves that map it tell: they are set
 * when a leaf is made, as it is made for an access, and by a CPU that walks to a leaf without.
 *
 * A CPU that remembers a leaf does not walk. So after a bit was cleared a use may go unnoticed,
 * until the CPU forgets; clear_flush_young makes it forget. clear_young does not, and marks the
 * leaf instead (SPTE_AGED), as the next clear_flush_young would find no accessed bit there, and
 * nothing to do: on a host that shadows our tables no use would ever be noticed again.
 *
 * Where CPUs set no accessed bits (machine->no_accessed_bits) the bit that is cleared is P, and the
 * next use a fault that sets it again, without mmu_lock (fast_fault.c). All else is the same: who
 * remembers a leaf does not fault either.
 *
 * Nothing is taken away in any case: the guest may use the page all along, no fault follows but
 * that, and so there is no window, no sequence, and no batch that anyone waits for.
 *
 * mmu_lock is not taken (K-40): who looks for old pages asks about each of them, and would be in
 * the way of every fault. What stands in for it:
 *
 *  1. The slots: a section of slots_srcu. Which pages have leaves: slot->mapped, which misses none
 *     that has one all the while (gfn_set.h).
 *  2. The leaves of a page: the lock in the head of its rmap. Who zaps takes a leaf out of the rmap
 *     before the leaf is cleared, and so before its table may go: it waits for us, and we never
 *     touch a table that is not the MMU's any more.
 *  3. A leaf itself: changed by compare-and-exchange, as CPUs set bits of it at the same time. What
 *     others store there under mmu_lock is never lost. What we do may be: a leaf that gains rights
 *     just then is accessed again, which is the truth.
 *  4. A leaf that comes while we look is missed or not; so it is by who looks a moment before.
 *  5. A huge leaf has one accessed bit for 512 pages. Whoever clears it for one of them takes the
 *     answer from the others: so these are noted in region->young, and each is told young once, by
 *     that. So a use makes each page young once, whoever asks.
 *
 *       age                                     zap of the table, under mmu_lock
 *       ---                                     --------------------------------
 *       locks the rmap, finds the leaf
 *                                               rmap_remove(): waits
 *       clears A; unlocks
 *                                               removes the leaf, clears it, retires the table
 *         (without the lock in the head: would write to what is another table by now)
 *
 * Replayed by tests/races (age).
 */
#include "shadow/huge.h"

#include "notifier/sync/util.h"

#define AGE_FRAMES 64

struct age {
	struct shadow *shadow;
	bool clear, flush; /* flush needs clear */
	bool young;
	bool full; /* a leaf was left alone, as there was no room for its frame */
	unsigned int nr_frames;
	pfn_t frames[AGE_FRAMES]; /* to be shot down */
};

/* What becomes of @spte. */
static spte_t aged(const struct age *age, spte_t spte)
{
	const spte_t used = age->shadow->used_bit;

	if (!age->clear)
		return spte;
	if (age->flush)
		return spte & ~(used | SPTE_AGED);
	return spte & used ? (spte & ~used) | SPTE_AGED : spte;
}

/* All leaves of a page, or of a region, name the same (spte_frames): that which was noted last, if
 * this is not the first. */
static bool note_frame(struct age *age, pfn_t pfn)
{
	if (age->nr_frames && age->frames[age->nr_frames - 1] == pfn)
		return true;
	if (age->nr_frames == AGE_FRAMES)
		return false;
	age->frames[age->nr_frames++] = pfn;
	return true;
}

static void age_one(spte_t *sptep, void *arg)
{
	struct age *age = arg;
	const spte_t used = age->shadow->used_bit;
	spte_t spte;

	shadow_hook(age->shadow, SHADOW_HOOK_AGE);
	spte = READ_ONCE(*sptep);
	do {
		if (age->flush && (spte & (used | SPTE_AGED)) &&
		    !note_frame(age, spte_frames(spte))) {
			age->full = true;
			return;
		}
	} while (aged(age, spte) != spte && !try_cmpxchg(sptep, &spte, aged(age, spte)));
	if (spte & used)
		age->young = true;
}

static void shoot_aged(struct age *age)
{
	shadow_shoot(age->shadow, age->frames, age->nr_frames);
	age->nr_frames = 0;
}

/* All leaves of @head. */
static void age_rmap(struct age *age, struct rmap_head *head)
{
	do {
		age->full = false;
		rmap_each_lockless(head, age_one, age);
		if (age->full)
			shoot_aged(age);
	} while (age->full);
}

/* What is noted of pages [first, last) of @region. */
static void age_noted(struct age *age, struct huge_region *region, uint64_t first, uint64_t last)
{
	for (uint64_t n = first; n < last; n++) {
		uint64_t *word = &region->young[n / 64];
		uint64_t bit = 1UL << (n % 64), old = READ_ONCE(*word);

		age->young |= !!(old & bit);
		while (age->clear && (old & bit) && !try_cmpxchg(word, &old, old & ~bit))
			;
	}
}

/* The huge leaves over pages [first, last) of @slot. */
static void age_huge(struct age *age, struct memslot *slot, uint64_t first, uint64_t last)
{
	uint64_t begin, end, i;

	huge_overlap(slot, first, last, &begin, &end);
	for_each_gfn(i, &slot->huge_mapped, begin, end) {
		struct huge_region *region = &slot->huge[i];
		uint64_t from = huge_first(slot) + i * HUGE_PAGES;
		bool young = age->young;

		age->young = false;
		age_rmap(age, &region->rmap);
		if (age->young && age->clear) {
			for (unsigned int i = 0; i < HUGE_PAGES / 64; i++)
				WRITE_ONCE(region->young[i], ~0UL);
		}
		age->young |= young;
		age_noted(age, region, max(from, first) - from,
			  min(from + HUGE_PAGES, last) - from);
	}
}

/* What of [start, end) lies in @slot. */
static void age_slot(struct age *age, struct memslot *slot, hva_t start, hva_t end)
{
	uint64_t first, last, n;

	memslot_overlap(slot, start, end, &first, &last);
	age_huge(age, slot, first, last);
	for_each_gfn(n, &slot->mapped, first, last)
		age_rmap(age, &slot->rmap[n]);
}

static bool age_range(struct shadow *shadow, hva_t start, hva_t end, bool clear, bool flush)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	const struct memslots *slots = shadow_memslots(shadow);
	struct age age = {.shadow = shadow, .clear = clear, .flush = flush};
	unsigned int i;

	/* Who reads by way of a cache leaves no mark: he is to come back, and be marked for that.
	 */
	if (clear)
		gfn_to_pfn_cache_invalidate_start(shadow, start, end);
	for_each_memslot_in(i, slots, start, end) age_slot(&age, slots->by_hva[i], start, end);
	shoot_aged(&age);
	srcu_read_unlock(&shadow->slots_srcu, id);
	return age.young;
}

bool shadow_clear_flush_young(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t start,
			      hva_t end)
{
	(void)mm;
	return age_range(notifier_to_shadow(subscription), start, end, true, true);
}

bool shadow_clear_young(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t start,
			hva_t end)
{
	(void)mm;
	return age_range(notifier_to_shadow(subscription), start, end, true, false);
}

bool shadow_test_young(struct mmu_notifier *subscription, struct mm_struct *mm, hva_t address)
{
	hva_t start = address & PAGE_MASK;

	(void)mm;
	return age_range(notifier_to_shadow(subscription), start, start + PAGE_SIZE, false, false);
}
