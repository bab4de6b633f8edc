/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Address spaces: how they come and go. And what all operations share.
 *
 * Each apply_*() works out from the model what must come out, does the same to the real mm, and
 * compares. It returns false, having done nothing, if the operation makes no sense here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/util.h"
#include "tests/mmmodel/world.h"

#define OP_APPLY(kind, name) apply_##name,

void apply(struct world *w, const struct op *op)
{
	static bool (*const fns[NR_OP_KINDS])(struct world *,
					      const struct op *) = {OP_KINDS(OP_APPLY)};

	if (fns[op->kind](w, op))
		w->done[op->kind]++;
	check_closed_files(w);
	adopt_residency(w);
}

struct mspace *space_of(struct world *w, const struct op *op)
{
	if (op->mm < 0 || op->mm >= NR_MMS || !w->mm[op->mm].real)
		return NULL;
	return &w->mm[op->mm];
}

bool range_of(const struct op *op, hva_t *addr, uint64_t *len)
{
	if (op->page == -1) {
		*addr = 0;
		*len = HVA_MAX;
		return true;
	}
	if (!places_ok(op->page, op->nr))
		return false;
	*addr = place_hva(op->page) + op->skew;
	*len = op->nr * PAGE_SIZE - (op->nr ? op->cut : 0);
	return true;
}

void expect_result(const struct op *op, long result, long expected)
{
	if (result != expected)
		differ("%s: returned %ld, not %ld", op_names[op->kind], result, expected);
}

bool gave_up(struct world *w, long result)
{
	if (result != -ENOMEM || !w->failing)
		return false;
	w->gave_up = true;
	return true;
}

/* ---- address spaces ---- */

/* mm: the slot. flags: with a secondary. */
bool apply_new(struct world *w, const struct op *op)
{
	struct mspace *s;

	if (op->mm < 0 || op->mm >= NR_MMS || w->mm[op->mm].real)
		return false;
	s = &w->mm[op->mm];
	*s = (struct mspace){.real = mm_alloc(w->phys)};
	if (!s->real && gave_up(w, -ENOMEM))
		return true;
	if (!s->real)
		differ("new: no memory");
	if (op->flags)
		secondary_attach(w, s);
	return true;
}

static void drop_pins_of(struct world *w, int mm)
{
	for (int i = 0; i < NR_PINS; i++) {
		if (w->pin[i].page && w->pin[i].mm == mm)
			apply_unpin(w, &(struct op){.kind = OP_UNPIN, .to = i});
	}
}

bool apply_exit(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	struct mm_struct *real;

	if (!s)
		return false;
	drop_pins_of(w, op->mm);
	unmap_places(w, s, 0, NR_PAGES);
	real = s->real;
	mmput(real);
	secondary_detach(s);
	s->real = NULL;
	return true;
}

/*
 * A fork, area by area: the entries of an area, then a copy for the child of each of its pages that
 * is pinned. 0, -ENOMEM.
 */
static int fork_area(struct world *w, struct mspace *parent, struct mspace *child, int start,
		     int end)
{
	for (int i = start; i < end; i++) {
		struct place *from = &parent->place[i];

		from->exclusive = false;
		if (from->device && bring_back(w, from))
			return -ENOMEM;
	}
	for (int i = start; i < end; i++) {
		struct place *from = &parent->place[i], *to = &child->place[i];

		map_place(to, from, from->pgoff);
		if (!from->private || !from->page)
			continue;
		if (!from->page->cached && from->page->pins)
			continue;
		from->own = false;
		to->page = from->page;
		to->page->maps++;
		to->soft = from->soft;
		to->soft_maybe = from->soft_maybe;
	}
	for (int i = start; i < end; i++) {
		struct place *from = &parent->place[i], *to = &child->place[i];

		if (!from->private || !from->page || to->page)
			continue;
		to->page = take_page(w);
		if (!to->page)
			return -ENOMEM;
		memcpy(to->page->word, from->page->word, sizeof(to->page->word));
		to->page->maps = 1;
		to->own = true;
		to->soft = from->soft;
		to->soft_maybe = from->soft_maybe;
	}
	return 0;
}

static int fork_space(struct world *w, struct mspace *parent, struct mspace *child)
{
	for (int i = 0, end; i < NR_PAGES; i = end) {
		int ret;

		end = area_end(parent, i);
		if (!parent->place[i].mapped)
			continue;
		ret = fork_area(w, parent, child, i, end);
		if (ret)
			return ret;
	}
	return 0;
}

/* An allocation failed: areas behind that have not been looked at, and are as they were. */
static void after_failed_fork(struct world *w, struct mspace *parent)
{
	for (int i = 0; i < NR_PAGES; i++) {
		struct place *place = &parent->place[i];
		const pte_t *ptep = pgtable_lookup(parent->real->pgtable, place_hva(i));

		if (!place->page || place->page->cached || place->page->maps != 1)
			continue;
		if (pte_device(*ptep) && !place->device)
			send_away(w, place);
		place->own = *ptep & PTE_OWN;
		place->exclusive = pte_exclusive(*ptep);
	}
}

/* mm: the parent. to: the slot of the child. flags: the child gets a secondary. */
bool apply_fork(struct world *w, const struct op *op)
{
	struct mspace *parent = space_of(w, op), *child;
	struct mm_struct *real;
	int ret, expected;

	if (!parent || op->to < 0 || op->to >= NR_MMS || w->mm[op->to].real)
		return false;
	child = &w->mm[op->to];
	*child = (struct mspace){0};
	expected = fork_space(w, parent, child);
	ret = mm_fork(parent->real, &real);
	if (ret != expected && gave_up(w, ret))
		expected = ret;
	expect_result(op, ret, expected);
	if (ret) {
		unmap_places(w, child, 0, NR_PAGES);
		if (w->gave_up)
			after_failed_fork(w, parent);
		return true;
	}
	child->real = real;
	if (op->flags)
		secondary_attach(w, child);
	return true;
}
