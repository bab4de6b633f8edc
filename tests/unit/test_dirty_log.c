/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dirty log: what marks a page, what takes the mark, and what a slot that is logged is to all
 * the rest.
 */
#include <errno.h>
#include <string.h>

#include "tests/support/dirty_fixture.h"

static const struct guest_mem_config config = {.audit = true, .nr_cpus = 2};

/* Both slots are there, and logged. */
static void fixture(struct guest_mem *g)
{
	memslot_fixture(g, &config);
	expect_eq(place(g, SLOT_GFN), 0);
	for (uint64_t i = 0; i < SLOT_PAGES; i++)
		guest_store(g, 0, slot_gva(SLOT_GFN + i),
			    stamp(i)); /* D is set, and it is mapped */
	expect_eq(log_slot(g, true), 0);
	expect_eq(log_ram(g, true), 0);
	expect_eq(harvest(g, SLOT), 0);
	harvest(g, 0);
}

/* ---- what marks a page ---- */

TEST(dirty_log, a_store_is_reported_once)
{
	struct guest_mem g;

	fixture(&g);
	for (int i = 0; i < 3; i++) {
		guest_store(&g, 0, slot_gva(SLOT_GFN + 3), 3);
		guest_store(&g, 1, slot_gva(SLOT_GFN + 7), 7);
		expect_eq(harvest(&g, SLOT), page_bit(3) | page_bit(7));
		expect_eq(harvest(&g, SLOT), 0);
	}
	memslot_fixture_done(&g);
}

/* What was mapped when the log began has lost the right; the fault gives it back in place, once:
 * nothing is zapped, and no CPU told. */
TEST(dirty_log, the_right_comes_back_in_place)
{
	struct shadow_stats before, after;
	struct guest_mem g;
	gva_t gva = slot_gva(SLOT_GFN + 2);

	fixture(&g);
	before = stats_of(&g);
	expect_eq(model_store(g.model, 0, gva, 1), -EFAULT);
	expect_eq(guest_load(&g, 0, gva), stamp(2));
	guest_store(&g, 0, gva, 1);
	expect_eq(model_store(g.model, 0, gva, 2), 0);
	expect_eq(model_store(g.model, 1, gva, 3), 0);
	after = stats_of(&g);
	expect_eq(after.faults - before.faults, 1);
	expect_eq(after.sptes_zapped, before.sptes_zapped);
	expect_eq(after.frames_shot, before.frames_shot);
	expect_eq(harvest(&g, SLOT), page_bit(2));
	memslot_fixture_done(&g);
}

/* Also where guest and host allow the store, and nothing is there yet. */
TEST(dirty_log, a_read_does_not_mark)
{
	struct guest_mem g;

	fixture(&g);
	guest_reload_afresh(&g, 0);
	harvest(&g, 0);
	expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN)), stamp(0));
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN), 1), -EFAULT);
	expect_eq(harvest(&g, SLOT), 0);
	memslot_fixture_done(&g);
}

/* The walk's A and D bits are stores to guest memory, in tables that nobody else writes. */
TEST(dirty_log, bits_that_the_walk_sets)
{
	uint64_t bitmap[RAM_WORDS_MAX] = {0};
	gva_t gva = slot_gva(SLOT_GFN + SLOT_PAGES - 1);
	struct guest_mem g;
	gpa_t pte;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(log_ram(&g, true), 0);
	pte = guest_pte_gpa(&g, g.cr3, gva, 1);
	expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
	for (unsigned int store = 0; store < 2; store++) {
		memset(bitmap, 0, sizeof(bitmap));
		if (store)
			guest_store(&g, 0, gva, 1);
		else
			guest_load(&g, 0, gva);
		expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
		expect(bitmap[(pte >> PAGE_SHIFT) / 64] & page_bit((pte >> PAGE_SHIFT) % 64));
	}
	guest_store(&g, 0, gva, 2); /* both are set */
	expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
	for (uint64_t i = 0; i < shadow_dirty_words(g.nr_pages); i++)
		expect_eq(bitmap[i], 0);
	memslot_fixture_done(&g);
}

