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

/* audit_guest.c: the same entry, and a link to @child, against the guest's. */
void audit_leaf_guest(struct audit *audit, struct shadow_page *sp, unsigned int index);
void audit_link_guest(struct audit *audit, struct shadow_page *sp, unsigned int index,
		      const struct shadow_page *child);

#endif
