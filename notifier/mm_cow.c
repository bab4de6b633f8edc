// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Copy-on-write: a private page that others may have, too, is mapped read-only by all of them, and
 * whoever writes gets a copy, or the page itself if it turns out to be the only one who has it
 * (kernel: do_wp_page in mm/memory.c).
 *
 * Who "has" a page: each entry that maps it, and each holder of a reference, who may be reading it
 * for somebody (mm_access.c). So with the frame locked, one mapping and no reference but ours and
 * the entry's means that nobody else will see what is written:
 *
 *   parent (child unmapped the page meanwhile)       read by the child, begun before
 *   ------------------------------------------       -------------------------------
 *                                                    F.refcount++, entry still F
 *   write: one mapping, but three references:
 *     copies to G, entry := G
 *   writes to G                                      reads F: what it was at the fork
 *
 * Had the parent taken F for its own, the child would read what the parent wrote after the fork.
 *
 * No one can gain a reference meanwhile but through our own entry, for our own mm.
 *
 * If the page is known to have been shared with nobody (PTE_OWN) references do not matter: all are
 * for this mm. One of them may be a pin, whose holder is to see what is written; a copy, for a
 * reader's sake who comes and goes, would leave it with a page that is nobody's
 * (tests/unit/test_mm_cow.c: a_pinned_page_is_not_copied).
 *
 * The copy takes the old page's place in a window: to secondaries it is another frame. The copy
 * is made before the window is opened, while the entry still is read-only; that it still is the
 * same afterwards is checked under page_table_lock, and then nobody wrote to it through this mm;
 * nor through another, as they have it read-only, too.
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/contents.h"
#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/swap.h"
#include "notifier/mutations.h"
#include "notifier/sync/lock.h"

#define MADE_WRITABLE (PTE_READ | PTE_WRITE | PTE_ACCESSED | PTE_DIRTY | PTE_SOFT_DIRTY | PTE_OWN)

bool get_entry_frame(struct mm_struct *mm, pte_t *ptep, pte_t pte)
{
	if (!phys_get_unless_zero(mm->phys, pte_pfn(pte)))
		return false;
	if (pte_load(ptep) == pte)
		return true;
	phys_put(mm->phys, pte_pfn(pte));
	return false;
}

/*
 * With the frame locked, and a reference of the caller's. A merged page is nobody's. A page that is
 * in the swap cache belongs to those, too, who have the swap entry.
 */
static bool is_only_ours(const struct frame *frame, pte_t pte)
{
	if (!frame_anon_vma(frame) || atomic_read(&frame->mapcount) != 1 ||
	    frame_test(frame, FRAME_SWAPCACHE))
		return false;
	return (pte & PTE_OWN) || atomic_read(&frame->refcount) == 2 + frame_base_refs(frame);
}

/*
 * True if the entry is writable now. A reference is the caller's.
 *
 * A page leaves the swap cache before it is written to, or the next swap-out takes what the slot
 * has for what the page has (swap.h, rule 4). Who drops the last user of a slot sees to that, but
 * may come too late for us:
 *
 *   child's entry for slot 5 is zapped        parent writes, entry F, F is slot 5's cached copy
 *   ----------------------------------        -------------------------------------------------
 *   users of slot 5: none                     locks F. In the cache, but nobody uses the slot:
 *                                               F leaves; entry F is writable. Stores
 *                                             swap-out: F is in no slot, gets one, is written
 *   locks slot 5's cached copy: there is none
 *
 * Replayed by tests/unit/test_swap_fork.c (a_write_while_the_last_user_goes).
 */
static bool reuse_page(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte)
{
	struct mm_struct *mm = vma->mm;
	pfn_t pfn = pte_pfn(pte);
	struct frame *frame = pfn_to_frame(mm->phys, pfn);
	bool reused = false;

	lock_frame(mm->phys, pfn);
	leave_swap_cache_if_unused(mm->phys, pfn);
	spin_lock(&mm->page_table_lock);
	if (is_only_ours(frame, pte))
		reused = change_pte(mm, hva, ptep, &pte, pte | MADE_WRITABLE);
	spin_unlock(&mm->page_table_lock);
	unlock_frame(mm->phys, pfn);
	return reused;
}

/* @copy, the entry of a locked frame, takes the place of @pte. False if that is another by now. */
static bool replace_page(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte, pte_t copy)
{
	struct mm_struct *mm = vma->mm;
	struct mmu_notifier_range range;
	bool replaced;

	mutation_range_init(&range, MUTATION_COPY, mm, hva, hva + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	spin_lock(&mm->page_table_lock);
	replaced = change_pte(mm, hva, ptep, &pte, copy);
	if (replaced) {
		atomic_inc(&pfn_to_frame(mm->phys, pte_pfn(copy))->mapcount);
		atomic_dec(&pfn_to_frame(mm->phys, pte_pfn(pte))->mapcount);
	}
	spin_unlock(&mm->page_table_lock);
	mmu_notifier_invalidate_range_end(&range);
	return replaced;
}

/*
 * A reference on the old frame is the caller's; @flags are those of the new entry. 0, -ENOMEM.
 */
static int copy_page(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte, pte_t flags)
{
	struct phys *phys = vma->mm->phys;
	pfn_t copy = alloc_user_frame(phys);
	bool replaced;

	if (copy == INVALID_PFN)
		return pte_load(ptep) == pte ? -ENOMEM : 0;
	contents_copy_page(phys_map(phys, copy), phys_map(phys, pte_pfn(pte)));
	lock_frame(phys, copy);
	set_anon_frame(vma, hva, copy);
	replaced = replace_page(vma, hva, ptep, pte, pte_make(copy, PTE_PRESENT | flags));
	if (!replaced)
		set_frame_mapping(pfn_to_frame(phys, copy), 0);
	unlock_frame(phys, copy);
	if (replaced) {
		atomic64_inc(&vma->mm->nr_cow);
		unmapped_page(vma, pte_pfn(pte)); /* with the entry's reference */
	} else {
		phys_put(phys, copy);
	}
	return 0;
}

int cow_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte)
{
	struct mm_struct *mm = vma->mm;
	int ret = 0;

	if (!get_entry_frame(mm, ptep, pte))
		return 0; /* the caller looks again */
	if (!reuse_page(vma, hva, ptep, pte))
		ret = copy_page(vma, hva, ptep, pte, MADE_WRITABLE);
	phys_put(mm->phys, pte_pfn(pte));
	return ret;
}

int unshare_fault(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, pte_t pte)
{
	int ret;

	if (!get_entry_frame(vma->mm, ptep, pte))
		return 0;
	ret = copy_page(vma, hva, ptep, pte,
			(pte & PTE_KEEP) | vma_pte_rights(vma) | PTE_DIRTY | PTE_OWN);
	phys_put(vma->mm->phys, pte_pfn(pte));
	return ret;
}
