/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations on pages: accesses, pins, the secondary's look, and moves from frame to frame.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gnomon/device.h>
#include <gnomon/swap.h>

#include "notifier/mm_internal.h"
#include "tests/mmmodel/world.h"

/* ---- accesses ---- */

/* @nr words from word @op->to of page @op->page on, wherever they lie. */
struct words {
	hva_t hva;
	size_t len;
	int first_page, last_page;
};

static bool words_of(const struct op *op, struct words *words)
{
	int last = op->to + op->nr - 1;

	if (op->page < 0 || op->to < 0 || op->to >= NR_WORDS || op->nr < 1 || op->nr > 16)
		return false;
	words->first_page = op->page;
	words->last_page = op->page + last / NR_WORDS;
	if (!places_ok(op->page, last / NR_WORDS + 1))
		return false;
	words->hva = place_hva(op->page) + word_offset(op->to);
	words->len = place_hva(words->last_page) + word_offset(last % NR_WORDS) + 8 - words->hva;
	if (op->nr == 1 && op->cut > 0 && op->cut < 8)
		words->len -= op->cut;
	return true;
}

/* A read ends at the first page that cannot be had. */
static int fault_words(struct world *w, struct mspace *s, const struct words *words)
{
	for (int page = words->first_page; page <= words->last_page; page++) {
		int ret = fault(w, s, page, false);

		if (ret)
			return ret;
	}
	return 0;
}

static uint64_t *model_word(struct mspace *s, const struct op *op, int nth)
{
	int word = op->to + nth;

	return &s->place[op->page + word / NR_WORDS].page->word[word % NR_WORDS];
}

static size_t word_in_buffer(const struct op *op, const struct words *words, int nth)
{
	int word = op->to + nth;

	return place_hva(op->page + word / NR_WORDS) + word_offset(word % NR_WORDS) - words->hva;
}

/*
 * An allocation failed on the way to these pages. Those before are there, and the page of an object
 * may be there that was to be copied.
 */
static bool gave_up_at(struct world *w, struct mspace *s, int ret, int first, int last)
{
	if (!gave_up(w, ret))
		return false;
	for (int i = first; i <= last; i++) {
		struct place *place = &s->place[i];

		if (mm_lookup_pfn(s->real, place_hva(i)) == INVALID_PFN)
			continue;
		place->exclusive = false;
		if (place->device)
			bring_back(w, place);
		if (!place->page)
			fault_none(w, place);
	}
	return true;
}

/* page, nr, to: as above. cut: bytes less, of one word. */
bool apply_read(struct world *w, const struct op *op)
{
	static unsigned char expected[5 * PAGE_SIZE], found[5 * PAGE_SIZE];
	struct mspace *s = space_of(w, op);
	struct words words;
	int ret;

	if (!s || !words_of(op, &words) || !settle_lazy(w, s, words.first_page, words.last_page))
		return false;
	ret = mm_read(s->real, words.hva, found, words.len);
	if (gave_up_at(w, s, ret, words.first_page, words.last_page))
		return true;
	expect_result(op, ret, fault_words(w, s, &words));
	if (ret)
		return true;
	memset(expected, 0, words.len + 8);
	for (int i = 0; i < op->nr; i++)
		memcpy(expected + word_in_buffer(op, &words, i), model_word(s, op, i), 8);
	for (size_t i = 0; i < words.len; i++) {
		if (expected[i] != found[i])
			differ("read: byte %zu of mm %d place %d is %#x, not %#x", i, op->mm,
			       op->page, found[i], expected[i]);
	}
	return true;
}

static uint64_t value_of(const struct op *op, int nth)
{
	return ((uint64_t)op->value << 32) + op->value * 0x9e3779b9u + nth + 1;
}

/* How many of the pages have been written; the value is one that was nowhere before. */
static int pages_written(struct world *w, struct mspace *s, const struct op *op,
			 const struct words *words, const unsigned char *buffer)
{
	for (int i = 0; i < op->nr; i++) {
		int page = op->page + (op->to + i) / NR_WORDS;
		pfn_t pfn = mm_lookup_pfn(s->real, place_hva(page));
		size_t at = word_in_buffer(op, words, i);
		size_t len = words->len - at < 8 ? words->len - at : 8;

		if (pfn == INVALID_PFN ||
		    memcmp((char *)phys_map(w->phys, pfn) + word_offset((op->to + i) % NR_WORDS),
			   buffer + at, len))
			return page - op->page;
	}
	return words->last_page - words->first_page + 1;
}

