/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sync: what is shadowed is brought into line with what the guest's tables say now (K-12). INVLPG
 * does it for one address, whatever flushes (a CR3 load) for all that hangs below a root. Nothing
 * is thrown away that still is what a walk would come to.
 *
 * An entry of ours is compared with the guest's:
 *
 *   gone, not accessed, reserved bits    goes: a leaf is dropped, a table zapped whole (zap.c)
 *   another page, another table, kind    goes
 *   a right to read or fetch less	  goes, and the next access finds what is left
 *   a right to write less, or clean	  loses it in place
 *   the same, or more rights		  stays; more is found by a fault
 *
 * An entry that has lost A must be walked again, so that A is set for the next access. One that
 * cannot be read this instant (the host has the page elsewhere) is taken for gone.
 *
 * Links are compared in every sync. Leaves are where the table is *unsync* (write_protect.c), and
 * the table is in step afterwards. For this a sync is in two parts:
 *
 *   sync of a root, on vCPU A              vCPU B
 *   -------------------------              ------
 *   mmu_lock: the table's gfn is write-
 *     protected, the table has sync_id 7
 *                                          stores to an entry through its TLB: no fault
 *   shootdown: no CPU stores unseen
 *                                          stores: fault, under mmu_lock the table gets sync_id 0
 *                                            and the page is writable again
 *   mmu_lock: all entries are compared;
 *     in step if sync_id is 7
 *
 * The first store is seen since the look comes after the shootdown, the second since the table
 * stays unsync. The mark goes with the look, not before: else a third vCPU that loads CR3 in
 * between would find nothing to do, and run on what is stale. Of two syncs of a table at once the
 * later one takes the mark away, after its own shootdown. Each is a case in test_sync_races.
 *
 * A table in which a sync has found an edit is not protected by the next one: it would only be
 * stored to again, which costs a fault. That one compares it, and so on, until there is nothing to
 * be found.
 *
 * While mmu_lock is dropped all may become obsolete (zap_slot.c). The sync goes on: the vCPU runs
 * on that root until it finds out.
 *
 * A table may come below a root after the root was synced, when a fault links one that exists: what
 * is unsync of that, and below it, is compared first, since the vCPU's flush was for all addresses.
 * No mark goes then. All of it is compared in the section of mmu_lock that links it: what was
 * compared in an earlier one may be stale by now, for another vCPU on the same root, which has
 * flushed in between, and did not find the table below its root. So that the section is not as long
 * as there are tables, the fault gives up when there are more than TABLES_IN_A_ROW, syncs them
 * where they are, with breaks and marks as for a root, and begins anew: then they are in step, but
 * for those that have been stored to since. Should these be too many as well, and again, twice as
 * many are compared in a row each time, so that the fault comes to an end.
 */
#include "shadow/gpte.h"
#include "shadow/shadow_internal.h"

/*
 * What the guest's entry @index of the table that @sp shadows holds; 0 when that is out of reach.
 * One in ROM is walked without being marked.
 */
static uint64_t read_gpte(struct shadow *shadow, const struct shadow_page *sp, unsigned int index)
{
	gpa_t gpa = (sp->gfn << PAGE_SHIFT) + index * sizeof(uint64_t);
	const struct memslot *slot = gpa_to_memslot(shadow, gpa);
	uint64_t gpte;

	if (!slot || (slot->flags & MEMSLOT_INVALID) ||
	    mm_read64_atomic(shadow->mm, memslot_gpa_hva(slot, gpa), &gpte))
		return 0;
	return slot->flags & MEMSLOT_READONLY ? gpte | GPTE_ACCESSED | GPTE_DIRTY : gpte;
}

/* Would a walk pass this entry without having to mark it? */
static bool gpte_walked(struct shadow_role role, uint64_t gpte)
{
	return (gpte & GPTE_PRESENT) && (gpte & GPTE_ACCESSED) &&
	       !(gpte & gpte_reserved(gpte, role.level, role.maxphyaddr, role.nxe));
}

static unsigned int role_pkey(struct shadow_role role, uint64_t gpte)
{
	return role.pke ? gpte_pkey(gpte) : 0;
}

/* @sp shadows a guest's table, above the leaves. */
bool link_in_step(struct shadow *shadow, const struct shadow_page *sp, unsigned int index,
		  const struct shadow_page *child)
{
	uint64_t gpte = read_gpte(shadow, sp, index);
	struct shadow_role role = sp->role;

	if (!gpte_walked(role, gpte) || child->gfn != gpte_gfn(gpte, role.level))
		return false;
	role.access &= gpte_access(gpte);
	if (gpte_is_leaf(gpte, role.level)) {
		role.direct = true;
		role.dirty = !!(gpte & GPTE_DIRTY);
		role.pkey = role_pkey(role, gpte);
	}
	role.level--;
	return child->role.word == role.word;
}

