/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device that mirrors a range by hmm_range_fault(), in the shape of the kernel's lib/test_hmm: a
 * table of frames with nothing but its interval notifier to keep it true. It reads and writes the
 * contents of frames under its lock while others do what they like to the pages.
 *
 * Its commands work on the first word of a page: read, write, increment (with the page for itself),
 * snapshot, and migrate to its own memory, if it has any, and back. What each did is counted.
 */
#ifndef TESTS_SUPPORT_MIRROR_DEVICE_H
#define TESTS_SUPPORT_MIRROR_DEVICE_H

#include <errno.h>
#include <sched.h>

#include <gnomon/device.h>
#include <gnomon/hmm.h>

#include "notifier/contents.h"
#include "notifier/sync/lock.h"
#include "tests/support/mm_fixture.h"

#define MIRROR_MAX_PAGES 64
#define MIRROR_TRIES	 100000

struct mirror_device {
	struct mm_struct *mm;
	hva_t start;
	unsigned int nr_pages;
	struct mmu_interval_notifier sub;
	struct device_memory *memory; /* or NULL */
	spinlock_t lock;
	/* Under lock. */
	struct {
		uint64_t pfn; /* as of hmm_pfns, or 0 */
		bool exclusive;
	} page[MIRROR_MAX_PAGES];
	atomic64_t invalidated, refused, faults, retries, accesses, exclusives, copied;
	/* Between the walk and the lock, where what was found may become untrue. */
	void (*before_lock)(struct mirror_device *dev);
	/* Between the two halves of an increment. */
	void (*within)(struct mirror_device *dev);
};

static inline hva_t mirror_hva(const struct mirror_device *dev, unsigned int page)
{
	return dev->start + page * PAGE_SIZE;
}

static inline void mirror_drop(struct mirror_device *dev, hva_t start, hva_t end)
{
	for (unsigned int page = 0; page < dev->nr_pages; page++) {
		hva_t hva = mirror_hva(dev, page);

		if (dev->page[page].pfn && hva >= start && hva < end) {
			dev->page[page].pfn = 0;
			dev->page[page].exclusive = false;
			atomic64_inc(&dev->invalidated);
		}
	}
}

static inline bool mirror_invalidate(struct mmu_interval_notifier *sub,
				     const struct mmu_notifier_range *update, unsigned long cur_seq)
{
	struct mirror_device *dev = container_of(sub, struct mirror_device, sub);

	/* Our own, to have for ourselves what stays where it is: not even the sequence (device.h).
	 */
	if (update->event == MMU_NOTIFY_EXCLUSIVE && update->owner == dev)
		return true;
	if (mmu_notifier_range_blockable(update)) {
		spin_lock(&dev->lock);
	} else if (!spin_trylock(&dev->lock)) {
		atomic64_inc(&dev->refused);
		return false;
	}
	mmu_interval_set_seq(sub, cur_seq);
	/* Our own, to move pages: each is dropped when it is copied. But the sequence has changed.
	 */
	if (update->event != MMU_NOTIFY_MIGRATE || update->owner != dev)
		mirror_drop(dev, update->start, update->end);
	spin_unlock(&dev->lock);
	return true;
}

static inline void mirror_create(struct mirror_device *dev, struct mm_struct *mm, hva_t start,
				 unsigned int nr_pages)
{
	static const struct mmu_interval_notifier_ops ops = {.invalidate = mirror_invalidate};

	expect(nr_pages <= MIRROR_MAX_PAGES);
	*dev = (struct mirror_device){.mm = mm, .start = start, .nr_pages = nr_pages};
	spin_lock_init(&dev->lock);
	expect_eq(mmu_interval_notifier_insert(&dev->sub, mm, start, nr_pages * PAGE_SIZE, &ops),
		  0);
}

/* ---- its memory ---- */