/* Page by page: one of them may be copied from what was written to another. */
static int write_words(struct world *w, struct mspace *s, const struct op *op,
		       const struct words *words, const unsigned char *buffer)
{
	for (int i = 0; i < op->nr; i++) {
		int page = op->page + (op->to + i) / NR_WORDS;
		size_t at = word_in_buffer(op, words, i);
		int ret = 0;

		if (page > words->last_page)
			break;
		if (i == 0 || (op->to + i) % NR_WORDS == 0)
			ret = fault(w, s, page, true);
		if (ret)
			return ret;
		memcpy(model_word(s, op, i), buffer + at,
		       words->len - at < 8 ? words->len - at : 8);
	}
	return 0;
}

/* As apply_read(). value: of what is written. Pages before the one that cannot be had are. */
bool apply_write(struct world *w, const struct op *op)
{
	static unsigned char buffer[5 * PAGE_SIZE];
	struct mspace *s = space_of(w, op);
	struct words words;
	int ret, expected;

	if (!s || !words_of(op, &words) || !settle_lazy(w, s, words.first_page, words.last_page))
		return false;
	memset(buffer, 0, words.len + 8);
	for (int i = 0; i < op->nr; i++) {
		uint64_t value = value_of(op, i);

		memcpy(buffer + word_in_buffer(op, &words, i), &value, 8);
	}
	ret = mm_write(s->real, words.hva, buffer, words.len);
	if (gave_up_at(w, s, ret, words.first_page, words.last_page)) {
		words.last_page = words.first_page + pages_written(w, s, op, &words, buffer) - 1;
		expected = write_words(w, s, op, &words, buffer) ?: ret;
	} else {
		expected = write_words(w, s, op, &words, buffer);
	}
	expect_result(op, ret, expected);
	return true;
}

/* What a read would find. */
static uint64_t peek(const struct place *place, int word)
{
	if (place->page)
		return place->page->word[word];
	if (!place->object)
		return 0;
	if (place->object->page[place->pgoff])
		return place->object->page[place->pgoff]->word[word];
	return place->object->file[place->pgoff][word];
}

/* page, to: the word. flags: expect something else than what is there. */
bool apply_cmpxchg(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t old, *word = NULL, found;
	int ret, expected;

	if (!s || !places_ok(op->page, 1) || op->to < 0 || op->to >= NR_WORDS || op->skew < 0)
		return false;
	if (!settle_lazy(w, s, op->page, op->page))
		return false;
	found = peek(&s->place[op->page], op->to);
	old = found + (op->flags ? 1 : 0);
	ret = mm_cmpxchg64(s->real, place_hva(op->page) + word_offset(op->to) + op->skew, &old,
			   value_of(op, 0));
	if (gave_up_at(w, s, ret, op->page, op->page))
		return true;
	expected = op->skew & 7 ? -EINVAL : fault(w, s, op->page, true);
	if (op->skew && !(op->skew & 7))
		differ("cmpxchg: a skew of %d is a word that the model has not", op->skew);
	if (!expected) {
		word = &s->place[op->page].page->word[op->to];
		expected = op->flags ? 1 : 0;
	}
	expect_result(op, ret, expected);
	if (word && old != found)
		differ("cmpxchg: found %#llx, not %#llx", (unsigned long long)old,
		       (unsigned long long)found);
	if (word && !op->flags)
		*word = value_of(op, 0);
	return true;
}

/* Never faults: so only what is there is found; and all of it is, as nothing is on its way. */
bool apply_read_atomic(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	const struct place *place;
	uint64_t value;
	int ret;

	if (!s || !places_ok(op->page, 1) || op->to < 0 || op->to >= NR_WORDS)
		return false;
	place = &s->place[op->page];
	ret = mm_read64_atomic(s->real, place_hva(op->page) + word_offset(op->to), &value);
	/* Rights that came back are in the entry with the next fault. */
	if (ret == -EAGAIN && (place->page || w->swap))
		return true;
	expect_result(op, ret, place->page && (place->prot & MM_PROT_READ) ? 0 : -EAGAIN);
	if (!ret && value != place->page->word[op->to])
		differ("read_atomic: found %#llx, not %#llx", (unsigned long long)value,
		       (unsigned long long)place->page->word[op->to]);
	return true;
}

