/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor: is every structure what every other one says it is? (K-08, K-09, K-27.) Here are the
 * tables and what links them:
 *
 *   page             -> found by its gfn and role, and by its table; linked, or a root
 *   directory entry  -> names a live page one level down, in a role that fits, which lists it among
 *                       its parents
 *   parent           -> is a present entry that names the page
 *   guest's table    -> no leaf of its gfn is writable while the page is in step (write_protect.c)
 *   zapped page      -> nothing is left in it, though it is not retired yet
 *
 * What leaves map is in audit_leaf.c, what the guest said in audit_guest.c.
 */
#include <stdarg.h>
#include <stdio.h>

#include "shadow/audit.h"

static const char *const names[] = {"entry",  "link",	 "role",     "parent", "page",
				    "orphan", "retired", "slot",     "rmap",   "gfn",
				    "frame",  "host",	 "right",    "table",  "summary",
				    "origin", "stale",	 "writable", "huge"};

static_assert(SHADOW_BAD_HUGE == 1u << (sizeof(names) / sizeof(names[0]) - 1), "one each");

void audit_found(struct audit *audit, unsigned int what, const char *fmt, ...)
{
	if (!audit->found && audit->why) {
		int len = snprintf(audit->why, audit->why_len, "%s: ", names[__builtin_ctz(what)]);
		va_list ap;

		va_start(ap, fmt);
		if (len >= 0 && (size_t)len < audit->why_len)
			vsnprintf(audit->why + len, audit->why_len - len, fmt, ap);
		va_end(ap);
	}
	audit->found |= what;
}

/* spte.h, rules 1 to 3. */
static bool entry_sound(const struct shadow *shadow, const struct shadow_page *sp, spte_t spte)
{
	const spte_t ours = SPTE_PRESENT | SPTE_OURS;

	if (!spte)
		return true;
	if ((spte & ours) == SPTE_PRESENT)
		return sp->role.level == shadow->machine->levels;
	if (spte_is_leaf(spte, sp->role.level) && shadow->used_bit == SPTE_PRESENT)
		spte |= spte & SPTE_OURS ? SPTE_PRESENT : 0; /* it may be tracked */
	if ((spte & (ours | SPTE_USER)) != (ours | SPTE_USER))
		return false;
	if (sp->role.level == 1)
		return !(spte & ~(make_leaf_spte(spte_pfn(spte), ACC_WRITE) | SPTE_AGED | SPTE_NX));
	if (sp->role.level == HUGE_LEVEL && (spte & SPTE_HUGE))
		return !(spte & ~(make_leaf_spte(spte_pfn(spte), ACC_WRITE) | SPTE_AGED | SPTE_NX |
				  SPTE_HUGE));
	return (spte | SPTE_DIRTY) == (make_table_spte(spte_pfn(spte)) | SPTE_DIRTY);
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
	struct shadow_page *child = spte_to_child(audit->shadow, READ_ONCE(sp->spt[index]));

	if (!child) {
		audit_found(audit, SHADOW_BAD_LINK,
			    "entry %u of the level %u table of gfn %#lx names no live page", index,
			    sp->role.level, sp->gfn);
		return;
	}
	if (shadow_page_obsolete(audit->shadow, child) && !shadow_page_obsolete(audit->shadow, sp))
		audit_found(audit, SHADOW_BAD_LINK,
			    "entry %u of the table of gfn %#lx names an obsolete page", index,
			    sp->gfn);
	if (child->role.level != sp->role.level - 1)
		audit_found(audit, SHADOW_BAD_LINK, "a level %u table links to one of level %u",
			    sp->role.level, child->role.level);
	else if (!roles_fit(sp, child, index))
		audit_found(audit, SHADOW_BAD_ROLE,
			    "entry %u of the table of gfn %#lx, role %#lx, links to gfn %#lx in "
			    "role %#lx",
			    index, sp->gfn, sp->role.word, child->gfn, child->role.word);
	else
		audit_link_guest(audit, sp, index, child);
	if (!rmap_contains(&child->parents, &sp->spt[index]))
		audit_found(audit, SHADOW_BAD_PARENT,
			    "the page of gfn %#lx does not know its parent entry %u of gfn %#lx",
			    child->gfn, index, sp->gfn);
}

