/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory operand of an instruction that host code carries out for a vCPU.
 *
 * Rules.
 *   1. Whatever can go wrong does so before anything has been done: of an operand in two pages both
 *	are looked up before the guest sees a bit of either set, and both frames are pinned before
 *	a byte of either changes. After shadow_operand_get() nothing fails but rule 3.
 *   2. What the guest does to its tables between get and put comes too late, as for an access that
 *	a CPU has begun. A change of the slots waits: from get to put is a section of slots_srcu. A
 *	CPU's access is over once its translation is shot down, and nothing could shoot down ours:
 *
 *	  operand of a store                    delete of the slot
 *	  ------------------                    ------------------
 *	  get: the slot is there, its frame is
 *	    pinned
 *	                                        publishes the set without it; waits for the section
 *	  stores; put
 *	                                        returns: the host may use its memory for something
 *	                                          else, and no store of the guest's comes any more
 *
 *	Replayed by tests/unit/test_memslot_races.c (operand_*).
 *   3. The host does not wait for us: it takes pages away, by way of a window. So a store looks,
 *	under mmu_lock, as a fault does (fault.c), and comes before the window or not at all; then
 *	the instruction begins anew. That the frame is pinned keeps it from being reused, and its
 *	page from migration, but not from being at another address:
 *
 *	  operand of a store                    mremap of its page
 *	  ------------------                    ------------------
 *	  get: seq 4, frame F is pinned
 *	                                        start; F is at another address now; end: seq 5
 *	                                        the host reads F there: nobody else has it
 *	  mmu_lock; seq is 5: no store
 *	    (without the look: changes what
 *	    is not the guest's any more)
 *
 *	Replayed by tests/unit/test_operand.c (the_page_is_moved_away).
 *   4. The host's accesses are as atomic as a CPU's: a change within eight aligned bytes is one
 *	compare-and-exchange of all eight. Whoever writes next to it, or in the same bytes, a vCPU
 *	or a device, loses nothing.
 */
#include <errno.h>

#include "notifier/contents.h"
#include "shadow/shadow_internal.h"

#define WORD_SIZE sizeof(uint64_t)

/* How @operand lies in pages. */
static void split(struct shadow_operand *operand, gva_t gva, unsigned int len)
{
	unsigned int left = PAGE_SIZE - (gva & ~PAGE_MASK);

	operand->len = len;
	operand->nr_parts = 0;
	if (len > left) {
		operand->part[operand->nr_parts++].len = left;
		len -= left;
	}
	operand->part[operand->nr_parts++].len = len;
}

/* Walk for each page: only to look, or for good. */
static int walk_parts(struct shadow *shadow, struct shadow_vcpu *vcpu,
		      struct shadow_operand *operand, uint32_t access, struct shadow_fault *fault)
{
	gva_t gva = operand->gva;

	for (unsigned int i = 0; i < operand->nr_parts; i++) {
		struct guest_walk walk;
		int ret;

		fault->gva = gva;
		if (gva_reserved(vcpu->root, gva))
			return -EACCES;
		ret = guest_walk_vcpu(shadow, vcpu, gva, access, &walk, &fault->error_code);
		fault->hva = walk.bad_hva;
		if (ret)
			return ret;
		operand->part[i].gpa = (walk.gfn << PAGE_SHIFT) | (gva & ~PAGE_MASK);
		gva += operand->part[i].len;
	}
	return 0;
}

static void unpin_parts(struct shadow *shadow, struct shadow_operand *operand, unsigned int nr)
{
	while (nr--)
		mm_unpin_page(shadow->mm, operand->part[nr].pfn, operand->write);
}

static int pin_part(struct shadow *shadow, struct shadow_operand *operand, unsigned int i,
		    struct shadow_fault *fault)
{
	gpa_t gpa = operand->part[i].gpa;
	hva_t hva;
	int ret = gpa_to_hva_for(shadow, gpa, operand->write, &hva);

	if (ret)
		return ret;
	operand->part[i].hva = hva;
	ret = mm_pin_page(shadow->mm, hva, operand->write, &operand->part[i].pfn);
	if (ret == -EFAULT) {
		fault->hva = hva;
		ret = -ENXIO;
	}
	return ret;
}

static int pin_parts(struct shadow *shadow, struct shadow_operand *operand,
		     struct shadow_fault *fault)
{
	gva_t gva = operand->gva;

	for (unsigned int i = 0; i < operand->nr_parts; i++) {
		int ret = pin_part(shadow, operand, i, fault);

		if (ret) {
			fault->gva = gva;
			fault->gpa = operand->part[i].gpa;
			unpin_parts(shadow, operand, i);
			return ret;
		}
		gva += operand->part[i].len;
	}
	return 0;
}

int shadow_operand_get(struct shadow *shadow, unsigned int vcpu, gva_t gva, unsigned int len,
		       uint32_t access, struct shadow_operand *operand, struct shadow_fault *fault)
{
	struct shadow_vcpu *cpu = &shadow->vcpu[vcpu];
	int ret = -ENXIO;

	ASSERT(len && len <= SHADOW_OPERAND_MAX, "an operand of %u bytes", len);
	operand->gva = gva;
	operand->write = access & PFERR_WRITE;
	operand->written = false;
	split(operand, gva, len);
	*fault = (struct shadow_fault){.gva = gva, .hva = INVALID_HVA};

	operand->section = srcu_read_lock(&shadow->slots_srcu);
	/* Acquire: as in shadow_handle_fault(). Pairs with invalidate_range_end. */
	operand->seq = smp_load_acquire(&shadow->invalidate_seq);
	/* Looked at inside the section: see shadow_release(). */
	if (READ_ONCE(shadow->dead))
		goto unlock;
	/* A D bit in the first page says that it was written: not if the second faults (rule 1). */
	ret = 0;
	if (operand->nr_parts > 1)
		ret = walk_parts(shadow, cpu, operand, access | PFERR_LOOK, fault);
	if (!ret)
		ret = walk_parts(shadow, cpu, operand, access, fault);
	if (!ret)
		ret = pin_parts(shadow, operand, fault);
unlock:
	if (ret)
		srcu_read_unlock(&shadow->slots_srcu, operand->section);
	return ret;
}

/* What was written may have been the guest's tables: the shadow MMU hears of it before the
 * instruction is over. */
void shadow_operand_put(struct shadow *shadow, struct shadow_operand *operand)
{
	for (unsigned int i = 0; operand->written && i < operand->nr_parts; i++)
		shadow_gpte_written(shadow, operand->part[i].gpa, operand->part[i].len);
	unpin_parts(shadow, operand, operand->nr_parts);
	srcu_read_unlock(&shadow->slots_srcu, operand->section);
}

static char *part_contents(struct shadow *shadow, const struct shadow_operand *operand,
			   unsigned int i)
{
	return (char *)phys_map(mm_phys(shadow->mm), operand->part[i].pfn) +
	       (operand->part[i].gpa & ~PAGE_MASK);
}

uint64_t shadow_operand_read(struct shadow *shadow, const struct shadow_operand *operand)
{
	uint64_t value = 0;
	char *at = (char *)&value;

	for (unsigned int i = 0; i < operand->nr_parts; i++) {
		contents_read(at, part_contents(shadow, operand, i), operand->part[i].len);
		at += operand->part[i].len;
	}
	return value;
}

/* Under mmu_lock: is it, or was it since get, in a window (rule 3)? */
static bool taken_away(struct shadow *shadow, const struct shadow_operand *operand)
{
	for (unsigned int i = 0; i < operand->nr_parts; i++)
		if (invalidate_retry(shadow, operand->seq, operand->part[i].hva))
			return true;
	return false;
}

int shadow_operand_write(struct shadow *shadow, struct shadow_operand *operand, uint64_t value)
{
	const char *at = (const char *)&value;
	int ret = -EAGAIN;

	ASSERT(operand->write, "an operand that was got for reading");
	spin_lock(&shadow->mmu_lock);
	if (taken_away(shadow, operand))
		goto unlock;
	for (unsigned int i = 0; i < operand->nr_parts; i++) {
		contents_write(part_contents(shadow, operand, i), at, operand->part[i].len);
		at += operand->part[i].len;
	}
	operand->written = true;
	ret = 0;
unlock:
	spin_unlock(&shadow->mmu_lock);
	return ret;
}

bool shadow_operand_in_word(const struct shadow_operand *operand)
{
	return operand->gva % WORD_SIZE + operand->len <= WORD_SIZE;
}

/* 0; 1: it was another one, @found; -EAGAIN. */
static int swap_word(struct shadow *shadow, struct shadow_operand *operand, uint64_t *word,
		     uint64_t *found, uint64_t new_value)
{
	int ret = -EAGAIN;

	spin_lock(&shadow->mmu_lock);
	if (!taken_away(shadow, operand))
		ret = !try_cmpxchg(word, found, new_value);
	spin_unlock(&shadow->mmu_lock);
	return ret;
}

int shadow_operand_cmpxchg(struct shadow *shadow, struct shadow_operand *operand, uint64_t *old,
			   uint64_t new_value)
{
	unsigned int shift = operand->gva % WORD_SIZE * 8;
	uint64_t mask = ~0UL >> (64 - operand->len * 8) << shift;
	uint64_t *word, found;
	int ret;

	ASSERT(operand->write && shadow_operand_in_word(operand), "an operand in one word");
	word = (uint64_t *)(void *)(part_contents(shadow, operand, 0) - shift / 8);
	found = READ_ONCE(*word);
	do {
		if ((found & mask) != (*old << shift & mask)) {
			*old = (found & mask) >> shift;
			return 1;
		}
		shadow_hook(shadow, SHADOW_HOOK_OPERAND_BEFORE_SWAP);
		/* If it is another one, it may be for the neighbours alone. */
		ret = swap_word(shadow, operand, word, &found,
				(found & ~mask) | (new_value << shift & mask));
	} while (ret > 0);
	if (!ret)
		operand->written = true;
	return ret;
}
