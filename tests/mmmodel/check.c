/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The whole state of the mm against the model. What must hold:
 *
 *  1. Areas: sorted, apart, counted, aligned; at each place what the model has; one area wherever
 *     the model says that places are one. An anon_vma is of one family, and a family has one.
 *  2. Entries: exactly where the model has a page, and nowhere else; with no right that the area
 *     does not give, nor any to write what others have. A table is only where an area is.
 *  3. Frames: one page, one frame, wherever it is mapped; a pinned page in the frame of the pin.
 *     References, mapcount, mapping and index are what the model counts; the reverse map leads to
 *     every entry; all words are what was written. Everything else is free, and poisoned.
 *  4. Secondaries: have nothing but what the entry says.
 */
#include <stdlib.h>
#include <string.h>

#include "notifier/contents.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "tests/mmmodel/world.h"

/* ---- areas ---- */

struct families {
	const struct anon_vma **of; /* [families + 1] */
	int nr;
};

static void check_family(struct families *families, int family, const struct anon_vma *anon_vma)
{
	if (!family != !anon_vma)
		differ("family %d has anon_vma %p", family, (const void *)anon_vma);
	if (!family)
		return;
	if (!families->of[family]) {
		for (int i = 1; i <= families->nr; i++) {
			if (families->of[i] == anon_vma)
				differ("families %d and %d have one anon_vma", i, family);
		}
		families->of[family] = anon_vma;
	}
	if (families->of[family] != anon_vma)
		differ("family %d has two anon_vmas", family);
}

static void check_area(const struct mspace *s, const struct vm_area_struct *vma,
		       struct families *families)
{
	int start = hva_place(vma->start), end = start + ((vma->end - vma->start) >> PAGE_SHIFT);
	const struct place *place = &s->place[start];

	if (start < 0 || !PAGE_ALIGNED(vma->start) || !PAGE_ALIGNED(vma->end) ||
	    vma->start >= vma->end || vma->mm != s->real || !places_ok(start, end - start))
		differ("an area from %#llx to %#llx", (unsigned long long)vma->start,
		       (unsigned long long)vma->end);
	if (!place->mapped || area_start(s, start) != start || area_end(s, start) != end)
		differ("an area from place %d to %d, the model has %d to %d", start, end,
		       place->mapped ? area_start(s, start) : -1,
		       place->mapped ? area_end(s, start) : -1);
	if (!(vma->flags & VMA_MERGEABLE) == place->mergeable || vma->prot != place->prot ||
	    vma_is_private(vma) != place->private || (int64_t)vma->pgoff != place->pgoff ||
	    vma->mapping != (place->object ? place->object->real : NULL))
		differ("the area from place %d is another than the model's", start);
	check_family(families, place->family, vma->anon_vma);
}

static void check_areas(struct mspace *s, struct families *families)
{
	unsigned int nr = 0;
	hva_t last = 0;
	int mapped = 0;

	mmap_read_lock(s->real);
	for (struct vm_area_struct *vma = vma_first(s->real); vma; vma = vma_next(vma)) {
		if (vma->start < last)
			differ("areas overlap, or are out of order, at %#llx",
			       (unsigned long long)vma->start);
		check_area(s, vma, families);
		last = vma->end;
		nr++;
		mapped += (vma->end - vma->start) >> PAGE_SHIFT;
	}
	if (nr != s->real->nr_vmas)
		differ("%u areas, counted as %u", nr, s->real->nr_vmas);
	mmap_read_unlock(s->real);
	for (int i = 0; i < NR_PAGES; i++)
		mapped -= s->place[i].mapped;
	if (mapped)
		differ("%d places too many are mapped", mapped);
}

/* ---- contents ---- */

static void check_words(const uint64_t *words, const struct mpage *page)
{
	uint64_t expected[CONTENTS_WORDS] = {0};

	for (int i = 0; i < NR_WORDS; i++)
		expected[word_offset(i) / 8] = page->word[i];
	if (!memcmp(words, expected, PAGE_SIZE))
		return;
	for (size_t i = 0; i < CONTENTS_WORDS; i++) {
		if (words[i] != expected[i])
			differ("frame %#llx has %#llx at offset %zu, not %#llx",
			       (unsigned long long)page->pfn, (unsigned long long)words[i], 8 * i,
			       (unsigned long long)expected[i]);
	}
}

