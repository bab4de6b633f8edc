/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fault path: each of its answers, and the rights of what it installs.
 */
#include <errno.h>

#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/hoard.h"
#include "tests/support/test.h"

#define PAGE 0x3000UL

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

static enum ret_pf fault_at(struct guest_mem *g, gva_t gva, uint32_t access)
{
	struct shadow_fault fault;

	return guest_fault(g, 0, gva, access, &fault);
}

static uint64_t shadow_stat_faults(struct guest_mem *g)
{
	struct shadow_stats stats;

	shadow_get_stats(g->shadow, &stats);
	return stats.faults;
}

TEST(fault, fixed_then_spurious)
{
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(guest_fault(&g, 0, PAGE + 0x123, PFERR_WRITE, &fault), RET_PF_FIXED);
	expect_eq(fault.gpa, PAGE + 0x123);
	expect_eq(stats_of(&g).fault_spurious, 0);
	expect_eq(fault_at(&g, PAGE, PFERR_WRITE), RET_PF_SPURIOUS);
	expect_eq(fault_at(&g, PAGE, 0), RET_PF_SPURIOUS);
	expect_eq(fault_at(&g, PAGE, PFERR_FETCH), RET_PF_SPURIOUS);
	/* The other CPU runs on the same tables. */
	fault.hva = PAGE;
	expect_eq(guest_fault(&g, 1, PAGE, 0, &fault), RET_PF_SPURIOUS);
	expect_eq(fault.hva, INVALID_HVA);
	expect_eq(stats_of(&g).fault_spurious, 4);
	expect_eq(shadow_stat_faults(&g), 5);
	guest_mem_destroy(&g);
}

/*
 * R-12, CVE-2026-23401: the host rewrites a shadowed entry of the guest's, with no word, from a
 * page of a slot to where no memory is. There is no leaf for what is no memory, so the fault that
 * finds out makes nothing; the one that finds a page there again must take the old leaf out of the
 * rmap of its page first. If it does not, the slot goes and its rmap with it, and names an entry
 * that maps a page of another: without any audit, that ends in a BUG or in freed memory.
 */
TEST(fault, becomes_a_device_behind_our_back)
{
	const gva_t gva = 0x10000000;
	const hva_t hva = 0x6000000000;
	const struct memslot_region gone = {.id = 1};
	const uint64_t nowhere = 0x7000000000, word = 17;
	struct guest_mem g;
	gpa_t pte;

	for (enum shadow_zap_policy policy = SHADOW_ZAP_ALL; policy <= SHADOW_ZAP_SLOT; policy++) {
		guest_mem_create(&g, &config);
		shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
		shadow_set_zap_policy(g.shadow, policy);
		expect_eq(mm_mmap(g.mm, hva, PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE, NULL, 0), 0);
		expect_eq(mm_write(g.mm, hva, &word, sizeof(word)), 0);
		expect_eq(shadow_create_memslot(g.shadow, 1, 0x1000, 1, hva), 0);
		guest_write(&g, PAGE, 3);
		guest_map(&g, g.cr3, gva, 0x1000UL << PAGE_SHIFT, GUEST_PTE_RW);
		pte = guest_pte_gpa(&g, g.cr3, gva, 1);
		expect_eq(guest_load(&g, 0, gva), word);

		guest_write(&g, pte, nowhere | GUEST_PTE_RW);
		expect_eq(guest_try(&g, 0, MODEL_STORE, gva, NULL), RET_PF_EMULATE);
		guest_write(&g, pte, PAGE | GUEST_PTE_RW);
		guest_store(&g, 0, gva, 4);
		expect_eq(guest_read(&g, PAGE), 4);

		expect_eq(mm_migrate_range(g.mm, hva, PAGE_SIZE), 1);
		expect_eq(guest_load(&g, 0, gva), 4);
		expect_eq(shadow_set_memslot(g.shadow, &gone), 0);
		expect_eq(guest_load(&g, 0, gva), 4);
		expect_eq(mm_migrate_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
		expect_eq(guest_load(&g, 0, gva), 4);

		/* And what the guest flushes is a device, at once. */
		guest_write(&g, pte, nowhere | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
		shadow_invlpg(g.shadow, 0, gva);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, gva, NULL), RET_PF_EMULATE);
		expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
		destroy(&g);
	}
}

