/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a run did, as numbers: collected while the parts still exist, written after they are gone.
 * docs/stats.md explains each key; a key keeps its name and its meaning once it is there.
 */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include <jansson.h>

#include <gnomon/swap.h>

#include "vmm/chaos.h"
#include "vmm/vm.h"

struct run_stats {
	/* What was asked for: filled in by whoever starts the run. */
	const char *engine; /* NULL: it did not come to that */
	uint64_t seed;
	uint64_t mem_bytes, frames_bytes, swap_bytes;
	bool private_ram;
	unsigned int broken; /* SHADOW_BREAK_* */
	struct chaos_plan plan;

	/* What came of it. */
	uint64_t wall_ns; /* from the start of the vCPUs until the last of them ended */
	enum vm_outcome outcome;
	unsigned int guest_exit; /* VM_EXITED */
	char reason[512];	 /* empty for VM_EXITED */

	uint64_t guest_passes, corruptions, traps, hole_waits, memory_waits;
	uint64_t stores_emulated, stores_unprotected; /* to the guest's page tables */
	uint64_t quarantine_drains, quarantined;
	struct chaos_counts chaos[NR_CHAOS_KINDS];
	struct mm_stats mm;
	struct reclaim_stats reclaim;
	struct shadow_stats shadow;

	unsigned int warnings; /* complete only when the vm has been destroyed */
};

/* How @vm ended and all its counters, and those of @chaos (may be NULL). No vCPU runs any more. */
void stats_collect(struct run_stats *stats, struct vm *vm, const struct chaos *chaos);

/* Pages that moved to another frame, by any kind of chaos. */
uint64_t stats_pages_migrated(const struct run_stats *stats);

/* A new object, or NULL when out of memory. */
json_t *stats_to_json(const struct run_stats *stats);

/* All of it, however many writes that takes. 0 or -errno. */
int write_all(int fd, const char *buf, size_t len);

/* Write @json to @fd, indented, with a newline at the end. 0 or -errno. */
int json_write(const json_t *json, int fd);

#endif
