// SPDX-License-Identifier: LGPL-2.1-or-later
/* A second mm with the same contents, and who has which page afterwards. */
#include <errno.h>

#include <unistd.h>

#include "tests/support/areas.h"
#include "tests/support/asleep.h"
#include "tests/support/step.h"

#define P PAGE_SIZE

static struct mm_struct *test_fork(struct mm_struct *mm)
{
	struct mm_struct *child = NULL;

	expect_eq(mm_fork(mm, &child), 0);
	expect(child && mm_phys(child) == mm_phys(mm));
	return child;
}

TEST(fork, same_areas_and_contents)
{
	struct phys *phys = test_phys(32);
	struct mm_struct *mm = test_mm(phys), *child;
	struct address_space *mapping = test_mapping(phys, 4);
	struct counting_notifier cn = {0};
	const char *areas = "0-4 rw p, 4-6 rw s1, 6-7 r- p, 8-9 -- p, 10-12 rw p2";

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(4), 2 * P, RW, mapping, 1), 0);
	expect_eq(mm_mmap(mm, area_page(6), P, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, area_page(8), P, RW, NULL, 0), 0);
	expect_eq(mm_mmap_flags(mm, area_page(10), 2 * P, RW, MM_MAP_PRIVATE, mapping, 2), 0);
	stamp_pages(mm, 0, 3, 10); /* page 3 is untouched */
	stamp_pages(mm, 4, 7, 10);
	stamp_pages(mm, 8, 9, 10);
	stamp_pages(mm, 10, 11, 10); /* a copy; page 11 shows the object's */
	test_read(mm, area_page(11));
	expect_eq(mm_mprotect(mm, area_page(6), P, MM_PROT_READ), 0);
	expect_eq(mm_mprotect(mm, area_page(8), P, MM_PROT_NONE), 0);
	counting_register(&cn, mm);
	child = test_fork(mm);
	expect_areas(mm, areas);
	expect_areas(child, areas);
	/* Each private area has one window; the shared one loses nothing. */
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_PROTECTION_PAGE]), 4);
	expect_eq(cn.start, area_page(10));
	expect_eq(cn.end, area_page(12));
	expect_stamps(child, 0, 3, 10, 0);
	expect_eq(test_read(child, area_page(3)), 0);
	expect_stamps(child, 4, 7, 10, 0);
	expect_eq(mm_mprotect(child, area_page(8), P, MM_PROT_READ), 0);
	expect_stamps(child, 8, 9, 10, 0);
	expect_stamps(child, 10, 11, 10, 0);
	expect_eq(mm_lookup_pfn(child, area_page(11)), mm_lookup_pfn(mm, area_page(11)));
	/* Shared memory is shared. */
	test_write(child, area_page(4), 123);
	expect_eq(test_read(mm, area_page(4)), 123);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	expect_stamps(child, 0, 3, 10, 0);
	mmput(child);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(fork, writes_are_seen_by_the_writer_only)
{
	struct phys *phys = test_phys(64);
	struct mm_struct *mm[4] = {test_mm(phys)};

	expect_eq(mm_mmap(mm[0], area_page(0), 4 * P, RW, NULL, 0), 0);
	stamp_pages(mm[0], 0, 4, 0);
	/* A child, its child, and another child of the first. */
	mm[1] = test_fork(mm[0]);
	mm[2] = test_fork(mm[1]);
	mm[3] = test_fork(mm[0]);
	expect_eq(phys_nr_free(phys), 64 - 4);
	for (uint64_t i = 0; i < 4; i++)
		test_write(mm[i], area_page(i), 100 * (i + 1));
	for (uint64_t i = 0; i < 4; i++) {
		for (uint64_t n = 0; n < 4; n++)
			expect_eq(test_read(mm[i], area_page(n)), n == i ? 100 * (i + 1) : n);
	}
	expect_eq(phys_nr_free(phys), 64 - 8);
	/* Who is left alone with a page writes it in place. */
	mmput(mm[0]);
	mmput(mm[2]);
	mmput(mm[3]);
	expect_eq(phys_nr_free(phys), 64 - 4);
	for (uint64_t n = 0; n < 4; n++) {
		pfn_t pfn = mm_lookup_pfn(mm[1], area_page(n));

		test_write(mm[1], area_page(n), 7);
		expect_eq(mm_lookup_pfn(mm[1], area_page(n)), pfn);
	}
	mmput(mm[1]);
	test_phys_done(phys);
}

