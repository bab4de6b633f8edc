/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of devices as objects: making and unmaking them, how an entry names one, and a device that
 * ends while a late fault still looks at a page of it.
 */
#include <errno.h>

#include "notifier/device_memory.h"
#include "notifier/phys_internal.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/mirror_device.h"
#include "tests/support/park.h"

#define BASE 0x10000000UL

static struct phys *phys;
static struct mm_struct *mm;

static void begin(void)
{
	phys = test_phys(16);
	mm = test_mm(phys);
	expect_eq(mm_mmap(mm, BASE, 4 * PAGE_SIZE, RW, NULL, 0), 0);
}

static void end(void)
{
	mmput(mm);
	test_phys_done(phys);
}

static struct device_memory *create(void *owner)
{
	struct device_memory *dev = NULL;

	expect_eq(device_memory_create(phys, 4, mirror_memory_ops(), owner, &dev), 0);
	return dev;
}

TEST(device_memory, arguments)
{
	struct device_memory_ops half = *mirror_memory_ops();
	struct device_memory *dev;
	int owner;

	begin();
	expect_eq(device_memory_create(phys, 4, mirror_memory_ops(), NULL, &dev), -EINVAL);
	expect_eq(device_memory_create(phys, 0, mirror_memory_ops(), &owner, &dev), -EINVAL);
	half.copy_to_ram = NULL;
	expect_eq(device_memory_create(phys, 4, &half, &owner, &dev), -EINVAL);
	half = *mirror_memory_ops();
	half.copy_to_device = NULL;
	expect_eq(device_memory_create(phys, 4, &half, &owner, &dev), -EINVAL);
	device_memory_destroy(NULL);
	end();
}

/* Each allocation of a creation in turn: an error, and nothing is left behind. */
TEST(device_memory, no_memory)
{
	struct device_memory *dev = NULL;
	int64_t site = 0, live;
	bool failed;
	int owner, ret;

	begin();
	live = atomic64_read(&allocs.live);
	do {
		alloc_fail_at(site++);
		ret = device_memory_create(phys, 4, mirror_memory_ops(), &owner, &dev);
		failed = alloc_failed();
		if (failed) {
			expect_eq(ret, -ENOMEM);
			expect_eq(atomic64_read(&allocs.live), live);
		}
	} while (failed);
	expect_eq(ret, 0);
	expect_ge(site, 4);
	device_memory_destroy(dev);
	expect_eq(atomic64_read(&allocs.live), live);
	end();
}

/* As many as there are numbers; a number that is given back is given out again. */
TEST(device_memory, numbers)
{
	struct device_memory *dev[PHYS_MAX_DEVICES], *more;
	int owner;

	begin();
	for (unsigned int i = 0; i < PHYS_MAX_DEVICES; i++) {
		dev[i] = create(&owner);
		expect(dev[i]->id);
		for (unsigned int other = 0; other < i; other++)
			expect(dev[other]->id != dev[i]->id);
	}
	expect_eq(device_memory_create(phys, 4, mirror_memory_ops(), &owner, &more), -ENOSPC);
	device_memory_destroy(dev[5]);
	dev[5] = create(&owner);
	expect(device_memory_owner(dev[5]) == &owner);
	expect_eq(device_memory_nr_free(dev[5]), 4);
	for (unsigned int i = 0; i < PHYS_MAX_DEVICES; i++)
		device_memory_destroy(dev[i]);
	end();
}

