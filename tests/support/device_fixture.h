/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of migration to a device have in common: an mm with private pages and a shared one, a
 * mirror device with memory, and a notifier that counts windows and keeps the last owner.
 */
#ifndef TESTS_SUPPORT_DEVICE_FIXTURE_H
#define TESTS_SUPPORT_DEVICE_FIXTURE_H

#include "tests/support/mirror_device.h"

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

static inline hva_t page(uint64_t n)
{
	return BASE + n * PAGE_SIZE;
}

static inline void note_owner(struct counting_notifier *counting,
			      const struct mmu_notifier_range *range)
{
	(void)counting;
	WRITE_ONCE(last_owner, range->owner);
}

static inline int64_t windows(enum mmu_notifier_event event)
{
	return atomic64_read(&cn.starts[event]);
}

static inline struct mm_stats stats(void)
{
	struct mm_stats now;

	mm_get_stats(mm, &now);
	return now;
}

static inline void begin(void)
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

static inline uint64_t nr_in_device(const struct mirror_device *device)
{
	return DEV_FRAMES - device_memory_nr_free(device->memory);
}

static inline void end(void)
{
	counting_expect_paired(&cn);
	mmu_notifier_unregister(&cn.mn, mm);
	mirror_destroy(&dev);
	mmput(mm);
	mirror_take_memory(&dev);
	address_space_put(mapping);
	test_phys_done(phys);
}

static inline uint64_t snapshot(struct mirror_device *device, unsigned int n)
{
	uint64_t found = 99;

	mirror_snapshot(device, n, 1, &found);
	return found;
}

/* Pages 0 to @nr - 1 hold 1, 2, ..., and are in the device's memory. */
static inline void put_in_device(unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		test_write(mm, page(i), i + 1);
	expect_eq(mirror_migrate(&dev, 0, nr), nr);
	expect_eq(nr_in_device(&dev), nr);
}

static inline void expect_in_ram(unsigned int n, uint64_t value)
{
	expect_eq(test_read(mm, page(n)), value);
	expect(mm_lookup_pfn(mm, page(n)) != INVALID_PFN);
	expect(!(snapshot(&dev, n) & DEVICE));
}

#endif
