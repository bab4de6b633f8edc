/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the manual says of one access through 4-level or 5-level page tables: done, or which fault,
 * and which flags of the tables are set by it. A plain reading of Intel's SDM, volume 3, chapter 4
 * (chapter 5 in editions from 2024 on, with the same sections), to judge others by. It knows
 * nothing of memory: whoever asks has fetched the entries.
 *
 * Left out, since no guest of ours has them: shadow stacks (CET), protection keys for supervisor
 * pages (PKS), linear-address masking, 32-bit and PAE paging.
 */
#ifndef TESTS_PAGING_SDM_PAGING_H
#define TESTS_PAGING_SDM_PAGING_H

#include <stdbool.h>
#include <stdint.h>

/* Flags of an entry (tables 4-14 to 4-20). */
#define SDM_P	   (1ull << 0) /* present */
#define SDM_RW	   (1ull << 1) /* writable */
#define SDM_US	   (1ull << 2) /* for user-mode accesses too */
#define SDM_PWT	   (1ull << 3) /* memory type, no matter here; PCD and PAT as well */
#define SDM_PCD	   (1ull << 4)
#define SDM_A	   (1ull << 5)	/* accessed */
#define SDM_D	   (1ull << 6)	/* dirty: of the entry that maps the page, else ignored */
#define SDM_PS	   (1ull << 7)	/* maps a page although a table might follow; PAT in a PTE */
#define SDM_G	   (1ull << 8)	/* global: of the entry that maps the page, else ignored */
#define SDM_XD	   (1ull << 63) /* no instruction fetches, where EFER.NXE is set */
#define SDM_KEY(k) ((uint64_t)(k) << 59)

/* Flags of a page fault's error code (4.7). */
#define SDM_PF_P    (1u << 0)
#define SDM_PF_WR   (1u << 1)
#define SDM_PF_US   (1u << 2)
#define SDM_PF_RSVD (1u << 3)
#define SDM_PF_ID   (1u << 4)
#define SDM_PF_PK   (1u << 5)

/* PML5E, PML4E, PDPTE, PDE, PTE: entries are numbered by level, as in entry[level]. */
enum { SDM_PTE = 1, SDM_PDE, SDM_PDPTE, SDM_PML4E, SDM_PML5E, SDM_LEVELS };

struct sdm_cpu {
	uint64_t cr3;
	bool wp;		 /* CR0.WP */
	bool smep, smap, pke;	 /* CR4 */
	bool la57;		 /* CR4: 5-level paging */
	bool pcide, pge;	 /* CR4: what translations are cached as; no access depends on it */
	bool nxe;		 /* EFER.NXE */
	bool ac;		 /* RFLAGS.AC */
	uint32_t pkru;		 /* of each key: bit 2k no access (AD), 2k + 1 no write (WD) */
	unsigned int maxphyaddr; /* CPUID 80000008H: EAX[7:0] */
	bool gigabyte_pages;	 /* CPUID 80000001H: EDX[26] */
};

enum sdm_kind { SDM_READ, SDM_WRITE, SDM_FETCH };

enum sdm_mode {
	SDM_USER,	/* made while CPL = 3 */
	SDM_SUPERVISOR, /* made while CPL < 3 */
	SDM_IMPLICIT,	/* to a GDT, LDT, IDT or TSS, whatever the CPL; never a fetch */
};

struct sdm_access {
	uint64_t address;
	enum sdm_kind kind;
	enum sdm_mode mode;
};

enum sdm_outcome { SDM_DONE, SDM_PAGE_FAULT, SDM_NOT_CANONICAL };

struct sdm_result {
	enum sdm_outcome outcome;
	uint32_t error_code; /* of SDM_PAGE_FAULT */
	int leaf;	     /* level of the entry that maps the page; 0: no translation */
	/* Where there is a translation: */
	uint64_t physical; /* address that the access goes to */
	unsigned int key;  /* protection key; 0 without CR4.PKE */
	bool global;	   /* cached for all PCIDs */

	/*
	 * Flags that the access adds to each entry, and those that it may add or leave alone: a
	 * processor may mark what it walks through although the access then faults (4.10.3.1).
	 */
	uint64_t sets[SDM_LEVELS], may_set[SDM_LEVELS];
};

/* @entry[level], for the levels that the walk gets to; the others are not looked at. */
void sdm_access(const struct sdm_cpu *cpu, const uint64_t entry[SDM_LEVELS],
		const struct sdm_access *access, struct sdm_result *result);

/* What CR3 says: the root table's address, and the PCID. */
uint64_t sdm_root(const struct sdm_cpu *cpu);
unsigned int sdm_pcid(const struct sdm_cpu *cpu);

/* What sdm_access() is made of, for those who need a part. */
bool sdm_is_canonical(const struct sdm_cpu *cpu, uint64_t address);
uint64_t sdm_reserved_bits(const struct sdm_cpu *cpu, uint64_t entry, int level);
bool sdm_maps_page(uint64_t entry, int level);

#endif
