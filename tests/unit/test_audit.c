/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor, of tables and links: it finds what is planted, calls it by its name, and is silent
 * otherwise.
 */
#include "tests/support/audit_fixture.h"
#include "tests/support/beside.h"

static const struct guest_mem_config config = {.no_identity = true};

TEST(audit, bits_that_no_entry_has)
{
	static const struct {
		int level;
		spte_t set, clear;
	} plants[] = {
		{1, 0, SPTE_PRESENT}, {1, 0, SPTE_USER},  {1, 1UL << 7, 0},  {1, 1UL << 53, 0},
		{1, 1UL << 52, 0},    {2, 0, SPTE_WRITE}, {2, 0, SPTE_USER}, {3, 1UL << 7, 0},
		{3, SPTE_NX, 0},      {4, 0, SPTE_USER},
	};
	struct guest_mem g;

	fixture(&g, &config);
	for (unsigned int i = 0; i < sizeof(plants) / sizeof(plants[0]); i++) {
		spte_t *sptep = entry_of(&g, GVA, plants[i].level), old = *sptep;

		*sptep = (old | plants[i].set) & ~plants[i].clear;
		expect_found(&g, SHADOW_BAD_ENTRY, "entry: entry");
		*sptep = old;
	}
	/* What a CPU sets by itself is no matter. */
	*entry_of(&g, GVA, 3) |= SPTE_DIRTY;
	*entry_of(&g, GVA, 1) &= ~SPTE_ACCESSED;
	destroy(&g);
}

/* Half an entry, and one that is the machine's in a table that is not a root. */
TEST(audit, entries_that_are_not_ours)
{
	struct guest_mem g;
	struct shadow_page *leaves, *root;

	fixture(&g, &config);
	leaves = page_at(&g, 1);
	root = page_at(&g, 4);
	leaves->spt[99] = SPTE_PRESENT;
	expect_found(&g, SHADOW_BAD_ENTRY, "entry 99 of the level 1 table");
	leaves->spt[99] = 0;
	root->spt[99] = SPTE_PRESENT | SPTE_WRITE;
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	root->spt[99] = 1UL << 20;
	expect_found(&g, SHADOW_BAD_ENTRY, "entry 99 of the level 4 table");
	root->spt[99] = 0;
	destroy(&g);
}

TEST(audit, child_that_does_not_know_its_parent)
{
	struct shadow_page *child;
	struct guest_mem g;
	spte_t *parent;

	fixture(&g, &config);
	child = page_at(&g, 1);
	parent = entry_of(&g, GVA, 2);
	remove_from(&g, &child->parents, parent);
	expect_found(&g, SHADOW_BAD_ORPHAN | SHADOW_BAD_PARENT, "orphan: the page of gfn");
	add_to(&g, &child->parents, parent);
	destroy(&g);
}

/* The same where the child has another parent: so it is linked, but not by all who link to it. */
TEST(audit, child_that_does_not_know_one_parent)
{
	const gva_t other = GVA + (1UL << 21);
	struct shadow_page *child;
	struct guest_mem g;
	spte_t *parent;

	fixture(&g, &config);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, other, 2),
		    guest_read(&g, guest_pte_gpa(&g, g.cr3, GVA, 2)));
	expect_eq(guest_load(&g, 0, other), 1);
	child = page_at(&g, 1);
	expect_eq(rmap_count(&child->parents), 2);
	parent = entry_of(&g, GVA, 2);
	remove_from(&g, &child->parents, parent);
	expect_found(&g, SHADOW_BAD_PARENT, "parent: the page of gfn");
	add_to(&g, &child->parents, parent);
	destroy(&g);
}

TEST(audit, parent_that_does_not_link)
{
	struct shadow_page *child;
	struct guest_mem g;
	spte_t *stranger;

	fixture(&g, &config);
	child = page_at(&g, 1);
	stranger = &page_at(&g, 2)->spt[17];
	add_to(&g, &child->parents, stranger);
	expect_found(&g, SHADOW_BAD_PARENT, "does not link to it");
	remove_from(&g, &child->parents, stranger);
	/* One that links, to somebody else. */
	stranger = entry_of(&g, GVA, 3);
	add_to(&g, &child->parents, stranger);
	expect_found(&g, SHADOW_BAD_PARENT, "does not link to it");
	remove_from(&g, &child->parents, stranger);
	destroy(&g);
}

