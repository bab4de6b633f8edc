/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries that map 2 MiB, and what the guest does: to its large page, to the tables that say so,
 * and with pages in it that it makes tables of.
 */
#include <string.h>

#include "tests/support/huge_fixture.h"

/* ---- edits of the entry ---- */

static void reload(struct guest_mem *g)
{
	expect_eq(shadow_load_cr3(g->shadow, 0, g->cr3), 0);
}

static void invlpg(struct guest_mem *g)
{
	shadow_invlpg(g->shadow, 0, BIG + 345 * PAGE_SIZE);
}

static void (*const flushes[])(struct guest_mem *g) = {reload, invlpg};

#define for_each_flush(i) for ((i) = 0; (i) < sizeof(flushes) / sizeof(flushes[0]); (i)++)

TEST(huge_guest, becomes_another_page)
{
	unsigned int i;

	for_each_flush(i)
	{
		struct guest_mem g;

		huge_fixture(&g);
		map_huge(&g, MIB2);
		set_pde(&g, BIG, 2 * MIB2 | LARGE | GUEST_PTE_A | GUEST_PTE_D);
		flushes[i](&g);
		expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), 2 * MIB2 + PAGE_SIZE);
		expect_eq(guest_load(&g, 1, BIG), 2 * MIB2);
		expect_eq(huge_leaves(&g, MIB2), 0);
		expect_eq(huge_leaves(&g, 2 * MIB2), 1);
		huge_done(&g);
	}
}

/* No flush, and nobody said so: the next fault finds out, whatever stands there now. */
TEST(huge_guest, becomes_another_behind_our_back)
{
	struct guest_mem g;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	set_pde(&g, BIG, 2 * MIB2 | LARGE);
	guest_store(&g, 0, BIG + PAGE_SIZE, 7);
	expect_eq(guest_read(&g, 2 * MIB2 + PAGE_SIZE), 7);
	expect_eq(guest_read(&g, MIB2 + PAGE_SIZE), MIB2 + PAGE_SIZE);
	expect_eq(guest_load(&g, 0, BIG), 2 * MIB2);
	expect_eq(huge_leaves(&g, MIB2), 0);
	huge_done(&g);
}

/* A guest table at the gfn of a large page, whose entries map that page backwards. */
static gpa_t backwards(struct guest_mem *g)
{
	gpa_t table = guest_new_table(g);

	for (uint64_t i = 0; i < 512; i++)
		guest_write(g, table + i * 8,
			    (MIB2 + ((511 - i) << PAGE_SHIFT)) | GUEST_PTE_RW | GUEST_PTE_U);
	return table;
}

TEST(huge_guest, becomes_a_table_and_a_page_again)
{
	struct guest_mem g;
	gpa_t table;

	huge_fixture(&g);
	table = backwards(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	set_pde(&g, BIG, table | TABLE);
	guest_store(&g, 0, BIG + PAGE_SIZE, 5);
	expect_eq(guest_read(&g, MIB2 + 510 * PAGE_SIZE), 5);
	expect_eq(guest_load(&g, 0, BIG), MIB2 + 511 * PAGE_SIZE);
	expect_eq(huge_leaves(&g, MIB2), 0);
	set_pde(&g, BIG, MIB2 | LARGE);
	shadow_invlpg(g.shadow, 0, BIG);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), MIB2 + PAGE_SIZE);
	expect_eq(huge_leaves(&g, MIB2), 1);
	huge_done(&g);
}

/* The table lies where the page began: only its kind tells the two entries apart. */
TEST(huge_guest, becomes_the_table_that_begins_there)
{
	unsigned int i;

	for_each_flush(i)
	{
		struct guest_mem g;

		huge_fixture(&g);
		map_huge(&g, MIB2);
		for (unsigned int n = 0; n < 512; n++)
			guest_store(&g, 0, BIG + n * 8,
				    (3 * MIB2 + ((511 - n) << PAGE_SHIFT)) | TABLE);
		set_pde(&g, BIG, MIB2 | TABLE | GUEST_PTE_A | GUEST_PTE_D);
		flushes[i](&g);
		expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), 3 * MIB2 + 510 * PAGE_SIZE);
		expect_eq(huge_leaves(&g, MIB2), 0);
		huge_done(&g);
	}
}

