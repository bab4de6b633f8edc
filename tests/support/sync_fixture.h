/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest with one address, GVA, whose table of leaves it has mapped at WINDOW: for tests of what
 * becomes of what is shadowed when the guest stores to its tables.
 */
#ifndef TESTS_SUPPORT_SYNC_FIXTURE_H
#define TESTS_SUPPORT_SYNC_FIXTURE_H

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define MIB2   (2UL << 20)
#define GVA    0x40000000UL   /* translated by tables of its own */
#define WINDOW 0x8000000000UL /* where the guest has the table of GVA's leaf mapped */
#define P1     0x1000UL
#define P2     0x2000UL
#define LEAF   (GUEST_PTE_RW | GUEST_PTE_U)

static const struct guest_mem_config config = {
	.audit = true,
	.nr_cpus = 4,
	.nr_pages = 3 * 512,
	.nr_frames = 4096,
	.no_identity = true,
	.reuse = MODEL_REUSE_LIFO,
};

/* GVA and its neighbour -> P1, which holds 1; P2 holds 2. The root is one that was synced before.
 */
static inline void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_write(g, P1, 1);
	guest_write(g, P2, 2);
	guest_map(g, g->cr3, GVA, P1, LEAF);
	guest_map(g, g->cr3, GVA + PAGE_SIZE, P1, LEAF);
	guest_map(g, g->cr3, WINDOW, guest_pte_gpa(g, g->cr3, GVA, 1) & PAGE_MASK, GUEST_PTE_RW);
}

static inline void destroy(struct guest_mem *g)
{
	struct model_stats stats;

	model_get_stats(g->model, &stats);
	expect_eq(stats.contract_violations, 0);
	guest_mem_destroy(g);
}

static inline struct shadow_stats stats_of(struct guest_mem *g)
{
	struct shadow_stats stats;

	shadow_get_stats(g->shadow, &stats);
	return stats;
}

static inline void reload(struct guest_mem *g, unsigned int cpu)
{
	expect_eq(shadow_load_cr3(g->shadow, cpu, g->cr3), 0);
}

static inline uint64_t leaf_gpte(struct guest_mem *g, gva_t gva)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, gva, 1));
}

static inline void set_leaf(struct guest_mem *g, gva_t gva, uint64_t gpte)
{
	guest_edit(g, guest_pte_gpa(g, g->cr3, gva, 1), gpte);
}

/* The guest's CPU @cpu stores to the entry of GVA itself. */
static inline void store_leaf(struct guest_mem *g, unsigned int cpu, uint64_t gpte)
{
	guest_store(g, cpu, WINDOW + (guest_pte_gpa(g, g->cr3, GVA, 1) & ~PAGE_MASK), gpte);
}

#endif
