/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor, of what the guest said. Each plant here is sound as a structure: the rmaps know it,
 * frames and links are in order. It only is not what the guest's entry gave.
 */
#include "tests/support/audit_fixture.h"

#define READ_ONLY (GVA + 2 * PAGE_SIZE)
#define LARGE	  (1UL << 30)
#define OTHER	  (GVA + (1UL << 21))
#define ALIAS	  (GVA + (2UL << 21))

static const struct guest_mem_config config = {.no_identity = true, .audit = true};

static void expect_origin(struct guest_mem *g, const char *text)
{
	expect_eq(shadow_audit_at(g->shadow, SHADOW_AUDIT_STRUCTURAL, NULL, 0), 0);
	expect_found_at(g, SHADOW_AUDIT_SEMANTIC, SHADOW_BAD_ORIGIN, text);
}

TEST(audit_guest, leaf_with_more_rights)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	guest_map(&g, g.cr3, READ_ONLY, PAGE, GUEST_PTE_P | GUEST_PTE_NX);
	expect_eq(guest_load(&g, 0, READ_ONLY), 1);
	sptep = entry_of(&g, READ_ONLY, 1);
	old = *sptep;
	*sptep = old | SPTE_WRITE;
	expect_origin(&g, "origin: entry 2 of the table");
	*sptep = old & ~SPTE_NX;
	expect_origin(&g, "origin: entry 2 of the table");
	*sptep = old;
	destroy(&g);
}

/* A clean page is not writable: its D bit would be missed. */
TEST(audit_guest, writable_leaf_of_a_clean_page)
{
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &config);
	guest_map(&g, g.cr3, READ_ONLY, PAGE, GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, READ_ONLY), 1);
	sptep = entry_of(&g, READ_ONLY, 1);
	*sptep |= SPTE_WRITE;
	expect_origin(&g, "made from 0x3023");
	*sptep &= ~SPTE_WRITE;
	guest_store(&g, 0, READ_ONLY, 2); /* widened in place, from what the walk found then */
	destroy(&g);
}

TEST(audit_guest, leaf_of_another_page)
{
	struct shadow_page *sp;
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	sp = page_at(&g, 1);
	sptep = &sp->spt[0];
	old = *sptep;
	remove_leaf(&g, PAGE, sptep);
	add_leaf(&g, PAGE + PAGE_SIZE, sptep);
	sp->gfns[0]++;
	*sptep = sp->spt[1];
	expect_origin(&g, "for gfn 0x4, made from 0x3063");
	remove_leaf(&g, PAGE + PAGE_SIZE, sptep);
	add_leaf(&g, PAGE, sptep);
	sp->gfns[0]--;
	*sptep = old;
	destroy(&g);
}

/* Right role, wrong gfn: what K-03 is about. */
TEST(audit_guest, link_to_the_table_of_another)
{
	struct guest_mem g;
	struct shadow_page *right, *wrong;
	spte_t *sptep, old;

	fixture(&g, &config);
	guest_map(&g, g.cr3, OTHER, PAGE, GUEST_PTE_RW);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, ALIAS, 2),
		    guest_read(&g, guest_pte_gpa(&g, g.cr3, OTHER, 2)));
	expect_eq(guest_load(&g, 0, OTHER), 1);
	expect_eq(guest_load(&g, 0, ALIAS), 1);
	right = page_of(&g, ALIAS, 1);
	wrong = page_at(&g, 1);
	expect_eq(right->role.word, wrong->role.word);

	sptep = entry_of(&g, ALIAS, 2);
	old = *sptep;
	remove_from(&g, &right->parents, sptep);
	add_to(&g, &wrong->parents, sptep);
	*sptep = make_table_spte(wrong->table);
	expect_origin(&g, "of the level 2 table");
	*sptep = old;
	remove_from(&g, &wrong->parents, sptep);
	add_to(&g, &right->parents, sptep);
	destroy(&g);
}

/* Rights that the link's entry takes away, and those of a large page. */
TEST(audit_guest, link_to_a_table_with_more_rights)
{
	struct shadow_page *sp;
	struct guest_mem g;
	gpa_t gpte;

	fixture(&g, &config);
	guest_map(&g, g.cr3, OTHER, PAGE, GUEST_PTE_RW);
	gpte = guest_pte_gpa(&g, g.cr3, OTHER, 2);
	guest_write(&g, gpte, guest_read(&g, gpte) & ~GUEST_PTE_W);
	expect_eq(guest_load(&g, 0, OTHER), 1);
	sp = page_of(&g, OTHER, 1);
	expect_eq(sp->role.access, ACC_USER | ACC_EXEC);
	sp->role.access = ACC_ALL;
	expect_origin(&g, "in role");
	sp->role.access = ACC_USER | ACC_EXEC;

	guest_write(&g, guest_pte_gpa(&g, g.cr3, LARGE, 2), GUEST_PTE_RW | GUEST_PTE_PS);
	expect_eq(guest_load(&g, 0, LARGE + PAGE), 1);
	sp = page_of(&g, LARGE, 1);
	expect(sp->role.direct && !sp->role.dirty);
	sp->role.dirty = 1;
	expect_origin(&g, "in role");
	sp->role.dirty = 0;
	sp->role.pkey = 1;
	expect_origin(&g, "in role");
	sp->role.pkey = 0;
	destroy(&g);
}

