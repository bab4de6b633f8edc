/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accesses of a model CPU: look the page up, walk if that does not do, touch memory. All of it in
 * one critical section of the CPU, so that whoever has taken the CPU's lock once knows that every
 * access begun before is over.
 */
#include "tests/model/model_internal.h"

#include <errno.h>
#include <sched.h>

static unsigned int needed_rights(enum model_op op)
{
	switch (op) {
	case MODEL_LOAD:
		return RIGHT_READ;
	case MODEL_FETCH:
		return RIGHT_READ | RIGHT_EXEC;
	case MODEL_STORE:
	case MODEL_ADD:
	case MODEL_CMPXCHG: /* a locked instruction needs the right to store whether it stores or
			       not */
		return RIGHT_READ | RIGHT_WRITE | RIGHT_DIRTY;
	}
	BUG();
}

static unsigned int index_of(gva_t gva, int level)
{
	return (gva >> (PAGE_SHIFT + 9 * (level - 1))) & 511;
}

static bool is_leaf(uint64_t entry, int level)
{
	return level == 1 || (level == 2 && (entry & HW_LARGE));
}

/*
 * Read an entry and set its A bit, and its D bit for a store through a writable leaf: atomically,
 * as hardware does, and never on an entry that has gone meanwhile. Acquire pairs with the release
 * by which the table was linked: what it points to is initialised.
 */
static uint64_t read_entry(struct model_machine *m, pfn_t table, gva_t gva, int level, bool dirty)
{
	uint64_t *ptr = (uint64_t *)phys_map(m->phys, table) + index_of(gva, level);
	uint64_t entry = __atomic_load_n(ptr, __ATOMIC_ACQUIRE);
	uint64_t marked;

	do {
		if (!(entry & HW_PRESENT) || !(entry & HW_USER) || m->machine.no_accessed_bits)
			return entry;
		marked = entry | HW_ACCESSED;
		if (dirty && is_leaf(entry, level) && (entry & HW_WRITE))
			marked |= HW_DIRTY;
		if (marked == entry)
			return entry;
	} while (!__atomic_compare_exchange_n(ptr, &entry, marked, false, __ATOMIC_ACQ_REL,
					      __ATOMIC_ACQUIRE));
	return marked;
}

static unsigned int narrow(unsigned int rights, uint64_t entry)
{
	if (!(entry & HW_WRITE))
		rights &= ~RIGHT_WRITE;
	if (entry & HW_XD)
		rights &= ~RIGHT_EXEC;
	return rights;
}

/* Where a walk starts: the deepest directory entry that the CPU remembers, else the root. */
static int walk_start(struct model_machine *m, struct model_cpu *cpu, gva_t gva, pfn_t *table,
		      unsigned int *rights)
{
	for (int level = 1; level < (int)m->machine.levels; level++) {
		struct tlb_dir *dir = tlb_find_dir(cpu, cpu->root, level, gva);

		if (dir) {
			*table = dir->table;
			*rights = dir->rights;
			return level;
		}
	}
	*table = cpu->root;
	*rights = RIGHT_READ | RIGHT_WRITE | RIGHT_EXEC;
	return m->machine.levels;
}

static bool within_reach(const struct machine *machine, gva_t gva)
{
	return gva >= machine->gva_first && (!machine->gva_end || gva < machine->gva_end);
}

/* Walk for @needed; the leaf that allows it, cached, or NULL with the error code's P bit in
 * *present. */
static struct tlb_leaf *walk(struct model_machine *m, struct model_cpu *cpu, gva_t gva,
			     unsigned int needed, bool *present)
{
	struct tlb_leaf *old;
	unsigned int rights;
	pfn_t pfn;
	uint64_t entry;
	pfn_t table;
	int level;

	if (!within_reach(&m->machine, gva))
		goto fault;
	for (level = walk_start(m, cpu, gva, &table, &rights);; level--) {
		entry = read_entry(m, table, gva, level, needed & RIGHT_DIRTY);
		*present = entry & HW_PRESENT;
		/* Guest code runs at CPL3: a supervisor entry is as good as none to it. */
		if (!(entry & HW_PRESENT) || !(entry & HW_USER))
			goto fault;
		rights = narrow(rights, entry);
		if (is_leaf(entry, level))
			break;
		ASSERT(!(entry & HW_LARGE), "nobody makes pages of 1 GiB");
		table = (entry & HW_PFN_MASK) >> PAGE_SHIFT;
		tlb_add_dir(cpu, cpu->root, level - 1, gva, table, rights);
	}
	if (((entry & HW_DIRTY) || m->machine.no_accessed_bits) && (rights & RIGHT_WRITE))
		rights |= RIGHT_DIRTY;
	if ((rights & needed) != needed)
		goto fault;

	pfn = (entry & HW_PFN_MASK) >> PAGE_SHIFT;
	if (level > 1) {
		ASSERT(pfn % LARGE_PAGES == 0, "2 MiB begin at an aligned frame, not 0x%lx", pfn);
		pfn += (gva >> PAGE_SHIFT) % LARGE_PAGES;
	}
	while ((old = tlb_find_leaf(cpu, cpu->root, gva)))
		tlb_drop_leaf(old, gva);
	cpu->walks++;
	return tlb_add_leaf(cpu, cpu->root, gva, pfn, table, rights, level > 1);

fault:
	/* The cached leaf stays, with the rights it had: only a shootdown takes it. */
	tlb_drop_dirs(cpu, cpu->root, gva);
	return NULL;
}

