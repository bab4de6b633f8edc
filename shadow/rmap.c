/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reverse maps: from a guest page to the leaves that map it, and from a shadow page to the entries
 * that link to it.
 *
 * The word of a head is
 *
 *	0		nobody
 *	an entry	that one alone
 *	a chunk | 1	all in the chain of chunks that begins there
 *
 * and bit 1 is a lock (below). Rules:
 *
 *  1. Only the first chunk of a chain may have room. An addition that finds none there puts a new
 *     chunk before it; a removal fills its hole with the last entry of the first chunk, which goes
 *     when it is empty. So the first chunk knows how many there are: its own, and what the full
 *     ones behind it hold.
 *  2. Chunks come from the caller, who made them before it took mmu_lock, and are freed on the
 *     spot: freeing does not sleep.
 *  3. An rmap is changed under mmu_lock, and, if it was not empty, with its own lock as well.
 *     Reading it takes either. Whoever has the lock in the head alone keeps all that he finds: no
 *     chunk of the chain is freed, and no table that an entry lies in, as the entry would have to
 *     be removed before.
 *  4. An empty rmap is not locked: there is nothing in it to keep, and an addition is one store.
 *
 * The lock spins, in whoever removes with mmu_lock held too, so its holders do little. A kernel
 * would forbid preemption meanwhile; here a holder may lose his processor, and who waits yields.
 */
#include "shadow/shadow_internal.h"

#include "notifier/sync/alloc.h"

#define RMAP_CHAIN  1UL
#define RMAP_LOCKED 2UL

#define RMAP_CHUNK 14 /* a chunk is two cache lines */

struct rmap_desc {
	struct rmap_desc *next;
	uint32_t nr;   /* here */
	uint32_t tail; /* in all chunks behind this one */
	spte_t *sptep[RMAP_CHUNK];
};

struct rmap_desc *rmap_desc_alloc(void)
{
	return kzalloc(sizeof(struct rmap_desc), GFP_KERNEL);
}

void rmap_desc_free(struct rmap_desc *desc)
{
	kfree(desc);
}

/* ---- the lock ---- */

/* About as long as a holder takes for an ordinary page. */
#define SPIN_LIMIT 100

static struct lockdep_map rmap_lock_map = LOCKDEP_MAP_INIT(&rmap_lock_map, "rmap_head");

/* What the head says, locked now; 0: it is empty, and not locked. */
static uintptr_t lock_head_at(struct rmap_head *head, const struct lock_site *site)
{
	uintptr_t val = READ_ONCE(head->val);
	unsigned int spins = 0;

	if (val)
		lockdep_check_acquire(&rmap_lock_map, head, HELD_SPINLOCK, 0, NULL, site);
	while (val) {
		if (!(val & RMAP_LOCKED)) {
			/* Acquire; pairs with the release in unlock_head(). */
			if (!try_cmpxchg(&head->val, &val, val | RMAP_LOCKED))
				continue;
			lockdep_acquired(&rmap_lock_map, head, HELD_SPINLOCK, 0, site);
			return val;
		}
		if (++spins < SPIN_LIMIT)
			cpu_relax();
		else
			sync_yield();
		val = READ_ONCE(head->val);
	}
	return 0;
}

#define lock_head(head) lock_head_at(head, LOCK_SITE_OF("rmap_head"))

static void unlock_head(struct rmap_head *head, uintptr_t val)
{
	lockdep_release(head, HELD_SPINLOCK);
	/* Pairs with lock_head(). */
	smp_store_release(&head->val, val);
}

/* mmu_lock: what the head says. It does not change, but for the lock. */
static uintptr_t head_word(const struct rmap_head *head)
{
	return READ_ONCE(head->val) & ~RMAP_LOCKED;
}

static struct rmap_desc *word_to_chain(uintptr_t val)
{
	return val & RMAP_CHAIN ? (struct rmap_desc *)(val & ~RMAP_CHAIN) : NULL;
}

static uintptr_t chain_to_word(const struct rmap_desc *desc)
{
	return (uintptr_t)desc | RMAP_CHAIN;
}

/* ---- changes ---- */

static struct rmap_desc *take_spare(struct rmap_desc **spare, struct rmap_desc *next)
{
	struct rmap_desc *desc = *spare;

	ASSERT(desc, "the cache was topped up before mmu_lock was taken");
	*spare = NULL;
	desc->next = next;
	desc->nr = 0;
	desc->tail = next ? next->nr + next->tail : 0;
	return desc;
}

/* Returns the new word. */
static uintptr_t add_to(uintptr_t val, spte_t *sptep, struct rmap_desc **spare)
{
	struct rmap_desc *desc = word_to_chain(val);

	if (!desc) {
		desc = take_spare(spare, NULL);
		desc->sptep[desc->nr++] = (spte_t *)val;
	} else if (desc->nr == RMAP_CHUNK) {
		desc = take_spare(spare, desc);
	}
	desc->sptep[desc->nr++] = sptep;
	return chain_to_word(desc);
}

