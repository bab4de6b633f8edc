/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One page that a guest maps at very many places (after kvm-unit-tests' rmap_chain): as many as a
 * chunk of the chain holds and one more, as many as a page may have and one more, and thirty times
 * that. It is inserted, taken out of the middle, taken by the host, and comes back; the audit looks
 * after every step where chains are short, and after every part where they are long.
 */
#include "shadow/shadow_internal.h"
#include "tests/support/guest_fixture.h"
#include "tests/support/test.h"

#define PAGE  0x1000UL
#define OTHER 0x2000UL
#define AT    0x40000000UL

static gva_t place(unsigned int n)
{
	return AT + (gva_t)n * PAGE_SIZE;
}

static unsigned int leaves_of(struct guest_mem *g, gpa_t gpa)
{
	struct memslot *slot = gfn_to_memslot(shadow_memslots(g->shadow), gpa >> PAGE_SHIFT);
	unsigned int nr;

	spin_lock(&g->shadow->mmu_lock);
	nr = rmap_count(&slot->rmap[gpa >> PAGE_SHIFT]);
	spin_unlock(&g->shadow->mmu_lock);
	return nr;
}

static void audit(struct guest_mem *g)
{
	char why[256];

	if (shadow_audit(g->shadow, why, sizeof(why)))
		fail("audit: %s", why);
}

/* How many are left of @nr that came one after the other, and how often all of them went. */
static unsigned int left_of(unsigned int nr)
{
	return nr ? (nr - 1) % RMAP_RECYCLE_THRESHOLD + 1 : 0;
}

static unsigned int recycled(unsigned int nr)
{
	return nr ? (nr - 1) / RMAP_RECYCLE_THRESHOLD : 0;
}

static void chain_of(unsigned int nr, bool audit_each)
{
	struct guest_mem_config config = {.nr_cpus = 2, .nr_pages = 256, .audit = audit_each};
	const unsigned int step = 2 + nr / 1000;
	struct model_stats model;
	struct shadow_stats stats;
	struct guest_mem g;
	pfn_t pfn;

	guest_mem_create(&g, &config);
	for (unsigned int n = 0; n < nr; n++) {
		guest_map(&g, g.cr3, place(n), PAGE, GUEST_PTE_RW);
		guest_store(&g, n % 2, place(n), n);
		expect_eq(leaves_of(&g, PAGE), left_of(n + 1));
	}
	/* One fault for each, and one more each time that it had to make room. */
	stats = stats_of(&g);
	expect_eq(stats.faults, nr + recycled(nr));
	expect_eq(stats.sptes_zapped, recycled(nr) * RMAP_RECYCLE_THRESHOLD);
	/* No CPU keeps what went, not even one; and one shootdown was enough for a thousand. */
	model_get_stats(g.model, &model);
	expect_eq(model.dropped, stats.sptes_zapped);
	expect_eq(stats.shootdowns, recycled(nr));
	expect_eq(stats.frames_shot, recycled(nr));
	audit(&g);

	/* Out of the middle: of those that are left, which are the last. */
	guest_map(&g, g.cr3, place(nr - 1 - left_of(nr) / 2), 0, 0);
	shadow_invlpg(g.shadow, 0, place(nr - 1 - left_of(nr) / 2));
	expect_eq(leaves_of(&g, PAGE), left_of(nr) - 1);
	guest_map(&g, g.cr3, place(nr - 1 - left_of(nr) / 2), PAGE, GUEST_PTE_RW);
	audit(&g);

	/* The host takes it. */
	pfn = mm_lookup_pfn(g.mm, guest_hva(PAGE));
	expect_eq(mm_migrate_range(g.mm, guest_hva(PAGE), PAGE_SIZE), 1);
	expect_eq(leaves_of(&g, PAGE), 0);
	expect_eq(model_cached(g.model, pfn), 0);
	expect_eq(stats_of(&g).sptes_zapped - stats.sptes_zapped, left_of(nr));
	audit(&g);

	/* It comes back at every place, and is the same page at each. */
	for (unsigned int n = 0; n < nr; n++)
		expect_eq(guest_load(&g, 1, place(n)), nr - 1);
	expect_eq(leaves_of(&g, PAGE), left_of(nr));
	audit(&g);

	/* The guest maps another page at some of the places. */
	for (unsigned int n = 0; n < nr; n += step) {
		guest_map(&g, g.cr3, place(n), OTHER, GUEST_PTE_RW);
		shadow_invlpg(g.shadow, 1, place(n));
	}
	audit(&g);
	guest_store(&g, 1, OTHER, ~0UL);
	for (unsigned int n = 0; n < nr; n++)
		expect_eq(guest_load(&g, 1, place(n)), n % step ? nr - 1 : ~0UL);
	audit(&g);

	/* All tables go: each leaf is looked for in the chain, and the page is mapped nowhere. */
	guest_reload_afresh(&g, 0);
	expect_eq(leaves_of(&g, PAGE), 0);
	expect_eq(leaves_of(&g, OTHER), 0);
	audit(&g);
	model_get_stats(g.model, &model);
	expect_eq(model.contract_violations, 0);
	guest_mem_destroy(&g);
}

TEST(rmap_chain, about_a_chunk)
{
	static const unsigned int lengths[] = {1, 2, 14, 15, 28, 29};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		chain_of(lengths[i], true);
}

TEST(rmap_chain, about_what_a_page_may_have)
{
	chain_of(RMAP_RECYCLE_THRESHOLD, false);
	chain_of(RMAP_RECYCLE_THRESHOLD + 1, false);
}

TEST(rmap_chain, thirty_times_that)
{
	chain_of(30000, false);
}

/* A range in which every page has a long chain: mmu_lock is let go of between batches of entries.
 */
TEST(rmap_chain, many_long_ones)
{
	struct guest_mem_config config = {.nr_cpus = 2, .nr_pages = 256};
	const unsigned int pages = 8, each = 300;
	struct shadow_stats before, after;
	struct guest_mem g;

	guest_mem_create(&g, &config);
	for (unsigned int n = 0; n < pages * each; n++) {
		guest_map(&g, g.cr3, place(n), n % pages * PAGE_SIZE, GUEST_PTE_RW);
		guest_store(&g, 0, place(n), n % pages);
	}
	before = stats_of(&g);
	expect_eq(before.sptes_zapped, 0);
	expect_eq(mm_migrate_range(g.mm, guest_hva(0), pages * PAGE_SIZE), pages);
	after = stats_of(&g);
	expect_eq(after.sptes_zapped, pages * each);
	/* 2400 entries are two batches and a part; the page that a batch ends in is shot down
	 * twice. */
	expect_eq(after.shootdowns - before.shootdowns, pages * each / ZAP_BATCH_ENTRIES + 1);
	expect_le(after.frames_shot - before.frames_shot, pages + pages * each / ZAP_BATCH_ENTRIES);
	audit(&g);
	for (unsigned int n = 0; n < pages * each; n++)
		expect_eq(guest_load(&g, 1, place(n)), n % pages);
	audit(&g);
	guest_mem_destroy(&g);
}