/*
 * The entry names another page of the guest's, which is the same memory, and a store finds less
 * than it needs: the leaf is none of that page until it has gone and come back. Else it outlives
 * its slot.
 */
TEST(fault, gains_no_right_as_a_leaf_of_another_page)
{
	const gva_t gva = 0x10000000;
	const gfn_t alias = 0x100000;
	const struct memslot_region gone = {.id = 1};
	struct guest_mem g;

	guest_mem_create(&g, &config);
	shadow_set_audit(g.shadow, SHADOW_AUDIT_OFF);
	shadow_set_zap_policy(g.shadow, SHADOW_ZAP_SLOT);
	expect_eq(shadow_create_memslot(g.shadow, 1, alias, g.nr_pages, GUEST_MEM_HVA), 0);
	guest_write(&g, PAGE, 3);
	guest_map(&g, g.cr3, gva, PAGE, GUEST_PTE_RW);
	expect_eq(guest_load(&g, 0, gva), 3); /* clean, so without the right to store */
	guest_write(&g, guest_pte_gpa(&g, g.cr3, gva, 1),
		    (alias << PAGE_SHIFT) + PAGE + GUEST_PTE_RW);
	guest_store(&g, 0, gva, 4);
	expect_eq(guest_read(&g, PAGE), 4);
	expect_eq(shadow_set_memslot(g.shadow, &gone), 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, gva, NULL), RET_PF_EMULATE);
	expect_eq(shadow_audit(g.shadow, NULL, 0), 0);
	destroy(&g);
}

/* One fault for each page, and none afterwards. */
TEST(fault, counts_are_exact)
{
	struct shadow_stats stats;
	struct model_stats model;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (int round = 0; round < 3; round++) {
		for (gva_t gva = 0; gva < 16 * PAGE_SIZE; gva += PAGE_SIZE)
			guest_store(&g, 0, gva, gva);
	}
	shadow_get_stats(g.shadow, &stats);
	expect_eq(stats.faults, 16);
	expect_eq(stats.fault_retries, 0);
	expect_eq(stats.refaults, 0);
	model_get_stats(g.model, &model);
	expect_eq(model.faults, 16);
	expect_eq(model.hits, 32);
	guest_mem_destroy(&g);
}

/* A read maps a clean page without the right to store; the store gains it, with no shootdown. */
TEST(fault, rights_are_gained_in_place)
{
	struct shadow_stats stats;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(fault_at(&g, PAGE, 0), RET_PF_FIXED);
	expect_eq(guest_load(&g, 0, PAGE), 0);
	expect_eq(model_store(g.model, 0, PAGE, 1), -EFAULT);
	expect_eq(fault_at(&g, PAGE, PFERR_WRITE), RET_PF_FIXED);
	expect_eq(model_store(g.model, 0, PAGE, 1), 0);
	shadow_get_stats(g.shadow, &stats);
	expect_eq(stats.shootdowns, 0);
	expect_eq(stats.sptes_zapped, 0);
	guest_mem_destroy(&g);
}

/* One right for another: the CPUs are told, though none of them but the guest's need be. */
TEST(fault, rights_are_not_lost_in_place)
{
	const gva_t gva = 1UL << 30;
	struct guest_mem g;
	gpa_t pte;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, gva, PAGE, GUEST_PTE_P);
	pte = guest_pte_gpa(&g, g.cr3, gva, 1);
	expect_eq(guest_try(&g, 1, MODEL_FETCH, gva, NULL), RET_PF_FIXED);
	guest_write(&g, pte, PAGE | GUEST_PTE_RW | GUEST_PTE_NX);
	expect_eq(guest_try(&g, 0, MODEL_STORE, gva, NULL), RET_PF_FIXED);
	expect_eq(stats_of(&g).sptes_zapped, 1);
	expect_eq(guest_try(&g, 1, MODEL_FETCH, gva, NULL), RET_PF_GUEST);
	guest_mem_destroy(&g);
}

