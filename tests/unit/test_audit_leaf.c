/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The auditor, of what leaves map: slots, rmaps, frames, rights. */
#include "tests/support/audit_fixture.h"

static const struct guest_mem_config config = {.no_identity = true};

TEST(audit_leaf, wrong_frame)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	old = *sptep;
	*sptep = make_leaf_spte(mm_lookup_pfn(g.mm, guest_hva(PAGE + PAGE_SIZE)), ACC_ALL);
	expect_found(&g, SHADOW_BAD_FRAME, "frame: gfn 0x3 is mapped to frame");
	/* One that is none of the machine's. */
	*sptep = make_leaf_spte(1UL << 39, ACC_ALL);
	expect_found(&g, SHADOW_BAD_FRAME, "is mapped to frame 0x8000000000");
	*sptep = old;
	destroy(&g);
}

TEST(audit_leaf, host_moved_without_a_word)
{
	struct guest_mem g;

	fixture(&g, &config);
	shadow_set_break(g.shadow, SHADOW_BREAK_ZAP);
	expect_eq(mm_migrate_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_found(&g, SHADOW_BAD_FRAME, "is mapped to frame");
	expect_eq(mm_zap_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_found(&g, SHADOW_BAD_FRAME, "the host has it at 0xffffffffffffffff");
	shadow_set_break(g.shadow, 0);
	expect_eq(mm_munmap(g.mm, guest_hva(PAGE), PAGE_SIZE), 0);
	destroy(&g);
}

/* The host takes the right to write, or all, and the guest keeps it. */
TEST(audit_leaf, more_rights_than_the_host_gives)
{
	struct guest_mem g;

	fixture(&g, &config);
	shadow_set_break(g.shadow, SHADOW_BREAK_ZAP);
	expect_eq(mm_mprotect(g.mm, guest_hva(PAGE), PAGE_SIZE, MM_PROT_READ), 0);
	expect_found(&g, SHADOW_BAD_HOST, "host: gfn 0x3 can be written");
	expect_eq(mm_mprotect(g.mm, guest_hva(PAGE), PAGE_SIZE, MM_PROT_NONE), 0);
	*entry_of(&g, GVA, 1) &= ~(SPTE_WRITE | SPTE_MAY_WRITE);
	expect_found(&g, SHADOW_BAD_HOST, "host: gfn 0x3 can be read");
	shadow_set_break(g.shadow, 0);
	expect_eq(mm_munmap(g.mm, guest_hva(PAGE), PAGE_SIZE), 0);
	destroy(&g);
}

/* A page that two share is not to be written, whoever had it writable before. */
TEST(audit_leaf, writable_leaf_of_a_shared_page)
{
	const struct guest_mem_config private_ram = {.no_identity = true, .private_ram = true};
	struct mm_struct *child;
	struct guest_mem g;

	fixture(&g, &private_ram);
	shadow_set_break(g.shadow, SHADOW_BREAK_ZAP);
	expect_eq(mm_fork(g.mm, &child), 0);
	expect_found(&g, SHADOW_BAD_HOST, "can be written");
	shadow_set_break(g.shadow, 0);
	guest_reload_afresh(&g, 0);
	mmput(child);
	destroy(&g);
}

/* The guest would write its own shadow tables. */
TEST(audit_leaf, a_table_of_ours)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	old = *sptep;
	*sptep = make_leaf_spte(page_at(&g, 2)->table, ACC_ALL);
	expect_found(&g, SHADOW_BAD_TABLE | SHADOW_BAD_FRAME, "table: gfn 0x3");
	*sptep = old;
	destroy(&g);
}

TEST(audit_leaf, slot_by_another_id)
{
	struct memslots *slots;
	struct guest_mem g;

	fixture(&g, &config);
	slots = shadow_memslots(g.shadow);
	slots->by_id[5] = slots->by_id[0];
	expect_found(&g, SHADOW_BAD_SLOT, "slot: the indexes of the memslots differ");
	slots->by_id[5] = NULL;
	destroy(&g);
}

/* Two slots that show one piece of memory, and the index by it has the first one twice. */
TEST(audit_leaf, slot_that_is_not_found_by_its_memory)
{
	struct memslot_region twin = {.id = 1, .base_gfn = 0x9000, .hva = GUEST_MEM_HVA};
	struct memslots *slots;
	struct guest_mem g;

	fixture(&g, &config);
	twin.npages = g.nr_pages;
	expect_eq(shadow_set_memslot(g.shadow, &twin), 0);
	slots = shadow_memslots(g.shadow);
	for (unsigned int i = 0; i < 2; i++) {
		struct memslot *lost = slots->by_hva[i];

		slots->by_hva[i] = slots->by_hva[!i];
		expect_found(&g, SHADOW_BAD_SLOT, "slot: the indexes of the memslots differ");
		slots->by_hva[i] = lost;
	}
	destroy(&g);
}

TEST(audit_leaf, rmap_misses_a_leaf)
{
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	remove_leaf(&g, PAGE, sptep);
	expect_found(&g, SHADOW_BAD_RMAP, "the rmap of gfn 0x3 misses entry");
	add_leaf(&g, PAGE, sptep);
	destroy(&g);
}

/* An entry in an rmap that is no leaf of that page any more: what R-12 left behind. */
TEST(audit_leaf, rmap_names_what_is_no_leaf)
{
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	old = *sptep;
	*sptep = 0;
	expect_found(&g, SHADOW_BAD_RMAP, "names what is no leaf");
	*sptep = old;
	/* An entry, but of a directory; one of no table of ours at all. */
	sptep = entry_of(&g, GVA, 2);
	add_leaf(&g, PAGE, sptep);
	expect_found(&g, SHADOW_BAD_RMAP, "names what is no leaf");
	remove_leaf(&g, PAGE, sptep);
	add_leaf(&g, PAGE, &old);
	expect_found(&g, SHADOW_BAD_RMAP, "names what is no leaf");
	remove_leaf(&g, PAGE, &old);
	destroy(&g);
}

TEST(audit_leaf, rmap_names_a_leaf_twice)
{
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	add_leaf(&g, PAGE, sptep);
	expect_found(&g, SHADOW_BAD_RMAP, "3 entries in rmaps, but 2 present leaves");
	remove_leaf(&g, PAGE, sptep);
	destroy(&g);
}

/* Two leaves in each other's rmap. */
TEST(audit_leaf, rmap_names_a_leaf_of_another_page)
{
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	remove_leaf(&g, PAGE, sptep);
	add_leaf(&g, PAGE + PAGE_SIZE, sptep);
	expect_found(&g, SHADOW_BAD_RMAP, "misses entry");
	remove_leaf(&g, PAGE + PAGE_SIZE, sptep);
	add_leaf(&g, PAGE, sptep);
	destroy(&g);
}

/* The summary by which ranges are walked: a page that it misses would be left out of a zap. */
TEST(audit_leaf, summary_of_mapped_pages)
{
	struct gfn_set *mapped;
	struct guest_mem g;

	fixture(&g, &config);
	mapped = &slot_of(&g, PAGE)->mapped;
	gfn_set_remove(mapped, PAGE >> PAGE_SHIFT);
	expect_found(&g, SHADOW_BAD_SUMMARY, "misses it");
	gfn_set_add(mapped, PAGE >> PAGE_SHIFT);
	gfn_set_add(mapped, (PAGE >> PAGE_SHIFT) + 2);
	expect_found(&g, SHADOW_BAD_SUMMARY, "has it");
	gfn_set_remove(mapped, (PAGE >> PAGE_SHIFT) + 2);
	destroy(&g);
}

/* The other one: a store to a table that it misses would go unseen. */
TEST(audit_leaf, summary_of_guest_tables)
{
	struct gfn_set *tables;
	struct guest_mem g;
	gfn_t gfn;

	fixture(&g, &config);
	tables = &slot_of(&g, PAGE)->tables;
	gfn = page_at(&g, 1)->gfn;
	gfn_set_remove(tables, gfn);
	expect_found(&g, SHADOW_BAD_SUMMARY,
		     "is a table of the guest's, and the set of those misses");
	gfn_set_add(tables, gfn);
	gfn_set_add(tables, PAGE >> PAGE_SHIFT);
	expect_found(&g, SHADOW_BAD_SUMMARY,
		     "is no table of the guest's, and the set of those has");
	gfn_set_remove(tables, PAGE >> PAGE_SHIFT);
	destroy(&g);
}

/* One level of it, of those that have more than one. */
TEST(audit_leaf, summary_that_contradicts_itself)
{
	const struct guest_mem_config large = {.no_identity = true, .nr_pages = 256};
	struct gfn_set *mapped, *tables;
	struct guest_mem g;

	fixture(&g, &large);
	mapped = &slot_of(&g, PAGE)->mapped;
	tables = &slot_of(&g, PAGE)->tables;
	expect_ge(mapped->nr_levels, 2);
	mapped->level[1][0] ^= 2;
	expect_found(&g, SHADOW_BAD_SUMMARY,
		     "summary: the set of mapped pages of slot 0 contradicts");
	mapped->level[1][0] ^= 2;
	tables->level[1][0] ^= 1;
	expect_found(&g, SHADOW_BAD_SUMMARY,
		     "summary: the set of guest tables in slot 0 contradicts");
	tables->level[1][0] ^= 1;
	destroy(&g);
}

/* Beyond what a chain may have (K-07). */
TEST(audit_leaf, rmap_of_too_many)
{
	struct guest_mem g;
	spte_t *sptep;

	fixture(&g, &config);
	sptep = entry_of(&g, GVA, 1);
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD; i++)
		add_leaf(&g, PAGE, sptep);
	expect_found(&g, SHADOW_BAD_RMAP, "gfn 0x3 is mapped 1001 times");
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD; i++)
		remove_leaf(&g, PAGE, sptep);
	destroy(&g);
}

