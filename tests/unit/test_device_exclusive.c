/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Device-exclusive access: how a device gets a page for itself, how it loses it to each kind of
 * change, and that nobody else writes while it has it.
 */
#include <errno.h>

#include <gnomon/swap.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/reclaim.h"
#include "tests/support/asleep.h"
#include "tests/support/mirror_device.h"
#include "tests/support/park.h"

#define BASE	 0x10000000UL
#define NR_PAGES 4
#define SHARED	 3 /* the last page */
#define LAST	 (PAGE_SIZE - sizeof(uint64_t))

static struct phys *phys;
static struct mm_struct *mm;
static struct address_space *mapping;
static struct mirror_device dev;
static struct counting_notifier cn;
static void *last_owner;

static hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

static void note_owner(struct counting_notifier *counting, const struct mmu_notifier_range *range)
{
	(void)counting;
	WRITE_ONCE(last_owner, range->owner);
	if (range->event != MMU_NOTIFY_EXCLUSIVE && range->event != MMU_NOTIFY_MIGRATE)
		expect(!range->owner);
}

static int64_t windows(enum mmu_notifier_event event)
{
	return atomic64_read(&cn.starts[event]);
}

static void begin(void)
{
	phys = test_phys(64);
	mm = test_mm(phys);
	mapping = test_mapping(phys, 1);
	expect_eq(mm_mmap(mm, page(0), SHARED * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(SHARED), PAGE_SIZE, RW, mapping, 0), 0);
	mirror_create(&dev, mm, BASE, NR_PAGES);
	cn.on_start = note_owner;
	counting_register(&cn, mm);
}

static void end(void)
{
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mirror_destroy(&dev);
	mmput(mm);
	address_space_put(mapping);
	test_phys_done(phys);
}

static uint64_t nr_faults(void)
{
	struct mm_stats stats;

	mm_get_stats(mm, &stats);
	return stats.faults;
}

TEST(device_exclusive, what_cannot_be_had)
{
	pfn_t pfn, pinned;

	begin();
	expect_eq(mm_mprotect(mm, page(2), PAGE_SIZE, MM_PROT_READ), 0);
	mmap_read_lock(mm);
	expect_eq(make_device_exclusive(mm, page(NR_PAGES), &dev, &pfn), -EFAULT);
	expect_eq(make_device_exclusive(mm, page(2), &dev, &pfn), -EFAULT);
	expect_eq(make_device_exclusive(mm, page(SHARED), &dev, &pfn), -EOPNOTSUPP);
	mmap_read_unlock(mm);
	expect_eq(windows(MMU_NOTIFY_EXCLUSIVE), 0);

	/* Somebody may be writing to it, at this moment or whenever the device is not looking. */
	expect_eq(mm_pin_page(mm, page(0), true, &pinned), 0);
	mmap_read_lock(mm);
	expect_eq(make_device_exclusive(mm, page(0), &dev, &pfn), -EBUSY);
	mmap_read_unlock(mm);
	expect_eq(mm_lookup_pfn(mm, page(0)), pinned);
	mm_unpin_page(mm, pinned, true);
	end();
}

TEST(device_exclusive, without_a_frame)
{
	pfn_t taken[64], pfn;

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		taken[i] = phys_alloc(phys);
		expect_ne(taken[i], INVALID_PFN);
	}
	mmap_read_lock(mm);
	expect_eq(make_device_exclusive(mm, page(0), &dev, &pfn), -ENOMEM);
	mmap_read_unlock(mm);
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		phys_put(phys, taken[i]);
	expect_eq(mirror_increment(&dev, 0), 0);
	end();
}