TEST(dirty_log, what_host_code_writes)
{
	const gpa_t gpa = SLOT_GFN << PAGE_SHIFT;
	struct shadow_operand operand;
	struct shadow_fault fault;
	struct guest_mem g;
	uint64_t word = 5;

	fixture(&g);
	expect_eq(shadow_write_gpa(g.shadow, gpa + 2 * PAGE_SIZE - 4, &word, sizeof(word)), 0);
	expect_eq(harvest(&g, SLOT), page_bit(1) | page_bit(2));

	/* A device, that wrote by other means. */
	shadow_gpte_written(g.shadow, gpa + 3 * PAGE_SIZE, 2 * PAGE_SIZE);
	expect_eq(harvest(&g, SLOT), page_bit(3) | page_bit(4));

	expect_eq(shadow_read_gpa(g.shadow, gpa, &word, sizeof(word)), 0);
	expect_eq(harvest(&g, SLOT), 0);

	/* An instruction that is carried out: over two pages; only read; and nothing exchanged. */
	expect_eq(shadow_operand_get(g.shadow, 0, slot_gva(SLOT_GFN + 6) - 4, 8, PFERR_WRITE,
				     &operand, &fault),
		  0);
	expect_eq(shadow_operand_write(g.shadow, &operand, 1), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(harvest(&g, SLOT), page_bit(5) | page_bit(6));
	expect_eq(shadow_operand_get(g.shadow, 0, slot_gva(SLOT_GFN), 8, PFERR_WRITE, &operand,
				     &fault),
		  0);
	word = ~stamp(0);
	expect_eq(shadow_operand_cmpxchg(g.shadow, &operand, &word, 1), 1);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(harvest(&g, SLOT), 0);
	expect_eq(shadow_operand_get(g.shadow, 0, slot_gva(SLOT_GFN), 8, PFERR_WRITE, &operand,
				     &fault),
		  0);
	expect_eq(shadow_operand_cmpxchg(g.shadow, &operand, &word, 1), 0);
	shadow_operand_put(g.shadow, &operand);
	expect_eq(harvest(&g, SLOT), page_bit(0));
	memslot_fixture_done(&g);
}

/* Read-only as a table of the guest's, and read-only to be noticed: the one does not end the other.
 */
TEST(dirty_log, a_table_stays_protected)
{
	const gva_t window = 0x8000000000UL;
	struct guest_mem g;
	gpa_t table;

	fixture(&g);
	table = guest_pte_gpa(&g, g.cr3, slot_gva(SLOT_GFN), 2) & PAGE_MASK;
	guest_map(&g, g.cr3, window, table, GUEST_PTE_RW | GUEST_PTE_A | GUEST_PTE_D);
	expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN)), stamp(0));
	for (int i = 0; i < 3; i++) {
		struct shadow_fault fault;
		uint64_t word = 0, page = table >> PAGE_SHIFT;
		uint64_t bitmap[RAM_WORDS_MAX];

		expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
		expect_eq(guest_fault(&g, 0, window + 0xff8, PFERR_WRITE, &fault),
			  RET_PF_WRITE_PROTECTED);
		expect_eq(model_store(g.model, 0, window + 0xff8, 0), -EFAULT);
		expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
		expect(!(bitmap[page / 64] & page_bit(page % 64)));
		expect_eq(shadow_write_gpa(g.shadow, fault.gpa, &word, sizeof(word)), 0);
		expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
		expect(bitmap[page / 64] & page_bit(page % 64));
		guest_load(&g, 0, slot_gva(SLOT_GFN)); /* used: so it is not given up */
	}
	memslot_fixture_done(&g);
}

/* ---- who asks ---- */

