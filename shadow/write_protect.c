/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stores to the guest's page tables (K-10, K-11, K-43): which of them we are told of.
 *
 * A gfn is a *table* while a shadow page that is not direct has it. Such a page is in step or
 * unsync, and no leaf that maps its gfn is writable while it is in step (leaves of another gfn that
 * shows the same memory may be, as in Linux: docs/mmu.md has what the guest sees then):
 *
 *   level > 1  in step from the beginning. A store faults, as RET_PF_WRITE_PROTECTED; whoever
 *		carries it out says so here (shadow_gpte_written), and what was linked at that entry
 *		goes. Or he lets the guest do it (shadow_unprotect_gpa): unsync until the next sync.
 *   level 1    unsync from the beginning. A sync protects it (sync.c); the first store then makes
 *		it unsync again, and is done by the guest.
 *
 * The right to write is given and taken under mmu_lock, as are the marks: who finds a page in step
 * finds no writable leaf, and who makes one has marked the page before. But the CPUs are told of a
 * right that was taken only after the lock is dropped, and may store until then. Hence:
 *
 *  1. A page of leaves comes into step only after such a shootdown, and a look at every entry that
 *     follows it (sync.c).
 *  2. Links are looked at in every sync, in step or not. That also finds what is stored from
 *     outside the guest with nobody saying so.
 *
 * A table of which nothing is used any more may have become data. It is not asked of the guest; but
 * a page of level > 1 that is written to again and again, with no fault that passes through it in
 * between, is let go of.
 *
 * Everything here runs under mmu_lock, but for the two calls of shadow.h.
 */
#include "shadow/dirty.h"
#include "shadow/gpte.h"
#include "shadow/shadow_internal.h"

#include "notifier/sync/util.h"

/* So many stores, none of them between two uses. */
#define WRITE_FLOOD 3

static bool is_table(const struct shadow_page *sp, gfn_t gfn)
{
	return sp->gfn == gfn && !sp->role.direct;
}

static void mark_unsync(struct shadow *shadow, struct shadow_page *sp)
{
	if (!sp->unsync && sp->role.level == 1)
		atomic64_inc(&shadow->stats.unsync_made);
	sp->unsync = true;
	sp->sync_id = 0;
}

static void mark_all_unsync(struct shadow *shadow, gfn_t gfn, int max_level)
{
	struct shadow_page *sp;

	list_for_each_entry(sp, shadow_page_bucket(shadow, gfn), hash_link) {
		if (is_table(sp, gfn) && sp->role.level <= max_level)
			mark_unsync(shadow, sp);
	}
}

/*
 * May a leaf of @gfn become writable, @store: for a store that is about to be done? A read does not
 * put a table out of step, and a right that nobody has asked for is not worth it.
 */
bool gfn_may_be_written(struct shadow *shadow, gfn_t gfn, bool store)
{
	struct shadow_page *sp;
	if (likely(!gfn_is_table(shadow, gfn)))
		return true;
	list_for_each_entry(sp, shadow_page_bucket(shadow, gfn), hash_link) {
		if (!is_table(sp, gfn))
			continue;
		if (!sp->unsync && (sp->role.level > 1 || !store))
			return false;
	}
	/* Those that are unsync too: a sync that is under way must not end that (sync.c). */
	mark_all_unsync(shadow, gfn, TABLE_LEVELS);
	return true;
}

/* A right to write is taken in place: CPUs are told by a shootdown, and set A at the same time. The
 * value is the leaf as it was. */
static spte_t leaf_take(spte_t *sptep, spte_t bits)
{
	spte_t spte = READ_ONCE(*sptep);

	while ((spte & bits) && !try_cmpxchg(sptep, &spte, spte & ~bits))
		;
	return spte;
}

/* If it was paused, who did it may not have told the CPUs yet. */
bool leaf_lose_write(spte_t *sptep)
{
	return spte_writable(leaf_take(sptep, SPTE_WRITE | SPTE_DIRTY | SPTE_MAY_WRITE));
}

bool leaf_pause_write(spte_t *sptep)
{
	return leaf_take(sptep, SPTE_WRITE | SPTE_DIRTY) & SPTE_WRITE;
}

static void protect_one(spte_t *sptep, void *arg)
{
	pfn_t *pfn = arg;

	if (leaf_lose_write(sptep))
		*pfn = spte_pfn(READ_ONCE(*sptep));
}

void write_protect_gfn(struct shadow *shadow, gfn_t gfn, struct zap_batch *batch)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), gfn);
	pfn_t pfn = INVALID_PFN;

	lockdep_assert_held(&shadow->mmu_lock);
	if (!slot)
		return;
	/* All leaves of a page name one frame. */
	rmap_each(&slot->rmap[gfn - slot->base_gfn], protect_one, &pfn);
	if (pfn != INVALID_PFN)
		zap_batch_add(batch, pfn);
}