/* What was moved is moved in the child; what is being moved is found in both. */
TEST(fork, children_are_found_from_frames)
{
	struct phys *phys = test_phys(64);
	struct mm_struct *mm = test_mm(phys), *child, *grandchild;
	hva_t at = area_page(20);
	pfn_t pfn;

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 0, 4, 0);
	child = test_fork(mm);
	expect_eq(mm_mremap(child, area_page(0), 4 * P, 4 * P, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &at),
		  0);
	grandchild = test_fork(child);
	pfn = mm_lookup_pfn(mm, area_page(1));
	expect_eq(mm_lookup_pfn(grandchild, area_page(21)), pfn);
	expect_eq(migrate_frame(phys, pfn), 0);
	expect_ne(mm_lookup_pfn(mm, area_page(1)), pfn);
	expect_eq(mm_lookup_pfn(child, area_page(21)), mm_lookup_pfn(mm, area_page(1)));
	expect_eq(mm_lookup_pfn(grandchild, area_page(21)), mm_lookup_pfn(mm, area_page(1)));
	expect_stamps(grandchild, 20, 24, 0, 20);
	mmput(mm);
	mmput(child);
	expect_stamps(grandchild, 20, 24, 0, 20);
	mmput(grandchild);
	test_phys_done(phys);
}

