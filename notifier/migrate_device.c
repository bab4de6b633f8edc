// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Pages in the memory of a device: there, and back (kernel: mm/migrate_device.c, and
 * lib/test_hmm.c, which does by hand what is done here for all devices).
 *
 * Only private pages that one entry maps go, so that there is one entry to change, which is found
 * without a reverse map; and areas stay what they are meanwhile, as mmap_lock is held all the way.
 * Zaps come in between, and win. There:
 *
 *   1. Lock the frame, by trylock, and take a frame of the device's. All that can fail.
 *   2. In one window for a batch: present entry -> migration entry. Who wants the page waits.
 *   3. Freeze the references (migrate.c has the ladder). The page is ours; else it stays.
 *   4. The device drops what it has of the page, and copies it.
 *   5. Migration entry -> device-private entry, if it is still there. The frame is freed.
 *
 * And back, when somebody wants the page who is not that device:
 *
 *   1. A new frame, locked. It is no page yet: nobody else waits for it for long.
 *   2. In a window: device-private entry -> migration entry that names the new frame, so that who
 *      comes now waits for that one's lock. Of several who want the page one gets through.
 *   3. The device drops what it has of the page, and copies it.
 *   4. Migration entry -> present entry, if it is still there. The device's frame is freed.
 *
 * Both windows have the device's owner, so that the device need not throw out the whole range: it
 * drops page by page, when it copies. But it must take note that there was a window:
 *
 *   device, wants page 7                      mm_migrate_to_device, of the same device
 *   --------------------                      ----------------------------------------
 *   seq = read_begin
 *   hmm_range_fault: frame A
 *                                             window, ours. (set_seq)
 *                                             copies A: the device has nothing of page 7 to drop
 *                                             frees A
 *   lock; read_retry: true. Again
 *
 * Without set_seq it would have A in its table now, which is somebody else's. Replayed by
 * tests/unit/test_migrate_device_races.c (migrated_before_the_lock).
 */
#include <errno.h>

#include <gnomon/mmu_notifier.h>

#include "notifier/device_memory.h"
#include "notifier/frame.h"
#include "notifier/mm_internal.h"
#include "notifier/mutations.h"
#include "notifier/swap.h"
#include "notifier/sync/lock.h"

#define DEVICE_BATCH 64

/*
 * The migration entry that names @pfn, which is ours, becomes @kind of @target, with what it has
 * kept. False if a zap was faster. What is a copy is PTE_OWN, whatever the page was.
 */
static bool replace_migration_entry(struct mm_struct *mm, hva_t hva, pte_t *ptep, pfn_t pfn,
				    pfn_t target, pte_t kind)
{
	bool ours;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	ours = pte_migration(pte) && pte_pfn(pte) == pfn;
	if (ours) {
		if (kind & PTE_PRESENT)
			atomic_inc(&pfn_to_frame(mm->phys, target)->mapcount);
		set_pte(mm, hva, ptep, pte_make(target, (pte & PTE_KEEP) | kind));
	}
	spin_unlock(&mm->page_table_lock);
	return ours;
}

/* ---- to the device ---- */

struct batch {
	struct mm_struct *mm;
	struct device_memory *dev;
	unsigned int nr;
	bool out_of_frames;
	hva_t next; /* where the next batch begins */
	struct {
		struct migration m; /* to: of the device */
		pte_t *ptep;
		hva_t hva;
	} page[DEVICE_BATCH];
};

/*
 * With the frame locked, and a reference of ours: a page that is in one place, and not in use. A
 * cached copy of a swap slot is in another place as well, if the slot has users.
 */
static bool may_go(struct phys *phys, pfn_t pfn)
{
	const struct frame *frame = pfn_to_frame(phys, pfn);

	leave_swap_cache_if_unused(phys, pfn);
	return frame_anon_vma(frame) && atomic_read(&frame->mapcount) == 1 &&
	       !frame_base_refs(frame) && !frame_is_pinned(frame);
}

static bool lock_page_that_may_go(struct mm_struct *mm, pte_t *ptep, pte_t pte)
{
	pfn_t pfn = pte_pfn(pte);

	if (!get_entry_frame(mm, ptep, pte))
		return false;
	if (trylock_frame(mm->phys, pfn)) {
		if (may_go(mm->phys, pfn))
			return true;
		unlock_frame(mm->phys, pfn);
	}
	phys_put(mm->phys, pfn);
	return false;
}

