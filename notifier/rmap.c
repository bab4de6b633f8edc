/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reverse maps: from a frame to the places that map it. A shared page is found through its
 * address_space, a private one through its anon_vma; both list VMAs, and a VMA and a page index
 * give the hva.
 *
 * Who keeps an anon_vma alive: its VMA, and each migration of one of its pages. A frame names its
 * anon_vma without a reference, which is enough for whoever has the frame locked: the VMA drops its
 * reference only after every page that it mapped was taken out of frame->mapping, frame lock held
 * (zap_entry), and a page that a migration has unmapped, which the VMA no longer sees, is covered
 * by that migration's own reference.
 */
#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"

struct anon_vma *anon_vma_create(void)
{
	struct anon_vma *anon_vma = kzalloc(sizeof(*anon_vma), GFP_KERNEL);

	if (!anon_vma)
		return NULL;
	refcount_set(&anon_vma->refs, 1);
	init_rwsem_class(&anon_vma->rwsem, &lockdep_anon_vma_rwsem);
	INIT_LIST_HEAD(&anon_vma->vmas);
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
	ASSERT(list_empty(&anon_vma->vmas), "a VMA holds a reference on its anon_vma");
	kfree(anon_vma);
}

struct anon_vma *frame_anon_vma(const struct frame *frame)
{
	if (!(frame->mapping & FRAME_MAPPING_ANON))
		return NULL;
	return (struct anon_vma *)(frame->mapping & ~FRAME_MAPPING_ANON);
}

struct address_space *frame_address_space(const struct frame *frame)
{
	if (frame->mapping & FRAME_MAPPING_ANON)
		return NULL;
	return (struct address_space *)frame->mapping;
}

void rmap_walk(struct frame *frame, void (*fn)(struct vm_area_struct *vma, hva_t hva, void *arg),
	       void *arg)
{
	struct address_space *mapping = frame_address_space(frame);
	struct anon_vma *anon_vma = frame_anon_vma(frame);
	struct rw_semaphore *lock = mapping ? &mapping->i_mmap_rwsem : &anon_vma->rwsem;
	struct list_head *vmas = mapping ? &mapping->i_mmap : &anon_vma->vmas;
	struct vm_area_struct *vma;

	ASSERT(frame_locked(frame) && frame->mapping, "the frame is a page, and locked");
	down_read(lock);
	list_for_each_entry(vma, vmas, shared) {
		hva_t hva;

		if (frame->index < vma->pgoff)
			continue;
		hva = vma->start + ((frame->index - vma->pgoff) << PAGE_SHIFT);
		if (hva < vma->end)
			fn(vma, hva, arg);
	}
	up_read(lock);
}
