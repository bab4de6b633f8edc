/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host: threads that move the guest's memory, and one that reads and writes it.
 */
#include <errno.h>
#include <sched.h>

#include "tests/torture/torture.h"

/* Move some of the pages that were just unmapped, while nobody is told: had an unmap left a mapping
 * behind, it would show. A page may have been faulted in again meanwhile: then there is a window.
 */
static void move_unmapped(struct torture *t, struct rng *rng, uint64_t first, uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++) {
		int ret;

		if (rng_below(rng, 2))
			continue;
		ret = migrate_mapping_page(t->g.ram, page);
		atomic64_inc(&t->frame_attempts);
		if (ret == 0)
			atomic64_inc(&t->unmapped_moved);
		else if (ret != -EBUSY && ret != -ENOENT)
			torture_fail("migrate_mapping_page: %d", ret);
	}
}

void range_mutator_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct torture *t = thread->t;
	struct rng rng;

	rng_init(&rng, t->opt.seed, 200 + thread->nr);
	while (torture_phase(t) != PHASE_STOP) {
		uint64_t pages = 1 + rng_below(&rng, MAX_RANGE_PAGES);
		uint64_t first = rng_below(&rng, RAM_PAGES - pages + 1);
		hva_t hva = guest_hva(first << PAGE_SHIFT);
		long ret;

		if (rng_below(&rng, 2)) {
			ret = mm_zap_range(t->g.mm, hva, pages << PAGE_SHIFT);
			if (ret < 0)
				torture_fail("mm_zap_range: %ld", ret);
			atomic64_inc(&t->zaps);
			move_unmapped(t, &rng, first, pages);
		} else {
			ret = mm_migrate_range(t->g.mm, hva, pages << PAGE_SHIFT);
			if (ret < 0)
				torture_fail("mm_migrate_range: %ld", ret);
			atomic64_inc(&t->range_migrations);
		}
		torture_note_progress(t);
	}
}

/* One page at a time and without mmap_lock is so much faster that the other would hardly show. */
static bool too_far_ahead(struct torture *t)
{
	uint64_t other = atomic64_read(&t->zaps) + atomic64_read(&t->range_migrations);

	return (uint64_t)atomic64_read(&t->frame_attempts) > 4 * other + 64;
}

void frame_mutator_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct torture *t = thread->t;
	struct rng rng;

	rng_init(&rng, t->opt.seed, 200 + thread->nr);
	while (torture_phase(t) != PHASE_STOP) {
		uint64_t page = rng_below(&rng, RAM_PAGES);
		pfn_t pfn = mm_lookup_pfn(t->g.mm, guest_hva(page << PAGE_SHIFT));
		int ret;

		if (pfn == INVALID_PFN || too_far_ahead(t)) {
			sched_yield();
			continue;
		}
		ret = migrate_frame(t->g.phys, pfn);
		atomic64_inc(&t->frame_attempts);
		if (ret == 0)
			atomic64_inc(&t->frames_moved);
		else if (ret != -EBUSY && ret != -ENOENT)
			torture_fail("migrate_frame: %d", ret);
		torture_note_progress(t);
	}
}

/* Host code that shares the guest's memory: its own words exactly, and additions to the shared
 * ones. */
void host_thread(void *arg)
{
	struct torture_thread *thread = arg;
	struct torture *t = thread->t;
	uint64_t count[DATA_PAGES] = {0};
	uint64_t seen = 0;
	struct rng rng;

	rng_init(&rng, t->opt.seed, 300);
	while (torture_phase(t) != PHASE_STOP) {
		seen = torture_wait_progress(t, seen);
		for (int i = 0; i < 8; i++) {
			uint64_t page = rng_below(&rng, DATA_PAGES);
			gpa_t gpa = word_gpa(page, WORD_HOST);
			uint64_t old, value = guest_read(&t->g, gpa);
			int ret;

			if (stamp_count(value, page, WORD_HOST, "host") != count[page])
				torture_fail("host: page %lu has stamp 0x%lx, not number %lu", page,
					     value, count[page]);
			guest_write(&t->g, gpa, stamp(page, WORD_HOST, ++count[page]));

			gpa = word_gpa(page, WORD_SHARED);
			old = guest_read(&t->g, gpa);
			do {
				ret = mm_cmpxchg64(t->g.mm, guest_hva(gpa), &old, old + 1);
			} while (ret == 1);
			if (ret)
				torture_fail("mm_cmpxchg64: %d", ret);
			atomic64_inc(&t->added);
			atomic64_add(3, &t->host_accesses);
		}
	}
}
