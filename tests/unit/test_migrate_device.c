/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages in a device's memory: how they go and come back, who may see them there, what each kind of
 * change does to them, and that nothing is lost while several devices and the host pull.
 */
#include <errno.h>

#include <gnomon/swap.h>

#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/phys_internal.h"
#include "tests/support/mirror_device.h"
#include "tests/support/park.h"

#define BASE	   0x10000000UL
#define NR_PAGES   8
#define SHARED	   7 /* the last page */
#define NR_FRAMES  64
#define DEV_FRAMES 16
#define DEVICE	   HMM_PFN_DEVICE

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
}

static int64_t windows(enum mmu_notifier_event event)
{
	return atomic64_read(&cn.starts[event]);
}

static struct mm_stats stats(void)
{
	struct mm_stats now;

	mm_get_stats(mm, &now);
	return now;
}

static void begin(void)
{
	phys = test_phys(NR_FRAMES);
	mm = test_mm(phys);
	mapping = test_mapping(phys, 1);
	expect_eq(mm_mmap(mm, page(0), SHARED * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(mm_mmap(mm, page(SHARED), PAGE_SIZE, RW, mapping, 0), 0);
	mirror_create(&dev, mm, BASE, NR_PAGES);
	mirror_give_memory(&dev, DEV_FRAMES);
	cn.on_start = note_owner;
	counting_register(&cn, mm);
}

static uint64_t nr_in_device(const struct mirror_device *device)
{
	return DEV_FRAMES - device_memory_nr_free(device->memory);
}

static void end(void)
{
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mirror_destroy(&dev);
	mmput(mm);
	mirror_take_memory(&dev);
	address_space_put(mapping);
	test_phys_done(phys);
}

static uint64_t snapshot(struct mirror_device *device, unsigned int n)
{
	uint64_t found = 99;

	mirror_snapshot(device, n, 1, &found);
	return found;
}

/* Pages 0 to @nr - 1 hold 1, 2, ..., and are in the device's memory. */
static void put_in_device(unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		test_write(mm, page(i), i + 1);
	expect_eq(mirror_migrate(&dev, 0, nr), nr);
	expect_eq(nr_in_device(&dev), nr);
}

static void expect_in_ram(unsigned int n, uint64_t value)
{
	expect_eq(test_read(mm, page(n)), value);
	expect(mm_lookup_pfn(mm, page(n)) != INVALID_PFN);
	expect(!(snapshot(&dev, n) & DEVICE));
}

TEST(migrate_device, arguments)
{
	struct phys *other = test_phys(8);
	struct mm_struct *stranger = test_mm(other);

	begin();
	expect_eq(mm_migrate_to_device(mm, BASE + 1, PAGE_SIZE, dev.memory), -EINVAL);
	expect_eq(mm_migrate_to_device(mm, HVA_MAX, PAGE_SIZE, dev.memory), -EINVAL);
	expect_eq(mm_migrate_to_device(stranger, BASE, PAGE_SIZE, dev.memory), -EINVAL);
	expect_eq(mm_migrate_to_ram(mm, BASE, 1), -EINVAL);
	expect_eq(mm_migrate_to_device(mm, BASE, NR_PAGES * PAGE_SIZE, dev.memory), 0);
	expect_eq(mm_migrate_to_ram(mm, BASE, NR_PAGES * PAGE_SIZE), 0);
	expect_eq(windows(MMU_NOTIFY_MIGRATE), 0);
	mmput(stranger);
	test_phys_done(other);
	end();
}

/* Exact: which windows and whose, how many faults, where the frames are. */
TEST(migrate_device, there_and_back)
{
	begin();
	for (unsigned int i = 1; i < 4; i++)
		mirror_write(&dev, i, i);
	expect_eq(atomic64_read(&dev.faults), 3);
	expect_eq(stats().faults, 3);
	expect_eq(mirror_migrate(&dev, 0, NR_PAGES), 3);
	expect_eq(windows(MMU_NOTIFY_MIGRATE), 1);
	expect(last_owner == &dev);
	expect_eq(cn.start, page(1));
	expect_eq(cn.end, page(4));
	expect_eq(atomic64_read(&dev.copied), 3);
	expect_eq(atomic64_read(&dev.invalidated), 3);
	expect_eq(nr_in_device(&dev), 3);
	expect_eq(phys_nr_free(phys), NR_FRAMES);
	expect_eq(stats().pages_to_device, 3);

	/* The device: a fault of its own, none of the mm. The second time neither. */
	for (int round = 0; round < 2; round++) {
		for (unsigned int i = 1; i < 4; i++) {
			expect_eq(mirror_read(&dev, i), i);
			expect(dev.page[i].pfn & DEVICE);
			mirror_write(&dev, i, i);
		}
		expect_eq(atomic64_read(&dev.faults), 6);
		expect_eq(stats().faults, 3);
		expect_eq(windows(MMU_NOTIFY_MIGRATE), 1);
	}
	mirror_write(&dev, 2, 20);

	/* The host: a fault and a window for the page, none the second time. */
	expect_eq(mm_lookup_pfn(mm, page(2)), INVALID_PFN);
	for (int round = 0; round < 2; round++) {
		expect_eq(test_read(mm, page(2)), 20);
		expect_eq(stats().faults, 4);
		expect_eq(windows(MMU_NOTIFY_MIGRATE), 2);
	}
	expect(last_owner == &dev);
	expect_eq(cn.start, page(2));
	expect_eq(cn.end, page(3));
	expect_eq(dev.page[2].pfn, 0);
	expect(dev.page[1].pfn && dev.page[3].pfn);
	expect_eq(nr_in_device(&dev), 2);
	expect_eq(phys_nr_free(phys), NR_FRAMES - 1);
	expect_eq(mirror_read(&dev, 2), 20);
	expect(!(dev.page[2].pfn & DEVICE));

	expect_eq(mm_migrate_to_ram(mm, BASE, NR_PAGES * PAGE_SIZE), 2);
	expect_eq(windows(MMU_NOTIFY_MIGRATE), 4);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(stats().pages_to_ram, 3);
	expect_eq(windows(MMU_NOTIFY_CLEAR), 0);
	expect_in_ram(1, 1);
	expect_in_ram(3, 3);
	end();
}

/* Only who owns the memory sees it; a stranger gets the page, if it wants it. */
TEST(migrate_device, only_the_owner_sees_it)
{
	struct mirror_device other;
	uint64_t found;
	struct hmm_range range = {.start = page(0),
				  .end = page(1),
				  .hmm_pfns = &found,
				  .dev_private_owner = NULL};

	begin();
	mirror_create(&other, mm, BASE, NR_PAGES);
	put_in_device(2);
	expect_eq(snapshot(&dev, 0) & (DEVICE | HMM_PFN_VALID), DEVICE | HMM_PFN_VALID);
	expect_eq(snapshot(&other, 0), 0);
	expect_eq(mirror_read(&dev, 0), 1);

	/* Nobody is nobody's owner. */
	range.notifier = &dev.sub;
	range.notifier_seq = mmu_interval_read_begin(&dev.sub);
	mmap_read_lock(mm);
	expect_eq(hmm_range_fault(&range), 0);
	mmap_read_unlock(mm);
	expect_eq(found, 0);
	expect_eq(nr_in_device(&dev), 2);

	expect_eq(mirror_read(&other, 0), 1);
	expect_eq(nr_in_device(&dev), 1);
	expect_eq(dev.page[0].pfn, 0);
	expect_eq(mirror_read(&dev, 0), 1);
	expect_eq(hmm_pfn_to_pfn(dev.page[0].pfn), hmm_pfn_to_pfn(other.page[0].pfn));
	mirror_destroy(&other);
	end();
}

static void from_one_to_the_other(struct mirror_device *a, struct mirror_device *b)
{
	expect_eq(mirror_migrate(a, 0, 1), 1);
	expect_eq(mirror_read(a, 0), 7);
	/* A page that is out of RAM is nobody's to move but its device's. */
	expect_eq(mirror_migrate(b, 0, 1), 0);
	expect_eq(mirror_increment(b, 0), 0);
	expect_eq(test_read(mm, page(0)), 8);
	mirror_write(b, 0, 7);
}

TEST(migrate_device, two_with_memory)
{
	struct mirror_device other;

	begin();
	mirror_create(&other, mm, BASE, NR_PAGES);
	mirror_give_memory(&other, 4);
	test_write(mm, page(0), 7);
	from_one_to_the_other(&dev, &other);
	from_one_to_the_other(&other, &dev);
	mirror_destroy(&other);
	mirror_take_memory(&other);
	end();
}

/* What stays: shared, mapped by a child as well, pinned, exclusively another's, only looked at. */
TEST(migrate_device, what_does_not_go)
{
	struct mm_struct *child;
	pfn_t pfn;

	begin();
	for (unsigned int i = 0; i < NR_PAGES; i++)
		test_write(mm, page(i), i + 1);
	expect_eq(mirror_migrate(&dev, SHARED, 1), 0);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(mirror_migrate(&dev, 0, NR_PAGES), 0);
	mmput(child);
	expect_eq(mm_pin_page(mm, page(0), true, &pfn), 0);
	expect_eq(mirror_migrate(&dev, 0, 1), 0);
	mm_unpin_page(mm, pfn, true);
	expect_eq(windows(MMU_NOTIFY_MIGRATE), 0);

	/* A reader holds a reference: the window was in vain. */
	expect_eq(mm_pin_page(mm, page(0), false, &pfn), 0);
	expect_eq(mirror_migrate(&dev, 0, 1), 0);
	expect_eq(mm_lookup_pfn(mm, page(0)), pfn);
	mm_unpin_page(mm, pfn, false);
	expect_eq(nr_in_device(&dev), 0);

	expect_eq(mirror_migrate(&dev, 0, NR_PAGES), SHARED);
	for (unsigned int i = 0; i < NR_PAGES; i++)
		expect_eq(test_read(mm, page(i)), i + 1);
	end();
}

/* A page in the swap cache is in one more place while anybody has the slot. */
TEST(migrate_device, with_swap)
{
	struct mm_struct *child;

	begin();
	expect_eq(phys_swap_on(phys, "/tmp", 8), 0);
	test_write(mm, page(0), 5);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(mm_madvise(mm, page(0), PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	expect_eq(mirror_migrate(&dev, 0, 1), 0);
	expect_eq(test_read(mm, page(0)), 5);
	expect_eq(mirror_migrate(&dev, 0, 1), 0);
	mmput(child);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	mirror_write(&dev, 0, 6);

	/* What is in a device is not reclaim's to take; what came back is, and is written anew. */
	expect_eq(mm_madvise(mm, page(0), PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	expect_eq(nr_in_device(&dev), 1);
	expect_eq(mm_migrate_to_ram(mm, page(0), PAGE_SIZE), 1);
	expect_eq(mm_madvise(mm, page(0), PAGE_SIZE, MM_MADV_PAGEOUT), 0);
	expect_eq(phys_nr_free(phys), NR_FRAMES);
	expect_eq(test_read(mm, page(0)), 6);
	expect_eq(mm_munmap(mm, page(0), PAGE_SIZE), 0);
	expect_eq(phys_swap_off(phys), 0);
	end();
}

TEST(migrate_device, out_of_frames)
{
	struct mirror_device small;
	uint64_t value;
	pfn_t hog[NR_FRAMES];
	unsigned int nr = 0;

	begin();
	mirror_create(&small, mm, BASE, NR_PAGES);
	mirror_give_memory(&small, 2);
	for (unsigned int i = 0; i < 4; i++)
		test_write(mm, page(i), i + 1);
	expect_eq(mirror_migrate(&small, 0, 4), 2);
	expect_eq(mirror_migrate(&small, 0, 4), -ENOMEM);
	expect_eq(mirror_read(&small, 1), 2);

	/* And no frame to come back to: the page stays where it is. */
	while ((hog[nr] = phys_alloc(phys)) != INVALID_PFN)
		nr++;
	expect_eq(mm_read(mm, page(0), &value, sizeof(value)), -ENOMEM);
	expect_eq(mm_migrate_to_ram(mm, page(0), 2 * PAGE_SIZE), -ENOMEM);
	expect_eq(mm_fork(mm, &(struct mm_struct *){NULL}), -ENOMEM);
	expect_eq(mirror_read(&small, 0), 1);
	phys_put(phys, hog[--nr]);
	expect_eq(mm_migrate_to_ram(mm, page(0), 2 * PAGE_SIZE), 1);
	while (nr)
		phys_put(phys, hog[--nr]);
	expect_in_ram(0, 1);
	expect_in_ram(1, 2);
	mirror_destroy(&small);
	mirror_take_memory(&small);
	end();
}

/* More than a batch of 64 pages: a window for each batch. */
TEST(migrate_device, in_batches)
{
	const unsigned int nr = 130;
	struct device_memory *memory;
	hva_t at = 0x40000000;

	phys = test_phys(nr);
	mm = test_mm(phys);
	expect_eq(mm_mmap(mm, at, nr * PAGE_SIZE, RW, NULL, 0), 0);
	expect_eq(device_memory_create(phys, nr, mirror_memory_ops(), &dev, &memory), 0);
	counting_register(&cn, mm);
	for (unsigned int i = 0; i < nr; i++)
		test_write(mm, at + i * PAGE_SIZE, i);
	expect_eq(mm_migrate_to_device(mm, at, nr * PAGE_SIZE, memory), nr);
	expect_eq(windows(MMU_NOTIFY_MIGRATE), 3);
	expect_eq(phys_nr_free(phys), nr);
	expect_eq(device_memory_nr_free(memory), 0);
	for (unsigned int i = 0; i < nr; i++)
		expect_eq(test_read(mm, at + i * PAGE_SIZE), i);
	expect_eq(device_memory_nr_free(memory), nr);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	device_memory_destroy(memory);
	test_phys_done(phys);
}

/* ---- what may happen to a page that is there ---- */

TEST(migrate_device, fork_brings_it_back)
{
	struct mm_struct *child;

	begin();
	put_in_device(2);
	mirror_write(&dev, 0, 5);
	expect_eq(mm_fork(mm, &child), 0);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(dev.page[0].pfn, 0);
	mirror_write(&dev, 0, 6);
	expect_eq(test_read(child, page(0)), 5);
	expect_eq(test_read(child, page(1)), 2);
	expect_in_ram(0, 6);
	mmput(child);
	end();
}

TEST(migrate_device, zap_unmap_and_exit_free_it)
{
	begin();
	put_in_device(4);
	mirror_read(&dev, 0);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(nr_in_device(&dev), 3);
	expect_eq(dev.page[0].pfn, 0);
	expect_eq(mirror_read(&dev, 0), 0);
	mirror_read(&dev, 1);
	expect_eq(mm_munmap(mm, page(1), PAGE_SIZE), 0);
	expect_eq(nr_in_device(&dev), 2);
	expect_eq(dev.page[1].pfn, 0);
	expect_eq(mirror_fault(&dev, 1, HMM_PFN_REQ_FAULT), -EFAULT);
	mirror_read(&dev, 2);
	mmu_notifier_unregister(&cn.mn, mm);
	mmput(mm);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(dev.page[2].pfn, 0);
	mirror_destroy(&dev);
	mirror_take_memory(&dev);
	address_space_put(mapping);
	test_phys_done(phys);
}

TEST(migrate_device, mprotect_narrows_it)
{
	uint64_t value = 5;

	begin();
	put_in_device(1);
	mirror_write(&dev, 0, 5);
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, MM_PROT_READ), 0);
	expect_eq(dev.page[0].pfn, 0);
	expect_eq(mirror_fault(&dev, 0, HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE), -EPERM);
	expect_eq(mirror_read(&dev, 0), 5);
	expect(!(dev.page[0].pfn & HMM_PFN_WRITE));

	/* It gets back what the area allows again, without a way through RAM. */
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, RW), 0);
	mirror_write(&dev, 0, 6);
	expect(dev.page[0].pfn & DEVICE);
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(mirror_fault(&dev, 0, HMM_PFN_REQ_FAULT), -EFAULT);
	expect_eq(snapshot(&dev, 0), HMM_PFN_ERROR);
	expect_eq(nr_in_device(&dev), 1);
	expect_eq(mm_read(mm, page(0), &value, sizeof(value)), -EFAULT);
	expect_eq(mm_mprotect(mm, page(0), PAGE_SIZE, MM_PROT_READ), 0);
	/* Nothing was given back yet, and a snapshot changes nothing. */
	expect_eq(snapshot(&dev, 0), 0);
	expect_eq(test_read(mm, page(0)), 6);
	expect_eq(mm_write(mm, page(0), &value, sizeof(value)), -EFAULT);
	end();
}

TEST(migrate_device, mremap_takes_it_along)
{
	hva_t to = page(100);

	begin();
	put_in_device(2);
	mirror_write(&dev, 0, 5);
	expect_eq(mm_mremap(mm, page(0), PAGE_SIZE, PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &to),
		  0);
	expect_eq(dev.page[0].pfn, 0);
	expect_eq(nr_in_device(&dev), 2);
	expect_eq(mirror_fault(&dev, 0, HMM_PFN_REQ_FAULT), -EFAULT);
	expect_eq(test_read(mm, to), 5);
	expect_eq(nr_in_device(&dev), 1);
	/* It can be found from its frame, where it is now. */
	expect_eq(migrate_frame(phys, mm_lookup_pfn(mm, to)), 0);
	expect_eq(test_read(mm, to), 5);
	end();
}

TEST(migrate_device, soft_dirty)
{
	uint64_t bitmap;

	begin();
	put_in_device(2);
	mm_clear_soft_dirty(mm);
	expect_eq(mm_test_soft_dirty(mm, page(0), 2 * PAGE_SIZE, &bitmap), 0);
	expect_eq(mirror_read(&dev, 0), 1);
	mirror_write(&dev, 1, 9);
	expect(dev.page[1].pfn & DEVICE);
	expect_eq(mm_test_soft_dirty(mm, page(0), 2 * PAGE_SIZE, &bitmap), 1);
	expect_eq(bitmap, 2);
	/* Coming back is no write, and forgets none. */
	expect_eq(test_read(mm, page(0)), 1);
	expect_eq(test_read(mm, page(1)), 9);
	expect_eq(mm_test_soft_dirty(mm, page(0), 2 * PAGE_SIZE, &bitmap), 1);
	expect_eq(bitmap, 2);
	end();
}

/* A move within RAM passes it by; it wants no frame of RAM. */
TEST(migrate_device, is_not_moved_elsewhere)
{
	begin();
	put_in_device(2);
	expect_eq(mm_migrate_range(mm, page(0), NR_PAGES * PAGE_SIZE), 0);
	expect_eq(nr_in_device(&dev), 2);
	end();
}

TEST(migrate_device, changes_need_a_window)
{
	const pte_t there =
		pte_make(7, PTE_DEVICE | 1UL << PTE_DEVICE_SHIFT | PTE_READ | PTE_WRITE);

	expect(pte_change_needs_window(there, 0));
	expect(pte_change_needs_window(there, pte_make(7, PTE_PRESENT | PTE_READ | PTE_WRITE)));
	expect(pte_change_needs_window(there, there & ~PTE_WRITE));
	expect(pte_change_needs_window(there, there ^ 3UL << PTE_DEVICE_SHIFT));
	expect(!pte_change_needs_window(there, there | PTE_DIRTY));
}

/* ---- races, in the order that they are about ---- */

static void migrate_once(struct mirror_device *device)
{
	device->before_lock = NULL;
	expect_eq(mirror_migrate(device, 0, 1), 1);
}

static void bring_once(struct mirror_device *device)
{
	device->before_lock = NULL;
	expect_eq(test_read(device->mm, page(0)), 5);
}

/* The ladder of migrate_device.c, and the other way round. */
TEST(migrate_device, migrated_before_the_lock)
{
	begin();
	test_write(mm, page(0), 5);
	dev.before_lock = migrate_once;
	expect_eq(mirror_read(&dev, 0), 5);
	expect(dev.page[0].pfn & DEVICE);
	expect_eq(atomic64_read(&dev.retries), 1);

	mm_clear_soft_dirty(mm);
	dev.before_lock = bring_once;
	expect_eq(mirror_read(&dev, 0), 5);
	expect(!(dev.page[0].pfn & DEVICE));
	expect_eq(atomic64_read(&dev.retries), 2);
	end();
}

/* A device whose copies stop half way, with the entry a migration entry. */
static struct park half_way;

static void parked_to_device(struct device_memory *memory, struct mm_struct *of, hva_t hva,
			     pfn_t pfn, const void *ram)
{
	park_enter(&half_way);
	mirror_copy_to_device(memory, of, hva, pfn, ram);
}

static void parked_to_ram(struct device_memory *memory, struct mm_struct *of, hva_t hva, pfn_t pfn,
			  void *ram)
{
	park_enter(&half_way);
	mirror_copy_to_ram(memory, of, hva, pfn, ram);
}

static const struct device_memory_ops parked_ops = {
	.copy_to_device = parked_to_device,
	.copy_to_ram = parked_to_ram,
};

static void migrate_it(void *arg)
{
	*(long *)arg = mirror_migrate(&dev, 0, 1);
}

static void read_it(void *arg)
{
	*(uint64_t *)arg = test_read(mm, page(0));
}

static void begin_parked(void)
{
	begin();
	mirror_take_memory(&dev);
	expect_eq(device_memory_create(phys, DEV_FRAMES, &parked_ops, &dev, &dev.memory), 0);
	park_init(&half_way);
	test_write(mm, page(0), 5);
}

/* A zap wins, there and back: the next touch finds zeroes, and no frame is left over. */
TEST(migrate_device, zapped_on_the_way_there)
{
	struct kthread mover;
	long moved = -1;

	begin_parked();
	expect_eq(kthread_run(&mover, "mover", migrate_it, &moved), 0);
	park_wait(&half_way, 1);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	expect_eq(test_read(mm, page(0)), 0);
	park_release(&half_way);
	kthread_join(&mover);
	expect_eq(moved, 0);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(phys_nr_free(phys), NR_FRAMES - 1);
	expect_eq(test_read(mm, page(0)), 0);
	end();
}

TEST(migrate_device, zapped_on_the_way_back)
{
	struct kthread reader;
	uint64_t value = 99;

	begin_parked();
	park_release(&half_way);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	park_init(&half_way);
	expect_eq(kthread_run(&reader, "reader", read_it, &value), 0);
	park_wait(&half_way, 1);
	expect_eq(mm_zap_range(mm, page(0), PAGE_SIZE), 1);
	park_release(&half_way);
	kthread_join(&reader);
	/* It came before the zap, or behind. */
	expect(value == 5 || value == 0);
	expect_eq(nr_in_device(&dev), 0);
	expect_eq(test_read(mm, page(0)), 0);
	end();
}

/* Of several who want the page one brings it, and the others wait: one copy, one frame. */
TEST(migrate_device, one_brings_it_back)
{
	struct kthread readers[4];
	uint64_t value[4] = {0};

	begin_parked();
	park_release(&half_way);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	park_init(&half_way);
	for (int i = 0; i < 4; i++)
		expect_eq(kthread_run(&readers[i], "reader", read_it, &value[i]), 0);
	park_wait(&half_way, 1);
	park_release(&half_way);
	for (int i = 0; i < 4; i++) {
		kthread_join(&readers[i]);
		expect_eq(value[i], 5);
	}
	expect_eq(atomic64_read(&dev.copied), 2);
	expect_eq(stats().pages_to_ram, 1);
	expect_eq(phys_nr_free(phys), NR_FRAMES - 1);
	end();
}

/* ---- half of what it reads is torn down meanwhile (kernel: anon_teardown of hmm-tests) ---- */

#define HALF (SHARED / 2)

static struct teardown {
	atomic64_t passes, right, errors;
	atomic_t torn, over;
} t;

static void read_all(bool torn)
{
	for (unsigned int n = 0; n < SHARED; n++) {
		uint64_t value = 99;
		int ret = mirror_read_or_fail(&dev, n, &value);

		if (ret) {
			expect_eq(ret, -EFAULT);
			expect_ge(n, HALF);
			atomic64_inc(&t.errors);
		} else {
			expect_eq(value, n + 1);
			expect(n < HALF || !torn);
			atomic64_inc(&t.right);
		}
	}
	atomic64_inc_return(&t.passes);
}

static void reader(void *arg)
{
	(void)arg;
	while (!atomic_read_acquire(&t.over))
		read_all(atomic_read_acquire(&t.torn));
}

static void wait_for_passes(int64_t nr)
{
	int64_t until = atomic64_read(&t.passes) + nr;

	while (atomic64_read(&t.passes) < until)
		sched_yield();
}

TEST(migrate_device, teardown_while_it_reads)
{
	const uint64_t rounds = test_volume(100);
	struct kthread reading;

	begin();
	for (uint64_t round = 0; round < rounds; round++) {
		for (unsigned int n = 0; n < SHARED; n++)
			test_write(mm, page(n), n + 1);
		for (unsigned int n = round % 2; n < SHARED; n += 2)
			expect_eq(mirror_migrate(&dev, n, 1), 1);
		atomic_set(&t.torn, 0);
		atomic_set(&t.over, 0);
		expect_eq(kthread_run(&reading, "reader", reader, NULL), 0);
		if (round % 4)
			wait_for_passes((int64_t)round % 4 - 1);
		expect_eq(mm_munmap(mm, page(HALF), (SHARED - HALF) * PAGE_SIZE), 0);
		atomic_set_release(&t.torn, 1);
		wait_for_passes(2);
		atomic_set_release(&t.over, 1);
		kthread_join(&reading);
		expect_eq(mm_mmap(mm, page(HALF), (SHARED - HALF) * PAGE_SIZE, RW, NULL, 0), 0);
	}
	expect_ge(atomic64_read(&t.right), 2 * HALF * rounds);
	expect_ge(atomic64_read(&t.errors), (SHARED - HALF) * rounds);
	end();
}

/* ---- everything at once ---- */

#define NR_OWNERS 4

/*
 * Each page has one thread that writes it, through the host or a device, and so knows what is in
 * it; all move it about, fork, and clear.
 */
static struct stress {
	struct mirror_device devices[2];
	uint64_t rounds;
	atomic_t next_owner, owners_left;
	atomic64_t forks;
} s;

static bool goes_on(uint64_t round)
{
	struct mm_stats now = stats();

	return round < s.rounds || now.pages_to_device < s.rounds || now.pages_to_ram < s.rounds ||
	       now.pages_migrated < s.rounds / 10 || atomic64_read(&s.forks) < 10;
}

static void change(unsigned int n, uint64_t round, uint64_t *value)
{
	struct mirror_device *device = &s.devices[round / 4 % 2];

	switch (round % 4) {
	case 0:
		test_write(mm, page(n), *value += 10);
		break;
	case 1:
		mirror_write(device, n, *value += 10);
		break;
	case 2:
		expect_eq(mirror_increment(device, n), 0);
		*value += 1;
		break;
	default:
		if (round % 32 != 31)
			break;
		expect_eq(mm_zap_range(mm, page(n), PAGE_SIZE), 1);
		*value = 0;
	}
}

static void owner(void *arg)
{
	unsigned int me = (unsigned int)atomic_inc_return(&s.next_owner) - 1;
	uint64_t value[SHARED] = {0};

	(void)arg;
	for (uint64_t round = 0; goes_on(round); round++) {
		for (unsigned int n = me; n < SHARED; n += NR_OWNERS) {
			change(n, round, &value[n]);
			expect_ge(mirror_migrate(&s.devices[round % 2], n, 1), 0);
			expect_eq(mirror_read(&s.devices[round / 2 % 2], n), value[n]);
			if (round % 3 == 0)
				expect_eq(test_read(mm, page(n)), value[n]);
		}
	}
	atomic_dec(&s.owners_left);
}

/* Waits until somebody came through: or nobody would, for all the windows. */
static void disturber(void *arg)
{
	int64_t seen = 0;

	(void)arg;
	for (uint64_t i = 0; atomic_read(&s.owners_left); i++) {
		struct mm_struct *child;

		while (atomic_read(&s.owners_left) &&
		       atomic64_read(&s.devices[i % 2].accesses) == seen)
			sched_yield();
		seen = atomic64_read(&s.devices[(i + 1) % 2].accesses);
		expect_ge(mm_migrate_range(mm, page(0), SHARED * PAGE_SIZE), 0);
		if (i % 16 == 1)
			mm_clear_soft_dirty(mm);
		if (i % 16 != 0)
			continue;
		expect_eq(mm_fork(mm, &child), 0);
		mmput(child);
		atomic64_inc(&s.forks);
	}
}

TEST(migrate_device, right_data_always)
{
	struct kthread threads[NR_OWNERS + 1];
	int nr = 0;

	begin();
	s.rounds = test_volume(1000);
	atomic_set(&s.owners_left, NR_OWNERS);
	for (int i = 0; i < 2; i++) {
		mirror_create(&s.devices[i], mm, BASE, NR_PAGES);
		mirror_give_memory(&s.devices[i], DEV_FRAMES);
	}
	for (int i = 0; i < NR_OWNERS; i++)
		expect_eq(kthread_run(&threads[nr++], "owner", owner, NULL), 0);
	expect_eq(kthread_run(&threads[nr++], "disturber", disturber, NULL), 0);
	while (nr)
		kthread_join(&threads[--nr]);

	expect_ge(mm_migrate_to_ram(mm, BASE, NR_PAGES * PAGE_SIZE), 0);
	for (int i = 0; i < 2; i++) {
		mirror_destroy(&s.devices[i]);
		mirror_take_memory(&s.devices[i]);
	}
	end();
}
