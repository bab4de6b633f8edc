/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One thread, after each operation: memory is what is known of it. A store has landed in one word,
 * walks have set A and D on the way of the access that walked, and nothing else has changed.
 */
#include "tests/coherence/steps.h"

#include "notifier/sync/util.h"

struct look {
	struct world *w;
	struct question *q; /* NULL: no access */
	const struct marks *marks;
	const uint64_t *stored;
};

static uint64_t marks_of(struct world *w, const struct marks *marks, int page, int word)
{
	uint64_t adds = 0;

	/* Whoever came in between walked, too, or had it walk elsewhere. */
	if (w->nested)
		return SDM_A | SDM_D;
	for (int i = 0; marks && i < marks->nr; i++) {
		if (marks->at[i].page == page && marks->at[i].word == word)
			adds |= marks->at[i].adds;
	}
	return adds;
}

void look_stored(struct world *w, const struct marks *marks, int page, int word, uint64_t value)
{
	struct history *h = &w->word[page][word];
	bool untold = is_untold(w, page, word);
	uint64_t before = untold ? w->untold_value : history_now(h);

	/* It may have overwritten an entry of its own way, which was marked before. */
	if (is_table(page))
		history_set(w, h, before | marks_of(w, marks, page, word));
	history_set(w, h, value);
	if (untold)
		w->untold_value = value;
}

static void look_at_word(const struct look *l, int page, int word, uint64_t value)
{
	struct history *h = &l->w->word[page][word];
	bool untold = is_untold(l->w, page, word);
	uint64_t known = history_now(h);

	if (untold && l->w->untold_value == value)
		return;
	if (value == known && !untold)
		return;
	if (l->stored && value == *l->stored && word == l->q->word && l->q->page < 0) {
		l->q->page = page;
		look_stored(l->w, l->marks, page, word, value);
		return;
	}
	if (untold) {
		history_begin(l->w, h, value);
		l->w->untold_value = value;
		return;
	}
	if (!is_table(page) || (value & known) != known || ((value ^ known) & ~(SDM_A | SDM_D)))
		differ("word %d of page %d is 0x%016llx, and nobody wrote that over 0x%016llx",
		       word, page, (unsigned long long)value, (unsigned long long)known);
	if ((value ^ known) & ~marks_of(l->w, l->marks, page, word))
		differ("word %d of page %d became 0x%016llx from 0x%016llx: not by this access",
		       word, page, (unsigned long long)value, (unsigned long long)known);
	history_set(l->w, h, value);
}

static int nr_words(int page)
{
	return page == LINEAR_L1 ? RAM_PAGES : NR_WORDS;
}

/* What is in memory, without bringing anything there; or else also what is not. */
static void look_at_page(const struct look *l, int at, bool all)
{
	struct mm_struct *mm = l->w->g.mm;
	uint64_t shows = history_now(&l->w->shows[at]);
	pfn_t pfn = mm_lookup_pfn(mm, hva_of(at));

	for (int word = 0; word < nr_words(at) && shows; word++) {
		uint64_t value;

		if (pfn != INVALID_PFN)
			value = ((uint64_t *)phys_map(l->w->g.phys, pfn))[word];
		else if (!all || mm_read(mm, hva_of(at) + word * 8, &value, sizeof(value)))
			continue;
		look_at_word(l, SHOWN_PAGE(shows), word, value);
	}
}

void look(struct world *w, struct question *q, const struct marks *marks, const uint64_t *stored)
{
	const struct look l = {.w = w, .q = q, .marks = marks, .stored = stored};

	for (int at = 0; at < NR_PAGES; at++)
		look_at_page(&l, at, false);
	for (int at = 0; stored && q->page < 0 && at < NR_PAGES; at++)
		look_at_page(&l, at, true);
	if (stored && q->page < 0)
		differ("CPU %u: a store at 0x%lx landed nowhere", q->cpu,
		       gva_of(q->gva) + q->word * 8);
}