void rmap_add(struct rmap_head *head, spte_t *sptep, struct rmap_desc **spare)
{
	uintptr_t val = lock_head(head);

	ASSERT(!((uintptr_t)sptep & (RMAP_CHAIN | RMAP_LOCKED)), "an entry is a whole word");
	if (!val)
		smp_store_release(&head->val, (uintptr_t)sptep);
	else
		unlock_head(head, add_to(val, sptep, spare));
}

static spte_t **find(struct rmap_desc *desc, const spte_t *sptep)
{
	for (; desc; desc = desc->next) {
		for (unsigned int i = 0; i < desc->nr; i++) {
			if (desc->sptep[i] == sptep)
				return &desc->sptep[i];
		}
	}
	return NULL;
}

void rmap_remove(struct rmap_head *head, spte_t *sptep)
{
	uintptr_t val = lock_head(head);
	struct rmap_desc *first = word_to_chain(val);
	spte_t **hole;

	if (!first) {
		ASSERT(val == (uintptr_t)sptep, "the rmap holds the entry that is removed");
		unlock_head(head, 0);
		return;
	}
	hole = find(first, sptep);
	ASSERT(hole, "the rmap holds the entry that is removed");
	*hole = first->sptep[--first->nr];
	if (first->nr) {
		unlock_head(head, val);
		return;
	}
	unlock_head(head, first->next ? chain_to_word(first->next) : 0);
	/* Nobody is inside it: he would have the lock, or mmu_lock. */
	rmap_desc_free(first);
}

/* ---- reading ---- */

/*
 * From the last entry of a chunk to its first, and what is behind a chunk is known before the
 * first look into it: so the entry that was given last may be removed. What fills its hole, the
 * last entry of the first chunk, has been given before; and a chunk that goes has nothing left.
 */
struct rmap_iterator {
	struct rmap_desc *desc, *next;
	unsigned int left; /* in desc */
};

static void enter_chunk(struct rmap_iterator *iter, struct rmap_desc *desc)
{
	*iter = (struct rmap_iterator){.desc = desc};
	if (desc) {
		iter->next = desc->next;
		iter->left = desc->nr;
	}
}

static spte_t *next_entry(struct rmap_iterator *iter)
{
	if (iter->desc && !iter->left)
		enter_chunk(iter, iter->next);
	return iter->desc ? iter->desc->sptep[--iter->left] : NULL;
}

/* @val: of a head, without its lock. */
static spte_t *first_entry(uintptr_t val, struct rmap_iterator *iter)
{
	enter_chunk(iter, word_to_chain(val));
	return iter->desc ? next_entry(iter) : (spte_t *)val;
}

static void each_entry(uintptr_t val, void (*fn)(spte_t *sptep, void *arg), void *arg)
{
	struct rmap_iterator iter;

	for (spte_t *sptep = first_entry(val, &iter); sptep; sptep = next_entry(&iter))
		fn(sptep, arg);
}

void rmap_each(const struct rmap_head *head, void (*fn)(spte_t *sptep, void *arg), void *arg)
{
	each_entry(head_word(head), fn, arg);
}

void rmap_each_lockless(struct rmap_head *head, void (*fn)(spte_t *sptep, void *arg), void *arg)
{
	uintptr_t val = lock_head(head);

	if (!val)
		return;
	each_entry(val, fn, arg);
	unlock_head(head, val);
}

spte_t *rmap_first(const struct rmap_head *head)
{
	uintptr_t val = head_word(head);
	struct rmap_desc *desc = word_to_chain(val);

	return desc ? desc->sptep[0] : (spte_t *)val;
}

static bool word_contains(uintptr_t val, const spte_t *sptep)
{
	struct rmap_desc *desc = word_to_chain(val);

	return desc ? find(desc, sptep) != NULL : val == (uintptr_t)sptep;
}

bool rmap_contains(const struct rmap_head *head, const spte_t *sptep)
{
	return word_contains(head_word(head), sptep);
}

bool rmap_one_lockless(struct rmap_head *head, spte_t *sptep, void (*fn)(spte_t *sptep, void *arg),
		       void *arg)
{
	uintptr_t val = lock_head(head);
	bool there;

	if (!val)
		return false;
	there = word_contains(val, sptep);
	if (there)
		fn(sptep, arg);
	unlock_head(head, val);
	return there;
}

unsigned int rmap_count(const struct rmap_head *head)
{
	uintptr_t val = head_word(head);
	struct rmap_desc *desc = word_to_chain(val);

	return desc ? desc->nr + desc->tail : val != 0;
}

/* ---- those of the pages of a slot ---- */

void gfn_rmap_add(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep, struct rmap_desc **spare)
{
	/* Before the rmap: a page that is in the set and has no leaf yet misleads nobody. */
	gfn_set_add(&slot->mapped, rel_gfn);
	rmap_add(&slot->rmap[rel_gfn], sptep, spare);
}

void gfn_rmap_remove(struct memslot *slot, uint64_t rel_gfn, spte_t *sptep)
{
	rmap_remove(&slot->rmap[rel_gfn], sptep);
	if (!rmap_count(&slot->rmap[rel_gfn]))
		gfn_set_remove(&slot->mapped, rel_gfn);
}
