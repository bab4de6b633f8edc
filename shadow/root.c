/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The virtual CPU's state, and which root it runs on: loads of CR3, changes of view, INVLPG and
 * INVPCID.
 *
 * A guest's edits of its tables take effect in the shadow at a fault, and at the latest where it
 * flushes: as a CPU's TLB would have it. What a flush reaches, and what may wait, is the business
 * of root_cache.c; what is done to a root then, of sync.c; here is what flushes.
 *
 * A root belongs to a view (role.c). A vCPU whose view changes runs on another root of the same
 * CR3; no flush goes with that, since a TLB does not care who uses it.
 */
#include <errno.h>

#include "shadow/gpte.h"
#include "shadow/shadow_internal.h"

enum guest_flush { FLUSH_NOTHING, FLUSH_PCID, FLUSH_ALL };

static struct root_key root_key(const struct shadow *shadow, const struct guest_cpu *cpu)
{
	struct root_key key = {
		.gfn = guest_root_gfn(cpu),
		.role = guest_view(cpu, false),
		.pcid = guest_pcid(cpu),
	};

	key.role.level = shadow->machine->levels;
	key.role.access = ACC_ALL;
	return key;
}

static bool cr3_valid(const struct guest_cpu *cpu)
{
	return !(cpu->cr3 >> cpu->maxphyaddr);
}

static bool cpu_valid(const struct shadow *shadow, const struct guest_cpu *cpu)
{
	bool la57 = cpu->cr4 & GUEST_CR4_LA57;

	return (cpu->cr0 & GUEST_CR0_PG) && (cpu->cr4 & GUEST_CR4_PAE) &&
	       la57 == (shadow->machine->levels == 5) && cpu->maxphyaddr >= 36 &&
	       cpu->maxphyaddr <= 52 && cr3_valid(cpu);
}

/* What a MOV that makes @new of @old flushes (SDM vol. 3, 4.10.4.1). */
static enum guest_flush flush_between(const struct guest_cpu *old, const struct guest_cpu *new)
{
	uint64_t on = new->cr4 & ~old->cr4, off = old->cr4 & ~new->cr4;

	if (((on | off) & GUEST_CR4_PGE) || (off & GUEST_CR4_PCIDE))
		return FLUSH_ALL;
	if (new->cr3 != old->cr3 || (on & GUEST_CR4_SMEP))
		return FLUSH_PCID;
	return FLUSH_NOTHING;
}

/*
 * The root for @key, counted; *@stale if it was there already. NULL: one must be made, and the
 * cache has none, or there is no room for it.
 *
 * Where CR3 names no memory the root is a dummy: of no gfn, so that none of a guest's tables is
 * ever taken for it, and nothing is entered below it (K-38).
 */
static struct shadow_page *get_root(struct shadow *shadow, struct shadow_cache *cache,
				    const struct root_key *key, bool *stale,
				    struct zap_batch *batch)
{
	gfn_t gfn = gfn_has_memory(shadow, key->gfn) ? key->gfn : INVALID_GFN;
	struct shadow_page *root = shadow_page_find(shadow, gfn, key->role);

	*stale = root;
	if (!root) {
		if (!cache->page[key->role.level - 1] || !shadow_has_room(shadow, 1))
			return NULL;
		root = shadow_cache_take(cache, key->role.level);
		shadow_page_publish(shadow, root, gfn, key->role, batch);
	}
	root->root_count++;
	return root;
}

/*
 * mmu_lock, which is dropped in between: the current root is brought up to date, if it must be.
 * Nobody but this thread puts another in its place; but it may be obsolete afterwards.
 */
static void sync_current(struct shadow *shadow, struct shadow_vcpu *vcpu, struct zap_batch *batch)
{
	struct kept_root *current = &vcpu->roots[0];

	if (!current->stale)
		return;
	current->stale = false;
	sync_root(shadow, current->root, batch);
}

/* mmu_lock: the vCPU's root is that of @key, and what gave way for it is vcpu->left. False, and
 * nothing has changed: see get_root(). */
static bool switch_root(struct shadow *shadow, struct shadow_vcpu *vcpu, const struct root_key *key,
			struct zap_batch *batch)
{
	struct kept_root *kept = root_cache_find(vcpu, key);

