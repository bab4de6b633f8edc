/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What chaos chooses, and how it looks at pages.
 */
#include "notifier/sync/bug.h"
#include "notifier/sync/util.h"
#include "vmm/chaos.h"

#define PICK_TRIES 16

/* splitmix64: every seed is a good one, 0 included. */
static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* A running hash: the order counts. */
static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash ^= value;
	return splitmix64(&hash);
}

/* By name, so that a new kind in the table changes nothing for the others. */
void chaos_seed(struct chaos_worker *worker, const char *kind_name, uint64_t seed)
{
	worker->rng = mix(0, seed);
	for (const char *c = kind_name; *c; c++)
		worker->rng = mix(worker->rng, (unsigned char)*c);
}

static uint64_t random_below(struct chaos_worker *worker, uint64_t below)
{
	/* The high half of a 128-bit product: no division, and a bias too small to matter here. */
	return (uint64_t)(((unsigned __int128)splitmix64(&worker->rng) * below) >> 64);
}

static bool is_spared(const struct chaos_target *target, gfn_t start, gfn_t end)
{
	for (unsigned int i = 0; i < target->nr_spared; i++) {
		const struct chaos_spared *spared = &target->spared[i];

		if (start < spared->end && end > spared->start)
			return true;
	}
	return false;
}

void chaos_draw(struct chaos_worker *worker, const struct chaos_target *target,
		struct chaos_draw *draw)
{
	uint64_t draws = atomic64_read(&worker->draws), digest = atomic64_read(&worker->digest);

	*draw = (struct chaos_draw){0};
	for (unsigned int tries = 0; tries < PICK_TRIES && !draw->nr_pages; tries++) {
		gfn_t start = random_below(worker, target->nr_pages);
		gfn_t end =
			min(start + 1 + random_below(worker, CHAOS_MAX_PAGES), target->nr_pages);

		if (is_spared(target, start, end))
			continue;
		draw->gfn = start;
		draw->nr_pages = end - start;
	}
	draw->bits = splitmix64(&worker->rng);

	if (draws == CHAOS_DIGEST_OPS)
		return;
	digest = mix(mix(mix(digest, draw->gfn), draw->nr_pages), draw->bits);
	atomic64_set(&worker->digest, digest);
	atomic64_set(&worker->draws, draws + 1);
}

/* ---- what pages are ---- */

#define ACCESSED_AND_DIRTY 0x60ULL

static bool sum_page(struct mm_struct *mm, hva_t hva, uint64_t *sum)
{
	uint64_t words[PAGE_SIZE / sizeof(uint64_t)];

	if (mm_read(mm, hva, words, sizeof(words)))
		return false;
	*sum = 0;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		*sum = (*sum ^ (words[i] & ~ACCESSED_AND_DIRTY)) * 0x9e3779b97f4a7c15ULL +
		       (*sum >> 32);
	return true;
}

void chaos_sum_pages(struct chaos_sums *sums, struct mm_struct *mm, hva_t hva, unsigned int nr)
{
	sums->nr = min(nr, (unsigned int)CHAOS_MAX_PAGES);
	for (unsigned int i = 0; i < sums->nr; i++)
		sums->valid[i] = sum_page(mm, hva + i * PAGE_SIZE, &sums->sum[i]);
}

void chaos_check_sums(struct chaos_worker *worker, const struct chaos_sums *sums,
		      struct mm_struct *mm, hva_t hva)
{
	for (unsigned int i = 0; i < sums->nr; i++) {
		uint64_t sum;

		if (!sums->valid[i] || !sum_page(mm, hva + i * PAGE_SIZE, &sum) ||
		    sum == sums->sum[i])
			continue;
		/* One report says it all. */
		WARN(atomic64_inc_return(&worker->pages_disturbed) == 1,
		     "nobody writes to what chaos has taken from the guest (%s, hva %#llx)",
		     worker->kind->name, (unsigned long long)(hva + i * PAGE_SIZE));
	}
}
