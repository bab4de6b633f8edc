/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults that take no mmu_lock (K-30): the leaf is there, and what it lacks was only taken from it
 * for a while.
 *
 *   the leaf, for this access                  becomes         the fault was
 *   allows it                                  nothing         spurious: another CPU was faster
 *   is tracked for its age (spte.h), else      present again   fast
 *     would allow it
 *   is paused (spte.h), for a store            writable        fast
 *   anything else                              nothing         for fault.c to resolve
 *
 * Neither is the guest's table walked, nor the host's. All that a leaf says was granted under
 * mmu_lock by both of them, and whoever takes some of that takes it out of the leaf: the host in a
 * window, which zaps it; a flush or an INVLPG of the guest, which syncs it; a page that becomes a
 * table, whose leaves lose the right to write, SPTE_MAY_WRITE too. What the guest has edited and
 * not flushed may be used on, as by a CPU that had it in its TLB. So who gives back what the leaf
 * says itself that it may have grants nothing.
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
 * somebody walks. Replayed by test_fast_fault (retired_under_a_walk). A walk takes no lock
 * but that of an rmap, whose holders wait for nobody, and does not sleep.
 *
 * Who pauses leaves wants to hear of the store, and of which page it is. The entry does not say
 * that, and what its table has noted (gfns[]) may be of another leaf before one has read it. So the
 * guest's tables are walked, for a gfn; and the leaf is changed under the lock in the head of that
 * page's rmap, and only if it is in there. As long as that is held no leaf leaves the rmap: so it
 * is one of that page at the very moment that it becomes writable. If the guest has edited its
 * entry and not flushed, it is in another rmap, and the fault is one for fault.c. Replayed by
 * test_fast_fault (paused_for_another_page).
 *
 * A fault that ends here uses no table in the sense of page_budget.c, and does not count for those
 * that are written to and not used (write_protect.c): it is to both as an access without a fault.
 */
#include "shadow/dirty.h"
#include "shadow/huge.h"

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

/* The leaf that the CPU would come to, of a page or a huge one, or the entry of a table of leaves;
 * NULL: it comes to none. In a walk. */
static spte_t *find_leaf(struct shadow *shadow, const struct shadow_page *root, gva_t gva,
			 bool *huge)
{
	struct machine *machine = shadow->machine;
	spte_t *table = root->spt;

	for (int level = root->role.level; level > 1; level--) {
		spte_t *sptep = &table[table_index(gva, level)];
		/* Acquire: pairs with shadow_page_link(). */
		spte_t spte = smp_load_acquire(sptep);

		if (!spte_present(spte))
			return NULL;
		*huge = spte_is_leaf(spte, level);
		if (*huge)
			return sptep;
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
	if (access & PFERR_WRITE) {
		if (!spte_writable(spte))
			return 0;
		spte |= SPTE_WRITE | SPTE_DIRTY;
	}
	return spte | SPTE_PRESENT;
}

struct mend {
	struct shadow *shadow;
	uint32_t access;
	/* Known: the page that becomes writable; in the lock of its rmap. */
	struct shadow_vcpu *vcpu;
	const struct memslot *slot;
	gfn_t gfn;
	bool huge;	 /* the leaf must be one */
	bool marked;	 /* out: it is dirty, granted or not */
	bool paused;	 /* out: that must be known */
	enum ret_pf ret; /* out: RET_PF_FIXED, RET_PF_SPURIOUS, or RET_PF_RETRY: not by us */
};

/* In a walk. */
static void mend_leaf(spte_t *sptep, void *arg)
{
	struct mend *mend = arg;
	spte_t spte = READ_ONCE(*sptep);

	mend->ret = RET_PF_RETRY;
	for (unsigned int tries = 0; tries < MAX_TRIES; tries++) {
		spte_t new = mended(spte, mend->access);

		/* A table may have been linked there meanwhile. */
		if (mend->huge && !(spte & SPTE_HUGE))
			return;

		mend->paused = new & ~spte &SPTE_WRITE;
		if (!new || (mend->paused && !mend->slot))
			return;
		if (new == spte) {
			mend->ret = RET_PF_SPURIOUS;
			return;
		}
		/* Before the grant, in one section with it: dirty_log.c, rule 2. Once: a ring has
		 * room for one. */
		if (mend->paused && !mend->marked)
			mark_page_dirty_in_slot(mend->shadow, mend->vcpu, mend->slot, mend->gfn);
		mend->marked |= mend->paused;
		shadow_hook(mend->shadow, SHADOW_HOOK_FAST_BEFORE_SWAP);
		if (try_cmpxchg(sptep, &spte, new)) {
			mend->ret = RET_PF_FIXED;
			return;
		}
	}
}

static void mend_any_leaf(struct mend *mend, struct shadow_vcpu *vcpu, gva_t gva)
{
	spte_t *sptep;

	walk_begin(vcpu);
	sptep = find_leaf(mend->shadow, vcpu->root, gva, &mend->huge);
	if (sptep)
		mend_leaf(sptep, mend);
	walk_end(vcpu);
}

/* The same, of a leaf of mend->gfn. */
static void mend_leaf_of(struct mend *mend, gva_t gva)
{
	struct rmap_head *head = &mend->slot->rmap[mend->gfn - mend->slot->base_gfn];
	spte_t *sptep;

	walk_begin(mend->vcpu);
	sptep = find_leaf(mend->shadow, mend->vcpu->root, gva, &mend->huge);
	if (sptep)
		rmap_one_lockless(head, sptep, mend_leaf, mend);
	walk_end(mend->vcpu);
}

/* A store by a leaf that is paused. If anything is amiss fault.c will say so. */
static void resume_leaf(struct mend *mend, struct shadow_vcpu *vcpu, gva_t gva)
{
	struct shadow *shadow = mend->shadow;
	struct guest_walk walk;
	struct memslot *slot;
	uint32_t error_code;

	if (guest_walk_vcpu(shadow, vcpu, gva, mend->access, &walk, &error_code))
		return;
	slot = gfn_to_memslot(shadow_memslots(shadow), walk.gfn);
	shadow_hook(shadow, SHADOW_HOOK_FAST_PAUSED);
	if (!slot || (slot->flags & (MEMSLOT_INVALID | MEMSLOT_READONLY)))
		return;
	mend->vcpu = vcpu;
	mend->slot = slot;
	mend->gfn = walk.gfn;
	mend_leaf_of(mend, gva);
}

bool shadow_fast_fault(struct shadow *shadow, struct shadow_vcpu *vcpu, struct shadow_fault *fault,
		       enum ret_pf *ret)
{
	struct mend mend = {
		.shadow = shadow,
		.access = fault->error_code & (PFERR_WRITE | PFERR_FETCH),
		.ret = RET_PF_RETRY,
	};

	/* A CPU does not walk for it, and the index of an entry does not say what is above. */
	if (!guest_canonical(&vcpu->cpu, fault->gva))
		return false;
	/* A leaf may be there: of a table that is linked elsewhere too, or a huge one that begins
	 * within reach. */
	if (unlikely(!machine_reaches(shadow->machine, fault->gva)))
		return false;
	mend_any_leaf(&mend, vcpu, fault->gva);
	if (mend.paused)
		resume_leaf(&mend, vcpu, fault->gva);

	if (mend.ret == RET_PF_FIXED)
		atomic64_inc(&shadow->stats.fast_faults);
	*ret = mend.ret;
	/* What was marked and not granted faults again: there may be no room for another mark. */
	return *ret != RET_PF_RETRY || mend.marked;
}
