// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The scanner for equal pages: goes from mm to mm and from page to page, in rounds, and decides
 * what is done with each (kernel: cmp_and_merge_page in mm/ksm.c).
 *
 *   1. It is a merged page: nothing.
 *   2. A merged page is equal to it (stable tree): it is merged into that.
 *   3. It has changed since the last round: it is likely to change again. Nothing.
 *   4. Another page that is not merged is equal (unstable tree): that one becomes a merged page,
 *      and this one is merged into it. If the second half fails the first is undone.
 *   5. It waits in the unstable tree for its equal to come by.
 *
 * What is known of a page is its item: kept by hva, in a list of its mm, in step with the walk of
 * the areas. An item that the walk finds no page for is dropped as it passes.
 *
 * One page is looked at for each time that the mutex is taken: exit waits for no more than that.
 */
#include <errno.h>

#include "notifier/contents.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"

struct ksm *ksm_create(struct phys *phys)
{
	struct ksm *ksm;

	ASSERT(!phys->ksm, "a machine has one scanner");
	ksm = kzalloc(sizeof(*ksm), GFP_KERNEL);
	if (!ksm)
		return NULL;
	ksm->phys = phys;
	mutex_init(&ksm->mutex);
	spin_lock_init(&ksm->mms_lock);
	INIT_LIST_HEAD(&ksm->mms);
	INIT_LIST_HEAD(&ksm->full);
	phys->ksm = ksm;
	return ksm;
}

/* With the last mm its pages went, and left their structures in the tree. */
void ksm_destroy(struct ksm *ksm)
{
	if (!ksm)
		return;
	ASSERT(list_empty(&ksm->mms),
	       "the scanner is there for as long as an mm has mergeable areas");
	ksm_stable_prune(ksm);
	ASSERT(RB_EMPTY(&ksm->stable) && list_empty(&ksm->full),
	       "no page is merged when no mm is left");
	ksm->phys->ksm = NULL;
	kfree(ksm);
}

/* ---- items ---- */

static void set_state(struct ksm *ksm, struct ksm_item *item, enum ksm_item_state state)
{
	ksm->nr_items[item->state]--;
	ksm->nr_items[state]++;
	item->state = state;
}

static void drop_item(struct ksm *ksm, struct ksm_item *item)
{
	ksm_unstable_remove(ksm, item);
	ksm->nr_items[item->state]--;
	list_del(&item->node);
	kfree(item);
}

/* Those after what was passed, up to @hva. */
static void drop_items_below(struct ksm *ksm, hva_t hva)
{
	while (ksm->passed->next != &ksm->at->items) {
		struct ksm_item *item = list_entry(ksm->passed->next, struct ksm_item, node);

		if (item->hva >= hva)
			return;
		drop_item(ksm, item);
	}
}

/* The item of @hva, with nothing between it and what was passed. NULL: out of memory. */
static struct ksm_item *get_item(struct ksm *ksm, hva_t hva)
{
	struct ksm_item *item;

	if (ksm->passed->next != &ksm->at->items) {
		item = list_entry(ksm->passed->next, struct ksm_item, node);
		if (item->hva == hva)
			return item;
	}
	item = kzalloc(sizeof(*item), GFP_KERNEL);
	if (!item)
		return NULL;
	item->mm = ksm->at->mm;
	item->hva = hva;
	ksm->nr_items[item->state]++;
	list_add(&item->node, ksm->passed);
	return item;
}

/* ---- the walk ---- */

static void go_to(struct ksm *ksm, struct ksm_mm *kmm)
{
	ksm->at = kmm;
	ksm->next_hva = 0;
	ksm->passed = kmm ? &kmm->items : NULL;
}

static void begin_round(struct ksm *ksm)
{
	ksm->round++;
	RB_INIT(&ksm->unstable);
	ksm_stable_prune(ksm);
	go_to(ksm, ksm_next_mm(ksm, NULL));
}

static void go_to_next_mm(struct ksm *ksm)
{
	go_to(ksm, ksm_next_mm(ksm, ksm->at));
	if (!ksm->at)
		ksm->full_scans++;
}

void ksm_forget(struct ksm *ksm, struct ksm_mm *kmm)
{
	struct ksm_item *item, *next;

	lockdep_assert_held(&ksm->mutex);
	if (ksm->at == kmm)
		go_to_next_mm(ksm);
	list_for_each_entry_safe(item, next, &kmm->items, node)
		drop_item(ksm, item);
}

struct candidate {
	struct mm_struct *mm;
	hva_t hva;
	pfn_t pfn; /* a reference */
};

static int is_candidate(pte_t *ptep, hva_t hva, void *arg)
{
	struct candidate *found = arg;

	found->hva = hva;
	found->pfn = ksm_get_entry_page(found->mm, ptep);
	return found->pfn != INVALID_PFN;
}

/* The first page from next_hva on, in the mm that the scanner is at. */
static bool find_in_mm(struct ksm *ksm, struct candidate *found)
{
	struct mm_struct *mm = ksm->at->mm;
	struct vm_area_struct *vma;

	*found = (struct candidate){mm, HVA_MAX, INVALID_PFN};
	mmap_read_lock(mm);
	for (vma = find_vma_above(mm, ksm->next_hva); vma; vma = vma_next(vma)) {
		hva_t start = max(vma->start, ksm->next_hva);

		if ((vma->flags & VMA_MERGEABLE) &&
		    pgtable_walk(mm->pgtable, start, vma->end, is_candidate, found))
			break;
	}
	mmap_read_unlock(mm);
	drop_items_below(ksm, vma ? found->hva : HVA_MAX);
	return vma;
}