TEST(audit, link_to_nothing)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 2);
	old = *sptep;
	*sptep = make_table_spte(mm_lookup_pfn(g.mm, guest_hva(PAGE)));
	expect_found(&g, SHADOW_BAD_LINK | SHADOW_BAD_PARENT, "does not link to it");
	*sptep = old;
	destroy(&g);
}

TEST(audit, link_to_the_wrong_level)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 4);
	old = *sptep;
	*sptep = make_table_spte(page_at(&g, 1)->table);
	expect_found(&g, SHADOW_BAD_LINK | SHADOW_BAD_PARENT, "does not link to it");
	*sptep = old;
	destroy(&g);
}

/* Rights are only lost on the way down, and a view is kept. */
TEST(audit, link_in_the_wrong_role)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g, &config);
	sp = page_at(&g, 2);
	sp->role.access &= ~ACC_WRITE;
	expect_found(&g, SHADOW_BAD_ROLE, "links to gfn");
	sp->role.access = ACC_ALL;
	sp->role.direct = 1;
	expect_found(&g, SHADOW_BAD_ROLE | SHADOW_BAD_SUMMARY, "links to gfn");
	sp->role.direct = 0;
	sp->role.smep = 1;
	expect_found(&g, SHADOW_BAD_ROLE, "links to gfn");
	sp->role.smep = 0;
	destroy(&g);
}

TEST(audit, pages_that_are_alike)
{
	const gva_t other = GVA + (1UL << 21);
	struct shadow_page *sp, *like;
	struct guest_mem g;
	gfn_t old;

	fixture(&g, &config);
	guest_map(&g, g.cr3, other, PAGE, GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, other), 1);
	sp = page_of(&g, other, 1);
	like = page_at(&g, 1);
	expect_ne(sp, like);
	expect_eq(sp->role.word, like->role.word);
	old = sp->gfn;
	sp->gfn = like->gfn;
	expect_found(&g, SHADOW_BAD_PAGE | SHADOW_BAD_SUMMARY, "two pages for gfn");
	sp->gfn = old;
	destroy(&g);
}

/* Of what became obsolete nothing is used any more (K-25). */
TEST(audit, link_to_an_obsolete_table)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g, &config);
	sp = page_at(&g, 2);
	sp->gen--;
	expect_found(&g, SHADOW_BAD_LINK,
		     "link: entry 0 of the table of gfn 0x3e names an obsolete");
	sp->gen++;
	destroy(&g);
}

TEST(audit, zapped_root_with_an_entry)
{
	struct shadow_page *root;
	struct guest_mem g;

	fixture(&g, &config);
	root = page_at(&g, 4);
	root->zapped = true;
	expect_found(&g, SHADOW_BAD_RETIRED, "of the zapped root of gfn 0x3f");
	root->zapped = false;
	destroy(&g);
}

TEST(audit, root_that_is_counted_once_too_often)
{
	struct shadow_page *root;
	struct guest_mem g;

	fixture(&g, &config);
	root = page_at(&g, 4);
	root->root_count++;
	expect_found(&g, SHADOW_BAD_PAGE, "page: the root of gfn 0x3f is counted 2 times");
	root->root_count--;
	destroy(&g);
}

/* The root of a CR3 where no memory is maps nothing (K-38). */
TEST(audit, dummy_root_with_an_entry)
{
	struct shadow_page *child, *root;
	struct guest_mem g;

	fixture(&g, &config);
	child = page_at(&g, 3);
	expect_eq(shadow_load_cr3(g.shadow, 0, 1UL << 40), 0);
	root = g.shadow->vcpu[0].root;
	expect_eq(root->gfn, INVALID_GFN);
	root->spt[7] = make_table_spte(child->table);
	add_to(&g, &child->parents, &root->spt[7]);
	expect_found(&g, SHADOW_BAD_PAGE, "page: entry 7 of a dummy root is present");
	remove_from(&g, &child->parents, &root->spt[7]);
	root->spt[7] = 0;
	destroy(&g);
}

