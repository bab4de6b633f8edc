/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memslots, with nobody else at work: what is refused, what gpas mean with several of them, and
 * what each change does. Slot 0 is the fixture's: gpa 0 onwards.
 */
#include <errno.h>

#include "tests/support/memslot_fixture.h"

#define OTHER_HVA 0x6000000000UL

static const struct guest_mem_config config = {.audit = true};

static int create(struct guest_mem *g, unsigned int id, gfn_t base, uint64_t npages, hva_t hva)
{
	return shadow_create_memslot(g->shadow, id, base, npages, hva);
}

TEST(memslot, refusals)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(create(&g, MEMSLOT_MAX, 0x1000, 1, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, ~0u, 0x1000, 1, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, 1, 0x1000, 0, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, 1, 0x1000, 1, OTHER_HVA + 8), -EINVAL);
	expect_eq(create(&g, 1, ~0UL, 2, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, 1, ~0UL - 1, 4, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, 1, 0x1000, 1UL << 60, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, 1, 0x1000, ~0UL, OTHER_HVA), -EINVAL);
	expect_eq(create(&g, 1, 0x1000, 2, HVA_MAX - PAGE_SIZE), -EINVAL);
	expect_eq(create(&g, 1, 0x1000, 1, INVALID_HVA & PAGE_MASK), -EINVAL);

	expect_eq(create(&g, 0, 0x1000, 1, OTHER_HVA), -EEXIST);
	expect_eq(create(&g, 1, 0, 1, OTHER_HVA), -EEXIST);
	expect_eq(create(&g, 1, g.nr_pages - 1, 2, OTHER_HVA), -EEXIST);
	expect_eq(create(&g, 1, g.nr_pages / 2, 1, OTHER_HVA), -EEXIST);

	expect_eq(create(&g, 1, g.nr_pages, 1, OTHER_HVA), 0);
	expect_eq(create(&g, 2, g.nr_pages, 1, OTHER_HVA), -EEXIST);
	expect_eq(create(&g, 1, 0x2000, 1, OTHER_HVA), -EEXIST);
	guest_mem_destroy(&g);
}

/* Of changes. Each leaves all as it was, and no set is published in vain. */
TEST(memslot, refused_changes)
{
	uint64_t generation;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(delete_slot(&g, SLOT), -EINVAL);
	expect_eq(delete_slot(&g, MEMSLOT_MAX), -EINVAL);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(create(&g, 2, 0x2000, 4, OTHER_HVA), 0);
	generation = shadow_memslots_generation(g.shadow);

	expect_eq(set_slot(&g, MEMSLOT_MAX, SLOT_GFN, SLOT_PAGES, SLOT_HVA, 0), -EINVAL);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES - 1, SLOT_HVA, 0), -EINVAL);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES + 1, SLOT_HVA, 0), -EINVAL);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA + PAGE_SIZE, 0), -EINVAL);
	for (unsigned int bit = 2; bit < 32; bit++)
		expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, 1u << bit), -EINVAL);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA,
			   MEMSLOT_READONLY | MEMSLOT_INVALID),
		  -EINVAL);
	expect_eq(place(&g, ~0UL), -EINVAL);
	expect_eq(place(&g, (SPTE_PFN_MASK >> PAGE_SHIFT) - SLOT_PAGES + 1), -EINVAL);
	expect_eq(place(&g, g.nr_pages - 1), -EEXIST);
	expect_eq(place(&g, 0), -EEXIST);
	expect_eq(place(&g, 0x2000 - SLOT_PAGES + 1), -EEXIST);
	expect_eq(place(&g, 0x2003), -EEXIST);

	expect_eq(place(&g, SLOT_GFN), 0); /* as it is: nothing to do */
	expect_eq(shadow_memslots_generation(g.shadow), generation);
	expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN)), stamp(0));
	expect_eq(place(&g, 0x2004), 0);
	expect_eq(place(&g, (SPTE_PFN_MASK >> PAGE_SHIFT) - SLOT_PAGES), 0);
	memslot_fixture_done(&g);
}

/* Odd only while a change is on its way; each swap is seen. */
static void expect_odd_gfn_invalid(void *arg)
{
	struct guest_mem *g = arg;
	uint64_t word;

	/* This is between the two swaps. */
	expect(!(shadow_memslots_generation(g->shadow) & 1));
	expect(gfn_to_memslot(shadow_memslots(g->shadow), SLOT_GFN)->flags & MEMSLOT_INVALID);
	expect_eq(shadow_read_gpa(g->shadow, SLOT_GFN << PAGE_SHIFT, &word, 8), -ENXIO);
	expect_eq(shadow_write_gpa(g->shadow, SLOT_GFN << PAGE_SHIFT, &word, 8), -ENXIO);
	expect_eq(shadow_read_gva(g->shadow, 0, slot_gva(SLOT_GFN), &word, 8, 0, NULL), -EAGAIN);
}