/* Stops the walk, for this batch, by returning non-zero. */
static int collect_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct batch *batch = arg;
	struct mm_struct *mm = batch->mm;
	pte_t pte = pte_load(ptep);
	struct migration *m;

	if (!pte_present(pte))
		return 0;
	if (batch->nr == DEVICE_BATCH) {
		batch->next = hva;
		return 1;
	}
	if (!lock_page_that_may_go(mm, ptep, pte))
		return 0;
	m = &batch->page[batch->nr].m;
	*m = (struct migration){.from = pte_pfn(pte), .to = phys_alloc(batch->dev->frames)};
	if (m->to == INVALID_PFN) {
		unlock_frame(mm->phys, m->from);
		phys_put(mm->phys, m->from);
		batch->out_of_frames = true;
		return 1;
	}
	batch->page[batch->nr].ptep = ptep;
	batch->page[batch->nr].hva = hva;
	batch->nr++;
	return 0;
}

static void unmap_batch(struct batch *batch)
{
	struct mmu_notifier_range range;

	mutation_range_init_owner(&range, MUTATION_TO_DEVICE, batch->mm, batch->page[0].hva,
				  batch->page[batch->nr - 1].hva + PAGE_SIZE, batch->dev->owner);
	mmu_notifier_invalidate_range_start(&range);
	for (unsigned int i = 0; i < batch->nr; i++)
		migration_unmap_entry(&batch->page[i].m, batch->mm, batch->page[i].hva,
				      batch->page[i].ptep);
	mmu_notifier_invalidate_range_end(&range);
}

/* The frame is frozen. False if a zap came: then the page is nowhere any more. */
static bool give_page(struct batch *batch, const struct migration *m, hva_t hva, pte_t *ptep)
{
	struct device_memory *dev = batch->dev;
	struct mm_struct *mm = batch->mm;
	pte_t kind = PTE_DEVICE | PTE_OWN | (pte_t)dev->id << PTE_DEVICE_SHIFT;

	dev->ops->copy_to_device(dev, mm, hva, m->to, phys_map(mm->phys, m->from));
	set_frame_mapping(pfn_to_frame(mm->phys, m->from), 0);
	if (replace_migration_entry(mm, hva, ptep, m->from, m->to, kind))
		return true;
	phys_put(dev->frames, m->to);
	return false;
}

/* Somebody holds the page, or it was zapped before it was unmapped. */
static void keep_page(struct batch *batch, const struct migration *m, hva_t hva, pte_t *ptep)
{
	struct mm_struct *mm = batch->mm;
	struct frame *frame = pfn_to_frame(mm->phys, m->from);

	phys_get(mm->phys, m->from);
	if (!replace_migration_entry(mm, hva, ptep, m->from, m->from, PTE_PRESENT)) {
		phys_put(mm->phys, m->from);
		if (!atomic_read(&frame->mapcount))
			set_frame_mapping(frame, 0);
	}
	phys_put(batch->dev->frames, m->to);
}

static long complete_batch(struct batch *batch)
{
	struct phys *phys = batch->mm->phys;
	long moved = 0;

	for (unsigned int i = 0; i < batch->nr; i++) {
		const struct migration *m = &batch->page[i].m;
		struct frame *frame = pfn_to_frame(phys, m->from);

		if (m->nr_unmapped && frame_ref_freeze_wait(frame, 1)) {
			moved += give_page(batch, m, batch->page[i].hva, batch->page[i].ptep);
			frame_ref_unfreeze(frame, 1);
		} else {
			keep_page(batch, m, batch->page[i].hva, batch->page[i].ptep);
		}
		unlock_frame(phys, m->from);
		phys_put(phys, m->from);
	}
	return moved;
}

long mm_migrate_to_device(struct mm_struct *mm, hva_t addr, uint64_t len, struct device_memory *dev)
{
	struct batch batch = {.mm = mm, .dev = dev, .next = addr};
	hva_t end = addr + len;
	long moved = 0;

	if (!hva_range_ok(addr, len) || dev->ram != mm->phys)
		return -EINVAL;

	mmap_read_lock(mm);
	while (batch.next < end && !batch.out_of_frames) {
		hva_t start = batch.next;

		batch.nr = 0;
		batch.next = end;
		pgtable_walk(mm->pgtable, start, end, collect_one, &batch);
		if (!batch.nr)
			continue;
		unmap_batch(&batch);
		moved += complete_batch(&batch);
	}
	mmap_read_unlock(mm);

	atomic64_add(moved, &mm->nr_to_device);
	return batch.out_of_frames && !moved ? -ENOMEM : moved;
}

/* ---- and back ---- */

