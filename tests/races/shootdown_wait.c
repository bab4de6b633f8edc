/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shootdown-wait: an invalidation that finds its work done by another must wait until it is really
 * done.
 *
 *   unmap (batch 1)            migrate (overlapping)          CPU 0
 *   ---------------            ---------------------          -----
 *                                                             TLB names frame A
 *   start: clears the entry
 *     shootdown stalls
 *                              start: nothing to clear;
 *                                waits for batch 1            stores to A: allowed, not yet moved
 *   shootdown, start returns
 *                              start returns; copies A,
 *                                store included; frees it
 *
 * Without the wait, the second start returns at once, A is copied, poisoned and freed, and CPU 0
 * still uses it.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "tests/races/races.h"
#include "tests/support/park.h"

struct scene {
	struct guest_mem g;
	struct park stalled; /* the first shootdown */
	atomic_t shootdowns;
	long result;
};

static void stall_first(void *arg, const pfn_t *frames, size_t nr)
{
	struct scene *s = arg;

	(void)frames;
	(void)nr;
	if (atomic_inc_return(&s->shootdowns) == 1)
		park_enter(&s->stalled);
}

static void unmap_page(void *arg)
{
	struct scene *s = arg;

	mm_zap_range(s->g.mm, guest_hva(PAGE_A), PAGE_SIZE);
}

static void migrate_page(void *arg)
{
	struct scene *s = arg;

	s->result = mm_migrate_range(s->g.mm, guest_hva(PAGE_A), PAGE_SIZE);
}

static void scene_init(struct scene *s, const struct guest_mem_config *config)
{
	guest_mem_create(&s->g, config);
	park_init(&s->stalled);
	atomic_set(&s->shootdowns, 0);
	model_set_shootdown_hook(s->g.model, stall_first, s);
}

static void wait_for_waiter(struct scene *s)
{
	struct shadow_stats stats;

	do {
		sched_yield();
		shadow_get_stats(s->g.shadow, &stats);
	} while (!stats.batches_waited);
}

TEST(shootdown_wait, protected)
{
	struct guest_mem_config config = {0};
	struct kthread first, second;
	struct scene s;
	pfn_t old;

	scene_init(&s, &config);
	old = stamp_page(&s.g, PAGE_A);
	expect_eq(kthread_run(&first, "unmap", unmap_page, &s), 0);
	park_wait(&s.stalled, 1);
	expect_eq(kthread_run(&second, "migrate", migrate_page, &s), 0);
	wait_for_waiter(&s);

	/* The page has not moved, so what is stored now must not get lost. */
	expect_eq(model_store(s.g.model, 0, PAGE_A, STAMP + 1), 0);
	expect_eq(mm_lookup_pfn(s.g.mm, guest_hva(PAGE_A)), old);

	park_release(&s.stalled);
	kthread_join(&first);
	kthread_join(&second);
	expect_eq(model_cached(s.g.model, old), 0);
	expect_eq(guest_load(&s.g, 0, PAGE_A), STAMP + 1);
	expect_contract_kept(&s.g);
	guest_mem_destroy(&s.g);
}

TEST(shootdown_wait, broken)
{
	struct guest_mem_config config = {.broken = SHADOW_BREAK_SHOOTDOWN_WAIT};
	struct kthread first;
	uint64_t value;
	struct scene s;
	pfn_t old;

	scene_init(&s, &config);
	old = stamp_page(&s.g, PAGE_A);
	expect_eq(kthread_run(&first, "unmap", unmap_page, &s), 0);
	park_wait(&s.stalled, 1);

	migrate_page(&s); /* goes through while the first shootdown is still stalled */
	expect_eq(s.result, 1);
	expect_eq(model_cached(s.g.model, old), 1);
	expect_eq(model_load(s.g.model, 0, PAGE_A, &value), 0);
	expect_eq(value, PHYS_POISON);

	park_release(&s.stalled);
	kthread_join(&first);
	guest_mem_destroy(&s.g);
}

/*
 * The same wait keeps a table: one batch has cleared a leaf of it and is stalled; the guest's
 * directory changes, and the fault that notices zaps the table. It must not be retired while a CPU
 * still has that leaf.
 */
static void change_directory(void *arg)
{
	struct scene *s = arg;
	gpa_t pde = guest_pte_gpa(&s->g, s->g.cr3, PAGE_A, 2);

	guest_write(&s->g, pde, guest_new_table(&s->g) | GUEST_PTE_RW);
	guest_map(&s->g, s->g.cr3, PAGE_A + PAGE_SIZE, PAGE_A + PAGE_SIZE, GUEST_PTE_RW);
	s->result = guest_load(&s->g, 0, PAGE_A + PAGE_SIZE);
}

static uint64_t violations_of_early_retire(unsigned int broken)
{
	struct guest_mem_config config = {.broken = broken};
	struct kthread first, second;
	struct model_stats stats;
	struct scene s;

	scene_init(&s, &config);
	stamp_page(&s.g, PAGE_A);
	expect_eq(kthread_run(&first, "unmap", unmap_page, &s), 0);
	park_wait(&s.stalled, 1);
	expect_eq(kthread_run(&second, "fault", change_directory, &s), 0);
	if (broken)
		kthread_join(&second);
	else
		wait_for_waiter(&s);
	park_release(&s.stalled);
	kthread_join(&first);
	if (!broken)
		kthread_join(&second);
	model_get_stats(s.g.model, &stats);
	guest_mem_destroy(&s.g);
	return stats.contract_violations;
}

TEST(shootdown_wait, table_protected)
{
	expect_eq(violations_of_early_retire(0), 0);
}

TEST(shootdown_wait, table_broken)
{
	expect_ge(violations_of_early_retire(SHADOW_BREAK_SHOOTDOWN_WAIT), 1);
}
