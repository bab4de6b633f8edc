/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An ordinary guest with paging under raw KVM, none of our engine in it: one vCPU that makes one
 * access through tables that the caller describes, at CPL 3 or CPL 0, and says what became of it.
 *
 * Each case has tables of its own in frames that KVM has not seen since the memory slot was last
 * taken back: a host that shadows tables notices no change of a present entry.
 */
#ifndef TESTS_PAGING_VCPU_KVM_H
#define TESTS_PAGING_VCPU_KVM_H

#include "tests/paging/paging_cases.h"

struct vcpu_kvm;

/* What the vCPU's CPUID has. */
struct vcpu_features {
	bool nx, smep, smap, pku, la57, gigabyte_pages;
	unsigned int maxphyaddr;
	bool amd; /* AMD's manual rules: G is reserved in what is above a PDE */
	/*
	 * Found by trying. A host that runs CPL 3 in a process of its own has its kernel in the
	 * upper half of the addresses, and its own segments.
	 */
	bool user_upper_half;
	bool user_ldt; /* loads of a segment at CPL 3 read the guest's LDT */
};

enum vcpu_ended {
	VCPU_DONE,	/* the access was made, and the instruction behind it reached */
	VCPU_EXCEPTION, /* vector, error_code, cr2 */
	VCPU_ELSEWHERE, /* the access did not fault, but went to another place */
	VCPU_STOPPED,	/* KVM does not go on: why */
	VCPU_HUNG,
};

struct vcpu_outcome {
	enum vcpu_ended ended;
	unsigned int vector;
	uint64_t error_code, cr2;
	char why[64];
	uint64_t after[SDM_LEVELS]; /* the case's entries */
};

/* NULL and @why, a line, when there is no usable /dev/kvm. */
struct vcpu_kvm *vcpu_kvm_create(char *why, size_t size);
void vcpu_kvm_destroy(struct vcpu_kvm *v);
const struct vcpu_features *vcpu_kvm_features(const struct vcpu_kvm *v);

/* Its physical memory ends here. */
#define VCPU_MEMORY (1ul << 30)

/*
 * Fills in the addresses of @c, which the caller has made for this vCPU's features. False: the case
 * cannot be brought about (an implicit write, an address where the guest's own code is).
 */
bool vcpu_kvm_place(struct vcpu_kvm *v, struct paging_case *c);
/* As code of @cpl, 3 or 0, for implicit accesses too. @physical: where it has to go if it is done.
 */
void vcpu_kvm_run(struct vcpu_kvm *v, const struct paging_case *c, int cpl, uint64_t physical,
		  struct vcpu_outcome *out);

#endif
