/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/coherence/oracle.h"

#include <string.h>

#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"

const char *const got_names[NR_GOT] = {"done", "a fault", "a device access", "refused by the host",
				       "execute-only"};

/* What a gfn may have been. */
struct place {
	enum { NOTHING, MEMORY } kind;
	int at;		   /* page of host memory */
	int page;	   /* that it shows; -1: none */
	unsigned int prot; /* with which rights */
	bool readonly;	   /* the slot */
};

#define MAX_PLACES 64

struct places {
	int nr;
	struct place at[MAX_PLACES];
};

static void add_place(struct places *places, const struct place *place)
{
	ASSERT(places->nr < MAX_PLACES, "a gfn that was nearly everything");
	places->at[places->nr++] = *place;
}

/* A slot, at one of its places, has the gfn. */
static void add_memory(struct world *w, int at, bool readonly, uint64_t since,
		       struct places *places)
{
	const struct history *h = &w->shows[at];

	for (unsigned int i = 0; i < h->nr; i++) {
		const struct place place = {.kind = MEMORY,
					    .at = at,
					    .page = SHOWN_PAGE(h->at[i].value),
					    .prot = SHOWN_PROT(h->at[i].value),
					    .readonly = readonly};

		if (h->at[i].until >= since)
			add_place(places, &place);
	}
}

static void find_places(struct world *w, uint64_t gfn, uint64_t since, struct places *places)
{
	static const int first[NR_SLOTS] = {0, FIRST_SHARED, FIRST_PRIVATE};
	static const int pages[NR_SLOTS] = {RAM_PAGES, SLOT_PAGES, SLOT_PAGES};
	int elsewhere = 0;

	places->nr = 0;
	for (int slot = 0; slot < NR_SLOTS; slot++) {
		const struct history *h = &w->slot[slot];
		bool without = false;

		for (unsigned int i = 0; i < h->nr; i++) {
			uint64_t placed = h->at[i].value, base = PLACED_GFN(placed);

			if (h->at[i].until < since)
				continue;
			if (placed && gfn >= base && gfn < base + pages[slot])
				add_memory(w, first[slot] + (int)(gfn - base), PLACED_RO(placed),
					   since, places);
			else
				without = true;
		}
		elsewhere += without;
	}
	if (elsewhere == NR_SLOTS)
		add_place(places, &(struct place){.kind = NOTHING});
}

/* The search for a chain of entries that explains what was got. */
struct search {
	struct world *w;
	const struct question *q;
	struct sdm_cpu cpu;
	struct sdm_access access;
	uint64_t since;			  /* of entries: that were there at any time from here on */
	uint64_t since_large[SDM_LEVELS]; /* of one that maps a large page at this level */
	uint64_t entry[SDM_LEVELS];
};

static int table_word(const struct search *s, int level)
{
	return s->access.address >> (12 + 9 * (level - 1)) & 511;
}

static bool marked(const struct search *s, const struct sdm_result *result)
{
	for (int level = SDM_PML4E; level >= result->leaf; level--) {
		if (result->sets[level] & ~s->entry[level])
			return false;
	}
	return true;
}

static bool contents_fit(const struct search *s, int page)
{
	const struct question *q = s->q;
	uint64_t stamp;

	if (q->page >= 0)
		return q->page == page;
	if (!s->w->threads)
		return history_had(&s->w->word[page][q->word], q->value, q->start);
	if (is_table(page))
		return history_had(&s->w->word[page][q->word], q->value & ~(SDM_A | SDM_D),
				   q->start);
	return stamp_of(page, q->word, q->value, &stamp) && stamp >= q->least[page];
}

/* The access goes to @place of guest memory: is that what was got? */
static bool place_explains(const struct search *s, const struct place *place, uint64_t physical)
{
	const struct question *q = s->q;
	bool write = q->kind == SDM_WRITE;

	if (place->kind == NOTHING || (write && place->readonly))
		return q->got == GOT_DEVICE && q->gpa == physical;
	if (q->kind == SDM_FETCH) {
		struct sdm_access read = s->access;
		struct sdm_result result;

		read.kind = SDM_READ;
		sdm_access(&s->cpu, s->entry, &read, &result);
		if (result.outcome != SDM_DONE)
			return q->got == GOT_EXEC_ONLY;
	}
	if (place->page < 0 || !(place->prot & MM_PROT_READ) ||
	    (write && !(place->prot & MM_PROT_WRITE)))
		return q->got == GOT_REFUSED && (q->hva & PAGE_MASK) == hva_of(place->at);
	return q->got == GOT_DONE && contents_fit(s, place->page);
}

/* The entries from the root to @level are chosen, and the walk ends there. */
static bool end_explains(const struct search *s)
{
	struct sdm_result result;
	struct places places;

	sdm_access(&s->cpu, s->entry, &s->access, &result);
	if (result.outcome == SDM_PAGE_FAULT)
		return s->q->got == GOT_FAULT && s->q->error_code == result.error_code;
	if (s->q->got == GOT_DONE && !s->w->threads && !marked(s, &result))
		return false;
	find_places(s->w, result.physical >> PAGE_SHIFT, s->q->start, &places);
	for (int i = 0; i < places.nr; i++) {
		if (place_explains(s, &places.at[i], result.physical))
			return true;
	}
	return false;
}

static bool walk_explains(struct search *s, int level, uint64_t gfn);

