/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory operands: nothing is done before all is known, and what is done is done at once.
 */
#include <errno.h>
#include <string.h>

#include "shadow/shadow_internal.h"
#include "tests/model/guest_mem.h"
#include "tests/support/hoard.h"
#include "tests/support/test.h"

#define GVA    0x10000000UL
#define SECOND (GVA + PAGE_SIZE)
#define GPA_A  0x5000UL
#define GPA_B  0x2000UL /* below the other: what follows by gva does not by gpa */

#define ELSEWHERE 0x500000000000UL /* an hva with nothing near */

#define PTE_MARKS (GUEST_PTE_A | GUEST_PTE_D)

static const struct guest_mem_config config = {.audit = true};

static void fixture(struct guest_mem *g)
{
	guest_mem_create(g, &config);
	guest_map(g, g->cr3, GVA, GPA_A, GUEST_PTE_RW);
	guest_map(g, g->cr3, SECOND, GPA_B, GUEST_PTE_RW);
	guest_write(g, GPA_A + PAGE_SIZE - 8, 0x8877665544332211);
	guest_write(g, GPA_B, 0xffeeddccbbaa9988);
}

static uint64_t marks(struct guest_mem *g, gva_t gva)
{
	return guest_read(g, guest_pte_gpa(g, g->cr3, gva, 1)) & PTE_MARKS;
}

static int get(struct guest_mem *g, gva_t gva, unsigned int len, uint32_t access,
	       struct shadow_operand *operand)
{
	struct shadow_fault fault;

	return shadow_operand_get(g->shadow, 0, gva, len, access, operand, &fault);
}

TEST(operand, every_length_and_place)
{
	uint8_t expected[16], found[16];
	struct shadow_operand operand;
	struct guest_mem g;

	fixture(&g);
	for (unsigned int len = 1; len <= 8; len++) {
		for (unsigned int at = 0; at + len <= sizeof(expected); at++) {
			gva_t gva = SECOND - 8 + at;
			uint64_t value = 0, change = 0x0123456789abcdef * (len + at);

			expect_eq(shadow_read_gva(g.shadow, 0, SECOND - 8, expected, 16, 0, NULL),
				  0);
			memcpy(&value, expected + at, len);
			expect_eq(get(&g, gva, len, PFERR_WRITE, &operand), 0);
			expect_eq(operand.nr_parts, at < 8 && at + len > 8 ? 2 : 1);
			expect_eq(shadow_operand_in_word(&operand), at % 8 + len <= 8);
			expect_eq(shadow_operand_read(g.shadow, &operand), value);
			expect_eq(shadow_operand_write(g.shadow, &operand, change), 0);
			shadow_operand_put(g.shadow, &operand);

			memcpy(expected + at, &change, len);
			expect_eq(shadow_read_gva(g.shadow, 0, SECOND - 8, found, 16, 0, NULL), 0);
			expect_eq(memcmp(expected, found, sizeof(found)), 0);
		}
	}
	guest_mem_destroy(&g);
}

