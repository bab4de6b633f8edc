/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holes against readers, syncs, migrations and reclaim. Each page has one thread that writes a
 * stamp to it, and then makes it a hole: what it finds there afterwards, in memory and in the file,
 * is zero, whatever the others do. They find a stamp of the page's, or zero, and no stamp comes
 * back.
 */
#include <gnomon/swap.h>

#include "tests/support/file_fixture.h"

#include "notifier/frame.h"

#define NR_PAGES  8
#define NR_OWNERS 2

struct storm {
	struct file_rig rig;
	struct mm_struct *other;
	atomic_t next_owner, stop;
	atomic64_t gone[NR_PAGES]; /* stamps up to this one were punched out */
	uint64_t first, goal;	   /* stamps of this round */
	atomic64_t seen, synced, migrated, reclaimed;
};

static void own(void *arg)
{
	struct storm *s = arg;
	uint64_t me = (uint64_t)atomic_fetch_add(1, &s->next_owner);

	for (uint64_t stamp = s->first; stamp < s->first + s->goal; stamp++) {
		uint64_t n = me + NR_OWNERS * (stamp % (NR_PAGES / NR_OWNERS));

		test_write(s->rig.mm, file_page(n), stamp);
		expect_eq(test_read(s->other, file_page(n)), stamp);
		expect_eq(address_space_punch_hole(s->rig.mapping, n, 1), 0);
		atomic64_set_release(&s->gone[n], (int64_t)stamp);
		expect_eq(test_read(s->other, file_page(n)), 0);
		expect_eq(test_read(s->rig.mm, file_page(n)), 0);
		expect_eq(test_file_read(s->rig.fd, n * PAGE_SIZE), 0);
		if (stamp % 3 == 0)
			expect_eq(address_space_punch_hole(s->rig.mapping, n, 1), 0);
	}
}

static void read_pages(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++) {
		uint64_t n = i % NR_PAGES;
		int64_t gone = atomic64_read_acquire(&s->gone[n]);
		uint64_t stamp = test_read(i & 1 ? s->other : s->rig.mm, file_page(n));

		expect(!stamp || (int64_t)stamp > gone);
		atomic64_add(stamp != 0, &s->seen);
	}
}

static void sync_and_migrate(void *arg)
{
	struct storm *s = arg;

	for (uint64_t i = 0; !atomic_read(&s->stop); i++) {
		long ret = address_space_sync(s->rig.mapping, 0, NR_PAGES);

		expect_ge(ret, 0);
		atomic64_add(ret, &s->synced);
		ret = migrate_mapping_page(s->rig.mapping, i * 3 % NR_PAGES);
		expect(ret == 0 || ret == -EBUSY || ret == -ENOENT);
		atomic64_add(ret == 0, &s->migrated);
		atomic64_add((int64_t)phys_reclaim(s->rig.phys, 1), &s->reclaimed);
		expect_ge(mm_migrate_range(s->other, file_page(0), NR_PAGES * PAGE_SIZE), 0);
	}
}

TEST(file_hole_races, no_stamp_comes_back)
{
	void (*const others[])(void *) = {read_pages, read_pages, sync_and_migrate};
	struct kthread threads[ARRAY_SIZE(others)];
	struct storm s = {.first = 1, .goal = test_volume(10000)};

	s.rig = file_rig_init(NR_PAGES, NR_PAGES + 70);
	expect_eq(address_space_punch_hole(s.rig.mapping, 0, NR_PAGES), 0);
	s.other = test_mm(s.rig.phys);
	/* Shows the pages, and never writes: so all there is to unmap is the object's. */
	expect_eq(mm_mmap_flags(s.other, file_page(0), NR_PAGES * PAGE_SIZE, RW, MM_MAP_PRIVATE,
				s.rig.mapping, 0),
		  0);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		expect_eq(kthread_run(&threads[i], "other", others[i], &s), 0);
	/* Owners may be done before the others have begun: then they have another round. */
	do {
		atomic_set(&s.next_owner, 0);
		test_threads(NR_OWNERS, own, &s);
		s.first += s.goal;
	} while (atomic64_read(&s.seen) < 50 || atomic64_read(&s.synced) < 50 ||
		 atomic64_read(&s.migrated) < 50 || atomic64_read(&s.reclaimed) < 50);
	atomic_set(&s.stop, 1);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		kthread_join(&threads[i]);
	mmput(s.other);
	expect_eq(address_space_punch_hole(s.rig.mapping, 0, NR_PAGES), 0);
	expect_eq(phys_nr_free(s.rig.phys), phys_nr_frames(s.rig.phys));
	file_rig_done(&s.rig);
}