/* Exact: which windows, whose, and how many faults; and that the page stays where it is. */
TEST(device_exclusive, alone)
{
	pfn_t pfn;

	begin();
	test_write(mm, page(0), 5);
	pfn = mm_lookup_pfn(mm, page(0));
	expect_eq(nr_faults(), 1);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(windows(MMU_NOTIFY_EXCLUSIVE), 1);
	expect(last_owner == &dev);
	expect_eq(cn.start, page(0));
	expect_eq(cn.end, page(1));
	expect_eq(nr_faults(), 1);
	expect_eq(mm_lookup_pfn(mm, page(0)), INVALID_PFN);
	expect_eq(hmm_pfn_to_pfn(dev.page[0].pfn), pfn);
	expect_eq(atomic_read(&pfn_to_frame(phys, pfn)->refcount), 1);
	expect_eq(atomic_read(&pfn_to_frame(phys, pfn)->mapcount), 1);

	/* The second time it just does it. */
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(atomic64_read(&dev.exclusives), 1);
	expect_eq(windows(MMU_NOTIFY_EXCLUSIVE), 1);

	/* Somebody else wants it: one fault, one window that is nobody's. The second time neither.
	 */
	expect_eq(test_read(mm, page(0)), 7);
	expect_eq(windows(MMU_NOTIFY_CLEAR), 1);
	expect(!last_owner);
	expect_eq(cn.start, page(0));
	expect_eq(cn.end, page(1));
	expect_eq(dev.page[0].pfn, 0);
	expect_eq(atomic64_read(&dev.invalidated), 1);
	expect_eq(nr_faults(), 2);
	expect_eq(mm_lookup_pfn(mm, page(0)), pfn);
	test_write(mm, page(0), 8);
	expect_eq(windows(MMU_NOTIFY_CLEAR), 1);
	expect_eq(nr_faults(), 2);

	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(atomic64_read(&dev.exclusives), 2);
	expect_eq(test_read(mm, page(0)), 9);
	expect_eq(atomic64_read(&dev.retries), 0);
	end();
}

/* A page that was never touched; one that is there to be read only; one that a child has, too. */
TEST(device_exclusive, is_faulted_in_for_writing)
{
	struct mm_struct *child;

	begin();
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(test_read(mm, page(0)), 1);
	mm_clear_soft_dirty(mm);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(test_read(mm, page(0)), 2);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(test_read(child, page(0)), 2);
	expect_eq(test_read(mm, page(0)), 3);
	mmput(child);
	end();
}

TEST(device_exclusive, one_device_after_the_other)
{
	struct mirror_device other;

	begin();
	mirror_create(&other, mm, BASE, NR_PAGES);
	for (int i = 0; i < 3; i++) {
		expect_eq(mirror_increment(&dev, 0), 0);
		expect(!other.page[0].exclusive);
		expect_eq(mirror_increment(&other, 0), 0);
		expect(!dev.page[0].exclusive);
	}
	/* And one that only looks: it gets nothing while another has it, or takes it away. */
	mirror_snapshot(&dev, 0, 1, &(uint64_t){0});
	expect(other.page[0].exclusive);
	expect_eq(mirror_read(&dev, 0), 6);
	expect(!other.page[0].exclusive);
	mirror_destroy(&other);
	end();
}

/* The device has the page; what is done to it makes it let go, and finds what it wrote. */
static void have_it(void)
{
	test_write(mm, page(0), 5);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect(dev.page[0].exclusive);
}

static void expect_lost(void)
{
	expect_eq(dev.page[0].pfn, 0);
	expect(!dev.page[0].exclusive);
}

TEST(device_exclusive, fork)
{
	struct mm_struct *child;

	begin();
	have_it();
	expect_eq(mm_fork(mm, &child), 0);
	expect_lost();
	expect_eq(windows(MMU_NOTIFY_CLEAR), 1);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(test_read(child, page(0)), 6);
	expect_eq(test_read(mm, page(0)), 7);
	mmput(child);
	end();
}