TEST(operand, marks_what_the_access_marks)
{
	struct shadow_operand operand;
	struct guest_mem g;

	fixture(&g);
	expect_eq(get(&g, SECOND - 4, 8, 0, &operand), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(marks(&g, GVA), GUEST_PTE_A);
	expect_eq(marks(&g, SECOND), GUEST_PTE_A);
	expect_eq(get(&g, SECOND - 4, 4, PFERR_WRITE, &operand), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(marks(&g, GVA), PTE_MARKS);
	expect_eq(marks(&g, SECOND), GUEST_PTE_A);
	guest_mem_destroy(&g);
}

/* Fails with @error, of @gva: the guest sees no bit set, and no frame stays pinned. */
static void expect_nothing(struct guest_mem *g, int error, gva_t gva, struct shadow_fault *fault)
{
	struct shadow_operand operand;

	expect_eq(shadow_operand_get(g->shadow, 0, SECOND - 4, 8, PFERR_WRITE, &operand, fault),
		  error);
	expect_eq(fault->gva, gva);
	expect_eq(mm_migrate_range(g->mm, guest_hva(GPA_A), PAGE_SIZE), 1);
}

TEST(operand, second_page_faults)
{
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	guest_map(&g, g.cr3, SECOND, GPA_B, GUEST_PTE_P);
	expect_nothing(&g, -EFAULT, SECOND, &fault);
	expect_eq(fault.error_code, PFERR_PRESENT | PFERR_WRITE);
	expect_eq(marks(&g, GVA), 0);
	expect_eq(marks(&g, SECOND), 0);

	guest_map(&g, g.cr3, SECOND, 0, 0);
	expect_nothing(&g, -EFAULT, SECOND, &fault);
	expect_eq(fault.error_code, PFERR_WRITE);
	/* Both are bad: the first is told. */
	guest_map(&g, g.cr3, GVA, GPA_A, GUEST_PTE_P);
	expect_nothing(&g, -EFAULT, SECOND - 4, &fault);
	guest_mem_destroy(&g);
}

TEST(operand, second_page_is_no_memory)
{
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	guest_map(&g, g.cr3, SECOND, 0x7000000000, GUEST_PTE_RW);
	expect_nothing(&g, -ENXIO, SECOND, &fault);
	expect_eq(fault.hva, INVALID_HVA);
	expect_eq(fault.gpa, 0x7000000000);
	guest_mem_destroy(&g);
}

/* It can be read, and a store is for a device. */
TEST(operand, second_page_is_rom)
{
	const struct memslot_region rom = {.id = 1,
					   .flags = MEMSLOT_READONLY,
					   .base_gfn = 0x100000,
					   .npages = 1,
					   .hva = guest_hva(GPA_B)};
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_set_memslot(g.shadow, &rom), 0);
	guest_map(&g, g.cr3, SECOND, rom.base_gfn << PAGE_SHIFT, GUEST_PTE_RW);
	expect_nothing(&g, -ENXIO, SECOND, &fault);
	expect_eq(fault.hva, INVALID_HVA);
	expect_eq(fault.gpa, rom.base_gfn << PAGE_SHIFT);
	expect_eq(get(&g, SECOND, 8, 0, &operand), 0);
	expect_eq(shadow_operand_read(g.shadow, &operand), 0xffeeddccbbaa9988);
	shadow_operand_put(g.shadow, &operand);
	guest_mem_destroy(&g);
}

TEST(operand, second_page_is_refused_by_the_host)
{
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	expect_eq(mm_mprotect(g.mm, guest_hva(GPA_B), PAGE_SIZE, MM_PROT_READ), 0);
	expect_nothing(&g, -ENXIO, SECOND, &fault);
	expect_eq(fault.hva, guest_hva(GPA_B));
	/* Both are: the first is told. */
	expect_eq(mm_mprotect(g.mm, guest_hva(GPA_A), PAGE_SIZE, MM_PROT_READ), 0);
	expect_nothing(&g, -ENXIO, SECOND - 4, &fault);
	expect_eq(fault.hva, guest_hva(GPA_A) + PAGE_SIZE - 4);
	guest_mem_destroy(&g);
}

TEST(operand, a_table_is_refused_by_the_host)
{
	struct shadow_fault fault;
	struct guest_mem g;
	hva_t table;

	fixture(&g);
	table = guest_hva(guest_pte_gpa(&g, g.cr3, SECOND, 1) & PAGE_MASK);
	expect_eq(mm_munmap(g.mm, table, PAGE_SIZE), 0);
	expect_nothing(&g, -ENXIO, SECOND - 4, &fault);
	expect_eq(fault.hva & PAGE_MASK, table);
	guest_mem_destroy(&g);
}

TEST(operand, the_address_space_is_gone)
{
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;

	fixture(&g);
	mmput(g.mm);
	memset(&fault, 0x5a, sizeof(fault));
	expect_eq(shadow_operand_get(g.shadow, 0, GVA, 8, 0, &operand, &fault), -ENXIO);
	expect_eq(fault.gva, GVA);
	expect_eq(fault.hva, INVALID_HVA);
	g.mm = NULL;
	guest_mem_destroy(&g);
}

TEST(operand, no_frame_for_the_second_page)
{
	struct shadow_operand operand;
	struct shadow_fault fault;
	static struct hoard hoard;
	struct guest_mem g;

	fixture(&g);
	/* A page that was never touched. */
	guest_map(&g, g.cr3, SECOND, 0x9000, GUEST_PTE_RW);
	hoard_frames(&hoard, g.phys);
	expect_eq(shadow_operand_get(g.shadow, 0, SECOND - 4, 8, PFERR_WRITE, &operand, &fault),
		  -ENOMEM);
	hoard_release(&hoard);
	expect_eq(fault.gva, SECOND);
	expect_eq(mm_migrate_range(g.mm, guest_hva(GPA_A), PAGE_SIZE), 1);
	guest_mem_destroy(&g);
}

TEST(operand, the_machines_own_addresses)
{
	static const struct guest_mem_config with_monitor = {.audit = true, .reserve_slot = 7};
	gva_t monitor = 7UL << 39;
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &with_monitor);
	guest_map(&g, g.cr3, monitor - PAGE_SIZE, GPA_A, GUEST_PTE_RW);
	guest_map(&g, g.cr3, monitor, GPA_B, GUEST_PTE_RW);
	expect_eq(get(&g, monitor - 4, 4, PFERR_WRITE, &operand), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(shadow_operand_get(g.shadow, 0, monitor - 4, 8, 0, &operand, &fault), -EACCES);
	expect_eq(fault.gva, monitor);
	expect_eq(shadow_operand_get(g.shadow, 0, monitor, 1, 0, &operand, &fault), -EACCES);
	guest_mem_destroy(&g);
}

/* A CPU would fault, and so does who acts for one. */
TEST(operand, out_of_reach)
{
	const struct guest_mem_config reaching = {.audit = true, .gva_end = SECOND};
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &reaching);
	guest_write(&g, GPA_A, 1);
	guest_map(&g, g.cr3, GVA, GPA_A, GUEST_PTE_RW);
	guest_map(&g, g.cr3, SECOND, GPA_B, GUEST_PTE_RW);
	expect_nothing(&g, -EFAULT, SECOND, &fault);
	expect_eq(fault.error_code, PFERR_WRITE);
	expect_eq(marks(&g, GVA), 0);
	expect_eq(get(&g, SECOND, 1, 0, &operand), -EFAULT);
	expect_eq(get(&g, SECOND - 4, 4, PFERR_WRITE, &operand), 0);
	shadow_operand_put(g.shadow, &operand);
	guest_mem_destroy(&g);
}

