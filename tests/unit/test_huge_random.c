/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether 2 MiB are mapped by one entry or by 512, a guest and a host do the same things and see
 * the same: one seed, both ways, and every answer compared. The auditor looks after each step.
 */
#include "notifier/sync/alloc.h"
#include "tests/support/huge_fixture.h"
#include "tests/support/mm_fixture.h"

#define PIECES 4 /* of gvas, from BIG on, of 2 MiB each */

struct world {
	struct guest_mem g;
	uint64_t rng;
	gpa_t table; /* of leaves, of the guest's; may lie in a large page */
	uint64_t *answer;
	unsigned int nr, alike;
};

static unsigned int draw(struct world *w, unsigned int n)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (w->rng >> 16) % n;
}

static void note(struct world *w, uint64_t answer)
{
	w->answer[w->nr++] = answer;
}

static gva_t somewhere(struct world *w)
{
	static const unsigned int favourites[] = {0, 1, 100, 511};
	unsigned int page = draw(w, 2) ? favourites[draw(w, 4)] : draw(w, HUGE_PAGES);

	return BIG + draw(w, PIECES) * MIB2 + page * PAGE_SIZE + 8 * draw(w, 4);
}

static void reload(struct world *w)
{
	for (unsigned int cpu = 0; cpu < 2; cpu++)
		expect_eq(shadow_load_cr3(w->g.shadow, cpu, w->g.cr3), 0);
}

static void flush(struct world *w, gva_t gva)
{
	if (draw(w, 2))
		shadow_invlpg(w->g.shadow, draw(w, 2), gva);
	else
		reload(w);
}

static void edit_pde(struct world *w)
{
	gva_t gva = BIG + draw(w, PIECES) * MIB2;
	uint64_t entry = draw(w, HUGE_REGIONS) * MIB2 | LARGE;

	switch (draw(w, 8)) {
	case 0:
		entry = 0;
		break;
	case 1:
		entry = w->table | TABLE;
		break;
	case 2:
		entry &= ~GUEST_PTE_W;
		break;
	case 3:
		entry |= GUEST_PTE_NX;
		break;
	case 4:
		entry |= GUEST_PTE_A | GUEST_PTE_D;
		break;
	}
	guest_edit(&w->g, guest_pte_gpa(&w->g, w->g.cr3, gva, 2), entry);
	flush(w, gva);
}

/* Through the tables, or the large page that they lie in: by a CPU, or for it. */
static void edit_pte(struct world *w)
{
	gpa_t pte = w->table + 8 * draw(w, 512);
	uint64_t entry = (draw(w, HUGE_REGIONS * HUGE_PAGES) << PAGE_SHIFT) | TABLE;

	guest_edit(&w->g, pte, entry);
	reload(w);
}

static void host_page(struct world *w)
{
	uint64_t page = draw(w, HUGE_REGIONS * HUGE_PAGES);
	hva_t hva = guest_hva(page << PAGE_SHIFT);

	switch (draw(w, 6)) {
	case 0:
		note(w, migrate_mapping_page(w->g.ram, page));
		break;
	case 1:
		note(w, mm_madvise(w->g.mm, hva, PAGE_SIZE, MM_MADV_DONTNEED));
		break;
	case 2:
		note(w, mm_mprotect(w->g.mm, hva, PAGE_SIZE, MM_PROT_READ));
		break;
	case 3:
		note(w, mm_mprotect(w->g.mm, GUEST_MEM_HVA, w->g.nr_pages << PAGE_SHIFT, RW));
		break;
	case 4:
		mm_clear_soft_dirty(w->g.mm);
		break;
	case 5:
		mmu_notifier_clear_flush_young(w->g.mm, hva & ~(MIB2 - 1), hva + PAGE_SIZE);
		break;
	}
}

/* The pages of a region lie alike again. */
static void make_alike(struct world *w)
{
	uint64_t region = draw(w, HUGE_REGIONS);
	pfn_t spare[HUGE_PAGES];
	unsigned int nr = 0;

	if (!w->alike)
		return;
	w->alike--;
	do
		spare[nr] = phys_alloc(w->g.phys);
	while (spare[nr++] % HUGE_PAGES != HUGE_PAGES - 1);
	for (uint64_t n = 0; n < HUGE_PAGES; n++)
		migrate_mapping_page(w->g.ram, region * HUGE_PAGES + n);
	while (nr)
		phys_put(w->g.phys, spare[--nr]);
	expect_eq(mm_mprotect(w->g.mm, GUEST_MEM_HVA, w->g.nr_pages << PAGE_SHIFT, RW), 0);
	for (uint64_t n = 0; n < HUGE_PAGES; n++)
		guest_read(&w->g, (region * HUGE_PAGES + n) << PAGE_SHIFT);
}

