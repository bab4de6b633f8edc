// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The ladder of mremap.c, step by step: the area is in both places, the entry has not moved yet,
 * and a migration comes. Both files are part of this test.
 */
#include "tests/support/asleep.h"
#include "tests/support/areas.h"
#include "tests/support/park.h"

static void before_walk(void);
static int after_walk(int ret);
#define pgtable_walk_leaves(...) (before_walk(), after_walk((pgtable_walk_leaves)(__VA_ARGS__)))
#include "notifier/mremap.c"
#undef pgtable_walk_leaves

static void walk_with_pauses(struct frame *frame,
			     void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg),
			     void *arg);
#define rmap_walk walk_with_pauses
#include "notifier/migrate.c"
#undef rmap_walk

#include <unistd.h>

#define P PAGE_SIZE

static struct meeting {
	struct phys *phys;
	struct mm_struct *mm;
	uint64_t from, to;
	pfn_t pfn;
	int walks; /* of tables, by the move: the second is the one that moves entries */
	struct park park;
	atomic_t moved; /* the entry, if not yet the area */
	atomic_t walker, migrated;
	/* Of the migration: reverse-map walks, areas of the one that goes on. */
	int rmap_walks, visits;
	void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg);
	void *arg;
} m;

static void before_walk(void)
{
	if (++m.walks == 2)
		park_enter(&m.park);
}

static int after_walk(int ret)
{
	if (m.walks == 2)
		atomic_set_release(&m.moved, 1);
	return ret;
}

/* Between two areas of the walk that puts entries back, the entry moves, if it can. */
static void visit(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	(void)arg;
	if (++m.visits == 2 && m.rmap_walks == 2) {
		park_release(&m.park);
		while (!atomic_read_acquire(&m.moved))
			sched_yield();
	}
	m.fn(vma, hva, m.arg);
}

static void walk_with_pauses(struct frame *frame,
			     void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg),
			     void *arg)
{
	m.rmap_walks++;
	m.visits = 0;
	m.fn = fn;
	m.arg = arg;
	rmap_walk(frame, visit, NULL);
}

static void move(void *arg)
{
	hva_t to = area_page(m.to);

	(void)arg;
	expect_eq(mm_mremap(m.mm, area_page(m.from), P, P, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &to),
		  0);
}

static void migrate(void *arg)
{
	(void)arg;
	atomic_set_release(&m.walker, gettid());
	migrate_frame(m.phys, m.pfn);
	atomic_set_release(&m.migrated, 1);
}

static void meet(uint64_t from, uint64_t to)
{
	struct kthread mover, migrator;

	m.from = from;
	m.to = to;
	m.pfn = mm_lookup_pfn(m.mm, area_page(from));
	m.walks = m.rmap_walks = 0;
	atomic_set(&m.moved, 0);
	atomic_set(&m.walker, 0);
	atomic_set(&m.migrated, 0);
	park_init(&m.park);
	expect_eq(kthread_run(&mover, "mover", move, NULL), 0);
	park_wait(&m.park, 1);
	expect_eq(kthread_run(&migrator, "migrator", migrate, NULL), 0);
	/* It waits for the reverse map; or it gets through, and then the move goes on by itself. */
	while (!atomic_read_acquire(&m.walker))
		sched_yield();
	while (!is_asleep(atomic_read(&m.walker)) && !atomic_read(&m.migrated))
		sched_yield();
	park_release(&m.park);
	kthread_join(&mover);
	kthread_join(&migrator);
}

/*
 * Without the reverse-map locks the walk that puts entries back looks at the new area first, where
 * the entry is not yet, then at the old one, where it is no more: a migration entry is left, of a
 * page that is gone. Which area comes first depends on their addresses, and is the other way round
 * in every other round.
 */
TEST(mremap_walk, an_entry_does_not_slip_through)
{
	m.phys = test_phys(16);
	m.mm = test_mm(m.phys);
	expect_eq(mm_mmap(m.mm, area_page(0), P, RW, NULL, 0), 0);
	test_write(m.mm, area_page(0), 77);
	for (int round = 0; round < 4; round++) {
		uint64_t from = round % 2 ? 40 : 0, to = 40 - from;

		meet(from, to);
		expect_ne(mm_lookup_pfn(m.mm, area_page(to)), INVALID_PFN);
		expect_ne(mm_lookup_pfn(m.mm, area_page(to)), m.pfn);
		expect_eq(test_read(m.mm, area_page(to)), 77);
	}
	mmput(m.mm);
	test_phys_done(m.phys);
}
