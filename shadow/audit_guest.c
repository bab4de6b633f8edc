/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor, of what the guest said: an entry of ours grants no more than the guest's entry gave
 * that it was made from, together with the rights that are left above it, for the accesses of its
 * view. Link by link from the root down that is the composition of the whole walk:
 *
 *   root   all rights                               gfn of CR3
 *   link   role.access = that of the table & the entry's      gfn: the table or page that it names
 *   leaf   rights at most leaf_rights() of the same           gfn: the same
 *
 * What a guest's entry was is noted when ours is made of it, if the audit asks for that beforehand
 * (shadow_page.gptes). What it is now says less: the guest may have changed it, and its CPUs, as
 * ours do, may keep what it gave until an INVLPG or a load of CR3. Even a table that is in step
 * (write_protect.c) may have been written by the host, or a device, that told nobody. Who knows
 * that all are, as nobody has changed one, asks for IN_SYNC.
 *
 * What remains unsaid: whether something is missing. A table may grant less than it could, or
 * nothing, at any time.
 */
#include "shadow/audit.h"
#include "shadow/gpte.h"

static bool gpte_usable(const struct shadow_page *sp, uint64_t gpte)
{
	return (gpte & GPTE_PRESENT) &&
	       !(gpte & gpte_reserved(gpte, sp->role.level, sp->role.maxphyaddr, sp->role.nxe));
}

static unsigned int pkey_of(const struct shadow_page *sp, uint64_t gpte)
{
	return sp->role.pke ? gpte_pkey(gpte) : 0;
}

static bool gives_link(const struct shadow_page *sp, const struct shadow_page *child, uint64_t gpte)
{
	bool page = gpte_is_leaf(gpte, sp->role.level);

	if (!gpte_usable(sp, gpte) || child->gfn != gpte_gfn(gpte, sp->role.level))
		return false;
	if (child->role.access != (sp->role.access & gpte_access(gpte)) ||
	    child->role.direct != page)
		return false;
	/* A page that has become dirty gives what a clean one does. */
	return !page || (child->role.dirty <= !!(gpte & GPTE_DIRTY) &&
			 child->role.pkey == pkey_of(sp, gpte));
}

static bool gives_leaf(const struct shadow_page *sp, unsigned int index, uint64_t gpte)
{
	spte_t spte = READ_ONCE(sp->spt[index]);
	unsigned int rights = leaf_rights(sp->role, sp->role.access & gpte_access(gpte),
					  pkey_of(sp, gpte), gpte & GPTE_DIRTY);

	if (!gpte_usable(sp, gpte) || !gpte_is_leaf(gpte, sp->role.level) ||
	    sp->gfns[index] != gpte_gfn(gpte, sp->role.level))
		return false;
	return (rights & ACC_READ) && (!spte_writable(spte) || (rights & ACC_WRITE)) &&
	       ((spte & SPTE_NX) || (rights & ACC_EXEC));
}

/* False: it cannot be read now. */
static bool gpte_now(struct shadow *shadow, const struct shadow_page *sp, unsigned int index,
		     uint64_t *gpte)
{
	hva_t hva = gpa_to_hva(shadow, (sp->gfn << PAGE_SHIFT) + index * sizeof(*gpte));

	return hva != INVALID_HVA && !mm_read64_atomic(shadow->mm, hva, gpte);
}

/* A table in ROM keeps no marks: pages are written all the same. */
static uint64_t with_rom_marks(struct shadow *shadow, const struct shadow_page *sp, uint64_t gpte)
{
	const struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), sp->gfn);

	return slot && (slot->flags & MEMSLOT_READONLY) ? gpte | GPTE_DIRTY : gpte;
}

void audit_leaf_guest(struct audit *audit, struct shadow_page *sp, unsigned int index)
{
	uint64_t gpte;

	if (audit->level < SHADOW_AUDIT_SEMANTIC || sp->role.direct)
		return;
	if (sp->gptes && !gives_leaf(sp, index, sp->gptes[index]))
		audit_found(
			audit, SHADOW_BAD_ORIGIN,
			"entry %u of the table of gfn %#lx is %#lx for gfn %#lx, made from %#lx",
			index, sp->gfn, sp->spt[index], sp->gfns[index], sp->gptes[index]);
	if (audit->level >= SHADOW_AUDIT_IN_SYNC && gpte_now(audit->shadow, sp, index, &gpte) &&
	    !gives_leaf(sp, index, with_rom_marks(audit->shadow, sp, gpte)))
		audit_found(audit, SHADOW_BAD_STALE,
			    "entry %u of the table of gfn %#lx is %#lx for gfn %#lx, the guest has "
			    "%#lx",
			    index, sp->gfn, sp->spt[index], sp->gfns[index], gpte);
}

void audit_link_guest(struct audit *audit, struct shadow_page *sp, unsigned int index,
		      const struct shadow_page *child)
{
	uint64_t gpte;

	if (audit->level < SHADOW_AUDIT_SEMANTIC || sp->role.direct)
		return;
	if (sp->gptes && !gives_link(sp, child, sp->gptes[index]))
		audit_found(audit, SHADOW_BAD_ORIGIN,
			    "entry %u of the level %u table of gfn %#lx links to gfn %#lx in role "
			    "%#lx, made from %#lx",
			    index, sp->role.level, sp->gfn, child->gfn, child->role.word,
			    sp->gptes[index]);
	if (audit->level >= SHADOW_AUDIT_IN_SYNC && gpte_now(audit->shadow, sp, index, &gpte) &&
	    !gives_link(sp, child, gpte))
		audit_found(audit, SHADOW_BAD_STALE,
			    "entry %u of the level %u table of gfn %#lx links to gfn %#lx in role "
			    "%#lx, the guest has %#lx",
			    index, sp->role.level, sp->gfn, child->gfn, child->role.word, gpte);
}