TEST(memslot, generation)
{
	uint64_t generation;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	generation = shadow_memslots_generation(g.shadow);
	expect(!(generation & 1));
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(shadow_memslots_generation(g.shadow), generation + 2);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, expect_odd_gfn_invalid, &g);
	shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_AFTER_ZAP, expect_odd_gfn_invalid, &g);
	expect_eq(delete_slot(&g, SLOT), 0);
	expect_eq(shadow_memslots_generation(g.shadow), generation + 6);
	memslot_fixture_done(&g);
}

TEST(memslot, delete_and_create_again)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct shadow_fault fault;
		struct guest_mem g;
		uint64_t word;

		memslot_fixture(&g, &config);
		shadow_set_zap_policy(g.shadow, policy);
		for (int round = 0; round < 3; round++) {
			expect_eq(place(&g, SLOT_GFN), 0);
			for (uint64_t i = 0; i < SLOT_PAGES; i++)
				expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN + i)), stamp(i));
			expect_eq(delete_slot(&g, SLOT), 0);
			expect_unreached(&g);
			expect_eq(guest_fault(&g, 0, slot_gva(SLOT_GFN), 0, &fault),
				  RET_PF_EMULATE);
			expect_eq(fault.gpa, SLOT_GFN << PAGE_SHIFT);
			expect_eq(shadow_read_gpa(g.shadow, SLOT_GFN << PAGE_SHIFT, &word, 8),
				  -ENXIO);
		}
		memslot_fixture_done(&g);
	}
}

/* To a place that overlaps its own, to another, and back. */
TEST(memslot, move)
{
	static const gfn_t bases[] = {
		SLOT_GFN, SLOT_GFN - 1, SLOT_GFN + 3, SLOT_GFN - SLOT_PAGES, SLOT_GFN + SLOT_PAGES,
		SLOT_GFN};
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct guest_mem g;

		memslot_fixture(&g, &config);
		shadow_set_zap_policy(g.shadow, policy);
		for (unsigned int n = 0; n < sizeof(bases) / sizeof(bases[0]); n++) {
			expect_eq(place(&g, bases[n]), 0);
			expect_unreached(&g);
			for (gfn_t gfn = SLOT_GFN - SLOT_PAGES; gfn < SLOT_GFN + 2 * SLOT_PAGES;
			     gfn++) {
				if (gfn - bases[n] < SLOT_PAGES)
					expect_eq(guest_load(&g, 0, slot_gva(gfn)),
						  stamp(gfn - bases[n]));
				else
					expect_eq(guest_try(&g, 0, MODEL_LOAD, slot_gva(gfn), NULL),
						  RET_PF_EMULATE);
			}
		}
		/* The rmaps went along. */
		expect_eq(mm_migrate_range(g.mm, SLOT_HVA, SLOT_PAGES * PAGE_SIZE), SLOT_PAGES);
		expect_unreached(&g);
		expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN)), stamp(0));
		memslot_fixture_done(&g);
	}
}

/* ROM: read and run, but not written, whatever the guest's tables and the host say. */
TEST(memslot, read_only)
{
	const gva_t gva = slot_gva(SLOT_GFN);
	struct shadow_fault fault;
	struct guest_mem g;
	uint64_t word = 5;

	memslot_fixture(&g, &config);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY), 0);
	expect_eq(guest_load(&g, 0, gva), stamp(0));
	expect_eq(guest_try(&g, 0, MODEL_FETCH, gva, NULL), RET_PF_FIXED);
	expect_eq(guest_fault(&g, 0, gva + 0x18, PFERR_WRITE, &fault), RET_PF_EMULATE);
	expect_eq(fault.gpa, (SLOT_GFN << PAGE_SHIFT) + 0x18);
	expect_eq(guest_try(&g, 0, MODEL_STORE, gva, NULL), RET_PF_EMULATE);
	expect_eq(shadow_read_gpa(g.shadow, SLOT_GFN << PAGE_SHIFT, &word, 8), 0);
	expect_eq(word, stamp(0));
	expect_eq(shadow_write_gpa(g.shadow, SLOT_GFN << PAGE_SHIFT, &word, 8), -ENXIO);
	expect_eq(guest_load(&g, 0, gva), stamp(0));
	/* The device behind it may have other memory shown. */
	word = 7;
	expect_eq(mm_write(g.mm, SLOT_HVA, &word, sizeof(word)), 0);
	expect_eq(guest_load(&g, 0, gva), 7);
	memslot_fixture_done(&g);
}

