/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of the auditor share. All of it runs under mmu_lock, in a section of slots_srcu.
 */
#ifndef SHADOW_AUDIT_H
#define SHADOW_AUDIT_H

#include "shadow/shadow_internal.h"

struct audit {
	struct shadow *shadow;
	enum shadow_audit_level level;
	unsigned int found; /* SHADOW_BAD_* */
	char *why;	    /* the first of them; may be NULL */
	size_t why_len;
};

/* @what is one of SHADOW_BAD_*. */
void audit_found(struct audit *audit, unsigned int what, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* audit_leaf.c: a present entry of a table of leaves; and from the slots to those. */
void audit_leaf(struct audit *audit, struct shadow_page *sp, unsigned int index);
void audit_rmaps(struct audit *audit);

/* And of what a leaf maps: @pfn, by an entry like @spte, for page @gfn of @slot; and its rights. */
void audit_frame(struct audit *audit, const struct memslot *slot, gfn_t gfn, pfn_t pfn,
		 spte_t spte);
void audit_rights(struct audit *audit, const struct shadow_page *sp, gfn_t gfn, spte_t spte);

/* audit_huge.c: a present huge leaf; and the rmaps of a slot's regions: how many entries. */
void audit_huge(struct audit *audit, struct shadow_page *sp, unsigned int index);
uint64_t audit_huge_rmaps(struct audit *audit, const struct memslot *slot);

/* audit_guest.c: the same entry, and a link to @child, against the guest's. */
void audit_leaf_guest(struct audit *audit, struct shadow_page *sp, unsigned int index);
void audit_link_guest(struct audit *audit, struct shadow_page *sp, unsigned int index,
		      const struct shadow_page *child);

#endif
