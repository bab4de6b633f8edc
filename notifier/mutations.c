// SPDX-License-Identifier: LGPL-2.1-or-later
/* The table of mutations.h, as data and as text. */
#include "notifier/mutations.h"

#include <stdio.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"
#include "notifier/sync/util.h"

const struct mutation mm_mutations[NR_MUTATIONS] = {
	[MUTATION_UNMAP] = {"`mm_munmap`, `MM_MAP_FIXED`, `mm_mremap`: what is cut off or replaced",
			    MMU_NOTIFY_UNMAP, false, true, "what is to be unmapped, if anything is",
			    UNDER_MMAP_WRITE},
	[MUTATION_MOVE] = {"`mm_mremap`: a move", MMU_NOTIFY_UNMAP, false, true, "where it was",
			   UNDER_MMAP_WRITE},
	[MUTATION_PROTECT] = {"`mm_mprotect`", MMU_NOTIFY_PROTECTION_VMA, false, true,
			      "in each area whose rights change, the part of it in the range",
			      UNDER_MMAP_WRITE},
	[MUTATION_FORK] = {"`mm_fork`", MMU_NOTIFY_PROTECTION_PAGE, false, true,
			   "each private area of the parent", UNDER_MMAP_WRITE},
	[MUTATION_COPY] = {"a write to a page that others have, too, `MM_MADV_UNMERGEABLE`",
			   MMU_NOTIFY_CLEAR, false, true, "the page",
			   UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_ZAP] = {"`mm_zap_range`", MMU_NOTIFY_CLEAR, false, true, "the range of the call",
			  UNDER_MMAP_READ},
	[MUTATION_DONTNEED] = {"`MM_MADV_DONTNEED`", MMU_NOTIFY_CLEAR, false, true,
			       "in each area, the part of it in the range", UNDER_MMAP_READ},
	[MUTATION_HOLE] = {"`address_space_punch_hole`, `MM_MADV_REMOVE`", MMU_NOTIFY_CLEAR, false,
			   true,
			   "in each area, the part of it that shows the hole; then each page that "
			   "came back",
			   UNDER_RMAP},
	[MUTATION_SYNC] = {"`address_space_sync`, `mm_msync`, the last put of a file",
			   MMU_NOTIFY_PROTECTION_PAGE, false, true,
			   "one page for each entry that may write", UNDER_RMAP | UNDER_FRAME},
	[MUTATION_SOFT_DIRTY] = {"`mm_clear_soft_dirty`", MMU_NOTIFY_SOFT_DIRTY, false, true,
				 "everything", UNDER_MMAP_WRITE},
	[MUTATION_EXCLUSIVE] = {"`make_device_exclusive`", MMU_NOTIFY_EXCLUSIVE, true, true,
				"the page", UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_TAKE_BACK] = {"a fault on such a page, a fork", MMU_NOTIFY_CLEAR, false, true,
				"the page", UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_PAGE_OUT] = {"reclaim, `MM_MADV_PAGEOUT`", MMU_NOTIFY_CLEAR, false, true,
			       "one page for each entry", UNDER_RMAP | UNDER_FRAME},
	[MUTATION_FREE] = {"`MM_MADV_FREE`", MMU_NOTIFY_CLEAR, false, true,
			   "in each area, the part of it in the range", UNDER_MMAP_READ},
	[MUTATION_MIGRATE_RANGE] = {"`mm_migrate_range`: the range", MMU_NOTIFY_MIGRATE, false,
				    true, "first to last page of a batch (up to 64)",
				    UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_MIGRATE] = {"the same: other mappings; `migrate_frame`, `migrate_mapping_page`",
			      MMU_NOTIFY_MIGRATE, false, true, "one page each",
			      UNDER_RMAP | UNDER_FRAME},
	[MUTATION_TO_DEVICE] = {"`mm_migrate_to_device`", MMU_NOTIFY_MIGRATE, true, true,
				"first to last page of a batch (up to 64)",
				UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_FROM_DEVICE] = {"a fault on such a page, `mm_migrate_to_ram`, a fork",
				  MMU_NOTIFY_MIGRATE, true, true, "the page",
				  UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_MERGE_PROTECT] = {"`ksm_scan`: the right to write", MMU_NOTIFY_CLEAR, false, true,
				    "the page, if its entry may write",
				    UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_MERGE] = {"the same: a merged page in its place", MMU_NOTIFY_CLEAR, false, true,
			    "the page", UNDER_MMAP_READ | UNDER_FRAME},
	[MUTATION_EXIT] = {"exit", MMU_NOTIFY_UNMAP, false, true, "everything, after `release`",
			   UNDER_MMAP_WRITE},
};

const char *mmu_notifier_event_name(enum mmu_notifier_event event)
{
	static const char *const names[] = {
		[MMU_NOTIFY_UNMAP] = "UNMAP",
		[MMU_NOTIFY_CLEAR] = "CLEAR",
		[MMU_NOTIFY_PROTECTION_VMA] = "PROTECTION_VMA",
		[MMU_NOTIFY_PROTECTION_PAGE] = "PROTECTION_PAGE",
		[MMU_NOTIFY_SOFT_DIRTY] = "SOFT_DIRTY",
		[MMU_NOTIFY_RELEASE] = "RELEASE",
		[MMU_NOTIFY_MIGRATE] = "MIGRATE",
		[MMU_NOTIFY_EXCLUSIVE] = "EXCLUSIVE",
	};

	return (size_t)event < ARRAY_SIZE(names) ? names[event] : "?";
}

static const char *under_text(unsigned int under)
{
	switch (under) {
	case UNDER_MMAP_WRITE:
		return "`mmap_lock` (write)";
	case UNDER_MMAP_READ:
		return "`mmap_lock` (read)";
	case UNDER_MMAP_READ | UNDER_FRAME:
		return "`mmap_lock` (read), frame lock";
	case UNDER_RMAP:
		return "reverse-map lock (read)";
	case UNDER_RMAP | UNDER_FRAME:
		return "frame lock, reverse-map lock (read)";
	default:
		BUG();
	}
}

int mutation_row(enum mm_mutation what, char *line, size_t size)
{
	const struct mutation *mutation = &mm_mutations[what];

	return snprintf(line, size, "| %s | `%s`%s | %s | %s | %s |", mutation->who,
			mmu_notifier_event_name(mutation->event),
			mutation->owner ? ", with an owner" : "", mutation->range,
			mutation->blockable ? "yes" : "no", under_text(mutation->under));
}

#ifdef CONFIG_LOCKDEP
void mutation_assert_locks(enum mm_mutation what, const struct mm_struct *mm)
{
	unsigned int under = mm_mutations[what].under;
	bool held = true;

	if (under & UNDER_MMAP_WRITE)
		held &= lockdep_is_held_kind(&mm->mmap_lock, HELD_WRITE);
	if (under & UNDER_MMAP_READ)
		held &= lockdep_is_held(&mm->mmap_lock);
	if (under & UNDER_RMAP)
		held &= lockdep_is_held_class(&lockdep_i_mmap_rwsem) ||
			lockdep_is_held_class(&lockdep_anon_vma_rwsem);
	if (under & UNDER_FRAME)
		held &= frame_lock_is_held();
	ASSERT(held, "%s has its locks: %s", mm_mutations[what].who, under_text(under));
}
#endif
