/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reverse maps: from a frame to the places that map it. A shared page is found through its
 * address_space, a private one through its anon_vma; both have a tree of VMAs by page, and a VMA
 * and a page number give the hva. Pages that were merged into one have several of the latter
 * (ksm_page.c).
 *
 * Who keeps an anon_vma alive: its VMAs, and each migration of one of its pages. A frame names its
 * anon_vma without a reference, which is enough for whoever has the frame locked: a VMA drops its
 * reference only after every page that it mapped was unmapped, and whoever unmaps a page last takes
 * it out of frame->mapping, frame lock held (unmapped_page); a page that a migration has unmapped,
 * which no VMA sees any more, is covered by that migration's own reference.
 */
#include "notifier/frame.h"
#include "notifier/ksm_internal.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

struct anon_vma *anon_vma_create(void)
{
	struct anon_vma *anon_vma = kzalloc(sizeof(*anon_vma), GFP_KERNEL);

	if (!anon_vma)
		return NULL;
	refcount_set(&anon_vma->refs, 1);
	init_rwsem_class(&anon_vma->rwsem, &lockdep_anon_vma_rwsem);
	return anon_vma;
}

void anon_vma_get(struct anon_vma *anon_vma)
{
	refcount_inc(&anon_vma->refs);
}

void anon_vma_put(struct anon_vma *anon_vma)
{
	if (!refcount_dec_and_test(&anon_vma->refs))
		return;
	ASSERT(!anon_vma->vmas.rbh_root, "a VMA holds a reference on its anon_vma");
	kfree(anon_vma);
}

struct anon_vma *frame_anon_vma(const struct frame *frame)
{
	uintptr_t mapping = READ_ONCE(frame->mapping);

	if ((mapping & FRAME_MAPPING_KIND) != FRAME_MAPPING_ANON)
		return NULL;
	return (struct anon_vma *)(mapping & ~FRAME_MAPPING_KIND);
}

struct address_space *frame_address_space(const struct frame *frame)
{
	uintptr_t mapping = READ_ONCE(frame->mapping);

	return mapping & FRAME_MAPPING_KIND ? NULL : (struct address_space *)mapping;
}

static void walk_mapping(struct address_space *mapping, uint64_t page,
			 void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg), void *arg)
{
	struct interval_tree_node *node;

	down_read(&mapping->i_mmap_rwsem);
	for (node = interval_tree_first(&mapping->i_mmap, page, page); node;
	     node = interval_tree_next(node, page, page)) {
		struct vm_area_struct *vma = container_of(node, struct vm_area_struct, in_mapping);

		fn(vma, vma_page_hva(vma, page), arg);
	}
	up_read(&mapping->i_mmap_rwsem);
}

void rmap_walk_anon(struct anon_vma *anon_vma, uint64_t page,
		    void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg), void *arg)
{
	struct interval_tree_node *node;

	down_read(&anon_vma->rwsem);
	for (node = interval_tree_first(&anon_vma->vmas, page, page); node;
	     node = interval_tree_next(node, page, page)) {
		struct vm_area_struct *vma = container_of(node, struct vm_area_struct, in_anon_vma);

		fn(vma, vma_page_hva(vma, page), arg);
	}
	up_read(&anon_vma->rwsem);
}

void rmap_walk(struct frame *frame, void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg),
	       void *arg)
{
	ASSERT(frame_locked(frame) && frame->mapping, "the frame is a page, and locked");
	if (frame_anon_vma(frame))
		rmap_walk_anon(frame_anon_vma(frame), frame->index, fn, arg);
	else if (frame_is_ksm(frame))
		ksm_page_walk(frame_ksm_page(frame), fn, arg);
	else
		walk_mapping(frame_address_space(frame), frame->index, fn, arg);
}
