/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory of devices, to the host mm. A device has a pool of frames of its own, and a number in the
 * machine's table; a device-private entry of a primary page table names both (pgtable.h).
 *
 * An entry holds a reference on its frame, and is the only one to name it: what would make a second
 * one (a fork) brings the page back to RAM first. As long as there is an entry the device stays. So
 * whoever looks at an entry under page_table_lock may look at the device, too; who goes on without
 * that lock takes a reference on the frame, and is counted as a user of the device.
 */
#ifndef NOTIFIER_DEVICE_MEMORY_H
#define NOTIFIER_DEVICE_MEMORY_H

#include <gnomon/device.h>

#include "notifier/mm_internal.h"

struct device_memory {
	/* Constant. */
	struct phys *ram; /* the machine's */
	struct phys *frames;
	const struct device_memory_ops *ops;
	void *owner;
	unsigned int id; /* in entries, from 1 on */
	/* The one who made it, and each who uses a frame without an entry. Waited for at the end.
	 */
	refcount_t users;
};

/* The device that @pte, a device-private entry of @mm, names. Under page_table_lock. */
struct device_memory *device_of_entry(struct mm_struct *mm, pte_t pte);

/*
 * The device of *ptep, if that is a device-private entry, and a reference on the frame *@pfn; else
 * NULL. Both go with put_device_page().
 */
struct device_memory *get_device_page(struct mm_struct *mm, pte_t *ptep, pfn_t *pfn);
void put_device_page(struct device_memory *dev, pfn_t pfn);

#endif
