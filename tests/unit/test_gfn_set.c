/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sets of page numbers against an array of flags; a reader beside a writer; and what a step over a
 * wide gap looks at.
 */
#include <errno.h>
#include <string.h>

#include "notifier/sync/atomic.h"
#include "notifier/sync/thread.h"
#include "shadow/gfn_set.h"
#include "tests/support/test.h"

/* Sizes at which the number of words, or of levels, changes; the last one has six. */
static const uint64_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 262144, 1UL << 35};

static void init(struct gfn_set *set, uint64_t nr)
{
	expect_eq(gfn_set_init(set, nr), 0);
}

TEST(gfn_set, ends_of_all_sizes)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t nr = sizes[i];
		struct gfn_set set;

		init(&set, nr);
		expect_eq(gfn_set_next(&set, 0, nr), nr);
		gfn_set_add(&set, nr - 1);
		expect(gfn_set_has(&set, nr - 1));
		expect_eq(gfn_set_next(&set, 0, nr), nr - 1);
		expect_eq(gfn_set_next(&set, nr - 1, nr), nr - 1);
		/* A member, but not of the range. */
		expect_eq(gfn_set_next(&set, 0, nr - 1), nr - 1);
		expect_eq(gfn_set_next(&set, nr, nr), nr);
		gfn_set_add(&set, 0);
		expect_eq(gfn_set_next(&set, 0, nr), 0);
		expect_eq(gfn_set_next(&set, 1, nr), nr == 1 ? nr : nr - 1);
		gfn_set_remove(&set, nr - 1);
		gfn_set_remove(&set, 0);
		expect_eq(gfn_set_next(&set, 0, nr), nr);
		/* It reads every word: not those of all that a slot may have. */
		if (nr <= 262144)
			expect(gfn_set_sound(&set));
		gfn_set_destroy(&set);
	}
}

#define PAGES 5000 /* three levels */

static void check(const struct gfn_set *set, const bool *in, uint64_t from, uint64_t end)
{
	uint64_t n, expected = from;

	for_each_gfn(n, set, from, end) {
		while (expected < end && !in[expected])
			expected++;
		expect_eq(n, expected);
		expected++;
	}
	while (expected < end && !in[expected])
		expected++;
	expect_eq(expected < end, false);
}

/* Sparse and dense by turns, so that words fill and empty. */
TEST(gfn_set, random_walk)
{
	static bool in[PAGES];
	uint64_t x = 88172645463325252UL;
	struct gfn_set set;

	init(&set, PAGES);
	for (int step = 0; step < 40000; step++) {
		uint64_t n, span;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		n = x % PAGES;
		/* Runs, and single ones far apart. */
		span = (x >> 20) % 8 ? 1 : (x >> 24) % 200;
		for (uint64_t i = n; i < n + span && i < PAGES; i++) {
			in[i] = step / 4000 % 2 == 0;
			if (in[i])
				gfn_set_add(&set, i);
			else
				gfn_set_remove(&set, i);
			expect_eq(gfn_set_has(&set, i), in[i]);
		}
		if (step % 256)
			continue;
		expect(gfn_set_sound(&set));
		check(&set, in, 0, PAGES);
		check(&set, in, n, n + (PAGES - n) / 2);
	}
	gfn_set_destroy(&set);
}

/* The audit's question is answered with no, for each level that may be wrong. */
TEST(gfn_set, unsound)
{
	struct gfn_set set;

	init(&set, PAGES);
	gfn_set_add(&set, 4097);
	for (unsigned int i = 1; i < set.nr_levels; i++) {
		uint64_t *word = &set.level[i][4097 >> 6 * (i + 1)], old = *word;

		*word = 0;
		expect(!gfn_set_sound(&set));
		*word = old << 1;
		expect(!gfn_set_sound(&set));
		*word = old;
		expect(gfn_set_sound(&set));
	}
	gfn_set_destroy(&set);
}

static void add_beyond(void *arg)
{
	gfn_set_add(arg, 64);
}

static void remove_beyond(void *arg)
{
	gfn_set_remove(arg, 64);
}

static void look_beyond(void *arg)
{
	gfn_set_next(arg, 0, 65);
}

static void init_of_none(void *arg)
{
	init(arg, 0);
}

static void init_of_too_many(void *arg)
{
	init(arg, (1UL << 36) + 1);
}

TEST(gfn_set, beyond_the_end_is_a_bug)
{
	struct gfn_set set;

	expect_bug(init_of_none, &set, "as many pages as levels can say");
	expect_bug(init_of_too_many, &set, "as many pages as levels can say");
	init(&set, 64);
	expect_bug(add_beyond, &set, "page 64 of 64");
	expect_bug(remove_beyond, &set, "page 64 of 64");
	expect_bug(look_beyond, &set, "page 65 of 64");
	gfn_set_destroy(&set);
}

/*
 * A reader without the lock finds each page that is a member all the while, whatever comes and goes
 * around it: neighbours in its word, and in words next to it, so that bits of all levels change.
 */
struct beside {
	struct gfn_set set;
	atomic_t done;
};

#define KEPT 4099

static void come_and_go(void *arg)
{
	struct beside *b = arg;
	uint64_t x = 1;

	while (!atomic_read(&b->done)) {
		uint64_t n;

		x = x * 6364136223846793005UL + 1442695040888963407UL;
		n = (x >> 33) % PAGES;
		if (n == KEPT)
			continue;
		gfn_set_add(&b->set, n);
		gfn_set_remove(&b->set, n);
		/* Its own words, which never are empty. */
		gfn_set_add(&b->set, KEPT + 1);
		gfn_set_remove(&b->set, KEPT + 1);
	}
}

TEST(gfn_set, reader_beside_a_writer)
{
	uint64_t looks = test_long() ? 5000000 : 200000, others = 0;
	struct kthread writer;
	struct beside b;

	init(&b.set, PAGES);
	atomic_set(&b.done, 0);
	gfn_set_add(&b.set, KEPT);
	expect_eq(kthread_run(&writer, "writer", come_and_go, &b), 0);
	for (uint64_t i = 0; i < looks || !others; i++) {
		bool found = false;
		uint64_t n;

		for_each_gfn(n, &b.set, i % KEPT, PAGES) {
			found |= n == KEPT;
			others += n != KEPT;
		}
		expect(found);
	}
	atomic_set(&b.done, 1);
	kthread_join(&writer);
	expect(gfn_set_sound(&b.set));
	gfn_set_destroy(&b.set);
}
