/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Roots: the virtual CPU's state, CR3 loads, and INVLPG.
 *
 * A guest's edits of its tables take effect in the shadow at a fault, at INVLPG and at a CR3 load:
 * as a CPU's TLB would have it. A CR3 load is a flush, so all that is shadowed for the root that it
 * loads is synced (sync.c): what a root reaches is then never older than the last CR3 load of a
 * vCPU that uses it. The root that it leaves is zapped when nobody else runs on that.
 *
 * A root belongs to a view (role.c). A vCPU whose view changes gets the root of the new one, as by
 * a CR3 load: that is synced, and so an INVLPG need not look for other views.
 */
#include <errno.h>

#include "shadow/shadow_internal.h"

#define CR3_PFN_MASK 0x000ffffffffff000UL

static struct shadow_role root_role(const struct shadow *shadow, const struct guest_cpu *cpu)
{
	struct shadow_role role = guest_view(cpu, false);

	role.level = shadow->machine->levels;
	role.access = ACC_ALL;
	return role;
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

/* mmu_lock. The last vCPU to leave a root zaps it. */
static void put_root(struct shadow *shadow, struct shadow_page *root, struct zap_batch *batch)
{
	if (!root || --root->root_count)
		return;
	if (shadow_page_obsolete(shadow, root))
		zap_obsolete_page(shadow, root, batch);
	else
		zap_page(shadow, root, batch);
}

/*
 * The vCPU runs on another root. Only now, as to let go of the old one is to say that this CPU does
 * not run on it:
 *
 *   vCPU 0                               vCPU 1, on the same root
 *   ------                               ------
 *   mmu_lock: takes a new root, lets
 *     go of the old; unlock
 *                                        takes a new root, lets go of the old: the last,
 *                                          retires the table
 *   load_root                              ^ forbidden: CPU 0 is on it
 *
 * Replayed by tests/unit/test_root.c (leaves_before_it_lets_go).
 */
static void leave_root(struct shadow *shadow, struct shadow_page *root)
{
	struct zap_batch batch;

	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	put_root(shadow, root, &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
}

/* @cpu's root, synced, is what the vCPU runs on. 0 or -ENOMEM. */
static int load_root(struct shadow *shadow, unsigned int vcpu_id, const struct guest_cpu *cpu)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];
	gfn_t gfn = (cpu->cr3 & CR3_PFN_MASK) >> PAGE_SHIFT;
	struct shadow_role role = root_role(shadow, cpu);
	struct shadow_page *root, *left;
	struct zap_batch batch;
	int id;

	if (shadow_cache_topup(shadow, &vcpu->cache, true))
		return -ENOMEM;

	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	spin_lock(&shadow->mmu_lock);
	root = shadow_page_find(shadow, gfn, role);
	if (!root) {
		root = shadow_cache_take(&vcpu->cache, role.level);
		shadow_page_publish(shadow, root, gfn, role, &batch);
	}
	root->root_count++;
	left = vcpu->root;
	vcpu->root = root;
	vcpu->cpu = *cpu;
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);

	shadow_hook(shadow, SHADOW_HOOK_ROOT_BEFORE_LOAD);
	shadow->machine->ops->load_root(shadow->machine, vcpu_id, root->table);
	zap_batch_flush(shadow, &batch);

	/* The vCPU is in here, so it has used nothing of the root. */
	spin_lock(&shadow->mmu_lock);
	sync_root(shadow, root, &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
	leave_root(shadow, left);
	srcu_read_unlock(&shadow->slots_srcu, id);
	return 0;
}

int shadow_load_cr3(struct shadow *shadow, unsigned int vcpu_id, uint64_t cr3)
{
	struct guest_cpu cpu;

	ASSERT(vcpu_id < shadow->nr_vcpus, "a vCPU of this guest");
	cpu = shadow->vcpu[vcpu_id].cpu;
	cpu.cr3 = cr3;
	return cr3_valid(&cpu) ? load_root(shadow, vcpu_id, &cpu) : -EINVAL;
}

int shadow_set_cpu(struct shadow *shadow, unsigned int vcpu_id, const struct guest_cpu *cpu)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];

	ASSERT(vcpu_id < shadow->nr_vcpus, "a vCPU of this guest");
	if (!cpu_valid(shadow, cpu))
		return -EINVAL;
	/* The rest of the state changes nothing that is in the tables; but to change PGE is a flush
	 * (SDM vol. 3, 4.10.4.1). */
	if (vcpu->root && vcpu->root->role.word == root_role(shadow, cpu).word &&
	    vcpu->cpu.cr3 == cpu->cr3 && !((vcpu->cpu.cr4 ^ cpu->cr4) & GUEST_CR4_PGE)) {
		spin_lock(&shadow->mmu_lock);
		vcpu->cpu = *cpu;
		spin_unlock(&shadow->mmu_lock);
		return 0;
	}
	return load_root(shadow, vcpu_id, cpu);
}

const struct guest_cpu *shadow_get_cpu(const struct shadow *shadow, unsigned int vcpu_id)
{
	ASSERT(vcpu_id < shadow->nr_vcpus, "a vCPU of this guest");
	return &shadow->vcpu[vcpu_id].cpu;
}

int shadow_leave_obsolete_root(struct shadow *shadow, unsigned int vcpu_id)
{
	struct shadow_vcpu *vcpu = &shadow->vcpu[vcpu_id];

	if (likely(!shadow_page_obsolete(shadow, vcpu->root)))
		return 0;
	/*
	 * A load like any: another vCPU may have been at the new root for a while, with what this
	 * one has since dropped from the old.
	 */
	return load_root(shadow, vcpu_id, &vcpu->cpu);
}

void shadow_put_roots(struct shadow *shadow)
{
	struct zap_batch batch;
	int id;

	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	spin_lock(&shadow->mmu_lock);
	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		put_root(shadow, shadow->vcpu[i].root, &batch);
		shadow->vcpu[i].root = NULL;
	}
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
	srcu_read_unlock(&shadow->slots_srcu, id);
}

void shadow_invlpg(struct shadow *shadow, unsigned int vcpu_id, gva_t gva)
{
	struct shadow_page *root = shadow->vcpu[vcpu_id].root;
	struct zap_batch batch;
	bool obsolete;
	int id;

	zap_batch_init(&batch);
	id = srcu_read_lock(&shadow->slots_srcu);
	spin_lock(&shadow->mmu_lock);
	obsolete = shadow_page_obsolete(shadow, root);
	if (!obsolete)
		sync_gva(shadow, root, gva, &batch);
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
	/* The leaf may be in a table that is unlinked from the root, and not zapped yet
	 * (zap_slot.c, rule 3). */
	if (obsolete)
		shadow_zap_obsolete(shadow);
	srcu_read_unlock(&shadow->slots_srcu, id);
}