static void touch(void *page, struct model_access *a)
{
	uint64_t *ptr = (uint64_t *)((char *)page + (a->gva & (PAGE_SIZE - 1)));

	switch (a->op) {
	case MODEL_LOAD:
	case MODEL_FETCH:
		a->value = __atomic_load_n(ptr, __ATOMIC_RELAXED);
		break;
	case MODEL_STORE:
		__atomic_store_n(ptr, a->value, __ATOMIC_RELAXED);
		break;
	case MODEL_ADD:
		a->value = __atomic_fetch_add(ptr, a->value, __ATOMIC_RELAXED);
		break;
	case MODEL_CMPXCHG:
		__atomic_compare_exchange_n(ptr, &a->expected, a->value, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
		break;
	}
}

static uint32_t error_code(unsigned int needed, bool present)
{
	return PFERR_USER | (present ? PFERR_PRESENT : 0) |
	       (needed & RIGHT_WRITE ? PFERR_WRITE : 0) | (needed & RIGHT_EXEC ? PFERR_FETCH : 0);
}

int model_access(struct model_machine *m, unsigned int nr, struct model_access *a)
{
	struct model_cpu *cpu = &m->cpu[nr];
	unsigned int needed = needed_rights(a->op);
	struct tlb_leaf *leaf;
	bool present = false;
	int ret = 0;

	ASSERT(nr < m->nr_cpus, "CPU %u of %u", nr, m->nr_cpus);
	ASSERT((a->gva & 7) == 0, "the model accesses aligned words, not 0x%lx", a->gva);

	model_cpu_lock(cpu);
	if (atomic_read(&m->halted)) {
		ret = -ECANCELED;
		goto out;
	}
	ASSERT(cpu->root != INVALID_PFN, "CPU %u has no root loaded", nr);

	leaf = tlb_find_leaf(cpu, cpu->root, a->gva);
	if (leaf && (leaf->rights & needed) == needed)
		cpu->hits++;
	else
		leaf = walk(m, cpu, a->gva, needed, &present);
	if (!leaf) {
		a->error_code = error_code(needed, present);
		cpu->faults++;
		ret = -EFAULT;
		goto out;
	}

	a->pfn = tlb_leaf_pfn(leaf, a->gva);
	touch(phys_map(m->phys, a->pfn), a);
	cpu->accesses++;
	if (m->gates && (a->gva >> PAGE_SHIFT) < m->nr_gates &&
	    atomic_read(&m->gates[a->gva >> PAGE_SHIFT]))
		cpu->gate_violations++;
out:
	model_cpu_unlock(cpu);
	return ret;
}

/* So many faults in a row on one access, each answered "run again", are a livelock. */
#define MAX_FAULTS 10000000

enum ret_pf model_access_retry(struct model_machine *m, unsigned int nr, struct shadow *shadow,
			       struct model_access *a)
{
	for (unsigned int i = 0; i < MAX_FAULTS; i++) {
		struct shadow_fault fault = {.gva = a->gva};
		enum ret_pf pf;
		int ret = model_access(m, nr, a);

		if (!ret)
			return RET_PF_FIXED;
		if (ret == -ECANCELED)
			return RET_PF_HALTED;

		fault.error_code = a->error_code & (PFERR_WRITE | PFERR_FETCH);
		pf = shadow_handle_fault(shadow, nr, &fault);
		switch (pf) {
		case RET_PF_FIXED:
		case RET_PF_SPURIOUS:
			break;
		case RET_PF_RETRY:
			sched_yield(); /* a window is open: let whoever holds it open run */
			break;
		case RET_PF_WRITE_PROTECTED:
			shadow_unprotect_gpa(shadow, fault.gpa);
			break;
		default:
			a->error_code = fault.error_code;
			return pf;
		}
	}
	ASSERT(false, "CPU %u faults for ever at 0x%lx", nr, a->gva);
	return RET_PF_RETRY;
}
