/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of bench_shadow share: a guest on the model machine, as large as it has to be.
 *
 * Guest page n is at gva n pages. The first nr_live are mapped and stay so; behind them are those
 * that are measured, SHADOW_PAGES for each vCPU. Host pages repeat, the same few over and over: a
 * million mapped pages need no 4 GiB, and the shadow MMU, which looks at no contents, has as much
 * to do. Nobody accesses memory here. What is measured is what the shadow MMU is called for.
 */
#ifndef TESTS_BENCH_SHADOW_H
#define TESTS_BENCH_SHADOW_H

#include <gnomon/mmu_notifier.h>
#include <gnomon/shadow.h>

#include "tests/bench/bench.h"

#define SHADOW_VCPUS 4u
#define SHADOW_PAGES 4096u
#define SHADOW_HVA   0x100000000UL

struct shadow_guest {
	struct phys *phys;
	struct mm_struct *mm;
	struct address_space *file;
	struct model_machine *machine;
	struct shadow *shadow;
	uint64_t nr_live, nr_pages;
};

/* Nothing is mapped yet, but all is there that has to be. 0 or -errno, and nothing is left. */
int shadow_guest_init(struct shadow_guest *guest, uint64_t nr_live);
/* Fault the live ones in. */
void shadow_guest_live(struct shadow_guest *guest);
void shadow_guest_destroy(struct shadow_guest *guest);

/* The guest maps the neighbour at the address of @page; or the page again. INVLPG is yet to come.
 */
void shadow_guest_edit(struct shadow_guest *guest, uint64_t page);

/* All of these end the program if they do not do what they say. */
void shadow_fault_in(struct shadow_guest *guest, unsigned int vcpu, uint64_t page);
/* Fault, once more, on a page that is mapped. */
void shadow_fault_again(struct shadow_guest *guest, unsigned int vcpu, uint64_t page);
void shadow_window(struct shadow_guest *guest, uint64_t first, uint64_t nr);

/* shadow_loops.c: an operation, b->arg, in a guest with so many live pages, v->arg. */
enum shadow_op { SHADOW_FAULT, SHADOW_ZAP, SHADOW_AGAIN, SHADOW_YOUNG };

struct shadow_size {
	uint64_t nr_live;
};

#define SHADOW_SIZES 4

int shadow_sizes_setup(const struct bench *b);
void shadow_sizes_teardown(const struct bench *b);
int shadow_sizes_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			struct bench_sample *s);

/* A fault, an edit of the entry, and the INVLPG that makes it count, on as many vCPUs as the bench
 * has threads; b->arg has how many pages are live. */
int shadow_vcpus_setup(const struct bench *b);
void shadow_vcpus_teardown(const struct bench *b);
int shadow_vcpus_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			struct bench_sample *s);

/* Windows over so many pages, of which 16 are mapped; v->arg says how many. */
#define SHADOW_WIDE_MAPPED 16
#define SHADOW_WIDE_PAGES  (1UL << 18) /* 1 GiB */

int shadow_wide_setup(const struct bench *b);
void shadow_wide_teardown(const struct bench *b);
int shadow_wide_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
		       struct bench_sample *s);

/* shadow_memory.c: bytes for each of n mapped pages; v->arg is NULL for what is allowed, or one of
 * these. */
struct shadow_spread {
	uint64_t nr, step; /* so many pages, each @step of them */
};

int shadow_memory_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			 struct bench_sample *s);

/*
 * shadow_kvm.c: a guest that runs, on the kvm engine. v->arg says what of a first touch is
 * measured.
 */
enum shadow_kvm_op {
	SHADOW_KVM_TOUCH,     /* a page that host memory has */
	SHADOW_KVM_TOUCH_NEW, /* one that it has to make */
	SHADOW_KVM_TRAP,
	SHADOW_KVM_REFAULT,
	SHADOW_KVM_BOTH, /* as many of the one, and of the other */
};

#define SHADOW_KVM_MAX 1024 /* pages of a sample */

const char *shadow_kvm_missing(const struct bench *b);
/* Does the host make tables of its own from ours? Once shadow_kvm_missing() was asked. */
bool shadow_kvm_shadowed(void);
int shadow_kvm_setup(const struct bench *b);
void shadow_kvm_teardown(const struct bench *b);
int shadow_kvm_touch_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			    struct bench_sample *s);
/* b->arg is which walk: an enum walk_job. */
int shadow_kvm_walk_setup(const struct bench *b);
int shadow_kvm_walk_sample(const struct bench *b, const struct bench_variant *v, uint64_t n,
			   struct bench_sample *s);

#endif
