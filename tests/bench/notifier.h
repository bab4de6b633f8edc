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

/* What a variant does @n times; its arg is one of these. */
struct notifier_op {
	void (*loop)(uint64_t n);
};

int notifier_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		    struct bench_sample *s);

/* notifier_window.c: b->arg is how many subscribers there are, an unsigned int. */
int notifier_window_setup(const struct bench *b);
void notifier_window_teardown(const struct bench *b);
extern const struct notifier_op notifier_window, notifier_walk, notifier_walk_in_srcu;

/* notifier_users.c: b->arg is how many areas the mm has. */
int notifier_users_setup(const struct bench *b);
void notifier_users_teardown(const struct bench *b);
extern const struct notifier_op notifier_register, notifier_all_locks, notifier_get_put,
	notifier_get_put_last;

/* notifier_interval.c: b->arg is how many of them a window meets; v->arg how many there are. */
int notifier_interval_setup(const struct bench *b);
void notifier_interval_teardown(const struct bench *b);
int notifier_interval_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			     struct bench_sample *s);

/* notifier_urcu.c: a read pair of liburcu's, inline. */
extern const struct notifier_op notifier_urcu;

#endif
