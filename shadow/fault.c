/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fault path: from an access that the shadow tables did not allow to an entry that allows it,
 * or to a verdict.
 *
 * The order is the whole protocol (K-15):
 *
 *   snapshot invalidate_seq
 *     walk the guest's tables, find the slot          may sleep: reads guest memory
 *     cheap retry check
 *     hva_to_pfn                                       may sleep: faults the host page in
 *     cheap retry check
 *   mmu_lock
 *     the root is not obsolete (zap_slot.c)
 *     the guest entries that were read are unchanged
 *     no invalidation of this hva has run, or runs, since the snapshot
 *     install
 *   mmu_unlock
 *
 * Nothing pins the frame between hva_to_pfn and the install (K-16). What makes it safe is the
 * sequence check under the lock:
 *
 *   fault                                   invalidation of the same page
 *   -----                                   -----------------------------
 *   seq = 4
 *   hva_to_pfn -> frame A
 *                                           start: mmu_lock, in_progress 1, nothing to zap, unlock
 *                                           the host moves the page to frame B, frees A
 *                                           end: mmu_lock, seq 5, in_progress 0, unlock
 *   mmu_lock; seq is 5, not 4: RETRY
 *     (without the check: installs A, which is free)
 *
 * Replayed by tests/races (retry).
 */
#include <errno.h>

#include "shadow/dirty.h"
#include "shadow/gpte.h"
#include "shadow/huge.h"

const char *ret_pf_name(enum ret_pf ret)
{
	static const char *const names[] = {
		[RET_PF_FIXED] = "fixed",
		[RET_PF_SPURIOUS] = "spurious",
		[RET_PF_RETRY] = "retry",
		[RET_PF_GUEST] = "guest fault",
		[RET_PF_RESERVED] = "reserved address",
		[RET_PF_EMULATE] = "no memory",
		[RET_PF_NO_MEMORY] = "out of memory",
		[RET_PF_BAD_HVA] = "refused by the host",
		[RET_PF_HALTED] = "halted",
		[RET_PF_EXEC_ONLY] = "execute-only page",
		[RET_PF_WRITE_PROTECTED] = "store to a page table",
		[RET_PF_DIRTY_RING_FULL] = "dirty ring full",
	};

	return names[ret];
}

/*
 * seq grows and in_progress falls in one critical section of invalidate_range_end, so a window that
 * covers hva shows as the one or the other.
 */
bool invalidate_retry(struct shadow *shadow, unsigned long seq, hva_t hva)
{
	lockdep_assert_held(&shadow->mmu_lock);
	if (shadow->invalidate_in_progress && hva >= shadow->invalidate_start &&
	    hva < shadow->invalidate_end)
		return true;
	return shadow->invalidate_seq != seq;
}

/* The cheap check, without the lock: true is reliable enough to give up early, false means nothing.
 */
static bool invalidate_retry_unsafe(struct shadow *shadow, unsigned long seq)
{
	return READ_ONCE(shadow->invalidate_seq) != seq;
}

bool gva_reserved(const struct shadow_page *root, gva_t gva)
{
	spte_t spte = READ_ONCE(root->spt[table_index(gva, root->role.level)]);

	return (spte & SPTE_PRESENT) && !spte_present(spte);
}

/* One resolved translation, on its way into the tables. */
struct mapping {
	const struct guest_walk *walk;
	struct shadow_vcpu *vcpu;
	struct memslot *slot;
	pfn_t pfn;
	unsigned int rights; /* ACC_READ, WRITE, EXEC: what guest and host allow together */
	bool store;	     /* what is attempted */
};

/* What the entry of @sp for this walk must link to: the role, and *@gfn. */
static struct shadow_role child_role(const struct shadow_page *sp, const struct guest_walk *walk,
				     gfn_t *gfn)
{
	struct shadow_role role = sp->role; /* one view from the root down */
	int level = sp->role.level;

	role.level = level - 1;
	if (walk->level < level) {
		role.access = walk->access[level];
		*gfn = walk->table_gfn[level - 1];
		return role;
	}
	role.access = walk->access[walk->level];
	role.direct = true;
	role.dirty = walk->dirty;
	role.pkey = walk->pkey;
	*gfn = walk->gfn & ~(table_pages(level - 1) - 1);
	return role;
}

/* For the audit: what the entry of @sp for this walk is made from. A table in ROM keeps no D bit,
 * and the page is dirty all the same. */