/* Below a piece of a large page are its own pieces, each in its place. */
TEST(audit, link_to_another_piece_of_a_large_page)
{
	const gva_t large = 1UL << 39;
	struct shadow_page *sp, *child;
	struct guest_mem g;

	fixture(&g, &config);
	guest_map(&g, g.cr3, large + (1UL << 30), PAGE, GUEST_PTE_RW);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, large, 3), GUEST_PTE_RW | GUEST_PTE_PS);
	guest_store(&g, 0, large + PAGE, 1);
	sp = page_of(&g, large, 2);
	child = page_of(&g, large, 1);
	expect(sp->role.direct);
	remove_from(&g, &child->parents, &sp->spt[0]);
	add_to(&g, &child->parents, &sp->spt[1]);
	sp->spt[1] = sp->spt[0];
	sp->spt[0] = 0;
	expect_found(&g, SHADOW_BAD_ROLE, "role: entry 1 of the table of gfn 0");
	sp->spt[0] = sp->spt[1];
	sp->spt[1] = 0;
	remove_from(&g, &child->parents, &sp->spt[1]);
	add_to(&g, &child->parents, &sp->spt[0]);
	destroy(&g);
}

TEST(audit, page_that_is_not_counted)
{
	struct guest_mem g;

	fixture(&g, &config);
	g.shadow->nr_pages++;
	expect_found(&g, SHADOW_BAD_PAGE, "page: 4 pages, but 5 are counted");
	g.shadow->nr_pages--;
	destroy(&g);
}

TEST(audit, table_that_is_not_where_it_was)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g, &config);
	sp = page_at(&g, 4);
	sp->table++;
	expect_found(&g, SHADOW_BAD_PAGE, "is not found by its address");
	sp->table--;
	destroy(&g);
}

/* An entry that came into a table after it was zapped: it goes back to the machine with it. */
static void plant_in_retired(void *arg)
{
	struct guest_mem *g = arg;
	struct zap_batch *batch = list_first_entry(&g->shadow->batches, struct zap_batch, link);
	struct shadow_page *sp = list_first_entry(&batch->retired, struct shadow_page, link);

	expect_eq(shadow_audit(g->shadow, NULL, 0), 0);
	sp->spt[5] = make_leaf_spte(1, 0);
	expect_found(g, SHADOW_BAD_RETIRED, "entry 5 of the table");
	if (g->config.audit)
		return;
	sp->spt[5] = 0;
	add_to(g, &sp->parents, &sp->spt[6]);
	expect_found(g, SHADOW_BAD_RETIRED, "has a parent");
	remove_from(g, &sp->parents, &sp->spt[6]);
}

static void retire_with_a_plant(struct guest_mem *g)
{
	shadow_set_hook(g->shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT, plant_in_retired, g);
	guest_reload_afresh(g, 0);
	shadow_set_hook(g->shadow, SHADOW_HOOK_BATCH_BEFORE_SHOOT, NULL, NULL);
}

TEST(audit, entry_in_a_zapped_table)
{
	struct shadow_stats stats;
	struct guest_mem g;

	fixture(&g, &config);
	retire_with_a_plant(&g);
	shadow_get_stats(g.shadow, &stats);
	expect_eq(stats.tables_retired, 3);
	destroy(&g);
}

static void retire_what_is_not_empty(void *arg)
{
	const struct guest_mem_config audited = {.no_identity = true, .audit = true};
	struct guest_mem g;

	(void)arg;
	fixture(&g, &audited);
	retire_with_a_plant(&g);
}

TEST(audit, entry_in_a_retired_table)
{
	expect_bug(retire_what_is_not_empty, NULL, "an empty table goes: retired: entry 5");
}

