/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor, of what leaves map:
 *
 *   leaf  -> its gfn is in a slot, whose rmap names it; its frame is what the primary page table
 *            maps there, and is no table of ours; it grants what primary entry and role both do
 *   rmap  -> each entry is a present leaf of that very gfn, and is there once
 *
 * The primary page table is changed only inside windows, which begin with a zap: so under mmu_lock
 * no present leaf may disagree with it, at any moment, whatever the host is doing (I1, I3). That
 * holds for rights as for frames.
 */
#include "shadow/audit.h"

/* The guest would write its own shadow tables. */
static bool is_table(struct shadow *shadow, pfn_t pfn)
{
	if (pfn >= phys_nr_frames(mm_phys(shadow->mm)))
		return false;
	return sptep_to_sp(shadow, shadow->machine->ops->map_frame(shadow->machine, pfn));
}

void audit_frame(struct audit *audit, const struct memslot *slot, gfn_t gfn, pfn_t mapped,
		 spte_t spte)
{
	struct mm_page page;
	pfn_t pfn;

	mm_lookup_page(audit->shadow->mm, memslot_hva(slot, gfn), &page);
	pfn = page.kind == MM_PAGE_PRESENT ? page.number : INVALID_PFN;
	if (is_table(audit->shadow, mapped))
		audit_found(audit, SHADOW_BAD_TABLE, "gfn %#lx is mapped to frame %#lx, a table",
			    gfn, mapped);
	if (pfn != mapped)
		audit_found(audit, SHADOW_BAD_FRAME,
			    "gfn %#lx is mapped to frame %#lx, but the host has it at %#lx", gfn,
			    mapped, pfn);
	else if (!(page.prot & MM_PROT_READ) ||
		 (spte_writable(spte) && !(page.prot & MM_PROT_WRITE)))
		audit_found(audit, SHADOW_BAD_HOST,
			    "gfn %#lx can be %s, but the host's entry is %#lx", gfn,
			    spte_writable(spte) ? "written" : "read", page.entry);
}

void audit_rights(struct audit *audit, const struct shadow_page *sp, gfn_t gfn, spte_t spte)
{
	unsigned int rights = role_rights(sp->role);

	if (spte_writable(spte) && !(rights & ACC_WRITE))
		audit_found(audit, SHADOW_BAD_RIGHT,
			    "a writable leaf of gfn %#lx in a table without that right", gfn);
	if (!(spte & SPTE_NX) && !(rights & ACC_EXEC))
		audit_found(audit, SHADOW_BAD_RIGHT,
			    "a leaf of gfn %#lx to execute, in a table without that right", gfn);
	if (!(rights & ACC_READ))
		audit_found(audit, SHADOW_BAD_RIGHT,
			    "a leaf of gfn %#lx in a table of which nothing may be read", gfn);
}

void audit_leaf(struct audit *audit, struct shadow_page *sp, unsigned int index)
{
	spte_t spte = READ_ONCE(sp->spt[index]);
	gfn_t gfn = sp->gfns[index];
	struct memslot *slot = gfn_to_memslot(shadow_memslots(audit->shadow), gfn);

	if (!slot) {
		audit_found(audit, SHADOW_BAD_SLOT, "a leaf maps gfn %#lx, where no slot is", gfn);
		return;
	}
	if (!rmap_contains(&slot->rmap[gfn - slot->base_gfn], &sp->spt[index]))
		audit_found(audit, SHADOW_BAD_RMAP,
			    "the rmap of gfn %#lx misses entry %u of the table of gfn %#lx", gfn,
			    index, sp->gfn);
	if (sp->role.direct && gfn != sp->gfn + index)
		audit_found(audit, SHADOW_BAD_GFN,
			    "entry %u of the direct table of gfn %#lx maps gfn %#lx", index,
			    sp->gfn, gfn);
	audit_frame(audit, slot, gfn, spte_pfn(spte), spte);
	audit_rights(audit, sp, gfn, spte);
	audit_leaf_guest(audit, sp, index);
}

/* The other direction. */
struct audit_rmap {
	struct audit *audit;
	gfn_t gfn;
};

