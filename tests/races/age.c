/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * age: who looks at leaves without mmu_lock, and who takes them away with it (shadow/age.c).
 *
 *   age of a page                           CR3 load: zaps the tables
 *   -------------                           -------------------------
 *   locks the rmap, finds the leaf
 *                                           mmu_lock; the leaf is to be taken out of the rmap:
 * waits looks at the leaf, clears A unlocks takes the leaf out, clears it, retires the table
 *
 * There is no switch for this one. With the lock of rmaps taken out (lock_head() takes none) the
 * second does not wait, the leaf is gone when the first looks at it, and its table may be anything.
 */
#include <sched.h>

#include "notifier/sync/thread.h"
#include "shadow/shadow_internal.h"
#include "tests/races/races.h"

struct scene {
	struct guest_mem g;
	spte_t *sptep;
	bool young;
	atomic_t found, zapped, asked;
	atomic_t stop;
};

static spte_t *leaf_of(struct guest_mem *g, gpa_t gpa)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(g->shadow), gpa >> PAGE_SHIFT);
	spte_t *sptep;

	spin_lock(&g->shadow->mmu_lock);
	sptep = rmap_first(&slot->rmap[gpa >> PAGE_SHIFT]);
	spin_unlock(&g->shadow->mmu_lock);
	return sptep;
}

/* Somebody has had mmu_lock all the while that we looked: who waits with it. */
#define LOOKS 1000

static void stay_until_somebody_waits(void *arg)
{
	struct scene *s = arg;
	spte_t spte = READ_ONCE(*s->sptep);

	expect(spte_present(spte));
	atomic_set_release(&s->found, 1);
	for (int held = 0; held < LOOKS && !atomic_read_acquire(&s->zapped); held++) {
		if (spin_trylock(&s->g.shadow->mmu_lock)) {
			spin_unlock(&s->g.shadow->mmu_lock);
			held = 0;
		}
		sched_yield();
	}
	expect(!atomic_read_acquire(&s->zapped));
	expect_eq(READ_ONCE(*s->sptep), spte);
}

static void ask(void *arg)
{
	struct scene *s = arg;

	s->young = mmu_notifier_clear_young(s->g.mm, guest_hva(PAGE_A), guest_hva(PAGE_A) + 1);
	atomic_set_release(&s->asked, 1);
}

TEST(age, tables_stay_while_they_are_looked_at)
{
	struct guest_mem_config config = {.reuse = MODEL_REUSE_LIFO};
	struct shadow_stats stats;
	struct kthread asker;
	struct scene s;

	guest_mem_create(&s.g, &config);
	stamp_page(&s.g, PAGE_A);
	s.sptep = leaf_of(&s.g, PAGE_A);
	atomic_set(&s.found, 0);
	atomic_set(&s.zapped, 0);
	shadow_set_hook(s.g.shadow, SHADOW_HOOK_AGE, stay_until_somebody_waits, &s);
	expect_eq(kthread_run(&asker, "ager", ask, &s), 0);
	while (!atomic_read_acquire(&s.found))
		sched_yield();
	guest_reload_afresh(&s.g, 0);
	atomic_set_release(&s.zapped, 1);
	kthread_join(&asker);

	expect(s.young);
	shadow_get_stats(s.g.shadow, &stats);
	expect_eq(stats.sptes_zapped, 1);
	expect_eq(guest_load(&s.g, 0, PAGE_A), STAMP);
	expect_contract_kept(&s.g);
	guest_mem_destroy(&s.g);
}

/* Whoever asks gets an answer while somebody else has mmu_lock, for as long as he likes. */
TEST(age, no_mmu_lock)
{
	struct guest_mem_config config = {0};
	struct kthread asker;
	struct scene s;

	guest_mem_create(&s.g, &config);
	stamp_page(&s.g, PAGE_A);
	atomic_set(&s.asked, 0);
	spin_lock(&s.g.shadow->mmu_lock);
	expect_eq(kthread_run(&asker, "ager", ask, &s), 0);
	while (!atomic_read_acquire(&s.asked))
		sched_yield();
	spin_unlock(&s.g.shadow->mmu_lock);
	kthread_join(&asker);
	expect(s.young);
	guest_mem_destroy(&s.g);
}

/*
 * All at once: CPUs that use the pages, a host that asks for their ages and one that takes them
 * away, tables that come and go. Nothing is lost, no table is used too late, and the audit agrees.
 */
#define PAGES 16

static void asker(void *arg)
{
	struct scene *s = arg;
	const hva_t start = guest_hva(0), end = guest_hva(PAGES * PAGE_SIZE);

	while (!atomic_read(&s->stop)) {
		if (mmu_notifier_clear_flush_young(s->g.mm, start, end))
			atomic_inc(&s->asked);
		if (mmu_notifier_clear_young(s->g.mm, start, end))
			atomic_inc(&s->asked);
		mmu_notifier_test_young(s->g.mm, start);
	}
}

static void taker(void *arg)
{
	struct scene *s = arg;

	while (!atomic_read(&s->stop)) {
		for (unsigned int n = 0; n < PAGES; n++)
			mm_migrate_range(s->g.mm, guest_hva(n * PAGE_SIZE), PAGE_SIZE);
		mm_zap_range(s->g.mm, guest_hva(0), PAGES * PAGE_SIZE);
	}
}

static void beside_everything_else(bool accessed_bits)
{
	struct guest_mem_config config = {.nr_cpus = 1,
					  .reuse = MODEL_REUSE_LIFO,
					  .no_accessed_bits = !accessed_bits};
	const int found = test_long() ? 2000 : 100;
	struct shadow_stats stats;
	struct kthread threads[3];
	struct scene s;

	guest_mem_create(&s.g, &config);
	atomic_set(&s.stop, 0);
	atomic_set(&s.asked, 0);
	for (unsigned int n = 0; n < PAGES; n++)
		guest_store(&s.g, 0, n * PAGE_SIZE, 0);
	expect_eq(kthread_run(&threads[0], "ager", asker, &s), 0);
	expect_eq(kthread_run(&threads[1], "ager", asker, &s), 0);
	expect_eq(kthread_run(&threads[2], "taker", taker, &s), 0);
	/* Until the ones who ask have found so many pages in use. */
	for (uint64_t i = 1; atomic_read(&s.asked) < found || i < 500; i++) {
		for (unsigned int n = 0; n < PAGES; n++) {
			expect_eq(guest_load(&s.g, 0, n * PAGE_SIZE), i - 1);
			guest_store(&s.g, 0, n * PAGE_SIZE, i);
		}
		if (i % 8 == 0)
			guest_reload_afresh(&s.g, 0);
	}
	atomic_set(&s.stop, 1);
	for (unsigned int i = 0; i < 3; i++)
		kthread_join(&threads[i]);
	expect_contract_kept(&s.g);
	shadow_get_stats(s.g.shadow, &stats);
	expect(accessed_bits || stats.fast_faults >= 10);
	guest_mem_destroy(&s.g);
}

TEST(age, beside_everything_else)
{
	beside_everything_else(true);
}

TEST(age, tracked_beside_everything_else)
{
	beside_everything_else(false);
}
