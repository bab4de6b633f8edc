/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The rules, one function each, in the order in which a processor comes to them. Numbers in
 * brackets are sections and tables of the SDM, volume 3A, chapter 4.
 *
 *  1. An address that is not canonical is refused before any table is read.
 *  2. The walk goes down until an entry maps a page. It ends without a translation at the first
 *     entry that is not present or has a reserved bit set. Rights do not matter yet: where one
 *     level forbids the access and a lower one is not present, the fault is "not present".
 *  3. With a translation, the rights of all levels together decide.
 *  4. Only an access that is allowed is sure to mark entries, and only one marks them dirty.
 */
#include "tests/paging/sdm_paging.h"

#include <string.h>

static uint64_t bits(int high, int low)
{
	return high < low ? 0 : (~0ull >> (63 - high)) & (~0ull << low);
}

/* Vol. 1, 3.3.7.1: all bits above the highest translated one are copies of it. */
bool sdm_is_canonical(const struct sdm_cpu *cpu, uint64_t address)
{
	uint64_t upper = bits(63, cpu->la57 ? 56 : 47);

	return (address & upper) == 0 || (address & upper) == upper;
}

/* 4.5, tables 4-12 and 4-13. Without PCIDE the low bits of CR3 are PWT, PCD, or ignored. */
uint64_t sdm_root(const struct sdm_cpu *cpu)
{
	return cpu->cr3 & bits(cpu->maxphyaddr - 1, 12);
}

/* 4.10.1. */
unsigned int sdm_pcid(const struct sdm_cpu *cpu)
{
	return cpu->pcide ? cpu->cr3 & bits(11, 0) : 0;
}

/* 4.5, table 4-2 ff.: a PTE always maps a page, a PDE or PDPTE if its PS flag is set. */
bool sdm_maps_page(uint64_t entry, int level)
{
	return level == SDM_PTE || (level <= SDM_PDPTE && (entry & SDM_PS));
}

/* The bits that must be 0 in a present entry (4.5, the list after figure 4-11, and tables 4-14 to
 * 4-20). */
uint64_t sdm_reserved_bits(const struct sdm_cpu *cpu, uint64_t entry, int level)
{
	uint64_t reserved = bits(51, cpu->maxphyaddr);

	if (!cpu->nxe)
		reserved |= SDM_XD;
	if (level >= SDM_PML4E)
		reserved |= SDM_PS;
	if (level == SDM_PDPTE && !cpu->gigabyte_pages)
		reserved |= SDM_PS;
	/* Bit 12 of what maps a large page is its PAT flag. */
	if (level == SDM_PDPTE && (entry & SDM_PS))
		reserved |= bits(29, 13);
	if (level == SDM_PDE && (entry & SDM_PS))
		reserved |= bits(20, 13);
	return reserved;
}

/* 4.6.1 ("the paging-structure entries controlling the translation"): what all entries of a
 * translation say together. */
struct rights {
	bool user;     /* U/S in all of them: a user-mode address, else a supervisor-mode address */
	bool writable; /* R/W in all of them */
	bool no_fetch; /* XD in any of them */
	unsigned int key;
};

static struct rights rights_of(const uint64_t entry[SDM_LEVELS], int top, int leaf)
{
	struct rights r = {.user = true, .writable = true};

	for (int level = top; level >= leaf; level--) {
		r.user &= !!(entry[level] & SDM_US);
		r.writable &= !!(entry[level] & SDM_RW);
		r.no_fetch |= !!(entry[level] & SDM_XD);
	}
	r.key = (entry[leaf] >> 59) & 15; /* 4.6.2: of the entry that maps the page */
	return r;
}

/* 4.6.2: do protection keys forbid it? They hold for data at user-mode addresses. */
static bool key_forbids(const struct sdm_cpu *cpu, const struct rights *r,
			const struct sdm_access *access)
{
	bool no_access = cpu->pkru >> (2 * r->key) & 1;
	bool no_write = cpu->pkru >> (2 * r->key + 1) & 1;

	if (!cpu->pke || !r->user || access->kind == SDM_FETCH)
		return false;
	if (no_access)
		return true;
	/* A supervisor's writes heed WD only where they heed R/W. */
	return no_write && access->kind == SDM_WRITE && (access->mode == SDM_USER || cpu->wp);
}

