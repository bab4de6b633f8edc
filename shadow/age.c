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
 * Nothing is taken away in any case: the guest may use the page all along, no fault follows, and so
 * there is no window, no sequence, and no batch that anyone waits for.
 *
 * Entries change by compare-and-exchange, as CPUs set bits of them at the same time.
 */
#include "shadow/shadow_internal.h"

#define AGE_FRAMES 64

struct age {
	bool clear, flush; /* flush needs clear */
	bool young;
	unsigned int nr_frames;
	pfn_t frames[AGE_FRAMES]; /* to be shot down */
};

/* What becomes of @spte. */
static spte_t aged(const struct age *age, spte_t spte)
{
	if (!age->clear)
		return spte;
	if (age->flush)
		return spte & ~(SPTE_ACCESSED | SPTE_AGED);
	return spte & SPTE_ACCESSED ? (spte & ~SPTE_ACCESSED) | SPTE_AGED : spte;
}

static void age_one(spte_t *sptep, void *arg)
{
	spte_t spte = READ_ONCE(*sptep);
	struct age *age = arg;
	pfn_t pfn = spte_pfn(spte);

	while (aged(age, spte) != spte && !try_cmpxchg(sptep, &spte, aged(age, spte)))
		;
	if (spte & SPTE_ACCESSED)
		age->young = true;
	/* All leaves of a page name one frame: that which was noted last, if this is not the first.
	 */
	if (age->flush && (spte & (SPTE_ACCESSED | SPTE_AGED)) &&
	    !(age->nr_frames && age->frames[age->nr_frames - 1] == pfn))
		age->frames[age->nr_frames++] = pfn;
}

/* What of [start, end) lies in @slot; mmu_lock is dropped for the shootdowns. */
static void age_slot(struct shadow *shadow, struct memslot *slot, hva_t start, hva_t end,
		     struct age *age)
{
	hva_t slot_end = slot->hva + (slot->npages << PAGE_SHIFT);

	if (start < slot->hva)
		start = slot->hva;
	for (hva_t hva = start; hva < end && hva < slot_end; hva += PAGE_SIZE) {
		rmap_each(&slot->rmap[(hva - slot->hva) >> PAGE_SHIFT], age_one, age);
		if (age->nr_frames < AGE_FRAMES)
			continue;
		spin_unlock(&shadow->mmu_lock);
		shadow_shoot(shadow, age->frames, age->nr_frames);
		age->nr_frames = 0;
		spin_lock(&shadow->mmu_lock);
	}
}

static bool age_range(struct shadow *shadow, hva_t start, hva_t end, bool clear, bool flush)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	const struct memslots *slots = shadow_memslots(shadow);
	struct age age = {.clear = clear, .flush = flush};
	unsigned int i;

	spin_lock(&shadow->mmu_lock);
	for_each_memslot_in(i, slots, start, end)
		age_slot(shadow, slots->by_hva[i], start, end, &age);
	spin_unlock(&shadow->mmu_lock);
	shadow_shoot(shadow, age.frames, age.nr_frames);
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
