/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Entries that map 2 MiB: when there is one, what makes it go, and what comes then.
 */
#include "tests/support/huge_fixture.h"

/* ---- when ---- */

TEST(huge, one_entry_maps_all)
{
	struct model_stats before, after;
	struct guest_mem g;
	uint64_t faults;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	faults = stats_of(&g).faults;
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
		expect_eq(guest_load(&g, 0, BIG + at), MIB2 + at);
	expect_eq(stats_of(&g).faults - faults, 1);
	expect_eq(stats_of(&g).huge_made, 1);
	expect_eq(huge_leaves(&g, MIB2), 1);
	expect(!(pde(&g, BIG) & GUEST_PTE_D));

	/* The first store sets D, and the entry gains the right. */
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
		guest_store(&g, 0, BIG + at, at + 1);
	expect(pde(&g, BIG) & GUEST_PTE_D);
	expect_eq(stats_of(&g).faults - faults, 2);
	expect_eq(stats_of(&g).huge_made, 1);
	expect_eq(stats_of(&g).sptes_zapped, 0);
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
		expect_eq(guest_read(&g, MIB2 + at), at + 1);

	/* The other CPU needs nothing of us. */
	model_get_stats(g.model, &before);
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
		expect_eq(guest_load(&g, 1, BIG + at), at + 1);
	model_get_stats(g.model, &after);
	expect_eq(after.faults, before.faults);
	huge_done(&g);
}

/* Whoever may store says so of all pages at once: none is taken for clean that was stored to. */
TEST(huge, writable_means_dirty_in_the_host)
{
	struct mm_page page;
	struct guest_mem g;

	/* Only read, the pages are clean, and may be written. */
	guest_mem_init(&g, &huge_config);
	for (gpa_t gpa = 0; gpa < 2 * MIB2; gpa += PAGE_SIZE)
		guest_read(&g, gpa);
	guest_mem_attach(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	guest_load(&g, 0, BIG);
	expect_eq(huge_leaves(&g, MIB2), 1);
	mm_lookup_page(g.mm, guest_hva(MIB2 + 5 * PAGE_SIZE), &page);
	expect(!page.dirty);
	guest_store(&g, 0, BIG, 1);
	expect_eq(huge_leaves(&g, MIB2), 1);
	for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE) {
		mm_lookup_page(g.mm, guest_hva(MIB2 + at), &page);
		expect(page.dirty);
	}
	huge_done(&g);
}

/* Where the host wants to hear of the first store to each page, that splits the leaf. */
TEST(huge, the_host_counts_stores)
{
	struct mm_page page;
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	mm_clear_soft_dirty(g.mm);
	expect_eq(huge_leaves(&g, MIB2), 0);
	guest_load(&g, 0, BIG);
	expect_eq(huge_leaves(&g, MIB2), 1);
	guest_store(&g, 0, BIG + PAGE_SIZE, 1);
	expect_eq(huge_leaves(&g, MIB2), 0);
	mm_lookup_page(g.mm, guest_hva(MIB2 + PAGE_SIZE), &page);
	expect(page.prot & MM_PROT_WRITE);
	mm_lookup_page(g.mm, guest_hva(MIB2), &page);
	expect(!(page.prot & MM_PROT_WRITE));
	huge_done(&g);
}

/* A piece of 1 GiB, in a direct table of level 2; the rest of it is in no slot. */
TEST(huge, of_one_gib)
{
	const gva_t gva = 7UL << 30;
	struct guest_mem g;
	uint64_t faults;

	huge_fixture(&g);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), LARGE);
	faults = stats_of(&g).faults;
	for (gpa_t at = 0; at < HUGE_REGIONS * MIB2; at += PAGE_SIZE)
		expect_eq(guest_load(&g, 0, gva + at), at);
	expect_eq(stats_of(&g).faults - faults, HUGE_REGIONS);
	guest_store(&g, 0, gva + MIB2, 22);
	expect_eq(guest_read(&g, MIB2), 22);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, gva + 64 * MIB2, NULL), RET_PF_EMULATE);
	/* Where the guest's tables are, each page is for itself. */
	expect_eq(guest_load(&g, 0, gva + HUGE_REGIONS * MIB2), HUGE_REGIONS * MIB2);
	expect_eq(huge_leaves(&g, HUGE_REGIONS * MIB2), 0);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), 0);
	shadow_invlpg(g.shadow, 0, gva + MIB2 + PAGE_SIZE);
	for (gpa_t at = 0; at < HUGE_REGIONS * MIB2; at += MIB2)
		expect_eq(guest_try(&g, 0, MODEL_LOAD, gva + at, NULL), RET_PF_GUEST);
	huge_done(&g);
}

