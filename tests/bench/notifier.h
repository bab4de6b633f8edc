/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of bench_notifier share: an mm to subscribe to, and loops over it.
 */
#ifndef TESTS_BENCH_NOTIFIER_H
#define TESTS_BENCH_NOTIFIER_H

#include <gnomon/mmu_interval_notifier.h>
#include <gnomon/mmu_notifier.h>

#include "tests/bench/bench.h"

#define NOTIFIER_HVA 0x100000000UL

struct notifier_host {
	struct phys *phys;
	struct mm_struct *mm;
};

/* With @nr_vmas private areas of a page each, untouched. 0 or -errno, and nothing is left. */
int notifier_host_init(struct notifier_host *host, unsigned int nr_vmas);
void notifier_host_destroy(struct notifier_host *host);

/* The arg of a bench: how many there are of what it is about, and its goal for "gnomon". */
struct notifier_case {
	unsigned int nr;
	double goal;
};

/* What a variant does @n times; its arg is one of these. */
struct notifier_op {
	void (*loop)(uint64_t n);
};

int notifier_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		    struct bench_sample *s);

/* notifier_window.c: b->arg has how many subscribers there are. */
int notifier_window_setup(const struct bench *b);
void notifier_window_teardown(const struct bench *b);
struct mm_struct *notifier_window_mm(void);
extern const struct notifier_op notifier_fill, notifier_window, notifier_walk,
	notifier_walk_in_srcu, notifier_inlined;

/*
 * A loop over windows, or over what stands for one, that @open and @close. Whoever opens a window
 * fills in a range for it: all of them do. Under mmap_lock, which is taken once.
 */
#define NOTIFIER_WINDOWS(name, open, close)                                                    \
	static __attribute__((noinline)) void name(uint64_t n)                                 \
	{                                                                                      \
		struct mm_struct *mm = notifier_window_mm();                                   \
		struct mmu_notifier_range range;                                               \
                                                                                               \
		mmap_read_lock(mm);                                                            \
		for (uint64_t i = 0; i < n; i++) {                                             \
			mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, NOTIFIER_HVA, \
						NOTIFIER_HVA + PAGE_SIZE);                     \
			__asm__ __volatile__("" ::"r"(&range) : "memory");                     \
			open;                                                                  \
			bench_barrier();                                                       \
			close;                                                                 \
			bench_barrier();                                                       \
		}                                                                              \
		mmap_read_unlock(mm);                                                          \
	}

/* notifier_users.c: b->arg has how many areas there are. */
int notifier_users_setup(const struct bench *b);
void notifier_users_teardown(const struct bench *b);
extern const struct notifier_op notifier_register, notifier_all_locks, notifier_get_put,
	notifier_get_put_last;

/* notifier_interval.c: how many intervals there are, and how many of them a window meets; v->arg.
 */
struct notifier_meeting {
	unsigned int nr, met;
};

int notifier_interval_setup(const struct bench *b);
void notifier_interval_teardown(const struct bench *b);
int notifier_interval_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			     struct bench_sample *s);

/* notifier_hmm.c: b->arg has how many pages a range has; n counts pages, whole ranges of them. */
#define NOTIFIER_HMM_PAGES 4096

/* What a variant does with the range at @start, with mmap_lock held; its arg is one of these. */
struct notifier_hmm_op {
	void (*op)(hva_t start);
};

int notifier_hmm_setup(const struct bench *b);
void notifier_hmm_teardown(const struct bench *b);
/* All pages are there; none is. */
int notifier_snapshot_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			     struct bench_sample *s);
int notifier_fault_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			  struct bench_sample *s);
extern const struct notifier_hmm_op notifier_snapshot, notifier_pgtable_walk, notifier_fault_in,
	notifier_mm_faults;

/* notifier_urcu.c: a read pair of liburcu's, inline. */
extern const struct notifier_op notifier_urcu;

#endif
