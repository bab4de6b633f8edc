/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * With a swap file the model does not say which pages are in memory: it looks. What it allows to
 * have happened by itself is this, and all else is a difference:
 *
 *  - the entry of a private page is a swap entry; who writes to it may have to ask again (own);
 *  - the entry of an object's page is gone, and its frame with it, or not;
 *  - a page of a file is not dirty any more: then the file has it;
 *  - a device has a page no more;
 *  - a page that was given up is gone.
 *
 * Contents never change, so each access that brings a page back is a test.
 */
#include <string.h>
#include <unistd.h>

#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "tests/mmmodel/world.h"

static pte_t entry_of(struct mspace *s, int page)
{
	const pte_t *ptep = pgtable_lookup(s->real->pgtable, place_hva(page));

	return ptep ? *ptep : 0;
}

bool is_resident(struct mspace *s, int page)
{
	return pte_maps_frame(entry_of(s, page));
}

bool is_in_device(struct mspace *s, int page)
{
	return pte_device(entry_of(s, page));
}

bool is_mapped(struct mspace *s, int page)
{
	return !pte_none(entry_of(s, page));
}

/* All as it was, or all zero. */
static void settle(struct world *w, struct mspace *s, int at)
{
	struct mpage *page;
	bool zero = true;
	pfn_t pfn;

	if (mm_pin_page(s->real, place_hva(at), true, &pfn) || fault(w, s, at, true))
		differ("place %d cannot be written", at);
	page = s->place[at].page;
	for (int i = 0; i < NR_WORDS; i++) {
		const uint64_t *word =
			(uint64_t *)((char *)phys_map(w->phys, pfn) + word_offset(i));

		zero &= !*word;
	}
	if (zero)
		memset(page->word, 0, sizeof(page->word));
	page->lazy = false;
	mm_unpin_page(s->real, pfn, true);
}

bool settle_lazy(struct world *w, struct mspace *s, int first, int last)
{
	for (int i = first; i <= last; i++) {
		struct place *place = &s->place[i];

		if (!place->page || !place->page->lazy)
			continue;
		if (!(place->prot & MM_PROT_WRITE))
			return false;
		settle(w, s, i);
	}
	return true;
}

bool no_frame_left(const struct world *w)
{
	return w->swap ? phys_nr_free(w->phys) == 0 : w->used == w->nr_frames;
}

static void adopt_entry(struct world *w, struct mspace *s, int at)
{
	struct place *place = &s->place[at];
	pte_t pte = entry_of(s, at);

	if (!place->page)
		return;
	if (pte_none(pte)) {
		if ((!place->page->cached && !place->page->lazy) || place->page->pins)
			differ("the page at place %d is lost", at);
		drop_entry(w, place);
		return;
	}
	if (!pte_exclusive(pte))
		place->exclusive = false;
	if (!place->private || place->page->cached)
		return;
	if (place->own && !(pte & PTE_OWN) && place->page->pins)
		differ("the pinned page at place %d is not its owner's any more", at);
	/* Twins part when they come back: adopt_frames(). */
	if (!place->own && (pte & PTE_OWN) && place->page->maps > 1 && !place->page->twins)
		differ("the page at place %d is taken for the only one", at);
	place->own = pte & PTE_OWN;
	/* One that comes back from swap is as it was before it was merged. */
	if (pte_present(pte))
		place->page->merged = frame_is_ksm(pfn_to_frame(w->phys, pte_pfn(pte)));
}

static void expect_in_file(const struct mobject *object, int at)
{
	for (int word = 0; word < NR_WORDS; word++) {
		off_t offset = (off_t)(at * PAGE_SIZE + word_offset(word));
		uint64_t found = 0;

		if (pread(object->fd, &found, sizeof(found), offset) != sizeof(found) ||
		    found != object->page[at]->word[word])
			differ("page %d of a file was not written back", at);
	}
}

static void adopt_object(struct world *w, struct mobject *object)
{
	for (int i = 0; i < object->nr_pages && object->fd >= 0; i++) {
		struct mpage *page = object->page[i];

		if (!page)
			continue;
		if (page->dirty && !address_space_page_dirty(object->real, i)) {
			if (page->pins)
				differ("page %d of a file is pinned, and clean", i);
			expect_in_file(object, i);
			page->dirty = false;
			memcpy(object->file[i], page->word, sizeof(page->word));
		}
		if (address_space_peek(object->real, i) != INVALID_PFN)
			continue;
		if (page->maps || page->pins || page->dirty)
			differ("page %d of a file left memory, and is in use", i);
		object->page[i] = NULL;
		page->cached = false;
		put_page(w, page);
	}
}

void adopt_residency(struct world *w)
{
	if (!w->swap)
		return;
	for (int i = 0; i < NR_MMS * NR_PAGES; i++) {
		struct mspace *s = &w->mm[i / NR_PAGES];

		if (s->real)
			adopt_entry(w, s, i % NR_PAGES);
	}
	for (int i = 0; i < NR_MMS * NR_PAGES; i++) {
		struct place *place = &w->mm[i / NR_PAGES].place[i % NR_PAGES];

		if (place->object)
			adopt_object(w, place->object);
	}
	for (int i = 0; i < NR_OBJECTS; i++) {
		if (w->object[i])
			adopt_object(w, w->object[i]);
	}
	adopt_frames(w);
}