/* The entry that names @from of the device becomes a migration entry of @to. */
static bool unmap_device_page(struct mm_struct *mm, hva_t hva, pte_t *ptep,
			      struct device_memory *dev, pfn_t from, pfn_t to)
{
	struct mmu_notifier_range range;
	bool unmapped;
	pte_t pte;

	mutation_range_init_owner(&range, MUTATION_FROM_DEVICE, mm, hva, hva + PAGE_SIZE,
				  dev->owner);
	mmu_notifier_invalidate_range_start(&range);
	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	unmapped = pte_device(pte) && device_of_entry(mm, pte) == dev && pte_pfn(pte) == from;
	if (unmapped)
		set_pte(mm, hva, ptep, pte_make(to, (pte & PTE_KEEP) | PTE_MIGRATION));
	spin_unlock(&mm->page_table_lock);
	mmu_notifier_invalidate_range_end(&range);
	return unmapped;
}

/* @to is locked. Returns whether it became the page: then the caller's reference is the entry's. */
static bool take_page(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, struct device_memory *dev,
		      pfn_t from, pfn_t to)
{
	struct mm_struct *mm = vma->mm;
	bool mapped;

	if (!unmap_device_page(mm, hva, ptep, dev, from, to))
		return false;
	dev->ops->copy_to_ram(dev, mm, hva, from, phys_map(mm->phys, to));
	phys_put(dev->frames, from); /* the entry's */
	set_anon_frame(vma, hva, to);
	mapped = replace_migration_entry(mm, hva, ptep, to, to,
					 PTE_PRESENT | PTE_OWN | PTE_ACCESSED);
	if (!mapped)
		set_frame_mapping(pfn_to_frame(mm->phys, to), 0);
	return mapped;
}

int device_page_to_ram(struct vm_area_struct *vma, hva_t hva, pte_t *ptep)
{
	struct mm_struct *mm = vma->mm;
	struct device_memory *dev;
	pfn_t from, to;
	bool mapped;

	lockdep_assert_held(&mm->mmap_lock);
	dev = get_device_page(mm, ptep, &from);
	if (!dev)
		return 0;
	to = alloc_user_frame(mm->phys);
	if (to == INVALID_PFN) {
		put_device_page(dev, from);
		return pte_device(pte_load(ptep)) ? -ENOMEM : 0;
	}
	lock_frame(mm->phys, to);
	mapped = take_page(vma, hva, ptep, dev, from, to);
	unlock_frame(mm->phys, to);
	if (mapped) {
		atomic64_inc(&mm->nr_faults);
		atomic64_inc(&mm->nr_to_ram);
	} else {
		phys_put(mm->phys, to);
	}
	put_device_page(dev, from);
	return 0;
}

void put_device_entry(struct mm_struct *mm, pte_t pte)
{
	phys_put(device_of_entry(mm, pte)->frames, pte_pfn(pte));
}

pte_t device_entry_for(struct vm_area_struct *vma, hva_t hva, pte_t *ptep, void *owner, pte_t give)
{
	struct mm_struct *mm = vma->mm;
	pte_t pte;

	spin_lock(&mm->page_table_lock);
	pte = pte_load(ptep);
	if (owner && pte_device(pte) && device_of_entry(mm, pte)->owner == owner) {
		pte |= give | PTE_ACCESSED;
		if (pte & PTE_WRITE)
			pte |= PTE_DIRTY | PTE_SOFT_DIRTY;
		set_pte(mm, hva, ptep, pte);
	} else {
		pte = 0;
	}
	spin_unlock(&mm->page_table_lock);
	return pte;
}

struct to_ram {
	struct mm_struct *mm;
	long nr;
};

static int bring_one(pte_t *ptep, hva_t hva, void *arg)
{
	struct to_ram *to_ram = arg;
	int ret = 0;

	while (!ret && pte_device(pte_load(ptep))) {
		ret = device_page_to_ram(find_vma(to_ram->mm, hva), hva, ptep);
		to_ram->nr += !ret;
	}
	return ret;
}

long mm_migrate_to_ram(struct mm_struct *mm, hva_t addr, uint64_t len)
{
	struct to_ram to_ram = {.mm = mm};
	int ret;

	if (!hva_range_ok(addr, len))
		return -EINVAL;
	mmap_read_lock(mm);
	ret = pgtable_walk(mm->pgtable, addr, addr + len, bring_one, &to_ram);
	mmap_read_unlock(mm);
	return ret && !to_ram.nr ? ret : to_ram.nr;
}