/* The page was entered under one gfn and is looked for under another: R-10's fault. */
TEST(audit_leaf, leaf_under_a_wrong_gfn)
{
	struct shadow_page *sp;
	struct guest_mem g;
	gfn_t *gfn, old;

	fixture(&g, &config);
	sp = page_at(&g, 1);
	gfn = &sp->gfns[table_index(GVA, 1)];
	old = *gfn;
	*gfn = old + 1;
	expect_found(&g, SHADOW_BAD_RMAP | SHADOW_BAD_FRAME, "rmap: the rmap of gfn 0x4 misses");
	*gfn = 1UL << 40;
	expect_found(&g, SHADOW_BAD_RMAP | SHADOW_BAD_SLOT, "slot: a leaf maps gfn");
	*gfn = old;
	destroy(&g);
}

/* The same by the rules of a direct table, where the place of a leaf says which page it is. */
TEST(audit_leaf, leaf_of_a_direct_table_in_a_wrong_place)
{
	const gva_t large = 1UL << 30;
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g, &config);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, large, 2), GUEST_PTE_RW | GUEST_PTE_PS);
	guest_store(&g, 0, large + PAGE, 1);
	sp = page_of(&g, large, 1);
	expect(sp->role.direct);

	/* All but the place is right. */
	sp->spt[9] = sp->spt[3];
	sp->gfns[9] = sp->gfns[3];
	remove_leaf(&g, PAGE, &sp->spt[3]);
	add_leaf(&g, PAGE, &sp->spt[9]);
	sp->spt[3] = 0;
	expect_found(&g, SHADOW_BAD_GFN, "gfn: entry 9 of the direct table of gfn 0 maps gfn 0x3");
	sp->spt[3] = sp->spt[9];
	remove_leaf(&g, PAGE, &sp->spt[9]);
	add_leaf(&g, PAGE, &sp->spt[3]);
	sp->spt[9] = 0;
	destroy(&g);
}