static void map_on_cpu1(void *arg)
{
	struct guest_mem *g = arg;

	shadow_set_hook(g->shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, NULL, NULL);
	guest_store(g, 1, PAGE, 1);
}

/* Two CPUs fault on a page, and one has mmu_lock first: for the other there is nothing to do. */
TEST(fault, another_cpu_was_first)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_store(&g, 0, PAGE + PAGE_SIZE, 1); /* a root, and the tables */
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, map_on_cpu1, &g);
	expect_eq(fault_at(&g, PAGE, PFERR_WRITE), RET_PF_SPURIOUS);
	expect_eq(guest_load(&g, 0, PAGE), 1);
	guest_mem_destroy(&g);
}

/* A page that comes back after the host took it, and is then mapped for other reasons. */
TEST(fault, a_refault_is_counted_once)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_store(&g, 0, PAGE, 1);
	expect_eq(mm_zap_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	for (int round = 0; round < 2; round++) {
		expect_eq(guest_load(&g, 0, PAGE), 1);
		expect_eq(stats_of(&g).refaults, 1);
		guest_reload_afresh(&g, 0);
	}
	guest_mem_destroy(&g);
}

TEST(fault, emulate_where_no_slot_is)
{
	const gpa_t device = 0xfee00000;
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, 0x10000000, device, GUEST_PTE_RW);
	expect_eq(guest_fault(&g, 0, 0x10000020, PFERR_WRITE, &fault), RET_PF_EMULATE);
	expect_eq(fault.gpa, device + 0x20);
	guest_mem_destroy(&g);
}

TEST(fault, bad_hva)
{
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	/* A slot over host memory that nobody mapped. */
	expect_eq(shadow_create_memslot(g.shadow, 1, 0x100000, 1, 0x6000000000), 0);
	guest_map(&g, g.cr3, 0x10000000, 0x100000UL << PAGE_SHIFT, GUEST_PTE_RW);
	expect_eq(guest_fault(&g, 0, 0x10000000, 0, &fault), RET_PF_BAD_HVA);
	expect_eq(fault.hva, 0x6000000000);
	/* And one over memory that the guest may only read. */
	expect_eq(mm_mmap(g.mm, 0x6000000000, PAGE_SIZE, MM_PROT_READ, NULL, 0), 0);
	expect_eq(fault_at(&g, 0x10000000, PFERR_WRITE), RET_PF_BAD_HVA);
	expect_eq(guest_load(&g, 0, 0x10000000), 0);
	expect_eq(guest_fault(&g, 0, 0x10000000, PFERR_WRITE, &fault), RET_PF_BAD_HVA);
	expect_eq(fault.hva, 0x6000000000);
	/* What is not refused has no such address. */
	expect_eq(guest_fault(&g, 0, PAGE, 0, &fault), RET_PF_FIXED);
	expect_eq(fault.hva, INVALID_HVA);
	guest_mem_destroy(&g);
}

/* The guest's tables may lie in a slot without memory too. */
TEST(fault, bad_hva_of_a_table)
{
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	expect_eq(shadow_create_memslot(g.shadow, 1, 0x100000, 1, 0x6000000000), 0);
	guest_write(&g, guest_pte_gpa(&g, g.cr3, 0x10000000, 2),
		    0x100000UL << PAGE_SHIFT | GUEST_PTE_RW);
	expect_eq(guest_fault(&g, 0, 0x10000000, 0, &fault), RET_PF_BAD_HVA);
	expect_eq(fault.hva, 0x6000000000);
	guest_mem_destroy(&g);
}