/* The tables of its pieces are none of the guest's: where they begin may be 2 MiB. */
TEST(huge, beside_one_gib)
{
	const gva_t gva = 7UL << 30;
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, 0);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), LARGE);
	expect_eq(guest_load(&g, 0, gva + MIB2), MIB2);
	expect_eq(huge_leaves(&g, 0), 1);
	huge_done(&g);
}

/* A guest that shows one large page in two places, with other rights in each. */
TEST(huge, mapped_twice)
{
	const gva_t other = BIG + MIB2;
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	set_pde(&g, other, MIB2 | (LARGE & ~GUEST_PTE_W));
	expect_eq(guest_load(&g, 0, other), MIB2);
	expect_eq(huge_leaves(&g, MIB2), 2);
	expect_eq(guest_try(&g, 0, MODEL_STORE, other, NULL), RET_PF_GUEST);
	guest_store(&g, 0, BIG, 3);
	expect_eq(guest_load(&g, 1, other), 3);
	huge_done(&g);
}

/* The tables that lead to one are used, when it is made: others go before them. */
TEST(huge, its_tables_are_used)
{
	const struct shadow_page *sp;
	gfn_t first = INVALID_GFN;
	struct guest_mem g;
	gfn_t dir;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	set_pde(&g, BIG + MIB2, 2 * MIB2 | LARGE);
	set_pde(&g, 3 * BIG, 3 * MIB2 | LARGE);
	dir = guest_pte_gpa(&g, g.cr3, BIG, 2) >> PAGE_SHIFT;
	guest_load(&g, 0, BIG);
	guest_load(&g, 0, 3 * BIG);
	guest_load(&g, 0, BIG + MIB2);
	spin_lock(&g.shadow->mmu_lock);
	list_for_each_entry(sp, &g.shadow->pages, link) {
		if (sp->role.level == HUGE_LEVEL && first == INVALID_GFN)
			first = sp->gfn;
	}
	spin_unlock(&g.shadow->mmu_lock);
	expect_eq(first, dir);
	huge_done(&g);
}

/* ---- when not ---- */

/* In the fixture, or a guest like it. */
struct ban {
	const char *what;
	void (*before)(struct guest_mem *g); /* the machine, and the slot, are there */
	bool map;			     /* slot 1 is made of that RAM instead */
	struct memslot_region slot;
};

static void page_is_missing(struct guest_mem *g)
{
	expect_eq(mm_madvise(g->mm, guest_hva(MIB2 + 77 * PAGE_SIZE), PAGE_SIZE, MM_MADV_DONTNEED),
		  0);
	expect_eq(mm_lookup_pfn(g->mm, guest_hva(MIB2 + 77 * PAGE_SIZE)), INVALID_PFN);
}

static void page_is_elsewhere(struct guest_mem *g)
{
	expect_eq(migrate_mapping_page(g->ram, HUGE_PAGES + 511), 0);
}

static void page_is_read_only(struct guest_mem *g)
{
	expect_eq(mm_mprotect(g->mm, guest_hva(MIB2 + PAGE_SIZE), PAGE_SIZE, MM_PROT_READ), 0);
}

/* In order, from a frame on that is not aligned. */
static void frames_are_shifted(struct guest_mem *g)
{
	pfn_t spare = phys_alloc(g->phys);

	for (uint64_t n = 0; n < HUGE_PAGES; n++)
		expect_eq(migrate_mapping_page(g->ram, HUGE_PAGES + n), 0);
	expect_eq(mm_lookup_pfn(g->mm, guest_hva(MIB2 + PAGE_SIZE)),
		  mm_lookup_pfn(g->mm, guest_hva(MIB2)) + 1);
	expect(mm_lookup_pfn(g->mm, guest_hva(MIB2)) % HUGE_PAGES);
	phys_put(g->phys, spare);
}

static void is_switched_off(struct guest_mem *g)
{
	shadow_set_huge(g->shadow, false);
}

static void machine_has_none(struct guest_mem *g)
{
	model_to_machine(g->model)->huge = false;
}

/* A page of it is a table of leaves, which the guest is using. */
static void has_a_table(struct guest_mem *g)
{
	gpa_t table = MIB2 + 9 * PAGE_SIZE;

	guest_write(g, table, 3 * MIB2 | GUEST_PTE_RW);
	set_pde(g, 2 * BIG, table | TABLE);
	expect_eq(guest_load(g, 0, 2 * BIG), 3 * MIB2);
}

static void has_a_root(struct guest_mem *g)
{
	expect_eq(shadow_load_cr3(g->shadow, 1, MIB2 + 9 * PAGE_SIZE), 0);
}

