/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The areas of an address space: which hvas mean something, and what.
 *
 * VMAs never overlap. A VMA joins the tree and its reverse map in one go under mmap_lock held for
 * writing, and leaves both at exit; in between nothing in it changes. Whoever holds mmap_lock, or
 * the reverse-map lock through which it found a VMA, may use the VMA.
 */
#include <errno.h>

#include "notifier/mm_internal.h"
#include "notifier/sync/alloc.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/lock.h"

static int compare_vmas(const struct vm_area_struct *a, const struct vm_area_struct *b)
{
	return a->start < b->start ? -1 : a->start > b->start;
}

RB_GENERATE_INTERNAL(vma_tree, vm_area_struct, node, compare_vmas, static __attribute__((unused)))

/* The first VMA that ends above @addr. */
static struct vm_area_struct *find_vma_above(struct mm_struct *mm, hva_t addr)
{
	struct vm_area_struct *vma = RB_ROOT(&mm->vmas), *best = NULL;

	lockdep_assert_held(&mm->mmap_lock);
	while (vma) {
		if (addr < vma->end) {
			best = vma;
			vma = RB_LEFT(vma, node);
		} else {
			vma = RB_RIGHT(vma, node);
		}
	}
	return best;
}

struct vm_area_struct *find_vma(struct mm_struct *mm, hva_t addr)
{
	struct vm_area_struct *vma = find_vma_above(mm, addr);

	return vma && vma->start <= addr ? vma : NULL;
}

struct vm_area_struct *vma_first(struct mm_struct *mm)
{
	lockdep_assert_held(&mm->mmap_lock);
	return RB_MIN(vma_tree, &mm->vmas);
}

struct vm_area_struct *vma_next(struct vm_area_struct *vma)
{
	lockdep_assert_held(&vma->mm->mmap_lock);
	return RB_NEXT(vma_tree, &vma->mm->vmas, vma);
}

bool hva_range_ok(hva_t addr, uint64_t len)
{
	return PAGE_ALIGNED(addr) && PAGE_ALIGNED(len) && addr <= HVA_MAX && len <= HVA_MAX - addr;
}

/* The reverse map that leads to @vma. */
static struct rw_semaphore *rmap_lock(struct vm_area_struct *vma)
{
	return vma->mapping ? &vma->mapping->i_mmap_rwsem : &vma->anon_vma->rwsem;
}

static void link_vma(struct vm_area_struct *vma)
{
	lockdep_assert_held_write(&vma->mm->mmap_lock);
	RB_INSERT(vma_tree, &vma->mm->vmas, vma);
	down_write(rmap_lock(vma));
	list_add_tail(&vma->shared, vma->mapping ? &vma->mapping->i_mmap : &vma->anon_vma->vmas);
	up_write(rmap_lock(vma));
}

static void free_vma(struct vm_area_struct *vma)
{
	if (vma->mapping)
		address_space_put(vma->mapping);
	if (vma->anon_vma)
		anon_vma_put(vma->anon_vma);
	kfree(vma);
}

static struct vm_area_struct *create_vma(struct mm_struct *mm, hva_t addr, uint64_t len,
					 unsigned int prot, struct address_space *mapping,
					 uint64_t pgoff)
{
	struct vm_area_struct *vma = kzalloc(sizeof(*vma), GFP_KERNEL);

	if (!vma)
		return NULL;
	vma->mm = mm;
	vma->start = addr;
	vma->end = addr + len;
	vma->prot = prot;
	vma->pgoff = mapping ? pgoff : addr >> PAGE_SHIFT;
	if (mapping) {
		address_space_get(mapping);
		vma->mapping = mapping;
		return vma;
	}
	vma->anon_vma = anon_vma_create();
	if (!vma->anon_vma) {
		kfree(vma);
		return NULL;
	}
	return vma;
}

static bool mmap_arguments_ok(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
			      struct address_space *mapping, uint64_t pgoff)
{
	uint64_t nr_pages = len >> PAGE_SHIFT;

	if (!hva_range_ok(addr, len) || len == 0)
		return false;
	/* As in hardware: what can be written can be read. */
	if (prot != MM_PROT_READ && prot != (MM_PROT_READ | MM_PROT_WRITE))
		return false;
	if (!mapping)
		return true;
	return mapping->phys == mm->phys && pgoff <= mapping->nr_pages &&
	       nr_pages <= mapping->nr_pages - pgoff;
}

int mm_mmap(struct mm_struct *mm, hva_t addr, uint64_t len, unsigned int prot,
	    struct address_space *mapping, uint64_t pgoff)
{
	struct vm_area_struct *vma, *above;
	int ret = 0;

	if (!mmap_arguments_ok(mm, addr, len, prot, mapping, pgoff))
		return -EINVAL;
	vma = create_vma(mm, addr, len, prot, mapping, pgoff);
	if (!vma)
		return -ENOMEM;

	mmap_write_lock(mm);
	above = find_vma_above(mm, addr);
	if (above && above->start < vma->end)
		ret = -EEXIST;
	else
		link_vma(vma);
	mmap_write_unlock(mm);

	if (ret)
		free_vma(vma);
	return ret;
}

/*
 * Once a VMA is out of its reverse map no walker can find it. One that found it before, and holds
 * the lock, still works on its entries: taking the lock for writing waits for that walker.
 */
void unlink_vmas(struct mm_struct *mm)
{
	lockdep_assert_held_write(&mm->mmap_lock);
	for (struct vm_area_struct *vma = vma_first(mm); vma; vma = vma_next(vma)) {
		down_write(rmap_lock(vma));
		list_del_init(&vma->shared);
		up_write(rmap_lock(vma));
	}
}

void free_vmas(struct mm_struct *mm)
{
	struct vm_area_struct *vma;

	lockdep_assert_held_write(&mm->mmap_lock);
	while ((vma = RB_MIN(vma_tree, &mm->vmas))) {
		RB_REMOVE(vma_tree, &mm->vmas, vma);
		free_vma(vma);
	}
}