TEST(huge_guest, loses_rights)
{
	unsigned int i;

	for_each_flush(i)
	{
		struct guest_mem g;

		/* The right to write goes in place. */
		huge_fixture(&g);
		map_huge(&g, MIB2);
		set_pde(&g, BIG, MIB2 | (LARGE & ~GUEST_PTE_W) | GUEST_PTE_A | GUEST_PTE_D);
		flushes[i](&g);
		for (gpa_t at = 0; at < MIB2; at += 73 * PAGE_SIZE)
			expect_eq(guest_try(&g, 0, MODEL_STORE, BIG + at, NULL), RET_PF_GUEST);
		expect_eq(huge_leaves(&g, MIB2), 1);
		expect_eq(stats_of(&g).sptes_zapped, 0);

		/* And the right to fetch with the leaf. */
		expect_eq(guest_try(&g, 0, MODEL_FETCH, BIG, NULL), RET_PF_FIXED);
		set_pde(&g, BIG, MIB2 | LARGE | GUEST_PTE_NX | GUEST_PTE_A | GUEST_PTE_D);
		flushes[i](&g);
		expect_eq(guest_try(&g, 0, MODEL_FETCH, BIG + PAGE_SIZE, NULL), RET_PF_GUEST);
		guest_store(&g, 0, BIG + PAGE_SIZE, 1);

		/* A clean page tells of the next store, to any piece. */
		set_pde(&g, BIG, MIB2 | LARGE | GUEST_PTE_A);
		flushes[i](&g);
		guest_load(&g, 0, BIG);
		expect(!(pde(&g, BIG) & GUEST_PTE_D));
		guest_store(&g, 0, BIG + 3 * PAGE_SIZE, 1);
		expect(pde(&g, BIG) & GUEST_PTE_D);

		/* One that is not accessed, of the next access. */
		set_pde(&g, BIG, MIB2 | LARGE | GUEST_PTE_D);
		flushes[i](&g);
		guest_load(&g, 0, BIG + 8 * PAGE_SIZE);
		expect(pde(&g, BIG) & GUEST_PTE_A);

		/* And nothing of it is left in the end. */
		set_pde(&g, BIG, 0);
		flushes[i](&g);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG + 9 * PAGE_SIZE, NULL), RET_PF_GUEST);
		huge_done(&g);
	}
}

/* A store to the entry that we carry out counts at once. */
TEST(huge_guest, entry_is_written_and_we_are_told)
{
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, BIG, 2),
		   2 * MIB2 | LARGE | GUEST_PTE_A | GUEST_PTE_D);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(model_cached(g.model, HUGE_PAGES + 3), 0);
	expect_eq(guest_load(&g, 1, BIG), 2 * MIB2);
	/* The same again changes nothing. */
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, BIG, 2), pde(&g, BIG));
	expect_eq(huge_leaves(&g, 2 * MIB2), 1);
	huge_done(&g);
}

/* All entries of a table at once: more frames than a batch has room for. */
TEST(huge_guest, a_whole_table_is_written)
{
	uint64_t zeroes[512] = {0};
	struct guest_mem g;

	huge_fixture(&g);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	for (unsigned int i = 0; i < 512; i++) {
		set_pde(&g, BIG + i * MIB2, (i % 2) * MIB2 | LARGE);
		expect_eq(guest_load(&g, 0, BIG + i * MIB2), (i % 2) * MIB2);
	}
	expect_eq(huge_leaves(&g, 0), 256);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_SEMANTIC);
	expect_eq(shadow_write_gpa(g.shadow, guest_pte_gpa(&g, g.cr3, BIG, 2), zeroes,
				   sizeof(zeroes)),
		  0);
	expect_eq(huge_leaves(&g, 0), 0);
	expect_eq(huge_leaves(&g, MIB2), 0);
	for (unsigned int i = 0; i < 512; i++)
		expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG + i * MIB2, NULL), RET_PF_GUEST);
	huge_done(&g);
}

/* A flush that finds as much as that. */
TEST(huge_guest, a_whole_table_is_flushed)
{
	struct guest_mem g;

	huge_fixture(&g);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	for (unsigned int i = 0; i < 512; i++) {
		set_pde(&g, BIG + i * MIB2, (i % 2) * MIB2 | LARGE);
		expect_eq(guest_load(&g, 0, BIG + i * MIB2), (i % 2) * MIB2);
	}
	for (unsigned int i = 0; i < 512; i++)
		set_pde(&g, BIG + i * MIB2, 0);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_SEMANTIC);
	reload(&g);
	expect_eq(huge_leaves(&g, 0) + huge_leaves(&g, MIB2), 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG, NULL), RET_PF_GUEST);
	huge_done(&g);
}