/* A table that may only be read stops the walk where it has to set an accessed bit. */
TEST(fault, table_that_cannot_be_written)
{
	struct shadow_fault fault;
	struct guest_mem g;
	hva_t table;
	gpa_t pte;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, 0x10000000, PAGE, GUEST_PTE_RW);
	pte = guest_pte_gpa(&g, g.cr3, 0x10000000, 1);
	table = guest_hva(pte & PAGE_MASK);
	expect_eq(mm_mprotect(g.mm, table, PAGE_SIZE, MM_PROT_READ), 0);
	expect_eq(guest_fault(&g, 0, 0x10000000, 0, &fault), RET_PF_BAD_HVA);
	expect_eq(fault.hva, guest_hva(pte));
	expect_eq(mm_mprotect(g.mm, table, PAGE_SIZE, MM_PROT_READ | MM_PROT_WRITE), 0);
	expect_eq(guest_fault(&g, 0, 0x10000000, 0, &fault), RET_PF_FIXED);
	/* With all bits set there is nothing to write. */
	expect_eq(mm_mprotect(g.mm, table, PAGE_SIZE, MM_PROT_READ), 0);
	expect_eq(guest_fault(&g, 0, 0x10000000, 0, &fault), RET_PF_SPURIOUS);
	guest_mem_destroy(&g);
}

/* ---- what other owners of memory do to a page that is mapped ---- */

static const struct guest_mem_config private_ram = {.audit = true, .private_ram = true};

static uint64_t read_child(struct mm_struct *child, gpa_t gpa)
{
	uint64_t value = 0;

	expect_eq(mm_read(child, guest_hva(gpa), &value, sizeof(value)), 0);
	return value;
}

/* The guest's store after a fork goes to a copy; the child has what was there, and keeps it. */
TEST(fault, store_after_a_fork_is_the_guests_alone)
{
	struct shadow_stats before, after;
	struct mm_struct *child;
	struct guest_mem g;
	pfn_t shared;

	guest_mem_create(&g, &private_ram);
	guest_store(&g, 0, PAGE, 1);
	guest_store(&g, 0, PAGE + PAGE_SIZE, 10);
	shared = mm_lookup_pfn(g.mm, guest_hva(PAGE));
	expect_eq(mm_fork(g.mm, &child), 0);
	/* To read is free. */
	expect_eq(guest_load(&g, 0, PAGE), 1);
	expect_eq(mm_lookup_pfn(g.mm, guest_hva(PAGE)), shared);

	shadow_get_stats(g.shadow, &before);
	guest_store(&g, 0, PAGE, 2);
	shadow_get_stats(g.shadow, &after);
	expect_ne(mm_lookup_pfn(g.mm, guest_hva(PAGE)), shared);
	/* The fault that copied told ourselves, and so was in vain; the next one installed it. */
	expect_eq(after.invalidations - before.invalidations, 1);
	expect_eq(after.faults - before.faults, 2);
	expect_eq(after.fault_retries - before.fault_retries, 1);
	expect_eq(read_child(child, PAGE), 1);
	expect_eq(guest_load(&g, 0, PAGE), 2);

	/* The other way round; and the page that nobody else has any more is written in place. */
	expect_eq(mm_write(child, guest_hva(PAGE + PAGE_SIZE), &(uint64_t){11}, 8), 0);
	expect_eq(guest_load(&g, 0, PAGE + PAGE_SIZE), 10);
	shared = mm_lookup_pfn(g.mm, guest_hva(PAGE + PAGE_SIZE));
	guest_store(&g, 0, PAGE + PAGE_SIZE, 12);
	expect_eq(mm_lookup_pfn(g.mm, guest_hva(PAGE + PAGE_SIZE)), shared);
	expect_eq(read_child(child, PAGE + PAGE_SIZE), 11);
	mmput(child);
	guest_mem_destroy(&g);
}