TEST(device_exclusive, migration)
{
	pfn_t pfn;

	begin();
	have_it();
	pfn = hmm_pfn_to_pfn(dev.page[0].pfn);
	expect_eq(migrate_frame(phys, pfn), 0);
	expect_lost();
	expect(mm_lookup_pfn(mm, page(0)) != pfn);
	expect_eq(test_read(mm, page(0)), 6);
	expect_eq(windows(MMU_NOTIFY_CLEAR), 0);

	have_it();
	pfn = hmm_pfn_to_pfn(dev.page[0].pfn);
	expect_eq(mm_migrate_range(mm, page(0), PAGE_SIZE), 1);
	expect_lost();
	expect(mm_lookup_pfn(mm, page(0)) != pfn);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(test_read(mm, page(0)), 7);
	end();
}

/* By way of the reverse map, as reclaim does it: an advice passes by what is not present. */
static void push_out(pfn_t pfn)
{
	phys_get(phys, pfn);
	lock_frame(phys, pfn);
	expect(page_out(phys, pfn));
	unlock_frame(phys, pfn);
	phys_put(phys, pfn);
}

/* What the device wrote is known only to the entry: it must not be taken for clean. */
TEST(device_exclusive, swapped_out)
{
	begin();
	expect_eq(phys_swap_on(phys, "/tmp", 4), 0);
	for (int i = 0; i < 3; i++) {
		expect_eq(mirror_increment(&dev, 0), 0);
		push_out(hmm_pfn_to_pfn(dev.page[0].pfn));
		expect_lost();
		expect_eq(phys_nr_free(phys), 64);
		expect_eq(test_read(mm, page(0)), i + 1);
	}
	expect_eq(mm_munmap(mm, page(0), PAGE_SIZE), 0);
	expect_eq(phys_swap_off(phys), 0);
	end();
}

TEST(device_exclusive, mprotect)
{
	uint64_t value = 1;

	begin();
	have_it();
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, MM_PROT_READ), 0);
	expect_lost();
	expect_eq(mirror_increment(&dev, 0), -EFAULT);
	expect_eq(mm_write(mm, page(0), &value, sizeof(value)), -EFAULT);
	expect_eq(test_read(mm, page(0)), 6);
	expect_eq(mm_write(mm, page(0), &value, sizeof(value)), -EFAULT);
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, RW), 0);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(test_read(mm, page(0)), 7);
	end();
}

TEST(device_exclusive, mremap)
{
	hva_t to = page(100);

	begin();
	have_it();
	expect_eq(mm_mremap(mm, page(0), PAGE_SIZE, PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &to),
		  0);
	expect_lost();
	expect_eq(mirror_increment(&dev, 0), -EFAULT);
	expect_eq(test_read(mm, to), 6);
	test_write(mm, to, 7);
	expect_eq(test_read(mm, to), 7);
	end();
}

TEST(device_exclusive, soft_dirty)
{
	uint64_t bitmap;

	begin();
	test_write(mm, page(0), 5);
	mm_clear_soft_dirty(mm);
	expect_eq(mm_test_soft_dirty(mm, page(0), PAGE_SIZE, &bitmap), 0);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(mm_test_soft_dirty(mm, page(0), PAGE_SIZE, &bitmap), 1);
	mm_clear_soft_dirty(mm);
	expect_lost();
	expect_eq(mm_test_soft_dirty(mm, page(0), PAGE_SIZE, &bitmap), 0);
	expect_eq(mirror_increment(&dev, 0), 0);
	expect_eq(mm_test_soft_dirty(mm, page(0), PAGE_SIZE, &bitmap), 1);
	expect_eq(test_read(mm, page(0)), 7);
	end();
}

TEST(device_exclusive, zap_and_unmap)
{
	begin();
	have_it();
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_lost();
	expect_eq(test_read(mm, page(0)), 0);
	expect_eq(phys_nr_free(phys), 63);
	have_it();
	expect_eq(mm_munmap(mm, page(0), PAGE_SIZE), 0);
	expect_lost();
	expect_eq(mirror_increment(&dev, 0), -EFAULT);
	expect_eq(phys_nr_free(phys), 64);
	end();
}

/* The frame goes with the mm, with the device still registered: test_phys_done() looks. */
TEST(device_exclusive, exit)
{
	begin();
	have_it();
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	expect_lost();
	mirror_destroy(&dev);
	address_space_put(mapping);
	test_phys_done(phys);
}

