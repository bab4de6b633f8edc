/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guest memory as emulation reaches it: by gva and by gpa.
 */
#include <errno.h>
#include <string.h>

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/hoard.h"
#include "tests/support/test.h"

#define GVA 0x10000000UL

static const struct guest_mem_config config = {.audit = true};

/* Two pages that are neighbours by gva and not by gpa. */
static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_map(g, g->cr3, GVA, 0x5000, GUEST_PTE_RW);
	guest_map(g, g->cr3, GVA + PAGE_SIZE, 0x2000, GUEST_PTE_RW);
	expect_eq(shadow_write_gpa(g->shadow, 0x5ffc, "abcd", 4), 0);
	expect_eq(shadow_write_gpa(g->shadow, 0x2000, "efgh", 4), 0);
}

TEST(access, gva_across_pages)
{
	char text[9] = "";
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 8, PFERR_FETCH, NULL), 0);
	expect_str_eq(text, "abcdefgh");
	guest_mem_destroy(&g);
}

TEST(access, gva_fault_is_the_guests)
{
	struct shadow_fault fault = {0};
	char text[8];
	struct guest_mem g;

	fixture(&g);
	guest_map(&g, g.cr3, GVA + PAGE_SIZE, 0, 0);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 8, PFERR_FETCH, &fault), -EFAULT);
	expect_eq(fault.gva, GVA + PAGE_SIZE);
	expect_eq(fault.error_code, PFERR_FETCH);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 8, 0, NULL), -EFAULT);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 4, 0, NULL), 0);

	guest_map(&g, g.cr3, GVA + PAGE_SIZE, 0x2000, GUEST_PTE_P | GUEST_PTE_NX);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + PAGE_SIZE, text, 4, PFERR_FETCH, &fault),
		  -EFAULT);
	expect_eq(fault.error_code, PFERR_FETCH | PFERR_PRESENT);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + PAGE_SIZE, text, 4, 0, NULL), 0);
	guest_mem_destroy(&g);
}

TEST(access, gva_out_of_reach)
{
	const struct guest_mem_config reaching = {.gva_end = GVA + PAGE_SIZE};
	struct shadow_fault fault = {0};
	char text[8];
	struct guest_mem g;

	guest_mem_create(&g, &reaching);
	guest_map(&g, g.cr3, GVA, 0x5000, GUEST_PTE_RW);
	guest_map(&g, g.cr3, GVA + PAGE_SIZE, 0x2000, GUEST_PTE_RW);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 8, PFERR_FETCH, &fault), -EFAULT);
	expect_eq(fault.gva, GVA + PAGE_SIZE);
	expect_eq(fault.error_code, PFERR_FETCH);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 4, PFERR_FETCH, NULL), 0);
	guest_mem_destroy(&g);
}

TEST(access, gva_without_a_slot)
{
	struct shadow_fault fault;
	char text[8];
	struct guest_mem g;

	fixture(&g);
	guest_map(&g, g.cr3, GVA, 0x7000000000, GUEST_PTE_RW);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA, text, 8, 0, NULL), -ENXIO);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA, text, 8, 0, &fault), -ENXIO);
	expect_eq(fault.hva, INVALID_HVA);
	guest_mem_destroy(&g);
}

/* Memory that the mm does not let us at: the error tells which, the second page or a table. */
TEST(access, gva_that_the_host_refuses)
{
	struct shadow_fault fault;
	struct guest_mem g;
	char text[8];
	gpa_t table;

	fixture(&g);
	table = guest_pte_gpa(&g, g.cr3, GVA, 1) & PAGE_MASK;
	expect_eq(mm_mprotect(g.mm, guest_hva(0x2000), PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 4, 0, &fault), 0);
	expect_eq(fault.hva, INVALID_HVA);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 8, 0, &fault), -ENXIO);
	expect_eq(fault.hva, guest_hva(0x2000));
	expect_eq(mm_mprotect(g.mm, guest_hva(table), PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA + 0xffc, text, 4, 0, &fault), -ENXIO);
	expect_eq(fault.hva & PAGE_MASK, guest_hva(table));
	guest_mem_destroy(&g);
}

TEST(access, gpa_to_the_end_of_memory)
{
	char out[16], in[16] = "0123456789abcdef";
	struct guest_mem g;
	gpa_t end;

	fixture(&g);
	end = g.nr_pages << PAGE_SHIFT;
	expect_eq(shadow_write_gpa(g.shadow, end - 16, in, 16), 0);
	expect_eq(shadow_read_gpa(g.shadow, end - 16, out, 16), 0);
	expect_eq(memcmp(in, out, 16), 0);
	expect_eq(shadow_read_gpa(g.shadow, end - 8, out, 16), -ENXIO);
	expect_eq(shadow_write_gpa(g.shadow, end, in, 1), -ENXIO);
	expect_eq(shadow_write_gpa(g.shadow, ~0UL, in, 1), -ENXIO);
	expect_eq(shadow_read_gpa(g.shadow, ~0UL - 4, out, 16), -ENXIO);
	expect_eq(shadow_read_gpa(g.shadow, 0, out, 0), 0);
	guest_mem_destroy(&g);
}

/* What the guest stores is what the host reads, and the other way round, in either order. */
TEST(access, guest_and_host_see_the_same)
{
	struct guest_mem g;

	fixture(&g);
	for (uint64_t i = 0; i < 20; i++) {
		uint64_t value = i;

		guest_store(&g, 0, GVA + 8, i);
		expect_eq(guest_read(&g, 0x5008), i);
		value = ~i;
		expect_eq(shadow_write_gpa(g.shadow, 0x5008, &value, 8), 0);
		expect_eq(guest_load(&g, 0, GVA + 8), ~i);
		if (i % 3 == 0)
			expect_eq(mm_migrate_range(g.mm, guest_hva(0x5000), PAGE_SIZE), 1);
	}
	guest_mem_destroy(&g);
}

/* The mm is about to go, and nothing says so yet but its last word to us. */
TEST(access, after_release)
{
	struct shadow_fault fault;
	struct guest_mem g;
	char text[4];

	fixture(&g);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA, text, 4, 0, &fault), 0);
	shadow_mmu_notifier_ops.release(&g.shadow->notifier, g.mm);
	expect_eq(shadow_read_gva(g.shadow, 0, GVA, text, 4, 0, &fault), -ENXIO);
	expect_eq(fault.hva, INVALID_HVA);
	/* Looked at first, before there is anything to read. */
	expect_eq(shadow_read_gva(g.shadow, 0, GVA, text, 0, 0, NULL), -ENXIO);
	expect_eq(shadow_read_gpa(g.shadow, 0x5000, text, 4), -ENXIO);
	expect_eq(shadow_write_gpa(g.shadow, 0x5000, text, 4), -ENXIO);
	guest_mem_destroy(&g);
}

/* Other errors of the mm than that there is nothing are told as they are. */
TEST(access, without_a_frame)
{
	const struct guest_mem_config small = {.nr_frames = 128};
	static struct hoard hoard;
	struct guest_mem g;
	uint64_t word = 0;

	guest_mem_create(&g, &small);
	hoard_frames(&hoard, g.phys);
	expect_eq(shadow_read_gpa(g.shadow, 0x5000, &word, sizeof(word)), -ENOMEM);
	expect_eq(shadow_write_gpa(g.shadow, 0x5000, &word, sizeof(word)), -ENOMEM);
	hoard_release(&hoard);
	expect_eq(shadow_read_gpa(g.shadow, 0x5000, &word, sizeof(word)), 0);
	guest_mem_destroy(&g);
}
