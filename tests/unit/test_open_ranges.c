/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pages are being invalidated: exactly, up to OPEN_RANGES at a time, and never too few. */
#include <stdlib.h>

#include "shadow/open_ranges.h"
#include "tests/support/test.h"

TEST(open_ranges, each_for_itself)
{
	struct open_ranges open = {0};

	expect(!open_ranges_cover(&open, 0));
	open_ranges_add(&open, 0x1000, 0x2000);
	open_ranges_add(&open, 0x3000, 0x5000);
	expect(!open_ranges_cover(&open, 0xfff));
	expect(open_ranges_cover(&open, 0x1000));
	expect(open_ranges_cover(&open, 0x1fff));
	expect(!open_ranges_cover(&open, 0x2000));
	expect(open_ranges_cover(&open, 0x4fff));
	open_ranges_remove(&open, 0x1000, 0x2000);
	expect(!open_ranges_cover(&open, 0x1000));
	expect(open_ranges_cover(&open, 0x3000));
	open_ranges_remove(&open, 0x3000, 0x5000);
	expect(!open_ranges_cover(&open, 0x3000));
}

/* Of two that look the same the first end takes one. */
TEST(open_ranges, the_same_twice)
{
	struct open_ranges open = {0};

	open_ranges_add(&open, 0x1000, 0x2000);
	open_ranges_add(&open, 0x1000, 0x2000);
	open_ranges_remove(&open, 0x1000, 0x2000);
	expect(open_ranges_cover(&open, 0x1000));
	open_ranges_remove(&open, 0x1000, 0x2000);
	expect(!open_ranges_cover(&open, 0x1000));
}

#define PAGES 64

/* At random, against a count for each page. More than there is room for: no page is ever missed. */
static void at_random(unsigned int most)
{
	unsigned int count[PAGES] = {0}, nr = 0, exact = 0, seed = most;
	struct open_range range[4 * OPEN_RANGES];
	struct open_ranges open = {0};

	for (unsigned int i = 0; i < 20000; i++) {
		bool add = nr < most && (!nr || rand_r(&seed) % 2);
		struct open_range r;

		if (add) {
			r.start = rand_r(&seed) % PAGES;
			r.end = r.start + 1 + rand_r(&seed) % (PAGES - r.start);
			range[nr++] = r;
			open_ranges_add(&open, r.start, r.end);
		} else {
			unsigned int which = rand_r(&seed) % nr;

			r = range[which];
			range[which] = range[--nr];
			open_ranges_remove(&open, r.start, r.end);
		}
		for (hva_t page = r.start; page < r.end; page++)
			count[page] += add ? 1 : -1;
		for (hva_t page = 0; page < PAGES; page++) {
			bool covered = open_ranges_cover(&open, page);

			expect(covered || !count[page]);
			if (!open.nr_rest)
				expect_eq(covered, count[page] != 0);
		}
		exact += !open.nr_rest;
		expect(nr || !open_ranges_cover(&open, 0));
	}
	expect_ge(exact, 100);
	if (most <= OPEN_RANGES)
		expect_eq(exact, 20000);
	else
		expect(exact < 20000);
}

TEST(open_ranges, against_a_count_for_each_page)
{
	at_random(1);
	at_random(OPEN_RANGES);
	at_random(OPEN_RANGES + 1);
	at_random(4 * OPEN_RANGES);
}

/* What did not fit once, and is over, is not covered when something else does not fit. */
TEST(open_ranges, the_rest_begins_anew)
{
	struct open_ranges open = {0};

	for (hva_t i = 0; i < OPEN_RANGES; i++)
		open_ranges_add(&open, 1000 + i, 1001 + i);
	open_ranges_add(&open, 1, 2);
	expect(open_ranges_cover(&open, 1));
	open_ranges_remove(&open, 1, 2);
	open_ranges_add(&open, 5, 6);
	expect(open_ranges_cover(&open, 5));
	expect(!open_ranges_cover(&open, 1) && !open_ranges_cover(&open, 4));
}
