/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A start and an end with many intervals, of which the window meets a few. The intervals are a page
 * each, with a page between them.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/bench/notifier.h"

static struct notifier_host host;
static struct mmu_interval_notifier *intervals;
static unsigned int nr_intervals;

static bool set_seq_only(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			 unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(sub, seq);
	return true;
}

static const struct mmu_interval_notifier_ops ops = {.invalidate = set_seq_only};

static void remove_all(void)
{
	while (nr_intervals)
		mmu_interval_notifier_remove(&intervals[--nr_intervals]);
}

int notifier_interval_setup(const struct bench *b)
{
	(void)b;
	return notifier_host_init(&host, 1);
}

void notifier_interval_teardown(const struct bench *b)
{
	(void)b;
	remove_all();
	free(intervals);
	intervals = NULL;
	notifier_host_destroy(&host);
}

static int have_intervals(unsigned int nr)
{
	void *more;
	int ret = 0;

	if (nr_intervals == nr)
		return 0;
	remove_all();
	more = reallocarray(intervals, nr, sizeof(*intervals));
	if (!more)
		return -ENOMEM;
	intervals = more;
	while (nr_intervals < nr && !ret) {
		ret = mmu_interval_notifier_insert(&intervals[nr_intervals], host.mm,
						   NOTIFIER_HVA + 2 * PAGE_SIZE * nr_intervals,
						   PAGE_SIZE, &ops);
		nr_intervals += !ret;
	}
	return ret;
}

/* In the middle; met ones, or the gap between two. */
int notifier_interval_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			     struct bench_sample *s)
{
	unsigned int met = *(const unsigned int *)b->arg, nr = *(const unsigned int *)v->arg;
	hva_t start = NOTIFIER_HVA + 2 * PAGE_SIZE * ((nr - met) / 2);
	struct bench_timer timer;
	int ret = have_intervals(nr);

	if (ret)
		return ret;
	bench_pin(0);
	mmap_read_lock(host.mm);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	for (uint64_t i = 0; i < n; i++) {
		struct mmu_notifier_range range;

		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, host.mm,
					met ? start : start + PAGE_SIZE,
					start + 2 * PAGE_SIZE * (met ? met : 1));
		mmu_notifier_invalidate_range_start(&range);
		mmu_notifier_invalidate_range_end(&range);
	}
	bench_stop(&timer, s);
	mmap_read_unlock(host.mm);
	bench_unpin();
	return 0;
}
