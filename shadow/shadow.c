/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of a shadow MMU, its vCPUs' caches, its counters and switches.
 */
#include <errno.h>
#include <limits.h>

#include "shadow/dirty.h"
#include "shadow/shadow_internal.h"

#include "notifier/sync/alloc.h"

int shadow_create(struct shadow **shadowp, struct mm_struct *mm, struct machine *machine,
		  unsigned int nr_vcpus)
{
	struct shadow *shadow;
	int ret = -ENOMEM;

	ASSERT(machine->levels == 4 || machine->levels == 5, "tables of 4 levels, or 5");
	shadow = kzalloc(sizeof(*shadow) + nr_vcpus * sizeof(shadow->vcpu[0]), GFP_KERNEL);
	if (!shadow)
		return -ENOMEM;
	shadow->mm = mm;
	shadow->machine = machine;
	shadow->used_bit = machine->no_accessed_bits ? SPTE_PRESENT : SPTE_ACCESSED;
	shadow->nr_vcpus = nr_vcpus;
	shadow->page_budget = shadow->page_limit = ULONG_MAX;
	shadow->notifier.ops = &shadow_mmu_notifier_ops;
	mutex_init(&shadow->slots_lock);
	spin_lock_init(&shadow->mn_invalidate_lock);
	init_waitqueue_head(&shadow->mn_wait);
	spin_lock_init(&shadow->gpc_lock);
	INIT_LIST_HEAD(&shadow->gpc_list);
	spin_lock_init(&shadow->mmu_lock);
	spin_lock_init(&shadow->batch_lock);
	init_waitqueue_head(&shadow->batch_wait);
	init_waitqueue_head(&shadow->ring_wait);
	INIT_LIST_HEAD(&shadow->pages);
	INIT_LIST_HEAD(&shadow->batches);
	for (unsigned int i = 0; i < SHADOW_HASH_SIZE; i++) {
		INIT_LIST_HEAD(&shadow->by_gfn[i]);
		INIT_LIST_HEAD(&shadow->by_spt[i]);
	}

	for (unsigned int i = 0; i < nr_vcpus; i++) {
		walk_cache_init(&shadow->vcpu[i].walk_cache, shadow);
		shadow->vcpu[i].cpu = (struct guest_cpu){
			.cr0 = GUEST_CR0_PG | GUEST_CR0_WP,
			.cr4 = GUEST_CR4_PAE | (machine->levels == 5 ? GUEST_CR4_LA57 : 0),
			.efer = GUEST_EFER_NXE,
			.maxphyaddr = 52,
		};
	}

	shadow->memslots[0] = kzalloc(sizeof(*shadow->slots), GFP_KERNEL);
	shadow->memslots[1] = kzalloc(sizeof(*shadow->slots), GFP_KERNEL);
	if (!shadow->memslots[0] || !shadow->memslots[1])
		goto out_slots;
	shadow->slots = shadow->memslots[0];
	ret = init_srcu_struct(&shadow->slots_srcu);
	if (ret)
		goto out_slots;
	/* Last: from here on callbacks run. */
	ret = mmu_notifier_register(&shadow->notifier, mm);
	if (ret)
		goto out_srcu;
	*shadowp = shadow;
	return 0;

out_srcu:
	cleanup_srcu_struct(&shadow->slots_srcu);
out_slots:
	kfree(shadow->memslots[0]);
	kfree(shadow->memslots[1]);
	kfree(shadow);
	return ret;
}

static void cache_destroy(struct shadow *shadow, struct shadow_cache *cache)
{
	for (int i = 0; i < TABLE_LEVELS; i++) {
		if (cache->page[i])
			shadow_page_free_unused(shadow, cache->page[i]);
		rmap_desc_free(cache->desc[i]);
	}
}

