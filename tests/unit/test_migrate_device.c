/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages in a device's memory: how they go and come back, who may see them there, and what each kind
 * of change does to them. What happens meanwhile is in test_migrate_device_races.c.
 */
#include <errno.h>

#include <gnomon/swap.h>

#include "notifier/mm_internal.h"
#include "tests/support/device_fixture.h"

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