TEST(memslot, read_only_comes_and_goes)
{
	const gva_t gva = slot_gva(SLOT_GFN);
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	for (uint64_t i = 0; i < 4; i++) {
		guest_store(&g, 0, gva, i);
		guest_store(&g, 0, 0, i);
		expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY), 0);
		expect_unreached(&g);
		expect_eq(guest_try(&g, 0, MODEL_STORE, gva, NULL), RET_PF_EMULATE);
		expect_eq(guest_load(&g, 0, gva), i);
		/* The page is dirty, and the leaf is there: still not. */
		expect_eq(guest_try(&g, 0, MODEL_STORE, gva, NULL), RET_PF_EMULATE);
		expect_eq(guest_load(&g, 0, gva), i);
		/* Nothing else has gone. */
		expect_ge(model_cached(g.model, mm_lookup_pfn(g.mm, guest_hva(0))), 1);
		expect_eq(place(&g, SLOT_GFN), 0);
	}
	/* Moved and made read-only at once. */
	guest_store(&g, 0, gva, 9);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN + 1, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY), 0);
	expect_eq(guest_load(&g, 0, gva + PAGE_SIZE), 9);
	expect_eq(guest_try(&g, 0, MODEL_STORE, gva + PAGE_SIZE, NULL), RET_PF_EMULATE);
	memslot_fixture_done(&g);
}

/* A guest's page table in ROM has no accessed and dirty bits, and its pages can be written. */
TEST(memslot, tables_in_rom)
{
	const gva_t gva = 0x20000000;
	const gpa_t table = SLOT_GFN << PAGE_SHIFT;
	const uint64_t pte = 0x3000 | GUEST_PTE_RW;
	struct guest_mem g;
	uint64_t word;

	memslot_fixture(&g, &config);
	expect_eq(mm_write(g.mm, SLOT_HVA, &pte, sizeof(pte)), 0);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 2), table | GUEST_PTE_RW);
	expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, MEMSLOT_READONLY), 0);
	expect_eq(guest_load(&g, 0, gva), 0);
	guest_store(&g, 0, gva, 3);
	expect_eq(guest_load(&g, 0, gva), 3);
	expect_eq(guest_read(&g, 0x3000), 3);
	expect_eq(mm_read(g.mm, SLOT_HVA, &word, sizeof(word)), 0);
	expect_eq(word, pte);
	/* In RAM it has them, at once, also if it has come into step before. */
	expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	guest_store(&g, 0, gva, 3);
	expect_eq(place(&g, SLOT_GFN), 0);
	guest_store(&g, 0, gva, 4);
	expect_eq(mm_read(g.mm, SLOT_HVA, &word, sizeof(word)), 0);
	expect_eq(word, pte | GUEST_PTE_A | GUEST_PTE_D);
	memslot_fixture_done(&g);
}

/* The guest's tables go with the slot that they are in, and what they map elsewhere with them. */
TEST(memslot, tables_in_a_slot_that_goes)
{
	const gva_t gva = 0x20000000;
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		const uint64_t pte = 0x3000 | GUEST_PTE_RW;
		struct guest_mem g;

		memslot_fixture(&g, &config);
		shadow_set_zap_policy(g.shadow, policy);
		guest_write(&g, 0x3000, 33);
		expect_eq(mm_write(g.mm, SLOT_HVA, &pte, sizeof(pte)), 0);
		guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 2),
			    SLOT_GFN << PAGE_SHIFT | GUEST_PTE_RW);
		for (int round = 0; round < 3; round++) {
			expect_eq(guest_try(&g, 0, MODEL_LOAD, gva, NULL), RET_PF_GUEST);
			expect_eq(place(&g, SLOT_GFN), 0);
			expect_eq(guest_load(&g, 0, gva), 33);
			/* The table is still there, as it were, but not at its address. */
			expect_eq(place(&g, SLOT_GFN + 1), 0);
			expect_eq(guest_try(&g, 0, MODEL_LOAD, gva, NULL), RET_PF_GUEST);
			expect_eq(place(&g, SLOT_GFN), 0);
			expect_eq(guest_load(&g, 0, gva), 33);
			expect_eq(delete_slot(&g, SLOT), 0);
		}
		memslot_fixture_done(&g);
	}
}

