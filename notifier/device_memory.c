// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Memory of devices: making and unmaking it, and from an entry to the device that it names
 * (device_memory.h). The table of devices is part of the machine's struct phys: no entry outlives
 * what it names, and two machines know nothing of each other's devices.
 *
 * The end of a device, against a fault that found a page of it and came late:
 *
 *   fault                                     whoever ends the device
 *   -----                                     ------------------------
 *   page_table_lock: the entry names device 1, frame F
 *     F.refcount++, users++
 *                                             zaps the page: entry := none, F.refcount--
 *                                             device_memory_destroy: nothing names it, but users
 *                                               is not zero: waits
 *   window; the entry is another: looks again
 *   F.refcount-- (frees it), users--
 *                                             frees the pool
 */
#include "notifier/device_memory.h"

#include <errno.h>

#include "notifier/phys_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"
#include "notifier/sync/wait.h"

static_assert(PHYS_MAX_DEVICES <= PTE_DEVICE_MASK >> PTE_DEVICE_SHIFT, "an entry can name each");

/* 0, or -ENOSPC. */
static int give_number(struct phys *ram, struct device_memory *dev)
{
	spin_lock(&ram->lock);
	for (unsigned int i = 0; i < ARRAY_SIZE(ram->devices) && !dev->id; i++) {
		if (ram->devices[i])
			continue;
		dev->id = i + 1;
		ram->devices[i] = dev;
	}
	spin_unlock(&ram->lock);
	return dev->id ? 0 : -ENOSPC;
}

int device_memory_create(struct phys *ram, uint64_t nr_frames, const struct device_memory_ops *ops,
			 void *owner, struct device_memory **devp)
{
	struct device_memory *dev;
	int ret;

	if (!owner || !ops->copy_to_device || !ops->copy_to_ram)
		return -EINVAL;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	dev->ram = ram;
	dev->ops = ops;
	dev->owner = owner;
	refcount_set(&dev->users, 1);
	ret = phys_create(&dev->frames, nr_frames);
	if (ret)
		goto err_free;
	ret = give_number(ram, dev);
	if (ret)
		goto err_frames;
	*devp = dev;
	return 0;

err_frames:
	phys_destroy(dev->frames);
err_free:
	kfree(dev);
	return ret;
}

/* Of the machine: it outlives its devices. */
static wait_queue_head_t *idle_queue(struct phys *ram, unsigned int id)
{
	return frame_waitqueue(ram, id);
}

static void put_user(struct device_memory *dev)
{
	struct phys *ram = dev->ram;
	unsigned int id = dev->id;

	if (refcount_dec_and_test(&dev->users))
		wake_up_all(idle_queue(ram, id));
}

void device_memory_destroy(struct device_memory *dev)
{
	if (!dev)
		return;
	might_sleep();
	put_user(dev);
	wait_event(*idle_queue(dev->ram, dev->id), !refcount_read(&dev->users));
	ASSERT(phys_nr_free(dev->frames) == phys_nr_frames(dev->frames),
	       "no page is in the memory of a device that goes: %llu are",
	       (unsigned long long)(phys_nr_frames(dev->frames) - phys_nr_free(dev->frames)));

	spin_lock(&dev->ram->lock);
	dev->ram->devices[dev->id - 1] = NULL;
	spin_unlock(&dev->ram->lock);
	phys_destroy(dev->frames);
	kfree(dev);
}

void *device_memory_map(const struct device_memory *dev, pfn_t pfn)
{
	return phys_map(dev->frames, pfn);
}

uint64_t device_memory_nr_free(const struct device_memory *dev)
{
	return phys_nr_free(dev->frames);
}

void *device_memory_owner(const struct device_memory *dev)
{
	return dev->owner;
}

/* The slot was filled before the entry was made, and is emptied after the last one went. */
struct device_memory *device_of_entry(struct mm_struct *mm, pte_t pte)
{
	unsigned int id = (pte & PTE_DEVICE_MASK) >> PTE_DEVICE_SHIFT;

	lockdep_assert_held(&mm->page_table_lock);
	ASSERT(pte_device(pte) && id && mm->phys->devices[id - 1],
	       "an entry names a device that is there: %#llx", (unsigned long long)pte);
	return mm->phys->devices[id - 1];
}

struct device_memory *get_device_page(struct mm_struct *mm, pte_t *ptep, pfn_t *pfn)
{
	struct device_memory *dev = NULL;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	if (pte_device(pte)) {
		dev = device_of_entry(mm, pte);
		*pfn = pte_pfn(pte);
		phys_get(dev->frames, *pfn);
		refcount_inc(&dev->users);
	}
	spin_unlock(&mm->page_table_lock);
	return dev;
}

void put_device_page(struct device_memory *dev, pfn_t pfn)
{
	phys_put(dev->frames, pfn);
	put_user(dev);
}
