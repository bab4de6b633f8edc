/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each change of slots, with no memory at each place that wants some, in turn: -ENOMEM, the guest
 * sees no difference, at no time, and nothing is lost. Then the same change works.
 */
#include <errno.h>

#include <gnomon/shadow_dirty.h>

#include "notifier/srcu_internal.h"
#include "shadow/huge.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/hoard.h"
#include "tests/support/memslot_fixture.h"

static const struct guest_mem_config config = {.audit = true};

/* What is made once for all mms is made, and nothing else. */
static int64_t live_of_nothing(void)
{
	struct guest_mem g;

	guest_mem_create(&g, &config);
	guest_mem_destroy(&g);
	return atomic64_read(&allocs.live);
}

struct change {
	const char *what;
	uint64_t npages;
	gfn_t base;
	unsigned int flags;
	bool exists;
	unsigned int sites;
};

static void swapped(void *arg)
{
	fail("%s: a set was published, and then there was no memory", (const char *)arg);
}

static void fails_everywhere(const struct change *change, enum shadow_zap_policy policy)
{
	const int64_t live_before = atomic64_read(&allocs.live);
	unsigned int sites = 0;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	shadow_set_zap_policy(g.shadow, policy);
	if (change->exists)
		expect_eq(place(&g, SLOT_GFN), 0);
	for (;; sites++) {
		int64_t live = atomic64_read(&allocs.live);
		uint64_t generation = shadow_memslots_generation(g.shadow);
		bool failed;
		int ret;

		if (change->exists)
			guest_store(&g, 0, slot_gva(SLOT_GFN), 1);
		if (sites < change->sites)
			shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, swapped,
					(void *)change->what);
		else
			shadow_set_hook(g.shadow, SHADOW_HOOK_SLOT_BEFORE_ZAP, NULL, NULL);
		live = atomic64_read(&allocs.live);
		alloc_fail_at(sites);
		ret = set_slot(&g, SLOT, change->base, change->npages, SLOT_HVA, change->flags);
		failed = alloc_failed();
		expect_eq(ret, failed ? -ENOMEM : 0);
		if (!failed)
			break;
		expect_eq(atomic64_read(&allocs.live), live);
		expect_eq(shadow_memslots_generation(g.shadow), generation);
		if (change->exists)
			expect_eq(guest_load(&g, 0, slot_gva(SLOT_GFN)), 1);
		else
			expect_eq(guest_try(&g, 0, MODEL_LOAD, slot_gva(SLOT_GFN), NULL),
				  RET_PF_EMULATE);
	}
	expect_eq(sites, change->sites);
	memslot_fixture_done(&g);
	expect_eq(atomic64_read(&allocs.live), live_before);
}

TEST(memslot_fail, each_change_at_each_site)
{
	static const struct change changes[] = {
		{"create", SLOT_PAGES, SLOT_GFN, 0, false, 5},
		{"delete", 0, SLOT_GFN, 0, true, 1},
		{"move", SLOT_PAGES, SLOT_GFN + 2, 0, true, 2},
		{"flags", SLOT_PAGES, SLOT_GFN, MEMSLOT_READONLY, true, 1},
		{"create, 4 MiB", 2 * HUGE_PAGES, SLOT_GFN, 0, false, 7},
		{"create, 4 MiB, logged", 2 * HUGE_PAGES, SLOT_GFN, MEMSLOT_LOG_DIRTY, false, 9},
		{"create, logged", SLOT_PAGES, SLOT_GFN, MEMSLOT_LOG_DIRTY, false, 7},
		{"move, logged", SLOT_PAGES, SLOT_GFN + 2, MEMSLOT_LOG_DIRTY, true, 4},
		{"logged", SLOT_PAGES, SLOT_GFN, MEMSLOT_LOG_DIRTY, true, 3},
	};
	enum shadow_zap_policy policy;

	live_of_nothing();
	for (unsigned int i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		for_each_policy(policy) fails_everywhere(&changes[i], policy);
	}
}

/* A vCPU whose root is obsolete, and no memory for a new one: it says so, and goes on later. */
TEST(memslot_fail, no_memory_for_a_new_root)
{
	int64_t live_before = live_of_nothing();
	unsigned int sites = 0;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	guest_store(&g, 0, 0x3000, 3);
	for (;; sites++) {
		struct shadow_fault fault;
		enum ret_pf ret;

		expect_eq(place(&g, SLOT_GFN), 0);
		expect_eq(delete_slot(&g, SLOT), 0);
		alloc_fail_at(sites);
		ret = guest_fault(&g, 0, 0x3000, 0, &fault);
		if (!alloc_failed()) {
			expect_eq(ret, RET_PF_FIXED);
			break;
		}
		expect_eq(ret, RET_PF_NO_MEMORY);
		shadow_invlpg(g.shadow, 0, 0x3000);
		expect_eq(guest_load(&g, 0, 0x3000), 3);
	}
	expect_ge(sites, 1);
	memslot_fixture_done(&g);
	expect_eq(atomic64_read(&allocs.live), live_before);
}

