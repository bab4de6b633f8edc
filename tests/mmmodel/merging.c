/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Same-page merging. Which pages the scanner finds equal, and when, is its business; that they are,
 * and that a page that is pinned stays where it is, is looked at here. So after a scan each frame
 * is one page of the model, whose places must all have had the same contents.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/ksm.h>

#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "tests/mmmodel/world.h"

/* Before the scan. */
static pte_t before[NR_MMS][NR_PAGES];

static void remember_entries(const struct world *w)
{
	for (int i = 0; i < NR_MMS * NR_PAGES; i++) {
		const struct mspace *s = &w->mm[i / NR_PAGES];
		const pte_t *ptep = NULL;

		if (s->real)
			ptep = pgtable_lookup(s->real->pgtable, place_hva(i % NR_PAGES));
		before[i / NR_PAGES][i % NR_PAGES] = ptep ? *ptep : 0;
	}
}

static void change_page(struct world *w, struct place *place, struct mpage *page)
{
	struct mpage *old = place->page;

	place->page = page;
	page->maps++;
	old->maps--;
	put_page(w, old);
}

/* Some places of a page have it elsewhere now: what they have there is another page. */
static struct mpage *split_page(struct world *w, const struct mpage *page)
{
	uint64_t nr_frames = w->nr_frames;
	struct mpage *copy;

	w->nr_frames = UINT64_MAX; /* the real one has had its frame */
	copy = take_page(w);
	w->nr_frames = nr_frames;
	memcpy(copy->word, page->word, sizeof(copy->word));
	copy->lazy = page->lazy;
	copy->twins = true;
	return copy;
}

static void adopt_place(struct world *w, struct place *place, pte_t pte, struct mpage **in_frame,
			bool scanned)
{
	struct mpage *page = place->page, *found = in_frame[pte_pfn(pte)];

	if (found != page && (found || page->seen) && !scanned && !page->twins &&
	    !(found && found->twins))
		differ("a page is in two frames, or two pages in one: frame %#llx",
		       (unsigned long long)pte_pfn(pte));
	if (!found && !page->seen) {
		page->seen = true;
		in_frame[pte_pfn(pte)] = page;
	} else if (!found) {
		in_frame[pte_pfn(pte)] = split_page(w, page);
		in_frame[pte_pfn(pte)]->seen = true;
		change_page(w, place, in_frame[pte_pfn(pte)]);
	} else if (found != page) {
		if (memcmp(found->word, page->word, sizeof(page->word)))
			differ("pages that differ were merged into frame %#llx",
			       (unsigned long long)pte_pfn(pte));
		change_page(w, place, found);
	}
	page = place->page;
	page->merged = frame_is_ksm(pfn_to_frame(w->phys, pte_pfn(pte)));
	page->twins |= page->merged;
	if (!place->own && (pte & PTE_OWN))
		differ("a page is taken for the only one behind a merge");
	if (place->own && !(pte & PTE_OWN) && page->pins)
		differ("a pinned page is not its owner's any more");
	place->own = pte & PTE_OWN;
	if (place->own && page->merged)
		differ("a merged page is taken for the only one");
}

/* @scanned: just now, so any two may have become one. */
static void adopt(struct world *w, bool scanned)
{
	struct mpage **in_frame = calloc(w->nr_frames, sizeof(in_frame[0]));

	for (struct mpage *page = w->pages; page; page = page->next)
		page->seen = false;
	for (int i = 0; i < NR_PINS; i++) {
		if (!w->pin[i].page || w->pin[i].page->cached)
			continue;
		w->pin[i].page->seen = true;
		in_frame[w->pin[i].pfn] = w->pin[i].page;
	}
	for (int i = 0; i < NR_MMS * NR_PAGES; i++) {
		struct mspace *s = &w->mm[i / NR_PAGES];
		struct place *place = &s->place[i % NR_PAGES];
		const pte_t *ptep;

		if (!s->real || !place->page || !place->private || place->page->cached)
			continue;
		ptep = pgtable_lookup(s->real->pgtable, place_hva(i % NR_PAGES));
		if (!ptep || !pte_present(*ptep))
			continue;
		if (scanned && !place->mergeable &&
		    pte_pfn(before[i / NR_PAGES][i % NR_PAGES]) != pte_pfn(*ptep))
			differ("a page was merged that nobody allowed to be");
		adopt_place(w, place, *ptep, in_frame, scanned);
	}
	free(in_frame);
}

void adopt_frames(struct world *w)
{
	adopt(w, false);
}

int break_merge(struct world *w, struct mspace *s, struct place *place)
{
	struct mpage *page = place->page, *copy;

	if (!page || !page->merged)
		return 0;
	copy = take_page(w);
	if (!copy)
		return -ENOMEM;
	memcpy(copy->word, page->word, sizeof(copy->word));
	change_page(w, place, copy);
	place->own = true;
	s->cow_copies++;
	return 0;
}

/* nr: pages to look at. */
bool apply_merge(struct world *w, const struct op *op)
{
	uint64_t used = w->used;
	long saved;

	if (op->nr < 1)
		return false;
	remember_entries(w);
	saved = ksm_scan(w->ksm, op->nr);
	adopt(w, true);
	if (saved == -ENOMEM && w->failing)
		w->gave_up = true;
	/* A page that a fork shares counts each time, though its frame goes with the last. */
	else if (saved < 0 || (!w->swap && saved < (long)(used - w->used)))
		differ("merge: saved %ld frames, not %ld", saved, (long)(used - w->used));
	return true;
}
