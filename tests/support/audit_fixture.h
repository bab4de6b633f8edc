/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of the auditor have in common: a guest with two pages mapped, a way to its shadow
 * pages, and what an audit must say. What a test plants it takes back: destroy() audits.
 */
#ifndef TESTS_SUPPORT_AUDIT_FIXTURE_H
#define TESTS_SUPPORT_AUDIT_FIXTURE_H

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define GVA  0x10000000UL
#define PAGE 0x3000UL

/* The shadow page of @level that @gva is reached through from the root of CPU 0. mmu_lock is not
 * needed: one thread. */
static inline struct shadow_page *page_of(struct guest_mem *g, gva_t gva, int level)
{
	struct shadow_page *sp = g->shadow->vcpu[0].root;

	spin_lock(&g->shadow->mmu_lock);
	while (sp->role.level > level)
		sp = spte_to_child(g->shadow, sp->spt[table_index(gva, sp->role.level)]);
	spin_unlock(&g->shadow->mmu_lock);
	return sp;
}

static inline struct shadow_page *page_at(struct guest_mem *g, int level)
{
	return page_of(g, GVA, level);
}

static inline spte_t *entry_of(struct guest_mem *g, gva_t gva, int level)
{
	return &page_of(g, gva, level)->spt[table_index(gva, level)];
}

static inline void add_to(struct guest_mem *g, struct rmap_head *head, spte_t *sptep)
{
	struct rmap_desc *spare = rmap_desc_alloc();

	expect(spare);
	spin_lock(&g->shadow->mmu_lock);
	rmap_add(head, sptep, &spare);
	spin_unlock(&g->shadow->mmu_lock);
	rmap_desc_free(spare);
}

static inline void remove_from(struct guest_mem *g, struct rmap_head *head, spte_t *sptep)
{
	spin_lock(&g->shadow->mmu_lock);
	rmap_remove(head, sptep);
	spin_unlock(&g->shadow->mmu_lock);
}

/* The same with the rmap of guest page @gpa, and the summary of its slot. */
static inline struct memslot *slot_of(struct guest_mem *g, gpa_t gpa)
{
	return gfn_to_memslot(shadow_memslots(g->shadow), gpa >> PAGE_SHIFT);
}

static inline void add_leaf(struct guest_mem *g, gpa_t gpa, spte_t *sptep)
{
	struct rmap_desc *spare = rmap_desc_alloc();

	expect(spare);
	spin_lock(&g->shadow->mmu_lock);
	gfn_rmap_add(slot_of(g, gpa), gpa >> PAGE_SHIFT, sptep, &spare);
	spin_unlock(&g->shadow->mmu_lock);
	rmap_desc_free(spare);
}

static inline void remove_leaf(struct guest_mem *g, gpa_t gpa, spte_t *sptep)
{
	spin_lock(&g->shadow->mmu_lock);
	gfn_rmap_remove(slot_of(g, gpa), gpa >> PAGE_SHIFT, sptep);
	spin_unlock(&g->shadow->mmu_lock);
}

static inline void fixture(struct guest_mem *g, const struct guest_mem_config *config)
{
	guest_mem_create(g, config);
	guest_map(g, g->cr3, GVA, PAGE, GUEST_PTE_RW);
	guest_map(g, g->cr3, GVA + PAGE_SIZE, PAGE + PAGE_SIZE, GUEST_PTE_RW);
	guest_store(g, 0, GVA, 1);
	guest_store(g, 0, GVA + PAGE_SIZE, 1);
	expect_eq(shadow_audit_at(g->shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
}

static inline void destroy(struct guest_mem *g)
{
	expect_eq(shadow_audit_at(g->shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
	guest_mem_destroy(g);
}

/* @what and nothing else, and the first of it reads so. */
static inline void expect_found_at(struct guest_mem *g, enum shadow_audit_level level,
				   unsigned int what, const char *text)
{
	char why[256] = "";

	expect_eq(shadow_audit_at(g->shadow, level, why, sizeof(why)), what);
	expect_str_contains(why, text);
}

static inline void expect_found(struct guest_mem *g, unsigned int what, const char *text)
{
	expect_found_at(g, SHADOW_AUDIT_STRUCTURAL, what, text);
}

#endif
