/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The radix tree of the primary page table, and the bits of its entries.
 */
#include <string.h>

#include "notifier/pgtable.h"
#include "notifier/srcu_internal.h"
#include "tests/support/fail_alloc.h"
#include "tests/support/mm_fixture.h"
#include "tests/support/test.h"

TEST(pgtable, entries_have_addresses_of_their_own)
{
	/* Neighbours at every level: a page, a leaf, and so on up, and both ends. */
	static const hva_t hvas[] = {
		0,
		PAGE_SIZE,
		1UL << 21,
		(1UL << 21) + PAGE_SIZE,
		1UL << 30,
		(1UL << 30) + (1UL << 21),
		1UL << 39,
		1UL << 46,
		HVA_MAX - PAGE_SIZE,
	};
	struct pgtable *pt = pgtable_create();
	pte_t *pte[ARRAY_SIZE(hvas)];

	expect(pt);
	for (size_t i = 0; i < ARRAY_SIZE(hvas); i++) {
		pte[i] = pgtable_get(pt, hvas[i]);
		expect(pte[i]);
		expect(pte_none(*pte[i]));
		for (size_t j = 0; j < i; j++)
			expect_ne((uintptr_t)pte[i], (uintptr_t)pte[j]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(hvas); i++) {
		expect_eq((uintptr_t)pgtable_get(pt, hvas[i]), (uintptr_t)pte[i]);
		expect_eq((uintptr_t)pgtable_lookup(pt, hvas[i] + 0xfff), (uintptr_t)pte[i]);
	}
	pgtable_destroy(pt);
}

TEST(pgtable, lookup_makes_nothing)
{
	struct pgtable *pt = pgtable_create();

	expect(!pgtable_lookup(pt, 0));
	expect(!pgtable_lookup(pt, HVA_MAX - PAGE_SIZE));
	expect(pgtable_get(pt, 0x1234000));
	expect(pgtable_lookup(pt, 0x1235000));
	expect(!pgtable_lookup(pt, 0x1234000 + (1UL << 21)));
	expect(!pgtable_lookup(pt, HVA_MAX));
	expect(!pgtable_lookup(pt, 0x1234000 + HVA_MAX));
	expect(!pgtable_lookup(pt, 0x1234000 + (1UL << 48)));
	expect(!pgtable_lookup(pt, ~0UL));
	pgtable_destroy(pt);
}

/* From page to page over the ends of leaves, of which some are missing: what a lookup finds. */
TEST(pgtable, next_finds_what_lookup_finds)
{
	static const hva_t leaves[] = {0, 1, 3, 511, 512};
	struct pgtable *pt = pgtable_create();
	unsigned int found = 0;
	pte_t *ptep = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		expect(pgtable_get(pt, leaves[i] * PGTABLE_LEAF_SIZE));
	for (hva_t hva = 0; hva < 514 * PGTABLE_LEAF_SIZE; hva += PAGE_SIZE) {
		ptep = pgtable_next(pt, ptep, hva);
		expect_eq((uintptr_t)ptep, (uintptr_t)pgtable_lookup(pt, hva));
		found += ptep != NULL;
	}
	expect_eq(found, ARRAY_SIZE(leaves) * 512);
	pgtable_destroy(pt);
}

struct visits {
	hva_t hva[8];
	unsigned int nr, stop_after;
	uint64_t all;
};

static int visit(pte_t *ptep, hva_t hva, void *arg)
{
	struct visits *v = arg;

	v->all++;
	if (pte_none(*ptep))
		return 0;
	expect_eq(pte_pfn(*ptep), hva >> PAGE_SHIFT);
	v->hva[v->nr++] = hva;
	return v->nr == v->stop_after ? 77 : 0;
}

TEST(pgtable, walk_visits_in_order_and_skips_holes)
{
	static const hva_t hvas[] = {
		0x5000,	   (1UL << 21) - PAGE_SIZE, 1UL << 21, 3UL << 30,
		5UL << 39, HVA_MAX - PAGE_SIZE,
	};
	struct pgtable *pt = pgtable_create();
	struct visits v = {.nr = 0};

	for (size_t i = 0; i < ARRAY_SIZE(hvas); i++)
		*pgtable_get(pt, hvas[i]) = pte_make(hvas[i] >> PAGE_SHIFT, PTE_PRESENT);

	expect_eq(pgtable_walk(pt, 0, HVA_MAX, visit, &v), 0);
	expect_eq(v.nr, ARRAY_SIZE(hvas));
	expect(memcmp(v.hva, hvas, sizeof(hvas)) == 0);
	expect_eq(v.all, 5 * 512); /* five leaves exist; the first is shared by two entries */

	/* Both ends are exact. */
	v = (struct visits){.nr = 0};
	expect_eq(pgtable_walk(pt, 0x6000, 1UL << 21, visit, &v), 0);
	expect_eq(v.nr, 1);
	expect_eq(v.hva[0], hvas[1]);
	expect_eq(v.all, 512 - 6);
	v = (struct visits){.nr = 0};
	expect_eq(pgtable_walk(pt, 0x5000, 0x5000, visit, &v), 0);
	expect_eq(v.all, 0);

	v = (struct visits){.stop_after = 3};
	expect_eq(pgtable_walk(pt, 0, HVA_MAX, visit, &v), 77);
	expect_eq(v.nr, 3);
	expect_eq(v.hva[2], hvas[2]);

	for (size_t i = 0; i < ARRAY_SIZE(hvas); i++)
		*pgtable_get(pt, hvas[i]) = 0;
	pgtable_destroy(pt);
}

TEST(pgtable, bits)
{
	pte_t pte = pte_make(0x12345, PTE_PRESENT | PTE_READ | PTE_WRITE), word = pte;
	pte_t moving = pte_make(0xffffffffffUL, PTE_MIGRATION);

	expect(pte_present(pte) && !pte_none(pte) && !pte_migration(pte));
	expect_eq(pte_pfn(pte), 0x12345);
	expect(pte_allows(pte, true));
	expect(pte_allows(pte, false));
	expect(pte_allows(pte_make(1, PTE_PRESENT | PTE_READ), false));
	expect(!pte_allows(pte_make(1, PTE_PRESENT | PTE_READ), true));
	expect(!pte_allows(pte_make(1, PTE_PRESENT), false));
	expect(!pte_present(moving) && !pte_none(moving) && pte_migration(moving));
	expect_eq(pte_pfn(moving), 0xffffffffffUL);
	expect(!pte_allows(moving | PTE_WRITE, true));

	expect(pte_touch(&word, pte, false));
	expect_eq(word, pte | PTE_ACCESSED);
	expect(!pte_touch(&word, pte, true)); /* not what is there any more */
	expect_eq(word, pte | PTE_ACCESSED);
	expect(pte_touch(&word, word, true));
	expect_eq(word, pte | PTE_ACCESSED | PTE_DIRTY | PTE_SOFT_DIRTY);
	expect(pte_touch(&word, word, true));
	expect(!pte_touch(&word, 0, false));
}

static void destroy_with_an_entry(void *arg)
{
	struct pgtable *pt = pgtable_create();

	(void)arg;
	*pgtable_get(pt, 0x1000) = pte_make(1, PTE_PRESENT);
	pgtable_destroy(pt);
}

static void get_beyond(void *arg)
{
	(void)arg;
	pgtable_get(pgtable_create(), HVA_MAX);
}

TEST(pgtable, misuse_is_a_bug)
{
	expect_bug(destroy_with_an_entry, NULL, "a freed table has no entries");
	expect_bug(get_beyond, NULL, "below HVA_MAX");
	pgtable_destroy(NULL);
}

/* With the first table is made what all have in common: that may fail, and fails no one else. */
TEST(pgtable, the_first_of_all_fails)
{
	struct pgtable *pt;
	int64_t site = 0;

	do {
		alloc_fail_at(site);
		pt = pgtable_create();
		alloc_fail_at(-1);
	} while (!pt && ++site < 100);
	expect(pt);
	expect_ge(site, 2); /* the domain, and the table */
	pgtable_destroy(pt);
#ifdef CONFIG_LOCKDEP
	expect_str_eq(pgtable_srcu.d->dep.name, "pgtable_srcu");
#endif
}

static void create_and_use(void *arg)
{
	struct pgtable *pt = pgtable_create();

	(void)arg;
	expect(pt);
	pgtable_read_unlock(pgtable_read_lock());
	pgtable_destroy(pt);
}

/* Two threads at once may be the first (tsan). */
TEST(pgtable, the_first_of_two)
{
	test_threads(2, create_and_use, NULL);
}

#define RACED_ENTRIES 4096

struct get_race {
	struct pgtable *pt;
	atomic_t next_thread;
	pte_t *pte[4][RACED_ENTRIES];
};

/* One entry in each of many leaves, below several directories: most installations are raced. */
static hva_t raced_hva(unsigned int i)
{
	return ((hva_t)i << 21) + ((hva_t)(i % 7) << 39) + ((hva_t)(i % 512) << PAGE_SHIFT);
}

static void getter(void *arg)
{
	struct get_race *r = arg;
	int me = atomic_fetch_add(1, &r->next_thread);

	for (unsigned int i = 0; i < RACED_ENTRIES; i++) {
		r->pte[me][i] = pgtable_get(r->pt, raced_hva(i));
		expect(r->pte[me][i]);
		__atomic_fetch_add(r->pte[me][i], 1, __ATOMIC_RELAXED);
	}
}

TEST(pgtable, concurrent_gets_agree)
{
	static struct get_race r;
	int64_t live;

	/* What all page tables have in common is made with the first. */
	pgtable_destroy(pgtable_create());
	live = atomic64_read(&allocs.live);
	r.pt = pgtable_create();
	test_threads(4, getter, &r);
	for (unsigned int i = 0; i < RACED_ENTRIES; i++) {
		for (int thread = 1; thread < 4; thread++)
			expect_eq((uintptr_t)r.pte[thread][i], (uintptr_t)r.pte[0][i]);
		expect_eq(*pgtable_lookup(r.pt, raced_hva(i)), 4);
		*r.pte[0][i] = 0;
	}
	pgtable_destroy(r.pt);
	/* Nor did a table stay that came too late. */
	expect_eq(atomic64_read(&allocs.live), live);
}