TEST(dirty_log, who_may_not_ask)
{
	uint64_t bitmap[RAM_WORDS_MAX];
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(shadow_get_dirty_log(g.shadow, MEMSLOT_MAX, bitmap), -EINVAL);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, bitmap), -ENOENT);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, bitmap), -ENOENT);
	expect_eq(shadow_clear_dirty_log(g.shadow, SLOT, 0, SLOT_PAGES, bitmap), -ENOENT);
	expect_eq(log_slot(&g, true), 0);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, bitmap), 0);
	expect_eq(log_slot(&g, false), 0);
	expect_eq(shadow_get_dirty_log(g.shadow, SLOT, bitmap), -ENOENT);
	expect_eq(shadow_set_dirty_log_mode(g.shadow, SHADOW_DIRTY_INITIALLY_SET), -EINVAL);
	expect_eq(shadow_set_dirty_log_mode(g.shadow, 1u << 2), -EINVAL);
	memslot_fixture_done(&g);
}

TEST(dirty_log, manual_protect)
{
	uint64_t bitmap = page_bit(1) | page_bit(2) | page_bit(40);
	struct guest_mem g;

	fixture(&g);
	expect_eq(shadow_set_dirty_log_mode(g.shadow, SHADOW_DIRTY_MANUAL_PROTECT), 0);
	guest_store(&g, 0, slot_gva(SLOT_GFN + 1), 1);
	guest_store(&g, 0, slot_gva(SLOT_GFN + 3), 3);
	for (int i = 0; i < 2; i++) {
		expect_eq(harvest(&g, SLOT), page_bit(1) | page_bit(3));
		expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 1), 1), 0);
	}
	/* Those that are set, and no others; what is clean is clean. */
	expect_eq(shadow_clear_dirty_log(g.shadow, SLOT, 0, SLOT_PAGES, &bitmap), 0);
	expect_eq(harvest(&g, SLOT), page_bit(3));
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 1), 1), -EFAULT);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 3), 3), 0);
	guest_store(&g, 0, slot_gva(SLOT_GFN + 1), 1);
	expect_eq(harvest(&g, SLOT), page_bit(1) | page_bit(3));
	memslot_fixture_done(&g);
}

TEST(dirty_log, ranges_of_a_clear)
{
	const struct guest_mem_config wide = {.audit = true, .nr_pages = 200};
	static const struct {
		uint64_t first, npages;
		int ret;
	} cases[] = {
		{0, 200, 0},	     {0, 64, 0},	   {64, 64, 0},
		{64, 136, 0},	     {192, 8, 0},	   {0, 0, 0},
		{1, 63, -EINVAL},    {0, 63, -EINVAL},	   {0, 201, -EINVAL},
		{128, 80, -EINVAL},  {256, 0, -EINVAL},	   {192, 7, -EINVAL},
		{64, ~0UL, -EINVAL}, {~63UL, 64, -EINVAL}, {~63UL, 0, -EINVAL},
	};
	const uint64_t all[4] = {~0UL, ~0UL, ~0UL, ~0UL};
	uint64_t found[4];
	struct guest_mem g;

	memslot_fixture(&g, &wide);
	expect_eq(shadow_set_dirty_log_mode(g.shadow, SHADOW_DIRTY_MANUAL_PROTECT |
							      SHADOW_DIRTY_INITIALLY_SET),
		  0);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		expect_eq(log_ram(&g, true), 0);
		expect_eq(shadow_clear_dirty_log(g.shadow, 0, cases[i].first, cases[i].npages, all),
			  cases[i].ret);
		expect_eq(shadow_get_dirty_log(g.shadow, 0, found), 0);
		for (uint64_t n = 0; n < 256; n++) {
			bool cleared = !cases[i].ret && n >= cases[i].first &&
				       n < cases[i].first + cases[i].npages;

			expect_eq(found[n / 64] >> n % 64 & 1, n < 200 && !cleared);
		}
		expect_eq(log_ram(&g, false), 0);
	}
	memslot_fixture_done(&g);
}

