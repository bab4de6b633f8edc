/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations at random, but not blindly: most are on something that is there, and of a size that
 * meets borders. A few have arguments that must be refused.
 */
#include <string.h>

#include "notifier/sync/util.h"
#include "tests/mmmodel/world.h"

static uint64_t next_random(uint64_t *random)
{
	uint64_t z = *random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static int below(uint64_t *random, int bound)
{
	return next_random(random) % bound;
}

static bool one_in(uint64_t *random, int n)
{
	return below(random, n) == 0;
}

/* How often each kind comes. */
static const struct {
	enum op_kind kind;
	int weight;
} weights[] = {
	{OP_NEW, 4},
	{OP_FORK, 14},
	{OP_EXIT, 2},
	{OP_OBJECT, 4},
	{OP_MMAP, 60},
	{OP_MUNMAP, 14},
	{OP_MREMAP, 60},
	{OP_MPROTECT, 60},
	{OP_ZAP, 12},
	{OP_MADVISE, 20},
	{OP_READ, 100},
	{OP_WRITE, 200},
	{OP_CMPXCHG, 40},
	{OP_READ_ATOMIC, 20},
	{OP_SECONDARY, 120},
	{OP_PIN, 20},
	{OP_PUNCH, 6},
	{OP_SYNC, 20},
	{OP_MSYNC, 6},
	{OP_SOFT_CLEAR, 8},
	{OP_SOFT_TEST, 20},
	{OP_EXCLUSIVE, 20},
	{OP_RECLAIM, 10},
	{OP_TO_DEVICE, 20},
	{OP_TO_RAM, 6},
	{OP_MERGE, 12},
	{OP_UNPIN, 22},
	{OP_MIGRATE_RANGE, 40},
	{OP_MIGRATE_FRAME, 60},
	{OP_MIGRATE_OBJECT, 20},
};

static enum op_kind any_kind(uint64_t *random)
{
	int total = 0, at;

	for (size_t i = 0; i < ARRAY_SIZE(weights); i++)
		total += weights[i].weight;
	at = below(random, total);
	for (size_t i = 0;; i++) {
		at -= weights[i].weight;
		if (at < 0)
			return weights[i].kind;
	}
}

/* One that is there, if @there, or one that is not. -1: none. */
static int any_mm(const struct world *w, uint64_t *random, bool there)
{
	int first = below(random, NR_MMS);

	for (int i = 0; i < NR_MMS; i++) {
		int slot = (first + i) % NR_MMS;

		if (!w->mm[slot].real == !there)
			return slot;
	}
	return -1;
}

static int any_object(const struct world *w, uint64_t *random)
{
	int slot = below(random, NR_OBJECTS);

	return w->object[slot] ? slot + 1 : 0;
}

static int any_length(uint64_t *random)
{
	return one_in(random, 4) ? 1 + below(random, RUN_PAGES) : 1 + below(random, 10);
}

/* A range of places; mostly one that begins where something is mapped. */
static void any_range(const struct mspace *s, uint64_t *random, int nr, int *page, int *nr_pages)
{
	int run;

	*page = below(random, NR_PAGES);
	for (int i = 0; i < 20 && !s->place[*page].mapped && !one_in(random, 12); i++)
		*page = below(random, NR_PAGES);
	if (s->place[*page].mapped && one_in(random, 4))
		*page = area_start(s, *page);
	run = *page / RUN_PAGES;
	*nr_pages = (run + 1) * RUN_PAGES - *page;
	if (*nr_pages > nr)
		*nr_pages = nr;
	if (s->place[*page].mapped && one_in(random, 4))
		*nr_pages = area_end(s, *page) - *page;
}

/* One that shows a page of a file, or @page if none does. */
static int any_file_place(const struct mspace *s, uint64_t *random, int page)
{
	int first = below(random, NR_PAGES);

	for (int i = 0; i < NR_PAGES; i++) {
		int at = (first + i) % NR_PAGES;
		const struct place *place = &s->place[at];

		if (place->object && place->object->fd >= 0 && !place->private)
			return at;
	}
	return page;
}

static unsigned int any_prot(uint64_t *random)
{
	static const unsigned int prots[] = {0, 1, 1, 3, 3, 3, 3, 3};

	return one_in(random, 50) ? (unsigned int)below(random, 8) : prots[below(random, 8)];
}

static void any_mmap(const struct world *w, uint64_t *random, struct op *op)
{
	any_range(&w->mm[op->mm], random, any_length(random), &op->page, &op->nr);
	op->prot = any_prot(random);
	op->object = one_in(random, 2) ? 0 : any_object(w, random);
	op->flags = !op->object || one_in(random, 2) ? MM_MAP_PRIVATE : 0;
	if (!one_in(random, 4))
		op->flags |= MM_MAP_FIXED;
	if (op->object) {
		const struct mobject *object = w->object[op->object - 1];

		op->pgoff = below(random, object->nr_pages);
		if (op->nr > object->nr_pages - op->pgoff && !one_in(random, 8))
			op->nr = object->nr_pages - op->pgoff;
	}
	if (one_in(random, 60))
		op->flags ^= 1u << below(random, 4);
}

static void any_mremap(const struct mspace *s, uint64_t *random, struct op *op)
{
	int nr_to = any_length(random);

	any_range(s, random, any_length(random), &op->page, &op->nr);
	if (one_in(random, 3))
		op->nr_to = op->nr;
	else
		op->nr_to = nr_to;
	op->flags = one_in(random, 4) ? 0 : MM_MREMAP_MAYMOVE;
	if (one_in(random, 2)) {
		op->flags |= MM_MREMAP_FIXED;
		op->to = below(random, NR_PAGES);
		if (!places_ok(op->to, op->nr_to))
			op->nr_to = (op->to / RUN_PAGES + 1) * RUN_PAGES - op->to;
	}
	op->skew_to = one_in(random, 50) ? 8 * below(random, 512) : 0;
}

static void any_word(const struct mspace *s, uint64_t *random, struct op *op)
{
	int nr;

	any_range(s, random, 1, &op->page, &nr);
	op->to = below(random, NR_WORDS);
	op->nr = one_in(random, 3) ? 1 + below(random, 12) : 1;
	op->cut = one_in(random, 4) ? below(random, 8) : 0;
	op->value = next_random(random);
}

static void spoil(uint64_t *random, struct op *op)
{
	if (one_in(random, 60))
		op->skew = 1 + below(random, PAGE_SIZE - 1);
	if (one_in(random, 12))
		op->cut = below(random, PAGE_SIZE);
	if (one_in(random, 100))
		op->nr = 0;
}

static void on_space(const struct world *w, uint64_t *random, struct op *op)
{
	const struct mspace *s = &w->mm[op->mm];

	switch (op->kind) {
	case OP_MMAP:
		any_mmap(w, random, op);
		spoil(random, op);
		break;
	case OP_MREMAP:
		any_mremap(s, random, op);
		spoil(random, op);
		break;
	case OP_MUNMAP:
	case OP_MPROTECT:
	case OP_ZAP:
	case OP_MADVISE:
	case OP_MSYNC:
	case OP_SOFT_TEST:
	case OP_TO_DEVICE:
	case OP_TO_RAM:
	case OP_MIGRATE_RANGE:
		any_range(s, random, any_length(random), &op->page, &op->nr);
		op->prot = any_prot(random);
		op->value = one_in(random, 3) ? MM_MADV_REMOVE : MM_MADV_DONTNEED;
		if (w->swap && one_in(random, 2))
			op->value = MM_MADV_PAGEOUT;
		if (w->swap && one_in(random, 3))
			op->value = MM_MADV_FREE;
		if (one_in(random, 3))
			op->value = one_in(random, 4) ? MM_MADV_UNMERGEABLE : MM_MADV_MERGEABLE;
		if (one_in(random, 10))
			op->value = MM_MADV_COLD;
		if (one_in(random, 50))
			op->value = NR_MM_MADV;
		spoil(random, op);
		if (one_in(random, op->kind == OP_MUNMAP ? 300 : 60))
			op->page = -1;
		break;
	default:
		any_word(s, random, op);
		op->flags = one_in(random, 2);
	}
}

/* Of an object; now and then all of it, or too much. */
static void any_part(const struct world *w, uint64_t *random, struct op *op)
{
	int nr_pages;

	op->object = any_object(w, random);
	if (!op->object)
		return;
	nr_pages = w->object[op->object - 1]->nr_pages;
	op->pgoff = one_in(random, 2) ? 0 : below(random, nr_pages);
	op->nr = one_in(random, 2) ? nr_pages - op->pgoff : below(random, 4);
	if (one_in(random, 20))
		op->nr = nr_pages + 1;
}

void generate(const struct world *w, uint64_t *random, struct op *op)
{
	*op = (struct op){.kind = any_kind(random)};
	op->mm = any_mm(w, random, op->kind != OP_NEW);
	if (op->mm < 0) {
		op->kind = op->kind == OP_NEW ? OP_EXIT : OP_NEW;
		op->mm = below(random, NR_MMS);
	}
	switch (op->kind) {
	case OP_NEW:
		op->flags = !one_in(random, 4);
		break;
	case OP_FORK:
		op->to = any_mm(w, random, false);
		if (op->to < 0)
			op->kind = OP_EXIT;
		op->flags = one_in(random, 2);
		break;
	case OP_OBJECT:
		op->object = 1 + below(random, NR_OBJECTS);
		op->nr = one_in(random, 8) ? 0 : 1 + below(random, MAX_OBJECT_PAGES);
		/* Pages of files go when frames are few. */
		op->flags = (w->swap || w->nr_frames >= 1024) && !one_in(random, 3);
		break;
	case OP_RECLAIM:
		op->nr = 1 + below(random, 40);
		break;
	case OP_MERGE:
		op->nr = 1 + below(random, 300);
		break;
	case OP_PUNCH:
	case OP_SYNC:
		any_part(w, random, op);
		break;
	case OP_UNPIN:
		op->to = below(random, NR_PINS);
		break;
	case OP_PIN:
		on_space(w, random, op);
		op->to = below(random, NR_PINS);
		if (one_in(random, 2))
			op->page = any_file_place(&w->mm[op->mm], random, op->page);
		break;
	case OP_CMPXCHG:
		on_space(w, random, op);
		op->skew = one_in(random, 20) ? 1 + below(random, 7) : 0;
		op->flags = one_in(random, 4);
		break;
	case OP_MIGRATE_OBJECT:
		op->object = any_object(w, random);
		op->pgoff = below(random, MAX_OBJECT_PAGES);
		break;
	case OP_EXIT:
		break;
	default:
		on_space(w, random, op);
		/* Pages that are equal, now and then. */
		if (op->kind == OP_WRITE && w->nr_frames < 1024 && one_in(random, 2))
			op->value = 1 + below(random, 2);
	}
}