/* ---- entries ---- */

static void check_rights(const struct place *place, int at, pte_t pte)
{
	bool others = place->private && !place->own;

	if ((pte & PTE_READ) && !(place->prot & MM_PROT_READ))
		differ("the entry of place %d can be read, the area cannot", at);
	if ((pte & PTE_WRITE) && !(place->prot & MM_PROT_WRITE))
		differ("the entry of place %d can be written, the area cannot", at);
	if ((pte & PTE_WRITE) && !place->private && place->object->fd >= 0 && !place->page->dirty)
		differ("the entry of place %d can be written, and the page is not dirty", at);
	if ((pte & PTE_WRITE) && others)
		differ("the entry of place %d can be written, and others have the page", at);
}

static int check_entry(const struct world *w, struct mspace *s, pte_t pte, hva_t hva)
{
	int at = hva_place(hva);
	struct mpage *page;

	if (at < 0 || !s->place[at].page)
		differ("an entry %#llx at %#llx, place %d, where there is none",
		       (unsigned long long)pte, (unsigned long long)hva, at);
	page = s->place[at].page;
	if (s->place[at].soft && !(pte & PTE_SOFT_DIRTY))
		differ("the entry of place %d does not say that it was written", at);
	if (pte_swap(pte) && s->place[at].private && !page->cached)
		return 1;
	if (pte_device(pte) && s->place[at].device) {
		check_words(device_memory_map(w->memory, pte_pfn(pte)), page);
		return 1;
	}
	if (!pte_maps_frame(pte) || pte_exclusive(pte) != s->place[at].exclusive)
		differ("the entry of place %d is %#llx: not present", at, (unsigned long long)pte);
	if (page->seen && page->pfn != pte_pfn(pte))
		differ("the page at place %d is in frame %#llx, and elsewhere in %#llx", at,
		       (unsigned long long)pte_pfn(pte), (unsigned long long)page->pfn);
	page->seen = true;
	page->pfn = pte_pfn(pte);
	page->present++;
	check_rights(&s->place[at], at, pte);
	return 1;
}

struct entries {
	const struct world *w;
	struct mspace *s;
	int nr;
};

static int check_leaf(pte_t *ptep, unsigned int nr, hva_t hva, void *arg)
{
	const hva_t span = 512 * PAGE_SIZE;
	struct entries *entries = arg;
	struct vm_area_struct *vma = find_vma_above(entries->s->real, hva & ~(span - 1));

	if (!vma || vma->start >= (hva & ~(span - 1)) + span)
		differ("a table at %#llx, and no area there", (unsigned long long)hva);
	for (unsigned int i = 0; i < nr; i++) {
		if (!pte_none(ptep[i]))
			entries->nr +=
				check_entry(entries->w, entries->s, ptep[i], hva + i * PAGE_SIZE);
	}
	return 0;
}

static void check_entries(const struct world *w, struct mspace *s)
{
	struct entries entries = {.w = w, .s = s};

	mmap_read_lock(s->real);
	pgtable_walk_leaves(s->real->pgtable, 0, HVA_MAX, check_leaf, &entries);
	mmap_read_unlock(s->real);
	for (int i = 0; i < NR_PAGES; i++)
		entries.nr -= s->place[i].page != NULL;
	if (entries.nr)
		differ("%d entries are missing", -entries.nr);
}

static void check_stats(const struct world *w, const struct mspace *s)
{
	struct mm_stats stats;

	mm_get_stats(s->real, &stats);
	/* What comes back from swap, or was given up, may save a copy. */
	if (stats.cow_copies != s->cow_copies && !w->swap)
		differ("%llu copies for writing, not %llu", (unsigned long long)stats.cow_copies,
		       (unsigned long long)s->cow_copies);
	if (stats.pages_zapped != s->zapped)
		differ("%llu pages were zapped, not %llu", (unsigned long long)stats.pages_zapped,
		       (unsigned long long)s->zapped);
}