static void plant_in_unused(void *arg)
{
	const struct guest_mem_config audited = {.no_identity = true, .audit = true};
	struct guest_mem g;

	(void)arg;
	fixture(&g, &audited);
	g.shadow->vcpu[0].cache.page[0]->spt[5] = make_leaf_spte(1, 0);
	guest_mem_destroy(&g);
}

/* One that a vCPU had in store. */
TEST(audit, entry_in_an_unused_table)
{
	expect_bug(plant_in_unused, NULL, "an empty table goes: retired: entry 5");
}

/* In a child, with all of its own: frames are shared memory. */
static void plant_while_audits_are_on(void *arg)
{
	struct guest_mem g;
	spte_t *sptep;

	(void)arg;
	fixture(&g, &config);
	guest_map(&g, g.cr3, GVA + 2 * PAGE_SIZE, PAGE, GUEST_PTE_RW);
	sptep = entry_of(&g, GVA, 1);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_STRUCTURAL);
	*sptep = make_leaf_spte(spte_pfn(*sptep) + 1, ACC_ALL);
	guest_load(&g, 0, GVA + 2 * PAGE_SIZE);
}

TEST(audit, after_every_operation)
{
	expect_bug(plant_while_audits_are_on, NULL, "a consistent shadow MMU: frame:");
}

static void audit_no_more(void *arg)
{
	struct guest_mem *g = arg;

	shadow_set_audit(g->shadow, SHADOW_AUDIT_OFF);
}

/* Who has mmu_lock audits at one level from its beginning to its end. */
TEST(audit, the_level_is_the_locks)
{
	struct beside beside;
	struct guest_mem g;

	fixture(&g, &config);
	for (unsigned int round = 0; round < 40; round++) {
		shadow_set_audit(g.shadow, SHADOW_AUDIT_STRUCTURAL);
		spin_lock(&g.shadow->mmu_lock);
		beside_start(&beside, audit_no_more, &g);
		for_each_look() expect_eq(READ_ONCE(g.shadow->audit), SHADOW_AUDIT_STRUCTURAL);
		spin_unlock(&g.shadow->mmu_lock);
		kthread_join(&beside.thread);
		expect_eq(g.shadow->audit, SHADOW_AUDIT_OFF);
	}
	destroy(&g);
}

TEST(audit, the_first_finding_is_told_and_cut_to_size)
{
	char why[] = "untouched", tiny[4];
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &config);
	expect_eq(shadow_audit(g.shadow, why, sizeof(why)), 0);
	expect_str_eq(why, "untouched");
	sptep = entry_of(&g, GVA, 1);
	*sptep ^= SPTE_USER;
	expect_eq(shadow_audit(g.shadow, tiny, sizeof(tiny)), SHADOW_BAD_ENTRY);
	expect_str_eq(tiny, "ent");
	*sptep ^= SPTE_USER;
	destroy(&g);
}

/* No store may go unnoticed to a table that is in step. One of leaves is, once it was synced. */
TEST(audit, writable_table)
{
	for (int level = 4; level >= 1; level--) {
		const gva_t window = 0x20000000;
		struct guest_mem g;
		spte_t *sptep;
		gpa_t table;

		fixture(&g, &config);
		table = guest_pte_gpa(&g, g.cr3, GVA, level) & PAGE_MASK;
		guest_map(&g, g.cr3, window, table, GUEST_PTE_RW);
		expect_eq(guest_load(&g, 0, window), guest_read(&g, table));
		expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
		sptep = entry_of(&g, window, 1);
		expect(!(*sptep & SPTE_WRITE));
		*sptep |= SPTE_WRITE;
		expect_found(&g, SHADOW_BAD_WRITABLE, "writable: a writable leaf of gfn");
		page_at(&g, level)->unsync = true;
		expect_eq(shadow_audit_at(g.shadow, SHADOW_AUDIT_STRUCTURAL, NULL, 0), 0);
		page_at(&g, level)->unsync = false;
		*sptep &= ~SPTE_WRITE;
		destroy(&g);
	}
}