#define PAGES_BEFORE 16 /* of gfns, between 2 MiB and a slot that is shifted */

static const struct ban bans[] = {
	{.what = "a page is not there", .before = page_is_missing},
	{.what = "a page is in another place", .before = page_is_elsewhere},
	{.what = "a page has less rights", .before = page_is_read_only},
	{.what = "the frames are not aligned", .before = frames_are_shifted},
	{.what = "the setting is off", .before = is_switched_off},
	{.what = "the machine cannot", .before = machine_has_none},
	{.what = "a page is a table of leaves", .before = has_a_table},
	{.what = "a page is a root", .before = has_a_root},
	{.what = "gfn and hva differ in their low bits",
	 .map = true,
	 .slot = {.id = 1,
		  .base_gfn = 0x100000 + PAGES_BEFORE,
		  .npages = 3 * HUGE_PAGES,
		  .hva = GUEST_MEM_HVA}},
	{.what = "the slot begins in it",
	 .map = true,
	 .slot = {.id = 1,
		  .base_gfn = 0x100000 + 1,
		  .npages = HUGE_PAGES - 1,
		  .hva = GUEST_MEM_HVA + PAGE_SIZE}},
	{.what = "the slot ends in it",
	 .map = true,
	 .slot = {.id = 1, .base_gfn = 0x100000, .npages = HUGE_PAGES - 1, .hva = GUEST_MEM_HVA}},
	{.what = "the slot is read-only",
	 .map = true,
	 .slot = {.id = 1,
		  .flags = MEMSLOT_READONLY,
		  .base_gfn = 0x100000,
		  .npages = HUGE_PAGES,
		  .hva = GUEST_MEM_HVA}},
};

TEST(huge, what_forbids_it)
{
	for (unsigned int i = 0; i < sizeof(bans) / sizeof(bans[0]); i++) {
		const struct ban *ban = &bans[i];
		gpa_t gpa = ban->map ? 0x100000000UL : MIB2;
		struct guest_mem g;

		huge_fixture(&g);
		if (ban->before)
			ban->before(&g);
		if (ban->map)
			expect_eq(shadow_set_memslot(g.shadow, &ban->slot), 0);
		set_pde(&g, BIG, gpa | LARGE);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG + 100 * PAGE_SIZE, NULL), RET_PF_FIXED);
		if (stats_of(&g).huge_made)
			fail("%s, and there is one entry for all", ban->what);
		if (ban->before != page_is_missing && !ban->map)
			for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
				expect_eq(guest_load(&g, 0, BIG + at),
					  ban->before == has_a_table && at == 9 * PAGE_SIZE
						  ? (3 * MIB2 | GUEST_PTE_RW | GUEST_PTE_A)
						  : gpa + at);
		if (ban->before == has_a_root)
			expect_eq(shadow_load_cr3(g.shadow, 1, g.cr3), 0);
		huge_done(&g);
	}
}

/* The fixture itself is not what forbids: the same slot, placed well, has one. */
TEST(huge, of_another_slot)
{
	const struct memslot_region good = {.id = 1,
					    .base_gfn = 0x100000,
					    .npages = HUGE_PAGES,
					    .hva = GUEST_MEM_HVA + MIB2};
	struct guest_mem g;

	huge_fixture(&g);
	expect_eq(shadow_set_memslot(g.shadow, &good), 0);
	set_pde(&g, BIG, 0x100000000UL | LARGE);
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	expect_eq(stats_of(&g).huge_made, 1);
	/* One page of the host, two slots: both go. */
	set_pde(&g, BIG + MIB2, MIB2 | LARGE);
	expect_eq(guest_load(&g, 1, BIG + MIB2), MIB2);
	expect_eq(stats_of(&g).huge_made, 2);
	expect_eq(migrate_mapping_page(g.ram, HUGE_PAGES), 0);
	expect_eq(huge_leaves(&g, MIB2), 0);
	expect_eq(huge_leaves(&g, 0x100000000UL), 0);
	huge_done(&g);
}

/* ---- the host takes a page ---- */

