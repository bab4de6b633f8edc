/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor, of entries that map 2 MiB (huge.c):
 *
 *   huge leaf  -> its gfn and its frame are aligned; it maps a region of a slot, whose rmap names
 *                 it; no page of that is a table of the guest's; each of the 512 frames is what the
 *                 primary page table maps there, with the rights of the leaf
 *   region     -> each entry of its rmap is a present huge leaf of it
 */
#include "shadow/audit.h"
#include "shadow/huge.h"

/* While a slot becomes one that may have none (memslot.c) those that it has are about to go. */
static bool may_have_huge(const struct shadow *shadow, const struct memslot *slot)
{
	return memslot_allows_huge(slot) || slot == READ_ONCE(shadow->narrowed);
}

static void audit_place(struct audit *audit, const struct memslot *slot, gfn_t gfn, spte_t spte)
{
	uint64_t rel_gfn = gfn - slot->base_gfn;

	if ((gfn | spte_pfn(spte)) & (HUGE_PAGES - 1))
		audit_found(audit, SHADOW_BAD_HUGE, "2 MiB of gfn %#lx are mapped to frame %#lx",
			    gfn, spte_pfn(spte));
	if (!may_have_huge(audit->shadow, slot))
		audit_found(audit, SHADOW_BAD_HUGE, "slot %u has no 2 MiB of gfn %#lx", slot->id,
			    gfn);
	else if (gfn_set_next(&slot->tables, rel_gfn, rel_gfn + HUGE_PAGES) != rel_gfn + HUGE_PAGES)
		audit_found(audit, SHADOW_BAD_HUGE,
			    "2 MiB of gfn %#lx are mapped, and a table of the guest's is in it",
			    gfn);
}

void audit_huge(struct audit *audit, struct shadow_page *sp, unsigned int index)
{
	spte_t spte = READ_ONCE(sp->spt[index]);
	gfn_t gfn = sp->gfns[index];
	struct memslot *slot = gfn_to_memslot(shadow_memslots(audit->shadow), gfn);
	const struct huge_region *region = slot ? huge_region(slot, gfn - slot->base_gfn) : NULL;

	if (!region) {
		audit_found(audit, SHADOW_BAD_SLOT, "2 MiB of gfn %#lx, where no slot has them",
			    gfn);
		return;
	}
	if (!rmap_contains(&region->rmap, &sp->spt[index]))
		audit_found(
			audit, SHADOW_BAD_RMAP,
			"the rmap of 2 MiB of gfn %#lx misses entry %u of the table of gfn %#lx",
			gfn, index, sp->gfn);
	if (sp->role.direct && gfn != sp->gfn + index * HUGE_PAGES)
		audit_found(audit, SHADOW_BAD_GFN,
			    "entry %u of the direct table of gfn %#lx maps 2 MiB of gfn %#lx",
			    index, sp->gfn, gfn);
	audit_place(audit, slot, gfn, spte);
	for (unsigned int i = 0; i < HUGE_PAGES; i++)
		audit_frame(audit, slot, gfn + i, spte_pfn(spte) + i, spte);
	audit_rights(audit, sp, gfn, spte);
	audit_leaf_guest(audit, sp, index);
}

struct audit_region {
	struct audit *audit;
	gfn_t gfn;
};

static void audit_region_entry(spte_t *sptep, void *arg)
{
	const struct audit_region *region = arg;
	const struct shadow_page *sp = sptep_to_sp(region->audit->shadow, sptep);
	spte_t spte = READ_ONCE(*sptep);

	if (!sp || sp->role.level != HUGE_LEVEL || !spte_present(spte) || !(spte & SPTE_HUGE))
		audit_found(region->audit, SHADOW_BAD_RMAP,
			    "the rmap of 2 MiB of gfn %#lx names what is no such leaf",
			    region->gfn);
	else if (sp->gfns[sptep - sp->spt] != region->gfn)
		audit_found(region->audit, SHADOW_BAD_RMAP,
			    "the rmap of 2 MiB of gfn %#lx names a leaf of gfn %#lx", region->gfn,
			    sp->gfns[sptep - sp->spt]);
}

uint64_t audit_huge_rmaps(struct audit *audit, const struct memslot *slot)
{
	uint64_t nr = 0;

	if (nr_huge(slot) && !gfn_set_sound(&slot->huge_mapped))
		audit_found(audit, SHADOW_BAD_SUMMARY,
			    "the set of mapped 2 MiB of slot %u contradicts itself", slot->id);
	for (uint64_t i = 0; i < nr_huge(slot); i++) {
		struct audit_region region = {
			.audit = audit,
			.gfn = slot->base_gfn + huge_first(slot) + i * HUGE_PAGES,
		};
		unsigned int count = rmap_count(&slot->huge[i].rmap);

		if (gfn_set_has(&slot->huge_mapped, i) != (count != 0))
			audit_found(audit, SHADOW_BAD_SUMMARY,
				    "2 MiB of gfn %#lx are mapped %u times, which slot %u has not "
				    "noted",
				    region.gfn, count, slot->id);
		if (count > RMAP_RECYCLE_THRESHOLD)
			audit_found(audit, SHADOW_BAD_RMAP, "2 MiB of gfn %#lx are mapped %u times",
				    region.gfn, count);
		if (count)
			rmap_each(&slot->huge[i].rmap, audit_region_entry, &region);
		nr += count;
	}
	return nr;
}