/* ---- the secondary ---- */

static void expect_contents(const struct world *w, pfn_t pfn, const struct mpage *page)
{
	const char *contents = phys_map(w->phys, pfn);

	for (int i = 0; i < NR_WORDS; i++) {
		uint64_t word;

		memcpy(&word, contents + word_offset(i), sizeof(word));
		if (word != page->word[i])
			differ("word %d of frame %#llx is %#llx, not %#llx", i,
			       (unsigned long long)pfn, (unsigned long long)word,
			       (unsigned long long)page->word[i]);
	}
}

/* flags: to write. A secondary that may write does so, without a word to anybody. */
bool apply_secondary(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	bool writable, others;
	struct place *place;
	pfn_t pfn;
	int ret;

	if (!s || !places_ok(op->page, 1))
		return false;
	if (!settle_lazy(w, s, op->page, op->page))
		return false;
	place = &s->place[op->page];
	ret = hva_to_pfn(s->real, place_hva(op->page), op->flags, &pfn, &writable);
	if (gave_up_at(w, s, ret, op->page, op->page))
		return true;
	expect_result(op, ret, fault(w, s, op->page, op->flags));
	if (ret)
		return true;
	expect_contents(w, pfn, place->page);
	place->soft_maybe |= writable;
	if (op->flags && !writable)
		differ("secondary: asked for writing, and may not");
	/* One that came back from swap may be the only one who had it there. */
	others = place->private && !place->own && !(w->swap && place->page->maps == 1);
	if (writable && (!(place->prot & MM_PROT_WRITE) || others))
		differ("secondary: may write what others have, or nobody may");
	if (op->flags) {
		uint64_t *word = (uint64_t *)phys_map(w->phys, pfn);

		*word = value_of(op, 0);
		place->page->word[0] = *word;
	}
	if (s->secondary) {
		s->secondary->entry[op->page].valid = true;
		s->secondary->entry[op->page].writable = writable;
		s->secondary->entry[op->page].pfn = pfn;
	}
	return true;
}

/* ---- pins ---- */

/* to: which pin. flags: to write. */
bool apply_pin(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	struct pin *pin;
	pfn_t pfn;
	int ret;

	if (!s || !places_ok(op->page, 1) || op->to < 0 || op->to >= NR_PINS || w->pin[op->to].page)
		return false;
	if (!settle_lazy(w, s, op->page, op->page))
		return false;
	pin = &w->pin[op->to];
	ret = mm_pin_page(s->real, place_hva(op->page), op->flags, &pfn);
	if (gave_up_at(w, s, ret, op->page, op->page))
		return true;
	expect_result(op, ret, fault(w, s, op->page, op->flags));
	if (ret)
		return true;
	*pin = (struct pin){s->place[op->page].page, op->mm, op->flags, pfn};
	*(pin->write ? &pin->page->pins : &pin->page->gets) += 1;
	expect_contents(w, pfn, pin->page);
	return true;
}

bool apply_unpin(struct world *w, const struct op *op)
{
	struct pin *pin;

	if (op->to < 0 || op->to >= NR_PINS || !w->pin[op->to].page)
		return false;
	pin = &w->pin[op->to];
	expect_contents(w, pin->pfn, pin->page);
	mm_unpin_page(w->mm[pin->mm].real, pin->pfn, pin->write);
	*(pin->write ? &pin->page->pins : &pin->page->gets) -= 1;
	put_page(w, pin->page);
	pin->page = NULL;
	return true;
}

/* ---- moves ---- */

/* A device that has the page for itself has it no more, even if it did not move in the end. */
static void end_exclusive(struct mspace *s, int page, int nr)
{
	for (int i = page; i < page + nr; i++) {
		if (s->place[i].page && !s->place[i].page->pins)
			s->place[i].exclusive = false;
	}
}

/* An allocation failed, and some were passed by. */
static void after_failed_migration(struct mspace *s)
{
	for (int i = 0; i < NR_PAGES; i++) {
		pte_t *ptep = pgtable_lookup(s->real->pgtable, place_hva(i));

		s->place[i].exclusive = ptep && pte_exclusive(*ptep);
	}
}