/* It costs nothing to begin; each page is protected when it is clean for the first time. */
TEST(dirty_log, initially_set)
{
	uint64_t bitmap = page_bit(5);
	struct shadow_stats before;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	for (uint64_t i = 0; i < SLOT_PAGES; i++)
		guest_store(&g, 0, slot_gva(SLOT_GFN + i), stamp(i));
	expect_eq(shadow_set_dirty_log_mode(g.shadow, SHADOW_DIRTY_MANUAL_PROTECT |
							      SHADOW_DIRTY_INITIALLY_SET),
		  0);
	before = stats_of(&g);
	expect_eq(log_slot(&g, true), 0);
	expect_eq(stats_of(&g).dirty_protected, before.dirty_protected);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 5), 5), 0);
	expect_eq(harvest(&g, SLOT), (1UL << SLOT_PAGES) - 1);
	expect_eq(shadow_clear_dirty_log(g.shadow, SLOT, 0, SLOT_PAGES, &bitmap), 0);
	expect_eq(stats_of(&g).dirty_protected, before.dirty_protected + 1);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 5), 5), -EFAULT);
	expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 4), 4), 0);
	expect_eq(harvest(&g, SLOT), ((1UL << SLOT_PAGES) - 1) & ~page_bit(5));
	memslot_fixture_done(&g);
}

/* ---- the slot ---- */

/* All leaves of a page lose the right: aliases, and those of another view. */
TEST(dirty_log, every_leaf_of_a_page)
{
	struct guest_mem g;
	struct guest_cpu user;
	gva_t gva[4];

	memslot_fixture(&g, &config);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(log_slot(&g, true), 0);
	user = *shadow_get_cpu(g.shadow, 1);
	user.cr0 &= ~GUEST_CR0_WP;
	expect_eq(shadow_set_cpu(g.shadow, 1, &user), 0);
	for (unsigned int i = 0; i < 4; i++) {
		gva[i] = 0x30000000UL + i * (2UL << 20);
		guest_map(&g, g.cr3, gva[i], SLOT_GFN << PAGE_SHIFT, GUEST_PTE_RW);
	}
	for (int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 4; i++) {
			guest_store(&g, 0, gva[i], i);
			guest_store(&g, 1, gva[i], i);
		}
		expect_eq(harvest(&g, SLOT), page_bit(0));
		for (unsigned int i = 0; i < 4; i++) {
			expect_eq(model_store(g.model, 0, gva[i], i), -EFAULT);
			expect_eq(model_store(g.model, 1, gva[i], i), -EFAULT);
		}
	}
	memslot_fixture_done(&g);
}

/* Marks are the slot's, and go where it goes; without the flag, or the slot, they are forgotten. */
TEST(dirty_log, marks_and_the_slot)
{
	enum shadow_zap_policy policy;

	for_each_policy(policy)
	{
		struct guest_mem g;

		fixture(&g);
		shadow_set_zap_policy(g.shadow, policy);
		guest_store(&g, 0, slot_gva(SLOT_GFN + 1), 1);
		expect_eq(set_slot(&g, SLOT, SLOT_GFN + 2, SLOT_PAGES, SLOT_HVA, MEMSLOT_LOG_DIRTY),
			  0);
		guest_store(&g, 0, slot_gva(SLOT_GFN + 2), 0);
		expect_eq(harvest(&g, SLOT), page_bit(0) | page_bit(1));
		guest_store(&g, 0, slot_gva(SLOT_GFN + 2), 0);
		expect_eq(log_slot(&g, false), 0); /* moves it back, too */
		guest_store(&g, 0, slot_gva(SLOT_GFN + 3), 3);
		expect_eq(log_slot(&g, true), 0);
		expect_eq(model_store(g.model, 0, slot_gva(SLOT_GFN + 3), 3), -EFAULT);
		expect_eq(harvest(&g, SLOT), 0);
		guest_store(&g, 0, slot_gva(SLOT_GFN + 3), 3);
		expect_eq(delete_slot(&g, SLOT), 0);
		expect_eq(log_slot(&g, true), 0);
		expect_eq(harvest(&g, SLOT), 0);
		/* Both flags at once, and one after the other. */
		expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA,
				   MEMSLOT_LOG_DIRTY | MEMSLOT_READONLY),
			  0);
		expect_eq(guest_try(&g, 0, MODEL_STORE, slot_gva(SLOT_GFN), NULL), RET_PF_EMULATE);
		expect_eq(set_slot(&g, SLOT, SLOT_GFN, SLOT_PAGES, SLOT_HVA, 0), 0);
		guest_store(&g, 0, slot_gva(SLOT_GFN), 1);
		memslot_fixture_done(&g);
	}
}

