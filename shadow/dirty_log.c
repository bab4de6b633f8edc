/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dirty log (K-32): which pages of a slot were written since somebody asked last.
 *
 * A slot that is logged has a bit for each page. While that is clear no leaf of the page can be
 * stored through: the store faults, the page is marked, and the leaf has its right back, in place.
 * Who asks takes the bits, and the rights of the pages that were marked. So it costs a fault for
 * each page written between two looks, and nothing for those that are not. A read maps a page
 * without the right to write, though the guest and the host may grant it: it would be dirty at
 * once. A page that is write-protected as a table of the guest's stays so, logged or not
 * (write_protect.c).
 *
 * Marks. A bit is set by a locked instruction, also where it is set already: who looked first would
 * do so before his own store is seen.
 *
 *  1. Who makes a leaf writable under mmu_lock marks in the same section. (Marked after it, another
 *     CPU could have stored by that leaf, and be done, while nobody is told.)
 *  2. Who does it without mmu_lock (fast_fault.c) marks and grants in one section of the lock in
 * the head of the page's rmap, and a harvest protects in one. Then the mark that it takes is of
 *     before the grant, and it waits to take the right; or there is another mark. Without the lock:
 *
 *       harvest                                fault, without mmu_lock
 *       -------                                -----------------------
 *                                              marks
 *       takes the mark; nothing to protect
 *                                              grants the right; the guest stores, now and later
 *         ^ forbidden: no mark is left that says so
 *
 *     (Granted, then marked: another CPU may have stored in between, and be done, when a harvest
 *     finds no mark.)
 *  3. Host code writes, then marks (shadow_gpte_written(), the walk's A and D bits): there is no
 *     right to take away.
 *
 *       write                                  harvest
 *       -----                                  -------
 *       marks
 *                                              takes the mark; its caller copies the page
 *       writes
 *         ^ forbidden: no mark is left that says so
 *
 * A harvest, for each piece of the slot: takes the marks, protects, shoots down, and only then goes
 * on. It returns when all that is done.
 *
 *  4. Marks are taken before the right is:
 *
 *       harvest, mmu_lock                      fault, without mmu_lock
 *       -----------------                      -----------------------
 *       protects the page
 *                                              marks, grants the right; the guest stores
 *       takes the mark
 *         ^ forbidden: the page is writable, and nobody will hear of the next store
 *
 *     With rule 2 and this the worst is a mark too many.
 *  5. CPUs are told before the caller is:
 *
 *       harvest                                CPU                       caller
 *       -------                                ---                       ------
 *       takes the mark, protects
 *       returns
 *                                                                        copies the page
 *                                              stores by its TLB
 *                                                ^ forbidden: no fault, no mark
 *       shoots down
 *
 *     Also where there was nothing to protect: who took the right may not have told the CPUs yet,
 *     and the flush waits for him (tlb.c, rule 3).
 *
 * Each is replayed by tests/unit/test_dirty_log_races.c, and met at random by test_dirty_epochs.c.
 *
 * Linux has twice the bits, to copy them out in one go when the locks are dropped. Here the
 * caller's memory is written to under mmu_lock, and one set will do: an eighth of a byte for a
 * page.
 *
 * slots_lock is held by who asks. So the slot stays what it is, and there is one harvest at a time.
 */
#include <errno.h>

#include "shadow/dirty.h"
#include "shadow/huge.h"

#include <gnomon/shadow_dirty.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/util.h"

#define WORD_BITS 64

/* ---- marks ---- */

void mark_page_dirty_in_slot(struct shadow *shadow, struct shadow_vcpu *vcpu,
			     const struct memslot *slot, gfn_t gfn)
{
	struct dirty_log *log = slot->dirty;
	uint64_t rel_gfn = gfn - slot->base_gfn;
	struct dirty_ring *ring;

	if (likely(!log))
		return;
	atomic64_inc(&shadow->stats.dirty_marked);
	ring = vcpu ? vcpu_ring(vcpu) : NULL;
	if (ring) {
		dirty_ring_push(ring, slot->id, rel_gfn);
		return;
	}
	atomic64_fetch_or((int64_t)(1UL << rel_gfn % WORD_BITS), &log->bits[rel_gfn / WORD_BITS]);
	/* After the bit: who finds this false has seen all that is set. Pairs with
	 * shadow_reset_dirty_rings(). */
	smp_store_release(&log->gather, true);
}

void mark_page_dirty(struct shadow *shadow, gfn_t gfn)
{
	const struct memslot *slot = gfn_to_memslot(shadow_memslots(shadow), gfn);

	if (slot)
		mark_page_dirty_in_slot(shadow, NULL, slot, gfn);
}

/* ---- rights ---- */

static void protect_one(spte_t *sptep, void *arg)
{
	pfn_t *pfn = arg;

	if (leaf_pause_write(sptep))
		*pfn = spte_pfn(READ_ONCE(*sptep));
}

void log_protect_page(struct shadow *shadow, struct memslot *slot, uint64_t rel_gfn,
		      struct zap_batch *batch)
{
	pfn_t pfn = INVALID_PFN;

	lockdep_assert_held(&shadow->mmu_lock);
	/* Rule 2: with the lock. All leaves of a page name one frame. */
	rmap_each_lockless(&slot->rmap[rel_gfn], protect_one, &pfn);
	if (pfn == INVALID_PFN)
		return;
	zap_batch_add(batch, pfn);
	atomic64_inc(&shadow->stats.dirty_protected);
}

/* ---- the log of a slot comes and goes ---- */

static struct dirty_log *dirty_log_alloc(uint64_t npages, bool all_set)
{
	struct dirty_log *log = kzalloc(sizeof(*log), GFP_KERNEL);

	if (!log)
		return NULL;
	log->nr_words = shadow_dirty_words(npages);
	log->bits = kvcalloc(log->nr_words, sizeof(*log->bits), GFP_KERNEL);
	if (!log->bits) {
		kfree(log);
		return NULL;
	}
	for (uint64_t n = 0; all_set && n < npages; n += WORD_BITS)
		atomic64_set(&log->bits[n / WORD_BITS],
			     (int64_t)(~0UL >> (WORD_BITS - min(npages - n, (uint64_t)WORD_BITS))));
	return log;
}

/* All pages are marked at the beginning, and so may be writable. Rings have no room for that. */
static bool begins_all_set(const struct shadow *shadow)
{
	return (shadow->dirty_mode & SHADOW_DIRTY_INITIALLY_SET) && !shadow->rings;
}

int dirty_log_prepare(struct shadow *shadow, const struct memslot *old, struct memslot *new)
{
	new->dirty = NULL;
	if (!(new->flags &MEMSLOT_LOG_DIRTY))
		return 0;
	/* Pages keep their marks wherever their slot goes. */
	new->dirty = old && old->dirty ? old->dirty
				       : dirty_log_alloc(new->npages, begins_all_set(shadow));
	return new->dirty ? 0 : -ENOMEM;
}

void dirty_log_drop(struct memslot *gone, const struct memslot *stays)
{
	struct dirty_log *log = gone->dirty;

	if (!log || (stays && stays->dirty == log))
		return;
	kvfree(log->bits, log->nr_words * sizeof(*log->bits));
	kfree(log);
}

#define PAGES_IN_A_ROW 1024

/* How far the protection of what was there before has come. */
struct log_cursor {
	uint64_t region; /* of 2 MiB: their leaves go first, as a slot that is logged has none */
	uint64_t next;	 /* page that may be mapped */
};

/* mmu_lock: go on. False: it is enough for one section. */
static bool protect_mapped(struct shadow *shadow, struct memslot *slot, struct log_cursor *cursor,
			   struct zap_batch *batch)
{
	unsigned int seen = 0;
	uint64_t n;

	if (!huge_zap(shadow, slot, &cursor->region, batch))
		return false;
	/* All pages are marked, and so may be writable. */
	if (begins_all_set(shadow))
		return true;
	for_each_gfn(n, &slot->mapped, cursor->next, slot->npages) {
		cursor->next = n;
		if (zap_batch_full(batch) || seen++ == PAGES_IN_A_ROW)
			return false;
		log_protect_page(shadow, slot, n, batch);
	}
	return true;
}

/*
 * Faults that do not mark are over: the swap has waited for them. What they made is found here, and
 * what comes from now on is marked.
 */
void dirty_log_begin(struct shadow *shadow, struct memslot *slot)
{
	struct zap_batch batch;
	struct log_cursor cursor = {0};
	bool done;

	lockdep_assert_held(&shadow->slots_lock);
	zap_batch_init(&batch);
	do {
		spin_lock(&shadow->mmu_lock);
		done = protect_mapped(shadow, slot, &cursor, &batch);
		zap_batch_close(shadow, &batch);
		spin_unlock(&shadow->mmu_lock);
		zap_batch_flush(shadow, &batch);
		shadow_hook(shadow, SHADOW_HOOK_DIRTY_BREAK);
	} while (!done);
}

/* ---- a harvest ---- */

struct harvest {
	struct shadow *shadow;
	struct memslot *slot;
	uint64_t word, end;
	const uint64_t *only; /* of the words from first on; NULL: all */
	uint64_t first;
	uint64_t *found; /* NULL: nobody asks */
};

#define WORDS_IN_A_ROW 64

/* The marks of this word that are to be taken. */
static uint64_t wanted(const struct harvest *h)
{
	uint64_t marks = (uint64_t)atomic64_read(&h->slot->dirty->bits[h->word]);

	return h->only ? marks & h->only[h->word - h->first] : marks;
}

static void take_word(struct harvest *h, uint64_t marks, struct zap_batch *batch)
{
	atomic64_t *word = &h->slot->dirty->bits[h->word];

	/* Rule 4. */
	marks &= (uint64_t)atomic64_fetch_and((int64_t)~marks, word);
	if (h->found)
		h->found[h->word] = marks;
	shadow_hook(h->shadow, SHADOW_HOOK_DIRTY_TAKEN);
	for (; marks; marks &= marks - 1)
		log_protect_page(h->shadow, h->slot,
				 h->word * WORD_BITS + (unsigned int)__builtin_ctzl(marks), batch);
}

/* mmu_lock: take marks and rights until all is done, or it is enough for one section. */
static void take_some(struct harvest *h, struct zap_batch *batch)
{
	for (unsigned int seen = 0; seen < WORDS_IN_A_ROW && h->word < h->end; seen++, h->word++) {
		uint64_t marks = wanted(h);

		if (!marks)
			continue;
		if (ZAP_BATCH_FRAMES - batch->nr_frames < WORD_BITS)
			return;
		take_word(h, marks, batch);
	}
}

static void harvest(struct harvest *h)
{
	struct zap_batch batch;

	lockdep_assert_held(&h->shadow->slots_lock);
	zap_batch_init(&batch);
	for (;;) {
		/* A store that was over when we began is marked: no lock is needed to see that. */
		while (h->word < h->end && !wanted(h))
			h->word++;
		if (h->word == h->end)
			return;
		spin_lock(&h->shadow->mmu_lock);
		take_some(h, &batch);
		zap_batch_close(h->shadow, &batch);
		spin_unlock(&h->shadow->mmu_lock);
		zap_batch_flush(h->shadow, &batch);
		shadow_hook(h->shadow, SHADOW_HOOK_DIRTY_BREAK);
	}
}

/* slots_lock: @id as a slot with a bitmap, or an error. */
static int find_logged(struct shadow *shadow, unsigned int id, struct memslot **slot)
{
	if (shadow->rings)
		return -ENXIO;
	if (id >= MEMSLOT_MAX)
		return -EINVAL;
	*slot = shadow->slots->by_id[id];
	return *slot && slot_is_logged(*slot) ? 0 : -ENOENT;
}

int shadow_get_dirty_log(struct shadow *shadow, unsigned int id, uint64_t *bitmap)
{
	struct memslot *slot;
	int ret;

	mutex_lock(&shadow->slots_lock);
	ret = find_logged(shadow, id, &slot);
	if (!ret) {
		uint64_t nr_words = slot->dirty->nr_words;

		for (uint64_t n = 0; n < nr_words; n++)
			bitmap[n] = (uint64_t)atomic64_read(&slot->dirty->bits[n]);
		if (!(shadow->dirty_mode & SHADOW_DIRTY_MANUAL_PROTECT)) {
			struct harvest h = {.shadow = shadow,
					    .slot = slot,
					    .end = nr_words,
					    .found = bitmap};

			harvest(&h);
		}
	}
	mutex_unlock(&shadow->slots_lock);
	return ret;
}

int shadow_clear_dirty_log(struct shadow *shadow, unsigned int id, uint64_t first, uint64_t npages,
			   const uint64_t *bitmap)
{
	struct memslot *slot;
	int ret;

	mutex_lock(&shadow->slots_lock);
	ret = find_logged(shadow, id, &slot);
	if (!ret && (first % WORD_BITS || first > slot->npages || npages > slot->npages - first ||
		     (npages % WORD_BITS && first + npages != slot->npages)))
		ret = -EINVAL;
	if (!ret) {
		struct harvest h = {
			.shadow = shadow,
			.slot = slot,
			.word = first / WORD_BITS,
			.end = first / WORD_BITS + shadow_dirty_words(npages),
			.only = bitmap,
			.first = first / WORD_BITS,
		};

		harvest(&h);
	}
	mutex_unlock(&shadow->slots_lock);
	return ret;
}

int shadow_set_dirty_log_mode(struct shadow *shadow, unsigned int mode)
{
	const unsigned int both = SHADOW_DIRTY_MANUAL_PROTECT | SHADOW_DIRTY_INITIALLY_SET;

	if ((mode & ~both) || mode == SHADOW_DIRTY_INITIALLY_SET)
		return -EINVAL;
	mutex_lock(&shadow->slots_lock);
	shadow->dirty_mode = mode;
	mutex_unlock(&shadow->slots_lock);
	return 0;
}