void shadow_destroy(struct shadow *shadow)
{
	/* Runs ->release, if the mm has not: all entries are gone after it, and no callback comes
	 * any more. */
	mmu_notifier_unregister(&shadow->notifier, shadow->mm);
	shadow_put_roots(shadow);
	ASSERT(list_empty(&shadow->pages), "every shadow page hung below a root");
	ASSERT(shadow->mn_active_invalidate_count || !shadow->invalidate_in_progress,
	       "windows are counted");
	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		walk_cache_destroy(&shadow->vcpu[i].walk_cache);
		cache_destroy(shadow, &shadow->vcpu[i].cache);
	}
	cleanup_srcu_struct(&shadow->slots_srcu);
	memslots_destroy(shadow);
	dirty_rings_destroy(shadow);
	kfree(shadow);
}

static int topup_page(struct shadow *shadow, struct shadow_cache *cache, int level)
{
	if (likely(cache->page[level - 1]))
		return 0;
	cache->page[level - 1] = shadow_page_alloc(shadow, level);
	if (!cache->page[level - 1])
		return -ENOMEM;
	shadow_budget_grow(shadow);
	return 0;
}

int shadow_cache_topup(struct shadow *shadow, struct shadow_cache *cache, bool root)
{
	int levels = shadow->machine->levels;

	if (root)
		return topup_page(shadow, cache, levels);
	for (int level = 1; level < levels; level++) {
		if (topup_page(shadow, cache, level))
			return -ENOMEM;
	}
	for (int i = 0; i < levels; i++) {
		if (!cache->desc[i])
			cache->desc[i] = rmap_desc_alloc();
		if (!cache->desc[i])
			return -ENOMEM;
	}
	return 0;
}

struct shadow_page *shadow_cache_take(struct shadow_cache *cache, int level)
{
	struct shadow_page *sp = cache->page[level - 1];

	ASSERT(sp, "the cache was topped up before mmu_lock was taken");
	cache->page[level - 1] = NULL;
	return sp;
}

void shadow_get_stats(struct shadow *shadow, struct shadow_stats *stats)
{
	*stats = (struct shadow_stats){
		.faults = atomic64_read(&shadow->stats.faults),
		.fault_retries = atomic64_read(&shadow->stats.fault_retries),
		.fault_spurious = atomic64_read(&shadow->stats.fault_spurious),
		.prefetched = atomic64_read(&shadow->stats.prefetched),
		.fast_faults = atomic64_read(&shadow->stats.fast_faults),
		.refaults = atomic64_read(&shadow->stats.refaults),
		.invalidations = atomic64_read(&shadow->stats.invalidations),
		.sptes_zapped = atomic64_read(&shadow->stats.sptes_zapped),
		.migrate_zapped = atomic64_read(&shadow->stats.migrate_zapped),
		.shootdowns = atomic64_read(&shadow->stats.shootdowns),
		.frames_shot = atomic64_read(&shadow->stats.frames_shot),
		.batches_waited = atomic64_read(&shadow->stats.batches_waited),
		.tables_retired = atomic64_read(&shadow->stats.tables_retired),
		.pages_recycled = atomic64_read(&shadow->stats.pages_recycled),
		.synced = atomic64_read(&shadow->stats.synced),
		.unsync_made = atomic64_read(&shadow->stats.unsync_made),
		.write_protected = atomic64_read(&shadow->stats.write_protected),
		.flooded = atomic64_read(&shadow->stats.flooded),
		.dirty_marked = atomic64_read(&shadow->stats.dirty_marked),
		.dirty_protected = atomic64_read(&shadow->stats.dirty_protected),
		.huge_made = atomic64_read(&shadow->stats.huge_made),
	};
}

void shadow_set_break(struct shadow *shadow, unsigned int what)
{
	shadow->broken = what;
}

void shadow_set_audit(struct shadow *shadow, enum shadow_audit_level level)
{
	spin_lock(&shadow->mmu_lock);
	WRITE_ONCE(shadow->audit, level); /* pairs with the look of shadow_page_alloc() */
	spin_unlock(&shadow->mmu_lock);
}

void shadow_set_hook(struct shadow *shadow, enum shadow_hook_point point, void (*fn)(void *arg),
		     void *arg)
{
	shadow->hook[point].arg = arg;
	shadow->hook[point].fn = fn;
}
