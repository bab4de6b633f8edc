/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accesses through page tables, enumerated: which entries, in which state of the CPU, which kind of
 * access. The order is fixed and each case has a number, so that a sample is a stride and a case
 * that went wrong can be had again.
 */
#ifndef TESTS_PAGING_PAGING_CASES_H
#define TESTS_PAGING_PAGING_CASES_H

#include <stddef.h>

#include "tests/paging/sdm_paging.h"

/* What all cases have in common: a CPU's physical address width, and whether it has 1 GiB pages. */
struct paging_env {
	unsigned int maxphyaddr;
	bool gigabyte_pages;
};

struct paging_case {
	uint64_t number;
	const char *family;
	struct sdm_cpu cpu;
	struct sdm_access access;
	int top,
		leaf; /* levels of the root's entry, and of the one that is meant to map the page */
	uint64_t entry[SDM_LEVELS]; /* [top..leaf], without the addresses of tables and page */
};

uint64_t paging_cases_count(void);

/* False: this number stands for nothing, or for the same as a lower one. */
bool paging_case_get(uint64_t number, const struct paging_env *env, struct paging_case *c);

/*
 * Fill in addresses: the root's, with a PCID where there are PCIDs, and frame[level] of the table
 * or page that entry[level] leads to. The page of a leaf above the PTE is aligned to its size.
 */
void paging_case_place(struct paging_case *c, uint64_t root, const uint64_t frame[SDM_LEVELS]);

/* Index of the case's address in the table whose entries are of @level. */
unsigned int paging_case_index(const struct paging_case *c, int level);

/* One line each, without a newline. */
void paging_case_format(const struct paging_case *c, char *buf, size_t size);
void paging_result_format(const struct sdm_result *result, char *buf, size_t size);

#endif