/* Two machines may give the same number. */
TEST(device_memory, machines_are_apart)
{
	struct mirror_device here, there;
	struct phys *other = test_phys(16);
	struct mm_struct *stranger = test_mm(other);

	begin();
	expect_eq(mm_mmap(stranger, BASE, 4 * PAGE_SIZE, RW, NULL, 0), 0);
	mirror_create(&here, mm, BASE, 4);
	mirror_create(&there, stranger, BASE, 4);
	mirror_give_memory(&here, 4);
	mirror_give_memory(&there, 4);
	expect_eq(here.memory->id, there.memory->id);
	test_write(mm, BASE, 1);
	test_write(stranger, BASE, 2);
	expect_eq(mirror_migrate(&here, 0, 1), 1);
	expect_eq(mirror_migrate(&there, 0, 1), 1);
	expect_eq(mirror_read(&here, 0), 1);
	expect_eq(mirror_read(&there, 0), 2);
	expect_eq(test_read(mm, BASE), 1);
	expect_eq(test_read(stranger, BASE), 2);
	mirror_destroy(&here);
	mirror_destroy(&there);
	mirror_take_memory(&here);
	mirror_take_memory(&there);
	mmput(stranger);
	test_phys_done(other);
	end();
}

static void destroy(void *dev)
{
	device_memory_destroy(dev);
}

TEST(device_memory, a_page_in_it_is_a_bug)
{
	struct mirror_device dev;

	begin();
	mirror_create(&dev, mm, BASE, 4);
	mirror_give_memory(&dev, 4);
	test_write(mm, BASE, 1);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	expect_bug(destroy, dev.memory, "no page is in the memory of a device that goes");
	expect_eq(mm_migrate_to_ram(mm, BASE, PAGE_SIZE), 1);
	mirror_destroy(&dev);
	mirror_take_memory(&dev);
	end();
}

/* What a device's frame held is gone with the page, as in RAM. */
TEST(device_memory, freed_frames_are_poisoned)
{
	struct mirror_device dev;
	pfn_t pfn;

	begin();
	mirror_create(&dev, mm, BASE, 4);
	mirror_give_memory(&dev, 4);
	test_write(mm, BASE, 1);
	expect_eq(mirror_migrate(&dev, 0, 1), 1);
	mirror_read(&dev, 0);
	pfn = hmm_pfn_to_pfn(dev.page[0].pfn);
	expect_eq(*(uint64_t *)device_memory_map(dev.memory, pfn), 1);
	expect_eq(mm_migrate_to_ram(mm, BASE, PAGE_SIZE), 1);
	expect_eq(*(uint64_t *)device_memory_map(dev.memory, pfn), PHYS_POISON);
	mirror_destroy(&dev);
	mirror_take_memory(&dev);
	end();
}

/* ---- the ladder of device_memory.c ---- */

static struct late {
	struct mirror_device dev;
	struct device_memory *memory;
	pfn_t pfn;
	struct park found;
	atomic_t destroyed;
} late;

/* As a fault that goes to sleep over its allocation. */
static void come_late(void *arg)
{
	(void)arg;
	late.memory = get_device_page(mm, pgtable_lookup(mm->pgtable, BASE), &late.pfn);
	expect(late.memory == late.dev.memory);
	park_enter(&late.found);
	expect(!atomic_read(&late.destroyed));
	expect_eq(device_memory_nr_free(late.memory), 3);
	put_device_page(late.memory, late.pfn);
}

static void destroy_it(void *arg)
{
	(void)arg;
	mirror_take_memory(&late.dev);
	atomic_set(&late.destroyed, 1);
}

TEST(device_memory, waits_for_who_comes_late)
{
	struct kthread fault, destroyer;

	begin();
	mirror_create(&late.dev, mm, BASE, 4);
	mirror_give_memory(&late.dev, 4);
	test_write(mm, BASE, 1);
	expect_eq(mirror_migrate(&late.dev, 0, 1), 1);
	park_init(&late.found);
	expect_eq(kthread_run(&fault, "fault", come_late, NULL), 0);
	park_wait(&late.found, 1);
	expect_eq(mm_zap_range(mm, BASE, PAGE_SIZE), 1);
	expect_eq(kthread_run(&destroyer, "destroyer", destroy_it, NULL), 0);
	/* It has dropped its own, and waits. */
	while (refcount_read(&late.dev.memory->users) != 1)
		sched_yield();
	park_release(&late.found);
	kthread_join(&fault);
	kthread_join(&destroyer);
	mirror_destroy(&late.dev);
	end();
}