/* A table with such leaves goes, and all their frames are shot down first. */
TEST(huge_guest, the_table_above_goes)
{
	struct guest_mem g;
	gpa_t pdpte;

	huge_fixture(&g);
	for (unsigned int i = 0; i < 3; i++) {
		set_pde(&g, BIG + i * MIB2, i * MIB2 | LARGE);
		expect_eq(guest_load(&g, 0, BIG + i * MIB2), i * MIB2);
	}
	pdpte = guest_pte_gpa(&g, g.cr3, BIG, 3);
	guest_edit(&g, pdpte, 0);
	for (pfn_t pfn = 0; pfn < 3 * HUGE_PAGES; pfn += 17)
		expect_eq(model_cached(g.model, pfn), 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG, NULL), RET_PF_GUEST);
	huge_done(&g);
}

/* ---- pages that become tables ---- */

#define INSIDE (MIB2 + 100 * PAGE_SIZE)

/* The page INSIDE of the large one maps 3 * MIB2 at 2 * BIG, as table of @level 1 or 2. */
static void use_inside_as_table(struct guest_mem *g, int level)
{
	uint64_t entry = level == 1 ? 3 * MIB2 | GUEST_PTE_RW : 3 * MIB2 | LARGE;

	for (unsigned int i = 0; i < 512; i++)
		guest_store(g, 0, BIG + (INSIDE - MIB2) + i * 8, i ? 0 : entry);
	guest_write(g, guest_pte_gpa(g, g->cr3, 2 * BIG, level + 1), INSIDE | TABLE);
	expect_eq(guest_load(g, 1, 2 * BIG), 3 * MIB2);
}

/* From here on no store to it goes unseen. */
TEST(huge_guest, a_page_becomes_a_table)
{
	for (int level = 1; level <= 2; level++) {
		struct guest_mem g;
		uint64_t other = 2 * MIB2 | (level == 1 ? GUEST_PTE_RW : LARGE) | GUEST_PTE_A;

		huge_fixture(&g);
		map_huge(&g, MIB2);
		use_inside_as_table(&g, level);
		expect_eq(huge_leaves(&g, MIB2), 0);
		/* Through the large page, which the CPU has in its TLB. */
		guest_store(&g, 0, BIG + (INSIDE - MIB2), other);
		expect_eq(shadow_load_cr3(g.shadow, 1, g.cr3), 0);
		expect_eq(guest_load(&g, 1, 2 * BIG), 2 * MIB2);
		/* A store by a CPU that protected it meanwhile is one that we hear of. */
		guest_store(&g, 0, BIG + (INSIDE - MIB2), 0);
		expect_eq(shadow_load_cr3(g.shadow, 1, g.cr3), 0);
		expect_eq(guest_try(&g, 1, MODEL_LOAD, 2 * BIG, NULL), RET_PF_GUEST);
		expect_eq(huge_leaves(&g, MIB2), 0);
		huge_done(&g);
	}
}

/* It is no table any more: the next time that nothing is linked there it is one entry again. */
TEST(huge_guest, a_table_becomes_a_page)
{
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	use_inside_as_table(&g, 1);
	guest_load(&g, 0, BIG);
	expect_eq(huge_leaves(&g, MIB2), 0);
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, 2 * BIG, 2), 0);
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, BIG, 2), 0);
	guest_edit(&g, guest_pte_gpa(&g, g.cr3, BIG, 2), MIB2 | LARGE);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), MIB2 + PAGE_SIZE);
	expect_eq(huge_leaves(&g, MIB2), 1);
	huge_done(&g);
}

/* CR3 names a page of it, on a CPU while the other one has all of it writable. */
TEST(huge_guest, a_page_becomes_a_root)
{
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	for (unsigned int i = 0; i < 512; i++)
		guest_store(&g, 0, BIG + (INSIDE - MIB2) + i * 8, 0);
	expect_eq(shadow_load_cr3(g.shadow, 1, INSIDE), 0);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(model_cached(g.model, HUGE_PAGES + 100), 0);
	expect_eq(guest_try(&g, 1, MODEL_LOAD, BIG, NULL), RET_PF_GUEST);
	/* The guest fills it in, through the large page. */
	guest_store(&g, 0, BIG + (INSIDE - MIB2), guest_read(&g, guest_pte_gpa(&g, g.cr3, BIG, 4)));
	expect_eq(guest_load(&g, 1, BIG + PAGE_SIZE), MIB2 + PAGE_SIZE);
	huge_done(&g);
}

