/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a memslot that is deleted or moved leaves the shadow tables: two policies, which a guest
 * cannot tell apart (K-26).
 *
 * SHADOW_ZAP_SLOT: what maps a page of the slot, and what shadows a guest table in it.
 *
 * SHADOW_ZAP_ALL: everything, and fast (K-25). One addition makes all tables obsolete at once: none
 * is found, linked or filled any more, and they go one after the other, the oldest first, mmu_lock
 * being dropped in between for those who fault. Rules:
 *
 *  1. A vCPU's root may be obsolete. Its thread finds out at its next fault, INVLPG or CR3 load, at
 *     the latest when what it had is shot down, and goes on from a new root. Until then the old one
 *     is kept for it, emptied, and in no list.
 *  2. Nothing is made below an obsolete root. A fault that was resolved before must not be
 *     installed after:
 *
 *       vCPU                                delete of another slot
 *       ----                                ----
 *       resolves a fault
 *                                           mmu_lock: all is obsolete; zapped
 *       mmu_lock: its root is obsolete:
 *         RETRY                             returns
 *         (without the check: tables hang
 *          below a root that is in no list)
 *
 *     Replayed by tests/unit/test_memslot_races.c (obsolete root).
 *  3. While it is being zapped, a CPU may use what is obsolete. Its guest may not notice: so what
 *     the guest does to be rid of a translation must reach what is obsolete, too. A new root does
 *     that for CR3; INVLPG, which cannot fail for lack of memory, finishes the zap, as does a flush
 *     whose root has become obsolete under it (root.c).
 */
#include "shadow/huge.h"

static struct shadow_page *oldest_obsolete(struct shadow *shadow)
{
	struct shadow_page *sp;

	if (list_empty(&shadow->pages))
		return NULL;
	/* Pages are published at the head: once one is good, so are those before it. */
	sp = list_last_entry(&shadow->pages, struct shadow_page, link);
	return shadow_page_obsolete(shadow, sp) ? sp : NULL;
}

/* mmu_lock: as many as go in one section; true: there are none left. */
static bool zap_some_obsolete(struct shadow *shadow, struct zap_batch *batch)
{
	for (unsigned int nr = 0; nr < ZAP_BATCH_PAGES; nr++) {
		struct shadow_page *sp = oldest_obsolete(shadow);

		if (!sp)
			return true;
		zap_obsolete_page(shadow, sp, batch);
	}
	return !oldest_obsolete(shadow);
}

void shadow_zap_obsolete(struct shadow *shadow)
{
	struct zap_batch batch;
	bool done;

	zap_batch_init(&batch);
	for (;;) {
		spin_lock(&shadow->mmu_lock);
		done = zap_some_obsolete(shadow, &batch);
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		/* Waits for what others have taken, too, also if nothing was left for us. */
		zap_batch_flush(shadow, &batch);
		if (done)
			return;
		shadow_hook(shadow, SHADOW_HOOK_ZAP_BREAK);
	}
}

void shadow_zap_all_fast(struct shadow *shadow)
{
	spin_lock(&shadow->mmu_lock);
	WRITE_ONCE(shadow->gen, shadow->gen + 1);
	spin_unlock(&shadow->mmu_lock);
	shadow_zap_obsolete(shadow);
}

/* How far a walk over the pages of a slot has come. */
struct slot_cursor {
	struct memslot *slot;
	bool tables;
	uint64_t region; /* those before it are done */
	uint64_t rel_gfn;
};

#define SCAN_PAGES 4096 /* looked at in one section, when there is little to zap */

/* mmu_lock: go on until the slot is done (true), or it is enough for one section. */
static bool zap_some_of_slot(struct shadow *shadow, struct slot_cursor *cursor,
			     struct zap_batch *batch)
{
	struct memslot *slot = cursor->slot;
	unsigned int nr = 0;

	if (!huge_zap(shadow, slot, &cursor->region, batch))
		return false;
	for (uint64_t seen = 0; cursor->rel_gfn < slot->npages; cursor->rel_gfn++) {
		gfn_t gfn = slot->base_gfn + cursor->rel_gfn;
		struct shadow_page *sp;

		if (seen++ == SCAN_PAGES || !zap_rmap(shadow, &slot->rmap[cursor->rel_gfn], batch))
			return false;
		while (cursor->tables && (sp = shadow_page_of_gfn(shadow, gfn))) {
			if (nr++ == ZAP_BATCH_PAGES)
				return false;
			zap_page(shadow, sp, batch);
		}
	}
	return true;
}

void shadow_zap_slot(struct shadow *shadow, struct memslot *slot, bool tables)
{
	struct slot_cursor cursor = {.slot = slot, .tables = tables};
	struct zap_batch batch;
	bool done;

	lockdep_assert_held(&shadow->slots_lock);
	zap_batch_init(&batch);
	for (;;) {
		spin_lock(&shadow->mmu_lock);
		done = zap_some_of_slot(shadow, &cursor, &batch);
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		zap_batch_flush(shadow, &batch);
		if (done)
			return;
		shadow_hook(shadow, SHADOW_HOOK_ZAP_BREAK);
	}
}
