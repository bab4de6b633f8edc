/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's page walk, done as the CPU would (SDM vol. 3, 4.5 to 4.8): exact error codes,
 * accessed and dirty bits. 4 levels, or 5 with CR4.LA57; pages of 4 KiB, 2 MiB and 1 GiB.
 *
 * What has no translation is found first, from the root down: an entry that is not present, or has
 * a reserved bit set. Only a whole translation has rights, and they are those of all its levels
 * together (role.c). A and D are set last, and only for an access that is allowed.
 *
 * The tables are ordinary guest memory and change at any time: an entry is read once, atomically;
 * its A and D bits are set by compare-and-exchange against what was read, and a walk whose entry
 * changed starts over.
 */
#include <errno.h>

#include "shadow/dirty.h"
#include "shadow/gpte.h"
#include "shadow/shadow_internal.h"

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

/* What the error code says of the access itself. */
static uint32_t attempted(const struct guest_cpu *cpu, uint32_t access)
{
	uint32_t code = access & PFERR_WRITE;

	if (cpu->user && !(access & PFERR_IMPLICIT))
		code |= PFERR_USER;
	/* A CPU that can forbid no fetch does not tell them apart. */
	if ((cpu->efer & GUEST_EFER_NXE) || (cpu->cr4 & GUEST_CR4_SMEP))
		code |= access & PFERR_FETCH;
	return code;
}

/*
 * Set the bits that this access sets in the entry of @level. 0; 1 if the entry is no longer what
 * was read; -errno.
 */
static int set_accessed_dirty(struct shadow *shadow, struct guest_walk *walk, int level, bool write)
{
	uint64_t old = walk->gpte[level];
	uint64_t new = old | GPTE_ACCESSED | (level == walk->level && write ? GPTE_DIRTY : 0);
	const struct memslot *slot = gpa_to_memslot(shadow, gpte_gpa(walk, level));
	hva_t hva;
	int ret;

	if (!slot || (slot->flags & MEMSLOT_INVALID))
		return 1;
	/* A table in ROM does not keep them, as on a machine that has one. */
	if (new == old || (slot->flags & MEMSLOT_READONLY))
		return 0;
	hva = memslot_gpa_hva(slot, gpte_gpa(walk, level));
	ret = walk_cache_cmpxchg(walk, level, old, new);
	if (ret == -EAGAIN)
		ret = mm_cmpxchg64(shadow->mm, hva, &old, new);
	if (!ret) {
		walk->gpte[level] = new;
		mark_page_dirty_in_slot(shadow, NULL, slot, walk->table_gfn[level]);
	}
	return ret < 0 ? mm_error(walk, hva, ret) : ret;
}

static void read_leaf(const struct guest_cpu *cpu, struct guest_walk *walk, int level)
{
	uint64_t gpte = walk->gpte[level];
	gpa_t offset = walk->gva & (guest_page_size(level) - 1);

	walk->level = level;
	walk->gfn = gpte_gfn(gpte, level) | offset >> PAGE_SHIFT;
	walk->pkey = cpu->cr4 & GUEST_CR4_PKE ? gpte_pkey(gpte) : 0;
	walk->global = (cpu->cr4 & GUEST_CR4_PGE) && (gpte & GPTE_GLOBAL);
	walk->pcid = guest_pcid(cpu);
}

/* Into walk->gpte[]. Who only looks brings no page in: -EAGAIN where that would be needed. */
static int read_gpte(struct shadow *shadow, bool look, struct guest_walk *walk, int level)
{
	const struct memslot *slot = gpa_to_memslot(shadow, gpte_gpa(walk, level));
	uint64_t *gpte = &walk->gpte[level];
	hva_t hva;
	int ret;

	if (!slot)
		return -EFAULT; /* a table where no memory is: reads as not present */
	if (slot->flags & MEMSLOT_INVALID)
		return -EAGAIN; /* or so it will be, unless the slot is only moved */
	hva = memslot_gpa_hva(slot, gpte_gpa(walk, level));
	if (look) {
		walk->bad_hva = mm_read64_atomic(shadow->mm, hva, gpte) ? hva : INVALID_HVA;
		return walk->bad_hva == INVALID_HVA ? 0 : -EAGAIN;
	}
	ret = mm_error(walk, hva, mm_read(shadow->mm, hva, gpte, sizeof(*gpte)));
	if (!ret)
		walk_cache_missed(walk, level);
	return ret;
}

/* Read the entries from the root to the leaf: is there a translation? 0; -EFAULT with *error_code:
 * the guest's fault; -errno: ours. */
static int read_gptes(struct shadow *shadow, const struct guest_cpu *cpu, bool look,
		      struct guest_walk *walk, uint32_t *error_code)
{
	unsigned int left = ACC_ALL;
	int cached;

	walk->levels = cpu->cr4 & GUEST_CR4_LA57 ? 5 : 4;
	walk->reached = walk->levels + 1;
	walk->table_gfn[walk->levels] = guest_root_gfn(cpu);
	cached = walk_cache_read(walk, walk->gpte);
	for (int level = walk->levels;; level--) {
		int ret = level < cached ? read_gpte(shadow, look, walk, level) : 0;
		uint64_t gpte = walk->gpte[level];

		if (ret)
			return ret;
		walk->reached = level;
		if (!(gpte & GPTE_PRESENT))
			return -EFAULT;
		if (gpte &
		    gpte_reserved(gpte, level, cpu->maxphyaddr, cpu->efer & GUEST_EFER_NXE)) {
			*error_code |= PFERR_PRESENT | PFERR_RSVD;
			return -EFAULT;
		}
		left &= gpte_access(gpte);
		walk->access[level] = left;
		if (gpte_is_leaf(gpte, level)) {
			read_leaf(cpu, walk, level);
			return 0;
		}
		walk->table_gfn[level - 1] = gpte_gfn(gpte, level);
	}
}

