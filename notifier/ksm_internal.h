/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of same-page merging share, and the few entries that the rest of the mm calls.
 *
 * Locks:
 *
 *   ksm->mutex -> mm->mmap_lock -> ksm->mms_lock
 *                               -> frame lock -> (another, by trylock) -> reverse-map locks ...
 *
 *  1. ksm->mutex: the scanner's place, its items, both trees. Held for one page at a time, and by
 *     exit. An mm on the list is taken off it, under this mutex, before anything of it is torn
 * down: so whoever holds the mutex and finds an mm there may use it.
 *  2. The frame lock of a merged page protects its list of sites, and ksm_page.pfn with that of the
 *     frame that it moves to. Whoever unmaps a page holds it and cannot take the mutex, which is
 *     further out: so a page that goes leaves its ksm_page in the tree, with no frame, to be taken
 *     out by the scanner (ksm_page_gone).
 *  3. One mmap_lock at a time.
 */
#ifndef NOTIFIER_KSM_INTERNAL_H
#define NOTIFIER_KSM_INTERNAL_H

#include <bsd/sys/tree.h>

#include <gnomon/ksm.h>
#include <gnomon/types.h>

#include "notifier/frame.h"
#include "notifier/pgtable.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"

struct anon_vma;
struct mm_struct;
struct vm_area_struct;

/* ---- ksm_page.c: a merged page, and where it is mapped ---- */

/* Page @page of the family of @anon_vma, of which a reference is held. */
struct ksm_site {
	RB_ENTRY(ksm_site) node;
	struct anon_vma *anon_vma;
	uint64_t page;
};

RB_HEAD(ksm_site_tree, ksm_site);

/* After so many mappings nothing more is merged into a page. As Linux: max_page_sharing. */
#define KSM_MAX_SHARING 256

struct ksm_page {
	/* Under ksm->mutex: in ksm->stable, or, if full, in ksm->full. */
	bool full;
	RB_ENTRY(ksm_page) node;
	struct list_head in_full;
	/*
	 * Whose mapping names this structure; INVALID_PFN before and after. Stored with that frame
	 * locked, and loaded by whoever keeps the structure: the frame's lock, or ksm->mutex.
	 */
	pfn_t pfn;
	struct ksm_site_tree sites; /* under the frame lock: all places that may map the page */
};

static inline struct ksm_page *frame_ksm_page(const struct frame *frame)
{
	return (struct ksm_page *)(READ_ONCE(frame->mapping) & ~FRAME_MAPPING_KIND);
}

/* For the mm, with the frame locked: rmap_walk(); a migration, to @pfn; the last mapping went. */
void ksm_page_walk(struct ksm_page *page,
		   void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg), void *arg);
void ksm_page_moved(struct ksm_page *page, pfn_t pfn);
void ksm_page_gone(struct frame *frame);

/*
 * For the scanner, under ksm->mutex. create: NULL when out of memory. make: @pfn, locked and a
 * private page that nobody can write to, becomes the frame of @page; @site is consumed. unmake: the
 * reverse, of a page that nothing was merged into. Both leave every entry as it is.
 */
struct ksm_page *ksm_page_create(void);
void ksm_page_free(struct ksm_page *page); /* has no frame */
void ksm_page_make(struct ksm_page *page, struct phys *phys, pfn_t pfn, struct ksm_site *site);
void ksm_page_unmake(struct ksm_page *page, struct phys *phys);

/* Lock its frame. False: it has none (any more), or, for the second, the lock is not to be had. */
bool lock_ksm_page(struct ksm_page *page, struct phys *phys, pfn_t *pfn);
bool trylock_ksm_page(struct ksm_page *page, struct phys *phys, pfn_t *pfn);

/* With its frame locked. True if @site is its now, to be freed by remove; false: it had one like
 * it. */
bool ksm_page_add_site(struct ksm_page *page, struct ksm_site *site, struct anon_vma *anon_vma,
		       uint64_t number);
void ksm_page_remove_site(struct ksm_page *page, struct ksm_site *site);
/* Drop the sites where nothing maps it any more. */
void ksm_page_prune(struct ksm_page *page);

/* ---- ksm_mm.c: the mms of a machine that have mergeable areas ---- */

struct ksm_mm {
	struct list_head node; /* in ksm->mms */
	struct mm_struct *mm;
	struct list_head items; /* ksm_item.node, by hva; under ksm->mutex */
};