struct audit_parents {
	struct audit *audit;
	const struct shadow_page *child;
};

static void audit_parent(spte_t *sptep, void *arg)
{
	const struct audit_parents *parents = arg;
	const struct shadow_page *child = parents->child;
	const struct shadow_page *sp = sptep_to_sp(parents->audit->shadow, sptep);
	spte_t spte = READ_ONCE(*sptep);

	if (!sp || !spte_present(spte) || spte_pfn(spte) != child->table)
		audit_found(parents->audit, SHADOW_BAD_PARENT,
			    "a parent of the page of gfn %#lx, level %u, does not link to it",
			    child->gfn, child->role.level);
}

static void is_writable(spte_t *sptep, void *arg)
{
	bool *writable = arg;

	*writable |= spte_writable(READ_ONCE(*sptep));
}

/* A table of the guest's that is in step: no store to it goes unseen. */
static void audit_write_protection(struct audit *audit, struct shadow_page *sp)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(audit->shadow), sp->gfn);
	bool writable = false;

	if (sp->role.direct || sp->unsync || !slot)
		return;
	rmap_each(&slot->rmap[sp->gfn - slot->base_gfn], is_writable, &writable);
	if (writable)
		audit_found(audit, SHADOW_BAD_WRITABLE,
			    "a writable leaf of gfn %#lx, which is a table of level %u", sp->gfn,
			    sp->role.level);
}

static void audit_page(struct audit *audit, struct shadow_page *sp)
{
	struct shadow *shadow = audit->shadow;
	struct audit_parents parents = {.audit = audit, .child = sp};

	bool obsolete = shadow_page_obsolete(shadow, sp);

	if (!obsolete && shadow_page_find(shadow, sp->gfn, sp->role) != sp)
		audit_found(audit, SHADOW_BAD_PAGE, "two pages for gfn %#lx in the same role",
			    sp->gfn);
	if (sptep_to_sp(shadow, sp->spt) != sp ||
	    shadow->machine->ops->map_frame(shadow->machine, sp->table) != sp->spt)
		audit_found(audit, SHADOW_BAD_PAGE,
			    "the table of gfn %#lx is not found by its address", sp->gfn);
	if (sp->root_count != (int)root_cache_count(shadow, sp))
		audit_found(audit, SHADOW_BAD_PAGE,
			    "the root of gfn %#lx is counted %d times, and kept in %u places",
			    sp->gfn, sp->root_count, root_cache_count(shadow, sp));
	if (!obsolete && !sp->root_count && !sp->parents.val)
		audit_found(audit, SHADOW_BAD_ORPHAN,
			    "the page of gfn %#lx is neither linked nor a root", sp->gfn);
	rmap_each(&sp->parents, audit_parent, &parents);
	audit_write_protection(audit, sp);
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);

		if (!entry_sound(shadow, sp, spte))
			audit_found(audit, SHADOW_BAD_ENTRY,
				    "entry %u of the level %u table of gfn %#lx is %#lx", i,
				    sp->role.level, sp->gfn, spte);
		if (!spte_present(spte))
			continue;
		if (root_is_dummy(sp))
			audit_found(audit, SHADOW_BAD_PAGE, "entry %u of a dummy root is present",
				    i);
		if (sp->role.level == 1)
			audit_leaf(audit, sp, i);
		else if (spte_is_leaf(spte, sp->role.level))
			audit_huge(audit, sp, i);
		else
			audit_link(audit, sp, i);
	}
}