static inline void mirror_drop_one(struct device_memory *memory, struct mm_struct *mm, hva_t hva)
{
	struct mirror_device *dev = device_memory_owner(memory);

	atomic64_inc(&dev->copied);
	if (mm != dev->mm)
		return;
	spin_lock(&dev->lock);
	mirror_drop(dev, hva, hva + PAGE_SIZE);
	spin_unlock(&dev->lock);
}

static inline void mirror_copy_to_device(struct device_memory *memory, struct mm_struct *mm,
					 hva_t hva, pfn_t pfn, const void *ram)
{
	mirror_drop_one(memory, mm, hva);
	contents_copy_page(device_memory_map(memory, pfn), ram);
}

static inline void mirror_copy_to_ram(struct device_memory *memory, struct mm_struct *mm, hva_t hva,
				      pfn_t pfn, void *ram)
{
	mirror_drop_one(memory, mm, hva);
	contents_copy_page(ram, device_memory_map(memory, pfn));
}

static inline const struct device_memory_ops *mirror_memory_ops(void)
{
	static const struct device_memory_ops ops = {
		.copy_to_device = mirror_copy_to_device,
		.copy_to_ram = mirror_copy_to_ram,
	};

	return &ops;
}

static inline void mirror_give_memory(struct mirror_device *dev, uint64_t nr_frames)
{
	expect_eq(device_memory_create(mm_phys(dev->mm), nr_frames, mirror_memory_ops(), dev,
				       &dev->memory),
		  0);
}

/* Pages are in it no more. */
static inline void mirror_take_memory(struct mirror_device *dev)
{
	device_memory_destroy(dev->memory);
	dev->memory = NULL;
}

static inline void mirror_destroy(struct mirror_device *dev)
{
	mmu_interval_notifier_remove(&dev->sub);
}

static inline long mirror_migrate(struct mirror_device *dev, unsigned int first, unsigned int nr)
{
	return mm_migrate_to_device(dev->mm, mirror_hva(dev, first), nr * PAGE_SIZE, dev->memory);
}

/* ---- its table ---- */

/* The pattern of gnomon/hmm.h. */
static inline int mirror_fault(struct mirror_device *dev, unsigned int page, uint64_t request)
{
	uint64_t found;
	struct hmm_range range = {
		.notifier = &dev->sub,
		.start = mirror_hva(dev, page),
		.end = mirror_hva(dev, page + 1),
		.hmm_pfns = &found,
		.default_flags = request,
		.dev_private_owner = dev,
	};

	atomic64_inc(&dev->faults);
	for (int tries = 0; tries < MIRROR_TRIES; tries++) {
		bool retry;
		int ret;

		range.notifier_seq = mmu_interval_read_begin(&dev->sub);
		if (!mmget_not_zero(dev->mm))
			return -EFAULT;
		mmap_read_lock(dev->mm);
		ret = hmm_range_fault(&range);
		mmap_read_unlock(dev->mm);
		mmput(dev->mm);
		if (ret && ret != -EBUSY)
			return ret;
		if (dev->before_lock)
			dev->before_lock(dev);
		spin_lock(&dev->lock);
		retry = ret || mmu_interval_read_retry(&dev->sub, range.notifier_seq);
		if (!retry)
			dev->page[page].pfn = found;
		spin_unlock(&dev->lock);
		if (!retry)
			return 0;
		atomic64_inc(&dev->retries);
	}
	return -EBUSY;
}

static inline void *mirror_contents(struct mirror_device *dev, uint64_t hmm_pfn)
{
	pfn_t pfn = hmm_pfn_to_pfn(hmm_pfn);

	return hmm_pfn & HMM_PFN_DEVICE ? device_memory_map(dev->memory, pfn)
					: phys_map(mm_phys(dev->mm), pfn);
}

