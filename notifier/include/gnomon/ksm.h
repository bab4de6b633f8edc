/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Same-page merging: private pages of a machine's mms that have the same contents become one frame,
 * which all of them map read-only. Whoever writes gets a copy. Areas ask for it by mm_madvise()
 * with MM_MADV_MERGEABLE; a child of mm_fork() inherits that.
 *
 * Kernel sources of the contracts: mm/ksm.c, Documentation/admin-guide/mm/ksm.rst.
 */
#ifndef GNOMON_KSM_H
#define GNOMON_KSM_H

#include <gnomon/decls.h>
#include <gnomon/phys.h>

GNOMON_BEGIN_DECLS

struct ksm;

/*
 * One for each machine, at most, made before areas ask for it. NULL when out of memory. Destroyed
 * after the last mm that ever had a mergeable area has lost its last user, and before @phys is.
 */
struct ksm *ksm_create(struct phys *phys);
void ksm_destroy(struct ksm *ksm); /* NULL is fine */

/*
 * Look at the next @nr_pages private pages of mergeable areas, or at those that are left of this
 * round through all of them. A page that has not changed since the round before is compared with
 * the others. Returns how many places were given a merged page; or, if none was, -ENOMEM when there
 * was no memory to work with.
 *
 * May sleep; several threads take turns, page by page. Opens windows, MMU_NOTIFY_CLEAR, of one page
 * each, under mmap_lock held for reading: one to make a page read-only, if it was not, and one to
 * have the merged page take its place. A page that is pinned, or being written at this moment,
 * stays as it is.
 */
long ksm_scan(struct ksm *ksm, unsigned long nr_pages);

/* Linux has these in /sys/kernel/mm/ksm. */
struct ksm_stats {
	uint64_t pages_shared;	 /* frames that several pages were merged into, now */
	uint64_t pages_sharing;	 /* places that map one of them, beyond the first of each */
	uint64_t pages_unshared; /* pages that were compared, and have no equal */
	uint64_t pages_volatile; /* pages that are new, or had changed when last looked at */
	uint64_t pages_merged;	 /* places that were given a merged page since ksm_create, in sum */
	uint64_t full_scans;	 /* rounds through all areas */
};
void ksm_get_stats(struct ksm *ksm, struct ksm_stats *stats); /* may sleep */

GNOMON_END_DECLS

#endif