static void audit_retired(struct audit *audit, const struct shadow_page *sp)
{
	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		if (spte_present(READ_ONCE(sp->spt[i])))
			audit_found(audit, SHADOW_BAD_RETIRED,
				    "entry %u of the table of gfn %#lx, which goes, is %#lx", i,
				    sp->gfn, sp->spt[i]);
	}
	if (sp->parents.val)
		audit_found(audit, SHADOW_BAD_RETIRED,
			    "the table of gfn %#lx goes and has a parent", sp->gfn);
}

/* Those that are not shot down yet. Whoever zapped them leaves their lists alone until he has taken
 * his batch from this one. */
static void audit_batches(struct audit *audit)
{
	struct shadow *shadow = audit->shadow;
	struct shadow_page *sp;
	struct zap_batch *batch;

	spin_lock(&shadow->batch_lock);
	list_for_each_entry(batch, &shadow->batches, link) {
		list_for_each_entry(sp, &batch->retired, link)
			audit_retired(audit, sp);
	}
	spin_unlock(&shadow->batch_lock);
}

/* Roots that were zapped are in no list: nothing may be in them, nor be made in them. */
static void audit_root(struct audit *audit, const struct shadow_page *root)
{
	for (unsigned int i = 0; root && root->zapped && i < TABLE_ENTRIES; i++) {
		if (spte_present(READ_ONCE(root->spt[i])))
			audit_found(audit, SHADOW_BAD_RETIRED,
				    "entry %u of the zapped root of gfn %#lx", i, root->gfn);
	}
}

static void audit_roots(struct audit *audit)
{
	struct shadow *shadow = audit->shadow;

	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		for (unsigned int j = 0; j < NR_KEPT_ROOTS; j++)
			audit_root(audit, shadow->vcpu[i].roots[j].root);
	}
}

static unsigned int audit_all(struct shadow *shadow, enum shadow_audit_level level, char *why,
			      size_t why_len)
{
	struct audit audit = {.shadow = shadow, .level = level, .why = why, .why_len = why_len};
	unsigned long pages = 0;
	struct shadow_page *sp;

	lockdep_assert_held(&shadow->mmu_lock);
	/* Leaves before what they hang below: that is how pages are used, the first last. */
	list_for_each_entry_reverse(sp, &shadow->pages, link) {
		audit_page(&audit, sp);
		pages++;
	}
	if (pages != shadow->nr_pages)
		audit_found(&audit, SHADOW_BAD_PAGE, "%lu pages, but %lu are counted", pages,
			    shadow->nr_pages);
	audit_roots(&audit);
	audit_rmaps(&audit);
	audit_batches(&audit);
	return audit.found;
}

unsigned int shadow_audit_at(struct shadow *shadow, enum shadow_audit_level level, char *why,
			     size_t why_len)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	unsigned int found;

	spin_lock(&shadow->mmu_lock);
	found = audit_all(shadow, level, why, why_len);
	spin_unlock(&shadow->mmu_lock);
	srcu_read_unlock(&shadow->slots_srcu, id);
	return found;
}

unsigned int shadow_audit(struct shadow *shadow, char *why, size_t why_len)
{
	return shadow_audit_at(shadow, SHADOW_AUDIT_SEMANTIC, why, why_len);
}

void shadow_audit_locked(struct shadow *shadow)
{
	char why[160];

	if (likely(!shadow->audit))
		return;
	ASSERT(!audit_all(shadow, shadow->audit, why, sizeof(why)), "a consistent shadow MMU: %s",
	       why);
}

void shadow_audit_retired(struct shadow *shadow, const struct shadow_page *sp)
{
	char why[160];
	struct audit audit = {.shadow = shadow, .why = why, .why_len = sizeof(why)};

	if (likely(!READ_ONCE(shadow->audit)))
		return;
	audit_retired(&audit, sp);
	ASSERT(!audit.found, "an empty table goes: %s", why);
}
