/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memslots: what is refused, and what gpas mean with several of them. Slot 0 is the fixture's: gpa
 * 0 onwards.
 */
#include <errno.h>

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/test.h"

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

TEST(memslot, all_ids_in_any_order)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(mm_mmap(g.mm, OTHER_HVA, MEMSLOT_MAX << PAGE_SHIFT, MM_PROT_READ | MM_PROT_WRITE,
			  NULL, 0),
		  0);
	for (unsigned int i = 1; i < MEMSLOT_MAX; i++) {
		unsigned int id = i * 7 % MEMSLOT_MAX; /* 7 and 32 share no factor */

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