/* May the access use the translation? 0; -EFAULT with *error_code. */
static int check_rights(const struct guest_cpu *cpu, uint32_t access, const struct guest_walk *walk,
			uint32_t *error_code)
{
	struct shadow_role view = guest_view(cpu, access & PFERR_IMPLICIT);
	unsigned int raw = walk->access[walk->level];
	unsigned int needed = ACC_READ;

	if (access & PFERR_FETCH)
		needed = ACC_EXEC;
	else if (access & PFERR_WRITE)
		needed = ACC_WRITE;
	if (view_rights(view, raw, walk->pkey) & needed)
		return 0;
	*error_code |= PFERR_PRESENT;
	/* Also where something else forbids it as well. */
	if (view_pkey_denies(view, raw, walk->pkey) & needed)
		*error_code |= PFERR_PK;
	return -EFAULT;
}

static int walk_once(struct shadow *shadow, const struct guest_cpu *cpu, uint32_t access,
		     struct guest_walk *walk, uint32_t *error_code)
{
	int ret;

	*error_code = attempted(cpu, access);
	ret = read_gptes(shadow, cpu, false, walk, error_code);
	if (!ret)
		ret = check_rights(cpu, access, walk, error_code);
	if (ret || (access & PFERR_LOOK))
		return ret;
	shadow_hook(shadow, SHADOW_HOOK_WALK_BEFORE_MARK);
	for (int level = walk->levels; level >= walk->level; level--) {
		ret = set_accessed_dirty(shadow, walk, level, access & PFERR_WRITE);
		if (ret)
			return ret;
	}
	/* After a write also where the bit cannot be set, which is in ROM: or the page would never
	 * be writable. */
	walk->dirty = (walk->gpte[walk->level] & GPTE_DIRTY) || (access & PFERR_WRITE);
	return 0;
}

static int do_walk(struct shadow *shadow, const struct guest_cpu *cpu, gva_t gva, uint32_t access,
		   struct guest_walk *walk, uint32_t *error_code)
{
	walk->gva = gva;
	walk->bad_hva = INVALID_HVA;
	if (!guest_canonical(cpu, gva)) {
		*error_code = attempted(cpu, access);
		return -EFAULT;
	}
	for (int attempt = 0; attempt < WALK_ATTEMPTS; attempt++) {
		int ret = walk_once(shadow, cpu, access, walk, error_code);

		if (ret <= 0)
			return ret;
	}
	return -EAGAIN;
}

int guest_walk(struct shadow *shadow, const struct guest_cpu *cpu, gva_t gva, uint32_t access,
	       struct guest_walk *walk, uint32_t *error_code)
{
	walk->cache = NULL;
	return do_walk(shadow, cpu, gva, access, walk, error_code);
}

int guest_walk_vcpu(struct shadow *shadow, struct shadow_vcpu *vcpu, gva_t gva, uint32_t access,
		    struct guest_walk *walk, uint32_t *error_code)
{
	walk->cache = &vcpu->walk_cache;
	if (unlikely(!machine_reaches(shadow->machine, gva))) {
		walk->gva = gva;
		walk->bad_hva = INVALID_HVA;
		*error_code = attempted(&vcpu->cpu, access);
		return -EFAULT;
	}
	return do_walk(shadow, &vcpu->cpu, gva, access, walk, error_code);
}

int guest_walk_look(struct shadow *shadow, const struct guest_cpu *cpu, gva_t gva,
		    struct guest_walk *walk, uint32_t *error_code)
{
	int ret;

	walk->cache = NULL;
	walk->gva = gva;
	walk->bad_hva = INVALID_HVA;
	walk->level = 0;
	*error_code = 0;
	ret = read_gptes(shadow, cpu, true, walk, error_code);
	if (!ret)
		walk->dirty = walk->gpte[walk->level] & GPTE_DIRTY;
	return ret;
}

int guest_walk_allows(const struct guest_cpu *cpu, uint32_t access, const struct guest_walk *walk,
		      uint32_t *error_code)
{
	*error_code |= attempted(cpu, access);
	return walk->level ? check_rights(cpu, access, walk, error_code) : -EFAULT;
}

static bool reread_gpte(struct shadow *shadow, const struct guest_walk *walk, int level,
			uint64_t *gpte)
{
	hva_t hva = gpa_to_hva(shadow, gpte_gpa(walk, level));

	return hva != INVALID_HVA && !mm_read64_atomic(shadow->mm, hva, gpte);
}

/*
 * The host may have moved a table's page, or the guest edited an entry, since the walk (K-13). A
 * and D bits set meanwhile change nothing that a shadow entry depends on. One that was cleared
 * does: without D the entry must not be writable, and without A there must be none, so that the
 * next walk comes to set it. For another CPU may have flushed meanwhile, and its next access must
 * walk.
 */
bool guest_walk_unchanged(struct shadow *shadow, const struct guest_walk *walk)
{
	uint64_t gptes[TABLE_LEVELS + 1];
	int cached = walk_cache_read(walk, gptes);

	lockdep_assert_held(&shadow->mmu_lock);
	for (int level = walk->levels; level >= walk->level; level--) {
		uint64_t may_not_go = GPTE_ACCESSED | (level == walk->level ? GPTE_DIRTY : 0);
		uint64_t gpte = gptes[level];

		if (level < cached && !reread_gpte(shadow, walk, level, &gpte))
			return false;
		if ((gpte | GPTE_ACCESSED | GPTE_DIRTY) !=
		    (walk->gpte[level] | GPTE_ACCESSED | GPTE_DIRTY))
			return false;
		if (walk->gpte[level] & ~gpte & may_not_go)
			return false;
	}
	return true;
}