/* A right that goes is gone from the shadow tables too; one that comes back is found by a fault. */
TEST(fault, follows_the_rights_of_the_area)
{
	const uint64_t all = 64 << PAGE_SHIFT;
	struct guest_mem g;

	guest_mem_create(&g, &private_ram);
	guest_store(&g, 0, PAGE, 1);
	expect_eq(mm_mprotect(g.mm, guest_hva(PAGE), PAGE_SIZE, MM_PROT_READ), 0);
	expect_eq(guest_load(&g, 0, PAGE), 1);
	expect_eq(guest_try(&g, 0, MODEL_STORE, PAGE, NULL), RET_PF_BAD_HVA);
	expect_eq(guest_load(&g, 0, PAGE), 1);
	expect_eq(mm_mprotect(g.mm, guest_hva(PAGE), PAGE_SIZE, MM_PROT_NONE), 0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, PAGE, NULL), RET_PF_BAD_HVA);
	expect_eq(mm_mprotect(g.mm, guest_hva(0), all, MM_PROT_READ | MM_PROT_WRITE), 0);
	guest_store(&g, 0, PAGE, 2);
	expect_eq(guest_load(&g, 0, PAGE), 2);
	guest_mem_destroy(&g);
}

TEST(fault, follows_a_page_that_moves_away_and_back)
{
	const hva_t elsewhere = 0x7000000000;
	struct guest_mem g;
	hva_t to;

	guest_mem_create(&g, &private_ram);
	guest_store(&g, 0, PAGE, 1);
	to = elsewhere;
	expect_eq(mm_mremap(g.mm, guest_hva(PAGE), PAGE_SIZE, PAGE_SIZE,
			    MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to),
		  0);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, PAGE, NULL), RET_PF_BAD_HVA);
	expect_eq(mm_write(g.mm, elsewhere, &(uint64_t){2}, 8), 0);
	to = guest_hva(PAGE);
	expect_eq(mm_mremap(g.mm, elsewhere, PAGE_SIZE, PAGE_SIZE,
			    MM_MREMAP_MAYMOVE | MM_MREMAP_FIXED, &to),
		  0);
	expect_eq(guest_load(&g, 0, PAGE), 2);
	guest_store(&g, 0, PAGE, 3);
	guest_mem_destroy(&g);
}

/* The machine's own part of the address space: the guest may map it in its tables, and gets
 * nowhere. */
TEST(fault, reserved_slot)
{
	const unsigned int slot = 255;
	const gva_t gva = (gva_t)slot << 39;
	struct guest_mem_config reserving = {.audit = true, .reserve_slot = slot};
	struct guest_mem g;

	guest_mem_create(&g, &reserving);
	guest_map(&g, g.cr3, gva, PAGE, GUEST_PTE_RW);
	for (int i = 0; i < 2; i++) {
		expect_eq(fault_at(&g, gva, 0), RET_PF_RESERVED);
		expect_eq(fault_at(&g, gva + (1UL << 39) - 8, PFERR_WRITE), RET_PF_RESERVED);
		expect_eq(fault_at(&g, gva - PAGE_SIZE, 0), RET_PF_GUEST);
		shadow_invlpg(g.shadow, 0, gva);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, gva, NULL), RET_PF_RESERVED);
		/* The entry outlives whatever the guest does with the root. */
		expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
	}
	expect_eq(guest_load(&g, 0, PAGE), 0);
	guest_mem_destroy(&g);
}

