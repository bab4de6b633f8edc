/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every kind of change that takes something from a present entry, in one table: what secondaries
 * are told, over which range, if they may sleep, and what the window is held open under. Windows
 * are made by mutation_range_init(), so the code says only which kind it is; docs/mm.md has the
 * same table, and tests/unit/test_mutations.c compares both with what happens.
 */
#ifndef NOTIFIER_MUTATIONS_H
#define NOTIFIER_MUTATIONS_H

#include <stddef.h>

#include <gnomon/mmu_notifier.h>

enum mm_mutation {
	MUTATION_UNMAP,
	MUTATION_MOVE,
	MUTATION_PROTECT,
	MUTATION_FORK,
	MUTATION_COPY,
	MUTATION_ZAP,
	MUTATION_DONTNEED,
	MUTATION_HOLE,
	MUTATION_SYNC,
	MUTATION_SOFT_DIRTY,
	MUTATION_EXCLUSIVE,
	MUTATION_TAKE_BACK,
	MUTATION_PAGE_OUT,
	MUTATION_FREE,
	MUTATION_MIGRATE_RANGE,
	MUTATION_MIGRATE,
	MUTATION_TO_DEVICE,
	MUTATION_FROM_DEVICE,
	MUTATION_MERGE_PROTECT,
	MUTATION_MERGE,
	MUTATION_EXIT,
	NR_MUTATIONS
};

/* What a window is held open under; two of them: the frame's lock, too. */
#define UNDER_MMAP_READ	 0x1u /* or for writing */
#define UNDER_MMAP_WRITE 0x2u
#define UNDER_RMAP	 0x4u /* i_mmap_rwsem or anon_vma->rwsem, for reading */
#define UNDER_FRAME	 0x8u

struct mutation {
	const char *who; /* does it */
	enum mmu_notifier_event event;
	bool owner; /* the range has one */
	bool blockable;
	const char *range;
	unsigned int under;
};

extern const struct mutation mm_mutations[NR_MUTATIONS];

/* The name of @event without its MMU_NOTIFY_. */
const char *mmu_notifier_event_name(enum mmu_notifier_event event);

/* One line of docs/mm.md. Returns its length, as snprintf() does. */
int mutation_row(enum mm_mutation what, char *line, size_t size);

#ifdef CONFIG_LOCKDEP
void mutation_assert_locks(enum mm_mutation what, const struct mm_struct *mm);
#else
static inline void mutation_assert_locks(enum mm_mutation what, const struct mm_struct *mm)
{
	(void)what, (void)mm;
}
#endif

static inline void mutation_range_init_owner(struct mmu_notifier_range *range,
					     enum mm_mutation what, struct mm_struct *mm,
					     hva_t start, hva_t end, void *owner)
{
	const struct mutation *mutation = &mm_mutations[what];

	mutation_assert_locks(what, mm);
	mmu_notifier_range_init_owner(range, mutation->event,
				      mutation->blockable ? MMU_NOTIFIER_RANGE_BLOCKABLE : 0, mm,
				      start, end, owner);
}

static inline void mutation_range_init(struct mmu_notifier_range *range, enum mm_mutation what,
				       struct mm_struct *mm, hva_t start, hva_t end)
{
	mutation_range_init_owner(range, what, mm, start, end, NULL);
}

#endif