/*
 * The way to the large page leads through tables in it: they are made in the same fault, and clear
 * what it would link below.
 */
TEST(huge_guest, its_own_table_is_in_it)
{
	gpa_t table = INSIDE;
	struct shadow_fault fault;
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	for (unsigned int i = 0; i < 512; i++)
		guest_write(&g, table + i * 8, i ? 0 : MIB2 | LARGE);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, 2 * BIG, 3), table | TABLE);
	/* Cleared is not what is linked in the same section (K-04). */
	expect_eq(guest_fault(&g, 1, 2 * BIG + PAGE_SIZE, PFERR_WRITE, &fault), RET_PF_RETRY);
	expect_eq(huge_leaves(&g, MIB2), 0);
	guest_store(&g, 1, 2 * BIG + PAGE_SIZE, 4);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), 4);
	expect_eq(huge_leaves(&g, MIB2), 0);
	huge_done(&g);
}

/* Many mappings of a page that becomes a table. */
TEST(huge_guest, a_page_that_is_mapped_often_becomes_a_table)
{
	struct guest_mem g;

	huge_fixture(&g);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD; i++) {
		set_pde(&g, BIG + i * MIB2, MIB2 | LARGE);
		guest_load(&g, 0, BIG + i * MIB2);
	}
	expect_eq(huge_leaves(&g, MIB2), RMAP_RECYCLE_THRESHOLD);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_SEMANTIC);
	guest_write(&g, INSIDE, 3 * MIB2 | GUEST_PTE_RW);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, 4 * BIG, 2), INSIDE | TABLE);
	expect_eq(guest_load(&g, 1, 4 * BIG), 3 * MIB2);
	expect_eq(huge_leaves(&g, MIB2), 0);
	huge_done(&g);
}

/*
 * The same in a fault that has cleared other leaves before, since it links a table that is shared
 * and was edited: all together they are more than a batch has room for.
 */
TEST(huge_guest, a_page_becomes_a_table_when_the_batch_is_half_full)
{
	const gva_t here = 8 * BIG, there = 9 * BIG;
	gpa_t dir, leaves;
	struct guest_mem g;

	huge_fixture(&g);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	dir = guest_new_table(&g);
	leaves = guest_new_table(&g);
	for (unsigned int i = 0; i < 100; i++)
		guest_write(&g, leaves + i * 8, (3 * MIB2 + (i << PAGE_SHIFT)) | TABLE);
	guest_write(&g, dir, leaves | TABLE);
	guest_write(&g, dir + 8, INSIDE | TABLE);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, here, 3), dir | TABLE);
	for (unsigned int i = 0; i < 100; i++)
		guest_load(&g, 0, here + (i << PAGE_SHIFT));
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD; i++) {
		set_pde(&g, BIG + i * MIB2, MIB2 | LARGE);
		guest_load(&g, 0, BIG + i * MIB2);
	}
	for (unsigned int i = 0; i < 100; i++)
		guest_write(&g, leaves + i * 8, 0);
	guest_write(&g, INSIDE, 3 * MIB2 | GUEST_PTE_RW);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, there, 3), dir | TABLE);
	expect_eq(guest_load(&g, 0, there + MIB2), 3 * MIB2);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, here, NULL), RET_PF_GUEST);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_SEMANTIC);
	huge_done(&g);
}

/* ---- one host, two slots ---- */

/* The guest's entry names other gfns behind our back, which are the same frames: that is another
 * leaf, in another rmap. */
TEST(huge_guest, the_same_frames_by_other_gfns)
{
	const struct memslot_region twin = {.id = 1,
					    .base_gfn = 0x100000,
					    .npages = HUGE_PAGES,
					    .hva = GUEST_MEM_HVA + MIB2};

	struct shadow_fault fault;
	struct guest_mem g;

	huge_fixture(&g);
	expect_eq(shadow_set_memslot(g.shadow, &twin), 0);
	set_pde(&g, BIG, 0x100000000UL | LARGE);
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	set_pde(&g, BIG, MIB2 | LARGE);
	expect_eq(guest_fault(&g, 0, BIG, PFERR_WRITE, &fault), RET_PF_RETRY);
	expect_eq(huge_leaves(&g, 0x100000000UL), 0);
	expect_eq(guest_fault(&g, 0, BIG, PFERR_WRITE, &fault), RET_PF_FIXED);
	expect_eq(huge_leaves(&g, MIB2), 1);
	huge_done(&g);
}

