/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of 2 MiB entries have in common: guest RAM that lies in the host as it does in the
 * guest, every word saying where it is, and the guest's tables behind the pages that tests map.
 */
#ifndef TESTS_SUPPORT_HUGE_FIXTURE_H
#define TESTS_SUPPORT_HUGE_FIXTURE_H

#include "shadow/huge.h"
#include "tests/support/guest_fixture.h"

#define MIB2 (2UL << 20)
#define BIG  0x40000000UL /* where tests map them */

#define LARGE (GUEST_PTE_RW | GUEST_PTE_U | GUEST_PTE_PS)
#define TABLE (GUEST_PTE_RW | GUEST_PTE_U)

#define HUGE_REGIONS 4 /* of RAM; tables are in one more */

static const struct guest_mem_config huge_config = {
	.audit = true,
	.no_identity = true,
	.nr_cpus = 2,
	.nr_pages = (HUGE_REGIONS + 1) * HUGE_PAGES,
	.reuse = MODEL_REUSE_LIFO,
};

/* Touched in order, before anything else takes a frame: so page n has frame n. */
static inline void touch_in_order(struct guest_mem *g)
{
	for (gpa_t gpa = 0; gpa < g->nr_pages << PAGE_SHIFT; gpa += PAGE_SIZE)
		guest_write(g, gpa, gpa);
	for (gpa_t gpa = 0; gpa < g->nr_pages << PAGE_SHIFT; gpa += PAGE_SIZE)
		expect_eq(mm_lookup_pfn(g->mm, guest_hva(gpa)), gpa >> PAGE_SHIFT);
}

static inline void huge_fixture_of(struct guest_mem *g, const struct guest_mem_config *config)
{
	guest_mem_init(g, config);
	touch_in_order(g);
	guest_mem_attach(g);
}

static inline void huge_fixture(struct guest_mem *g)
{
	huge_fixture_of(g, &huge_config);
}

static inline void huge_done(struct guest_mem *g)
{
	char why[256];

	if (shadow_audit(g->shadow, why, sizeof(why)))
		fail("%s", why);
	destroy(g);
}

static inline void set_pde(struct guest_mem *g, gva_t gva, uint64_t value)
{
	guest_write(g, guest_pte_gpa(g, g->cr3, gva, 2), value);
}

static inline uint64_t pde(struct guest_mem *g, gva_t gva)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, gva, 2));
}

/* Entries that map 2 MiB of the region of @gpa, in all tables. */
static inline unsigned int huge_leaves(struct guest_mem *g, gpa_t gpa)
{
	const struct memslot *slot;
	unsigned int nr;
	int id = srcu_read_lock(&g->shadow->slots_srcu);

	spin_lock(&g->shadow->mmu_lock);
	slot = gpa_to_memslot(g->shadow, gpa);
	nr = rmap_count(&huge_region(slot, (gpa >> PAGE_SHIFT) - slot->base_gfn)->rmap);
	spin_unlock(&g->shadow->mmu_lock);
	srcu_read_unlock(&g->shadow->slots_srcu, id);
	return nr;
}

/* Of page @gpa, for itself. */
static inline unsigned int small_leaves(struct guest_mem *g, gpa_t gpa)
{
	const struct memslot *slot;
	unsigned int nr;
	int id = srcu_read_lock(&g->shadow->slots_srcu);

	spin_lock(&g->shadow->mmu_lock);
	slot = gpa_to_memslot(g->shadow, gpa);
	nr = rmap_count(&slot->rmap[(gpa >> PAGE_SHIFT) - slot->base_gfn]);
	spin_unlock(&g->shadow->mmu_lock);
	srcu_read_unlock(&g->shadow->slots_srcu, id);
	return nr;
}

/* BIG maps 2 MiB from @gpa on, dirty, and both CPUs have been there: by one entry. */
static inline void map_huge(struct guest_mem *g, gpa_t gpa)
{
	set_pde(g, BIG, gpa | LARGE);
	guest_store(g, 0, BIG, gpa);
	expect_eq(guest_load(g, 1, BIG + MIB2 - PAGE_SIZE), gpa + MIB2 - PAGE_SIZE);
	expect_eq(huge_leaves(g, gpa), 1);
	expect_eq(small_leaves(g, gpa), 0);
}

#endif