/* The ladder of fork.c, with the store held up for as long as it likes. */
TEST(fork, pinned_pages_stay_with_the_parent)
{
	struct phys *phys = test_phys(64);
	struct mm_struct *mm = test_mm(phys), *child;
	uint64_t *word;
	pfn_t pfn;

	expect_eq(mm_mmap(mm, area_page(0), 3 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 0, 3, 0);
	expect_eq(mm_pin_page(mm, area_page(1), true, &pfn), 0);
	expect_eq(migrate_frame(phys, pfn), -EBUSY);
	child = test_fork(mm);
	word = phys_map(phys, pfn);
	WRITE_ONCE(*word, 99);
	expect_eq(test_read(child, area_page(1)), 1);
	test_write(mm, area_page(1), 100);
	expect_eq(READ_ONCE(*word), 100); /* not copied: whoever pinned it still sees it */
	expect_eq(mm_lookup_pfn(mm, area_page(1)), pfn);
	expect_eq(test_read(child, area_page(1)), 1);
	expect_stamps(child, 0, 3, 0, 0);
	mm_unpin_page(mm, pfn, true);
	expect_eq(migrate_frame(phys, pfn), 0);
	/* A pin outlives the mapping. */
	expect_eq(mm_pin_page(child, area_page(2), true, &pfn), 0);
	expect_eq(mm_munmap(child, area_page(2), P), 0);
	word = phys_map(phys, pfn);
	expect_eq(READ_ONCE(*word), 2);
	mm_unpin_page(child, pfn, true);
	mmput(child);
	mmput(mm);
	test_phys_done(phys);
}

struct stepped {
	struct step step;
	struct mm_struct *mm, *child;
	unsigned int fork_at;
	uint64_t seen;
};

static void fork_here(struct step *step)
{
	struct stepped *s = step->arg;

#ifdef CONFIG_LOCKDEP
	/* Not within lock checking, which would not see our locks. */
	if (current_thread()->lockdep_busy)
		return;
#endif
	if (s->child || step->nr < s->fork_at)
		return;
	s->fork_at = step->nr;
	step->over = true;
	s->child = test_fork(s->mm);
	s->seen = test_read(s->child, area_page(0));
}

/*
 * mm_write in the parent, and a fork between any two instructions of it: what the child sees first
 * it sees for ever. With the look at pins taken out of fork.c, it sees the store come later.
 */
TEST(fork, a_write_that_is_under_way)
{
	struct stepped s = {.step = {.at_each = fork_here, .arg = &s}};
	unsigned int nr[3] = {0};
	uint64_t word = 2;
	struct phys *phys;

	step_skip();
	phys = test_phys(8);
	s.mm = test_mm(phys);
	expect_eq(mm_mmap(s.mm, area_page(0), P, RW, NULL, 0), 0);
	do {
		test_write(s.mm, area_page(0), 1);
		s.child = NULL;
		step_begin(&s.step);
		mm_write(s.mm, area_page(0), &word, sizeof(word));
		step_end();
		expect_eq(test_read(s.mm, area_page(0)), 2);
		if (s.child) {
			expect_eq(test_read(s.child, area_page(0)), s.seen);
			nr[s.seen]++;
			mmput(s.child);
		}
		s.fork_at += test_long() ? 1 : 7;
	} while (s.child);
	expect_ge(nr[1], 5);
	expect_ge(nr[2], 1);
	mmput(s.mm);
	test_phys_done(phys);
}

struct moved {
	struct step step;
	struct phys *phys;
	struct mm_struct *mm;
	unsigned int at;
	pfn_t pfn;
	bool moved;
	bool reuse; /* the frame it had becomes another's */
};

#ifdef CONFIG_LOCKDEP
static void take_this_frame(struct phys *phys, pfn_t pfn)
{
	pfn_t others[8];
	unsigned int nr = 0;

	while ((others[nr] = phys_alloc_zeroed(phys)) != pfn) {
		expect(others[nr] != INVALID_PFN);
		nr++;
	}
	while (nr)
		phys_put(phys, others[--nr]);
}

/* May somebody move a page, on the thread of a fork? It has the two mmap_locks, and neither holds,
 * nor is about to say that it holds, what he would take. */
static bool may_move(struct moved *m)
{
	return !current_thread()->lockdep_busy && current_thread()->nr_held == 2 &&
	       !READ_ONCE(frame_anon_vma(pfn_to_frame(m->phys, m->pfn))->rwsem.count) &&
	       !READ_ONCE(m->mm->page_table_lock.raw.state);
}

static void let_go_and_move(struct step *step)
{
	struct moved *m = step->arg;

	if (step->nr < m->at || !may_move(m))
		return;
	m->at = step->nr;
	step->over = true;
	mm_unpin_page(m->mm, m->pfn, true);
	m->moved = migrate_frame(m->phys, m->pfn) == 0;
	if (m->moved && m->reuse)
		take_this_frame(m->phys, m->pfn);
}

static void step_from_here(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct moved *m = cn->arg;

	/* The migration's own windows are no beginning. */
	if (range->event == MMU_NOTIFY_PROTECTION_PAGE)
		step_begin(&m->step);
}
#endif

/*
 * A page is pinned when the fork looks at it; then it is let go of, and moved at once, between any
 * two instructions. Its frame may be free when the fork takes a reference to copy it, or another's,
 * and then the fork has to look again.
 */
TEST(fork, a_pinned_page_is_let_go_of_and_moves)
{
#ifdef CONFIG_LOCKDEP
	struct moved m = {.step = {.at_each = let_go_and_move, .arg = &m}};
	struct counting_notifier cn = {.on_end = step_from_here, .arg = &m};
	unsigned int moved = 0;
	struct mm_struct *child;

	step_skip();
	m.phys = test_phys(8);
	m.mm = test_mm(m.phys);
	expect_eq(mm_mmap(m.mm, area_page(0), P, RW, NULL, 0), 0);
	counting_register(&cn, m.mm);
	do {
		test_write(m.mm, area_page(0), 1);
		expect_eq(mm_pin_page(m.mm, area_page(0), true, &m.pfn), 0);
		m.moved = false;
		child = test_fork(m.mm);
		step_end();
		expect(m.step.over);
		test_write(m.mm, area_page(0), 2);
		expect_eq(test_read(child, area_page(0)), 1);
		expect_eq(test_read(m.mm, area_page(0)), 2);
		if (m.moved && m.reuse) {
			expect_eq(atomic_read(&pfn_to_frame(m.phys, m.pfn)->refcount), 1);
			phys_put(m.phys, m.pfn);
		}
		moved += m.moved;
		mmput(child);
		m.reuse = !m.reuse;
		if (m.reuse)
			m.at += test_long() ? 1 : 9;
		/* Until the fork has its reference. */
	} while (m.moved || !moved);
	expect_ge(moved, 10);
	mmu_notifier_unregister(&cn.mn, m.mm);
	mmput(m.mm);
	test_phys_done(m.phys);
#else
	skip("which locks are held is known in debug builds");
#endif
}

struct late_pin {
	struct phys *phys;
	struct mm_struct *mm, *child;
	pfn_t pfn;
	atomic_t tid;
	struct kthread forker;
};

static void fork_late(void *arg)
{
	struct late_pin *late = arg;

	atomic_set_release(&late->tid, gettid());
	late->child = test_fork(late->mm);
}

/* The migration has looked for pins already. */
static void pin_late(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct late_pin *late = cn->arg;

	if (range->event == MMU_NOTIFY_MIGRATE)
		expect(frame_pin_unless_zero(late->phys, late->pfn));
}

/* Its entry is a migration entry, and the fork waits for the reverse map. */
static void start_fork(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct late_pin *late = cn->arg;

	if (range->event != MMU_NOTIFY_MIGRATE)
		return;
	expect_eq(kthread_run(&late->forker, "fork", fork_late, late), 0);
	while (!atomic_read_acquire(&late->tid))
		sched_yield();
	until_asleep(atomic_read(&late->tid));
}

/*
 * A page is on its way when the fork meets it, and stays, since it was pinned: so the child gets a
 * copy. Were the migration entry copied, it would get the pinned page.
 */
TEST(fork, a_pin_that_a_migration_meets_late)
{
	struct counting_notifier cn = {.on_start = pin_late, .on_end = start_fork};
	struct late_pin late = {.phys = test_phys(16)};
	uint64_t *word;

	late.mm = test_mm(late.phys);
	cn.arg = &late;
	expect_eq(mm_mmap(late.mm, area_page(0), 3 * P, RW, NULL, 0), 0);
	stamp_pages(late.mm, 0, 3, 0);
	late.pfn = mm_lookup_pfn(late.mm, area_page(1));
	counting_register(&cn, late.mm);
	expect_eq(migrate_frame(late.phys, late.pfn), -EBUSY);
	kthread_join(&late.forker);
	expect_eq(mm_lookup_pfn(late.mm, area_page(1)), late.pfn);
	word = phys_map(late.phys, late.pfn);
	WRITE_ONCE(*word, 99);
	expect_eq(test_read(late.child, area_page(1)), 1);
	test_write(late.mm, area_page(1), 100);
	expect_eq(READ_ONCE(*word), 100);
	expect_stamps(late.child, 0, 3, 0, 0);
	frame_unpin(late.phys, late.pfn);
	mmu_notifier_unregister(&cn.mn, late.mm);
	mmput(late.child);
	mmput(late.mm);
	test_phys_done(late.phys);
}

/* Every allocation of frames in turn finds none: nothing is left of the child. */
TEST(fork, out_of_frames)
{
	struct phys *phys = test_phys(6);
	struct mm_struct *mm = test_mm(phys), *child = NULL;
	pfn_t pfn[4];

	expect_eq(mm_mmap(mm, area_page(0), 4 * P, RW, NULL, 0), 0);
	stamp_pages(mm, 0, 4, 40);
	for (uint64_t i = 0; i < 4; i++)
		expect_eq(mm_pin_page(mm, area_page(i), true, &pfn[i]), 0);
	expect_eq(mm_fork(mm, &child), -ENOMEM); /* four copies wanted, two frames free */
	expect(!child);
	expect_eq(phys_nr_free(phys), 2);
	expect_stamps(mm, 0, 4, 40, 0);
	for (uint64_t i = 0; i < 4; i++)
		mm_unpin_page(mm, pfn[i], true);
	child = test_fork(mm);
	stamp_pages(child, 0, 2, 80);
	expect_eq(mm_write(child, area_page(2), &pfn, 8), -ENOMEM);
	expect_stamps(mm, 0, 4, 40, 0);
	mmput(child);
	mmput(mm);
	test_phys_done(phys);
}

/* ---- with others at work ---- */

#define STORM_PAGES 8

struct storm {
	struct phys *phys;
	struct mm_struct *mm;
	atomic_t stop;
	atomic64_t increments, migrated;
};

static void increment(void *arg)
{
	struct storm *s = arg;
	uint64_t n = 0;

	while (!atomic_read(&s->stop)) {
		test_increment(s->mm, area_page(n++ % STORM_PAGES));
		atomic64_inc(&s->increments);
	}
}

static void migrate_any(void *arg)
{
	struct storm *s = arg;
	pfn_t pfn = 0;

	while (!atomic_read(&s->stop)) {
		if (migrate_frame(s->phys, pfn) == 0)
			atomic64_inc(&s->migrated);
		pfn = (pfn + 1) % phys_nr_frames(s->phys);
	}
}

/* Children are snapshots: whatever happens to the parent and to frames, they do not change. */
TEST(fork, children_are_snapshots)
{
	struct phys *phys = test_phys(128);
	struct storm s = {.phys = phys, .mm = test_mm(phys)};
	uint64_t rounds = test_volume(500), sum = 0;
	struct kthread threads[3];

	expect_eq(mm_mmap(s.mm, area_page(0), STORM_PAGES * P, RW, NULL, 0), 0);
	expect_eq(kthread_run(&threads[0], "increment", increment, &s), 0);
	expect_eq(kthread_run(&threads[1], "increment", increment, &s), 0);
	expect_eq(kthread_run(&threads[2], "migrate", migrate_any, &s), 0);
	for (uint64_t round = 0; round < rounds || atomic64_read(&s.migrated) < 200; round++) {
		struct mm_struct *child = test_fork(s.mm), *grandchild = test_fork(child);
		uint64_t seen[STORM_PAGES];

		for (uint64_t i = 0; i < STORM_PAGES; i++)
			seen[i] = test_read(child, area_page(i));
		for (unsigned int again = 0; again < 20; again++) {
			for (uint64_t i = 0; i < STORM_PAGES; i++)
				expect_eq(test_read(child, area_page(i)), seen[i]);
		}
		test_write(child, area_page(round % STORM_PAGES), ~0UL);
		for (uint64_t i = 0; i < STORM_PAGES; i++)
			expect_eq(test_read(grandchild, area_page(i)), seen[i]);
		mmput(child);
		mmput(grandchild);
	}
	atomic_set(&s.stop, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(threads); i++)
		kthread_join(&threads[i]);
	for (uint64_t i = 0; i < STORM_PAGES; i++)
		sum += test_read(s.mm, area_page(i));
	expect_eq(sum, atomic64_read(&s.increments));
	mmput(s.mm);
	test_phys_done(phys);
}