	if (!kept || root_is_obsolete(shadow, kept)) {
		bool stale;
		struct shadow_page *root = get_root(shadow, &vcpu->cache, key, &stale, batch);

		if (!root)
			return false;
		if (!kept)
			kept = root_cache_victim(vcpu);
		vcpu->left = *kept;
		*kept = (struct kept_root){.root = root,
					   .gfn = key->gfn,
					   .pcid = key->pcid,
					   .stale = stale};
	}
	root_cache_to_front(shadow, vcpu, kept);
	shadow_page_used(shadow, vcpu->root);
	return true;
}

/*
 * The CPU runs on another root. Only now, as who lets go of a root says that this CPU is not on it:
 *
 *   vCPU 0                               vCPU 1, on the same root
 *   ------                               ------
 *   mmu_lock: takes a new root, lets
 *     go of the old; unlock
 *                                        takes a new root, lets go of the old: the last,
 *                                          retires the table
 *   load_root                              ^ forbidden: CPU 0 is on it
 *
 * Replayed by tests/unit/test_root_cache.c (lets_go_once_the_cpu_is_off_it).
 */
static void let_go(struct shadow *shadow, struct shadow_vcpu *vcpu)
{
	struct zap_batch batch;

	if (!vcpu->left.root)
		return;
	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	root_put(shadow, &vcpu->left, &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
}

/*
 * mmu_lock, which is dropped: the end of a flush. The current root is brought up to date, and what
 * was cleared in it, by whomever, is shot down. If it is obsolete (zap_slot.c) much may be unlinked
 * already, and not zapped yet: then that is waited for (test_root: obsolete_under_the_sync). Among
 * the kept ones this concerns the current root alone, since nobody comes back to the others.
 */
static void flush_current(struct shadow *shadow, struct shadow_vcpu *vcpu, struct zap_batch *batch)
{
	bool obsolete;

	sync_current(shadow, vcpu, batch);
	obsolete = shadow_page_obsolete(shadow, vcpu->root);
	zap_batch_close(shadow, batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, batch);
	if (obsolete)
		shadow_zap_obsolete(shadow);
}

/* One attempt; false: see get_root(). In a section of slots_srcu. */
static bool try_load_root(struct shadow *shadow, unsigned int vcpu_id, const struct guest_cpu *cpu,
			  enum guest_flush flush)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];
	struct root_key key = root_key(shadow, cpu);
	struct zap_batch batch;
	bool loaded;

	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	loaded = switch_root(shadow, vcpu, &key, &batch);
	if (loaded) {
		if (flush != FLUSH_NOTHING)
			root_cache_flush(shadow, vcpu, flush == FLUSH_ALL ? ANY_PCID : key.pcid);
		vcpu->cpu = *cpu;
	}
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	if (!loaded)
		return false;

	shadow_hook(shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD);
	shadow->machine->ops->load_root(shadow->machine, vcpu_id, vcpu->root->table);
	/* Pairs with root_in_use(): who sees this root does not see the CPU on another. */
	smp_store_release(&vcpu->loaded, vcpu->root);
	/* Who switches without a flush waits for nobody, unless a new root is a page that somebody
	 * could write to. */
	if (!zap_batch_empty(&batch))
		zap_batch_flush(shadow, &batch);
	/* The vCPU is in here, so it has used nothing of the root. */
	if (vcpu->roots[0].stale) {
		spin_lock(&shadow->mmu_lock);
		flush_current(shadow, vcpu, &batch);
	}
	let_go(shadow, vcpu);
	return true;
}

/* @cpu's root is what the vCPU runs on. 0, -ENOMEM or -ENOSPC. */
static int load_root(struct shadow *shadow, unsigned int vcpu_id, const struct guest_cpu *cpu,
		     enum guest_flush flush)
{
	int id = srcu_read_lock(&shadow->slots_srcu);
	int ret = 0;

	while (!try_load_root(shadow, vcpu_id, cpu, flush)) {
		ret = shadow_prepare(shadow, &shadow->vcpu[vcpu_id].cache, true);
		if (ret)
			break;
	}
	srcu_read_unlock(&shadow->slots_srcu, id);
	return ret;
}