/* One link that is not what the guest's entry says any more, of those that were written. */
static struct shadow_page *find_stale_child(struct shadow *shadow, struct shadow_page *sp,
					    unsigned int first, unsigned int last)
{
	for (unsigned int i = first; i <= last; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);
		struct shadow_page *child;

		if (!spte_present(spte) || spte_is_leaf(spte, sp->role.level))
			continue;
		child = spte_to_child(shadow, spte);
		if (!link_in_step(shadow, sp, i, child))
			return child;
	}
	return NULL;
}

/* The written entries that have huge leaves. False: the batch is full, and there may be more. */
static bool huge_leaves_written(struct shadow *shadow, struct shadow_page *sp, unsigned int first,
				unsigned int last, struct zap_batch *batch)
{
	for (unsigned int i = first; i <= last; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);

		if (!spte_present(spte) || !spte_is_leaf(spte, sp->role.level))
			continue;
		if (zap_batch_full(batch))
			return false;
		sync_leaf(shadow, sp, i, batch);
	}
	return true;
}

/* Entries of a table above the leaves were written. True: once more, as the batch is full, or a
 * page was zapped, which may have been any below this one. */
static bool directory_written(struct shadow *shadow, struct shadow_page *sp, unsigned int first,
			      unsigned int last, struct zap_batch *batch)
{
	struct shadow_page *child;

	if (!huge_leaves_written(shadow, sp, first, last, batch))
		return true;
	child = find_stale_child(shadow, sp, first, last);
	if (child)
		zap_page(shadow, child, batch);
	return child;
}

/* Is @sp written to without being used? Then it goes, and its gfn may be written; also a root that
 * is merely kept. One that a CPU may be on cannot go; that is compared at its next sync. */
static bool flooded(struct shadow *shadow, struct shadow_page *sp, struct zap_batch *batch)
{
	if (sp->unsync || ++sp->writes <= WRITE_FLOOD)
		return false;
	sp->writes = 0;
	atomic64_inc(&shadow->stats.flooded);
	if (root_in_use(shadow, sp)) {
		mark_unsync(shadow, sp);
		return false;
	}
	root_cache_forget(shadow, sp);
	zap_page(shadow, sp, batch);
	return true;
}

/* One pass; false when a page was zapped, so that the list is not what it was, or the batch is
 * full. */
static bool gpte_written(struct shadow *shadow, gfn_t gfn, unsigned int first, unsigned int last,
			 uint64_t pass, struct zap_batch *batch)
{
	struct shadow_page *sp;

	list_for_each_entry(sp, shadow_page_bucket(shadow, gfn), hash_link) {
		if (!is_table(sp, gfn) || sp->role.level == 1)
			continue;
		if (directory_written(shadow, sp, first, last, batch))
			return false;
		if (sp->pass == pass)
			continue;
		sp->pass = pass; /* a store is counted once */
		if (flooded(shadow, sp, batch))
			return false;
	}
	return true;
}

/*
 * The order is: memory, then this. A fault that read the old entry either comes to mmu_lock later,
 * and then sees that it has changed:
 *
 *   fault                                   store
 *   -----                                   -----
 *   guest_walk: reads the entry
 *                                           stores to it
 *                                           mmu_lock: finds nothing of this entry; unlock
 *   mmu_lock: the entry is another: RETRY
 *
 * or earlier, and then what it linked is found here:
 *
 *   mmu_lock: the entry is the same: links
 *                                           stores to it
 *                                           mmu_lock: the link is stale: zapped
 *
 * (K-13. Were the store told of first, a fault could do all of its work between that and the
 * store.) Replayed by test_write_protect (told_*).
 */
void shadow_gpte_written(struct shadow *shadow, gpa_t gpa, size_t bytes)
{
	struct zap_batch batch;
	int id;

	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	while (bytes) {
		size_t len = min(bytes, (size_t)(PAGE_SIZE - (gpa & ~PAGE_MASK)));
		unsigned int first = (gpa & ~PAGE_MASK) / sizeof(uint64_t);
		unsigned int last = ((gpa & ~PAGE_MASK) + len - 1) / sizeof(uint64_t);
		uint64_t pass;

		mark_page_dirty(shadow, gpa >> PAGE_SHIFT);
		spin_lock(&shadow->mmu_lock);
		pass = ++shadow->sync_pass;
		mark_all_unsync(shadow, gpa >> PAGE_SHIFT, 1);
		while (!gpte_written(shadow, gpa >> PAGE_SHIFT, first, last, pass, &batch)) {
			if (!zap_batch_full(&batch))
				continue;
			zap_batch_close(shadow, &batch);
			spin_unlock(&shadow->mmu_lock);
			zap_batch_flush(shadow, &batch);
			spin_lock(&shadow->mmu_lock);
		}
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		zap_batch_flush(shadow, &batch);
		gpa += len;
		bytes -= len;
	}
	srcu_read_unlock(&shadow->slots_srcu, id);
}

void shadow_unprotect_gpa(struct shadow *shadow, gpa_t gpa)
{
	spin_lock(&shadow->mmu_lock);
	mark_all_unsync(shadow, gpa >> PAGE_SHIFT, TABLE_LEVELS);
	spin_unlock(&shadow->mmu_lock);
}