/* Store by way of an operand that was got before the host took its memory: nothing comes of it. */
static void expect_too_late(struct guest_mem *g, struct shadow_operand *operand)
{
	uint64_t old = shadow_operand_read(g->shadow, operand);

	expect_eq(shadow_operand_write(g->shadow, operand, 4711), -EAGAIN);
	expect_eq(shadow_operand_cmpxchg(g->shadow, operand, &old, 4711), -EAGAIN);
	expect_eq(shadow_operand_read(g->shadow, operand), old);
	shadow_operand_put(g->shadow, operand);
}

/* Until it is put the frame stays, and what is read is what was there; a store comes too late. */
TEST(operand, stays_where_it_is)
{
	struct shadow_operand operand;
	struct guest_mem g;

	fixture(&g);
	guest_write(&g, GPA_A + 0x100, 4712);
	expect_eq(get(&g, GVA + 0x100, 8, PFERR_WRITE, &operand), 0);
	expect_eq(mm_migrate_range(g.mm, guest_hva(GPA_A), PAGE_SIZE), 0);
	expect_eq(mm_zap_range(g.mm, guest_hva(GPA_A), PAGE_SIZE), 1);
	expect_eq(shadow_operand_read(g.shadow, &operand), 4712);
	expect_too_late(&g, &operand);
	expect_eq(guest_read(&g, GPA_A + 0x100), 4712);
	expect_eq(mm_migrate_range(g.mm, guest_hva(GPA_A), PAGE_SIZE), 1);
	guest_mem_destroy(&g);
}

TEST(operand, compare_and_exchange)
{
	struct guest_mem g;

	fixture(&g);
	for (unsigned int len = 1; len <= 8; len++) {
		for (unsigned int at = 0; at + len <= 8; at++) {
			uint64_t mask = ~0UL >> (64 - len * 8);
			uint64_t before = 0x8877665544332211, old = 1;
			struct shadow_operand operand;

			guest_write(&g, GPA_A + 0x200, before);
			expect_eq(get(&g, GVA + 0x200 + at, len, PFERR_WRITE, &operand), 0);
			expect_eq(shadow_operand_cmpxchg(g.shadow, &operand, &old, 0), 1);
			expect_eq(old, before >> at * 8 & mask);
			expect_eq(guest_read(&g, GPA_A + 0x200), before);
			expect_eq(shadow_operand_cmpxchg(g.shadow, &operand, &old, ~old), 0);
			expect_eq(guest_read(&g, GPA_A + 0x200), before ^ mask << at * 8);
			shadow_operand_put(g.shadow, &operand);
		}
	}
	guest_mem_destroy(&g);
}