/* Or no frame. */
TEST(memslot_fail, no_frame_for_a_new_root)
{
	static struct hoard hoard;
	struct shadow_fault fault;
	int64_t live_before = live_of_nothing();
	struct guest_mem g;

	memslot_fixture(&g, &config);
	guest_store(&g, 0, 0x3000, 3);
	expect_eq(place(&g, SLOT_GFN), 0);
	expect_eq(delete_slot(&g, SLOT), 0);
	hoard_frames(&hoard, g.phys);
	expect_eq(guest_fault(&g, 0, 0x3000, 0, &fault), RET_PF_NO_MEMORY);
	hoard_release(&hoard);
	expect_eq(guest_load(&g, 0, 0x3000), 3);
	memslot_fixture_done(&g);
	expect_eq(atomic64_read(&allocs.live), live_before);
}

/* Rings are all there, or none is. */
TEST(memslot_fail, no_memory_for_rings)
{
	int64_t live_before = live_of_nothing();
	unsigned int sites = 0;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	for (;; sites++) {
		int64_t live = atomic64_read(&allocs.live);
		bool failed;
		int ret;

		alloc_fail_at(sites);
		ret = shadow_enable_dirty_rings(g.shadow, 16);
		failed = alloc_failed();
		expect_eq(ret, failed ? -ENOMEM : 0);
		expect_eq(!shadow_dirty_ring(g.shadow, 0), failed);
		if (!failed)
			break;
		expect_eq(atomic64_read(&allocs.live), live);
	}
	expect_eq(sites, 3); /* the list of them, that of the CPU, and that of all others */
	memslot_fixture_done(&g);
	expect_eq(atomic64_read(&allocs.live), live_before);
}

/* What a page needed that was mapped twice is given back when it is mapped no more. */
TEST(memslot_fail, nothing_is_kept_of_an_rmap)
{
	int64_t live_before = live_of_nothing();
	struct guest_mem g;

	memslot_fixture(&g, &config);
	guest_map(&g, g.cr3, 1UL << 40, 0x3000, GUEST_PTE_RW);
	guest_store(&g, 0, 0x3000, 3);
	expect_eq(guest_load(&g, 0, 1UL << 40), 3);
	expect_eq(mm_zap_range(g.mm, guest_hva(0x3000), PAGE_SIZE), 1);
	memslot_fixture_done(&g);
	expect_eq(atomic64_read(&allocs.live), live_before);
}

/* The chunk that a fault may need is there before it begins: where there is no memory for one, what
 * was made for others goes, and then there is. */
TEST(memslot_fail, no_memory_for_an_rmap)
{
	const gva_t alias = 0x100000; /* by the table of leaves that maps all of RAM */
	struct shadow_fault fault;
	struct guest_mem g;

	memslot_fixture(&g, &config);
	for (gpa_t at = 0; at < 2 * PAGE_SIZE; at += PAGE_SIZE) {
		guest_map(&g, g.cr3, alias + at, 0x3000 + at, GUEST_PTE_RW);
		guest_store(&g, 0, 0x3000 + at, 3);
	}
	expect_eq(guest_load(&g, 0, alias), 3);
	alloc_fail_at(0);
	expect_eq(guest_fault(&g, 0, alias + PAGE_SIZE, 0, &fault), RET_PF_FIXED);
	expect(alloc_failed());
	expect_eq(guest_load(&g, 0, alias + PAGE_SIZE), 3);
	memslot_fixture_done(&g);
}

/* A shadow MMU of another mm, the first one that wants to be told of anything there; or none. */
TEST(memslot_fail, no_memory_for_a_shadow_mmu)
{
	unsigned int sites = 0;
	bool failed = true;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (; failed; sites++) {
		int64_t live = atomic64_read(&allocs.live);
		struct mm_struct *child;
		struct shadow *shadow;
		int ret;

		expect_eq(mm_fork(g.mm, &child), 0);
		alloc_fail_at(sites);
		ret = shadow_create(&shadow, child, model_to_machine(g.model), 1);
		failed = alloc_failed();
		expect_eq(ret, failed ? -ENOMEM : 0);
		if (!failed)
			shadow_destroy(shadow);
		mmput(child);
		mmu_notifier_synchronize();
		expect_eq(atomic64_read(&allocs.live), live);
	}
	expect_ge(sites, 5); /* itself, two sets of slots, who is told, and none */
	guest_mem_destroy(&g);
}

/* All domains of SRCU are taken. */
TEST(memslot_fail, no_domain_for_a_shadow_mmu)
{
	static struct srcu_struct taken[SRCU_MAX_DOMAINS];
	unsigned int nr = 0;
	struct shadow *shadow;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	while (nr < SRCU_MAX_DOMAINS && !init_srcu_struct(&taken[nr]))
		nr++;
	expect_eq(shadow_create(&shadow, g.mm, model_to_machine(g.model), 1), -ENOMEM);
	while (nr)
		expect_eq(cleanup_srcu_struct(&taken[--nr]), 0);
	guest_mem_destroy(&g);
}

/* All that it had, of whatever kind, is given back with it. */
TEST(memslot_fail, nothing_is_kept_of_a_shadow_mmu)
{
	int64_t live_before = live_of_nothing();
	struct guest_mem g;

	memslot_fixture(&g, &config);
	for (gpa_t gpa = 0; gpa < 16 * PAGE_SIZE; gpa += PAGE_SIZE)
		guest_store(&g, 0, gpa, 1);
	expect_eq(place(&g, SLOT_GFN), 0);
	memslot_fixture_done(&g);
	expect_eq(atomic64_read(&allocs.live), live_before);
}
