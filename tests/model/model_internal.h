/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of the model machine share. Lock order: reuse_lock and the CPUs' locks nest in
 * nothing of each other; both are innermost, except for the frame pool's.
 */
#ifndef TESTS_MODEL_MODEL_INTERNAL_H
#define TESTS_MODEL_MODEL_INTERNAL_H

#include "notifier/sync/atomic.h"
#include "notifier/sync/bug.h"
#include "notifier/sync/list.h"
#include "notifier/sync/lock.h"
#include "tests/model/model.h"

/* The machine's entry format, written down anew from the SDM (vol. 3, 4.5): the model does not
 * trust the shadow MMU's header. */
#define HW_PRESENT  (1UL << 0)
#define HW_WRITE    (1UL << 1)
#define HW_USER	    (1UL << 2)
#define HW_ACCESSED (1UL << 5)
#define HW_DIRTY    (1UL << 6)
#define HW_LARGE    (1UL << 7)
#define HW_XD	    (1UL << 63)
#define HW_PFN_MASK 0x000ffffffffff000UL

/* A set of rights: what all levels of a walk allow together. D is a right to store without a walk:
 * hardware walks again to set it. */
#define RIGHT_READ  (1u << 0)
#define RIGHT_WRITE (1u << 1)
#define RIGHT_EXEC  (1u << 2)
#define RIGHT_DIRTY (1u << 3)

#define TLB_BUCKETS 256
#define LARGE_PAGES 512 /* of 2 MiB: each is a piece that a CPU forgets for itself */

struct tlb_leaf {
	struct list_head by_gva; /* in cpu->leaf_by_gva, by root and gva page */
	struct list_head by_pfn; /* in cpu->leaf_by_pfn */
	pfn_t root;
	gva_t page;  /* gva >> PAGE_SHIFT, of a large leaf the first one */
	pfn_t pfn;   /* the same */
	pfn_t table; /* that the entry was read from */
	unsigned int rights;
	unsigned int nr_gone; /* of a large leaf: pieces that were dropped */
	bool large;
	uint64_t gone[LARGE_PAGES / 64];
};

struct tlb_dir {
	struct list_head link; /* in cpu->dirs, by root and prefix */
	pfn_t root;
	int level; /* of the table that it names: 1 to levels - 1 */
	gva_t prefix;
	pfn_t table;
	unsigned int rights; /* left by this entry and all above it */
};

struct model_cpu {
	spinlock_t lock;
	/* Shooters in line for the lock: accesses stand back for them, or a CPU in a tight loop
	 * would keep them out. */
	atomic_t shooters;

	/* All under lock. */
	pfn_t root; /* INVALID_PFN: none loaded yet */
	struct list_head leaf_by_gva[TLB_BUCKETS];
	struct list_head leaf_by_pfn[TLB_BUCKETS];
	struct list_head large_by_pfn[TLB_BUCKETS]; /* by_pfn of large leaves */
	struct list_head dirs[TLB_BUCKETS];
	uint64_t accesses, hits, walks, faults, dropped, gate_violations;
};

struct model_machine {
	struct machine machine;
	struct phys *phys;
	unsigned int nr_cpus;
	enum model_reuse reuse; /* set while nothing runs, as are the hook and the gates */
	void (*shootdown_hook)(void *arg, const pfn_t *frames, size_t nr);
	void *shootdown_hook_arg;
	pfn_t monitor; /* INVALID_PFN: no slot is reserved */
	unsigned int reserved_slot;
	atomic_t *gates;
	uint64_t nr_gates;

	atomic_t halted;
	atomic_t fail_shootdowns;
	int fail_error;
	atomic64_t shootdowns, tables_reused, contract_violations;

	/* MODEL_REUSE_LIFO: the tables to hand out again, last in first out. */
	spinlock_t reuse_lock;
	pfn_t *stack; /* [phys_nr_frames] */
	uint64_t nr_stack;

	struct model_cpu cpu[];
};

/* model_tlb.c: all with cpu->lock held, but for init and destroy. */
void tlb_init(struct model_cpu *cpu);
void tlb_destroy(struct model_cpu *cpu);
struct tlb_leaf *tlb_find_leaf(struct model_cpu *cpu, pfn_t root, gva_t gva);
/* @pfn is that of the page of @gva, also in a large leaf. */
struct tlb_leaf *tlb_add_leaf(struct model_cpu *cpu, pfn_t root, gva_t gva, pfn_t pfn, pfn_t table,
			      unsigned int rights, bool large);
/* What the CPU knows of @gva by @leaf: of a large one that piece alone. */
void tlb_drop_leaf(struct tlb_leaf *leaf, gva_t gva);
pfn_t tlb_leaf_pfn(const struct tlb_leaf *leaf, gva_t gva);
unsigned int tlb_drop_pfn(struct model_cpu *cpu, pfn_t pfn);
unsigned int tlb_count_pfn(struct model_cpu *cpu, pfn_t pfn);
struct tlb_dir *tlb_find_dir(struct model_cpu *cpu, pfn_t root, int level, gva_t gva);
void tlb_add_dir(struct model_cpu *cpu, pfn_t root, int level, gva_t gva, pfn_t table,
		 unsigned int rights);
void tlb_drop_dirs(struct model_cpu *cpu, pfn_t root, gva_t gva);
/* Forget every entry that names @table or is tagged with it as a root. */
void tlb_retire(struct model_cpu *cpu, pfn_t table);
/* Does the CPU know a leaf that it read from @table? */
bool tlb_has_leaf_of(struct model_cpu *cpu, pfn_t table);
/* Does it know @table in any way: as a root, a directory, a source of leaves? */
bool tlb_knows(struct model_cpu *cpu, pfn_t table);

void model_cpu_lock(struct model_cpu *cpu);	  /* for an access: stands back for shooters */
void model_cpu_lock_shoot(struct model_cpu *cpu); /* for whoever changes what the CPU caches */
void model_cpu_unlock(struct model_cpu *cpu);

#endif
