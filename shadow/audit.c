/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor: is every structure what every other one says it is? (K-08, K-09, K-27.)
 *
 *   directory entry  -> names a live page one level down, which lists it among its parents
 *   parent           -> is a present entry that names the page
 *   leaf             -> its gfn is in a slot, whose rmap names it; its frame is what the primary
 * page table maps there rmap             -> is a present leaf that maps that very gfn page -> found
 * by its gfn and role, and by its table; reachable from a root
 *
 * The primary page table is changed only inside windows, which begin with a zap: so under mmu_lock
 * no present leaf may disagree with it, at any moment, whatever the host is doing (I1, I3).
 */
#include <stdarg.h>
#include <stdio.h>

#include "shadow/shadow_internal.h"

struct audit {
	struct shadow *shadow;
	unsigned int violations;
	char *why;
	size_t why_len;
};

__attribute__((format(printf, 2, 3))) static void violation(struct audit *audit, const char *fmt,
							    ...)
{
	if (!audit->violations++ && audit->why) {
		va_list ap;

		va_start(ap, fmt);
		vsnprintf(audit->why, audit->why_len, fmt, ap);
		va_end(ap);
	}
}

/* A link keeps the view; rights are only lost on the way down; below a piece of a large page are
 * its own pieces. */
static bool roles_fit(const struct shadow_page *sp, const struct shadow_page *child,
		      unsigned int index)
{
	struct shadow_role role = sp->role;

	role.level--;
	if (role.direct)
		return child->role.word == role.word &&
		       child->gfn == sp->gfn + index * table_pages(role.level);
	if (child->role.direct && (child->gfn & (table_pages(role.level) - 1)))
		return false;
	role.access &= child->role.access;
	role.direct = child->role.direct;
	role.dirty = child->role.dirty;
	role.pkey = child->role.pkey;
	return child->role.word == role.word;
}

static void audit_link(struct audit *audit, struct shadow_page *sp, unsigned int index)
{
	struct shadow_page *child = spte_to_child(audit->shadow, sp->spt[index]);

	if (!child) {
		violation(audit, "entry %u of the level %u table of gfn %#lx names no live page",
			  index, sp->role.level, sp->gfn);
		return;
	}
	if (child->role.level != sp->role.level - 1)
		violation(audit, "a level %u table links to one of level %u", sp->role.level,
			  child->role.level);
	else if (!roles_fit(sp, child, index))
		violation(audit,
			  "entry %u of the table of gfn %#lx, role %#lx, links to gfn %#lx in role "
			  "%#lx",
			  index, sp->gfn, sp->role.word, child->gfn, child->role.word);
	if (!rmap_contains(&child->parents, &sp->spt[index]))
		violation(audit,
			  "the page of gfn %#lx does not know its parent entry %u of gfn %#lx",
			  child->gfn, index, sp->gfn);
}

static void audit_leaf(struct audit *audit, struct shadow_page *sp, unsigned int index)
{
	spte_t spte = sp->spt[index];
	gfn_t gfn = sp->gfns[index];
	unsigned int rights = role_rights(sp->role);
	struct memslot *slot = gfn_to_memslot(audit->shadow->slots, gfn);
	pfn_t pfn;

	if (!slot) {
		violation(audit, "a leaf maps gfn %#lx, where no slot is", gfn);
		return;
	}
	if (!rmap_contains(&slot->rmap[gfn - slot->base_gfn], &sp->spt[index]))
		violation(audit, "the rmap of gfn %#lx misses entry %u of the table of gfn %#lx",
			  gfn, index, sp->gfn);
	if (sp->role.direct && gfn != sp->gfn + index)
		violation(audit, "entry %u of the direct table of gfn %#lx maps gfn %#lx", index,
			  sp->gfn, gfn);
	pfn = mm_lookup_pfn(audit->shadow->mm, memslot_hva(slot, gfn));
	if (pfn != spte_pfn(spte))
		violation(audit, "gfn %#lx is mapped to frame %#lx, but the host has it at %#lx",
			  gfn, spte_pfn(spte), pfn);
	if (!(rights & ACC_READ))
		violation(audit, "a leaf of gfn %#lx in a table of which nothing may be read", gfn);
	if ((spte & SPTE_WRITE) && !(rights & ACC_WRITE))
		violation(audit, "a writable leaf of gfn %#lx in a table without that right", gfn);
	if (!(spte & SPTE_NX) && !(rights & ACC_EXEC))
		violation(audit, "a leaf of gfn %#lx to execute, in a table without that right",
			  gfn);
}

