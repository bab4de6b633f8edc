/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations on areas: mmap, munmap, mremap, mprotect, zap, madvise. Expected errors come from the
 * contracts in gnomon/mm.h alone, in the order that they are checked in there.
 */
#include <errno.h>

#include "notifier/mm_internal.h"
#include "tests/mmmodel/world.h"

static bool any_mapped(const struct mspace *s, int page, int nr)
{
	for (int i = page; i < page + nr; i++) {
		if (s->place[i].mapped)
			return true;
	}
	return false;
}

static bool all_mapped(const struct mspace *s, int page, int nr)
{
	for (int i = page; i < page + nr; i++) {
		if (!s->place[i].mapped)
			return false;
	}
	return true;
}

static bool prot_ok(unsigned int prot)
{
	return prot == MM_PROT_NONE || prot == MM_PROT_READ ||
	       prot == (MM_PROT_READ | MM_PROT_WRITE);
}

static int whole_pages(uint64_t len)
{
	return (len + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

/* ---- mmap ---- */

static int expect_mmap(struct world *w, struct mspace *s, const struct op *op,
		       struct mobject *object)
{
	bool private = op->flags & MM_MAP_PRIVATE;
	struct place like = {.mapped = true,
			     .private = private,
			     .prot = op->prot,
			     .object = object};

	if (op->skew || op->nr == 0 || op->cut || !prot_ok(op->prot) ||
	    (op->flags & ~(MM_MAP_PRIVATE | MM_MAP_FIXED)))
		return -EINVAL;
	if (object ? op->pgoff + op->nr > object->nr_pages : !private)
		return -EINVAL;
	if (any_mapped(s, op->page, op->nr) && !(op->flags & MM_MAP_FIXED))
		return -EEXIST;
	like.pgoff = object ? op->pgoff : (int64_t)(place_hva(op->page) >> PAGE_SHIFT);
	if (private)
		like.family = new_family(w, s, op->page, op->nr, &like);
	unmap_places(w, s, op->page, op->nr);
	for (int i = 0; i < op->nr; i++)
		map_place(&s->place[op->page + i], &like, like.pgoff + i);
	return 0;
}

/* With prot, flags as they are passed, object, pgoff. */
bool apply_mmap(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	struct mobject *object = NULL;
	uint64_t len;
	hva_t addr;
	int ret;

	if (!s || op->page < 0 || !range_of(op, &addr, &len))
		return false;
	if (op->object) {
		if (op->object < 1 || op->object > NR_OBJECTS || !w->object[op->object - 1])
			return false;
		object = w->object[op->object - 1];
	}
	if (op->pgoff < 0)
		return false;
	ret = mm_mmap_flags(s->real, addr, len, op->prot, op->flags, object ? object->real : NULL,
			    op->pgoff);
	if (!gave_up(w, ret))
		expect_result(op, ret, expect_mmap(w, s, op, object));
	return true;
}

/* ---- munmap ---- */

static int expect_munmap(struct world *w, struct mspace *s, const struct op *op, uint64_t len)
{
	if (op->page == -1) {
		unmap_places(w, s, 0, NR_PAGES);
		return 0;
	}
	if (op->skew || !len)
		return -EINVAL;
	unmap_places(w, s, op->page, whole_pages(len));
	return 0;
}

bool apply_munmap(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t len;
	hva_t addr;
	int ret;

	if (!s || !range_of(op, &addr, &len))
		return false;
	ret = mm_munmap(s->real, addr, len);
	if (!gave_up(w, ret))
		expect_result(op, ret, expect_munmap(w, s, op, len));
	return true;
}

/* ---- mremap ---- */

static bool remap_arguments_ok(const struct op *op)
{
	bool fixed = op->flags & MM_MREMAP_FIXED;

	if ((op->flags & ~(MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED)) || op->skew || !op->nr ||
	    !op->nr_to)
		return false;
	if (!fixed)
		return true;
	if (!(op->flags & MM_MREMAP_MAYMOVE) || op->skew_to)
		return false;
	return op->to >= op->page + op->nr || op->page >= op->to + op->nr_to;
}

/* The lowest room for @nr pages, in the second run; or -1: it lies behind that. */
static int find_room(const struct mspace *s, int nr)
{
	for (int at = RUN_PAGES; at + nr <= NR_PAGES; at++) {
		if (!any_mapped(s, at, nr))
			return at;
	}
	return -1;
}

static bool can_grow(const struct mspace *s, const struct op *op)
{
	return area_end(s, op->page) == op->page + op->nr &&
	       !any_mapped(s, op->page + op->nr, op->nr_to - op->nr);
}

/* Like the place before, and one further on. */
static void extend(struct mspace *s, int page)
{
	const struct place like = s->place[page - 1];

	map_place(&s->place[page], &like, like.pgoff + 1);
}

static void move_places(struct mspace *s, int from, int nr, int to, int nr_to)
{
	int nr_moved = nr < nr_to ? nr : nr_to;

	for (int i = 0; i < nr_moved; i++) {
		s->place[to + i] = s->place[from + i];
		s->place[to + i].soft = s->place[to + i].page;
		s->place[from + i] = (struct place){0};
	}
	for (int i = nr_moved; i < nr_to; i++)
		extend(s, to + i);
}

/* Where a move to @to would end; what is there goes, and what the new length leaves out. */
static void move_fixed(struct world *w, struct mspace *s, const struct op *op)
{
	unmap_places(w, s, op->to, op->nr_to);
	if (op->nr_to < op->nr)
		unmap_places(w, s, op->page + op->nr_to, op->nr - op->nr_to);
	move_places(s, op->page, op->nr, op->to, op->nr_to);
}

static int expect_mremap(struct world *w, struct mspace *s, const struct op *op, int *where)
{
	const struct place *first = &s->place[op->page];

	if (!remap_arguments_ok(op))
		return -EINVAL;
	if (!first->mapped || area_end(s, op->page) < op->page + op->nr)
		return -EFAULT;
	if (first->object && op->nr_to > op->nr &&
	    first->pgoff + op->nr_to > first->object->nr_pages)
		return -EINVAL;
	*where = op->page;
	if (op->flags & MM_MREMAP_FIXED) {
		*where = op->to;
		move_fixed(w, s, op);
		return 0;
	}
	if (op->nr_to <= op->nr) {
		unmap_places(w, s, op->page + op->nr_to, op->nr - op->nr_to);
		return 0;
	}
	if (can_grow(s, op)) {
		for (int i = op->nr; i < op->nr_to; i++)
			extend(s, op->page + i);
		return 0;
	}
	if (!(op->flags & MM_MREMAP_MAYMOVE))
		return -ENOMEM;
	*where = find_room(s, op->nr_to);
	move_places(s, op->page, op->nr, *where, op->nr_to);
	return 0;
}

/* An allocation failed on the way: a move to a fixed place may have made room already. */
static void after_failed_mremap(struct world *w, struct mspace *s, const struct op *op)
{
	if (!(op->flags & MM_MREMAP_FIXED))
		return;
	mmap_read_lock(s->real);
	for (int i = op->to; i < op->to + op->nr_to; i++) {
		if (s->place[i].mapped && !find_vma(s->real, place_hva(i)))
			unmap_places(w, s, i, 1);
	}
	for (int i = op->page + op->nr_to; i < op->page + op->nr; i++) {
		if (s->place[i].mapped && !find_vma(s->real, place_hva(i)))
			unmap_places(w, s, i, 1);
	}
	mmap_read_unlock(s->real);
}

/* -ENOMEM, and not for want of memory. */
static bool expect_no_room(const struct mspace *s, const struct op *op)
{
	return !(op->flags & MM_MREMAP_MAYMOVE) && op->nr_to > op->nr && !can_grow(s, op);
}

/* page, nr: from where; to, nr_to: where to. */
bool apply_mremap(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	hva_t addr, where, expected;
	int place = op->page, ret;
	uint64_t len, new_len;

	if (!s || op->page < 0 || !range_of(op, &addr, &len))
		return false;
	if (op->flags & MM_MREMAP_FIXED
		    ? !places_ok(op->to, op->nr_to)
		    : !places_ok(op->page, op->nr_to) || find_room(s, op->nr_to) < 0)
		return false;
	new_len = op->nr_to * PAGE_SIZE - (op->nr_to ? op->cut : 0);
	where = expected = place_hva(op->to) + op->skew_to;
	ret = mm_mremap(s->real, addr, len, new_len, op->flags, &where);
	if (ret == -ENOMEM && w->failing && !expect_no_room(s, op)) {
		gave_up(w, ret);
		after_failed_mremap(w, s, op);
		return true;
	}
	expect_result(op, ret, expect_mremap(w, s, op, &place));
	if (!ret)
		expected = place_hva(place);
	if (where != expected)
		differ("mremap: is at %#llx now, not %#llx", (unsigned long long)where,
		       (unsigned long long)expected);
	return true;
}

/* ---- rights ---- */

static int expect_mprotect(struct mspace *s, const struct op *op, uint64_t len)
{
	if ((op->page != -1 && op->skew) || !prot_ok(op->prot))
		return -EINVAL;
	if (op->page == -1)
		return -ENOMEM;
	for (int i = 0; i < whole_pages(len); i++) {
		if (!s->place[op->page + i].mapped)
			return -ENOMEM;
		s->place[op->page + i].prot = op->prot;
	}
	return 0;
}

/* An allocation failed: what lies before has the new rights. */
static void after_failed_mprotect(struct mspace *s, const struct op *op)
{
	mmap_read_lock(s->real);
	for (int i = op->page; i < op->page + op->nr; i++) {
		const struct vm_area_struct *vma = find_vma(s->real, place_hva(i));

		if (!vma || vma->prot != op->prot)
			break;
		s->place[i].prot = op->prot;
	}
	mmap_read_unlock(s->real);
}

bool apply_mprotect(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t len;
	hva_t addr;
	int ret;

	if (!s || !range_of(op, &addr, &len))
		return false;
	ret = mm_mprotect(s->real, addr, len, op->prot);
	if (ret != -ENOMEM || !w->failing || op->page == -1) {
		expect_result(op, ret, expect_mprotect(s, op, len));
		return true;
	}
	/* At a hole, or before it. */
	after_failed_mprotect(s, op);
	if (all_mapped(s, op->page, whole_pages(len)))
		w->gave_up = true;
	return true;
}

/* ---- contents that go, areas that stay ---- */

static long drop_entries(struct world *w, struct mspace *s, int page, int nr)
{
	long dropped = 0;

	for (int i = page; i < page + nr; i++) {
		dropped += s->place[i].page != NULL;
		drop_entry(w, &s->place[i]);
	}
	s->zapped += dropped;
	return dropped;
}

static long expect_zap(struct world *w, struct mspace *s, const struct op *op)
{
	if (op->page == -1)
		return -ENOMEM;
	if (op->skew || (op->nr && op->cut))
		return -EINVAL;
	if (!all_mapped(s, op->page, op->nr))
		return -ENOMEM;
	return drop_entries(w, s, op->page, op->nr);
}

bool apply_zap(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t len;
	hva_t addr;
	long ret;

	if (!s || !range_of(op, &addr, &len))
		return false;
	ret = mm_zap_range(s->real, addr, len);
	expect_result(op, ret, expect_zap(w, s, op));
	return true;
}

/* Done already: what was out is gone, and what is in memory may go. */
static int give_up(struct world *w, struct mspace *s, int page, int nr)
{
	if (!s->place[page].private || s->place[page].object)
		return -EINVAL;
	for (int i = page; i < page + nr; i++) {
		struct place *place = &s->place[i];

		if (place->page && !is_mapped(s, i))
			drop_entry(w, place);
		else if (place->page && place->page->maps == 1 && !place->page->pins &&
			 !place->page->merged)
			place->page->lazy = true;
	}
	return 0;
}

/* What is merged is not any more before the area says so. */
static int set_mergeable(struct world *w, struct mspace *s, int page, int nr, bool mergeable)
{
	if (!s->place[page].private || (!mergeable && !s->place[page].mergeable))
		return 0;
	for (int i = page; i < page + nr && !mergeable; i++) {
		int ret = break_merge(w, s, &s->place[i]);

		if (ret)
			return ret;
	}
	for (int i = page; i < page + nr; i++)
		s->place[i].mergeable = mergeable;
	return 0;
}

/* An allocation failed: some areas are as they were. */
static void after_failed_advice(struct mspace *s)
{
	mmap_read_lock(s->real);
	for (int i = 0; i < NR_PAGES; i++) {
		const struct vm_area_struct *vma = find_vma(s->real, place_hva(i));

		if (s->place[i].mapped && vma)
			s->place[i].mergeable = vma->flags & VMA_MERGEABLE;
	}
	mmap_read_unlock(s->real);
}

/* What of the range lies in one area. */
static int advise_part(struct world *w, struct mspace *s, const struct op *op, int page, int nr)
{
	const struct place *place = &s->place[page];

	if (op->value == MM_MADV_COLD || op->value == MM_MADV_PAGEOUT)
		return 0;
	if (op->value == MM_MADV_DONTNEED) {
		drop_entries(w, s, page, nr);
		return 0;
	}
	if (op->value == MM_MADV_FREE)
		return give_up(w, s, page, nr);
	if (op->value == MM_MADV_MERGEABLE || op->value == MM_MADV_UNMERGEABLE)
		return set_mergeable(w, s, page, nr, op->value == MM_MADV_MERGEABLE);
	if (!place->object)
		return -EINVAL;
	if (place->private || !(place->prot & MM_PROT_WRITE))
		return -EACCES;
	punch(w, place->object, (int)place->pgoff, nr);
	return 0;
}

static int expect_madvise(struct world *w, struct mspace *s, const struct op *op, uint64_t len)
{
	int page = op->page == -1 ? 0 : op->page;
	int end = op->page == -1 ? NR_PAGES : page + whole_pages(len);
	int ret = op->page == -1 ? -ENOMEM : 0;

	if (op->value >= NR_MM_MADV || (op->page != -1 && op->skew))
		return -EINVAL;
	while (page < end) {
		int part_end, err;

		if (!s->place[page].mapped) {
			ret = -ENOMEM;
			page++;
			continue;
		}
		part_end = area_end(s, page) < end ? area_end(s, page) : end;
		err = advise_part(w, s, op, page, part_end - page);
		if (err)
			return err;
		page = part_end;
	}
	return ret;
}

/* value: the advice. */
bool apply_madvise(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t len;
	hva_t addr;
	int ret;

	if (!s || !range_of(op, &addr, &len))
		return false;
	if ((op->value == MM_MADV_PAGEOUT || op->value == MM_MADV_FREE) && !w->swap)
		return false;
	if (op->value == MM_MADV_UNMERGEABLE && w->failing)
		return false;
	ret = mm_madvise(s->real, addr, len, op->value);
	if (ret == -ENOMEM && w->failing && op->value == MM_MADV_MERGEABLE) {
		w->gave_up = op->page >= 0 && all_mapped(s, op->page, whole_pages(len));
		after_failed_advice(s);
		return true;
	}
	expect_result(op, ret, expect_madvise(w, s, op, len));
	return true;
}

static int expect_msync(struct mspace *s, const struct op *op, uint64_t len)
{
	int page = op->page == -1 ? 0 : op->page;
	int end = op->page == -1 ? NR_PAGES : page + whole_pages(len);
	int ret = op->page == -1 ? -ENOMEM : 0;

	if (op->page != -1 && op->skew)
		return -EINVAL;
	for (; page < end; page++) {
		const struct place *place = &s->place[page];

		if (!place->mapped)
			ret = -ENOMEM;
		else if (!place->private)
			sync_object(place->object, (int)place->pgoff, 1);
	}
	return ret;
}

bool apply_msync(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t len;
	hva_t addr;
	int ret;

	if (!s || !range_of(op, &addr, &len))
		return false;
	ret = mm_msync(s->real, addr, len);
	expect_result(op, ret, expect_msync(s, op, len));
	return true;
}

/* ---- what was written ---- */

bool apply_soft_clear(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);

	if (!s)
		return false;
	mm_clear_soft_dirty(s->real);
	for (int i = 0; i < NR_PAGES; i++) {
		struct place *place = &s->place[i];

		if (place->page && !place->page->pins)
			place->soft = place->soft_maybe = false;
	}
	return true;
}

bool apply_soft_test(struct world *w, const struct op *op)
{
	struct mspace *s = space_of(w, op);
	uint64_t bitmap[RUN_PAGES / 64] = {0}, len;
	long ret, reported = 0;
	hva_t addr;

	if (!s || op->page < 0 || !range_of(op, &addr, &len))
		return false;
	ret = mm_test_soft_dirty(s->real, addr, len, bitmap);
	if (op->skew || (op->nr && op->cut)) {
		expect_result(op, ret, -EINVAL);
		return true;
	}
	if (!all_mapped(s, op->page, op->nr)) {
		expect_result(op, ret, -ENOMEM);
		return true;
	}
	for (int i = 0; i < op->nr; i++) {
		const struct place *place = &s->place[op->page + i];
		bool bit = bitmap[i / 64] >> (i % 64) & 1;

		reported += bit;
		if (!bit && (!place->page || place->soft))
			differ("soft_test: place %d was written", op->page + i);
		if (bit && place->page && !place->soft && !place->soft_maybe)
			differ("soft_test: place %d was not written", op->page + i);
	}
	expect_result(op, ret, reported);
	return true;
}