/* The guest's tables may say what they like: no entry would help a CPU, and none is made. */
TEST(fault, out_of_reach)
{
	const gva_t first = 0x4000, end = 0x10001000;
	const struct guest_mem_config reaching = {.audit = true,
						  .gva_first = first,
						  .gva_end = end};
	static const gva_t out[] = {0, first - PAGE_SIZE, first - 8, end, -PAGE_SIZE};
	static const uint32_t access[] = {0, PFERR_WRITE, PFERR_FETCH};
	struct shadow_fault fault;
	struct guest_mem g;

	guest_mem_create(&g, &reaching);
	guest_map(&g, g.cr3, end - PAGE_SIZE, PAGE, GUEST_PTE_RW);
	guest_map(&g, g.cr3, end, PAGE, GUEST_PTE_RW);
	guest_map(&g, g.cr3, -PAGE_SIZE, PAGE, GUEST_PTE_RW);
	for (unsigned int i = 0; i < ARRAY_SIZE(out); i++) {
		for (unsigned int j = 0; j < ARRAY_SIZE(access); j++) {
			expect_eq(guest_fault(&g, 0, out[i], access[j], &fault), RET_PF_GUEST);
			expect_eq(fault.error_code, access[j]);
		}
		expect_eq(guest_try(&g, 0, MODEL_STORE, out[i] & ~7UL, NULL), RET_PF_GUEST);
		expect_eq(guest_read(&g, guest_pte_gpa(&g, g.cr3, out[i], 1)) & GUEST_PTE_A, 0);
	}
	expect_eq(g.shadow->nr_pages, 1); /* the root */
	guest_store(&g, 0, first, 1);
	guest_store(&g, 0, end - 8, 2);
	expect_eq(guest_read(&g, PAGE_SIZE + PAGE - 8), 2);
	destroy(&g);
}

TEST(fault, no_memory)
{
	struct guest_mem g;
	static struct hoard hoard;

	guest_mem_create(&g, &config);
	expect_eq(fault_at(&g, PAGE, 0), RET_PF_FIXED);
	hoard_frames(&hoard, g.phys);
	/* No table frame, or no page: the same answer, and nothing is lost. */
	expect_eq(fault_at(&g, PAGE + PAGE_SIZE, 0), RET_PF_NO_MEMORY);
	expect_eq(fault_at(&g, PAGE + PAGE_SIZE, PFERR_WRITE), RET_PF_NO_MEMORY);
	hoard_release(&hoard);
	expect_eq(fault_at(&g, PAGE + PAGE_SIZE, PFERR_WRITE), RET_PF_FIXED);
	guest_mem_destroy(&g);
}

TEST(fault, guest_forbids)
{
	uint32_t code;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, PAGE, PAGE, GUEST_PTE_P | GUEST_PTE_NX);
	expect_eq(guest_load(&g, 0, PAGE), 0);
	expect_eq(guest_try(&g, 0, MODEL_STORE, PAGE, &code), RET_PF_GUEST);
	expect_eq(code, PFERR_PRESENT | PFERR_WRITE);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, PAGE, &code), RET_PF_GUEST);
	expect_eq(code, PFERR_PRESENT | PFERR_FETCH);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, 0x7000000000, &code), RET_PF_GUEST);
	expect_eq(code, 0);

	/* The guest gives the rights: no INVLPG is needed to gain. */
	guest_map(&g, g.cr3, PAGE, PAGE, GUEST_PTE_RW);
	guest_store(&g, 0, PAGE, 9);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_FIXED);
	guest_mem_destroy(&g);
}

/*
 * One guest table reached through two directories with different rights (kvm-unit-tests' access.c
 * has it as a regression): what one view may, the other must not.
 */
TEST(fault, shared_table_with_different_rights)
{
	const gva_t rw = 0x10000000, ro = 0x20000000;
	struct guest_mem g;
	gpa_t table;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, rw, PAGE, GUEST_PTE_RW);
	table = guest_read(&g, guest_pte_gpa(&g, g.cr3, rw, 2)) & PAGE_MASK;
	guest_write(&g, guest_pte_gpa(&g, g.cr3, ro, 2), table | GUEST_PTE_P);

	guest_store(&g, 0, rw, 1);
	expect_eq(guest_load(&g, 0, ro), 1);
	expect_eq(guest_try(&g, 0, MODEL_STORE, ro, NULL), RET_PF_GUEST);
	guest_store(&g, 0, rw, 2);
	expect_eq(guest_load(&g, 0, ro), 2);
	expect_eq(guest_try(&g, 0, MODEL_STORE, ro, NULL), RET_PF_GUEST);
	guest_mem_destroy(&g);
}