unsigned int gpte_gives(struct shadow *shadow, const struct shadow_page *sp, unsigned int index,
			uint64_t *gpte)
{
	*gpte = read_gpte(shadow, sp, index);
	if (!gpte_walked(sp->role, *gpte))
		return 0;
	return leaf_rights(sp->role, sp->role.access & gpte_access(*gpte),
			   role_pkey(sp->role, *gpte), *gpte & GPTE_DIRTY);
}

/* What the guest's entry leaves of the rights to its page, none if it is another page. */
static unsigned int rights_now(struct shadow *shadow, const struct shadow_page *sp,
			       unsigned int index)
{
	uint64_t gpte;
	unsigned int rights = gpte_gives(shadow, sp, index, &gpte);
	int level = sp->role.level;

	if (!gpte_is_leaf(gpte, level) || gpte_gfn(gpte, level) != sp->gfns[index])
		return 0;
	return rights;
}

/* The leaf is present, of a page or a huge one, and the batch not full. True: it was not in step.
 */
bool sync_leaf(struct shadow *shadow, struct shadow_page *sp, unsigned int index,
	       struct zap_batch *batch)
{
	spte_t spte = READ_ONCE(sp->spt[index]);
	unsigned int rights = rights_now(shadow, sp, index);

	if (!(rights & ACC_READ) || (!(rights & ACC_EXEC) && !(spte & SPTE_NX))) {
		drop_leaf(shadow, sp, index, batch);
		return true;
	}
	if ((rights & ACC_WRITE) || !leaf_lose_write(&sp->spt[index]))
		return false;
	zap_batch_add(batch, spte_frames(spte));
	return true;
}

void sync_gva(struct shadow *shadow, struct shadow_page *root, gva_t gva, struct zap_batch *batch)
{
	struct shadow_page *sp = root;

	lockdep_assert_held(&shadow->mmu_lock);
	for (;;) {
		unsigned int index = table_index(gva, sp->role.level);
		spte_t spte = READ_ONCE(sp->spt[index]);
		struct shadow_page *child;

		if (!spte_present(spte))
			return;
		if (spte_is_leaf(spte, sp->role.level)) {
			sync_leaf(shadow, sp, index, batch);
			return;
		}
		child = spte_to_child(shadow, spte);
		if (!link_in_step(shadow, sp, index, child)) {
			zap_page(shadow, child, batch);
			return;
		}
		/* All of a large page is made from the one entry that was just compared. */
		if (child->role.direct)
			return;
		sp = child;
	}
}

/* --- all below a table --------------------------------------------------------------------------
 */

/* Compared without a break: then others may have mmu_lock. */
#define TABLES_IN_A_ROW 16
#define MAX_DOUBLED	20 /* more tables than there are frames */

enum sync_part {
	SYNC_PROTECT, /* links are compared; what is unsync is write-protected */
	SYNC_COMPARE, /* its leaves are compared */
};

struct sync {
	struct shadow *shadow;
	struct zap_batch *batch;
	enum sync_part part;
	uint64_t id;   /* 0: no mark goes */
	uint64_t pass; /* the tables that have it are done: none is looked at twice, however many
			  links lead there */
	unsigned int in_a_row; /* may be compared before the next break */
	bool unsync;	       /* one was found */
};

static bool protect_table(struct sync *sync, struct shadow_page *sp)
{
	if (sp->role.level == 1)
		sync->unsync = true;
	if (sp->edited)
		return true;
	if (zap_batch_full(sync->batch))
		return false;
	write_protect_gfn(sync->shadow, sp->gfn, sync->batch);
	if (sp->role.level > 1)
		sp->unsync = false;
	else
		sp->sync_id = sync->id;
	return true;
}

static bool compare_leaves(struct sync *sync, struct shadow_page *sp)
{
	bool edited = false;

	for (unsigned int i = 0; i < TABLE_ENTRIES; i++) {
		if (!spte_present(READ_ONCE(sp->spt[i])))
			continue;
		if (zap_batch_full(sync->batch))
			return false;
		edited |= sync_leaf(sync->shadow, sp, i, sync->batch);
	}
	sp->edited = edited;
	if (sync->id && sp->sync_id == sync->id)
		sp->unsync = false;
	atomic64_inc(&sync->shadow->stats.synced);
	return true;
}

