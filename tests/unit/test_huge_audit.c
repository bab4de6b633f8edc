/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the auditor finds of entries that map 2 MiB, and what people are shown of them. */
#include <stdio.h>
#include <string.h>

#include "tests/support/huge_fixture.h"

static void expect_found(struct guest_mem *g, unsigned int what, const char *text)
{
	char why[256] = "";

	expect_eq(shadow_audit_at(g->shadow, SHADOW_AUDIT_STRUCTURAL, why, sizeof(why)), what);
	expect_str_contains(why, text);
}

/* The table of level 2 that has @gva's entry. */
static struct shadow_page *table_of(struct guest_mem *g, gva_t gva)
{
	struct shadow_page *sp = g->shadow->vcpu[0].root;

	spin_lock(&g->shadow->mmu_lock);
	while (sp->role.level > HUGE_LEVEL)
		sp = spte_to_child(g->shadow, sp->spt[table_index(gva, sp->role.level)]);
	spin_unlock(&g->shadow->mmu_lock);
	return sp;
}

/* In the rmap of 2 MiB of slot 0, and no more. */
static void add_leaf(struct guest_mem *g, uint64_t rel_gfn, spte_t *sptep)
{
	struct rmap_desc *spare = rmap_desc_alloc();

	expect(spare);
	spin_lock(&g->shadow->mmu_lock);
	huge_rmap_add(g->shadow->slots->by_id[0], rel_gfn, sptep, &spare);
	spin_unlock(&g->shadow->mmu_lock);
	rmap_desc_free(spare);
}

static void remove_leaf(struct guest_mem *g, uint64_t rel_gfn, spte_t *sptep)
{
	spin_lock(&g->shadow->mmu_lock);
	huge_rmap_remove(g->shadow->slots->by_id[0], rel_gfn, sptep);
	spin_unlock(&g->shadow->mmu_lock);
}

struct planted {
	struct guest_mem g;
	struct shadow_page *sp;
	unsigned int index;
	spte_t *sptep, good;
	struct memslot *slot;
};