static void set_cpu(struct guest_mem *g, uint64_t cr0_wp, uint64_t cr4, uint32_t pkru, bool user)
{
	struct guest_cpu cpu = *shadow_get_cpu(g->shadow, 0);

	cpu.cr0 = GUEST_CR0_PG | cr0_wp;
	cpu.cr4 = GUEST_CR4_PAE | cr4;
	cpu.pkru = pkru;
	cpu.user = user;
	expect_eq(shadow_set_cpu(g->shadow, 0, &cpu), 0);
}

/* A supervisor without CR0.WP stores to what is read-only, and to nothing more once it is back. */
TEST(fault, store_without_write_protection)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, PAGE, PAGE, GUEST_PTE_P | GUEST_PTE_U);
	set_cpu(&g, 0, 0, 0, false);
	/* Clean, it is mapped for reading: the store comes to set D. */
	expect_eq(guest_load(&g, 0, PAGE), 0);
	expect_eq(model_store(g.model, 0, PAGE, 1), -EFAULT);
	guest_store(&g, 0, PAGE, 1);
	expect(guest_read(&g, guest_pte_gpa(&g, g.cr3, PAGE, 1)) & GUEST_PTE_D);
	set_cpu(&g, GUEST_CR0_WP, 0, 0, false);
	expect_eq(guest_try(&g, 0, MODEL_STORE, PAGE, NULL), RET_PF_GUEST);
	set_cpu(&g, 0, 0, 0, true);
	expect_eq(guest_try(&g, 0, MODEL_STORE, PAGE, NULL), RET_PF_GUEST);
	expect_eq(guest_load(&g, 0, PAGE), 1);
	guest_mem_destroy(&g);
}

/* Keys are in the leaf: as PKRU changes, so does what is mapped. */
TEST(fault, protection_keys)
{
	const uint64_t key = 7;
	struct guest_mem g;
	uint32_t code;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, PAGE, PAGE, GUEST_PTE_RW | GUEST_PTE_U | key << 59);
	set_cpu(&g, GUEST_CR0_WP, GUEST_CR4_PKE, 0, true);
	guest_store(&g, 0, PAGE, 1);
	set_cpu(&g, GUEST_CR0_WP, GUEST_CR4_PKE, 2u << (2 * key), true);
	expect_eq(guest_load(&g, 0, PAGE), 1);
	expect_eq(guest_try(&g, 0, MODEL_STORE, PAGE, &code), RET_PF_GUEST);
	expect_eq(code, PFERR_PRESENT | PFERR_WRITE | PFERR_USER | PFERR_PK);
	set_cpu(&g, GUEST_CR0_WP, GUEST_CR4_PKE, 1u << (2 * key), true);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, PAGE, &code), RET_PF_GUEST);
	expect_eq(code, PFERR_PRESENT | PFERR_USER | PFERR_PK);
	/* It may still execute, which no entry can say without reading. */
	expect_eq(guest_try(&g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_EXEC_ONLY);
	expect_eq(model_store(g.model, 0, PAGE, 2), -EFAULT);
	set_cpu(&g, GUEST_CR0_WP, GUEST_CR4_PKE, 0, true);
	expect_eq(guest_load(&g, 0, PAGE), 1);
	guest_mem_destroy(&g);
}