/* What others do between the look and the exchange: @at bytes from the word's beginning. */
struct meanwhile {
	struct guest_mem *g;
	unsigned int at;
	uint8_t byte;
	bool done;
};

static void write_once(void *arg)
{
	struct meanwhile *m = arg;

	if (!m->done)
		expect_eq(mm_write(m->g->mm, guest_hva(GPA_A + m->at), &m->byte, 1), 0);
	m->done = true;
}

TEST(operand, others_write_meanwhile)
{
	struct guest_mem g;

	fixture(&g);
	for (unsigned int at = 0; at < 8; at++) {
		struct meanwhile m = {.g = &g, .at = at, .byte = 0xee};
		struct shadow_operand operand;
		uint64_t old = 0x4433;
		bool swapped;

		guest_write(&g, GPA_A, 0x8877665544332211);
		expect_eq(get(&g, GVA + 2, 2, PFERR_WRITE, &operand), 0);
		shadow_set_hook(g.shadow, SHADOW_HOOK_OPERAND_BEFORE_SWAP, write_once, &m);
		swapped = !shadow_operand_cmpxchg(g.shadow, &operand, &old, 0xffff);
		shadow_set_hook(g.shadow, SHADOW_HOOK_OPERAND_BEFORE_SWAP, NULL, NULL);

		expect(m.done);
		expect_eq(swapped, at != 2 && at != 3);
		expect_eq(guest_read(&g, GPA_A) >> at * 8 & 0xff, 0xee);
		expect_eq(shadow_operand_read(g.shadow, &operand), swapped ? 0xffff : old);
		shadow_operand_put(g.shadow, &operand);
	}
	guest_mem_destroy(&g);
}

/* The ladder of rule 3. Without taken_away() the store is found at the other address. */
TEST(operand, the_page_is_moved_away)
{
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;
	uint64_t word = 0;
	hva_t hva = guest_hva(GPA_A), away = ELSEWHERE;

	fixture(&g);
	guest_write(&g, GPA_A, 11);
	expect_eq(get(&g, GVA, 8, PFERR_WRITE, &operand), 0);
	expect_eq(mm_mremap(g.mm, hva, PAGE_SIZE, PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &away),
		  0);
	expect_too_late(&g, &operand);
	expect_eq(mm_read(g.mm, away, &word, sizeof(word)), 0);
	expect_eq(word, 11);
	/* And anew: there is nothing. */
	expect_eq(shadow_operand_get(g.shadow, 0, GVA, 8, PFERR_WRITE, &operand, &fault), -ENXIO);
	expect_eq(fault.hva, hva);
	expect_eq(mm_mremap(g.mm, away, PAGE_SIZE, PAGE_SIZE, MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED,
			    &hva),
		  0);
	expect_eq(get(&g, GVA, 8, PFERR_WRITE, &operand), 0);
	expect_eq(shadow_operand_write(g.shadow, &operand, 4711), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(guest_read(&g, GPA_A), 4711);
	guest_mem_destroy(&g);
}

/* A window that is open is enough; and the second of two pages. */
TEST(operand, within_a_window)
{
	struct mmu_notifier_range range;
	struct shadow_operand operand;
	struct guest_mem g;

	fixture(&g);
	expect_eq(get(&g, SECOND - 4, 8, PFERR_WRITE, &operand), 0);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, g.mm, guest_hva(GPA_B),
				guest_hva(GPA_B) + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	expect_eq(shadow_operand_write(g.shadow, &operand, 4711), -EAGAIN);
	mmu_notifier_invalidate_range_end(&range);
	expect_eq(shadow_operand_write(g.shadow, &operand, 4711), -EAGAIN);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(guest_read(&g, GPA_B), 0xffeeddccbbaa9988);
	guest_mem_destroy(&g);
}
