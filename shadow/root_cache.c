/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The roots that a vCPU keeps: the one that it runs on, and those that it ran on before (K-36). A
 * switch to a kept root, to another view of the same tables or back to another address space, is
 * neither a zap nor a walk.
 *
 * Rules:
 *  1. A kept root is counted (root_count) once for each place that names it. It stays, and what
 * hangs below it stays too, as long as there is room (page_budget.c).
 *  2. Kept is what was asked for: the gfn that CR3 named, the role, the PCID. The same shadow page
 * may be kept for two PCIDs, and by many vCPUs.
 *  3. What the guest flushes is flushed in every root that its vCPU may come back to without
 * another flush. An address is synced in the kept roots at once. An address space is not: its
 * roots are stale from then on, and are brought up to date if the vCPU comes back to them.
 *  4. A root that this vCPU does not keep hears of no flush of its. If another vCPU kept it alive,
 * it is brought up to date when it is loaded, flush or no flush.
 *  5. A root that is brought up to date for one vCPU or PCID does not get older for another: what
 * is entered below it is what the guest's tables say at that moment, whoever enters it.
 *
 * All under mmu_lock. Only the vCPU's own thread changes which root is the first; any thread may
 * take the others away.
 */
#include "shadow/shadow_internal.h"

struct kept_root *root_cache_find(struct shadow_vcpu *vcpu, const struct root_key *key)
{
	for (unsigned int i = 0; i < NR_KEPT_ROOTS; i++) {
		if (root_matches(&vcpu->roots[i], key))
			return &vcpu->roots[i];
	}
	return NULL;
}

struct kept_root *root_cache_victim(struct shadow_vcpu *vcpu)
{
	for (unsigned int i = 0; i < NR_KEPT_ROOTS - 1; i++) {
		if (!vcpu->roots[i].root)
			return &vcpu->roots[i];
	}
	return &vcpu->roots[NR_KEPT_ROOTS - 1];
}

bool root_is_obsolete(struct shadow *shadow, const struct kept_root *kept)
{
	if (shadow_page_obsolete(shadow, kept->root))
		return true;
	return root_is_dummy(kept->root) && gfn_has_memory(shadow, kept->gfn);
}

void root_cache_to_front(struct shadow *shadow, struct shadow_vcpu *vcpu, struct kept_root *kept)
{
	struct kept_root *front = vcpu->roots;

	lockdep_assert_held(&shadow->mmu_lock);
	/* Those before it move back by one: they stay in the order of their last use. */
	for (struct kept_root *at = front + 1; at <= kept; at++) {
		struct kept_root tmp = *front;

		*front = *at;
		*at = tmp;
	}
	vcpu->root = front->root;
}

void root_cache_flush(struct shadow *shadow, struct shadow_vcpu *vcpu, unsigned int pcid)
{
	lockdep_assert_held(&shadow->mmu_lock);
	for (unsigned int i = 0; i < NR_KEPT_ROOTS; i++) {
		if (pcid == ANY_PCID || vcpu->roots[i].pcid == pcid)
			vcpu->roots[i].stale = true;
	}
}

void root_cache_sync_gva(struct shadow *shadow, struct shadow_vcpu *vcpu, unsigned int pcid,
			 gva_t gva, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	for (unsigned int i = 0; i < NR_KEPT_ROOTS; i++) {
		const struct kept_root *kept = &vcpu->roots[i];

		if (kept->root && !shadow_page_obsolete(shadow, kept->root) &&
		    (pcid == ANY_PCID || kept->pcid == pcid))
			sync_gva(shadow, kept->root, gva, batch);
	}
}

unsigned int root_cache_count(const struct shadow *shadow, const struct shadow_page *root)
{
	unsigned int nr = 0;

	lockdep_assert_held(&shadow->mmu_lock);
	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		const struct shadow_vcpu *vcpu = &shadow->vcpu[i];

		for (unsigned int j = 0; j < NR_KEPT_ROOTS; j++)
			nr += vcpu->roots[j].root == root;
		nr += vcpu->left.root == root;
	}
	return nr;
}

bool root_in_use(const struct shadow *shadow, const struct shadow_page *sp)
{
	lockdep_assert_held(&shadow->mmu_lock);
	if (!sp->root_count)
		return false;
	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		const struct shadow_vcpu *vcpu = &shadow->vcpu[i];

		/* Pairs with try_load_root(). */
		if (vcpu->root == sp || smp_load_acquire(&vcpu->loaded) == sp ||
		    vcpu->left.root == sp)
			return true;
	}
	return false;
}

void root_cache_forget(struct shadow *shadow, struct shadow_page *root)
{
	lockdep_assert_held(&shadow->mmu_lock);
	for (unsigned int i = 0; root->root_count && i < shadow->nr_vcpus; i++) {
		for (unsigned int j = 1; j < NR_KEPT_ROOTS; j++) {
			struct kept_root *kept = &shadow->vcpu[i].roots[j];

			if (kept->root != root)
				continue;
			*kept = (struct kept_root){0};
			root->root_count--;
		}
	}
	ASSERT(!root->root_count, "nobody is on it");
}

void root_put(struct shadow *shadow, struct kept_root *kept, struct zap_batch *batch)
{
	struct shadow_page *root = kept->root;

	lockdep_assert_held(&shadow->mmu_lock);
	*kept = (struct kept_root){0};
	if (!root || --root->root_count)
		return;
	zap_any_page(shadow, root, batch);
}

void shadow_put_roots(struct shadow *shadow)
{
	struct zap_batch batch;
	int id;

	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	spin_lock(&shadow->mmu_lock);
	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		for (unsigned int j = 0; j < NR_KEPT_ROOTS; j++)
			root_put(shadow, &shadow->vcpu[i].roots[j], &batch);
		shadow->vcpu[i].root = NULL;
	}
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
	srcu_read_unlock(&shadow->slots_srcu, id);
}
