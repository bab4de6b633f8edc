/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a list that fails to a short one that does: leave out half of it, then quarters and so on
 * down to single operations, over again until no single one can be left out (delta debugging:
 * Zeller and Hildebrandt, 2002); then make what is left simpler. Any failure will do.
 */
#include <string.h>
#include <time.h>

#include "tests/support/explore.h"

#define SECONDS	  120
#define RUN_LIMIT 20

struct shrinking {
	const struct explorer *e;
	struct list *list, try;
	struct verdict *verdict;
	int runs;
	time_t end;
};

/* @nr operations of the list from @from on are what is tried from @at on. */
static void copy(struct shrinking *s, int at, int from, int nr)
{
	const struct op_format *format = s->e->format;

	memcpy(op_at(format, s->try.ops, at), op_at(format, s->list->ops, from), nr * format->size);
}

/* Does it still fail? Then that is the list, up to where it did. */
static bool fails(struct shrinking *s)
{
	const struct how how = {.quiet = true, .limit = RUN_LIMIT};
	struct verdict verdict;

	if (time(NULL) >= s->end)
		return false;
	s->runs++;
	verdict = list_run(s->e, &s->try, &how);
	if (!verdict.failed)
		return false;
	*s->verdict = verdict;
	s->list->nr = verdict.at + 1 < s->try.nr ? verdict.at + 1 : s->try.nr;
	memcpy(s->list->ops, s->try.ops, s->list->nr * s->e->format->size);
	return true;
}

static bool fails_without(struct shrinking *s, int start, int nr)
{
	if (nr > s->list->nr - start)
		nr = s->list->nr - start;
	s->try.nr = s->list->nr - nr;
	copy(s, 0, 0, start);
	copy(s, start, start + nr, s->try.nr - start);
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

/* 0 is as simple as can be. */
static void try_simpler(struct shrinking *s, int at, const struct simpler *simpler)
{
	int *number = op_number(op_at(s->e->format, s->try.ops, at), simpler->offset);

	s->try.nr = s->list->nr;
	copy(s, 0, 0, s->list->nr);
	if (!*number || *number == simpler->value)
		return;
	*number = simpler->value;
	fails(s);
}

static void make_simpler(struct shrinking *s)
{
	for (int at = 0; at < s->list->nr; at++) {
		for (int i = 0; i < s->e->nr_simpler && at < s->list->nr; i++)
			try_simpler(s, at, &s->e->simpler[i]);
	}
}

int shrink(const struct explorer *e, struct list *list, struct verdict *verdict)
{
	struct shrinking s = {.e = e,
			      .list = list,
			      .verdict = verdict,
			      .end = time(NULL) + SECONDS};

	if (verdict->at + 1 < list->nr)
		list->nr = verdict->at + 1;
	s.try = list_create(e, list->nr + 1);
	/* The same, looked at more often: fails earlier, perhaps. */
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
