/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's page walk, done as the CPU would (SDM vol. 3, 4.5 to 4.8): 4 levels, 4 KiB pages,
 * exact error codes, accessed and dirty bits.
 *
 * The guest runs as its own kernel: U/S does not restrict it (no SMEP, no SMAP), CR0.WP and
 * EFER.NXE are on. The virtual CPU has no large pages: PS in an upper entry is a reserved bit.
 * Physical addresses have 52 bits, so no address bit is reserved.
 *
 * The tables are ordinary guest memory and change at any time: an entry is read once, atomically;
 * its A and D bits are set by compare-and-exchange against what was read, and a walk whose entry
 * changed starts over.
 */
#include <errno.h>

#include "shadow/shadow_internal.h"

#define GPTE_PRESENT  (1UL << 0)
#define GPTE_WRITE    (1UL << 1)
#define GPTE_ACCESSED (1UL << 5)
#define GPTE_DIRTY    (1UL << 6)
#define GPTE_PS	      (1UL << 7) /* upper levels; in a leaf this bit is PAT, which has no say here */
#define GPTE_NX	      (1UL << 63)
#define GPTE_PFN_MASK 0x000ffffffffff000UL

/* A guest that rewrites its tables as fast as we walk them makes us retry through the whole fault,
 * not here for ever. */
#define WALK_ATTEMPTS 8

static gpa_t gpte_gpa(const struct guest_walk *walk, int level)
{
	return (walk->table_gfn[level] << PAGE_SHIFT) +
	       table_index(walk->gva, level) * sizeof(uint64_t);
}

/* mm_* speaks of the hva: to the guest's walk one that the mm refuses is a slot without memory. */
static int mm_error(struct guest_walk *walk, hva_t hva, int err)
{
	if (err != -EFAULT)
		return err;
	walk->bad_hva = hva;
	return -ENXIO;
}

static unsigned int gpte_access(uint64_t gpte)
{
	return (gpte & GPTE_WRITE ? ACC_WRITE : 0) | (gpte & GPTE_NX ? 0 : ACC_EXEC);
}

/*
 * Set the bits that this access sets in the entry of @level. 0; 1 if the entry is no longer what
 * was read; -errno.
 */
static int set_accessed_dirty(struct shadow *shadow, struct guest_walk *walk, int level, bool write)
{
	uint64_t old = walk->gpte[level];
	uint64_t new = old | GPTE_ACCESSED | (level == 1 && write ? GPTE_DIRTY : 0);
	hva_t hva = gpa_to_hva(shadow, gpte_gpa(walk, level));
	int ret;

	if (new == old)
		return 0;
	ret = mm_cmpxchg64(shadow->mm, hva, &old, new);
	if (!ret)
		walk->gpte[level] = new;
	return ret < 0 ? mm_error(walk, hva, ret) : ret;
}

static bool canonical(gva_t gva)
{
	return (uint64_t)((int64_t)(gva << 16) >> 16) == gva;
}

/* Read the entries from the root to the leaf. 0; -EFAULT with *error_code: the guest's fault;
 * -errno: ours. */
static int read_gptes(struct shadow *shadow, uint64_t cr3, uint32_t access, struct guest_walk *walk,
		      uint32_t *error_code)
{
	unsigned int left = ACC_ALL;

	*error_code = access & (PFERR_WRITE | PFERR_FETCH);
	walk->table_gfn[TABLE_LEVELS] = (cr3 & GPTE_PFN_MASK) >> PAGE_SHIFT;

	for (int level = TABLE_LEVELS; level >= 1; level--) {
		hva_t hva = gpa_to_hva(shadow, gpte_gpa(walk, level));
		uint64_t gpte;
		int ret;

		if (hva == INVALID_HVA)
			return -EFAULT; /* a table where no memory is: reads as not present */
		ret = mm_read(shadow->mm, hva, &gpte, sizeof(gpte));
		if (ret)
			return mm_error(walk, hva, ret);
		if (!(gpte & GPTE_PRESENT))
			return -EFAULT;
		if (level > 1 && (gpte & GPTE_PS)) {
			*error_code |= PFERR_PRESENT | PFERR_RSVD;
			return -EFAULT;
		}
		left &= gpte_access(gpte);
		walk->gpte[level] = gpte;
		walk->access[level] = left;
		if (level > 1)
			walk->table_gfn[level - 1] = (gpte & GPTE_PFN_MASK) >> PAGE_SHIFT;
		else
			walk->gfn = (gpte & GPTE_PFN_MASK) >> PAGE_SHIFT;
	}

	if (((access & PFERR_WRITE) && !(left & ACC_WRITE)) ||
	    ((access & PFERR_FETCH) && !(left & ACC_EXEC))) {
		*error_code |= PFERR_PRESENT;
		return -EFAULT;
	}
	return 0;
}

static int walk_once(struct shadow *shadow, uint64_t cr3, uint32_t access, struct guest_walk *walk,
		     uint32_t *error_code)
{
	int ret = read_gptes(shadow, cr3, access, walk, error_code);

	if (ret)
		return ret;
	for (int level = TABLE_LEVELS; level >= 1; level--) {
		ret = set_accessed_dirty(shadow, walk, level, access & PFERR_WRITE);
		if (ret)
			return ret;
	}
	walk->dirty = walk->gpte[1] & GPTE_DIRTY;
	return 0;
}

int guest_walk(struct shadow *shadow, uint64_t cr3, gva_t gva, uint32_t access,
	       struct guest_walk *walk, uint32_t *error_code)
{
	walk->gva = gva;
	walk->bad_hva = INVALID_HVA;
	if (!canonical(gva)) {
		*error_code = access & (PFERR_WRITE | PFERR_FETCH);
		return -EFAULT;
	}
	for (int attempt = 0; attempt < WALK_ATTEMPTS; attempt++) {
		int ret = walk_once(shadow, cr3, access, walk, error_code);

		if (ret <= 0)
			return ret;
	}
	return -EAGAIN;
}

/*
 * The host may have moved a table's page, or the guest edited an entry, since the walk (K-13). A
 * and D bits set meanwhile change nothing that a shadow entry depends on, except a D bit that was
 * cleared: then the entry must not be writable.
 */
bool guest_walk_unchanged(struct shadow *shadow, const struct guest_walk *walk)
{
	lockdep_assert_held(&shadow->mmu_lock);
	for (int level = TABLE_LEVELS; level >= 1; level--) {
		hva_t hva = gpa_to_hva(shadow, gpte_gpa(walk, level));
		uint64_t gpte;

		if (hva == INVALID_HVA || mm_read64_atomic(shadow->mm, hva, &gpte))
			return false;
		if ((gpte | GPTE_ACCESSED | GPTE_DIRTY) !=
		    (walk->gpte[level] | GPTE_ACCESSED | GPTE_DIRTY))
			return false;
		if (level == 1 && walk->dirty && !(gpte & GPTE_DIRTY))
			return false;
	}
	return true;
}