static void begin(struct planted *p)
{
	huge_fixture(&p->g);
	map_huge(&p->g, MIB2);
	shadow_set_audit(p->g.shadow, SHADOW_AUDIT_OFF);
	p->sp = table_of(&p->g, BIG);
	p->index = table_index(BIG, HUGE_LEVEL);
	p->sptep = &p->sp->spt[p->index];
	p->good = *p->sptep;
	expect(p->good & SPTE_HUGE);
	p->slot = p->g.shadow->slots->by_id[0];
	expect_eq(shadow_audit_at(p->g.shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
}

static void end(struct planted *p)
{
	*p->sptep = p->good;
	expect_eq(shadow_audit_at(p->g.shadow, SHADOW_AUDIT_IN_SYNC, NULL, 0), 0);
	huge_done(&p->g);
}

TEST(huge_audit, bits)
{
	struct planted p;

	begin(&p);
	*p.sptep = p.good | 1UL << 8;
	expect_found(&p.g, SHADOW_BAD_ENTRY, "of the level 2 table");
	*p.sptep = p.good & ~SPTE_USER;
	expect_found(&p.g, SHADOW_BAD_ENTRY, "of the level 2 table");
	/* With that bit in another table it is no entry of ours. */
	*p.sptep = p.good;
	p.sp->role.level = 3;
	expect(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_STRUCTURAL, NULL, 0) & SHADOW_BAD_ENTRY);
	p.sp->role.level = HUGE_LEVEL;
	end(&p);
}

TEST(huge_audit, frames)
{
	struct planted p;

	begin(&p);
	*p.sptep = p.good + (HUGE_PAGES << PAGE_SHIFT);
	expect_found(&p.g, SHADOW_BAD_FRAME, "frame: gfn 0x200 is mapped to frame 0x400");
	*p.sptep = p.good + PAGE_SIZE;
	expect_found(&p.g, SHADOW_BAD_HUGE | SHADOW_BAD_FRAME, "huge: 2 MiB of gfn 0x200");
	*p.sptep = p.good;
	/* The last page of all, alone: its window takes nothing, as if the zap were missing. */
	shadow_set_break(p.g.shadow, SHADOW_BREAK_ZAP);
	expect_eq(migrate_mapping_page(p.g.ram, 2 * HUGE_PAGES - 1), 0);
	shadow_set_break(p.g.shadow, 0);
	expect_found(&p.g, SHADOW_BAD_FRAME, "frame: gfn 0x3ff is mapped to frame 0x3ff");
	set_pde(&p.g, BIG, 0);
	shadow_invlpg(p.g.shadow, 0, BIG);
	p.good = 0;
	end(&p);
}

TEST(huge_audit, a_right_that_one_page_has_not)
{
	struct planted p;

	begin(&p);
	shadow_set_break(p.g.shadow, SHADOW_BREAK_ZAP);
	expect_eq(mm_mprotect(p.g.mm, guest_hva(MIB2 + 9 * PAGE_SIZE), PAGE_SIZE, MM_PROT_READ), 0);
	shadow_set_break(p.g.shadow, 0);
	expect_found(&p.g, SHADOW_BAD_HOST, "host: gfn 0x209 can be written");
	set_pde(&p.g, BIG, 0);
	shadow_invlpg(p.g.shadow, 0, BIG);
	p.good = 0;
	end(&p);
}

TEST(huge_audit, rmap)
{
	struct planted p;

	begin(&p);
	remove_leaf(&p.g, HUGE_PAGES, p.sptep);
	expect_found(&p.g, SHADOW_BAD_RMAP, "misses entry");
	add_leaf(&p.g, HUGE_PAGES, p.sptep);
	add_leaf(&p.g, 2 * HUGE_PAGES, p.sptep);
	expect_found(&p.g, SHADOW_BAD_RMAP, "names a leaf of gfn 0x200");
	remove_leaf(&p.g, 2 * HUGE_PAGES, p.sptep);
	add_leaf(&p.g, 2 * HUGE_PAGES, &p.sp->spt[p.index + 1]);
	expect_found(&p.g, SHADOW_BAD_RMAP, "names what is no such leaf");
	remove_leaf(&p.g, 2 * HUGE_PAGES, &p.sp->spt[p.index + 1]);
	end(&p);
}

TEST(huge_audit, summary)
{
	struct planted p;

	begin(&p);
	gfn_set_remove(&p.slot->huge_mapped, 1);
	expect_found(&p.g, SHADOW_BAD_SUMMARY, "2 MiB of gfn 0x200 are mapped 1 times");
	gfn_set_add(&p.slot->huge_mapped, 1);
	gfn_set_add(&p.slot->huge_mapped, 2);
	expect_found(&p.g, SHADOW_BAD_SUMMARY, "2 MiB of gfn 0x400 are mapped 0 times");
	gfn_set_remove(&p.slot->huge_mapped, 2);
	end(&p);
}

TEST(huge_audit, gfn)
{
	struct planted p;

	begin(&p);
	p.sp->gfns[p.index] = 1UL << 40;
	expect(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_STRUCTURAL, NULL, 0) & SHADOW_BAD_SLOT);
	p.sp->gfns[p.index] = 2 * HUGE_PAGES;
	expect(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_STRUCTURAL, NULL, 0) & SHADOW_BAD_FRAME);
	expect(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_SEMANTIC, NULL, 0) & SHADOW_BAD_ORIGIN);
	p.sp->gfns[p.index] = HUGE_PAGES;
	end(&p);
}

/* Those that a large page of the guest's is made of: the place of each says which they are. */
TEST(huge_audit, in_a_wrong_place_of_a_direct_table)
{
	const gva_t gib = 2UL << 39;
	struct shadow_page *sp;
	struct guest_mem g;

	huge_fixture(&g);
	guest_map(&g, g.cr3, gib + (1UL << 30), 0, TABLE);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gib, 3), LARGE);
	expect_eq(guest_load(&g, 0, gib + MIB2), MIB2);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	sp = table_of(&g, gib);
	expect(sp->role.direct && (sp->spt[1] & SPTE_HUGE));

	/* All but the place is right. */
	remove_leaf(&g, HUGE_PAGES, &sp->spt[1]);
	add_leaf(&g, HUGE_PAGES, &sp->spt[9]);
	sp->gfns[9] = sp->gfns[1];
	sp->spt[9] = sp->spt[1];
	sp->spt[1] = 0;
	expect_found(&g, SHADOW_BAD_GFN, "gfn: entry 9 of the direct table of gfn 0 maps 2 MiB of");
	sp->spt[1] = sp->spt[9];
	sp->spt[9] = 0;
	remove_leaf(&g, HUGE_PAGES, &sp->spt[9]);
	add_leaf(&g, HUGE_PAGES, &sp->spt[1]);
	huge_done(&g);
}

TEST(huge_audit, more_rights_than_the_table_has)
{
	struct planted p;

	begin(&p);
	p.sp->role.access = ACC_WRITE | ACC_USER;
	expect_found(&p.g, SHADOW_BAD_RIGHT, "a leaf of gfn 0x200 to execute");
	p.sp->role.access = ACC_ALL;
	end(&p);
}

