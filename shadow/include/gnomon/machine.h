/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the shadow MMU needs from the machine below it: an engine (vmm/engine_*.c) or the model
 * machine (tests/model/).
 *
 * The machine walks the tables that the shadow MMU writes, with a hardware's freedom: it may cache
 * any leaf it has seen until that leaf's frame is shot down, and any directory entry until the
 * table it names is retired. It never caches an entry that was not present, and it notices a leaf
 * that gains rights.
 */
#ifndef GNOMON_MACHINE_H
#define GNOMON_MACHINE_H

#include <stdbool.h>

#include <gnomon/types.h>

struct machine;

struct machine_ops {
	/*
	 * A zeroed frame for a table, or INVALID_PFN. May sleep: the machine may have to empty its
	 * quarantine first. The machine may put entries of its own into it (the monitor's slot, in
	 * a root: @level is machine->levels for a root, 1 for a table of leaves); the shadow MMU
	 * leaves those alone.
	 */
	pfn_t (*alloc_table)(struct machine *machine, int level);

	/* Give back a table that no CPU can have seen: it was never linked, nor loaded as a root.
	 */
	void (*free_table)(struct machine *machine, pfn_t table);

	/* Host address of a frame, for reading and writing entries. */
	void *(*map_frame)(struct machine *machine, pfn_t pfn);

	/*
	 * On return no CPU of the machine holds a translation to any of @frames. The entries were
	 * cleared, or lost rights, before the call. The list may hold a frame twice; the callee may
	 * sort it. Sleeps; not under a spinlock. 0, or -errno: then the caller stops the machine,
	 * since it cannot vouch for any CPU.
	 */
	int (*shootdown)(struct machine *machine, pfn_t *frames, size_t nr);
	/* The same for the @nr frames from @first on. */
	int (*shootdown_range)(struct machine *machine, pfn_t first, size_t nr);

	/*
	 * @table has been unlinked from every directory, its leaves are cleared and shot down. On
	 * return no CPU walks through it any more, and the machine owns it: it is reused when that
	 * is safe (quarantine, docs/engines.md). Sleeps.
	 */
	void (*retire_table)(struct machine *machine, pfn_t table);

	/* The CPU @vcpu runs on @root from its next entry on. Called on that vCPU's own thread,
	 * outside guest mode. */
	void (*load_root)(struct machine *machine, unsigned int vcpu, pfn_t root);

	/*
	 * A shootdown failed, or the mm is gone: on return no CPU of the machine runs guest code,
	 * nor ever will. @why is a static string. Callable from any thread that may sleep, a vCPU's
	 * own included; idempotent.
	 */
	void (*halt)(struct machine *machine, const char *why);
};

/* Embedded in an engine's own structure. */
struct machine {
	const struct machine_ops *ops;
	/* Of the tables that its CPUs walk: 4, or 5 where they run with CR4.LA57. The guest's CPUs
	 * have as many. */
	unsigned int levels;
	/* They walk entries of level 2 that map 2 MiB, and forget them frame by frame, or whole. */
	bool huge;
	/*
	 * Its CPUs set no accessed bits in these, or none that we would see. Then a page's age is
	 * found by a leaf that is not present for a while, and the next use is a fault.
	 */
	bool no_accessed_bits;
	/*
	 * The guest's addresses that its CPUs can reach, [gva_first, gva_end); gva_end 0: there is
	 * no end, and 0, 0 are all. What a machine keeps for itself among them it says by an entry
	 * of its own in each root. An access to any other faults for ever, whatever the tables
	 * hold.
	 */
	gva_t gva_first, gva_end;
};

static inline bool machine_reaches(const struct machine *machine, gva_t gva)
{
	/* One comparison; without an end it wraps to what is left above gva_first. */
	return gva - machine->gva_first <= machine->gva_end - machine->gva_first - 1;
}

#endif