static void touch(struct world *w)
{
	struct model_access access = {.gva = somewhere(w), .value = draw(w, 1000)};
	unsigned int cpu = draw(w, 2);
	enum ret_pf pf;

	access.op = draw(w, 2) ? MODEL_LOAD : draw(w, 4) ? MODEL_STORE : MODEL_FETCH;
	pf = model_access_retry(w->g.model, cpu, w->g.shadow, &access);
	note(w, pf);
	/* Not A and D bits, of what may be an entry: who faults less marks less. */
	note(w, pf == RET_PF_FIXED ? access.value & ~(GUEST_PTE_A | GUEST_PTE_D) : 0);
	if (pf == RET_PF_GUEST)
		note(w, access.error_code);
	/* An edit counts from a flush on; before, the one way may be earlier than the other. */
	if (pf == RET_PF_FIXED && access.op == MODEL_STORE &&
	    access.pfn == mm_lookup_pfn(w->g.mm, guest_hva(w->table)))
		reload(w);
}

static void step(struct world *w)
{
	unsigned int what = draw(w, 100);

	if (what < 70)
		touch(w);
	else if (what < 80)
		edit_pde(w);
	else if (what < 86)
		edit_pte(w);
	else if (what < 98)
		host_page(w);
	else
		make_alike(w);
}

static unsigned int run(uint64_t seed, bool huge, uint64_t *answer, unsigned int steps,
			uint64_t *made)
{
	struct guest_mem_config config = huge_config;
	struct world w = {.rng = seed * 0x9e3779b97f4a7c15 + 1, .answer = answer, .alike = 6};

	config.audit = false;
	config.nr_frames = 2 * huge_config.nr_pages + 2 * 8 * HUGE_PAGES;
	guest_mem_init(&w.g, &config);
	touch_in_order(&w.g);
	guest_mem_attach(&w.g);
	shadow_set_huge(w.g.shadow, huge);
	shadow_set_audit(w.g.shadow, SHADOW_AUDIT_SEMANTIC);
	w.table = seed % 2 ? MIB2 + 100 * PAGE_SIZE : guest_new_table(&w.g);
	for (unsigned int i = 0; i < 512; i++)
		guest_write(&w.g, w.table + 8 * i, (i * 3) << PAGE_SHIFT | TABLE);
	for (unsigned int i = 0; i < PIECES; i++)
		guest_edit(&w.g, guest_pte_gpa(&w.g, w.g.cr3, BIG + i * MIB2, 2), i * MIB2 | LARGE);
	for (unsigned int i = 0; i < steps; i++)
		step(&w);
	for (gpa_t gpa = 0; gpa < HUGE_REGIONS * MIB2; gpa += PAGE_SIZE) {
		if (gpa != w.table)
			note(&w, guest_read(&w.g, gpa));
	}
	*made = stats_of(&w.g).huge_made;
	huge_done(&w.g);
	return w.nr;
}

TEST(huge_random, the_same_as_by_4_kib)
{
	const unsigned int seeds = test_volume(6), steps = 300;
	const size_t max = 3 * steps + HUGE_REGIONS * HUGE_PAGES;
	uint64_t *by_2m = kvcalloc(max, sizeof(*by_2m), GFP_KERNEL);
	uint64_t *by_4k = kvcalloc(max, sizeof(*by_4k), GFP_KERNEL);
	uint64_t all = 0;

	for (uint64_t seed = 0; seed < seeds; seed++) {
		uint64_t made, none;
		unsigned int nr = run(seed, true, by_2m, steps, &made);

		expect_eq(run(seed, false, by_4k, steps, &none), nr);
		expect_eq(none, 0);
		for (unsigned int i = 0; i < nr; i++) {
			if (by_2m[i] != by_4k[i])
				fail("seed %lu: answer %u of %u is %#lx by 2 MiB, %#lx by 4 KiB",
				     seed, i, nr, by_2m[i], by_4k[i]);
		}
		all += made;
	}
	expect_ge(all, 3 * seeds);
	kvfree(by_2m, max * sizeof(*by_2m));
	kvfree(by_4k, max * sizeof(*by_4k));
}