/*
 * What is not pinned moves, each page once; but a page that is mapped here twice, in places that
 * are not in one batch, moves twice. What is pinned for reading is found out late, when it has a
 * new frame already.
 */
static void expect_moves(struct world *w, struct mspace *s, int page, int nr, long *least,
			 long *most)
{
	bool any = false;

	*least = *most = 0;
	for (struct mpage *p = w->pages; p; p = p->next)
		p->seen = false;
	for (int i = page; i < page + nr; i++) {
		struct mpage *p = s->place[i].page;

		if (!p || p->pins || !is_resident(s, i))
			continue;
		any = true;
		if (p->gets)
			continue;
		++*most;
		*least += !p->seen;
		p->seen = true;
	}
	if (any && no_frame_left(w))
		*least = *most = -ENOMEM;
}

bool apply_migrate_range(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	long ret, least, most;
	uint64_t len;
	hva_t addr;

	if (!s || !range_of(op, &addr, &len))
		return false;
	expect_moves(w, s, op->page == -1 ? 0 : op->page, op->page == -1 ? NR_PAGES : op->nr,
		     &least, &most);
	ret = mm_migrate_range(s->real, addr, len);
	if (op->page != -1 && (op->skew || (op->nr && op->cut)))
		least = most = -EINVAL;
	/* What one batch finds no frame for, the next may. */
	if (w->failing && ret >= -ENOMEM && ret < least && least >= 0) {
		w->gave_up = true;
		after_failed_migration(s);
		return ret == -ENOMEM || ret >= 0;
	}
	if (least >= 0)
		end_exclusive(s, op->page == -1 ? 0 : op->page, op->page == -1 ? NR_PAGES : op->nr);
	if (ret < least || ret > most)
		differ("migrate_range: moved %ld pages, not %ld to %ld", ret, least, most);
	return true;
}

static int expect_move(const struct world *w, const struct mpage *page)
{
	if (page->pins)
		return -EBUSY;
	if (no_frame_left(w))
		return -ENOMEM;
	return page->gets ? -EBUSY : 0;
}

/* The frame of that page, by its number. */
bool apply_migrate_frame(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	const struct mpage *page;
	int ret, expected;
	pfn_t pfn;

	if (!s || !places_ok(op->page, 1))
		return false;
	page = s->place[op->page].page;
	pfn = mm_lookup_pfn(s->real, place_hva(op->page));
	if (!w->swap && (pfn == INVALID_PFN) != (!page || s->place[op->page].exclusive ||
						 s->place[op->page].device))
		differ("migrate_frame: frame %#llx at place %d", (unsigned long long)pfn, op->page);
	if (pfn == INVALID_PFN)
		return false;
	expected = expect_move(w, page);
	ret = migrate_frame(w->phys, pfn);
	if (!page->pins && gave_up(w, ret))
		return true;
	expect_result(op, ret, expected);
	if (!ret && mm_lookup_pfn(s->real, place_hva(op->page)) == pfn)
		differ("migrate_frame: place %d still has frame %#llx", op->page,
		       (unsigned long long)pfn);
	return true;
}

/* object, pgoff. */
bool apply_migrate_object(struct world *w, const struct op *op)
{
	const struct mobject *object;
	int expected = -ENOENT, ret;

	if (op->object < 1 || op->object > NR_OBJECTS || !w->object[op->object - 1] ||
	    op->pgoff < 0)
		return false;
	object = w->object[op->object - 1];
	if (op->pgoff < object->nr_pages &&
	    address_space_peek(object->real, op->pgoff) != INVALID_PFN)
		expected = expect_move(w, object->page[op->pgoff]);
	ret = migrate_mapping_page(object->real, op->pgoff);
	if (expected != -EBUSY && gave_up(w, ret))
		return true;
	expect_result(op, ret, expected);
	return true;
}

/* ---- devices ---- */

/* One that begins, and does not go on. */
static int expect_exclusive(struct world *w, struct mspace *s, int page)
{
	struct place *place = &s->place[page];
	int ret = 0;

	if (!place->mapped || !(place->prot & MM_PROT_WRITE))
		return -EFAULT;
	if (!place->private)
		return -EOPNOTSUPP;
	if (!place->exclusive)
		ret = fault(w, s, page, true);
	if (ret)
		return ret;
	place->soft = true;
	place->exclusive = !place->page->pins;
	return place->exclusive ? 0 : -EBUSY;
}

