// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The two trees in which the scanner looks for a page that is equal to the one at hand (kernel:
 * mm/ksm.c, "A few notes about the KSM scanning process").
 *
 * Stable: the merged pages, by contents. Those cannot change, so the order holds for as long as a
 * page lives. Pages that are gone are taken out by whoever comes across them. So are those that are
 * mapped often enough: a walk of the reverse map, and whoever waits for the frame lock meanwhile,
 * has to bear with each mapping. The next that are equal become a page of their own.
 *
 * Unstable: pages that are not merged, and had not changed for a round. Their contents are the
 * keys, nobody is kept from writing to them, and so the order may be wrong by the time that
 * somebody looks: a page is not found though it is there, or is found though it has changed since.
 * Neither does harm. A merge compares again, once nobody can write; and the tree is forgotten after
 * each round, so that what was missed is met anew.
 *
 * Comparing needs the page. In the stable tree its frame is locked meanwhile, in the unstable one
 * it is looked up in its mm and a reference held. All under ksm->mutex, with no other lock.
 */
#include "notifier/contents.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"

/*
 * Places in both trees are found by hand, as a comparison may find that there is nothing to
 * compare. So nothing is used of what the generator makes from an order.
 */
static int no_order(const void *a, const void *b)
{
	(void)a, (void)b;
	BUG();
}

RB_GENERATE_INTERNAL(ksm_stable_tree, ksm_page, node, no_order, static __attribute__((unused)))
RB_GENERATE_INTERNAL(ksm_unstable_tree, ksm_item, unstable, no_order,
		     static __attribute__((unused)))

/* ---- stable ---- */

void ksm_stable_remove(struct ksm *ksm, struct ksm_page *page)
{
	if (page->full)
		list_del(&page->in_full);
	else
		RB_REMOVE(ksm_stable_tree, &ksm->stable, page);
}

static void forget_page(struct ksm *ksm, struct ksm_page *page)
{
	ksm_stable_remove(ksm, page);
	ksm_page_free(page);
}

/* How @pfn compares with @page; false if that is taken out of the tree instead. */
static bool compare_with_page(struct ksm *ksm, pfn_t pfn, struct ksm_page *page, int *order)
{
	pfn_t other;
	bool full;

	if (!lock_ksm_page(page, ksm->phys, &other)) {
		forget_page(ksm, page);
		return false;
	}
	*order = contents_compare_pages(phys_map(ksm->phys, pfn), phys_map(ksm->phys, other));
	full = atomic_read(&pfn_to_frame(ksm->phys, other)->mapcount) >= KSM_MAX_SHARING;
	unlock_frame(ksm->phys, other);
	if (*order || !full)
		return true;
	ksm_stable_remove(ksm, page);
	page->full = true;
	list_add(&page->in_full, &ksm->full);
	return false;
}

/* The page that is equal to @pfn; or NULL, and *@link is where it would be, below *@parent. */
static struct ksm_page *stable_search(struct ksm *ksm, pfn_t pfn, struct ksm_page **parent,
				      struct ksm_page ***link)
{
	struct ksm_page *page;
	int order;

restart:
	*parent = NULL;
	*link = &RB_ROOT(&ksm->stable);
	while ((page = **link)) {
		if (!compare_with_page(ksm, pfn, page, &order))
			goto restart;
		if (!order)
			return page;
		*parent = page;
		*link = order < 0 ? &RB_LEFT(page, node) : &RB_RIGHT(page, node);
	}
	return NULL;
}

struct ksm_page *ksm_stable_find(struct ksm *ksm, pfn_t pfn)
{
	struct ksm_page *parent, **link;

	return stable_search(ksm, pfn, &parent, &link);
}

bool ksm_stable_insert(struct ksm *ksm, struct ksm_page *page, pfn_t pfn)
{
	struct ksm_page *parent, **link;

	if (stable_search(ksm, pfn, &parent, &link))
		return false;
	RB_SET(page, parent, node);
	*link = page;
	ksm_stable_tree_RB_INSERT_COLOR(&ksm->stable, page);
	return true;
}