/* NULL: the round is over; or, with *@pfn, there is no memory for an item. */
static struct ksm_item *next_item(struct ksm *ksm, pfn_t *pfn)
{
	struct candidate found;
	struct ksm_item *item;

	*pfn = INVALID_PFN;
	if (!ksm->at)
		begin_round(ksm);
	while (ksm->at && !find_in_mm(ksm, &found))
		go_to_next_mm(ksm);
	if (!ksm->at)
		return NULL;
	*pfn = found.pfn;
	ksm->next_hva = found.hva + PAGE_SIZE;
	item = get_item(ksm, found.hva);
	if (item)
		ksm->passed = &item->node;
	return item;
}

/* ---- decisions ---- */

static bool has_changed(struct ksm_item *item, const void *contents)
{
	uint64_t checksum = contents_hash_page(contents);
	bool changed = !item->seen || checksum != item->checksum;

	item->seen = true;
	item->checksum = checksum;
	return changed;
}

/*
 * A page that was made, but that nothing was merged into, is undone. One that cannot be made, being
 * held by somebody, gives its place in the tree to one that may.
 */
static int merge_two(struct ksm *ksm, struct ksm_item *item, pfn_t pfn, struct ksm_item *other,
		     pfn_t other_pfn)
{
	struct ksm_page *page = ksm_page_create();
	int ret = page ? ksm_make(other, other_pfn, page) : -ENOMEM;

	if (!ret)
		ksm_unstable_replace(ksm, other, item);
	if (ret > 0 && ksm_stable_insert(ksm, page, other_pfn)) {
		ret = ksm_merge(item, pfn, page);
		if (ret > 0)
			return ret;
		ksm_stable_remove(ksm, page);
	}
	if (page) {
		ksm_page_unmake(page, ksm->phys);
		ksm_page_free(page);
	}
	return min(ret, 0);
}

static int merge_unstable(struct ksm *ksm, struct ksm_item *item, pfn_t pfn)
{
	pfn_t other_pfn;
	struct ksm_item *other = ksm_unstable_find_or_insert(ksm, item, pfn, &other_pfn);
	int ret;

	set_state(ksm, item, KSM_UNSHARED);
	if (!other)
		return 0;
	ret = merge_two(ksm, item, pfn, other, other_pfn);
	if (ret > 0) {
		ksm_unstable_remove(ksm, other);
		set_state(ksm, other, KSM_MERGED);
		set_state(ksm, item, KSM_MERGED);
	}
	phys_put(ksm->phys, other_pfn);
	return ret;
}

/* 1 merged, 0 not, -ENOMEM. @pfn is kept by the caller. */
static int scan_item(struct ksm *ksm, struct ksm_item *item, pfn_t pfn)
{
	struct ksm_page *page;
	int ret;

	if (frame_is_ksm(pfn_to_frame(ksm->phys, pfn))) {
		set_state(ksm, item, KSM_MERGED);
		return 0;
	}
	set_state(ksm, item, KSM_VOLATILE);
	page = ksm_stable_find(ksm, pfn);
	if (page) {
		ret = ksm_merge(item, pfn, page);
		if (ret > 0)
			set_state(ksm, item, KSM_MERGED);
		return ret;
	}
	if (has_changed(item, phys_map(ksm->phys, pfn)))
		return 0;
	return merge_unstable(ksm, item, pfn);
}

/* As scan_item(), for the next page; *@over: there was none. */
static int scan_page(struct ksm *ksm, bool *over)
{
	struct ksm_item *item;
	int ret = -ENOMEM;
	pfn_t pfn;

	mutex_lock(&ksm->mutex);
	item = next_item(ksm, &pfn);
	*over = pfn == INVALID_PFN;
	if (*over) {
		ret = 0;
	} else {
		if (item)
			ret = scan_item(ksm, item, pfn);
		if (ret > 0)
			ksm->nr_merged++;
		phys_put(ksm->phys, pfn);
	}
	mutex_unlock(&ksm->mutex);
	return ret;
}

long ksm_scan(struct ksm *ksm, unsigned long nr_pages)
{
	bool over = false;
	long merged = 0;

	might_sleep();
	for (unsigned long i = 0; i < nr_pages && !over; i++) {
		int ret = scan_page(ksm, &over);

		if (ret < 0)
			return merged ? merged : ret;
		merged += ret;
	}
	return merged;
}

void ksm_get_stats(struct ksm *ksm, struct ksm_stats *stats)
{
	mutex_lock(&ksm->mutex);
	ksm_stable_count(ksm, stats);
	stats->pages_unshared = ksm->nr_items[KSM_UNSHARED];
	stats->pages_volatile = ksm->nr_items[KSM_VOLATILE];
	stats->pages_merged = ksm->nr_merged;
	stats->full_scans = ksm->full_scans;
	mutex_unlock(&ksm->mutex);
}