/* A zap between the answer and the device's table: the sequence tells, as for any other look. */
static bool device_would_have(pfn_t pfn, unsigned long seq)
{
	(void)pfn;
	return !mmu_interval_read_retry(&dev.sub, seq);
}

TEST(device_exclusive, zapped_before_the_lock)
{
	unsigned long seq;
	pfn_t pfn;

	begin();
	test_write(mm, page(0), 5);
	seq = mmu_interval_read_begin(&dev.sub);
	mmap_read_lock(mm);
	expect_eq(make_device_exclusive(mm, page(0), &dev, &pfn), 0);
	mmap_read_unlock(mm);
	expect(device_would_have(pfn, seq));
	put_device_exclusive(mm, pfn);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect(!device_would_have(pfn, seq));
	end();
}

static struct park park;

static void park_in_exclusive(struct counting_notifier *counting,
			      const struct mmu_notifier_range *range)
{
	(void)counting;
	if (range->event == MMU_NOTIFY_EXCLUSIVE)
		park_enter(&park);
}

struct zapper {
	atomic_t tid;
};

static void zap(void *arg)
{
	struct zapper *zapper = arg;

	park_wait(&park, 1);
	atomic_set(&zapper->tid, gettid());
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
}

static void let_on_when_zapped(void *arg)
{
	struct zapper *zapper = arg;

	while (!atomic_read(&zapper->tid))
		sched_yield();
	until_asleep(atomic_read(&zapper->tid)); /* for the frame's lock, the entry cleared */
	expect(pte_none(pte_load(pgtable_lookup(mm->pgtable, page(0)))));
	park_release(&park);
}

/* And one in the window: then the device gets what comes next, not what is nobody's. */
TEST(device_exclusive, zapped_in_the_window)
{
	struct zapper zapper = {0};
	struct kthread threads[2];
	pfn_t pfn, old;

	begin();
	park_init(&park);
	test_write(mm, page(0), 5);
	old = mm_lookup_pfn(mm, page(0));
	cn.on_start = park_in_exclusive;
	expect_eq(kthread_run(&threads[0], "zap", zap, &zapper), 0);
	expect_eq(kthread_run(&threads[1], "let on", let_on_when_zapped, &zapper), 0);
	mmap_read_lock(mm);
	expect_eq(make_device_exclusive(mm, page(0), &dev, &pfn), 0);
	mmap_read_unlock(mm);
	expect_ne(pfn, old);
	expect(pte_exclusive(pte_load(pgtable_lookup(mm->pgtable, page(0)))));
	put_device_exclusive(mm, pfn);
	kthread_join(&threads[0]);
	kthread_join(&threads[1]);
	expect_eq(test_read(mm, page(0)), 0);
	end();
}

/* Taking a page from a device is as much a matter for a window as taking a present entry. */
TEST(device_exclusive, changes_need_a_window)
{
	const pte_t exclusive = pte_make(7, PTE_EXCLUSIVE | PTE_READ | PTE_WRITE | PTE_DIRTY);

	expect(pte_change_needs_window(exclusive, 0));
	expect(pte_change_needs_window(exclusive, pte_make(7, PTE_PRESENT | PTE_READ | PTE_WRITE)));
	expect(pte_change_needs_window(exclusive, exclusive & ~PTE_WRITE));
	expect(pte_change_needs_window(exclusive, exclusive ^ pte_make(1, 0)));
	expect(!pte_change_needs_window(exclusive, exclusive | PTE_SOFT_DIRTY));
}

#ifdef CONFIG_LOCKDEP
static void clear_outside(void *arg)
{
	pte_t *ptep = pgtable_lookup(mm->pgtable, page(0));

	(void)arg;
	spin_lock(&mm->page_table_lock);
	set_pte(mm, page(0), ptep, 0);
	spin_unlock(&mm->page_table_lock);
}
#endif