/* The host moves the page: what was stored before is dirty, and so is what is stored after. */
TEST(dirty_log, the_host_moves_the_page)
{
	struct guest_mem g;

	fixture(&g);
	guest_store(&g, 0, slot_gva(SLOT_GFN + 1), 1);
	expect_eq(mm_migrate_range(g.mm, SLOT_HVA, SLOT_PAGES * PAGE_SIZE), SLOT_PAGES);
	expect_eq(harvest(&g, SLOT), page_bit(1));
	expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN + 1)), 1);
	expect_eq(harvest(&g, SLOT), 0);
	guest_store(&g, 0, slot_gva(SLOT_GFN + 1), 2);
	expect_eq(harvest(&g, SLOT), page_bit(1));
	memslot_fixture_done(&g);
}

/* A slot is harvested in pieces, and mmu_lock dropped between them with nothing owed. */
TEST(dirty_log, in_pieces)
{
	const struct guest_mem_config wide = {.nr_pages = 2048};
	const uint64_t pages = 1500;
	uint64_t bitmap[32];
	unsigned int breaks = 0;
	struct guest_mem g;

	memslot_fixture(&g, &wide);
	for (uint64_t n = 0; n < pages; n++)
		guest_store(&g, 0, n << PAGE_SHIFT, n);
	shadow_set_hook(g.shadow, SHADOW_HOOK_DIRTY_BREAK, hook_count, &breaks);
	expect_eq(log_ram(&g, true), 0);
	expect_ge(breaks, pages / ZAP_BATCH_FRAMES);
	for (uint64_t n = 0; n < pages; n += 3)
		guest_store(&g, 0, n << PAGE_SHIFT, n + 1);
	breaks = 0;
	expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
	expect_ge(breaks, pages / 3 / ZAP_BATCH_FRAMES);
	for (uint64_t n = 0; n < pages; n++) {
		expect_eq(bitmap[n / 64] >> n % 64 & 1, n % 3 == 0);
		expect_eq(model_store(g.model, 0, n << PAGE_SHIFT, n), -EFAULT);
	}
	memslot_fixture_done(&g);
}

/* What has no mark is passed by: without mmu_lock as far as it goes, and in short sections then. */
TEST(dirty_log, few_marks_far_apart)
{
	enum { WORDS = 130 };
	const struct guest_mem_config wide = {.nr_pages = WORDS * 64};
	const gpa_t last = (WORDS - 1) * 64 * PAGE_SIZE;
	unsigned int breaks = 0, taken = 0;
	uint64_t bitmap[WORDS];
	struct guest_mem g;

	memslot_fixture(&g, &wide);
	expect_eq(log_ram(&g, true), 0);
	guest_store(&g, 0, 0, 1);
	guest_store(&g, 0, last, 1);
	harvest(&g, 0);
	shadow_set_hook(g.shadow, SHADOW_HOOK_DIRTY_BREAK, hook_count, &breaks);
	shadow_set_hook(g.shadow, SHADOW_HOOK_DIRTY_TAKEN, hook_count, &taken);
	expect_eq(harvest(&g, 0), 0);
	expect_eq(breaks, 0);

	guest_store(&g, 0, 0, 2);
	guest_store(&g, 0, last, 2);
	expect_eq(shadow_get_dirty_log(g.shadow, 0, bitmap), 0);
	expect_eq(taken, 2);
	expect_eq(breaks, 2);
	for (uint64_t n = 0; n < WORDS; n++)
		expect_eq(bitmap[n], n == 0 || n == WORDS - 1);
	memslot_fixture_done(&g);
}
