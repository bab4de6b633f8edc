/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many shadow pages there may be, and which one goes when another is wanted (K-35).
 *
 * Rules:
 *  1. Room is made before a fault or a load of a root takes mmu_lock for its own work, with a batch
 * of its own: where an entry was cleared, nothing is linked in the same section (K-04). By then
 * others may have taken the room; then there is another round.
 *  2. The page goes that was not used for longest, with all below it. Used is what a fault passes
 * through, the lower table first: so a table is never older than what hangs below it, and a zap
 * seldom takes more than was meant. What a CPU uses without a fault we do not see.
 *  3. A root that a CPU may be on stays. One that is merely kept goes in its turn: its vCPUs make
 * another when they come back.
 *  4. When the machine has no table to give, what there is becomes the budget, and some of that is
 * recycled, once, before the fault gives up. The budget grows by each table that the machine gives
 * after that, up to what was asked for.
 *
 * Each vCPU's cache, and what is zapped and not yet retired, are not counted.
 */
#include <errno.h>
#include <limits.h>

#include "shadow/shadow_internal.h"

#include "notifier/sync/util.h"

#define RECYCLE_AT_ONCE 16

/*
 * So many pages one instruction may touch: itself over two, two operands over two each. With tables
 * for them all a CPU gets on, whatever the order in which others recycle.
 */
#define PAGES_OF_AN_INSTRUCTION 6

unsigned long shadow_min_page_budget(unsigned int levels, unsigned int nr_vcpus)
{
	return nr_vcpus * (1ul + PAGES_OF_AN_INSTRUCTION * (levels - 1));
}

static unsigned long least_budget(const struct shadow *shadow)
{
	return shadow_min_page_budget(shadow->machine->levels, shadow->nr_vcpus);
}

bool shadow_has_room(const struct shadow *shadow, unsigned int pages)
{
	return READ_ONCE(shadow->nr_pages) + pages <= READ_ONCE(shadow->page_budget);
}

void shadow_page_used(struct shadow *shadow, struct shadow_page *sp)
{
	lockdep_assert_held(&shadow->mmu_lock);
	list_move(&sp->link, &shadow->pages);
}

void shadow_path_used(struct shadow *shadow, struct shadow_page *const path[], int levels,
		      int lowest)
{
	const struct list_head *at = shadow->pages.next;
	int level = levels;

	lockdep_assert_held(&shadow->mmu_lock);
	/* Most faults follow one that took the same path: then it is in front already. */
	for (; level >= lowest && at == &path[level]->link; level--)
		at = at->next;
	if (level < lowest)
		return;
	for (level = lowest; level <= levels; level++)
		shadow_page_used(shadow, path[level]);
}

static struct shadow_page *least_recently_used(struct shadow *shadow)
{
	struct shadow_page *sp;

	lockdep_assert_held(&shadow->mmu_lock);
	list_for_each_entry_reverse(sp, &shadow->pages, link) {
		if (!root_in_use(shadow, sp))
			return sp;
	}
	return NULL;
}

unsigned long shadow_recycle_pages(struct shadow *shadow, unsigned long pages,
				   struct zap_batch *batch)
{
	const unsigned long before = shadow->nr_pages;
	struct shadow_page *sp;

	lockdep_assert_held(&shadow->mmu_lock);
	while (before - shadow->nr_pages < pages && (sp = least_recently_used(shadow))) {
		root_cache_forget(shadow, sp);
		zap_any_page(shadow, sp, batch);
	}
	atomic64_add(before - shadow->nr_pages, &shadow->stats.pages_recycled);
	return before - shadow->nr_pages;
}

/* Recycle @pages, or as many as there are; mmu_lock is dropped in between. How many? */
static unsigned long recycle(struct shadow *shadow, unsigned long pages)
{
	unsigned long done = 0, some;
	struct zap_batch batch;

	zap_batch_init(&batch);
	do {
		spin_lock(&shadow->mmu_lock);
		some = shadow_recycle_pages(shadow,
					    min(pages - done, (unsigned long)RECYCLE_AT_ONCE),
					    &batch);
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		zap_batch_flush(shadow, &batch);
		done += some;
	} while (some && done < pages);
	return done;
}

/*
 * No room, and nothing that can go; seen in one section, for others make room as well:
 *
 *   fault                              delete of a slot
 *   -----                              ----------------
 *   finds no room
 *                                      zaps everything
 *   recycles: there is nothing
 *   there is room now
 *     (without a second look: the guest is out of memory)
 *
 * Replayed by tests/unit/test_page_budget.c (room_that_others_made).
 */
static bool no_room_to_make(struct shadow *shadow, unsigned int pages)
{
	bool none;

	spin_lock(&shadow->mmu_lock);
	none = !shadow_has_room(shadow, pages) && !least_recently_used(shadow);
	spin_unlock(&shadow->mmu_lock);
	return none;
}

/* 0, or -ENOSPC: nothing is left that can go. */
static int make_room(struct shadow *shadow, unsigned int pages)
{
	while (!shadow_has_room(shadow, pages)) {
		/* More than is wanted, or the next fault would be here again; not so much that a
		 * small budget holds little else than room. */
		unsigned long more =
			min(READ_ONCE(shadow->page_budget) / 8, (unsigned long)RECYCLE_AT_ONCE);

		shadow_hook(shadow, SHADOW_HOOK_NO_ROOM);
		if (!recycle(shadow, pages + more) && no_room_to_make(shadow, pages))
			return -ENOSPC;
	}
	return 0;
}

/* The machine has no table: true if it may have one now. */
static bool shrink(struct shadow *shadow, unsigned int pages)
{
	unsigned long least = least_budget(shadow);

	spin_lock(&shadow->mmu_lock);
	WRITE_ONCE(shadow->page_budget, min(shadow->page_budget, max(shadow->nr_pages, least)));
	spin_unlock(&shadow->mmu_lock);
	return recycle(shadow, pages + RECYCLE_AT_ONCE);
}

void shadow_budget_grow(struct shadow *shadow)
{
	if (likely(READ_ONCE(shadow->page_budget) == READ_ONCE(shadow->page_limit)))
		return;
	spin_lock(&shadow->mmu_lock);
	if (shadow->page_budget < shadow->page_limit)
		WRITE_ONCE(shadow->page_budget, shadow->page_budget + 1);
	spin_unlock(&shadow->mmu_lock);
}

int shadow_prepare(struct shadow *shadow, struct shadow_cache *cache, bool root)
{
	unsigned int pages = root ? 1 : shadow->machine->levels - 1;
	int ret = shadow_cache_topup(shadow, cache, root);

	if (unlikely(ret) && shrink(shadow, pages))
		ret = shadow_cache_topup(shadow, cache, root);
	return ret ?: make_room(shadow, pages);
}

int shadow_set_page_budget(struct shadow *shadow, unsigned long pages)
{
	int id, ret;

	if (pages && pages < least_budget(shadow))
		return -EINVAL;
	spin_lock(&shadow->mmu_lock);
	WRITE_ONCE(shadow->page_limit, pages ?: ULONG_MAX);
	WRITE_ONCE(shadow->page_budget, shadow->page_limit);
	spin_unlock(&shadow->mmu_lock);
	/* Any thread may come here, while the slots change: what is zapped is looked up in them. */
	id = srcu_read_lock(&shadow->slots_srcu);
	ret = make_room(shadow, 0);
	srcu_read_unlock(&shadow->slots_srcu, id);
	return ret;
}