/* ---- views ---- */

static void set_view(struct guest_mem *g, bool user)
{
	struct guest_cpu cpu = *shadow_get_cpu(g->shadow, 0);

	cpu.user = user;
	expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
}

/* Each view has an entry of its own, with its own rights; what is the kernel's the user has not. */
TEST(huge_guest, in_two_views)
{
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	set_pde(&g, BIG + MIB2, 2 * MIB2 | GUEST_PTE_RW | GUEST_PTE_PS);
	guest_store(&g, 0, BIG + MIB2, 1);
	set_view(&g, true);
	guest_store(&g, 0, BIG + PAGE_SIZE, 5);
	expect_eq(huge_leaves(&g, MIB2), 2);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG + MIB2, NULL), RET_PF_GUEST);
	expect_eq(huge_leaves(&g, 2 * MIB2), 1);
	set_view(&g, false);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), 5);
	expect_eq(migrate_mapping_page(g.ram, HUGE_PAGES), 0);
	expect_eq(huge_leaves(&g, MIB2), 0);
	huge_done(&g);
}

/* ---- ages ---- */

static bool ask(struct guest_mem *g, gpa_t gpa, bool clear, bool flush)
{
	hva_t hva = guest_hva(gpa);

	if (!clear)
		return mmu_notifier_test_young(g->mm, hva);
	return flush ? mmu_notifier_clear_flush_young(g->mm, hva, hva + PAGE_SIZE)
		     : mmu_notifier_clear_young(g->mm, hva, hva + PAGE_SIZE);
}

/* One use is one answer for each page, by whomever the bit is cleared. */
TEST(huge_guest, ages)
{
	for (int flush = 0; flush <= 1; flush++) {
		struct guest_mem g;

		huge_fixture(&g);
		map_huge(&g, MIB2);
		expect(ask(&g, MIB2 + PAGE_SIZE, false, false));
		for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE) {
			expect(ask(&g, MIB2 + at, false, false));
			expect(ask(&g, MIB2 + at, true, flush));
			expect(!ask(&g, MIB2 + at, false, false));
		}
		expect_eq(huge_leaves(&g, MIB2), 1);
		for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
			expect(!ask(&g, MIB2 + at, true, flush));
		/* The other regions have said nothing. */
		expect(!ask(&g, 2 * MIB2, true, flush));
		guest_load(&g, 0, BIG + 7 * PAGE_SIZE);
		/* A CPU that was not told uses what it knows. */
		expect_eq(ask(&g, MIB2 + 7 * PAGE_SIZE, true, flush), flush);
		/* Then somebody asks who has it forget, and the next use is seen. */
		ask(&g, MIB2 + 7 * PAGE_SIZE, true, true);
		guest_load(&g, 0, BIG + 9 * PAGE_SIZE);
		expect(ask(&g, MIB2 + 7 * PAGE_SIZE, true, flush));
		huge_done(&g);
	}
}

/* A range of two regions is young if either is, and only what was used is. */
TEST(huge_guest, ages_of_two)
{
	const hva_t start = guest_hva(MIB2), end = guest_hva(3 * MIB2);
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	set_pde(&g, BIG + MIB2, 2 * MIB2 | LARGE);
	for (unsigned int used = 0; used < 2; used++) {
		guest_load(&g, 0, BIG + MIB2 + PAGE_SIZE);
		expect_eq(huge_leaves(&g, 2 * MIB2), 1);
		expect(mmu_notifier_clear_flush_young(g.mm, start, end));
		expect(!mmu_notifier_clear_flush_young(g.mm, start, end));
		guest_load(&g, 0, BIG + used * MIB2 + PAGE_SIZE);
		expect(mmu_notifier_clear_flush_young(g.mm, start, end));
	}
	guest_load(&g, 0, BIG);
	expect(mmu_notifier_clear_flush_young(g.mm, start, guest_hva(2 * MIB2 + PAGE_SIZE)));
	expect(!ask(&g, 2 * MIB2 + 5 * PAGE_SIZE, true, true));
	huge_done(&g);
}

