/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A batch of what was zapped, by itself: it is numbered under the locks, it waits for those before
 * it, and nothing of what was in its memory before is in it (tlb.c).
 */
#include <string.h>

#include "shadow/shadow_internal.h"
#include "tests/support/beside.h"
#include "tests/support/guest_fixture.h"

/* An audit would look at the list of batches, and so wait for its lock. */
static const struct guest_mem_config config = {.nr_cpus = 1};

static void close_batch(struct guest_mem *g, struct zap_batch *batch)
{
	spin_lock(&g->shadow->mmu_lock);
	zap_batch_close(g->shadow, batch);
	spin_unlock(&g->shadow->mmu_lock);
}

static void flush_unclosed(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	memset(&batch, 0x5a, sizeof(batch));
	zap_batch_init(&batch);
	zap_batch_flush(g->shadow, &batch);
}

static void flush_twice(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch batch;

	zap_batch_init(&batch);
	close_batch(g, &batch);
	zap_batch_flush(g->shadow, &batch);
	zap_batch_flush(g->shadow, &batch);
}

TEST(zap_batch, flushed_before_it_is_closed)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_bug(flush_unclosed, &g, "the batch was closed under mmu_lock");
	expect_bug(flush_twice, &g, "the batch was closed under mmu_lock");
	destroy(&g);
}

/* Where there is no other one there is nobody to wait for, whatever its number. */
TEST(zap_batch, waits_for_nobody)
{
	struct guest_mem g;
	struct zap_batch batch;

	guest_mem_create(&g, &config);
	zap_batch_init(&batch);
	close_batch(&g, &batch);
	batch.number = ~0UL;
	zap_batch_flush(g.shadow, &batch);
	expect_eq(stats_of(&g).batches_waited, 0);
	destroy(&g);
}

struct flusher {
	struct guest_mem *g;
	struct zap_batch *batch;
};

static void run_close(void *arg)
{
	struct flusher *f = arg;

	close_batch(f->g, f->batch);
}

static void run_flush(void *arg)
{
	struct flusher *f = arg;

	zap_batch_flush(f->g->shadow, f->batch);
}

/* It waits for one that was closed before, and is counted for it. */
TEST(zap_batch, waits_for_an_earlier_one)
{
	struct zap_batch earlier, later;
	struct beside beside;
	struct guest_mem g;
	struct flusher f = {.g = &g, .batch = &later};

	guest_mem_create(&g, &config);
	zap_batch_init(&earlier);
	zap_batch_init(&later);
	zap_batch_add(&earlier, 0);
	close_batch(&g, &earlier);
	close_batch(&g, &later);
	beside_start(&beside, run_flush, &f);
	beside_sleeps(&beside);
	zap_batch_flush(g.shadow, &earlier);
	kthread_join(&beside.thread);
	expect_eq(stats_of(&g).batches_waited, 1);
	destroy(&g);
}

/* Whoever has batch_lock has all numbers and the list: none is given, and none is compared. */
TEST(zap_batch, numbers_are_the_locks)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (unsigned int i = 0; i < 3 * 40; i++) {
		struct zap_batch batch;
		struct flusher f = {.g = &g, .batch = &batch};
		bool closed = i % 3, listed = i % 3 == 2;
		struct beside beside;

		zap_batch_init(&batch);
		if (listed)
			zap_batch_add(&batch, 0);
		if (closed)
			close_batch(&g, &batch);
		spin_lock(&g.shadow->batch_lock);
		beside_start(&beside, closed ? run_flush : run_close, &f);
		for_each_look()
		{
			expect(!atomic_read(&beside.over));
			expect_eq(list_empty(&g.shadow->batches), !listed);
		}
		spin_unlock(&g.shadow->batch_lock);
		kthread_join(&beside.thread);
		if (!closed)
			zap_batch_flush(g.shadow, &batch);
	}
	destroy(&g);
}