static void audit_rmap_entry(spte_t *sptep, void *arg)
{
	const struct audit_rmap *rmap = arg;
	const struct shadow_page *sp = sptep_to_sp(rmap->audit->shadow, sptep);

	if (!sp || sp->role.level != 1 || !spte_present(READ_ONCE(*sptep)))
		audit_found(rmap->audit, SHADOW_BAD_RMAP,
			    "the rmap of gfn %#lx names what is no leaf", rmap->gfn);
	else if (sp->gfns[sptep - sp->spt] != rmap->gfn)
		audit_found(rmap->audit, SHADOW_BAD_RMAP,
			    "the rmap of gfn %#lx names a leaf of gfn %#lx", rmap->gfn,
			    sp->gfns[sptep - sp->spt]);
}

/* A page that is a table of the guest's is known for one, and no other is. */
static void audit_is_table(struct audit *audit, const struct memslot *slot, uint64_t rel_gfn)
{
	gfn_t gfn = slot->base_gfn + rel_gfn;
	bool table = guest_table_find(audit->shadow, gfn);

	if (gfn_set_has(&slot->tables, rel_gfn) != table)
		audit_found(audit, SHADOW_BAD_SUMMARY,
			    "gfn %#lx is %s table of the guest's, and the set of those %s", gfn,
			    table ? "a" : "no", table ? "misses it" : "has it");
}

/* And the summaries of a slot are those of its rmaps, and of its tables. Returns how many entries
 * the rmaps have. */
static uint64_t audit_slot(struct audit *audit, const struct memslot *slot)
{
	uint64_t nr = 0;

	if (!gfn_set_sound(&slot->mapped))
		audit_found(audit, SHADOW_BAD_SUMMARY,
			    "the set of mapped pages of slot %u contradicts itself", slot->id);
	if (!gfn_set_sound(&slot->tables))
		audit_found(audit, SHADOW_BAD_SUMMARY,
			    "the set of guest tables in slot %u contradicts itself", slot->id);
	for (uint64_t i = 0; i < slot->npages; i++) {
		struct audit_rmap rmap = {.audit = audit, .gfn = slot->base_gfn + i};
		unsigned int count = rmap_count(&slot->rmap[i]);

		if (gfn_set_has(&slot->mapped, i) != (count != 0))
			audit_found(audit, SHADOW_BAD_SUMMARY,
				    "gfn %#lx has %u leaves, and the set of mapped pages %s",
				    rmap.gfn, count, count ? "misses it" : "has it");
		audit_is_table(audit, slot, i);
		if (count > RMAP_RECYCLE_THRESHOLD)
			audit_found(audit, SHADOW_BAD_RMAP, "gfn %#lx is mapped %u times", rmap.gfn,
				    count);
		if (count)
			rmap_each(&slot->rmap[i], audit_rmap_entry, &rmap);
		nr += count;
	}
	return nr + audit_huge_rmaps(audit, slot);
}

static bool is_leaf(const struct shadow_page *sp, unsigned int index)
{
	spte_t spte = READ_ONCE(sp->spt[index]);

	return spte_present(spte) && spte_is_leaf(spte, sp->role.level);
}

static uint64_t count_leaves(struct shadow *shadow)
{
	struct shadow_page *sp;
	uint64_t nr = 0;

	list_for_each_entry(sp, &shadow->pages, link) {
		for (unsigned int i = 0; i < TABLE_ENTRIES; i++)
			nr += is_leaf(sp, i);
	}
	return nr;
}

void audit_rmaps(struct audit *audit)
{
	const struct memslots *slots = shadow_memslots(audit->shadow);
	uint64_t in_rmaps = 0, leaves = count_leaves(audit->shadow);

	if (!memslots_sound(slots))
		audit_found(audit, SHADOW_BAD_SLOT, "the indexes of the memslots differ");
	/* Each leaf is in its rmap, and each entry there is a leaf: with as many of the one as of
	 * the other, none is there twice. */
	for (unsigned int i = 0; i < slots->nr; i++)
		in_rmaps += audit_slot(audit, slots->by_gfn[i]);
	if (in_rmaps != leaves)
		audit_found(audit, SHADOW_BAD_RMAP, "%lu entries in rmaps, but %lu present leaves",
			    in_rmaps, leaves);
}
