/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sets of slots at random: each way to find a slot against a look at all of them. Host ranges
 * overlap as they like, guest ranges do not.
 */
#include <stdlib.h>

#include "tests/support/memslot_fixture.h"

#define GFNS 4096
#define HVAS 600 /* pages */

static struct memslots set;
static struct memslot pool[MEMSLOT_MAX];

static bool fits(const struct memslot *slot)
{
	for (unsigned int i = 0; i < MEMSLOT_MAX; i++) {
		const struct memslot *other = set.by_id[i];

		if (other && slot->base_gfn < other->base_gfn + other->npages &&
		    other->base_gfn < slot->base_gfn + slot->npages)
			return false;
	}
	return true;
}

static void change(unsigned int *seed, unsigned int id)
{
	struct memslot *old = set.by_id[id];
	struct memslot new = {
		.id = id,
		.base_gfn = rand_r(seed) % GFNS,
		.npages = 1 + rand_r(seed) % (rand_r(seed) % 8 ? 6 : 200),
		.hva = (hva_t)(rand_r(seed) % HVAS) << PAGE_SHIFT,
	};

	if (old)
		memslots_replace(&set, old, NULL);
	if (rand_r(seed) % 4 && fits(&new)) {
		pool[id] = new;
		memslots_replace(&set, NULL, &pool[id]);
	}
}

static bool meets(const struct memslot *slot, hva_t start, hva_t end)
{
	return slot->hva < end && start < slot->hva + (slot->npages << PAGE_SHIFT);
}

static unsigned int check_range(hva_t start, hva_t end)
{
	bool seen[MEMSLOT_MAX] = {false};
	unsigned int nr = 0, i;
	hva_t last = 0;

	for_each_memslot_in(i, &set, start, end)
	{
		expect(meets(set.by_hva[i], start, end));
		expect_ge(set.by_hva[i]->hva, last);
		last = set.by_hva[i]->hva;
		expect(!seen[set.by_hva[i]->id]);
		seen[set.by_hva[i]->id] = true;
		nr++;
	}
	for (unsigned int id = 0; id < MEMSLOT_MAX; id++)
		expect_eq(seen[id], set.by_id[id] && meets(set.by_id[id], start, end));
	return nr;
}

static void check(unsigned int *seed)
{
	hva_t at = (hva_t)(rand_r(seed) % HVAS) << PAGE_SHIFT;
	gfn_t gfn = rand_r(seed) % (GFNS + 300);
	struct memslot *slot = NULL;

	expect(memslots_sound(&set));
	for (unsigned int id = 0; id < MEMSLOT_MAX; id++) {
		if (set.by_id[id] && gfn - set.by_id[id]->base_gfn < set.by_id[id]->npages)
			slot = set.by_id[id];
	}
	expect(gfn_to_memslot(&set, gfn) == slot);
	check_range(at, at + PAGE_SIZE);
	check_range(at, at + ((1 + rand_r(seed) % 64) << PAGE_SHIFT));
	expect_eq(check_range(0, HVA_MAX), set.nr);
}

TEST(memslot_set, random)
{
	unsigned int most = 0;

	for (unsigned int round = 0; round < 4; round++) {
		/* Few slots, and as many as there may be. */
		unsigned int ids = round % 2 ? MEMSLOT_MAX : 6, seed = round + 1;

		set = (struct memslots){0};
		for (unsigned int step = 0; step < 4000; step++) {
			change(&seed, rand_r(&seed) % ids);
			if (step % 8 == 0)
				check(&seed);
			if (set.nr > most)
				most = set.nr;
		}
	}
	expect_ge(most, 200);
}

/* One slot over all others, in front of them: the tree does not end at what is short. */
TEST(memslot_set, long_one_over_short_ones)
{
	unsigned int i;

	pool[0] = (struct memslot){.id = 0, .base_gfn = 0, .npages = 2000, .hva = 0};
	memslots_replace(&set, NULL, &pool[0]);
	for (unsigned int id = 1; id < MEMSLOT_MAX; id++) {
		pool[id] = (struct memslot){.id = id,
					    .base_gfn = 4000 + id,
					    .npages = 1,
					    .hva = (hva_t)id << PAGE_SHIFT};
		memslots_replace(&set, NULL, &pool[id]);
	}
	expect_eq(set.nr, MEMSLOT_MAX);
	expect_eq(memslots_next(&set, 0, 1999 * PAGE_SIZE, 2000 * PAGE_SIZE), 0);
	expect_eq(memslots_next(&set, 1, 1999 * PAGE_SIZE, 2000 * PAGE_SIZE), MEMSLOT_MAX);
	expect_eq(memslots_next(&set, 0, 2000 * PAGE_SIZE, HVA_MAX), MEMSLOT_MAX);
	i = memslots_next(&set, 1, 300 * PAGE_SIZE, 301 * PAGE_SIZE);
	expect_eq(set.by_hva[i]->id, 300);
	expect_eq(memslots_next(&set, i + 1, 300 * PAGE_SIZE, 301 * PAGE_SIZE), MEMSLOT_MAX);
}

/* What differs between two indexes is found. */
TEST(memslot_set, sound)
{
	struct memslot *first, *second;

	for (unsigned int id = 0; id < 3; id++) {
		pool[id] = (struct memslot){.id = id,
					    .base_gfn = 10 * id,
					    .npages = 2,
					    .hva = (hva_t)id << (PAGE_SHIFT + 4)};
		memslots_replace(&set, NULL, &pool[id]);
	}
	expect(memslots_sound(&set));
	first = set.by_hva[0];
	second = set.by_hva[1];
	set.by_hva[0] = second;
	expect(!memslots_sound(&set));
	set.by_hva[0] = first;
	set.by_gfn[1] = first;
	expect(!memslots_sound(&set));
	set.by_gfn[1] = second;
	set.max_end[1] = 0; /* the root of the tree */
	expect(!memslots_sound(&set));
	memslots_replace(&set, first, NULL);
	expect(memslots_sound(&set));
	set.by_id[2] = NULL;
	expect(!memslots_sound(&set));
}