static bool entry_explains(struct search *s, int level, const struct known *known)
{
	uint64_t entry = known->value;

	s->entry[level] = entry;
	if ((entry & SDM_P) && !(entry & sdm_reserved_bits(&s->cpu, entry, level))) {
		if (!sdm_maps_page(entry, level))
			return walk_explains(s, level - 1, (entry & 0x000ffffffffff000UL) >> 12);
		if (known->until < s->since_large[level])
			return false;
	}
	return end_explains(s);
}

static bool walk_explains(struct search *s, int level, uint64_t gfn)
{
	const struct known nothing = {.until = FOREVER};
	int word = table_word(s, level);
	struct places places;

	find_places(s->w, gfn, s->since, &places);
	for (int i = 0; i < places.nr; i++) {
		const struct place *place = &places.at[i];
		const struct history *h;

		if (place->kind == NOTHING) {
			if (entry_explains(s, level, &nothing))
				return true;
			continue;
		}
		if (place->page < 0 || !(place->prot & MM_PROT_READ)) {
			if (s->q->got == GOT_REFUSED &&
			    (s->q->hva & PAGE_MASK) == hva_of(place->at))
				return true;
			continue;
		}
		/* In a run with threads, stamps are not in the history. None is present. */
		if (s->w->threads && !is_table(place->page)) {
			if (entry_explains(s, level, &nothing))
				return true;
			continue;
		}
		h = &s->w->word[place->page][word];
		for (unsigned int n = 0; n < h->nr; n++) {
			if (h->at[n].until >= s->since && entry_explains(s, level, &h->at[n]))
				return true;
		}
	}
	return false;
}

static void search_init(struct search *s, struct world *w, const struct question *q)
{
	const struct cpu *cpu = &w->cpu[q->cpu];
	const struct guest_cpu *state = &cpu->state;

	memset(s, 0, sizeof(*s));
	s->w = w;
	s->q = q;
	s->cpu = (struct sdm_cpu){.cr3 = state->cr3,
				  .wp = state->cr0 & GUEST_CR0_WP,
				  .smep = state->cr4 & GUEST_CR4_SMEP,
				  .smap = state->cr4 & GUEST_CR4_SMAP,
				  .pke = state->cr4 & GUEST_CR4_PKE,
				  .pcide = true,
				  .pge = state->cr4 & GUEST_CR4_PGE,
				  .nxe = true,
				  .ac = state->ac,
				  .pkru = state->pkru,
				  .maxphyaddr = state->maxphyaddr,
				  .gigabyte_pages = true};
	s->access = (struct sdm_access){.address = gva_of(q->gva) + q->word * 8,
					.kind = q->kind,
					.mode = state->user ? SDM_USER : SDM_SUPERVISOR};
}

/* INVLPG of any address in a large page is for all of it (4.10.4.1). */
static void since_flushes(struct search *s)
{
	const uint64_t *since = s->w->cpu[s->q->cpu].since[s->w->cpu[s->q->cpu].pcid];

	s->since = since[s->q->gva];
	for (int level = SDM_PDE; level <= SDM_PDPTE; level++) {
		for (int gva = 0; gva < NR_GVAS; gva++) {
			int shift = 12 + 9 * (level - 1);

			if (gva_of(gva) >> shift == gva_of(s->q->gva) >> shift &&
			    since[gva] > s->since_large[level])
				s->since_large[level] = since[gva];
		}
	}
}

enum verdict_kind oracle_allows(struct world *w, const struct question *q)
{
	enum verdict_kind verdict = NOT_ALLOWED;
	uint64_t root = w->cpu[q->cpu].state.cr3 >> PAGE_SHIFT;
	struct search s;

	search_init(&s, w, q);
	s.since = q->start;
	mutex_lock(&w->book);
	if (walk_explains(&s, SDM_PML4E, root)) {
		verdict = ALLOWED_NOW;
	} else if (q->got == GOT_DONE) {
		since_flushes(&s);
		if (walk_explains(&s, SDM_PML4E, root))
			verdict = ALLOWED_STALE;
	}
	mutex_unlock(&w->book);
	return verdict;
}

void oracle_marks(struct world *w, const struct question *q, struct marks *marks)
{
	int page = (int)(w->cpu[q->cpu].state.cr3 >> PAGE_SHIFT), level;
	int pages[SDM_LEVELS] = {0};
	struct sdm_result result;
	struct search s;

	marks->nr = 0;
	search_init(&s, w, q);
	for (level = SDM_PML4E;; level--) {
		int word = table_word(&s, level);
		bool untold = is_untold(w, page, word);
		uint64_t entry = untold ? w->untold_value : history_now(&w->word[page][word]);

		s.entry[level] = entry;
		pages[level] = page;
		page = (int)((entry & 0x000ffffffffff000UL) >> PAGE_SHIFT);
		/* Elsewhere nothing is present. */
		if (!(entry & SDM_P) || level == SDM_PTE || sdm_maps_page(entry, level) ||
		    sdm_reserved_bits(&s.cpu, entry, level) & entry || page >= RAM_PAGES)
			break;
	}
	sdm_access(&s.cpu, s.entry, &s.access, &result);
	for (int i = SDM_PML4E; i >= level && result.outcome == SDM_DONE; i--)
		marks->at[marks->nr++] = (struct mark){pages[i], table_word(&s, i), result.sets[i]};
}