static bool sync_unsync(struct sync *sync, struct shadow_page *sp)
{
	if (!sp->unsync)
		return true;
	if (sync->part == SYNC_PROTECT)
		return protect_table(sync, sp);
	if (sp->role.level > 1)
		return true;
	if (!sync->in_a_row)
		return false;
	sync->in_a_row--;
	return compare_leaves(sync, sp);
}

/* False: it is time for a break, to flush the batch. What is done needs not be done again. */
static bool sync_table(struct sync *sync, struct shadow_page *sp)
{
	if (sp->pass == sync->pass)
		return true;
	if (!sync_unsync(sync, sp))
		return false;
	for (unsigned int i = 0; sp->role.level > 1 && i < TABLE_ENTRIES; i++) {
		spte_t spte = READ_ONCE(sp->spt[i]);
		struct shadow_page *child;

		if (!spte_present(spte))
			continue;
		if (spte_is_leaf(spte, sp->role.level)) {
			if (zap_batch_full(sync->batch))
				return false;
			sync_leaf(sync->shadow, sp, i, sync->batch);
			continue;
		}
		child = spte_to_child(sync->shadow, spte);
		/* Those on the way to here are above @sp, and stay. */
		if (!link_in_step(sync->shadow, sp, i, child))
			zap_page(sync->shadow, child, sync->batch);
		else if (!child->role.direct && !sync_table(sync, child))
			return false;
	}
	sp->pass = sync->pass;
	return true;
}

static void flush_and_go_on(struct sync *sync)
{
	struct shadow *shadow = sync->shadow;

	sync->in_a_row = TABLES_IN_A_ROW;
	zap_batch_close(shadow, sync->batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, sync->batch);
	shadow_hook(shadow, SHADOW_HOOK_SYNC_BEFORE_COMPARE);
	spin_lock(&shadow->mmu_lock);
}

static void sync_part(struct sync *sync, struct shadow_page *root, enum sync_part part)
{
	sync->part = part;
	sync->pass = ++sync->shadow->sync_pass;
	while (!sync_table(sync, root))
		flush_and_go_on(sync);
}

void sync_root(struct shadow *shadow, struct shadow_page *root, struct zap_batch *batch)
{
	struct sync sync = {
		.shadow = shadow,
		.batch = batch,
		.id = ++shadow->sync_pass,
		.in_a_row = TABLES_IN_A_ROW,
	};

	lockdep_assert_held(&shadow->mmu_lock);
	ASSERT(root->root_count, "the root stays while mmu_lock is dropped");
	sync_part(&sync, root, SYNC_PROTECT);
	if (!sync.unsync)
		return;
	/* Also when nothing was writable: who took the right may not have told the CPUs yet. */
	flush_and_go_on(&sync);
	sync_part(&sync, root, SYNC_COMPARE);
}

bool sync_child(struct shadow *shadow, struct shadow_page *child, struct late_link *late,
		struct zap_batch *batch)
{
	struct sync sync = {
		.shadow = shadow,
		.batch = batch,
		.part = SYNC_COMPARE,
		.pass = ++shadow->sync_pass,
		.in_a_row = TABLES_IN_A_ROW << late->nr_failed,
	};

	lockdep_assert_held(&shadow->mmu_lock);
	if (child->role.direct || sync_table(&sync, child)) {
		late->nr_failed = 0;
		return true;
	}
	late->gfn = child->gfn;
	late->role = child->role;
	late->pending = true;
	if (late->nr_failed < MAX_DOUBLED)
		late->nr_failed++;
	return false;
}

void sync_apart(struct shadow *shadow, struct late_link *late)
{
	struct zap_batch batch;
	struct sync sync = {
		.shadow = shadow,
		.batch = &batch,
		.in_a_row = TABLES_IN_A_ROW,
	};

	late->pending = false;
	zap_batch_init(&batch);
	spin_lock(&shadow->mmu_lock);
	sync.id = ++shadow->sync_pass;
	for (sync.part = SYNC_PROTECT; sync.part <= SYNC_COMPARE; sync.part++) {
		struct shadow_page *sp;

		sync.pass = ++shadow->sync_pass;
		/* Nobody keeps it: it may go, and another come, whenever mmu_lock is dropped. */
		while ((sp = shadow_page_find(shadow, late->gfn, late->role)) &&
		       !sync_table(&sync, sp))
			flush_and_go_on(&sync);
		flush_and_go_on(&sync);
	}
	zap_batch_close(shadow, &batch);
	spin_unlock(&shadow->mmu_lock);
	zap_batch_flush(shadow, &batch);
}