/* ---- frames ---- */

static void find_in_slots(const struct world *w)
{
	for (int i = 0; i < NR_OBJECTS; i++) {
		struct mobject *object = w->object[i];

		for (int j = 0; object && j < object->nr_pages; j++) {
			struct mpage *page = object->page[j];
			pfn_t pfn = address_space_peek(object->real, j);

			if (!page ? pfn != INVALID_PFN : pfn == INVALID_PFN && !w->swap)
				differ("page %d of object %d is in frame %#llx", j, i,
				       (unsigned long long)pfn);
			if (pfn == INVALID_PFN)
				continue;
			if (page->seen && page->pfn != pfn)
				differ("page %d of object %d: the slot has another frame", j, i);
			page->seen = true;
			page->pfn = pfn;
		}
	}
}

static void find_by_pins(const struct world *w)
{
	for (int i = 0; i < NR_PINS; i++) {
		const struct pin *pin = &w->pin[i];

		if (!pin->page)
			continue;
		if (pin->page->seen && pin->page->pfn != pin->pfn)
			differ("a pinned page is not in frame %#llx, but in %#llx",
			       (unsigned long long)pin->pfn, (unsigned long long)pin->page->pfn);
		pin->page->seen = true;
		pin->page->pfn = pin->pfn;
	}
}

struct walk {
	pfn_t pfn;
	int entries;
};

static void count_entry(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	struct walk *walk = arg;
	pte_t *ptep = pgtable_lookup(vma->mm->pgtable, hva);

	if (hva < vma->start || hva >= vma->end)
		differ("the reverse map leads outside of an area");
	if (ptep && pte_maps_frame(*ptep) && pte_pfn(*ptep) == walk->pfn)
		walk->entries++;
}

static void check_page(const struct world *w, const struct mpage *page)
{
	struct frame *frame = pfn_to_frame(w->phys, page->pfn);
	bool swap_cache = frame_test(frame, FRAME_SWAPCACHE);
	int refs = page->present + page->cached + page->gets + page->pins * FRAME_PIN + swap_cache;
	struct walk walk = {.pfn = page->pfn};

	if (page->present != page->maps && !w->swap)
		differ("frame %#llx has %d entries, not %d", (unsigned long long)page->pfn,
		       page->present, page->maps);
	if (swap_cache && !w->swap)
		differ("frame %#llx is in a swap cache", (unsigned long long)page->pfn);
	if (atomic_read(&frame->mapcount) != page->present)
		differ("frame %#llx is mapped %d times, not %d", (unsigned long long)page->pfn,
		       atomic_read(&frame->mapcount), page->present);
	if (atomic_read(&frame->refcount) != refs)
		differ("frame %#llx has %d references, not %d", (unsigned long long)page->pfn,
		       atomic_read(&frame->refcount), refs);
	if (frame_locked(frame))
		differ("frame %#llx is locked", (unsigned long long)page->pfn);
	if ((page->present || page->cached) != (frame->mapping != 0))
		differ("frame %#llx is a page of %#llx", (unsigned long long)page->pfn,
		       (unsigned long long)frame->mapping);
	if (page->present && page->merged != frame_is_ksm(frame))
		differ("frame %#llx has merged pages, or not", (unsigned long long)page->pfn);
	if (page->cached != (frame_address_space(frame) != NULL))
		differ("frame %#llx is in an object, or not", (unsigned long long)page->pfn);
	check_words(phys_map(w->phys, page->pfn), page);
	if (!page->present)
		return;
	lock_frame(w->phys, page->pfn);
	rmap_walk(frame, count_entry, &walk);
	unlock_frame(w->phys, page->pfn);
	if (walk.entries != page->present)
		differ("the reverse map of frame %#llx leads to %d entries of %d",
		       (unsigned long long)page->pfn, walk.entries, page->present);
}

