/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The set of gfn_set.h.
 */
#include "shadow/gfn_set.h"

#include <errno.h>

#include "notifier/sync/alloc.h"
#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"

#define WORD_SHIFT 6
#define WORD_BITS  (1u << WORD_SHIFT)

static uint64_t words_for(uint64_t bits)
{
	return (bits + WORD_BITS - 1) >> WORD_SHIFT;
}

/* Of all levels together. */
static uint64_t total_words(uint64_t nr)
{
	uint64_t total = 0;

	do {
		nr = words_for(nr);
		total += nr;
	} while (nr > 1);
	return total;
}

int gfn_set_init(struct gfn_set *set, uint64_t nr)
{
	uint64_t *word;

	ASSERT(nr && nr <= 1UL << (WORD_SHIFT * GFN_SET_LEVELS), "as many pages as levels can say");
	word = kvcalloc(total_words(nr), sizeof(*word), GFP_KERNEL);
	if (!word)
		return -ENOMEM;
	*set = (struct gfn_set){.nr = nr};
	for (uint64_t bits = nr;; bits = words_for(bits)) {
		set->level[set->nr_levels++] = word;
		if (bits <= WORD_BITS)
			return 0;
		word += words_for(bits);
	}
}

void gfn_set_destroy(struct gfn_set *set)
{
	kvfree(set->level[0], total_words(set->nr) * sizeof(*set->level[0]));
}

bool gfn_set_has(const struct gfn_set *set, uint64_t n)
{
	return READ_ONCE(set->level[0][n >> WORD_SHIFT]) & 1UL << n % WORD_BITS;
}

void gfn_set_add(struct gfn_set *set, uint64_t n)
{
	ASSERT(n < set->nr, "page %lu of %lu", n, set->nr);
	for (unsigned int i = 0; i < set->nr_levels; i++, n >>= WORD_SHIFT) {
		uint64_t *word = &set->level[i][n >> WORD_SHIFT];
		uint64_t old = *word;

		/* Release: who sees the upper bit finds the lower. Pairs with next_in_word(). */
		smp_store_release(word, old | 1UL << n % WORD_BITS);
		if (old)
			return;
	}
}

void gfn_set_remove(struct gfn_set *set, uint64_t n)
{
	ASSERT(n < set->nr, "page %lu of %lu", n, set->nr);
	for (unsigned int i = 0; i < set->nr_levels; i++, n >>= WORD_SHIFT) {
		uint64_t *word = &set->level[i][n >> WORD_SHIFT];
		uint64_t left = *word & ~(1UL << n % WORD_BITS);

		WRITE_ONCE(*word, left);
		if (left)
			return;
	}
}

/* The first bit of @level that is set, not before @bit, is in the word of @bit: put it there. */
static bool next_in_word(const struct gfn_set *set, unsigned int level, uint64_t *bit)
{
	/* Acquire: pairs with gfn_set_add(). */
	uint64_t word =
		smp_load_acquire(&set->level[level][*bit >> WORD_SHIFT]) & ~0UL << *bit % WORD_BITS;

	if (!word)
		return false;
	*bit = (*bit & ~(uint64_t)(WORD_BITS - 1)) + __builtin_ctzl(word);
	return true;
}

/*
 * Up, while there is nothing more in the word that we are in; then down, to the first of what is
 * left. Without mmu_lock a word may have been emptied before we came down to it: then up again.
 */
uint64_t gfn_set_next(const struct gfn_set *set, uint64_t from, uint64_t end)
{
	unsigned int level = 0;
	uint64_t bit = from;

	ASSERT(end <= set->nr, "page %lu of %lu", end, set->nr);
	while (level < set->nr_levels) {
		if (bit >= ((set->nr - 1) >> WORD_SHIFT * level) + 1)
			break;
		if (!next_in_word(set, level, &bit)) {
			bit = (bit >> WORD_SHIFT) + 1;
			level++;
			continue;
		}
		if (!level)
			return bit < end ? bit : end;
		bit <<= WORD_SHIFT;
		level--;
	}
	return end;
}

bool gfn_set_sound(const struct gfn_set *set)
{
	uint64_t bits = set->nr;

	for (unsigned int i = 0; i + 1 < set->nr_levels; i++) {
		bits = words_for(bits);
		for (uint64_t n = 0; n < bits; n++) {
			bool says = set->level[i + 1][n >> WORD_SHIFT] & 1UL << n % WORD_BITS;

			if (says != (set->level[i][n] != 0))
				return false;
		}
	}
	return true;
}