static void audit_page(struct audit *audit, struct shadow_page *sp)
{
	struct shadow *shadow = audit->shadow;

	if (shadow_page_find(shadow, sp->gfn, sp->role) != sp)
		violation(audit, "two pages for gfn %#lx in the same role", sp->gfn);
	if (sptep_to_sp(shadow, sp->spt) != sp)
		violation(audit, "the table of gfn %#lx is not found by its address", sp->gfn);
	if (sp->root_count != (int)root_cache_count(shadow, sp))
		violation(audit, "the root of gfn %#lx is counted %d times, and kept in %u places",
			  sp->gfn, sp->root_count, root_cache_count(shadow, sp));
	if (!sp->root_count && !sp->parents.val)
		violation(audit, "the page of gfn %#lx is neither linked nor a root", sp->gfn);
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		if (!spte_present(sp->spt[i]))
			continue;
		if (root_is_dummy(sp))
			violation(audit, "entry %u of a dummy root is present", i);
		if (sp->role.level == 1)
			audit_leaf(audit, sp, i);
		else
			audit_link(audit, sp, i);
	}
}

/* The other direction: each entry of an rmap is a leaf, of that very page. */
struct audit_rmap {
	struct audit *audit;
	gfn_t gfn;
};

static void audit_rmap_entry(spte_t *sptep, void *arg)
{
	const struct audit_rmap *rmap = arg;
	const struct shadow_page *sp = sptep_to_sp(rmap->audit->shadow, sptep);

	if (!sp || sp->role.level != 1 || !spte_present(*sptep))
		violation(rmap->audit, "the rmap of gfn %#lx names what is no leaf", rmap->gfn);
	else if (sp->gfns[sptep - sp->spt] != rmap->gfn)
		violation(rmap->audit, "the rmap of gfn %#lx names a leaf of gfn %#lx", rmap->gfn,
			  sp->gfns[sptep - sp->spt]);
}

/* And the summary of a slot is that of its rmaps. Returns how many entries they have. */
static uint64_t audit_slot(struct audit *audit, const struct memslot *slot)
{
	uint64_t nr = 0;

	if (!gfn_set_sound(&slot->mapped))
		violation(audit, "the set of mapped pages of slot %u contradicts itself", slot->id);
	for (uint64_t i = 0; i < slot->npages; i++) {
		struct audit_rmap rmap = {.audit = audit, .gfn = slot->base_gfn + i};
		unsigned int count = rmap_count(&slot->rmap[i]);

		if (gfn_set_has(&slot->mapped, i) != (count != 0))
			violation(audit, "gfn %#lx has %u leaves, and the set of mapped pages %s",
				  rmap.gfn, count, count ? "misses it" : "has it");
		if (count > RMAP_RECYCLE_THRESHOLD)
			violation(audit, "gfn %#lx is mapped %u times", rmap.gfn, count);
		if (count)
			rmap_each(&slot->rmap[i], audit_rmap_entry, &rmap);
		nr += count;
	}
	return nr;
}

static uint64_t count_leaves(struct shadow *shadow)
{
	struct shadow_page *sp;
	uint64_t nr = 0;

	list_for_each_entry(sp, &shadow->pages, link) {
		for (unsigned int i = 0; sp->role.level == 1 && i < TABLE_ENTRIES; i++)
			nr += spte_present(sp->spt[i]);
	}
	return nr;
}

static unsigned int audit_all(struct shadow *shadow, char *why, size_t why_len)
{
	struct audit audit = {.shadow = shadow, .why = why, .why_len = why_len};
	uint64_t in_rmaps = 0, leaves, pages = 0;
	struct shadow_page *sp;

	lockdep_assert_held(&shadow->mmu_lock);
	/* Leaves before what they hang below: that is how pages are used, the first last. */
	list_for_each_entry_reverse(sp, &shadow->pages, link) {
		audit_page(&audit, sp);
		pages++;
	}
	if (pages != shadow->nr_pages)
		violation(&audit, "%lu pages, but %lu are counted", pages, shadow->nr_pages);
	/* Each leaf is in its rmap (above), and each entry there is a leaf: with as many of the one
	 * as of the other, none is there twice. */
	for (unsigned int i = 0; i < shadow->slots->nr; i++)
		in_rmaps += audit_slot(&audit, shadow->slots->slot[i]);
	leaves = count_leaves(shadow);
	if (in_rmaps != leaves)
		violation(&audit, "%lu entries in rmaps, but %lu present leaves", in_rmaps, leaves);
	return audit.violations;
}

unsigned int shadow_audit(struct shadow *shadow, char *why, size_t why_len)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	unsigned int violations;

	spin_lock(&shadow->mmu_lock);
	violations = audit_all(shadow, why, why_len);
	spin_unlock(&shadow->mmu_lock);
	srcu_read_unlock(&shadow->slots_srcu, id);
	return violations;
}

void shadow_audit_locked(struct shadow *shadow)
{
	char why[160];

	if (likely(!shadow->audit))
		return;
	ASSERT(!audit_all(shadow, why, sizeof(why)), "a consistent shadow MMU: %s", why);
}