static void check_free(const struct world *w, pfn_t pfn)
{
	const struct frame *frame = pfn_to_frame(w->phys, pfn);

	if (atomic_read(&frame->refcount) || atomic_read(&frame->mapcount) || frame->mapping ||
	    frame_locked(frame))
		differ("frame %#llx should be free", (unsigned long long)pfn);
	/* Not of all at each check: it is most of the time that one takes. */
	if (pfn < w->phys->next_fresh && pfn % 16 == w->done[OP_MMAP] % 16 &&
	    contents_differ(phys_map(w->phys, pfn), PHYS_POISON) != CONTENTS_WORDS)
		differ("free frame %#llx was written", (unsigned long long)pfn);
}

/* In use, but by no entry: a page of an object that only areas hold, or what a slot has. */
static void check_not_mapped(const struct world *w, pfn_t pfn)
{
	const struct frame *frame = pfn_to_frame(w->phys, pfn);

	if (atomic_read(&frame->refcount) != 1 || atomic_read(&frame->mapcount) ||
	    !frame_test(frame, FRAME_SWAPCACHE) == !frame_address_space(frame))
		differ("frame %#llx has %d references, and should have none",
		       (unsigned long long)pfn, atomic_read(&frame->refcount));
}

static void check_frames(const struct world *w)
{
	unsigned char *used = calloc(w->nr_frames, 1);
	uint64_t away = 0;

	for (const struct mpage *page = w->pages; page; page = page->next) {
		away += page->away;
		if (!page->seen && (page->cached || page->away || w->swap))
			continue; /* of an object that only areas hold, not mapped now; or out */
		if (!page->seen)
			differ("a page of the model is nowhere");
		if (used[page->pfn]++)
			differ("two pages are in frame %#llx", (unsigned long long)page->pfn);
		check_page(w, page);
	}
	for (pfn_t pfn = 0; pfn < w->nr_frames; pfn++) {
		if (used[pfn])
			continue;
		if (atomic_read(&pfn_to_frame(w->phys, pfn)->refcount) == 0)
			check_free(w, pfn);
		else if (w->swap)
			check_not_mapped(w, pfn);
	}
	if (away != DEVICE_FRAMES - device_memory_nr_free(w->memory))
		differ("%llu pages are in the device, and others", (unsigned long long)away);
	free(used);
}

void check_frames_used(const struct world *w)
{
	uint64_t used = w->nr_frames - phys_nr_free(w->phys);

	if (used != w->used && !(w->swap && w->used))
		differ("%llu frames are in use, not %llu", (unsigned long long)used,
		       (unsigned long long)w->used);
}

/* ---- secondaries ---- */

static void check_secondary(const struct mspace *s)
{
	const struct secondary *secondary = s->secondary;

	if (secondary->open || secondary->released)
		differ("a secondary has %d windows open", secondary->open);
	for (int i = 0; i < NR_PAGES; i++) {
		pte_t *ptep = pgtable_lookup(s->real->pgtable, place_hva(i));
		pte_t pte = ptep ? *ptep : 0;

		if (!secondary->entry[i].valid)
			continue;
		if (!pte_present(pte) || pte_pfn(pte) != secondary->entry[i].pfn)
			differ("a secondary has frame %#llx at place %d, the entry is %#llx",
			       (unsigned long long)secondary->entry[i].pfn, i,
			       (unsigned long long)pte);
		if (!(pte & PTE_READ))
			differ("a secondary may read at place %d, the entry is %#llx", i,
			       (unsigned long long)pte);
		if (secondary->entry[i].writable &&
		    (~pte & (PTE_WRITE | PTE_DIRTY | PTE_SOFT_DIRTY)))
			differ("a secondary may write at place %d, the entry is %#llx", i,
			       (unsigned long long)pte);
	}
}

void check_world(struct world *w)
{
	struct families families = {.nr = w->families};

	families.of = calloc(w->families + 1, sizeof(families.of[0]));
	for (struct mpage *page = w->pages; page; page = page->next) {
		page->seen = false;
		page->present = 0;
	}
	for (int i = 0; i < NR_MMS; i++) {
		struct mspace *s = &w->mm[i];

		if (!s->real)
			continue;
		check_areas(s, &families);
		check_entries(w, s);
		check_stats(w, s);
		if (s->secondary)
			check_secondary(s);
	}
	find_in_slots(w);
	find_by_pins(w);
	check_frames(w);
	check_frames_used(w);
	free(families.of);
}