/* 4.6.1, "for supervisor-mode accesses". */
static bool supervisor_may(const struct sdm_cpu *cpu, const struct rights *r,
			   const struct sdm_access *access)
{
	if (access->kind == SDM_FETCH) {
		if (r->user && cpu->smep)
			return false;
		return !(cpu->nxe && r->no_fetch);
	}
	/* SMAP: at user-mode addresses only explicit accesses, and only while AC is set. */
	if (r->user && cpu->smap && (!cpu->ac || access->mode == SDM_IMPLICIT))
		return false;
	if (access->kind == SDM_WRITE && cpu->wp && !r->writable)
		return false;
	return !key_forbids(cpu, r, access);
}

/* 4.6.1, "for user-mode accesses". */
static bool user_may(const struct sdm_cpu *cpu, const struct rights *r,
		     const struct sdm_access *access)
{
	if (!r->user)
		return false;
	if (access->kind == SDM_FETCH)
		return !(cpu->nxe && r->no_fetch);
	if (access->kind == SDM_WRITE && !r->writable)
		return false;
	return !key_forbids(cpu, r, access);
}

/* 4.7: the flags that depend on the access alone. */
static uint32_t error_code_of(const struct sdm_cpu *cpu, const struct sdm_access *access)
{
	uint32_t code = 0;

	if (access->kind == SDM_WRITE)
		code |= SDM_PF_WR;
	if (access->mode == SDM_USER)
		code |= SDM_PF_US;
	if (access->kind == SDM_FETCH && (cpu->smep || cpu->nxe))
		code |= SDM_PF_ID;
	return code;
}

static void fault(struct sdm_result *result, uint32_t error_code)
{
	result->outcome = SDM_PAGE_FAULT;
	result->error_code = error_code;
}

/*
 * 4.8: the accessed flag of every entry used, the dirty flag of the one that maps the page. "Used"
 * leaves room where the access faults. 4.10.3.1 lets a processor cache an entry that it has walked
 * through, once that has its accessed flag; 4.10.2.3 even translations that no instruction asked
 * for. A dirty flag, however, says that there was a write.
 */
static void mark(struct sdm_result *result, int top, int last, const struct sdm_access *access)
{
	uint64_t *flags = result->outcome == SDM_DONE ? result->sets : result->may_set;

	for (int level = top; level >= last; level--)
		flags[level] |= SDM_A;
	if (result->outcome == SDM_DONE && access->kind == SDM_WRITE)
		flags[result->leaf] |= SDM_D;
}

void sdm_access(const struct sdm_cpu *cpu, const uint64_t entry[SDM_LEVELS],
		const struct sdm_access *access, struct sdm_result *result)
{
	int top = cpu->la57 ? SDM_PML5E : SDM_PML4E;
	uint32_t code = error_code_of(cpu, access);
	struct rights r;
	uint64_t offset;
	int level;
	bool may;

	memset(result, 0, sizeof(*result));
	if (!sdm_is_canonical(cpu, access->address)) {
		result->outcome = SDM_NOT_CANONICAL;
		return;
	}

	/* 4.5: the walk. 4.7: P and RSVD of the error code. */
	for (level = top;; level--) {
		if (!(entry[level] & SDM_P)) {
			fault(result, code);
			mark(result, top, level + 1, access);
			return;
		}
		if (entry[level] & sdm_reserved_bits(cpu, entry[level], level)) {
			fault(result, code | SDM_PF_P | SDM_PF_RSVD);
			mark(result, top, level + 1, access);
			return;
		}
		if (sdm_maps_page(entry[level], level))
			break;
	}
	offset = bits(11 + 9 * (level - 1), 0);
	result->leaf = level;
	result->physical = (entry[level] & bits(51, 12) & ~offset) | (access->address & offset);

	result->global = cpu->pge && (entry[level] & SDM_G); /* 4.10.2.4 */

	r = rights_of(entry, top, level);
	result->key = cpu->pke ? r.key : 0;
	may = access->mode == SDM_USER ? user_may(cpu, &r, access)
				       : supervisor_may(cpu, &r, access);
	if (!may) {
		/* 4.7: PK tells that the key forbids it, even if something else does as well. */
		if (key_forbids(cpu, &r, access))
			code |= SDM_PF_PK;
		fault(result, code | SDM_PF_P);
	}
	mark(result, top, level, access);
}