static void note_origin(struct shadow_page *sp, const struct guest_walk *walk)
{
	int level = sp->role.level;
	uint64_t gpte = walk->gpte[level];

	if (level == walk->level && walk->dirty)
		gpte |= GPTE_DIRTY;
	if (unlikely(sp->gptes) && !sp->role.direct)
		sp->gptes[table_index(walk->gva, level)] = gpte;
}

/*
 * The table that the entry of @sp for this walk must link to: the one that is linked, another that
 * exists already, or a new one from the cache. NULL: something else was linked there, and has been
 * zapped into the batch; or too much is below the one that exists. After the flush (and sync_apart)
 * the access is to be tried again (K-03, K-04).
 *
 * What is linked is right only if gfn and whole role are. The guest's entry may have turned from a
 * large page into another or into a table, and back, and nobody said so: a device wrote it, or the
 * host. A table that is reused for its gfn alone, or its role alone, then holds leaves of pages
 * that it says nothing of.
 */
static struct shadow_page *get_child(struct shadow *shadow, struct shadow_vcpu *vcpu,
				     struct shadow_page *sp, const struct guest_walk *walk,
				     struct zap_batch *batch)
{
	spte_t *sptep = &sp->spt[table_index(walk->gva, sp->role.level)];
	struct shadow_page *child;
	gfn_t gfn;
	struct shadow_role role = child_role(sp, walk, &gfn);
	spte_t spte = READ_ONCE(*sptep);

	if (spte_present(spte) && spte_is_leaf(spte, sp->role.level)) {
		drop_leaf(shadow, sp, table_index(walk->gva, sp->role.level), batch);
		return NULL;
	}
	if (spte_present(spte)) {
		child = spte_to_child(shadow, spte);
		ASSERT(child, "a directory entry of ours links to a page of ours");
		if (child->gfn == gfn && child->role.word == role.word)
			return child;
		zap_page(shadow, child, batch);
		return NULL;
	}

	child = shadow_page_find(shadow, gfn, role);
	if (!child) {
		if (!huge_forbid_fits(shadow, gfn, batch))
			return NULL;
		child = shadow_cache_take(&vcpu->cache, role.level);
		shadow_page_publish(shadow, child, gfn, role, batch);
	} else if (!sync_child(shadow, child, &vcpu->late, batch)) {
		return NULL;
	}
	note_origin(sp, walk);
	shadow_page_link(child, sptep, &vcpu->cache.desc[role.level]);
	return child;
}

/* @new takes the place of @old, which is nothing, or less. False: that has changed, and stays. A
 * page that may be stored to is dirty before it can be (dirty_log.c, rule 1). */
static bool publish_leaf(struct shadow *shadow, const struct mapping *map, spte_t *sptep,
			 spte_t old, spte_t new)
{
	if (new &SPTE_WRITE)
		mark_page_dirty_in_slot(shadow, map->vcpu, map->slot, map->walk->gfn);
	return try_cmpxchg(sptep, &old, new);
}

static enum ret_pf install_leaf(struct shadow *shadow, struct shadow_cache *cache,
				struct shadow_page *sp, const struct mapping *map,
				struct zap_batch *batch)
{
	unsigned int index = table_index(map->walk->gva, 1);
	gfn_t rel_gfn = map->walk->gfn - map->slot->base_gfn;
	spte_t *sptep = &sp->spt[index];
	spte_t old = READ_ONCE(*sptep); /* it may change without mmu_lock: spte.h, rule 5 */
	spte_t new = make_leaf_spte(map->pfn, map->rights);

	if (spte_present(old)) {
		if (sp->gfns[index] == map->walk->gfn) {
			if (spte_allows(old, new))
				return RET_PF_SPURIOUS;
			/* Rights are only gained: CPUs notice that without being told. If it was
			 * paused it may have become writable meanwhile (fast_fault.c), and must not
			 * lose that in passing. */
			if (spte_allows(new, old)) {
				shadow_hook(shadow, SHADOW_HOOK_FAULT_BEFORE_GAIN);
				if (!publish_leaf(shadow, map, sptep, old, new))
					return RET_PF_RETRY;
				note_origin(sp, map->walk);
				return RET_PF_FIXED;
			}
		}
		drop_leaf(shadow, sp, index, batch);
		return RET_PF_RETRY;
	}

	/* Too many of that page (K-07). They go, and are flushed, before another one is made. */
	if (rmap_count(&map->slot->rmap[rel_gfn]) >= RMAP_RECYCLE_THRESHOLD) {
		zap_rmap(shadow, &map->slot->rmap[rel_gfn], batch);
		return RET_PF_RETRY;
	}
	sp->gfns[index] = map->walk->gfn;
	note_origin(sp, map->walk);
	gfn_rmap_add(map->slot, rel_gfn, sptep, &cache->desc[0]);
	publish_leaf(shadow, map, sptep, old, new);
	if (map->slot->zapped[rel_gfn]) {
		map->slot->zapped[rel_gfn] = 0;
		atomic64_inc(&shadow->stats.refaults);
	}
	return RET_PF_FIXED;
}