TEST(huge, goes_with_any_page_of_it)
{
	static const unsigned int pages[] = {0, 1, 300, 511};

	for (unsigned int i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		gva_t gva = BIG + pages[i] * PAGE_SIZE;
		struct guest_mem g;
		uint64_t shot;
		pfn_t old;

		huge_fixture(&g);
		map_huge(&g, MIB2);
		old = mm_lookup_pfn(g.mm, guest_hva(MIB2 + pages[i] * PAGE_SIZE));
		expect_eq(model_cached(g.model, old), 2);
		shot = stats_of(&g).shootdowns;
		expect_eq(migrate_mapping_page(g.ram, HUGE_PAGES + pages[i]), 0);
		expect_eq(stats_of(&g).shootdowns - shot, 1);
		expect_eq(huge_leaves(&g, MIB2), 0);
		for (pfn_t pfn = HUGE_PAGES; pfn < 2 * HUGE_PAGES; pfn++)
			expect_eq(model_cached(g.model, pfn), 0);
		/* What comes is of 4 KiB, and so are the neighbours from now on. */
		guest_store(&g, 0, gva, 99);
		for (gpa_t at = 0; at < MIB2; at += PAGE_SIZE)
			expect_eq(guest_load(&g, 1, BIG + at),
				  at == pages[i] * PAGE_SIZE ? 99 : MIB2 + at);
		expect_eq(stats_of(&g).huge_made, 1);
		expect_eq(small_leaves(&g, MIB2 + pages[i] * PAGE_SIZE), 1);
		huge_done(&g);
	}
}

/* A window that takes nothing: the leaf goes, and comes back. */
TEST(huge, comes_back_where_nothing_has_changed)
{
	struct mmu_notifier_range range;
	struct guest_mem g;
	uint64_t refaults;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	refaults = stats_of(&g).refaults;
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, g.mm,
				guest_hva(MIB2 + 7 * PAGE_SIZE), guest_hva(MIB2 + 9 * PAGE_SIZE));
	mmu_notifier_invalidate_range_start(&range);
	expect_eq(huge_leaves(&g, MIB2), 0);
	mmu_notifier_invalidate_range_end(&range);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), MIB2 + PAGE_SIZE);
	expect_eq(huge_leaves(&g, MIB2), 1);
	/* Two pages were taken, not 512. */
	expect_eq(stats_of(&g).refaults - refaults, 2);
	/* Nor again, when the guest itself has had it out. */
	guest_reload_afresh(&g, 0);
	expect_eq(guest_load(&g, 0, BIG + PAGE_SIZE), MIB2 + PAGE_SIZE);
	expect_eq(stats_of(&g).refaults - refaults, 2);
	huge_done(&g);
}

/* Windows over other pages leave it alone: of the regions before and after it. */
TEST(huge, stays_with_neighbours_windows)
{
	struct guest_mem g;

	huge_fixture(&g);
	map_huge(&g, MIB2);
	expect_eq(migrate_mapping_page(g.ram, HUGE_PAGES - 1), 0);
	expect_eq(migrate_mapping_page(g.ram, 2 * HUGE_PAGES), 0);
	expect_eq(huge_leaves(&g, MIB2), 1);
	huge_done(&g);
}

/* More of them than a batch of frames takes, in one window. */
TEST(huge, a_window_over_many)
{
	struct guest_mem_config config = huge_config;
	const uint64_t regions = ZAP_BATCH_FRAMES + 20;
	const gva_t gva = 7UL << 30;
	struct mmu_notifier_range range;
	struct guest_mem g;

	config.nr_pages = (regions + 1) * HUGE_PAGES;
	config.audit = false;
	guest_mem_init(&g, &config);
	touch_in_order(&g);
	guest_mem_attach(&g);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 3), LARGE);
	for (uint64_t i = 0; i < regions; i++)
		expect_eq(guest_load(&g, 0, gva + i * MIB2), i * MIB2);
	expect_eq(stats_of(&g).huge_made, regions);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, MMU_NOTIFIER_RANGE_BLOCKABLE, g.mm,
				GUEST_MEM_HVA, guest_hva(regions * MIB2));
	mmu_notifier_invalidate_range_start(&range);
	expect_eq(stats_of(&g).sptes_zapped, regions);
	for (uint64_t i = 0; i < regions; i++) {
		expect_eq(huge_leaves(&g, i * MIB2), 0);
		expect_eq(model_cached(g.model, i * HUGE_PAGES), 0);
	}
	mmu_notifier_invalidate_range_end(&range);
	expect_eq(guest_load(&g, 0, gva + MIB2), MIB2);
	huge_done(&g);
}

static void map_on_cpu1(void *arg)
{
	struct guest_mem *g = arg;

	shadow_set_hook(g->shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, NULL, NULL);
	expect_eq(guest_load(g, 1, BIG + 5 * PAGE_SIZE), MIB2 + 5 * PAGE_SIZE);
}