/* Where CPUs set no accessed bits the leaf is not present for a while, all of it; one fault,
 * without mmu_lock, gives all of it back. A store by one that may be written needs no more. */
TEST(huge_guest, tracked)
{
	struct guest_mem_config config = huge_config;
	struct guest_mem g;
	uint64_t faults;

	config.no_accessed_bits = true;
	huge_fixture_of(&g, &config);
	map_huge(&g, MIB2);
	for (int store = 0; store <= 1; store++) {
		expect(ask(&g, MIB2 + PAGE_SIZE, true, true));
		expect_eq(model_cached(g.model, HUGE_PAGES + 300), 0);
		expect(!ask(&g, MIB2 + PAGE_SIZE, true, true));
		expect_eq(huge_leaves(&g, MIB2), 1);
		faults = stats_of(&g).faults;
		for (gpa_t at = PAGE_SIZE; at < MIB2; at += PAGE_SIZE) {
			if (store)
				guest_store(&g, 0, BIG + at, MIB2 + at);
			else
				expect_eq(guest_load(&g, 0, BIG + at), MIB2 + at);
		}
		expect_eq(stats_of(&g).faults - faults, 1);
		expect_eq(stats_of(&g).fast_faults, 1 + store);
		expect_eq(stats_of(&g).huge_made, 1);
	}
	/* One that is tracked goes with any page of it, and so does what became of it. */
	expect(ask(&g, MIB2 + PAGE_SIZE, true, true));
	expect_eq(migrate_mapping_page(g.ram, HUGE_PAGES + 7), 0);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(guest_load(&g, 0, BIG + 7 * PAGE_SIZE), MIB2 + 7 * PAGE_SIZE);
	huge_done(&g);
}

struct split {
	struct guest_mem *g;
	unsigned int times;
};

/* One page moves, and CPU 1 is there: by a table. */
static void split_meanwhile(void *arg)
{
	struct split *split = arg;
	struct guest_mem *g = split->g;

	if (split->times++)
		return;
	expect_eq(migrate_mapping_page(g->ram, HUGE_PAGES + 5), 0);
	expect_eq(guest_load(g, 1, BIG + 5 * PAGE_SIZE), MIB2 + 5 * PAGE_SIZE);
	expect_eq(small_leaves(g, MIB2 + 5 * PAGE_SIZE), 1);
}

/* The leaf that a fault would give back has become a link: which has all rights, and maps nothing
 * of what the fault is about. */
TEST(huge_guest, becomes_a_table_under_the_fault)
{
	struct guest_mem_config config = huge_config;
	struct split split = {0};
	struct shadow_fault fault;
	struct guest_mem g;
	uint64_t value;

	config.no_accessed_bits = true;
	huge_fixture_of(&g, &config);
	map_huge(&g, MIB2);
	expect(ask(&g, MIB2 + PAGE_SIZE, true, true));
	split.g = &g;
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAST_BEFORE_SWAP, split_meanwhile, &split);
	expect_eq(guest_fault(&g, 0, BIG + 9 * PAGE_SIZE, 0, &fault), RET_PF_FIXED);
	expect_eq(split.times, 1);
	expect_eq(stats_of(&g).fast_faults, 0);
	expect_eq(model_load(g.model, 0, BIG + 9 * PAGE_SIZE, &value), 0);
	expect_eq(value, MIB2 + 9 * PAGE_SIZE);
	huge_done(&g);
}

/* What was noted of a leaf that is gone says nothing of the next. */
TEST(huge_guest, ages_of_a_leaf_that_came_back)
{
	struct mmu_notifier_range range;
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	expect(ask(&g, MIB2, true, true));
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, g.mm,
				guest_hva(MIB2), guest_hva(MIB2 + PAGE_SIZE));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
	/* Nothing is mapped, so nothing is young. */
	expect(!ask(&g, MIB2 + PAGE_SIZE, true, true));
	guest_load(&g, 0, BIG);
	expect(ask(&g, MIB2 + PAGE_SIZE, true, true));
	expect(!ask(&g, MIB2 + PAGE_SIZE, true, true));
	expect(ask(&g, MIB2 + 2 * PAGE_SIZE, true, true));
	huge_done(&g);
}
