/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model machine: a struct machine (gnomon/machine.h) whose CPUs do on purpose, every time, what
 * real hardware does only sometimes. It is the adversary that tests of the shadow MMU run against.
 *
 * What a model CPU caches, and for how long:
 *  1. A leaf (root, gva page -> frame, rights), from the access that walked to it until a shootdown
 *     of that frame, or until its root's table is retired. Loading another root, clearing the entry
 *     or INVLPG change nothing: the shadow MMU must say so by a shootdown.
 *     A leaf of 2 MiB is known as 512 pieces, all by one access, and each goes for itself.
 *  2. A directory entry (root, gva prefix -> table), from the walk that read it until retire_table
 *     of the table that it names, or of its root. A walk starts at the deepest one that fits.
 *  3. Nothing that was not present, and nothing beyond the rights that the walk found. An access
 *     that a cached leaf does not allow walks again, so a gain of rights is noticed.
 *  4. A walk that ends in a fault drops the directory entries cached for its address, as a CPU's
 *     page fault does (SDM vol. 3, 4.10.4.1): the next access walks from the root. So a stale link
 *     shows where it still reaches a present leaf, and is no livelock where it does not.
 *
 * Walk, fill and access are one critical section of the CPU's lock; a shootdown and a retire take
 * the lock of each CPU in turn. Any thread may access through any CPU.
 */
#ifndef TESTS_MODEL_MODEL_H
#define TESTS_MODEL_MODEL_H

#include <gnomon/machine.h>
#include <gnomon/phys.h>
#include <gnomon/shadow.h>

struct model_machine;

/* Table frames come from @phys, which outlives the machine. NULL when out of memory. */
struct model_machine *model_create(struct phys *phys, unsigned int nr_cpus);
/* No thread uses the machine any more. Table frames that it holds back go to the pool. */
void model_destroy(struct model_machine *m);

/* What shadow_create() takes. */
struct machine *model_to_machine(struct model_machine *m);

/* --- accesses --- */

enum model_op {
	MODEL_LOAD,    /* value <- memory */
	MODEL_STORE,   /* memory <- value */
	MODEL_ADD,     /* memory += value; value <- what was there before */
	MODEL_CMPXCHG, /* if memory == expected, memory <- value; expected <- what was there */
	MODEL_FETCH,   /* as MODEL_LOAD, with execute rights */
};

/* One access of eight aligned bytes. */
struct model_access {
	enum model_op op;
	gva_t gva;
	uint64_t value;
	uint64_t expected;
	pfn_t pfn;	     /* out, after 0: the frame that was accessed */
	uint32_t error_code; /* out, after -EFAULT: PFERR_* bits as the CPU pushes them */
};

/* 0; -EFAULT and access->error_code; -ECANCELED once the machine was halted. Never sleeps. */
int model_access(struct model_machine *m, unsigned int cpu, struct model_access *access);

/*
 * The same as a vCPU's run loop would do it: faults go to shadow_handle_fault(), until the access
 * is done or the answer is not "run again". RET_PF_FIXED: done; RET_PF_HALTED also when the machine
 * was halted; after RET_PF_GUEST access->error_code is the guest's.
 */
enum ret_pf model_access_retry(struct model_machine *m, unsigned int cpu, struct shadow *shadow,
			       struct model_access *access);

static inline int model_load(struct model_machine *m, unsigned int cpu, gva_t gva, uint64_t *value)
{
	struct model_access access = {.op = MODEL_LOAD, .gva = gva};
	int ret = model_access(m, cpu, &access);

	*value = access.value;
	return ret;
}

static inline int model_store(struct model_machine *m, unsigned int cpu, gva_t gva, uint64_t value)
{
	struct model_access access = {.op = MODEL_STORE, .gva = gva, .value = value};

	return model_access(m, cpu, &access);
}

/* --- knobs and hooks; set while no CPU runs --- */

/* Of the tables; 4 unless said, or 5. Before the machine has any. */
void model_set_levels(struct model_machine *m, unsigned int levels);

/* Do its CPUs set accessed and dirty bits? They do unless said. Before shadow_create(). */
void model_set_accessed_bits(struct model_machine *m, bool set);

/* Its CPUs reach [@first, @end) and nothing else; all unless said (gnomon/machine.h). Before
 * shadow_create(). */
void model_set_reach(struct model_machine *m, gva_t first, gva_t end);

enum model_reuse {
	MODEL_REUSE_FIFO, /* retired tables go back to the pool, which reuses them as late as it can
			   */
	MODEL_REUSE_LIFO, /* alloc_table hands out the table that came back last: what is reused too
			     early bites at once */
};
void model_set_reuse(struct model_machine *m, enum model_reuse reuse);

/* Entry @slot of each root is the machine's own from now on, as an engine's monitor has it:
 * present, for the supervisor alone. 0 or -ENOMEM. */
int model_reserve_slot(struct model_machine *m, unsigned int slot);

/*
 * @fn runs at the start of each shootdown, before any CPU is locked, in the thread that shoots:
 * park there and the shootdown stalls.
 */
void model_set_shootdown_hook(struct model_machine *m,
			      void (*fn)(void *arg, const pfn_t *frames, size_t nr), void *arg);

/* The next @nr shootdowns return @error and do nothing. */
void model_fail_shootdowns(struct model_machine *m, unsigned int nr, int error);

/*
 * The gate: while gva page @gva is closed (closing nests), any access to it is a violation, counted
 * in model_stats.gate_violations. For tests that know when an invalidation window is open (I1).
 * Pages of [0, @nr_pages << PAGE_SHIFT) have gates, once asked for. 0 or -ENOMEM.
 */
int model_gates(struct model_machine *m, uint64_t nr_pages);
void model_gate_close(struct model_machine *m, gva_t gva);
void model_gate_open(struct model_machine *m, gva_t gva);

/* --- what was seen --- */

struct model_stats {
	uint64_t accesses; /* that reached memory */
	uint64_t hits;	   /* of them: by a cached leaf */
	uint64_t walks;	   /* that made or widened a cached leaf */
	uint64_t faults;
	uint64_t shootdowns;
	uint64_t dropped;	  /* cached leaves that shootdowns dropped */
	uint64_t tables_reused;	  /* tables that alloc_table handed out again, MODEL_REUSE_LIFO */
	uint64_t gate_violations; /* accesses to closed pages */
	/* The caller of retire_table, free_table or load_root broke the contract: a CPU still had a
	 * leaf of that table, had seen the "unseen" table, or runs on it. */
	uint64_t contract_violations;
};
void model_get_stats(struct model_machine *m, struct model_stats *stats);

/* How many CPUs have a leaf to @pfn cached now. */
unsigned int model_cached(struct model_machine *m, pfn_t pfn);
bool model_halted(struct model_machine *m);

#endif
