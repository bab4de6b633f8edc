/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device that mirrors a range by hmm_range_fault() (tests/support/mirror_device.h), while others
 * move and zap the pages.
 *
 * The oracle is exact: each word has one owner, a thread which alone writes it and zaps its page.
 * So it knows at each moment what the word is, through the device as well as through the mm.
 */
#include <errno.h>
#include <sched.h>

#include <gnomon/hmm.h>

#include "tests/support/mirror_device.h"

#define HVA	   0x200000000UL
#define NR_OWNERS  4
#define NR_PRIVATE 8 /* pages; the others are shared */
#define NR_PAGES   16

static struct address_space *mapping;

static struct phys *phys;

static void device_create(struct mirror_device *dev)
{
	struct mm_struct *mm;

	phys = test_phys(256);
	mm = test_mm(phys);
	mapping = test_mapping(phys, NR_PAGES - NR_PRIVATE);
	expect_eq(mm_mmap(mm, HVA, NR_PRIVATE * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, HVA + NR_PRIVATE * PAGE_SIZE, (NR_PAGES - NR_PRIVATE) * PAGE_SIZE, RW,
			  mapping, 0),
		  0);
	mirror_create(dev, mm, HVA, NR_PAGES);
}

static void device_destroy(struct mirror_device *dev)
{
	mirror_destroy(dev);
	mmput(dev->mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

static uint64_t mm_faults(struct mirror_device *dev)
{
	struct mm_stats stats;

	mm_get_stats(dev->mm, &stats);
	return stats.faults;
}

TEST(hmm_device, alone)
{
	struct mirror_device dev;
	const unsigned int shared = NR_PRIVATE;

	device_create(&dev);
	expect_eq(mirror_read(&dev, 0), 0);
	expect_eq(mm_faults(&dev), 1);
	mirror_write(&dev, 0, 5);
	mirror_write(&dev, shared, 6);
	expect_eq(mm_faults(&dev), 2);
	expect_eq(atomic64_read(&dev.faults), 2);
	expect_eq(test_read(dev.mm, HVA), 5);

	/* It moves: the device has to look again, and finds what it wrote with no fault of the mm.
	 */
	expect_eq(mm_migrate_range(dev.mm, HVA, NR_PAGES * PAGE_SIZE), 2);
	expect_eq(atomic64_read(&dev.invalidated), 2);
	expect_eq(mirror_read(&dev, 0), 5);
	expect_eq(mirror_read(&dev, shared), 6);
	expect_eq(atomic64_read(&dev.faults), 4);
	expect_eq(mm_faults(&dev), 2);

	/* It goes: what was private is lost, as for everyone, what is shared is not. */
	expect_eq(mm_zap_range(dev.mm, HVA, NR_PAGES * PAGE_SIZE), 2);
	expect_eq(mirror_read(&dev, 0), 0);
	expect_eq(mirror_read(&dev, shared), 6);
	expect_eq(mm_faults(&dev), 4);
	expect_eq(atomic64_read(&dev.retries), 0);
	device_destroy(&dev);
}

static void move_once(struct mirror_device *dev)
{
	dev->before_lock = NULL;
	expect_eq(mm_migrate_range(dev->mm, HVA, PAGE_SIZE), 1);
}

static void zap_once(struct mirror_device *dev)
{
	dev->before_lock = NULL;
	expect_eq(mm_zap_range(dev->mm, HVA, PAGE_SIZE), 1);
}

/* What was found is no longer so when the lock is taken: only the sequence knows. */
TEST(hmm_device, changed_before_the_lock)
{
	struct mirror_device dev;

	device_create(&dev);
	test_write(dev.mm, HVA, 5);
	dev.before_lock = move_once;
	expect_eq(mirror_read(&dev, 0), 5);
	expect_eq(atomic64_read(&dev.retries), 1);
	expect_eq(mm_zap_range(dev.mm, HVA + PAGE_SIZE, PAGE_SIZE), 0); /* not of this page */
	expect_eq(mirror_read(&dev, 0), 5);
	expect_eq(atomic64_read(&dev.retries), 1);

	expect_eq(mm_migrate_range(dev.mm, HVA, PAGE_SIZE), 1);
	dev.before_lock = zap_once;
	expect_eq(mirror_read(&dev, 0), 0);
	expect_eq(atomic64_read(&dev.retries), 2);
	device_destroy(&dev);
}

/* The mm ends, and nobody unregisters before: the device is told, by an interval of everything. */
TEST(hmm_device, exit_takes_the_pages)
{
	struct mirror_device dev;

	device_create(&dev);
	for (unsigned int page = 0; page < NR_PAGES; page++)
		mirror_write(&dev, page, page);
	mmput(dev.mm);
	for (unsigned int page = 0; page < NR_PAGES; page++)
		expect_eq(dev.page[page].pfn, 0);
	expect_eq(mirror_fault(&dev, 0, HMM_PFN_REQ_FAULT), -EFAULT);
	mirror_destroy(&dev);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* ---- everything at once ---- */

struct stress {
	struct mirror_device dev;
	uint64_t rounds;
	atomic_t next_owner, owners_left;
	atomic64_t zapped, moved;
};

/* The page and its word are ours alone; migrations are everybody's. */
static void own_page(struct stress *s, unsigned int page, uint64_t round)
{
	struct mirror_device *dev = &s->dev;
	bool private = page < NR_PRIVATE;
	uint64_t value = (page + 1UL) << 32 | (round + 1);

	if (round & 1)
		mirror_write(dev, page, value);
	else
		test_write(dev->mm, HVA + page * PAGE_SIZE, value);
	expect_eq(mirror_read(dev, page), value);
	expect_eq(test_read(dev->mm, HVA + page * PAGE_SIZE), value);
	if (round % 4 < 2)
		return;
	expect_eq(mm_zap_range(dev->mm, HVA + page * PAGE_SIZE, PAGE_SIZE), 1);
	atomic64_inc(&s->zapped);
	if (round & 4)
		expect_eq(mirror_read(dev, page), private ? 0 : value);
	else
		expect_eq(test_read(dev->mm, HVA + page * PAGE_SIZE), private ? 0 : value);
}

static void let_others_in(struct mirror_device *dev)
{
	(void)dev;
	sched_yield();
}

static void owner(void *arg)
{
	struct stress *s = arg;
	unsigned int me = (unsigned int)atomic_inc_return(&s->next_owner) - 1;

	/* A page that is in use stays where it is: go on until enough have moved nevertheless. */
	for (uint64_t round = 0;
	     round < s->rounds || atomic64_read(&s->moved) < (int64_t)s->rounds / 2; round++)
		for (unsigned int page = me; page < NR_PAGES; page += NR_OWNERS)
			own_page(s, page, round);
	atomic_dec(&s->owners_left);
}

/*
 * Two who only move pages would open windows faster than a device can look between them, and it
 * would try for ever: so each round of theirs waits until somebody came through.
 */
static void let_one_through(struct stress *s, int64_t *seen)
{
	while (atomic_read(&s->owners_left) && atomic64_read(&s->dev.accesses) == *seen)
		sched_yield();
	*seen = atomic64_read(&s->dev.accesses);
}

static void mover(void *arg)
{
	struct stress *s = arg;
	int64_t seen = 0;

	for (unsigned int i = 0; atomic_read(&s->owners_left); i++) {
		unsigned int first = i % NR_PAGES;
		unsigned int nr = i % 3 ? 1 : NR_PAGES - first;
		long moved = mm_migrate_range(s->dev.mm, HVA + first * PAGE_SIZE, nr * PAGE_SIZE);

		expect_ge(moved, 0);
		atomic64_add(moved, &s->moved);
		migrate_mapping_page(mapping, i % (NR_PAGES - NR_PRIVATE));
		let_one_through(s, &seen);
	}
}

TEST(hmm_device, right_data_always)
{
	static struct stress s;
	struct kthread owners[NR_OWNERS], movers[2];

	device_create(&s.dev);
	s.dev.before_lock = let_others_in;
	s.rounds = test_volume(500);
	atomic_set(&s.owners_left, NR_OWNERS);
	for (int i = 0; i < 2; i++)
		expect_eq(kthread_run(&movers[i], "mover", mover, &s), 0);
	for (int i = 0; i < NR_OWNERS; i++)
		expect_eq(kthread_run(&owners[i], "owner", owner, &s), 0);
	for (int i = 0; i < NR_OWNERS; i++)
		kthread_join(&owners[i]);
	for (int i = 0; i < 2; i++)
		kthread_join(&movers[i]);

	expect_ge(atomic64_read(&s.zapped), s.rounds / 4 * 2 * NR_PAGES);
	expect_ge(atomic64_read(&s.moved), s.rounds / 2);
	expect_ge(atomic64_read(&s.dev.invalidated), s.rounds);
	expect_ge(atomic64_read(&s.dev.faults), s.rounds);
	device_destroy(&s.dev);
}
