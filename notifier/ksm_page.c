// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A merged page: one frame that stands for equal pages of several families, and the way back from
 * it to all places that map it (kernel: the stable nodes of mm/ksm.c).
 *
 * A private page has one family and one number in it, and both fit into its frame. A merged page
 * has as many as were merged: its sites. Each site stands for that page of a whole family, so that
 * what a fork copies, or a move takes along, is found without anybody adding to the list.
 *
 *  1. A site is there before the first entry that it is needed for, and goes, at the earliest, when
 *     a walk of it under the frame lock has found no such entry: nobody adds one meanwhile, but a
 *     fork, which copies an entry that is there, under the lock that the walk holds.
 *  2. The contents of a merged page never change: no entry is writable when it becomes one, and
 *     while it is one, whoever writes gets a copy (mm_cow.c).
 *  3. The page lives for as long as it is mapped, as every private page does. Whoever takes the
 * last mapping away has the frame locked, but not ksm->mutex, and so leaves this structure to the
 *     scanner:
 *
 *       unmap                                     scanner, with the mutex
 *       -----                                     -----------------------
 *       clears the last entry                     finds the page in the tree: pfn A
 *       lock A. Not mapped:                       lock A ... waits
 *         A.mapping := 0, pfn := none,
 *         sites freed
 *       unlock A, put A                           has the lock of A. pfn is not A: the page is gone
 *                                                 takes the structure out of the tree, frees it
 *
 *     Storing the pfn is the last that the left side does with the structure; and the right side
 *     frees it only when it has seen that. Replayed by tests/unit/test_ksm_races.c
 * (a_page_goes_...).
 *  4. A page that loses its last mapping and gains a new one before the frame lock is had by the
 *     unmapper is not gone: it looks at the mapcount again (mm_zap.c).
 */
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"

static int compare_sites(const struct ksm_site *a, const struct ksm_site *b)
{
	if (a->page != b->page)
		return a->page < b->page ? -1 : 1;
	return (uintptr_t)a->anon_vma < (uintptr_t)b->anon_vma ? -1 : a->anon_vma != b->anon_vma;
}

RB_GENERATE_INTERNAL(ksm_site_tree, ksm_site, node, compare_sites, static __attribute__((unused)))

struct ksm_page *ksm_page_create(void)
{
	struct ksm_page *page = kzalloc(sizeof(*page), GFP_KERNEL);

	if (page)
		page->pfn = INVALID_PFN;
	return page;
}

void ksm_page_free(struct ksm_page *page)
{
	/* Pairs with the release in set_no_frame(). */
	ASSERT(smp_load_acquire(&page->pfn) == INVALID_PFN && RB_EMPTY(&page->sites),
	       "a frame names its ksm_page for as long as it is mapped");
	kfree(page);
}

/* ---- sites ---- */

void ksm_page_remove_site(struct ksm_page *page, struct ksm_site *site)
{
	RB_REMOVE(ksm_site_tree, &page->sites, site);
	anon_vma_put(site->anon_vma);
	kfree(site);
}

static void remove_all_sites(struct ksm_page *page)
{
	struct ksm_site *site;

	while ((site = RB_ROOT(&page->sites)))
		ksm_page_remove_site(page, site);
}

bool ksm_page_add_site(struct ksm_page *page, struct ksm_site *site, struct anon_vma *anon_vma,
		       uint64_t number)
{
	site->anon_vma = anon_vma;
	site->page = number;
	if (RB_INSERT(ksm_site_tree, &page->sites, site))
		return false;
	anon_vma_get(anon_vma);
	return true;
}

void ksm_page_walk(struct ksm_page *page,
		   void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg), void *arg)
{
	struct ksm_site *site;

	RB_FOREACH(site, ksm_site_tree, &page->sites)
		rmap_walk_anon(site->anon_vma, site->page, fn, arg);
}

struct site_search {
	pfn_t pfn;
	bool found;
};

