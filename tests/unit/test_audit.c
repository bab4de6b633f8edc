/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor finds what is planted, names it, and is silent otherwise.
 */
#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

#define GVA  0x10000000UL
#define PAGE 0x3000UL

static const struct guest_mem_config config = {.no_identity = true};

/* The shadow page of @level that GVA is reached through; root 0. mmu_lock is not needed: one
 * thread. */
static struct shadow_page *page_at(struct guest_mem *g, int level)
{
	struct shadow_page *sp = g->shadow->vcpu[0].root;

	spin_lock(&g->shadow->mmu_lock);
	while (sp->role.level > level)
		sp = spte_to_child(g->shadow, sp->spt[table_index(GVA, sp->role.level)]);
	spin_unlock(&g->shadow->mmu_lock);
	return sp;
}

static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_map(g, g->cr3, GVA, PAGE, GUEST_PTE_RW);
	guest_map(g, g->cr3, GVA + PAGE_SIZE, PAGE + PAGE_SIZE, GUEST_PTE_RW);
	guest_store(g, 0, GVA, 1);
	guest_store(g, 0, GVA + PAGE_SIZE, 1);
	expect_eq(shadow_audit(g->shadow, NULL, 0), 0);
}

static void expect_finding(struct guest_mem *g, const char *text)
{
	char why[256] = "";

	expect_ge(shadow_audit(g->shadow, why, sizeof(why)), 1);
	expect_str_contains(why, text);
}

static void destroy(struct guest_mem *g)
{
	expect_eq(shadow_audit(g->shadow, NULL, 0), 0);
	guest_mem_destroy(g);
}

TEST(audit, wrong_frame)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g);
	sptep = &page_at(&g, 1)->spt[table_index(GVA, 1)];
	old = *sptep;
	*sptep = make_leaf_spte(spte_pfn(old) + 1, ACC_ALL);
	expect_finding(&g, "is mapped to frame");
	*sptep = old;
	destroy(&g);
}

TEST(audit, host_moved_without_a_word)
{
	struct guest_mem g;

	fixture(&g);
	shadow_set_break(g.shadow, SHADOW_BREAK_ZAP);
	expect_eq(mm_migrate_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_finding(&g, "is mapped to frame");
	shadow_set_break(g.shadow, 0);
	expect_eq(mm_migrate_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	destroy(&g);
}

TEST(audit, rmap_misses_a_leaf)
{
	struct rmap_desc *spare = rmap_desc_alloc();
	struct rmap_head *head;
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g);
	sptep = &page_at(&g, 1)->spt[table_index(GVA, 1)];
	head = &gfn_to_memslot(shadow_memslots(g.shadow), PAGE >> PAGE_SHIFT)
			->rmap[PAGE >> PAGE_SHIFT];
	spin_lock(&g.shadow->mmu_lock);
	rmap_remove(head, sptep);
	spin_unlock(&g.shadow->mmu_lock);
	expect_finding(&g, "rmap");
	spin_lock(&g.shadow->mmu_lock);
	rmap_add(head, sptep, &spare);
	spin_unlock(&g.shadow->mmu_lock);
	if (spare)
		rmap_desc_free(spare);
	destroy(&g);
}

/* The summary by which ranges are walked: a page that it misses would be left out of a zap. */
TEST(audit, summary_of_mapped_pages)
{
	struct memslot *slot;
	struct guest_mem g;

	fixture(&g);
	slot = gfn_to_memslot(shadow_memslots(g.shadow), PAGE >> PAGE_SHIFT);
	spin_lock(&g.shadow->mmu_lock);
	gfn_set_remove(&slot->mapped, PAGE >> PAGE_SHIFT);
	spin_unlock(&g.shadow->mmu_lock);
	expect_finding(&g, "misses it");
	spin_lock(&g.shadow->mmu_lock);
	gfn_set_add(&slot->mapped, PAGE >> PAGE_SHIFT);
	gfn_set_add(&slot->mapped, (PAGE >> PAGE_SHIFT) + 2);
	spin_unlock(&g.shadow->mmu_lock);
	expect_finding(&g, "has it");
	spin_lock(&g.shadow->mmu_lock);
	gfn_set_remove(&slot->mapped, (PAGE >> PAGE_SHIFT) + 2);
	spin_unlock(&g.shadow->mmu_lock);
	destroy(&g);
}

/* An entry in an rmap that is no leaf of that page any more: what R-12 left behind. */
TEST(audit, rmap_names_what_is_no_leaf)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g);
	sptep = &page_at(&g, 1)->spt[table_index(GVA, 1)];
	old = *sptep;
	*sptep = 0;
	expect_finding(&g, "no leaf");
	*sptep = old;
	destroy(&g);
}

/* The page was entered under one gfn and is looked for under another: R-10's fault. */
TEST(audit, leaf_under_a_wrong_gfn)
{
	struct shadow_page *sp;
	struct guest_mem g;
	gfn_t old;

	fixture(&g);
	sp = page_at(&g, 1);
	old = sp->gfns[table_index(GVA, 1)];
	sp->gfns[table_index(GVA, 1)] = old + 1;
	expect_finding(&g, "rmap");
	sp->gfns[table_index(GVA, 1)] = 1UL << 40;
	expect_finding(&g, "no slot");
	sp->gfns[table_index(GVA, 1)] = old;
	destroy(&g);
}