/* Two CPUs fault in one region, and one has mmu_lock first: the other has nothing to do. */
TEST(huge, another_cpu_was_first)
{
	struct shadow_fault fault;
	struct guest_mem g;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE);
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, map_on_cpu1, &g);
	expect_eq(guest_fault(&g, 0, BIG, 0, &fault), RET_PF_SPURIOUS);
	expect_eq(huge_leaves(&g, MIB2), 1);
	expect_eq(stats_of(&g).huge_made, 1);
	huge_done(&g);
}

/* For those who only read it has the rights that they have, and no more. */
TEST(huge, with_the_rights_of_its_page)
{
	struct guest_mem g;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | (LARGE & ~GUEST_PTE_W) | GUEST_PTE_NX);
	expect_eq(guest_load(&g, 0, BIG), MIB2);
	expect_eq(huge_leaves(&g, MIB2), 1);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, BIG + PAGE_SIZE, NULL), RET_PF_GUEST);
	expect_eq(guest_try(&g, 0, MODEL_STORE, BIG + PAGE_SIZE, NULL), RET_PF_GUEST);
	huge_done(&g);
}

/* It is in the same entry that it gains one. */
TEST(huge, more_rights_in_place)
{
	struct shadow_fault fault;
	struct guest_mem g;

	huge_fixture(&g);
	set_pde(&g, BIG, MIB2 | LARGE | GUEST_PTE_A);
	guest_load(&g, 0, BIG);
	expect_eq(guest_fault(&g, 0, BIG, PFERR_WRITE, &fault), RET_PF_FIXED);
	expect_eq(huge_leaves(&g, MIB2), 1);
	expect_eq(stats_of(&g).huge_made, 1);
	huge_done(&g);
}

/* A page that more than a thousand entries map loses them all before the next. */
TEST(huge, mapped_too_often)
{
	struct shadow_fault fault;
	struct guest_mem g;
	unsigned int peak = 0;

	huge_fixture(&g);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	for (unsigned int i = 0; i < RMAP_RECYCLE_THRESHOLD + 10; i++) {
		gva_t gva = BIG + i * MIB2;

		set_pde(&g, gva, MIB2 | LARGE);
		if (i == RMAP_RECYCLE_THRESHOLD)
			expect_eq(guest_fault(&g, 0, gva, 0, &fault), RET_PF_RETRY);
		expect_eq(guest_load(&g, 0, gva + PAGE_SIZE), MIB2 + PAGE_SIZE);
		if (huge_leaves(&g, MIB2) > peak)
			peak = huge_leaves(&g, MIB2);
	}
	expect_eq(peak, RMAP_RECYCLE_THRESHOLD);
	expect_eq(huge_leaves(&g, MIB2), 10);
	huge_done(&g);
}

/* ---- slots ---- */

TEST(huge, slots_that_change)
{
	enum shadow_zap_policy policy;

	for (policy = SHADOW_ZAP_ALL; policy <= SHADOW_ZAP_SLOT; policy++) {
		struct memslot_region slot = {.id = 1,
					      .base_gfn = 0x100000,
					      .npages = HUGE_PAGES,
					      .hva = GUEST_MEM_HVA + MIB2};
		struct guest_mem g;

		huge_fixture(&g);
		shadow_set_zap_policy(g.shadow, policy);
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		set_pde(&g, BIG, 0x100000000UL | LARGE);
		guest_store(&g, 0, BIG, 1);
		expect_eq(huge_leaves(&g, 0x100000000UL), 1);

		slot.flags = MEMSLOT_READONLY;
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		expect_eq(guest_try(&g, 0, MODEL_STORE, BIG, NULL), RET_PF_EMULATE);
		expect_eq(guest_load(&g, 0, BIG), 1);
		slot.flags = 0;
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		shadow_invlpg(g.shadow, 0, BIG);

		/* To a gfn of other low bits, and back. */
		slot.base_gfn += 3;
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		expect_eq(guest_load(&g, 0, BIG + 3 * PAGE_SIZE), 1);
		expect_eq(huge_leaves(&g, slot.base_gfn << PAGE_SHIFT), 0);
		slot.base_gfn -= 3;
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		/* The direct table that maps nothing now may still be there. */
		guest_edit(&g, guest_pte_gpa(&g, g.cr3, BIG, 2), 0);
		guest_edit(&g, guest_pte_gpa(&g, g.cr3, BIG, 2), 0x100000000UL | LARGE);
		expect_eq(guest_load(&g, 0, BIG), 1);
		expect_eq(huge_leaves(&g, 0x100000000UL), 1);

		slot.npages = 0;
		expect_eq(shadow_set_memslot(g.shadow, &slot), 0);
		expect_eq(model_cached(g.model, HUGE_PAGES + 5), 0);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, BIG, NULL), RET_PF_EMULATE);
		huge_done(&g);
	}
}
