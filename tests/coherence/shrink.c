/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a program that fails to a short one that does: leave out half of it, then quarters and so on
 * down to single operations, over again until no single one can be left out (delta debugging:
 * Zeller and Hildebrandt, 2002); then have what is left happen one after the other. Any failure
 * will do.
 */
#include "tests/coherence/run.h"

#include <string.h>
#include <time.h>

struct shrinking {
	struct list *list, try;
	struct verdict *verdict;
	int runs;
	time_t end;
	unsigned int broken;
	bool audit;
};

/* Does it still fail? Then that is the list, up to where it did. */
static bool fails(struct shrinking *s)
{
	const struct how how = {.audit = s->audit, .quiet = true, .limit = 20, .broken = s->broken};
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

static void one_after_the_other(struct shrinking *s)
{
	for (int i = 0; i < s->list->nr; i++) {
		if (!s->list->ops[i].inside)
			continue;
		s->try.nr = s->list->nr;
		memcpy(s->try.ops, s->list->ops, s->list->nr * sizeof(struct op));
		s->try.ops[i].inside = 0;
		fails(s);
	}
}

int shrink(struct list *list, struct verdict *verdict, int seconds, unsigned int broken, bool audit)
{
	struct shrinking s = {.list = list,
			      .verdict = verdict,
			      .end = time(NULL) + seconds,
			      .broken = broken,
			      .audit = audit};

	if (verdict->at + 1 < list->nr)
		list->nr = verdict->at + 1;
	s.try = list_create(list->nr + 1);
	s.try.cpus = list->cpus;
	s.try.budget = list->budget;
	for (int nr = list->nr / 2; nr > 1; nr /= 2)
		leave_out(&s, nr);
	while (leave_out(&s, 1))
		;
	one_after_the_other(&s);
	while (leave_out(&s, 1))
		;
	return s.runs;
}