bool apply_exclusive(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	pfn_t pfn;
	int ret;

	if (!s || !places_ok(op->page, 1))
		return false;
	if (!settle_lazy(w, s, op->page, op->page))
		return false;
	mmap_read_lock(s->real);
	ret = make_device_exclusive(s->real, place_hva(op->page), s, &pfn);
	mmap_read_unlock(s->real);
	if (!ret)
		put_device_exclusive(s->real, pfn);
	if (gave_up_at(w, s, ret, op->page, op->page))
		return true;
	expect_result(op, ret, expect_exclusive(w, s, op->page));
	if (!ret)
		expect_contents(w, pfn, s->place[op->page].page);
	return true;
}

/* nr: frames that are wanted. */
bool apply_reclaim(struct world *w, const struct op *op)
{
	if (!w->swap || op->nr < 1)
		return false;
	phys_reclaim(w->phys, op->nr);
	return true;
}

/* Private pages that are in one place, and that nobody may be writing to. */
static bool may_go(struct mspace *s, int page)
{
	const struct place *place = &s->place[page];

	return place->page && is_resident(s, page) && !place->exclusive && !place->page->cached &&
	       !place->page->merged && place->page->maps == 1 && !place->page->pins;
}

/* A page that somebody reads takes a frame of the device, and does not go in the end. */
static long expect_to_device(const struct world *w, struct mspace *s, int first, int nr)
{
	uint64_t nr_free = device_memory_nr_free(w->memory);
	long moved = 0;

	for (int i = first; i < first + nr; i++) {
		if (!may_go(s, i))
			continue;
		if (!nr_free--)
			return moved ? moved : -ENOMEM;
		moved += !s->place[i].page->gets;
	}
	return moved;
}

static long adopt_sent_pages(struct world *w, struct mspace *s, int first, int nr)
{
	long moved = 0;

	for (int i = first; i < first + nr; i++) {
		struct place *place = &s->place[i];

		if (!is_in_device(s, i) || place->device)
			continue;
		if (!place->page || place->exclusive || place->page->cached ||
		    place->page->maps != 1 || place->page->pins || place->page->gets)
			differ("to_device: the page at place %d went", i);
		send_away(w, place);
		moved++;
	}
	return moved;
}

bool apply_to_device(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	int first = op->page == -1 ? 0 : op->page, nr = op->page == -1 ? NR_PAGES : op->nr;
	long ret, expected, moved;
	uint64_t len;
	hva_t addr;

	if (!s || !range_of(op, &addr, &len))
		return false;
	expected = expect_to_device(w, s, first, nr);
	if (op->page != -1 && (op->skew || (op->nr && op->cut)))
		expected = -EINVAL;
	ret = mm_migrate_to_device(s->real, addr, len, w->memory);
	moved = adopt_sent_pages(w, s, first, nr);
	if (moved && ret != moved)
		differ("to_device: %ld pages went, returned %ld", moved, ret);
	if (ret < expected && w->failing) {
		w->gave_up = true;
		return true;
	}
	expect_result(op, ret, expected);
	return true;
}

static long expect_to_ram(struct world *w, struct mspace *s, int first, int nr)
{
	long back = 0;

	for (int i = first; i < first + nr; i++) {
		if (!s->place[i].device)
			continue;
		if (bring_back(w, &s->place[i]))
			return back ? back : -ENOMEM;
		back++;
	}
	return back;
}

bool apply_to_ram(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	int first = op->page == -1 ? 0 : op->page, nr = op->page == -1 ? NR_PAGES : op->nr;
	long ret, expected = -EINVAL;
	uint64_t len;
	hva_t addr;

	if (!s || !range_of(op, &addr, &len))
		return false;
	ret = mm_migrate_to_ram(s->real, addr, len);
	if (op->page == -1 || (!op->skew && (!op->nr || !op->cut)))
		expected = expect_to_ram(w, s, first, nr);
	if (ret < expected && w->failing) {
		w->gave_up = true;
		adopt_sent_pages(w, s, first, nr);
		return true;
	}
	expect_result(op, ret, expected);
	return true;
}
