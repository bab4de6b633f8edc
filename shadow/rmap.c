/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reverse maps: from a guest page to the leaves that map it, and from a shadow page to the entries
 * that link to it.
 *
 * A head is empty, names one entry directly, or (bit 0 set) names a chain of chunks. Only the first
 * chunk may have room; a removal fills its hole with the last entry of the first chunk. Chunks come
 * from the caller, who made them before it took mmu_lock, and are freed on the spot: freeing does
 * not sleep.
 *
 * Everything here runs under mmu_lock.
 */
#include "shadow/shadow_internal.h"

#include "notifier/sync/alloc.h"

#define RMAP_CHAIN 1UL
#define RMAP_CHUNK 6

struct rmap_desc {
	struct rmap_desc *next;
	unsigned int nr;
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

static struct rmap_desc *head_chain(const struct rmap_head *head)
{
	return head->val & RMAP_CHAIN ? (struct rmap_desc *)(head->val & ~RMAP_CHAIN) : NULL;
}

static void set_chain(struct rmap_head *head, struct rmap_desc *desc)
{
	head->val = (uintptr_t)desc | RMAP_CHAIN;
}

static struct rmap_desc *take_spare(struct rmap_desc **spare)
{
	struct rmap_desc *desc = *spare;

	ASSERT(desc, "the cache was topped up before mmu_lock was taken");
	*spare = NULL;
	desc->next = NULL;
	desc->nr = 0;
	return desc;
}

void rmap_add(struct rmap_head *head, spte_t *sptep, struct rmap_desc **spare)
{
	struct rmap_desc *desc = head_chain(head);

	if (!head->val) {
		head->val = (uintptr_t)sptep;
		return;
	}
	if (!desc) {
		spte_t *only = (spte_t *)head->val;

		desc = take_spare(spare);
		desc->sptep[desc->nr++] = only;
		set_chain(head, desc);
	} else if (desc->nr == RMAP_CHUNK) {
		struct rmap_desc *full = desc;

		desc = take_spare(spare);
		desc->next = full;
		set_chain(head, desc);
	}
	desc->sptep[desc->nr++] = sptep;
}

void rmap_remove(struct rmap_head *head, spte_t *sptep)
{
	struct rmap_desc *first = head_chain(head);

	if (!first) {
		ASSERT(head->val == (uintptr_t)sptep, "the rmap holds the entry that is removed");
		head->val = 0;
		return;
	}
	for (struct rmap_desc *desc = first; desc; desc = desc->next) {
		for (unsigned int i = 0; i < desc->nr; i++) {
			if (desc->sptep[i] != sptep)
				continue;
			desc->sptep[i] = first->sptep[--first->nr];
			if (!first->nr) {
				if (first->next)
					set_chain(head, first->next);
				else
					head->val = 0;
				rmap_desc_free(first);
			}
			return;
		}
	}
	ASSERT(false, "the rmap holds the entry that is removed");
}

void rmap_each(const struct rmap_head *head, void (*fn)(spte_t *sptep, void *arg), void *arg)
{
	struct rmap_desc *desc = head_chain(head);

	if (!desc && head->val)
		fn((spte_t *)head->val, arg);
	for (; desc; desc = desc->next) {
		for (unsigned int i = 0; i < desc->nr; i++)
			fn(desc->sptep[i], arg);
	}
}

spte_t *rmap_first(const struct rmap_head *head)
{
	struct rmap_desc *desc = head_chain(head);

	return desc ? desc->sptep[0] : (spte_t *)head->val;
}

bool rmap_contains(const struct rmap_head *head, const spte_t *sptep)
{
	struct rmap_desc *desc = head_chain(head);

	if (!desc)
		return head->val == (uintptr_t)sptep;
	for (; desc; desc = desc->next) {
		for (unsigned int i = 0; i < desc->nr; i++) {
			if (desc->sptep[i] == sptep)
				return true;
		}
	}
	return false;
}

unsigned int rmap_count(const struct rmap_head *head)
{
	struct rmap_desc *desc = head_chain(head);
	unsigned int nr = 0;

	if (!desc)
		return head->val != 0;
	for (; desc; desc = desc->next)
		nr += desc->nr;
	return nr;
}
