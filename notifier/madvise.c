// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * mm_madvise: goes from area to area, and has each advice done on what of the range lies there
 * (kernel: mm/madvise.c). A hole does not stop it, but is told of at the end; an error does.
 *
 * What an advice does is in the file of the part that it asks something of; here is the table.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/madvise.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"

/* In one window over what lies in the area, as mm_zap_range() does over all. */
static int madvise_dontneed(struct vm_area_struct *vma, hva_t start, hva_t end)
{
	struct mmu_notifier_range range;
	long nr;

	mutation_range_init(&range, MUTATION_DONTNEED, vma->mm, start, end);
	mmu_notifier_invalidate_range_start(&range);
	nr = zap_vma_range(vma, start, end);
	mmu_notifier_invalidate_range_end(&range);
	atomic64_add(nr, &vma->mm->nr_zapped);
	return 0;
}

/*
 * With mmap_lock held, for writing if the advice changes areas: then the part of an area that it is
 * given is an area of its own.
 */
static const struct advice {
	int (*fn)(struct vm_area_struct *vma, hva_t start, hva_t end);
	bool changes_areas;
} advices[NR_MM_MADV] = {
	[MM_MADV_DONTNEED] = {madvise_dontneed, false},
	[MM_MADV_REMOVE] = {madvise_remove, false},
	[MM_MADV_FREE] = {madvise_free, false},
	[MM_MADV_COLD] = {madvise_cold, false},
	[MM_MADV_PAGEOUT] = {madvise_pageout, false},
	[MM_MADV_MERGEABLE] = {madvise_mergeable, true},
	[MM_MADV_UNMERGEABLE] = {madvise_unmergeable, true},
};

static int advise_part(struct mm_struct *mm, const struct advice *advice, hva_t start, hva_t end)
{
	int ret = 0;

	if (advice->changes_areas) {
		ret = split_vma_at(mm, start);
		if (!ret)
			ret = split_vma_at(mm, end);
	}
	return ret ? ret : advice->fn(find_vma(mm, start), start, end);
}

static int advise_range(struct mm_struct *mm, const struct advice *advice, hva_t start, hva_t end)
{
	int unmapped = 0;

	for (hva_t at = start; at < end;) {
		struct vm_area_struct *vma = find_vma_above(mm, at);
		hva_t part_end;
		int ret;

		if (!vma || vma->start > at)
			unmapped = -ENOMEM;
		if (!vma || vma->start >= end)
			break;
		at = max(at, vma->start);
		part_end = min(end, vma->end);
		ret = advise_part(mm, advice, at, part_end);
		if (ret)
			return ret;
		at = part_end;
	}
	return unmapped;
}

int mm_madvise(struct mm_struct *mm, hva_t addr, uint64_t len, enum mm_advice advice)
{
	const struct advice *what;
	hva_t end;
	int ret;

	if ((unsigned int)advice >= NR_MM_MADV || !advices[advice].fn || !PAGE_ALIGNED(addr))
		return -EINVAL;
	if (len > HVA_MAX || !hva_range_ok(addr, PAGE_ALIGN(len)))
		return -EINVAL;
	what = &advices[advice];
	end = addr + PAGE_ALIGN(len);

	if (!what->changes_areas) {
		mmap_read_lock(mm);
		ret = advise_range(mm, what, addr, end);
		mmap_read_unlock(mm);
		return ret;
	}
	mmap_write_lock(mm);
	ret = advise_range(mm, what, addr, end);
	merge_vmas(mm, addr, end);
	mmap_write_unlock(mm);
	return ret;
}
