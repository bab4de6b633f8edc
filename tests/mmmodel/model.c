/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules of areas and of pages, in their plainest form. Nothing here calls the mm.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/mmmodel/world.h"

/* ---- areas ---- */

static bool alike(const struct place *a, const struct place *b)
{
	return a->mapped && b->mapped && a->private == b->private && a->mergeable == b->mergeable &&
	       a->prot == b->prot && a->object == b->object;
}

bool one_area(const struct mspace *s, int lower)
{
	const struct place *a, *b;

	if (lower < 0 || (lower + 1) % RUN_PAGES == 0)
		return false;
	a = &s->place[lower];
	b = &s->place[lower + 1];
	return alike(a, b) && a->family == b->family && b->pgoff == a->pgoff + 1;
}

int area_start(const struct mspace *s, int page)
{
	while (one_area(s, page - 1))
		page--;
	return page;
}

int area_end(const struct mspace *s, int page)
{
	while (one_area(s, page))
		page++;
	return page + 1;
}

/* The family of the area at place @there, if one of @like at @page could be one with it. */
static int family_at(const struct mspace *s, int there, int page, const struct place *like)
{
	const struct place *other;

	if (there < 0 || there >= NR_PAGES || there / RUN_PAGES != page / RUN_PAGES)
		return 0;
	other = &s->place[there];
	if (!alike(other, like) || other->pgoff - there != like->pgoff - page)
		return 0;
	return other->family;
}

/* Of a neighbour, if that is one before anything else is unmapped, or a new one. */
int new_family(struct world *w, const struct mspace *s, int page, int nr, const struct place *like)
{
	bool free = true;
	int family = 0;

	if (!one_area(s, page - 1))
		family = family_at(s, page - 1, page, like);
	for (int i = page; i < page + nr; i++)
		free = free && !s->place[i].mapped;
	if (!family && free)
		family = family_at(s, page + nr, page, like);
	return family ? family : ++w->families;
}

void map_place(struct place *place, const struct place *like, int64_t pgoff)
{
	*place = *like;
	place->mapped = true;
	place->pgoff = pgoff;
	place->page = NULL;
	place->own = place->exclusive = place->device = place->soft = place->soft_maybe = false;
	if (place->object)
		place->object->mapped++;
}

void let_go_of_object(struct world *w, struct mobject *object)
{
	if (object->held || object->mapped)
		return;
	if (object->fd >= 0)
		sync_object(object, 0, object->nr_pages);
	for (int i = 0; i < object->nr_pages; i++) {
		if (!object->page[i])
			continue;
		object->page[i]->cached = false;
		put_page(w, object->page[i]);
	}
	object->next_closed = w->closed;
	w->closed = object;
}

void punch(struct world *w, struct mobject *object, int first, int nr)
{
	for (int i = first; i < first + nr; i++) {
		struct mpage *page = object->page[i];

		memset(object->file[i], 0, sizeof(object->file[i]));
		if (!page)
			continue;
		for (int at = 0; at < NR_MMS * NR_PAGES; at++) {
			struct place *place = &w->mm[at / NR_PAGES].place[at % NR_PAGES];

			if (place->page == page)
				drop_entry(w, place);
		}
		object->page[i] = NULL;
		page->cached = false;
		page->dirty = false;
		put_page(w, page);
	}
}

/* What is pinned for writing stays dirty. */
long sync_object(struct mobject *object, int first, int nr)
{
	long written = 0;

	for (int i = first; i < first + nr && object->fd >= 0; i++) {
		struct mpage *page = object->page[i];

		if (!page || !page->dirty)
			continue;
		memcpy(object->file[i], page->word, sizeof(page->word));
		page->dirty = page->pins;
		written++;
	}
	return written;
}

void unmap_places(struct world *w, struct mspace *s, int page, int nr)
{
	for (struct place *place = &s->place[page]; place < &s->place[page + nr]; place++) {
		struct mobject *object = place->object;

		drop_entry(w, place);
		*place = (struct place){0};
		if (object) {
			object->mapped--;
			let_go_of_object(w, object);
		}
	}
}

/* ---- pages ---- */

struct mpage *take_page(struct world *w)
{
	struct mpage *page;

	if (w->used == w->nr_frames && !w->swap)
		return NULL;
	page = calloc(1, sizeof(*page));
	if (!page)
		abort();
	w->used++;
	page->next = w->pages;
	if (page->next)
		page->next->prev = page;
	w->pages = page;
	return page;
}

void put_page(struct world *w, struct mpage *page)
{
	if (page->maps || page->pins || page->gets || page->cached)
		return;
	if (page->next)
		page->next->prev = page->prev;
	if (page->prev)
		page->prev->next = page->next;
	else
		w->pages = page->next;
	if (!page->away)
		w->used--;
	free(page);
}

void drop_entry(struct world *w, struct place *place)
{
	struct mpage *page = place->page;

	place->page = NULL;
	place->own = place->exclusive = place->device = place->soft = place->soft_maybe = false;
	if (!page)
		return;
	page->maps--;
	put_page(w, page);
}

static void enter(struct place *place, struct mpage *page, bool own)
{
	place->page = page;
	place->own = own;
	place->soft = true;
	page->maps++;
}

int fault_none(struct world *w, struct place *place)
{
	struct mpage **slot = place->object ? &place->object->page[place->pgoff] : NULL;
	struct mpage *page = slot ? *slot : NULL;

	if (!page)
		page = take_page(w);
	if (!page)
		return -ENOMEM;
	if (slot && !*slot) {
		*slot = page;
		page->cached = true;
		memcpy(page->word, place->object->file[place->pgoff], sizeof(page->word));
	}
	enter(place, page, !slot);
	return 0;
}

/*
 * Whoever writes to a private page has to be the only one who has it: by what is known (own), or by
 * what can be seen now.
 */
static int make_own(struct world *w, struct mspace *s, struct place *place)
{
	struct mpage *old = place->page, *copy;

	if (place->own || w->planted)
		return 0;
	if (!old->cached && !old->merged && old->maps == 1 && !old->pins && !old->gets) {
		place->own = true;
		return 0;
	}
	copy = take_page(w);
	if (!copy)
		return -ENOMEM;
	memcpy(copy->word, old->word, sizeof(copy->word));
	drop_entry(w, place);
	enter(place, copy, true);
	s->cow_copies++;
	return 0;
}

void send_away(struct world *w, struct place *place)
{
	w->used--;
	place->page->away = true;
	place->device = place->own = true;
}

int bring_back(struct world *w, struct place *place)
{
	if (w->used == w->nr_frames && !w->swap)
		return -ENOMEM;
	w->used++;
	place->page->away = false;
	place->device = false;
	place->own = true;
	return 0;
}

int fault(struct world *w, struct mspace *s, int page, bool write)
{
	struct place *place = &s->place[page];
	int ret = 0;

	if (!place->mapped || !(place->prot & (write ? MM_PROT_WRITE : MM_PROT_READ)))
		return -EFAULT;
	place->exclusive = false;
	if (place->device)
		ret = bring_back(w, place);
	else if (!place->page)
		ret = fault_none(w, place);
	if (!ret && write && place->private)
		ret = make_own(w, s, place);
	if (!ret && write) {
		place->soft = true;
		if (!place->private && place->object->fd >= 0)
			place->page->dirty = true;
	}
	return ret;
}
