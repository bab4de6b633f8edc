/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shadow pages: one per table that the CPUs walk.
 *
 * A page shadows the guest table at @gfn in one role. It is found by both together, never by gfn
 * alone: the same guest table read at another level, or reached with other rights, is another page
 * (K-01, K-03). It is made before mmu_lock is taken, published and linked under it, and leaves by
 * zap.c alone.
 *
 *   allocated (a vCPU's cache) -> published, linked (shadow->pages) -> zapped (a batch's retired
 * list) -> retired
 */
#include "shadow/huge.h"

#include "notifier/sync/alloc.h"

struct shadow_page *shadow_page_alloc(struct shadow *shadow, int level)
{
	const struct machine_ops *ops = shadow->machine->ops;
	struct shadow_page *sp = kzalloc(sizeof(*sp), GFP_KERNEL);

	if (!sp)
		return NULL;
	if (level <= HUGE_LEVEL) {
		sp->gfns = kcalloc(TABLE_ENTRIES, sizeof(*sp->gfns), GFP_KERNEL);
		if (!sp->gfns)
			goto out_sp;
	}
	if (READ_ONCE(shadow->audit) >= SHADOW_AUDIT_SEMANTIC) {
		sp->gptes = kcalloc(TABLE_ENTRIES, sizeof(*sp->gptes), GFP_KERNEL);
		if (!sp->gptes)
			goto out_gfns;
	}
	sp->table = ops->alloc_table(shadow->machine, level);
	if (sp->table == INVALID_PFN)
		goto out_gptes;
	sp->spt = ops->map_frame(shadow->machine, sp->table);
	return sp;

out_gptes:
	kfree(sp->gptes);
out_gfns:
	kfree(sp->gfns);
out_sp:
	kfree(sp);
	return NULL;
}

void shadow_page_free_unused(struct shadow *shadow, struct shadow_page *sp)
{
	shadow_audit_retired(shadow, sp);
	shadow->machine->ops->free_table(shadow->machine, sp->table);
	kfree(sp->gptes);
	kfree(sp->gfns);
	kfree(sp);
}

/* Fibonacci hashing: gfns and table addresses are runs of neighbours. */
static unsigned int hash_page_number(uint64_t n)
{
	return (n * 0x9e3779b97f4a7c15UL) >> (64 - SHADOW_HASH_BITS);
}

static struct list_head *spt_bucket(struct shadow *shadow, const spte_t *sptep)
{
	return &shadow->by_spt[hash_page_number((uintptr_t)sptep >> PAGE_SHIFT)];
}

struct list_head *shadow_page_bucket(struct shadow *shadow, gfn_t gfn)
{
	lockdep_assert_held(&shadow->mmu_lock);
	return &shadow->by_gfn[hash_page_number(gfn)];
}

struct shadow_page *shadow_page_find(struct shadow *shadow, gfn_t gfn, struct shadow_role role)
{
	struct shadow_page *sp;

	list_for_each_entry(sp, shadow_page_bucket(shadow, gfn), hash_link) {
		if (sp->gfn == gfn && sp->role.word == role.word &&
		    !shadow_page_obsolete(shadow, sp))
			return sp;
	}
	return NULL;
}

struct shadow_page *shadow_page_of_gfn(struct shadow *shadow, gfn_t gfn)
{
	struct shadow_page *sp;

	list_for_each_entry(sp, shadow_page_bucket(shadow, gfn), hash_link) {
		if (sp->gfn == gfn)
			return sp;
	}
	return NULL;
}

void shadow_page_publish(struct shadow *shadow, struct shadow_page *sp, gfn_t gfn,
			 struct shadow_role role, struct zap_batch *batch)
{
	lockdep_assert_held(&shadow->mmu_lock);
	sp->gfn = gfn;
	sp->role = role;
	sp->unsync = !role.direct && role.level == 1;
	sp->gen = shadow->gen;
	list_add(&sp->link, &shadow->pages);
	WRITE_ONCE(shadow->nr_pages, shadow->nr_pages + 1);
	list_add(&sp->hash_link, shadow_page_bucket(shadow, gfn));
	list_add(&sp->spt_link, spt_bucket(shadow, sp->spt));
	guest_table_add(shadow, sp);
	if (!role.direct)
		huge_forbid(shadow, gfn, batch);
	if (!role.direct && role.level > 1)
		write_protect_gfn(shadow, gfn, batch);
}

struct shadow_page *sptep_to_sp(struct shadow *shadow, const spte_t *sptep)
{
	const spte_t *spt = (const spte_t *)((uintptr_t)sptep & PAGE_MASK);
	struct shadow_page *sp;

	lockdep_assert_held(&shadow->mmu_lock);
	list_for_each_entry(sp, spt_bucket(shadow, spt), spt_link) {
		if (sp->spt == spt)
			return sp;
	}
	return NULL;
}

struct shadow_page *spte_to_child(struct shadow *shadow, spte_t spte)
{
	return sptep_to_sp(shadow,
			   shadow->machine->ops->map_frame(shadow->machine, spte_pfn(spte)));
}

/* The parent entry is stored last: a CPU that sees it sees a table whose entries are all in place.
 */
void shadow_page_link(struct shadow_page *child, spte_t *sptep, struct rmap_desc **spare)
{
	ASSERT(!READ_ONCE(*sptep), "the slot is empty: zapped and flushed before (K-04), and ours");
	rmap_add(&child->parents, sptep, spare);
	smp_store_release(sptep, make_table_spte(child->table));
}