static bool install_huge(struct shadow *shadow, struct shadow_cache *cache, struct shadow_page *sp,
			 const struct mapping *map, struct zap_batch *batch, enum ret_pf *ret)
{
	const struct huge_fault fault = {.walk = map->walk,
					 .slot = map->slot,
					 .pfn = map->pfn,
					 .rights = map->rights};

	return huge_install(shadow, sp, &fault, &cache->desc[0], batch, ret);
}

/* The rights to a page that is one of the guest's tables are looked at last: it may have become one
 * on the way down. */
static enum ret_pf install(struct shadow *shadow, struct shadow_vcpu *vcpu, struct mapping *map,
			   struct zap_batch *batch)
{
	struct shadow_page *path[TABLE_LEVELS + 1]; /* [level] */
	struct shadow_page *sp = vcpu->root;
	int levels = sp->role.level;
	bool protected = false;
	enum ret_pf ret;

	/* Others have taken what was there for us. */
	if (!shadow_has_room(shadow, levels - 1))
		return RET_PF_RETRY;
	path[levels] = sp;
	while (sp->role.level > 1) {
		sp->writes = 0;
		if (sp->role.level == HUGE_LEVEL && map->walk->level >= HUGE_LEVEL &&
		    install_huge(shadow, &vcpu->cache, sp, map, batch, &ret)) {
			shadow_path_used(shadow, path, levels, HUGE_LEVEL);
			return ret;
		}
		sp = get_child(shadow, vcpu, sp, map->walk, batch);
		/* What is cleared is shot down before anything takes its place (K-04). */
		if (!sp || zap_batch_full(batch) || batch->huge_forbidden)
			return RET_PF_RETRY;
		path[sp->role.level] = sp;
	}
	shadow_path_used(shadow, path, levels, 1);
	if ((map->rights & ACC_WRITE) && !gfn_may_be_written(shadow, map->walk->gfn, map->store)) {
		map->rights &= ~ACC_WRITE;
		protected = map->store;
	}
	ret = install_leaf(shadow, &vcpu->cache, sp, map, batch);
	if (ret == RET_PF_FIXED)
		shadow_prefetch(shadow, sp, map->walk->gva);
	return protected && ret != RET_PF_RETRY ? RET_PF_WRITE_PROTECTED : ret;
}

static enum ret_pf errno_to_ret_pf(int err)
{
	switch (err) {
	case -EFAULT:
		return RET_PF_GUEST;
	case -EAGAIN:
		return RET_PF_RETRY;
	case -ENXIO:
		return RET_PF_BAD_HVA;
	default:
		return RET_PF_NO_MEMORY;
	}
}

/* The part of the fault that may sleep. RET_PF_FIXED: @map is filled in. */
static enum ret_pf resolve(struct shadow *shadow, struct shadow_vcpu *vcpu,
			   struct shadow_fault *fault, unsigned long seq, struct guest_walk *walk,
			   struct mapping *map)
{
	bool write = fault->error_code & PFERR_WRITE;
	bool writable;
	hva_t hva;
	int ret;

	ret = guest_walk_vcpu(shadow, vcpu, fault->gva,
			      fault->error_code & (PFERR_WRITE | PFERR_FETCH), walk,
			      &fault->error_code);
	fault->hva = walk->bad_hva;
	if (ret)
		return errno_to_ret_pf(ret);

	fault->gpa = (walk->gfn << PAGE_SHIFT) | (fault->gva & ~PAGE_MASK);
	map->walk = walk;
	map->vcpu = vcpu;
	map->store = write;
	map->slot = gfn_to_memslot(shadow_memslots(shadow), walk->gfn);
	if (!map->slot)
		return RET_PF_EMULATE;
	if (map->slot->flags & MEMSLOT_INVALID)
		return RET_PF_RETRY;
	if (write && (map->slot->flags & MEMSLOT_READONLY))
		return RET_PF_EMULATE;
	map->rights =
		leaf_rights(vcpu->root->role, walk->access[walk->level], walk->pkey, walk->dirty);
	if (!(map->rights & ACC_READ))
		return RET_PF_EXEC_ONLY;
	if (invalidate_retry_unsafe(shadow, seq))
		return RET_PF_RETRY;

