/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * yield: a range is too long for one critical section, so the walk over it drops mmu_lock on the
 * way. What was cleared before that is shot down before that.
 *
 *   zap of a range                          CPU 0                          host
 *   --------------                          -----                          ----
 *                                           TLB names frames A and B
 *   start: clears the entry of A
 *     lets go of mmu_lock, takes it again
 *     clears the entry of B, shoots B down
 *   start returns
 *                                                                          moves A, poisons it
 *                                           loads by its TLB: poison
 *
 * There is no switch for this one. With the flush taken out of the way through a range (a batch
 * that is not the last forgets its frames) both cases are red, for any number of entries at a time.
 */
#include <errno.h>

#include "shadow/shadow_internal.h"
#include "tests/races/races.h"

#define PAGES 24
#define ALIAS 0x40000000UL /* each page twice: steps end within a page's rmap, too */

struct scene {
	struct guest_mem g;
	unsigned int yields;
};

static gva_t place(unsigned int n)
{
	return n < PAGES ? n * PAGE_SIZE : ALIAS + (n - PAGES) * PAGE_SIZE;
}

static uint64_t stamp_of(unsigned int n)
{
	return STAMP + n % PAGES;
}

/* Is there a leaf for it? In the walk's own thread, between two sections of mmu_lock. */
static bool mapped(struct guest_mem *g, gva_t gva)
{
	struct shadow_page *sp = g->shadow->vcpu[0].root;
	spte_t spte;

	spin_lock(&g->shadow->mmu_lock);
	for (;;) {
		spte = READ_ONCE(sp->spt[table_index(gva, sp->role.level)]);
		if (!spte_present(spte) || sp->role.level == 1)
			break;
		sp = spte_to_child(g->shadow, spte);
	}
	spin_unlock(&g->shadow->mmu_lock);
	return spte_present(spte);
}

/* What was cleared is known to no CPU; the rest is as it was. */
static void look(void *arg)
{
	struct scene *s = arg;
	uint64_t value;

	s->yields++;
	for (unsigned int n = 0; n < 2 * PAGES; n++) {
		for (unsigned int cpu = 0; cpu < 2; cpu++) {
			int ret = model_load(s->g.model, cpu, place(n), &value);

			if (!mapped(&s->g, place(n)))
				expect_eq(ret, -EFAULT);
			else if (!ret)
				expect_eq(value, stamp_of(n));
		}
	}
}

static void count_yield(void *arg)
{
	((struct scene *)arg)->yields++;
}

static void scene_init(struct scene *s, unsigned int yield_after)
{
	struct guest_mem_config config = {.nr_cpus = 2, .nr_pages = 128, .audit = true};

	guest_mem_create(&s->g, &config);
	s->yields = 0;
	s->g.shadow->yield_after = yield_after;
	for (unsigned int n = 0; n < 2 * PAGES; n++) {
		if (n >= PAGES)
			guest_map(&s->g, s->g.cr3, place(n), place(n - PAGES), GUEST_PTE_RW);
		guest_store(&s->g, 0, place(n), stamp_of(n));
		expect_eq(guest_load(&s->g, 1, place(n)), stamp_of(n));
	}
}

static void zap_and_move(struct scene *s, unsigned int yield_after)
{
	expect_eq(mm_zap_range(s->g.mm, guest_hva(0), PAGES * PAGE_SIZE), PAGES);
	expect_eq(s->yields, (2 * PAGES - 1) / yield_after);
	for (unsigned int n = 0; n < PAGES; n++)
		expect_eq(migrate_mapping_page(s->g.ram, n), 0);
	for (unsigned int n = 0; n < 2 * PAGES; n++)
		expect_eq(guest_load(&s->g, n % 2, place(n)), stamp_of(n));
	expect_contract_kept(&s->g);
	guest_mem_destroy(&s->g);
}

static void in_steps(void (*at_yield)(void *scene))
{
	static const unsigned int steps[] = {1, 2, 3, 7, 47};

	for (unsigned int i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		struct scene s;

		scene_init(&s, steps[i]);
		shadow_set_hook(s.g.shadow, SHADOW_HOOK_ZAP_YIELD, at_yield, &s);
		zap_and_move(&s, steps[i]);
	}
}

/* The oracle of a guest: stamps. */
TEST(yield, no_stamp_is_lost)
{
	in_steps(count_yield);
}

/* The same, looked at each time that the lock is dropped. */
TEST(yield, nothing_is_owed_at_any_step)
{
	in_steps(look);
}
