/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Merging while all else goes on. The oracles are exact: what a thread wrote it reads, and nothing
 * is left in the end.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "tests/support/ksm_fixture.h"
#include "tests/support/test.h"

struct moving {
	struct host h;
	struct mm_struct *mm;
	atomic_t stop;
	long moved;
};

static void move_frames(void *arg)
{
	struct moving *m = arg;

	for (pfn_t pfn = 0; !atomic_read_acquire(&m->stop); pfn = (pfn + 1) % 16)
		m->moved += migrate_frame(m->h.phys, pfn) == 0;
}

static bool maps_merged_page(struct moving *m, uint64_t n)
{
	pfn_t pfn;
	bool merged;

	do
		pfn = ksm_get_entry_page(m->mm, pgtable_lookup(m->mm->pgtable, area_page(n)));
	while (pfn == INVALID_PFN);
	merged = frame_is_ksm(pfn_to_frame(m->h.phys, pfn));
	phys_put(m->h.phys, pfn);
	return merged;
}

/* None is passed by because it moved between two looks. */
TEST(ksm_storm, unmergeable_against_moves)
{
	uint64_t rounds = test_volume(1500);
	struct kthread mover;
	struct moving m = {0};
	long merged = 0;

	host_init(&m.h, 16);
	m.mm = mergeable_mm(&m.h, 4);
	expect_eq(kthread_run(&mover, "test", move_frames, &m), 0);
	for (uint64_t round = 0; round < rounds; round++) {
		for (uint64_t n = 0; n < 4; n++)
			fill_page(m.mm, n, round);
		expect_eq(mm_madvise(m.mm, area_page(0), 4 * P, MM_MADV_MERGEABLE), 0);
		merged += scan_settled(&m.h);
		expect_eq(mm_madvise(m.mm, area_page(0), 4 * P, MM_MADV_UNMERGEABLE), 0);
		for (uint64_t n = 0; n < 4; n++) {
			expect(!maps_merged_page(&m, n));
			expect_page(m.mm, n, round);
		}
	}
	atomic_set_release(&m.stop, 1);
	kthread_join(&mover);
	expect_ge(merged, (long)rounds / 10);
	expect_ge(m.moved, (long)rounds / 10);
	mmput(m.mm);
	host_done(&m.h);
}

/* ---- a storm ---- */

#define STORM_PAGES  12
#define STORM_VALUES 3

struct storm {
	struct host h;
	struct mm_struct *mm[2];
	struct counting_notifier cn[2];
	atomic_t next_writer, writers_left;
	uint64_t goal;
	atomic64_t merged, migrated, reclaimed, forks;
};

/* Has everybody done so much that they were in each other's way? */
static bool storm_is_over(const struct storm *s)
{
	return atomic64_read(&s->merged) >= 200 && atomic64_read(&s->migrated) >= 200 &&
	       atomic64_read(&s->reclaimed) >= 200 && atomic64_read(&s->forks) >= 20;
}

/*
 * Whole pages of one word, of few values, so that there always are equals; and a store to one word
 * of a page, which is taken back. What is read is what was written last. The others set how long
 * this takes: on a busy machine a writer may be through before a scanner has begun.
 */
static void storm_writer(void *arg)
{
	struct storm *s = arg;
	int me = atomic_fetch_add(1, &s->next_writer);
	uint64_t own[STORM_PAGES] = {0};

	for (uint64_t i = 0; i < s->goal || !storm_is_over(s); i++) {
		uint64_t n = (i * 5 + (uint64_t)me) % STORM_PAGES;
		hva_t word = area_page(n) + 8 * (i % 512);

		expect_page(s->mm[me], n, own[n]);
		if (i % 4 == 0) {
			own[n] = i / 16 % STORM_VALUES;
			fill_page(s->mm[me], n, own[n]);
		} else {
			test_write(s->mm[me], word, i + 100);
			expect_eq(test_read(s->mm[me], word), i + 100);
			test_write(s->mm[me], word, own[n]);
		}
		if (i % 64 == 63)
			sched_yield();
	}
	atomic_dec_return(&s->writers_left);
}

static void storm_scanner(struct storm *s)
{
	while (atomic_read_acquire(&s->writers_left))
		atomic64_add(max(ksm_scan(s->h.ksm, 5), 0L), &s->merged);
}

/* Pages move, and leave memory; children come, read, write, and go: what one of them reads twice
 * stays the same. */
static void storm_mover(struct storm *s)
{
	for (unsigned int i = 0; atomic_read_acquire(&s->writers_left); i++) {
		struct mm_struct *mm = s->mm[i & 1], *child;
		uint64_t n = i % STORM_PAGES, words[2];
		long moved = mm_migrate_range(mm, area_page(0), (n + 1) * P);

		if (i % 4 == 3)
			atomic64_add((int64_t)phys_reclaim(s->h.phys, n), &s->reclaimed);

		expect_ge(moved, 0);
		atomic64_add(moved, &s->migrated);
		if (i % 8)
			continue;
		expect_eq(mm_fork(mm, &child), 0);
		for (unsigned int j = 0; j < ARRAY_SIZE(words); j++) {
			words[j] = test_read(child, area_page(n) + 8 * (i % 512));
			migrate_frame(s->h.phys, pfn_of(child, n));
		}
		expect_eq(words[0], words[1]);
		fill_page(child, n, i);
		expect_page(child, n, i);
		if (i % 16 == 0)
			expect_eq(mm_madvise(child, area_page(0), STORM_PAGES * P,
					     MM_MADV_UNMERGEABLE),
				  0);
		mmput(child);
		atomic64_inc(&s->forks);
	}
}

static void storm_thread(void *arg)
{
	struct storm *s = arg;
	static atomic_t next;
	int me = atomic_fetch_add(1, &next);

	if (me < 2)
		storm_writer(s);
	else if (me == 2)
		storm_scanner(s);
	else
		storm_mover(s);
}

TEST(ksm_storm, all_at_once)
{
	struct storm s = {.goal = test_volume(20000)};

	host_init_swap(&s.h, 8 * STORM_PAGES, 8 * STORM_PAGES);
	atomic_set(&s.writers_left, 2);
	for (int i = 0; i < 2; i++) {
		s.mm[i] = mergeable_mm(&s.h, STORM_PAGES);
		counting_register(&s.cn[i], s.mm[i]);
	}
	test_threads(4, storm_thread, &s);
	expect_ge(scan_settled(&s.h), 0);
	for (int i = 0; i < 2; i++) {
		counting_expect_paired(&s.cn[i]);
		mmu_notifier_unregister(&s.cn[i].mn, s.mm[i]);
		mmput(s.mm[i]);
	}
	host_done_swap(&s.h);
}
