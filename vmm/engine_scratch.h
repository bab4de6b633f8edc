/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine of a few frames with one vCPU, on the calling thread, and guest programs of two
 * instructions: what an engine's probe makes its experiments on.
 *
 * The first thing that goes wrong is kept, and everything after it does nothing: so an experiment
 * is written down without a look at errors, and asked at its end.
 */
#ifndef VMM_ENGINE_SCRATCH_H
#define VMM_ENGINE_SCRATCH_H

#include "vmm/cpl3.h"
#include "vmm/engine.h"

#define SCRATCH_FRAMES 1024 /* the host has memory for those alone that are used */
#define SCRATCH_TABLES 16

#define SCRATCH_BITS 0x67ul /* present, writable, user, accessed, dirty */
#define SCRATCH_ADDR 0x000ffffffffff000ul

/*
 * Guest addresses. Each has a page directory of its own, so that none shares a table of leaves; all
 * hang off PML4 entry 0. Under a new root the fetch of the first instruction links that entry: were
 * the data elsewhere, reading it would fault at the root, and a host that shadows would look again.
 */
#define GVA_CODE  0x01000000ul
#define GVA_FIRST 0x40000000ul
#define GVA_OTHER 0x80000000ul
#define GVA_DATA  0xc0000000ul
#define GVA_HUGE  0x100000000ul

extern const char scratch_load[], scratch_sgdt[];

struct scratch {
	struct phys *phys;
	struct engine *engine;
	struct machine *machine;
	pfn_t root;
	pfn_t code, a, b, c; /* data pages, each holding its own name in its first word */
	pfn_t tables[SCRATCH_TABLES];
	unsigned int nr_tables;
	int err;
	char why[256];
};

typedef int (*scratch_engine_fn)(struct engine **enginep, struct phys *phys, unsigned int nr_vcpus,
				 char *why, size_t why_len);

/* 0 or -errno with a line in scratch->why, and then there is nothing to destroy. */
int scratch_create(struct scratch *s, scratch_engine_fn create);
void scratch_destroy(struct scratch *s);

void scratch_give_up(struct scratch *s, int err, const char *what);
uint64_t *scratch_words(struct scratch *s, pfn_t pfn);
pfn_t scratch_new_table(struct scratch *s, int level);
/* The entry for @gva in its table of @level; NULL once something went wrong. */
uint64_t *scratch_entry(struct scratch *s, uint64_t gva, int level);
void scratch_set(struct scratch *s, uint64_t gva, int level, uint64_t value);
void scratch_map(struct scratch *s, uint64_t gva, pfn_t pfn);
void scratch_shoot(struct scratch *s, pfn_t pfn);
void scratch_load_root(struct scratch *s, pfn_t root);

/* Send the guest to @program, with an address. */
void scratch_start(struct scratch *s, const char *program, uint64_t rdi);
/* Run to the next trap and return its vector, or -1. */
int scratch_run(struct scratch *s);
/* What the guest reads at @gva; 0 if it faults there. */
uint64_t scratch_read(struct scratch *s, uint64_t gva);

/* A page that is taken away and shot down is gone, and another takes its place. */
bool scratch_shootdown_works(struct scratch *s);

/* SGDT and its kin trap. */
bool scratch_sgdt_traps(struct scratch *s);

/* Medians, in microseconds: a trap and back, and the shootdown of a frame that was just used. */
double scratch_measure_trap(struct scratch *s);
double scratch_measure_shootdown(struct scratch *s);

/* An engine's whole report: what @note finds on such a machine, and the two figures. */
void scratch_probe(struct engine_report *report, scratch_engine_fn create,
		   void (*note)(struct scratch *s, struct engine_report *report));

#endif
