/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults that take no mmu_lock (K-30): the leaf is there, and what it lacks was only taken from it
 * for a while.
 *
 *   the leaf, for this access                  becomes         the fault was
 *   allows it                                  nothing         spurious: another CPU was faster
 *   is tracked for its age (spte.h), else      present again   fast
 *     would allow it
 *   anything else                              nothing         for fault.c to resolve
 *
 * Neither is the guest's table walked, nor the host's. All that a leaf says was granted under
 * mmu_lock by both of them, and whoever takes some of that takes it out of the leaf: the host in a
 * window, which zaps it; a flush or an INVLPG of the guest, which syncs it; a page that becomes a
 * table, whose leaves lose the right to write. What the guest has edited and not flushed may be
 * used on, as by a CPU that had it in its TLB. So who gives back to a leaf exactly what it holds
 * already, tracked, grants nothing.
 *
 * It is given back by compare-and-exchange against the very entry that was judged:
 *
 *       fault                                  window of the page
 *       -----                                  ------------------
 *       reads the leaf, tracked
 *                                              mmu_lock: clears it; unlock; shoots down
 *                                              returns; the host frees the frame
 *       exchanges: it is 0 now, once more
 *         (by a store: the leaf names a free frame)
 *
 * Replayed by tests/unit/test_fast_fault.c (zapped_before_the_swap). If the exchange comes first
 * the window finds the leaf, as any other. And if the entry has gone and has come back the same, it
 * was granted anew. An entry may also have changed by an age or by a CPU; then it is judged again,
 * four times at most.
 *
 * The tables are walked with no lock at all. Each entry that links is read once; what it names may
 * be unlinked at any moment after that, and retired: to write to it then would be to write to what
 * is another table by now, or a page of the guest's. So who retires waits for walks (Linux:
 * READING_SHADOW_PAGE_TABLES):
 *
 *       walk                                   zap of the table
 *       ----                                   ----------------
 *       vcpu->walk becomes odd
 *       full barrier                           mmu_lock: unlinks, clears the leaves; unlock
 *       reads the link                         full barrier
 *       exchanges a leaf                       vcpu->walk is odd: waits until it is another
 *       vcpu->walk becomes even                retires the table
 *
 * One of the two sees what the other has done: the walk that the link is gone, or who retires that
 * somebody walks. Replayed by test_fast_fault (retired_under_a_walk). A walk takes no lock, waits
 * for nobody and does not sleep.
 *
 * A fault that ends here uses no table in the sense of page_budget.c, and does not count for those
 * that are written to and not used (write_protect.c): it is to both as an access without a fault.
 */
#include "shadow/shadow_internal.h"

#define MAX_TRIES 4 /* of an exchange, before mmu_lock is the shorter way */

/* So long before a processor is yielded; a walk takes some ten loads. */
#define SPIN_LIMIT 100

static void walk_begin(struct shadow_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->walk, vcpu->walk + 1);
	/* Pairs with shadow_wait_for_walks(). */
	smp_mb();
}

static void walk_end(struct shadow_vcpu *vcpu)
{
	/* Pairs with shadow_wait_for_walks(): what was done to a table is done. */
	smp_store_release(&vcpu->walk, vcpu->walk + 1);
}

void shadow_wait_for_walks(struct shadow *shadow)
{
	/* What was unlinked is seen by walks that begin from here on. Pairs with walk_begin(). */
	smp_mb();
	for (unsigned int i = 0; i < shadow->nr_vcpus; i++) {
		unsigned long walk = smp_load_acquire(&shadow->vcpu[i].walk);

		for (unsigned int spins = 0;
		     (walk & 1) && smp_load_acquire(&shadow->vcpu[i].walk) == walk; spins++) {
			if (spins < SPIN_LIMIT)
				cpu_relax();
			else
				sync_yield();
		}
	}
}

/* The entry of a table of leaves that the CPU would come to; NULL: it comes to none. In a walk. */
static spte_t *find_leaf(struct shadow *shadow, const struct shadow_page *root, gva_t gva)
{
	struct machine *machine = shadow->machine;
	spte_t *table = root->spt;

	for (int level = root->role.level; level > 1; level--) {
		/* Acquire: pairs with shadow_page_link(). */
		spte_t spte = smp_load_acquire(&table[table_index(gva, level)]);

		if (!spte_present(spte))
			return NULL;
		table = machine->ops->map_frame(machine, spte_pfn(spte));
	}
	return &table[table_index(gva, 1)];
}

/* @spte as @access needs it; 0: it cannot be had from this entry. */
static spte_t mended(spte_t spte, uint32_t access)
{
	if (!spte_present(spte))
		return 0;
	if ((access & PFERR_FETCH) && (spte & SPTE_NX))
		return 0;
	if ((access & PFERR_WRITE) && !(spte & SPTE_WRITE))
		return 0;
	return spte | SPTE_PRESENT;
}

/* In a walk: RET_PF_FIXED, RET_PF_SPURIOUS, or RET_PF_RETRY: not by us. */
static enum ret_pf mend(struct shadow *shadow, spte_t *sptep, uint32_t access)
{
	spte_t spte = READ_ONCE(*sptep);

	for (unsigned int tries = 0; tries < MAX_TRIES; tries++) {
		spte_t new = mended(spte, access);

		if (!new)
			break;
		if (new == spte)
			return RET_PF_SPURIOUS;
		shadow_hook(shadow, SHADOW_HOOK_FAST_BEFORE_SWAP);
		if (try_cmpxchg(sptep, &spte, new))
			return RET_PF_FIXED;
	}
	return RET_PF_RETRY;
}

bool shadow_fast_fault(struct shadow *shadow, struct shadow_vcpu *vcpu, struct shadow_fault *fault,
		       enum ret_pf *ret)
{
	spte_t *sptep;

	/* A CPU does not walk for it, and the index of an entry does not say what is above. */
	if (!guest_canonical(&vcpu->cpu, fault->gva))
		return false;
	walk_begin(vcpu);
	sptep = find_leaf(shadow, vcpu->root, fault->gva);
	*ret = sptep ? mend(shadow, sptep, fault->error_code) : RET_PF_RETRY;
	walk_end(vcpu);

	if (*ret == RET_PF_FIXED)
		atomic64_inc(&shadow->stats.fast_faults);
	return *ret != RET_PF_RETRY;
}