/* The guest's large page has become a table with the same gfn: what is below it must go. */
TEST(audit_guest, direct_table_where_the_guest_has_a_table)
{
	struct shadow_page *sp;
	struct guest_mem g;
	unsigned int index = table_index(LARGE, 2);
	uint64_t old;

	fixture(&g, &config);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, LARGE, 2), GUEST_PTE_RW | GUEST_PTE_PS);
	expect_eq(guest_load(&g, 0, LARGE + PAGE), 1);
	sp = page_of(&g, LARGE, 2);
	old = sp->gptes[index];
	sp->gptes[index] &= ~GUEST_PTE_PS;
	expect_origin(&g, "of the level 2 table");
	sp->gptes[index] = old | 1UL << 13; /* reserved, in a large page */
	expect_origin(&g, "of the level 2 table");
	sp->gptes[index] = old;
	destroy(&g);
}

/* What the guest takes away stays, as in a TLB, until it says so: no fault of ours. */
TEST(audit_guest, stale_until_the_guest_flushes)
{
	struct guest_mem g;
	gpa_t gpte;

	fixture(&g, &config);
	gpte = guest_pte_gpa(&g, g.cr3, GVA, 1);
	guest_write(&g, gpte, guest_read(&g, gpte) & ~GUEST_PTE_W);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	expect_found_at(&g, SHADOW_AUDIT_IN_SYNC, SHADOW_BAD_STALE, "stale: entry 0 of the table");
	shadow_invlpg(g.shadow, 0, GVA);
	expect_eq(shadow_audit_at(g.shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);

	expect_eq(guest_load(&g, 0, GVA), 1);
	guest_write(&g, gpte, 0);
	expect_found_at(&g, SHADOW_AUDIT_IN_SYNC, SHADOW_BAD_STALE, "the guest has 0");
	guest_write(&g, gpte, PAGE | GUEST_PTE_RW); /* and gives it back, with more */
	expect_eq(shadow_audit_at(g.shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);

	gpte = guest_pte_gpa(&g, g.cr3, GVA, 2);
	guest_write(&g, gpte, guest_read(&g, gpte) & ~GUEST_PTE_W);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	expect_found_at(&g, SHADOW_AUDIT_IN_SYNC, SHADOW_BAD_STALE, "of the level 2 table");
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	destroy(&g);
}

/* A table of the guest's that the host has out of memory says nothing. */
TEST(audit_guest, what_cannot_be_read_is_not_held_against_us)
{
	struct guest_mem g;
	gpa_t gpte;

	fixture(&g, &config);
	gpte = guest_pte_gpa(&g, g.cr3, GVA, 1);
	guest_write(&g, gpte, 0);
	expect_eq(mm_zap_range(g.mm, guest_hva(gpte & PAGE_MASK), PAGE_SIZE), 1);
	expect_eq(shadow_audit_at(g.shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
	expect_eq(guest_read(&g, gpte), 0);
	expect_found_at(&g, SHADOW_AUDIT_IN_SYNC, SHADOW_BAD_STALE, "the guest has 0");
	shadow_invlpg(g.shadow, 0, GVA);
	destroy(&g);
}

/* Tables that were there before are known by their structure alone; later ones by all. */
TEST(audit_guest, from_when_it_is_asked_for)
{
	const struct guest_mem_config late = {.no_identity = true};
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &late);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_SEMANTIC);
	guest_map(&g, g.cr3, READ_ONLY, PAGE, GUEST_PTE_P);
	expect_eq(guest_load(&g, 0, READ_ONLY), 1);
	sptep = entry_of(&g, READ_ONLY, 1);
	*sptep |= SPTE_WRITE;
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	*sptep &= ~SPTE_WRITE;

	/* CPU 0 has tables from before in its cache, one of each level. */
	for (gva_t gva = GVA + (1UL << 39); gva <= GVA + 4 * (1UL << 39); gva += 1UL << 39) {
		guest_map(&g, g.cr3, gva, PAGE, GUEST_PTE_P);
		expect_eq(guest_load(&g, 0, gva), 1);
	}
	sptep = entry_of(&g, GVA + 4 * (1UL << 39), 1);
	*sptep |= SPTE_WRITE;
	expect_origin(&g, "made from 0x3021");
	*sptep &= ~SPTE_WRITE;
	destroy(&g);
}