int shadow_leave_obsolete_root(struct shadow *shadow, unsigned int vcpu_id)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];
	const struct guest_cpu cpu = vcpu->cpu;

	if (likely(!root_is_obsolete(shadow, &vcpu->roots[0])))
		return 0;
	return load_root(shadow, vcpu_id, &cpu, FLUSH_NOTHING);
}

int shadow_load_cr3(struct shadow *shadow, unsigned int vcpu_id, uint64_t cr3)
{
	enum guest_flush flush = FLUSH_PCID;
	struct guest_cpu cpu;

	ASSERT(vcpu_id < shadow->nr_vcpus, "a vCPU of this guest");
	cpu = shadow->vcpu[vcpu_id].cpu;
	if ((cpu.cr4 & GUEST_CR4_PCIDE) && (cr3 & GUEST_CR3_NOFLUSH)) {
		cr3 &= ~GUEST_CR3_NOFLUSH;
		flush = FLUSH_NOTHING;
	}
	cpu.cr3 = cr3;
	return cr3_valid(&cpu) ? load_root(shadow, vcpu_id, &cpu, flush) : -EINVAL;
}

int shadow_set_cpu(struct shadow *shadow, unsigned int vcpu_id, const struct guest_cpu *cpu)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];
	struct root_key key = root_key(shadow, cpu);
	enum guest_flush flush;

	ASSERT(vcpu_id < shadow->nr_vcpus, "a vCPU of this guest");
	if (!cpu_valid(shadow, cpu))
		return -EINVAL;
	flush = vcpu->root ? flush_between(&vcpu->cpu, cpu) : FLUSH_ALL;
	/* The rest of the state changes nothing that is in the tables. */
	if (flush == FLUSH_NOTHING && root_matches(&vcpu->roots[0], &key)) {
		spin_lock(&shadow->mmu_lock);
		vcpu->cpu = *cpu;
		spin_unlock(&shadow->mmu_lock);
		return 0;
	}
	return load_root(shadow, vcpu_id, cpu, flush);
}

const struct guest_cpu *shadow_get_cpu(const struct shadow *shadow, unsigned int vcpu_id)
{
	ASSERT(vcpu_id < shadow->nr_vcpus, "a vCPU of this guest");
	return &shadow->vcpu[vcpu_id].cpu;
}

/* The guest has invalidated all of @pcid, or of that @gva. */
static void invalidate(struct shadow *shadow, struct shadow_vcpu *vcpu, unsigned int pcid,
		       const gva_t *gva)
{
	struct zap_batch batch;
	int id;

	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	spin_lock(&shadow->mmu_lock);
	if (gva)
		root_cache_sync_gva(shadow, vcpu, pcid, *gva, &batch);
	else
		root_cache_flush(shadow, vcpu, pcid);
	flush_current(shadow, vcpu, &batch);
	srcu_read_unlock(&shadow->slots_srcu, id);
}

/* A global page's translation has no PCID, so one address is synced in every kept root. */
void shadow_invlpg(struct shadow *shadow, unsigned int vcpu_id, gva_t gva)
{
	invalidate(shadow, &shadow->vcpu[vcpu_id], ANY_PCID, &gva);
}

int shadow_invpcid(struct shadow *shadow, unsigned int vcpu_id, uint64_t type, uint64_t pcid,
		   gva_t gva)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];
	bool pcide = vcpu->cpu.cr4 & GUEST_CR4_PCIDE;

	if (pcid & ~CR3_PCID_MASK)
		return -EINVAL;
	switch (type) {
	case INVPCID_ADDRESS:
		if ((pcid && !pcide) || !guest_canonical(&vcpu->cpu, gva))
			return -EINVAL;
		invalidate(shadow, vcpu, pcid, &gva);
		return 0;
	case INVPCID_CONTEXT:
		if (pcid && !pcide)
			return -EINVAL;
		invalidate(shadow, vcpu, pcid, NULL);
		return 0;
	case INVPCID_ALL_GLOBAL:
	case INVPCID_ALL_CONTEXTS:
		invalidate(shadow, vcpu, ANY_PCID, NULL);
		return 0;
	default:
		return -EINVAL;
	}
}