/* With mmap_lock held for writing: put @mm on the list, if it is not there. 0; -EINVAL, -ENOMEM. */
int ksm_enter(struct mm_struct *mm);
/* Exit, before anything is torn down. */
void ksm_exit(struct mm_struct *mm);

/* ---- ksm.c: the scanner ---- */

enum ksm_item_state {
	KSM_VOLATILE, /* new, or had changed */
	KSM_UNSHARED, /* had not, and was compared in the round before or in this one */
	KSM_MERGED,   /* was a merged page when last looked at */
	NR_KSM_ITEM_STATES,
};

/* What the scanner knows of a page. Under ksm->mutex. */
struct ksm_item {
	struct list_head node; /* in ksm_mm.items */
	struct mm_struct *mm;
	hva_t hva;
	enum ksm_item_state state;
	bool seen;
	uint64_t checksum;	     /* when last looked at, if seen */
	uint64_t round;		     /* of the unstable tree that it is in; else 0 */
	RB_ENTRY(ksm_item) unstable; /* in ksm->unstable, if round is ksm->round */
};

RB_HEAD(ksm_stable_tree, ksm_page);
RB_HEAD(ksm_unstable_tree, ksm_item);

struct ksm {
	struct phys *phys;
	struct mutex mutex;

	/* To add: mms_lock. To take away: the mutex as well. So to look, either. */
	spinlock_t mms_lock;
	struct list_head mms; /* ksm_mm.node */

	/* All else under mutex. Where the scanner is: before the next round if at is NULL. */
	struct ksm_mm *at;
	hva_t next_hva;
	struct list_head *passed; /* the last item before next_hva, or the head of at->items */
	uint64_t round;		  /* from 1 on */

	struct ksm_stable_tree stable;
	struct list_head full; /* ksm_page.in_full */
	struct ksm_unstable_tree unstable;

	uint64_t nr_items[NR_KSM_ITEM_STATES];
	uint64_t nr_merged, full_scans;
};

/* The next mm after @at, or the first if that is NULL; NULL: there is none. */
struct ksm_mm *ksm_next_mm(struct ksm *ksm, struct ksm_mm *at);
/* @kmm, which leaves the list, is forgotten by the scanner. */
void ksm_forget(struct ksm *ksm, struct ksm_mm *kmm);

/* ---- ksm_tree.c: merged pages by contents; and others that might be merged ---- */

/* @pfn is kept by the caller. NULL: nothing is equal to it. */
struct ksm_page *ksm_stable_find(struct ksm *ksm, pfn_t pfn);
/* @pfn, kept by the caller, is that of @page. False if there is an equal one already. */
bool ksm_stable_insert(struct ksm *ksm, struct ksm_page *page, pfn_t pfn);
void ksm_stable_remove(struct ksm *ksm, struct ksm_page *page);
/* Free those whose page is gone, prune the others. */
void ksm_stable_prune(struct ksm *ksm);
void ksm_stable_count(struct ksm *ksm, struct ksm_stats *stats); /* pages_shared, pages_sharing */

/*
 * An item with the same contents as @pfn, which is @item's; its page is in *@other, with a
 * reference. Or NULL, and then @item is in the tree, unless it shares its page with one there.
 */
struct ksm_item *ksm_unstable_find_or_insert(struct ksm *ksm, struct ksm_item *item, pfn_t pfn,
					     pfn_t *other);
void ksm_unstable_remove(struct ksm *ksm, struct ksm_item *item);
/* @item takes the place of its equal @other. */
void ksm_unstable_replace(struct ksm *ksm, struct ksm_item *other, struct ksm_item *item);

/* ---- ksm_merge.c: one entry at a time ---- */

/* The page at @item, if it could be merged: with a reference, or INVALID_PFN. */
pfn_t ksm_get_page(const struct ksm_item *item);
/* The same with mmap_lock held, for the scanner's walk: a merged page as well. */
pfn_t ksm_get_entry_page(struct mm_struct *mm, pte_t *ptep);

/*
 * @pfn, a reference to which is the caller's, is, or was a moment ago, the page at @item. make: it
 * becomes that of @page, which has none; merge: that of @page takes its place. 1 done; 0 not now;
 * -ENOMEM.
 */
int ksm_make(const struct ksm_item *item, pfn_t pfn, struct ksm_page *page);
int ksm_merge(const struct ksm_item *item, pfn_t pfn, struct ksm_page *page);

#endif