TEST(audit, child_that_does_not_know_its_parent)
{
	struct rmap_desc *spare = rmap_desc_alloc();
	struct shadow_page *child;
	struct guest_mem g;
	spte_t *parent;

	fixture(&g);
	child = page_at(&g, 1);
	parent = &page_at(&g, 2)->spt[table_index(GVA, 2)];
	spin_lock(&g.shadow->mmu_lock);
	rmap_remove(&child->parents, parent);
	spin_unlock(&g.shadow->mmu_lock);
	expect_finding(&g, "neither linked nor a root");
	spin_lock(&g.shadow->mmu_lock);
	rmap_add(&child->parents, parent, &spare);
	spin_unlock(&g.shadow->mmu_lock);
	if (spare)
		rmap_desc_free(spare);
	destroy(&g);
}

/* The same where the child has another parent: so it is linked, but not by all who link to it. */
TEST(audit, child_that_does_not_know_one_parent)
{
	const gva_t other = GVA + (1UL << 21);
	struct rmap_desc *spare = rmap_desc_alloc();
	struct shadow_page *child;
	struct guest_mem g;
	spte_t *parent;

	fixture(&g);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, other, 2),
		    guest_read(&g, guest_pte_gpa(&g, g.cr3, GVA, 2)));
	expect_eq(guest_load(&g, 0, other), 1);
	child = page_at(&g, 1);
	expect_eq(rmap_count(&child->parents), 2);
	parent = &page_at(&g, 2)->spt[table_index(GVA, 2)];
	spin_lock(&g.shadow->mmu_lock);
	rmap_remove(&child->parents, parent);
	spin_unlock(&g.shadow->mmu_lock);
	expect_finding(&g, "does not know its parent");
	spin_lock(&g.shadow->mmu_lock);
	rmap_add(&child->parents, parent, &spare);
	spin_unlock(&g.shadow->mmu_lock);
	if (spare)
		rmap_desc_free(spare);
	destroy(&g);
}

TEST(audit, page_in_the_wrong_role)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g);
	sp = page_at(&g, 1);
	sp->role.access = ACC_EXEC;
	expect_finding(&g, "writable leaf");
	sp->role.access = ACC_ALL;
	destroy(&g);
}

/* More than a table's role allows, of each right. */
TEST(audit, leaf_with_rights_of_another_role)
{
	struct shadow_role role;
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g);
	sp = page_at(&g, 1);
	role = sp->role;
	sp->role.access &= ~ACC_EXEC;
	expect_finding(&g, "to execute");
	sp->role = role;
	sp->role.user = 1;
	sp->role.access &= ~ACC_USER;
	expect_finding(&g, "nothing may be read");
	sp->role = role;
	destroy(&g);
}

/* A direct table with a page that is not its own. */
TEST(audit, direct_table_that_is_none)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g);
	sp = page_at(&g, 1);
	sp->role.direct = 1;
	sp->role.dirty = 1;
	expect_finding(&g, "of the direct table");
	sp->role.direct = 0;
	sp->role.dirty = 0;
	destroy(&g);
}

TEST(audit, link_to_another_view_or_to_more_rights)
{
	struct shadow_role role;
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g);
	sp = page_at(&g, 2);
	role = sp->role;
	sp->role.smep = 1;
	expect_finding(&g, "links to gfn");
	sp->role = role;
	sp->role.access &= ~ACC_WRITE;
	expect_finding(&g, "links to gfn");
	sp->role = role;
	sp->role.direct = 1;
	expect_finding(&g, "links to gfn");
	sp->role = role;
	destroy(&g);
}

TEST(audit, link_to_the_wrong_level)
{
	struct shadow_page *top;
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g);
	top = page_at(&g, 4);
	sptep = &top->spt[table_index(GVA, 4)];
	old = *sptep;
	*sptep = make_table_spte(page_at(&g, 1)->table);
	expect_finding(&g, "level 4 table links to one of level 1");
	*sptep = old;
	destroy(&g);
}

/* In a child, with all of its own: frames are shared memory. */
static void plant_while_audits_are_on(void *arg)
{
	struct guest_mem g;
	spte_t *sptep;

	(void)arg;
	fixture(&g);
	guest_map(&g, g.cr3, GVA + 2 * PAGE_SIZE, PAGE, GUEST_PTE_RW);
	sptep = &page_at(&g, 1)->spt[table_index(GVA, 1)];
	shadow_set_audit(g.shadow, true);
	*sptep = make_leaf_spte(spte_pfn(*sptep) + 1, ACC_ALL);
	guest_load(&g, 0, GVA + 2 * PAGE_SIZE);
}

TEST(audit, after_every_operation)
{
	expect_bug(plant_while_audits_are_on, NULL, "a consistent shadow MMU");
}