TEST(fault, smap_without_smep_is_execute_only)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_map(&g, g.cr3, PAGE, PAGE, GUEST_PTE_RW | GUEST_PTE_U);
	set_cpu(&g, GUEST_CR0_WP, GUEST_CR4_SMAP, 0, false);
	expect_eq(guest_try(&g, 0, MODEL_LOAD, PAGE, NULL), RET_PF_GUEST);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_EXEC_ONLY);
	set_cpu(&g, GUEST_CR0_WP, GUEST_CR4_SMAP | GUEST_CR4_SMEP, 0, false);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_GUEST);
	set_cpu(&g, GUEST_CR0_WP, 0, 0, false);
	expect_eq(guest_try(&g, 0, MODEL_FETCH, PAGE, NULL), RET_PF_FIXED);
	guest_mem_destroy(&g);
}

/* K-13: the guest edits its tables between the walk and the install. */
TEST(fault, guest_table_changes_under_the_fault)
{
	for (int level = 1; level <= 4; level++) {
		struct guest_mem g;
		struct table_edit edit;

		guest_mem_create(&g, &config);
		edit = (struct table_edit){.g = &g,
					   .pte = guest_pte_gpa(&g, g.cr3, PAGE, level),
					   .times = 1};
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook_edit_table, &edit);
		expect_eq(fault_at(&g, PAGE, PFERR_WRITE), RET_PF_RETRY);
		expect_eq(fault_at(&g, PAGE, PFERR_WRITE), RET_PF_GUEST);
		guest_mem_destroy(&g);
	}
}

/* A and D bits that come meanwhile change nothing; a D bit that goes does. */
TEST(fault, accessed_and_dirty_under_the_fault)
{
	struct guest_mem g;
	struct table_edit edit;

	guest_mem_create(&g, &config);
	edit = (struct table_edit){.g = &g,
				   .pte = guest_pte_gpa(&g, g.cr3, PAGE, 1),
				   .value = PAGE | GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D,
				   .times = 1};
	shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook_edit_table, &edit);
	expect_eq(fault_at(&g, PAGE, 0), RET_PF_FIXED);

	edit.value = PAGE | GUEST_PTE_RW | GUEST_PTE_A;
	edit.times = 1;
	expect_eq(fault_at(&g, PAGE, PFERR_WRITE), RET_PF_RETRY);
	guest_mem_destroy(&g);
}

/* Whoever cleared A, and flushed, is told by it of the next access: also of one that was under way.
 */
TEST(fault, accessed_goes_under_the_fault)
{
	for (int level = 1; level <= 4; level++) {
		struct guest_mem g;
		struct table_edit edit;

		guest_mem_create(&g, &config);
		edit = (struct table_edit){.g = &g,
					   .pte = guest_pte_gpa(&g, g.cr3, PAGE, level),
					   .times = 1};
		edit.value = guest_read(&g, edit.pte) & ~GUEST_PTE_A;
		shadow_set_hook(g.shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK, hook_edit_table, &edit);
		expect_eq(fault_at(&g, PAGE, 0), RET_PF_RETRY);
		expect_eq(guest_try(&g, 0, MODEL_LOAD, PAGE, NULL), RET_PF_FIXED);
		expect_eq(guest_read(&g, edit.pte) & GUEST_PTE_A, GUEST_PTE_A);
		guest_mem_destroy(&g);
	}
}

/* The host moves the guest's tables about: they are ordinary memory. */
TEST(fault, guest_tables_migrate)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (int i = 0; i < 8; i++) {
		uint64_t table_gpa = guest_pte_gpa(&g, g.cr3, PAGE, 1 + i % 4) & PAGE_MASK;

		guest_store(&g, 0, PAGE, i);
		if (i < 4)
			expect_eq(mm_migrate_range(g.mm, guest_hva(table_gpa), PAGE_SIZE), 1);
		else
			expect_eq(mm_zap_range(g.mm, guest_hva(table_gpa), PAGE_SIZE), 1);
		expect_eq(shadow_load_cr3(g.shadow, 0, g.cr3), 0);
		expect_eq(guest_load(&g, 0, PAGE), i);
	}
	guest_mem_destroy(&g);
}
