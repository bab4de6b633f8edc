/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A start and an end with many intervals, of which the window meets a few. The intervals are a page
 * each, with a page between them.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/bench/notifier.h"

/* So many intervals in an mm of their own; made at the first sample that wants them. */
struct forest {
	struct notifier_host host;
	struct mmu_interval_notifier *intervals;
	unsigned int nr, inserted;
};

static struct forest forests[4];

static bool set_seq_only(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			 unsigned long seq)
{
	(void)range;
	mmu_interval_set_seq(sub, seq);
	return true;
}

static const struct mmu_interval_notifier_ops ops = {.invalidate = set_seq_only};

static void destroy(struct forest *f)
{
	while (f->inserted)
		mmu_interval_notifier_remove(&f->intervals[--f->inserted]);
	free(f->intervals);
	notifier_host_destroy(&f->host);
	*f = (struct forest){0};
}

static int create(struct forest *f, unsigned int nr)
{
	int ret = notifier_host_init(&f->host, 1);

	if (ret)
		return ret;
	f->intervals = calloc(nr, sizeof(*f->intervals));
	ret = f->intervals ? 0 : -ENOMEM;
	for (; f->inserted < nr && !ret; f->inserted += !ret)
		ret = mmu_interval_notifier_insert(&f->intervals[f->inserted], f->host.mm,
						   NOTIFIER_HVA + 2 * PAGE_SIZE * f->inserted,
						   PAGE_SIZE, &ops);
	f->nr = nr;
	if (ret)
		destroy(f);
	return ret;
}

static int find(unsigned int nr, struct forest **f)
{
	for (size_t i = 0; i < ARRAY_SIZE(forests); i++) {
		*f = &forests[i];
		if (forests[i].nr == nr)
			return 0;
		if (!forests[i].nr)
			return create(&forests[i], nr);
	}
	return -ENOSPC;
}

int notifier_interval_setup(const struct bench *b)
{
	(void)b;
	return 0;
}

void notifier_interval_teardown(const struct bench *b)
{
	(void)b;
	for (size_t i = 0; i < ARRAY_SIZE(forests); i++)
		if (forests[i].nr)
			destroy(&forests[i]);
}

/* In the middle; met ones, or the gap between two. */
int notifier_interval_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			     struct bench_sample *s)
{
	const struct notifier_meeting *m = v->arg;
	hva_t start = NOTIFIER_HVA + 2 * PAGE_SIZE * ((m->nr - m->met) / 2);
	struct bench_timer timer;
	struct forest *f;
	int ret = find(m->nr, &f);

	(void)b;
	if (ret)
		return ret;
	bench_pin(0);
	mmap_read_lock(f->host.mm);
	bench_start(&timer, CLOCK_THREAD_CPUTIME_ID);
	for (uint64_t i = 0; i < n; i++) {
		struct mmu_notifier_range range;

		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, f->host.mm,
					m->met ? start : start + PAGE_SIZE,
					start + 2 * PAGE_SIZE * (m->met ? m->met : 1));
		mmu_notifier_invalidate_range_start(&range);
		mmu_notifier_invalidate_range_end(&range);
	}
	bench_stop(&timer, s);
	mmap_read_unlock(f->host.mm);
	bench_unpin();
	return 0;
}
