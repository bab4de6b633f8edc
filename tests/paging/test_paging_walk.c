/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shadow MMU's walk of guest tables against the manual: every case, with the same outcome, the
 * same error code, the same page, and the same flags set in every entry. No difference is allowed.
 */
#include <stdio.h>

#include "tests/paging/paging_guest.h"
#include "tests/support/test.h"

/* Under a sanitizer one case in so many does, but for --long: a prime, as in test_paging_kvm. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 11
#else
#define STRIDE 1
#endif

struct counts {
	uint64_t cases, done, faults, not_canonical, differ;
	uint64_t of_leaf[SDM_LEVELS], leaf_differs[SDM_LEVELS];
	uint64_t marked; /* faults that left accessed flags behind */
};

#define MAX_SHOWN 20

static void show(const struct paging_case *c, const struct sdm_result *manual, const char *what)
{
	char line[1024], wanted[256];

	paging_case_format(c, line, sizeof(line));
	paging_result_format(manual, wanted, sizeof(wanted));
	printf("%s\n  manual: %s\n  walk:   %s\n", line, wanted, what);
	fflush(stdout);
}

static void run_case(struct paging_guest *g, struct counts *n, struct paging_case *c)
{
	uint64_t after[SDM_LEVELS] = {0};
	struct sdm_result manual;
	bool marked = false;
	char what[256];

	paging_guest_place(g, c);
	sdm_access(&c->cpu, c->entry, &c->access, &manual);
	n->cases++;
	n->of_leaf[c->leaf]++;
	n->done += manual.outcome == SDM_DONE;
	n->faults += manual.outcome == SDM_PAGE_FAULT;
	n->not_canonical += manual.outcome == SDM_NOT_CANONICAL;
	if (paging_walk_differs(g->mem.shadow, c, &manual, what, sizeof(what)) ||
	    (paging_guest_entries(g, c, after),
	     paging_marks_differ(c, &manual, after, &marked, what, sizeof(what)))) {
		n->leaf_differs[c->leaf]++;
		if (n->differ++ < MAX_SHOWN)
			show(c, &manual, what);
	}
	n->marked += marked;
	paging_guest_clear(g, c);
}

static void print_counts(const struct counts *n, int levels)
{
	static const char *const sizes[] = {NULL, "4 KiB", "2 MiB", "1 GiB"};

	for (int leaf = SDM_PTE; leaf <= SDM_PDPTE; leaf++)
		printf("%s pages: %lu cases, %lu differ\n", sizes[leaf], n->of_leaf[leaf],
		       n->leaf_differs[leaf]);
	printf("%d levels: %lu cases: %lu done, %lu page faults (%lu left accessed flags), %lu not "
	       "canonical; "
	       "%lu differ\n",
	       levels, n->cases, n->done, n->faults, n->marked, n->not_canonical, n->differ);
	fflush(stdout);
}

static void run_cases(int levels, uint64_t at_least)
{
	uint64_t count = paging_cases_count(), stride = test_long() ? 1 : STRIDE;
	struct counts n = {0};
	struct paging_guest g;

	paging_guest_create(&g, levels, false);
	for (uint64_t i = 0; i < count; i += stride) {
		struct paging_case c;

		if (paging_case_get(i, &paging_guest_env, &c) && c.top == levels)
			run_case(&g, &n, &c);
	}
	paging_guest_destroy(&g);
	print_counts(&n, levels);
	if (n.differ)
		fail("%lu of %lu cases differ from the manual", n.differ, n.cases);
	expect_ge(n.cases, at_least / stride);
	expect_ge(n.done, at_least / 5 / stride);
}

TEST(paging_walk, four_levels)
{
	run_cases(4, 1200000);
}

TEST(paging_walk, five_levels)
{
	run_cases(5, 600000);
}