/* May take @page away. */
static void for_each_page(struct ksm *ksm,
			  void (*fn)(struct ksm *ksm, struct ksm_page *page, void *arg), void *arg)
{
	struct ksm_page *page, *next;

	RB_FOREACH_SAFE(page, ksm_stable_tree, &ksm->stable, next)
	fn(ksm, page, arg);
	list_for_each_entry_safe(page, next, &ksm->full, in_full)
		fn(ksm, page, arg);
}

static void prune_page(struct ksm *ksm, struct ksm_page *page, void *arg)
{
	pfn_t pfn;

	(void)arg;
	if (lock_ksm_page(page, ksm->phys, &pfn)) {
		ksm_page_prune(page);
		unlock_frame(ksm->phys, pfn);
	} else {
		forget_page(ksm, page);
	}
}

void ksm_stable_prune(struct ksm *ksm)
{
	for_each_page(ksm, prune_page, NULL);
}

static void count_page(struct ksm *ksm, struct ksm_page *page, void *arg)
{
	struct ksm_stats *stats = arg;
	int mappings;
	pfn_t pfn;

	if (!lock_ksm_page(page, ksm->phys, &pfn))
		return;
	mappings = atomic_read(&pfn_to_frame(ksm->phys, pfn)->mapcount);
	unlock_frame(ksm->phys, pfn);
	stats->pages_shared++;
	stats->pages_sharing += max(mappings, 1) - 1;
}

void ksm_stable_count(struct ksm *ksm, struct ksm_stats *stats)
{
	stats->pages_shared = stats->pages_sharing = 0;
	for_each_page(ksm, count_page, stats);
}

/* ---- unstable ---- */

void ksm_unstable_remove(struct ksm *ksm, struct ksm_item *item)
{
	/* Earlier rounds' trees are forgotten. */
	if (item->round == ksm->round)
		RB_REMOVE(ksm_unstable_tree, &ksm->unstable, item);
	item->round = 0;
}

struct ksm_item *ksm_unstable_find_or_insert(struct ksm *ksm, struct ksm_item *item, pfn_t pfn,
					     pfn_t *other)
{
	struct ksm_item *parent, *at, **link;
	int order;

restart:
	parent = NULL;
	link = &RB_ROOT(&ksm->unstable);
	while ((at = *link)) {
		*other = ksm_get_page(at);
		if (*other == INVALID_PFN) {
			ksm_unstable_remove(ksm, at);
			goto restart;
		}
		order = contents_compare_pages(phys_map(ksm->phys, pfn),
					       phys_map(ksm->phys, *other));
		if (!order && *other != pfn)
			return at;
		phys_put(ksm->phys, *other);
		if (!order) /* one page, since a fork: there is nothing to save */
			return NULL;
		parent = at;
		link = order < 0 ? &RB_LEFT(at, unstable) : &RB_RIGHT(at, unstable);
	}
	RB_SET(item, parent, unstable);
	*link = item;
	ksm_unstable_tree_RB_INSERT_COLOR(&ksm->unstable, item);
	item->round = ksm->round;
	return NULL;
}

void ksm_unstable_replace(struct ksm *ksm, struct ksm_item *other, struct ksm_item *item)
{
	struct ksm_item *parent = RB_PARENT(other, unstable);
	struct ksm_item *left = RB_LEFT(other, unstable), *right = RB_RIGHT(other, unstable);

	item->unstable = other->unstable;
	if (left)
		RB_PARENT(left, unstable) = item;
	if (right)
		RB_PARENT(right, unstable) = item;
	if (!parent)
		RB_ROOT(&ksm->unstable) = item;
	else if (RB_LEFT(parent, unstable) == other)
		RB_LEFT(parent, unstable) = item;
	else
		RB_RIGHT(parent, unstable) = item;
	item->round = other->round;
	other->round = 0;
}