/* All of it, the root's guest table included. */
TEST(memslot, ram_goes_and_comes)
{
	const struct guest_mem_config two = {.audit = true, .nr_cpus = 2};
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct shadow_stats stats;
		struct guest_mem g;
		uint64_t zapped;

		memslot_fixture(&g, &two);
		shadow_set_zap_policy(g.shadow, policy);
		for (int round = 1; round <= 3; round++) {
			guest_store(&g, 0, 0x3000, round);
			expect_eq(guest_load(&g, 1, 0x3000), round);
			shadow_get_stats(g.shadow, &stats);
			zapped = stats.sptes_zapped;
			expect_eq(delete_slot(&g, 0), 0);
			shadow_get_stats(g.shadow, &stats);
			expect_eq(stats.sptes_zapped - zapped, 1);
			expect_eq(model_cached(g.model, mm_lookup_pfn(g.mm, guest_hva(0x3000))), 0);
			expect_eq(guest_try(&g, 0, MODEL_LOAD, 0x3000, NULL), RET_PF_GUEST);
			expect_eq(create(&g, 0, 0, g.nr_pages, GUEST_MEM_HVA), 0);
		}
		memslot_fixture_done(&g);
	}
}

TEST(memslot, all_ids_in_any_order)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(mm_mmap(g.mm, OTHER_HVA, MEMSLOT_MAX << PAGE_SHIFT, MM_PROT_READ | MM_PROT_WRITE,
			  NULL, 0),
		  0);
	for (unsigned int i = 1; i < MEMSLOT_MAX; i++) {
		unsigned int id = i * 7 % MEMSLOT_MAX; /* 7 and 512 share no factor */

		expect_eq(create(&g, id, 0x1000 + 2 * id, 1, OTHER_HVA + id * PAGE_SIZE), 0);
	}
	for (uint64_t id = 1; id < MEMSLOT_MAX; id++) {
		gpa_t gpa = (0x1000 + 2 * id) << PAGE_SHIFT;
		uint64_t value = 0;

		expect_eq(shadow_write_gpa(g.shadow, gpa, &id, sizeof(id)), 0);
		expect_eq(mm_read(g.mm, OTHER_HVA + id * PAGE_SIZE, &value, sizeof(value)), 0);
		expect_eq(value, id);
		/* Between two slots is nothing. */
		expect_eq(shadow_read_gpa(g.shadow, gpa + PAGE_SIZE, &value, sizeof(value)),
			  -ENXIO);
	}
	guest_mem_destroy(&g);
}

/* The same host page in two slots: both guest pages are that page, and both go with it. */
TEST(memslot, two_slots_over_one_host_page)
{
	const gfn_t alias = 0x1000;
	struct guest_mem g;
	pfn_t old;

	guest_mem_create(&g, &config);
	expect_eq(create(&g, 1, alias, 4, GUEST_MEM_HVA), 0);
	guest_map(&g, g.cr3, 0x10000000, (alias << PAGE_SHIFT) + 0x1000, GUEST_PTE_RW);
	guest_store(&g, 0, 0x1000, 11);
	expect_eq(guest_load(&g, 0, 0x10000000), 11);
	guest_store(&g, 0, 0x10000000, 12);
	expect_eq(guest_load(&g, 0, 0x1000), 12);

	old = mm_lookup_pfn(g.mm, guest_hva(0x1000));
	expect_eq(mm_migrate_range(g.mm, guest_hva(0x1000), PAGE_SIZE), 1);
	expect_eq(model_cached(g.model, old), 0);
	expect_eq(guest_load(&g, 0, 0x1000), 12);
	expect_eq(guest_load(&g, 0, 0x10000000), 12);
	guest_mem_destroy(&g);
}

TEST(memslot, lookup)
{
	const struct memslot *slot;
	struct memslots *slots;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(create(&g, 3, 0x5000, 16, OTHER_HVA), 0);
	expect_eq(create(&g, 4, 0x4000, 16, OTHER_HVA), 0);
	slots = shadow_memslots(g.shadow);
	expect_eq(slots->nr, 3);
	for (gfn_t gfn = 0x3ff0; gfn < 0x5020; gfn++) {
		slot = gfn_to_memslot(slots, gfn);
		if (gfn >= 0x4000 && gfn < 0x4010)
			expect(slot && slot->id == 4);
		else if (gfn >= 0x5000 && gfn < 0x5010)
			expect(slot && slot->id == 3);
		else
			expect(!slot);
	}
	expect(gfn_to_memslot(slots, 0)->id == 0);
	expect(!gfn_to_memslot(slots, g.nr_pages));
	expect(!gfn_to_memslot(slots, ~0UL));
	expect_eq(gpa_to_hva(g.shadow, 0x5001234), OTHER_HVA + 0x1234);
	expect_eq(gpa_to_hva(g.shadow, 0x6000000), INVALID_HVA);
	guest_mem_destroy(&g);
}