	/* A write may break copy-on-write in here, in a window of our own thread's that takes the
	 * old page out of the tables; the next look at the sequence then says: once more. */
	hva = memslot_hva(map->slot, walk->gfn);
	ret = hva_to_pfn(shadow->mm, hva, write, &map->pfn, &writable);
	if (ret == -EFAULT)
		fault->hva = hva;
	if (ret)
		return ret == -ENOMEM ? RET_PF_NO_MEMORY : RET_PF_BAD_HVA;
	if (invalidate_retry_unsafe(shadow, seq))
		return RET_PF_RETRY;

	if (!writable || (map->slot->flags & MEMSLOT_READONLY))
		map->rights &= ~ACC_WRITE;
	/* Of a slot that is logged nobody gets the right to write who has not asked for it. */
	if (!write && slot_is_logged(map->slot))
		map->rights &= ~ACC_WRITE;
	return RET_PF_FIXED;
}

static enum ret_pf handle_fault(struct shadow *shadow, struct shadow_vcpu *vcpu,
				struct shadow_fault *fault)
{
	struct guest_walk walk;
	struct mapping map;
	struct zap_batch batch;
	unsigned long seq;
	enum ret_pf ret;

	if (gva_reserved(vcpu->root, fault->gva))
		return RET_PF_RESERVED;
	if (shadow_prepare(shadow, &vcpu->cache, false))
		return RET_PF_NO_MEMORY;

	shadow_hook(shadow, SHADOW_HOOK_FAULT_BEFORE_WALK);
	/* Acquire: neither the guest's tables nor the primary page table are read before seq. Pairs
	 * with invalidate_range_end. */
	seq = smp_load_acquire(&shadow->invalidate_seq);
	ret = resolve(shadow, vcpu, fault, seq, &walk, &map);
	if (ret != RET_PF_FIXED)
		return ret;

	shadow_hook(shadow, SHADOW_HOOK_FAULT_BEFORE_LOCK);
	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	if (shadow->dead)
		ret = RET_PF_HALTED;
	else if (shadow_page_obsolete(shadow, vcpu->root))
		ret = RET_PF_RETRY;
	else if (!(shadow->broken & SHADOW_BREAK_RETRY) &&
		 invalidate_retry(shadow, seq, memslot_hva(map.slot, walk.gfn)))
		ret = RET_PF_RETRY;
	else if (!guest_walk_unchanged(shadow, &walk))
		ret = RET_PF_RETRY;
	else if (root_is_dummy(vcpu->root))
		ret = RET_PF_RETRY; /* the slot came while we walked */
	else
		ret = install(shadow, vcpu, &map, &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	shadow_hook(shadow, SHADOW_HOOK_FAULT_AFTER_LOCK);
	zap_batch_flush(shadow, &batch);
	if (unlikely(vcpu->late.pending))
		sync_apart(shadow, &vcpu->late);
	return ret;
}

enum ret_pf shadow_handle_fault(struct shadow *shadow, unsigned int vcpu,
				struct shadow_fault *fault)
{
	const struct dirty_ring *ring;
	enum ret_pf ret;
	int id;

	fault->hva = INVALID_HVA;
	ASSERT(vcpu < shadow->nr_vcpus && shadow->vcpu[vcpu].root, "the vCPU has loaded CR3");
	id = srcu_read_lock(&shadow->slots_srcu);
	ring = vcpu_ring(&shadow->vcpu[vcpu]);
	/* Looked at inside the section: see shadow_release(). */
	if (READ_ONCE(shadow->dead))
		ret = RET_PF_HALTED;
	else if ((fault->error_code & PFERR_WRITE) && ring && dirty_ring_full(ring))
		ret = RET_PF_DIRTY_RING_FULL;
	else if (shadow_leave_obsolete_root(shadow, vcpu))
		ret = RET_PF_NO_MEMORY;
	else if (!shadow_fast_fault(shadow, &shadow->vcpu[vcpu], fault, &ret))
		ret = handle_fault(shadow, &shadow->vcpu[vcpu], fault);
	srcu_read_unlock(&shadow->slots_srcu, id);

	atomic64_inc(&shadow->stats.faults);
	if (ret == RET_PF_RETRY)
		atomic64_inc(&shadow->stats.fault_retries);
	if (ret == RET_PF_SPURIOUS)
		atomic64_inc(&shadow->stats.fault_spurious);
	if (ret == RET_PF_WRITE_PROTECTED)
		atomic64_inc(&shadow->stats.write_protected);
	return ret;
}