static void look_for_entry(struct vm_area_struct *vma, hva_t hva, void *arg)
{
	struct site_search *search = arg;
	pte_t *ptep = pgtable_lookup(vma->mm->pgtable, hva);
	pte_t pte = ptep ? pte_load(ptep) : 0;

	if (pte_present(pte) && pte_pfn(pte) == search->pfn)
		search->found = true;
}

void ksm_page_prune(struct ksm_page *page)
{
	struct ksm_site *site, *next;

	RB_FOREACH_SAFE(site, ksm_site_tree, &page->sites, next)
	{
		struct site_search search = {.pfn = page->pfn};

		rmap_walk_anon(site->anon_vma, site->page, look_for_entry, &search);
		if (!search.found)
			ksm_page_remove_site(page, site);
	}
}

/* ---- the frame ---- */

/* Release: it is the last that is done with @page by one who has no ksm->mutex. */
static void set_no_frame(struct ksm_page *page)
{
	remove_all_sites(page);
	smp_store_release(&page->pfn, INVALID_PFN);
}

static bool is_frame_of(struct ksm_page *page, struct phys *phys, pfn_t pfn)
{
	const struct frame *frame = pfn_to_frame(phys, pfn);

	if (READ_ONCE(page->pfn) != pfn)
		return false;
	ASSERT(frame_is_ksm(frame) && frame_ksm_page(frame) == page,
	       "a merged page and its frame name each other");
	return true;
}

bool lock_ksm_page(struct ksm_page *page, struct phys *phys, pfn_t *pfn)
{
	while ((*pfn = smp_load_acquire(&page->pfn)) != INVALID_PFN) {
		lock_frame(phys, *pfn);
		if (is_frame_of(page, phys, *pfn))
			return true;
		unlock_frame(phys, *pfn); /* it moved, or is gone */
	}
	return false;
}

bool trylock_ksm_page(struct ksm_page *page, struct phys *phys, pfn_t *pfn)
{
	*pfn = smp_load_acquire(&page->pfn);
	if (*pfn == INVALID_PFN || !trylock_frame(phys, *pfn))
		return false;
	if (is_frame_of(page, phys, *pfn))
		return true;
	unlock_frame(phys, *pfn);
	return false;
}

/* All who map it are of the family that the frame names, so one site is all. */
void ksm_page_make(struct ksm_page *page, struct phys *phys, pfn_t pfn, struct ksm_site *site)
{
	struct frame *frame = pfn_to_frame(phys, pfn);

	ASSERT(frame_locked(frame) && frame_anon_vma(frame), "the frame is a private page, locked");
	ksm_page_add_site(page, site, frame_anon_vma(frame), frame->index);
	frame_clear(frame, FRAME_LAZYFREE); /* it is others', too, who did not give it up */
	frame_set(frame, FRAME_DIRTY);
	WRITE_ONCE(page->pfn, pfn);
	set_frame_mapping(frame, (uintptr_t)page | FRAME_MAPPING_KSM);
}

/*
 * If it is mapped, then by its only site's family, which is kept by the area that maps it, whose
 * last unmapper has yet to get the frame lock.
 */
void ksm_page_unmake(struct ksm_page *page, struct phys *phys)
{
	const struct ksm_site *site;
	struct frame *frame;
	pfn_t pfn;

	if (!lock_ksm_page(page, phys, &pfn))
		return;
	frame = pfn_to_frame(phys, pfn);
	site = RB_ROOT(&page->sites);
	if (atomic_read(&frame->mapcount)) {
		frame->index = site->page;
		set_frame_mapping(frame, (uintptr_t)site->anon_vma | FRAME_MAPPING_ANON);
	} else {
		set_frame_mapping(frame, 0);
	}
	set_no_frame(page);
	unlock_frame(phys, pfn);
}

void ksm_page_moved(struct ksm_page *page, pfn_t pfn)
{
	WRITE_ONCE(page->pfn, pfn);
}

void ksm_page_gone(struct frame *frame)
{
	struct ksm_page *page = frame_ksm_page(frame);

	ASSERT(frame_locked(frame) && !atomic_read(&frame->mapcount),
	       "the frame is locked, and mapped nowhere");
	set_frame_mapping(frame, 0);
	set_no_frame(page);
}
