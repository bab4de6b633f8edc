/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Soft-dirty: what counts as written, what it costs the pages that were not, and that no write is
 * missed while others write, move and clear.
 */
#include <errno.h>
#include <sched.h>

#include <gnomon/mm.h>
#include <gnomon/mmu_notifier.h>
#include <gnomon/swap.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/park.h"

#define BASE	  0x10000000UL
#define NR_PAGES  8 /* the first half private, the second shared */
#define FIRST_OBJ 4

static struct phys *phys;
static struct mm_struct *mm;
static struct address_space *mapping;

static hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

/* Every page there, and none of them written. */
static void begin(void)
{
	phys = test_phys(64);
	mm = test_mm(phys);
	mapping = test_mapping(phys, NR_PAGES - FIRST_OBJ);
	expect_eq(mm_mmap(mm, page(0), FIRST_OBJ * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(FIRST_OBJ), (NR_PAGES - FIRST_OBJ) * PAGE_SIZE, RW, mapping, 0),
		  0);
	for (unsigned int i = 0; i < NR_PAGES; i++)
		test_write(mm, page(i), i + 1);
	mm_clear_soft_dirty(mm);
}

static void end(void)
{
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* Bit n: page n. */
static uint64_t written_in(struct mm_struct *of, hva_t first, uint64_t nr)
{
	uint64_t bitmap = ~0UL;
	long reported = mm_test_soft_dirty(of, first, nr * PAGE_SIZE, &bitmap);

	expect_eq(reported, __builtin_popcountl(bitmap));
	return bitmap;
}

static uint64_t written(void)
{
	return written_in(mm, BASE, NR_PAGES);
}

static uint64_t nr_copied(void)
{
	struct mm_stats stats;

	mm_get_stats(mm, &stats);
	return stats.cow_copies;
}

TEST(soft_dirty, arguments)
{
	uint64_t bitmap = 5;

	begin();
	expect_eq(mm_test_soft_dirty(mm, BASE + 1, PAGE_SIZE, &bitmap), -EINVAL);
	expect_eq(mm_test_soft_dirty(mm, BASE, 1, &bitmap), -EINVAL);
	expect_eq(mm_test_soft_dirty(mm, HVA_MAX, PAGE_SIZE, &bitmap), -EINVAL);
	expect_eq(mm_test_soft_dirty(mm, BASE, (NR_PAGES + 1) * PAGE_SIZE, &bitmap), -ENOMEM);
	expect_eq(mm_test_soft_dirty(mm, page(NR_PAGES), PAGE_SIZE, &bitmap), -ENOMEM);
	expect_eq(mm_test_soft_dirty(mm, BASE, 0, &bitmap), 0);
	expect_eq(bitmap, 5);
	end();
}

/* More pages than a word has bits, and not a multiple. Nothing was ever touched: all may be new. */
TEST(soft_dirty, many_pages)
{
	uint64_t bitmap[4] = {0, 0, 0, 7};
	hva_t far = 0x40000000;

	begin();
	expect_eq(mm_mmap(mm, far, 130 * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_test_soft_dirty(mm, far, 130 * PAGE_SIZE, bitmap), 130);
	expect_eq(bitmap[0], ~0UL);
	expect_eq(bitmap[1], ~0UL);
	expect_eq(bitmap[2], 3);
	expect_eq(bitmap[3], 7);
	test_read(mm, far + 63 * PAGE_SIZE);
	test_read(mm, far + 64 * PAGE_SIZE);
	mm_clear_soft_dirty(mm);
	expect_eq(mm_test_soft_dirty(mm, far, 130 * PAGE_SIZE, bitmap), 128);
	expect_eq(bitmap[0], ~0UL >> 1);
	expect_eq(bitmap[1], ~1UL);
	/* And a multiple: the word after the last is not ours. */
	bitmap[2] = 7;
	expect_eq(mm_test_soft_dirty(mm, far, 128 * PAGE_SIZE, bitmap), 126);
	expect_eq(bitmap[2], 7);
	expect_eq(mm_munmap(mm, far, 130 * PAGE_SIZE), 0);
	end();
}

/* A write is reported, a read is not, and neither costs a copy. */
TEST(soft_dirty, writes_are_reported)
{
	pfn_t before[NR_PAGES];

	begin();
	expect_eq(written(), 0);
	for (unsigned int i = 0; i < NR_PAGES; i++)
		before[i] = mm_lookup_pfn(mm, page(i));
	for (unsigned int i = 0; i < NR_PAGES; i++)
		expect_eq(test_read(mm, page(i)), i + 1);
	expect_eq(written(), 0);
	test_write(mm, page(1) + 8, 9);
	test_increment(mm, page(FIRST_OBJ + 2));
	expect_eq(written(), 1u << 1 | 1u << (FIRST_OBJ + 2));
	mm_clear_soft_dirty(mm);
	expect_eq(written(), 0);
	test_write(mm, page(1) + 8, 10);
	expect_eq(written(), 1u << 1);
	for (unsigned int i = 0; i < NR_PAGES; i++)
		expect_eq(mm_lookup_pfn(mm, page(i)), before[i]);
	expect_eq(nr_copied(), 0);
	end();
}

/* Whatever comes to be at an address since is not known to be what was there. */
TEST(soft_dirty, what_is_new_is_reported)
{
	hva_t to = page(2 * NR_PAGES);

	begin();
	expect_eq(mm_zap_range(mm, page(0), 2 * PAGE_SIZE), 2);
	expect_eq(written(), 3);
	expect_eq(test_read(mm, page(0)), 0);
	expect_eq(written(), 3);
	/* A shared page keeps its contents, but who knows that? */
	expect_eq(mm_zap_range(mm, page(FIRST_OBJ), PAGE_SIZE), 1);
	expect_eq(test_read(mm, page(FIRST_OBJ)), FIRST_OBJ + 1);
	expect_eq(written(), 3 | 1u << FIRST_OBJ);

	mm_clear_soft_dirty(mm);
	expect_eq(mm_mremap(mm, page(2), PAGE_SIZE, PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &to),
		  0);
	expect_eq(written_in(mm, to, 1), 1);
	expect_eq(written_in(mm, page(3), 2), 0);
	end();
}

/* A move to another frame changes nothing that anybody wrote. */
TEST(soft_dirty, a_migration_is_no_write)
{
	begin();
	test_write(mm, page(2), 9);
	expect_eq(mm_migrate_range(mm, BASE, NR_PAGES * PAGE_SIZE), NR_PAGES);
	expect_eq(written(), 1u << 2);
	mm_clear_soft_dirty(mm);
	expect_eq(mm_migrate_range(mm, BASE, NR_PAGES * PAGE_SIZE), NR_PAGES);
	expect_eq(written(), 0);
	test_write(mm, page(3), 9);
	expect_eq(written(), 1u << 3);
	end();
}

/* Nor is a way to the swap file and back, and what was written before is not forgotten there. */
TEST(soft_dirty, swap_is_no_write)
{
	begin();
	expect_eq(phys_swap_on(phys, "/tmp", 16), 0);
	test_write(mm, page(1), 9);
	expect_eq(mm_madvise(mm, page(0), FIRST_OBJ * PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	expect_eq(mm_lookup_pfn(mm, page(1)), INVALID_PFN);
	expect_eq(written_in(mm, page(0), FIRST_OBJ), 1u << 1);
	mm_clear_soft_dirty(mm);
	expect_eq(written_in(mm, page(0), FIRST_OBJ), 0);
	expect_eq(test_read(mm, page(1)), 9);
	expect_eq(test_read(mm, page(2)), 3);
	expect_eq(written_in(mm, page(0), FIRST_OBJ), 0);
	test_write(mm, page(3), 9);
	expect_eq(written_in(mm, page(0), FIRST_OBJ), 1u << 3);
	expect_eq(mm_madvise(mm, page(0), FIRST_OBJ * PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	expect_eq(test_read(mm, page(3)), 9);
	expect_eq(written_in(mm, page(0), FIRST_OBJ), 1u << 3);
	expect_eq(mm_munmap(mm, page(0), FIRST_OBJ * PAGE_SIZE), 0);
	expect_eq(phys_swap_off(phys), 0);
	end();
}

/* Bits are of a mapping, and a fork copies them: from then on each has its own. */
TEST(soft_dirty, fork)
{
	struct mm_struct *child;

	begin();
	test_write(mm, page(1), 9);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(written_in(child, page(0), FIRST_OBJ), 1u << 1);
	mm_clear_soft_dirty(mm);
	expect_eq(written(), 0);
	expect_eq(written_in(child, page(0), FIRST_OBJ), 1u << 1);
	test_write(child, page(2), 7);
	expect_eq(written(), 0);
	expect_eq(written_in(child, page(0), FIRST_OBJ), 1u << 1 | 1u << 2);
	test_write(mm, page(3), 7);
	expect_eq(written(), 1u << 3);
	expect_eq(nr_copied(), 1);
	mmput(child);
	end();
}

static void expect_write_locked(struct counting_notifier *cn, const struct mmu_notifier_range *r)
{
	(void)cn;
	expect_eq(r->event, MMU_NOTIFY_SOFT_DIRTY);
	expect(!r->owner);
	expect(mmu_notifier_range_blockable(r));
	lockdep_assert_held_write(&r->mm->mmap_lock);
}

TEST(soft_dirty, one_window_over_everything)
{
	struct counting_notifier cn = {.on_start = expect_write_locked};

	begin();
	counting_register(&cn, mm);
	mm_clear_soft_dirty(mm);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_SOFT_DIRTY]), 1);
	expect_eq(cn.start, 0);
	expect_eq(cn.end, HVA_MAX);
	cn.on_start = NULL;
	/* What was taken comes back without one: there is nothing to take from anybody. */
	for (unsigned int i = 0; i < NR_PAGES; i++)
		test_write(mm, page(i), 9);
	expect_eq(atomic64_read(&cn.starts[MMU_NOTIFY_CLEAR]), 0);
	expect_eq(written(), (1u << NR_PAGES) - 1);
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	end();
}

/* A secondary that may write does not tell each time: so the answer that lets it is a write. */
TEST(soft_dirty, secondaries)
{
	bool writable = true;
	pfn_t pfn;

	begin();
	expect_eq(hva_to_pfn(mm, page(0), false, &pfn, &writable), 0);
	expect(!writable);
	expect_eq(hva_to_pfn(mm, page(FIRST_OBJ), false, &pfn, &writable), 0);
	expect(!writable);
	expect_eq(written(), 0);
	expect_eq(hva_to_pfn(mm, page(1), true, &pfn, &writable), 0);
	expect(writable);
	expect_eq(written(), 2);
	expect_eq(hva_to_pfn(mm, page(1), false, &pfn, &writable), 0);
	expect(writable);
	mm_clear_soft_dirty(mm);
	expect_eq(written(), 0);
	end();
}

/*
 * The ladder of soft_dirty.c. A writer has pinned the page, and its store comes after the clearing:
 * the page counts as written, for as long as it may still be stored to, and no longer.
 */
TEST(soft_dirty, a_write_that_is_under_way)
{
	const unsigned int at[] = {0, FIRST_OBJ};

	begin();
	for (unsigned int i = 0; i < ARRAY_SIZE(at); i++) {
		pfn_t pfn;

		expect_eq(mm_pin_page(mm, page(at[i]), true, &pfn), 0);
		mm_clear_soft_dirty(mm);
		*(volatile uint64_t *)phys_map(phys, pfn) = 99;
		expect_eq(written(), 1u << at[i]);
		mm_clear_soft_dirty(mm);
		expect_eq(written(), 1u << at[i]);
		/* Nor is it parted from who pinned it. */
		test_write(mm, page(at[i]), 100);
		expect_eq(mm_lookup_pfn(mm, page(at[i])), pfn);
		mm_unpin_page(mm, pfn, true);
		mm_clear_soft_dirty(mm);
		expect_eq(written(), 0);
		expect_eq(test_read(mm, page(at[i])), 100);
	}
	end();
}

/* ---- the same, of a page that is being moved ---- */

struct moving {
	struct counting_notifier cn;
	struct park unmapped;
	pfn_t pfn;
};

/* As a writer, who comes too late for the migration's first look. */
static void pin_it(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct moving *moving = container_of(cn, struct moving, cn);

	if (range->event == MMU_NOTIFY_MIGRATE)
		expect(frame_pin_unless_zero(phys, moving->pfn));
}

static void park_it(struct counting_notifier *cn, const struct mmu_notifier_range *range)
{
	struct moving *moving = container_of(cn, struct moving, cn);

	if (range->event == MMU_NOTIFY_MIGRATE)
		park_enter(&moving->unmapped);
}

static void move_it(void *arg)
{
	struct moving *moving = arg;

	expect_eq(migrate_frame(phys, moving->pfn), -EBUSY);
}

TEST(soft_dirty, a_write_to_a_page_on_its_way)
{
	struct moving moving = {.cn = {.on_start = pin_it, .on_end = park_it}};
	struct kthread mover;

	begin();
	test_write(mm, page(1), 9);
	moving.pfn = mm_lookup_pfn(mm, page(1));
	park_init(&moving.unmapped);
	counting_register(&moving.cn, mm);
	expect_eq(kthread_run(&mover, "mover", move_it, &moving), 0);
	park_wait(&moving.unmapped, 1);
	expect_eq(mm_lookup_pfn(mm, page(1)), INVALID_PFN);
	mm_clear_soft_dirty(mm);
	*(volatile uint64_t *)phys_map(phys, moving.pfn) = 99;
	park_release(&moving.unmapped);
	kthread_join(&mover);
	expect_eq(written(), 1u << 1);
	expect_eq(test_read(mm, page(1)), 99);
	frame_unpin(phys, moving.pfn);
	mmu_notifier_unregister(&moving.cn.mn, mm);
	end();
}

/* ---- everything at once ---- */

#define NR_WRITERS 4

/*
 * Pages are written as a whole, which takes long: the last word comes last. The collector copies
 * it from each page after the clearing, while the writers go on; stops them; and finds that what is
 * not reported is what it has copied.
 */
struct stress {
	atomic_t over, pause;
	atomic64_t writes;
	struct park go[2]; /* alternating */
	uint64_t last_word[NR_PAGES];
};

static void writer(void *arg)
{
	struct stress *s = arg;
	uint64_t words[PAGE_SIZE / sizeof(uint64_t)];
	static atomic_t next;
	uint64_t value = (uint64_t)atomic_inc_return(&next) << 48;
	uint32_t random = (uint32_t)(value >> 48);

	while (!atomic_read_acquire(&s->over)) {
		int turn = atomic_read_acquire(&s->pause);

		if (turn) {
			park_enter(&s->go[turn - 1]);
			continue;
		}
		random = random * 1103515245 + 12345;
		value++;
		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			words[i] = value;
		expect_eq(mm_write(mm, page((random >> 16) % NR_PAGES), words, sizeof(words)), 0);
		atomic64_inc(&s->writes);
	}
}

static void mover(void *arg)
{
	struct stress *s = arg;

	while (!atomic_read_acquire(&s->over)) {
		expect_ge(mm_migrate_range(mm, BASE, NR_PAGES * PAGE_SIZE), 0);
		sched_yield();
	}
}

static uint64_t last_word(unsigned int nr)
{
	return test_read(mm, page(nr + 1) - sizeof(uint64_t));
}

TEST(soft_dirty, no_write_is_missed)
{
	static struct stress s;
	struct kthread writers[NR_WRITERS], moving;
	uint64_t reported = 0, unreported = 0;

	begin();
	for (int i = 0; i < NR_WRITERS; i++)
		expect_eq(kthread_run(&writers[i], "writer", writer, &s), 0);
	expect_eq(kthread_run(&moving, "mover", mover, &s), 0);
	for (uint64_t round = 0; round < test_volume(200); round++) {
		int64_t before = atomic64_read(&s.writes);
		int turn = (int)(round % 2);
		uint64_t bitmap;

		mm_clear_soft_dirty(mm);
		for (unsigned int i = 0; i < NR_PAGES; i++)
			s.last_word[i] = last_word(i);
		/* Half of the rounds see some pages written, and some not. */
		while (round % 4 < 2 && atomic64_read(&s.writes) < before + 2)
			sched_yield();

		park_init(&s.go[turn]);
		atomic_set_release(&s.pause, turn + 1);
		park_wait(&s.go[turn], NR_WRITERS);
		bitmap = written();
		for (unsigned int i = 0; i < NR_PAGES; i++) {
			if (bitmap & (1u << i))
				reported++;
			else
				unreported += last_word(i) == s.last_word[i];
		}
		expect_eq(reported + unreported, (round + 1) * NR_PAGES);
		atomic_set_release(&s.pause, 0);
		park_release(&s.go[turn]);
	}
	atomic_set_release(&s.over, 1);
	for (int i = 0; i < NR_WRITERS; i++)
		kthread_join(&writers[i]);
	kthread_join(&moving);
	expect_ge(atomic64_read(&s.writes), test_volume(200));
	expect_ge(reported, test_volume(100));
	expect_ge(unreported, test_volume(100));
	end();
}