/* One access to the first word of a page, under the lock; false: not in the table. */
static inline bool mirror_try(struct mirror_device *dev, unsigned int page, uint64_t *value,
			      bool write)
{
	uint64_t need = write ? HMM_PFN_VALID | HMM_PFN_WRITE : HMM_PFN_VALID;
	uint64_t entry;
	bool there;

	spin_lock(&dev->lock);
	entry = dev->page[page].pfn;
	there = (entry & need) == need;
	if (there) {
		void *contents = mirror_contents(dev, entry);

		if (write)
			contents_write(contents, value, sizeof(*value));
		else
			contents_read(value, contents, sizeof(*value));
	}
	spin_unlock(&dev->lock);
	if (there)
		atomic64_inc(&dev->accesses);
	return there;
}

/* 0 and the word, or a clean error. */
static inline int mirror_read_or_fail(struct mirror_device *dev, unsigned int page, uint64_t *value)
{
	int ret = 0;

	while (!ret && !mirror_try(dev, page, value, false))
		ret = mirror_fault(dev, page, HMM_PFN_REQ_FAULT);
	return ret;
}

static inline uint64_t mirror_read(struct mirror_device *dev, unsigned int page)
{
	uint64_t value = 0;

	expect_eq(mirror_read_or_fail(dev, page, &value), 0);
	return value;
}

static inline void mirror_write(struct mirror_device *dev, unsigned int page, uint64_t value)
{
	while (!mirror_try(dev, page, &value, true))
		expect_eq(mirror_fault(dev, page, HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE), 0);
}

/* What is there now, as of hmm_pfns; nothing is faulted in. */
static inline void mirror_snapshot(struct mirror_device *dev, unsigned int first, unsigned int nr,
				   uint64_t *hmm_pfns)
{
	struct hmm_range range = {
		.notifier = &dev->sub,
		.start = mirror_hva(dev, first),
		.end = mirror_hva(dev, first + nr),
		.hmm_pfns = hmm_pfns,
		.dev_private_owner = dev,
	};
	int ret;

	do {
		range.notifier_seq = mmu_interval_read_begin(&dev->sub);
		mmap_read_lock(dev->mm);
		ret = hmm_range_fault(&range);
		mmap_read_unlock(dev->mm);
	} while (ret == -EBUSY || mmu_interval_read_retry(&dev->sub, range.notifier_seq));
	expect_eq(ret, 0);
}

/* 0, and the page is in the table to be written by us alone. */
static inline int mirror_make_exclusive(struct mirror_device *dev, unsigned int page)
{
	atomic64_inc(&dev->exclusives);
	for (int tries = 0; tries < MIRROR_TRIES; tries++) {
		unsigned long seq = mmu_interval_read_begin(&dev->sub);
		bool retry;
		pfn_t pfn;
		int ret;

		mmap_read_lock(dev->mm);
		ret = make_device_exclusive(dev->mm, mirror_hva(dev, page), dev, &pfn);
		mmap_read_unlock(dev->mm);
		if (ret == -EBUSY) {
			sched_yield();
			continue;
		}
		if (ret)
			return ret;
		spin_lock(&dev->lock);
		retry = mmu_interval_read_retry(&dev->sub, seq);
		if (!retry) {
			dev->page[page].pfn = pfn | HMM_PFN_VALID | HMM_PFN_WRITE;
			dev->page[page].exclusive = true;
		}
		spin_unlock(&dev->lock);
		put_device_exclusive(dev->mm, pfn);
		if (!retry)
			return 0;
		atomic64_inc(&dev->retries);
	}
	return -EBUSY;
}

/* In two halves, which only stay together if nobody else has the page. */
static inline int mirror_increment(struct mirror_device *dev, unsigned int page)
{
	for (;;) {
		bool done;
		int ret;

		spin_lock(&dev->lock);
		done = dev->page[page].exclusive;
		if (done) {
			uint64_t *word = mirror_contents(dev, dev->page[page].pfn);
			uint64_t value;

			contents_read(&value, word, sizeof(value));
			if (dev->within)
				dev->within(dev);
			value++;
			contents_write(word, &value, sizeof(value));
		}
		spin_unlock(&dev->lock);
		if (done)
			return 0;
		ret = mirror_make_exclusive(dev, page);
		if (ret)
			return ret;
	}
}

#endif
