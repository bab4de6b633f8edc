/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What may an access come to? The whole oracle; it shares nothing with the shadow MMU.
 *
 * A CPU may use a translation that its tables gave at any moment since it last flushed that address
 * and PCID, put together of entries of different moments, since it may cache those above on their
 * own (SDM vol. 3, 4.10.2 and 4.10.3), and judged by the state that the CPU has now. So an access
 * that is *done* must be explained by a chain of entries, from the CPU's root to a page, each
 * of which was in its word at some moment since that flush began; all with A set, and the last
 * with D for a store, for a CPU caches no others (4.8). The page that the chain names is then
 * looked for where slots and host memory had it while the access was under way, not before: nothing
 * of these may ever be stale.
 *
 * An access that *ends otherwise* must be explained by what all of it was while it was under way.
 * A CPU keeps no entry that was not present (4.10.2.3), and one that grants too little it could
 * use, once; the shadow MMU does not even do that.
 *
 * Two things are stricter than the manual: a flush takes global translations along, and what was
 * cached from another root under the same PCID is not used. Both are what gnomon/shadow.h says.
 */
#ifndef TESTS_COHERENCE_ORACLE_H
#define TESTS_COHERENCE_ORACLE_H

#include "tests/coherence/world.h"

enum got_kind { GOT_DONE, GOT_FAULT, GOT_DEVICE, GOT_REFUSED, GOT_EXEC_ONLY, NR_GOT };
extern const char *const got_names[NR_GOT];

/* An access, and what came of it. */
struct question {
	unsigned int cpu;
	int gva, word;
	enum sdm_kind kind;
	uint64_t start; /* when it began */

	enum got_kind got;
	uint64_t value;	     /* DONE: what was read */
	int page;	     /* DONE, of a store: where it landed; else -1 */
	uint32_t error_code; /* FAULT */
	gpa_t gpa;	     /* DEVICE */
	hva_t hva;	     /* REFUSED, by the host */
	/* With threads: the stamps that all pages had when it began. */
	const uint64_t *least;
};

enum verdict_kind { NOT_ALLOWED, ALLOWED_NOW, ALLOWED_STALE };
enum verdict_kind oracle_allows(struct world *w, const struct question *q);

/* What one access, by the tables as they are now, adds to entries. */
struct marks {
	int nr;
	struct mark {
		int page, word;
		uint64_t adds;
	} at[SDM_LEVELS];
};
void oracle_marks(struct world *w, const struct question *q, struct marks *marks);

/* The stamp of a word of @page in a run with threads; false: it is no such word. */
bool stamp_of(int page, int word, uint64_t value, uint64_t *stamp);

#endif