/* Beyond what a chain may have (K-07). */
TEST(huge_audit, rmap_of_too_many)
{
	struct planted p;

	begin(&p);
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD; i++)
		add_leaf(&p.g, HUGE_PAGES, p.sptep);
	expect_found(&p.g, SHADOW_BAD_RMAP, "2 MiB of gfn 0x200 are mapped 1001 times");
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD; i++)
		remove_leaf(&p.g, HUGE_PAGES, p.sptep);
	end(&p);
}

/* One level of it, in a slot that has more than one. */
TEST(huge_audit, summary_that_contradicts_itself)
{
	const struct guest_mem_config config = {
		.no_identity = true,
		.nr_pages = 65 * HUGE_PAGES,
	};
	struct gfn_set *mapped;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	mapped = &g.shadow->slots->by_id[0]->huge_mapped;
	expect_ge(mapped->nr_levels, 2);
	mapped->level[1][0] ^= 1;
	expect_found(&g, SHADOW_BAD_SUMMARY,
		     "summary: the set of mapped 2 MiB of slot 0 contradicts itself");
	mapped->level[1][0] ^= 1;
	huge_done(&g);
}

TEST(huge_audit, a_table_in_it)
{
	struct planted p;

	begin(&p);
	gfn_set_add(&p.slot->tables, HUGE_PAGES + 5);
	expect_found(&p.g, SHADOW_BAD_HUGE | SHADOW_BAD_SUMMARY, "huge: 2 MiB of gfn 0x200");
	gfn_set_remove(&p.slot->tables, HUGE_PAGES + 5);
	p.slot->flags = MEMSLOT_READONLY;
	expect_found(&p.g, SHADOW_BAD_HUGE, "huge: slot 0 has no 2 MiB of gfn 0x200");
	p.slot->flags = 0;
	end(&p);
}

/* While a slot comes to be logged its entries may be there still; and not once it is. */
TEST(huge_audit, in_a_slot_that_is_logged)
{
	struct memslot_region logged = {.npages = huge_config.nr_pages,
					.hva = GUEST_MEM_HVA,
					.flags = MEMSLOT_LOG_DIRTY};
	struct memslot *slot;
	struct guest_mem g;

	huge_fixture(&g);
	expect_eq(shadow_set_memslot(g.shadow, &logged), 0);
	slot = g.shadow->slots->by_id[0];
	slot->flags = 0; /* so that there will be one */
	map_huge(&g, MIB2);
	slot->flags = MEMSLOT_LOG_DIRTY;
	expect_found(&g, SHADOW_BAD_HUGE, "huge: slot 0 has no 2 MiB of gfn 0x200");
	slot->flags = 0;
	huge_done(&g);
}

/* What the guest's entry gave, and gives. */
TEST(huge_audit, against_the_guest)
{
	struct planted p;
	char why[256];

	begin(&p);
	set_pde(&p.g, BIG, MIB2 | (LARGE & ~GUEST_PTE_W) | GUEST_PTE_A | GUEST_PTE_D);
	expect_eq(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_SEMANTIC, NULL, 0), 0);
	expect_eq(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_IN_SYNC, why, sizeof(why)),
		  SHADOW_BAD_STALE);
	set_pde(&p.g, BIG, MIB2 | LARGE | GUEST_PTE_A | GUEST_PTE_D);
	p.sp->gptes[p.index] &= ~GUEST_PTE_PS;
	expect_eq(shadow_audit_at(p.g.shadow, SHADOW_AUDIT_SEMANTIC, why, sizeof(why)),
		  SHADOW_BAD_ORIGIN);
	p.sp->gptes[p.index] |= GUEST_PTE_PS;
	end(&p);
}

/* ---- people ---- */

struct text {
	char all[16384];
	size_t len;
};

static void emit(void *arg, const char *line)
{
	struct text *text = arg;

	text->len += snprintf(text->all + text->len, sizeof(text->all) - text->len, "%s\n", line);
}

TEST(huge_audit, is_shown)
{
	struct text text = {.len = 0};
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	set_pde(&g, BIG + MIB2, 2 * MIB2 | LARGE | GUEST_PTE_A | GUEST_PTE_D);
	expect_eq(guest_load(&g, 0, BIG + MIB2), 2 * MIB2);
	expect_eq(shadow_dump(g.shadow, emit, &text), 0);
	expect_str_contains(text.all, "0x0000000040000000-0x00000000403fffff gfn 0x200-0x5ff frame "
				      "0x200-0x5ff rwx 2 MiB each\n");
	expect_str_contains(text.all, "tables: 3, pages: 1024\n");

	text.len = 0;
	shadow_explain(g.shadow, 0, BIG + 5 * PAGE_SIZE, emit, &text);
	expect_str_contains(text.all, "shadow level 2 gfn");
	expect_str_contains(text.all, "frame 0x200 and 511 more, rwx\n");
	expect_str_contains(text.all, "so     a read works; a write works; a fetch works\n");
	huge_done(&g);
}