TEST(device_exclusive, no_change_without_a_window)
{
#ifndef CONFIG_LOCKDEP
	skip("built without CONFIG_LOCKDEP");
#else
	begin();
	have_it();
	expect_bug(clear_outside, NULL, "open invalidation window");
	end();
#endif
}

/* ---- everything at once ---- */

#define NR_HOSTS   2
#define NR_DEVICES 2

struct stress {
	struct mirror_device devices[NR_DEVICES];
	uint64_t rounds;
	atomic_t next_device, next_host, left;
	atomic64_t moved, increments;
};

static struct stress s;

/* Enough of all has happened, however busy the machine is. */
static bool goes_on(uint64_t round)
{
	return round < s.rounds || windows(MMU_NOTIFY_EXCLUSIVE) < (int64_t)s.rounds / 4 ||
	       windows(MMU_NOTIFY_CLEAR) < (int64_t)s.rounds / 4 || atomic64_read(&s.moved) < 10;
}

/* Two steps, and nobody writes in between: not even the end of a long store that began before. */
static void nobody_writes_meanwhile(struct mirror_device *device)
{
	uint64_t first, second;
	char *contents = mirror_contents(device, device->page[0].pfn);

	contents_read(&first, contents + LAST, sizeof(first));
	for (int i = 0; i < 300; i++)
		cpu_relax();
	contents_read(&second, contents + LAST, sizeof(second));
	expect_eq(first, second);
}

static void device(void *arg)
{
	struct mirror_device *me = &s.devices[atomic_inc_return(&s.next_device) - 1];

	(void)arg;
	for (uint64_t i = 0; goes_on(i); i++) {
		expect_eq(mirror_increment(me, 0), 0);
		atomic64_inc(&s.increments);
		sched_yield();
	}
	atomic_dec(&s.left);
}

static void host(void *arg)
{
	uint64_t words[PAGE_SIZE / sizeof(uint64_t) - 1];
	uint64_t value = (uint64_t)atomic_inc_return(&s.next_host) << 32;

	(void)arg;
	for (uint64_t i = 0; goes_on(i); i++) {
		test_increment(mm, page(0));
		atomic64_inc(&s.increments);
		for (size_t word = 0; word < ARRAY_SIZE(words); word++)
			words[word] = value + i;
		expect_eq(mm_write(mm, page(0) + sizeof(uint64_t), words, sizeof(words)), 0);
	}
	atomic_dec(&s.left);
}

static void mover(void *arg)
{
	(void)arg;
	while (atomic_read(&s.left)) {
		long moved = mm_migrate_range(mm, page(0), PAGE_SIZE);

		expect_ge(moved, 0);
		atomic64_add(moved, &s.moved);
		sched_yield();
	}
}

TEST(device_exclusive, increments_of_both)
{
	struct kthread threads[NR_DEVICES + NR_HOSTS + 1];
	int nr = 0;

	begin();
	s.rounds = test_volume(500);
	atomic_set(&s.left, NR_DEVICES + NR_HOSTS);
	for (int i = 0; i < NR_DEVICES; i++) {
		mirror_create(&s.devices[i], mm, BASE, NR_PAGES);
		s.devices[i].within = nobody_writes_meanwhile;
	}
	for (int i = 0; i < NR_DEVICES; i++)
		expect_eq(kthread_run(&threads[nr++], "device", device, NULL), 0);
	for (int i = 0; i < NR_HOSTS; i++)
		expect_eq(kthread_run(&threads[nr++], "host", host, NULL), 0);
	expect_eq(kthread_run(&threads[nr++], "mover", mover, NULL), 0);
	while (nr)
		kthread_join(&threads[--nr]);

	expect_eq(test_read(mm, page(0)), atomic64_read(&s.increments));
	expect_ge(atomic64_read(&s.increments), (NR_DEVICES + NR_HOSTS) * s.rounds);
	for (int i = 0; i < NR_DEVICES; i++)
		mirror_destroy(&s.devices[i]);
	end();
}