/* A direct table that is none: its leaves are not of a page that begins at its gfn. */
TEST(audit_leaf, table_that_is_not_direct)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g, &config);
	sp = page_at(&g, 1);
	sp->role.direct = 1;
	sp->role.dirty = 1;
	expect_found(&g, SHADOW_BAD_ROLE | SHADOW_BAD_GFN | SHADOW_BAD_SUMMARY,
		     "of the direct table");
	sp->role.direct = 0;
	sp->role.dirty = 0;
	destroy(&g);
}

TEST(audit_leaf, more_rights_than_the_table_has)
{
	struct shadow_page *sp;
	struct guest_mem g;

	fixture(&g, &config);
	sp = page_at(&g, 1);
	sp->role.access = ACC_EXEC;
	expect_found(&g, SHADOW_BAD_RIGHT, "writable leaf of gfn 0x3");
	sp->role.access = ACC_WRITE;
	expect_found(&g, SHADOW_BAD_RIGHT, "a leaf of gfn 0x3 to execute");
	sp->role.access = ACC_ALL;
	destroy(&g);
}

/* Of a user's view, in a table that no user may look through. */
TEST(audit_leaf, leaf_where_nothing_may_be_read)
{
	struct guest_cpu cpu;
	struct shadow_page *sp;
	struct guest_mem g;
	spte_t *sptep, old;

	fixture(&g, &config);
	guest_map(&g, g.cr3, GVA, PAGE, GUEST_PTE_RW | GUEST_PTE_U);
	cpu = *shadow_get_cpu(g.shadow, 0);
	cpu.user = true;
	expect_eq(shadow_set_cpu(g.shadow, 0, &cpu), 0);
	shadow_invlpg(g.shadow, 0, GVA); /* of the supervisor's view, which is kept */
	expect_eq(guest_load(&g, 0, GVA), 1);
	sp = page_at(&g, 1);
	sptep = &sp->spt[table_index(GVA, 1)];
	old = *sptep;
	*sptep = make_leaf_spte(spte_pfn(old), 0);
	sp->role.access = ACC_WRITE | ACC_EXEC;
	expect_found(&g, SHADOW_BAD_RIGHT, "of which nothing may be read");
	sp->role.access = ACC_ALL;
	*sptep = old;
	destroy(&g);
}
