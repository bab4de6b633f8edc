/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a list that fails to a short one that does (delta debugging: Zeller and Hildebrandt, 2002):
 * leave out half of it, then quarters and so on down to single operations, over again until no
 * single one can be left out; then make what is left simpler. Any failure will do.
 */
#include "tests/mmmodel/run.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct shrinking {
	struct list *list, try;
	struct verdict *verdict;
	int runs;
	time_t end;
	bool planted;
};

/* Does it still fail? Then that is the list, up to where it did. */
static bool fails(struct shrinking *s)
{
	const struct how how = {.check_every = s->try.nr > 2000 ? 64 : 1,
				.quiet = true,
				.limit = 20,
				.planted = s->planted};
	struct verdict verdict;

	if (time(NULL) >= s->end)
		return false;
	s->runs++;
	verdict = run_list(&s->try, &how);
	if (!verdict.failed)
		return false;
	*s->verdict = verdict;
	s->list->nr = verdict.at + 1 < s->try.nr ? verdict.at + 1 : s->try.nr;
	memcpy(s->list->ops, s->try.ops, s->list->nr * sizeof(struct op));
	return true;
}

static bool fails_without(struct shrinking *s, int start, int nr)
{
	const struct list *list = s->list;

	if (nr > list->nr - start)
		nr = list->nr - start;
	s->try.nr = list->nr - nr;
	memcpy(s->try.ops, list->ops, start * sizeof(struct op));
	memcpy(s->try.ops + start, list->ops + start + nr,
	       (list->nr - start - nr) * sizeof(struct op));
	return fails(s);
}

/* Returns whether anything was left out. */
static bool leave_out(struct shrinking *s, int nr)
{
	bool any = false;

	for (int start = 0; start < s->list->nr;) {
		if (fails_without(s, start, nr))
			any = true;
		else
			start += nr;
	}
	return any;
}

static void try_field(struct shrinking *s, int at, size_t offset, int value)
{
	int *field = (int *)(void *)((char *)&s->try.ops[at] + offset);

	s->try.nr = s->list->nr;
	memcpy(s->try.ops, s->list->ops, s->list->nr * sizeof(struct op));
	if (*field == value)
		return;
	*field = value;
	fails(s);
}

static void make_simpler(struct shrinking *s)
{
	static const size_t zeroed[] = {offsetof(struct op, skew), offsetof(struct op, cut),
					offsetof(struct op, value), offsetof(struct op, object)};

	for (int at = 0; at < s->list->nr; at++) {
		for (size_t i = 0; i < sizeof(zeroed) / sizeof(zeroed[0]) && at < s->list->nr; i++)
			try_field(s, at, zeroed[i], 0);
		if (at < s->list->nr && s->list->ops[at].nr > 1)
			try_field(s, at, offsetof(struct op, nr), 1);
	}
}

int shrink(struct list *list, struct verdict *verdict, int seconds, bool planted)
{
	struct shrinking s = {.list = list,
			      .verdict = verdict,
			      .end = time(NULL) + seconds,
			      .planted = planted};

	if (verdict->at + 1 < list->nr)
		list->nr = verdict->at + 1;
	s.try = list_create(list->nr + 1, list->nr_frames);
	s.try.swap = list->swap;
	/* The same, with more looks: fails earlier, perhaps. */
	fails_without(&s, 0, 0);
	for (int nr = list->nr / 2; nr > 1; nr /= 2)
		leave_out(&s, nr);
	while (leave_out(&s, 1))
		;
	make_simpler(&s);
	while (leave_out(&s, 1))
		;
	return s.runs;
}
