/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cases as a guest of the shadow MMU has them: its tables in its RAM, its CPU in struct guest_cpu.
 */
#ifndef TESTS_PAGING_PAGING_GUEST_H
#define TESTS_PAGING_PAGING_GUEST_H

#include "tests/model/guest_mem.h"
#include "tests/paging/paging_cases.h"

/* What the shadow MMU takes a guest's CPU to be. */
extern const struct paging_env paging_guest_env;

struct paging_guest {
	struct guest_mem mem;
	gpa_t table[SDM_LEVELS]; /* [level] holds entry[level] */
};

/* With tables of 4 or 5 levels, enough RAM for the pages of all shapes, and nothing mapped. */
void paging_guest_create(struct paging_guest *g, int levels, bool audit);
void paging_guest_destroy(struct paging_guest *g);

/* The case's entries, addresses filled in, in the guest's tables; others of the tables are 0. */
void paging_guest_place(struct paging_guest *g, struct paging_case *c);
/* What is there now. */
void paging_guest_entries(struct paging_guest *g, const struct paging_case *c,
			  uint64_t entry[SDM_LEVELS]);
/* Take the entries out again. */
void paging_guest_clear(struct paging_guest *g, const struct paging_case *c);

struct guest_cpu paging_guest_cpu(const struct paging_case *c);
uint32_t paging_guest_access(const struct sdm_access *access); /* PFERR_* */

/*
 * The access as a walk of the guest's tables, against what the manual says of it: a line in @what
 * and true, if it ended otherwise, or in another page. Marks are another question.
 */
bool paging_walk_differs(struct shadow *shadow, const struct paging_case *c,
			 const struct sdm_result *manual, char *what, size_t size);

/*
 * What the access did to the entries against what the manual says: a line in @what and true, if
 * that is something else. *marked: it faulted, and set accessed flags on its way.
 */
bool paging_marks_differ(const struct paging_case *c, const struct sdm_result *manual,
			 const uint64_t after[SDM_LEVELS], bool *marked, char *what, size_t size);

#endif
