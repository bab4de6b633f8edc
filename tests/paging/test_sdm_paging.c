/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reading of the manual, held against sentences of the manual, one row each; and the cases,
 * that they are many, legal and always the same.
 */
#include <string.h>

#include "notifier/sync/util.h"
#include "tests/paging/paging_cases.h"
#include "tests/support/test.h"

#define P  SDM_P
#define RW SDM_RW
#define US SDM_US
#define XD SDM_XD

#define KEY SDM_KEY(3)
#define AD  (1u << 6) /* of that key */
#define WD  (2u << 6)

#define USER	 SDM_USER
#define KERNEL	 SDM_SUPERVISOR
#define IMPLICIT SDM_IMPLICIT
#define READ	 SDM_READ
#define WRITE	 SDM_WRITE
#define FETCH	 SDM_FETCH

enum { DONE = 0x100, GP };

/* clang-format off */
static const struct {
	uint64_t pml4e, pte; /* what is between has all rights */
	struct sdm_cpu cpu;
	enum sdm_mode mode;
	enum sdm_kind kind;
	uint32_t want; /* DONE, or the error code of a page fault */
	const char *says;
} sentences[] = {
	{P | US, P | US, {0}, USER, READ, DONE,
		"4.6.1: user-mode data reads need U/S = 1 in every entry"},
	{P | RW, P | US, {0}, USER, READ, 0x5,
		"... in the upper ones as well"},
	{P | RW, P | US, {.wp = 1}, USER, READ, 0x5,
		"... whatever CR0.WP is"},
	{P | US, P | US | RW, {0}, USER, WRITE, 0x7,
		"user-mode writes need R/W = 1 in every entry"},
	{P | US, P, {0}, KERNEL, WRITE, DONE,
		"supervisor writes do not, without WP"},
	{P | RW, P, {.wp = 1}, KERNEL, WRITE, 0x3,
		"with WP they do"},
	{P | US, P | US | RW, {.wp = 1}, KERNEL, WRITE, 0x3,
		"at user-mode addresses too"},
	{P | US | XD, P | US, {.nxe = 1}, USER, FETCH, 0x15,
		"fetches need XD = 0 in every entry"},
	{P, P | XD, {.nxe = 1}, KERNEL, FETCH, 0x11,
		"of a supervisor too"},
	{P | US | XD, P | US, {0}, USER, FETCH, 0xd,
		"4.5: without NXE, XD is reserved"},
	{P | US, P | US | XD, {0}, USER, READ, 0xd,
		"... for reads as well"},
	{P | US, P | US, {.smep = 1}, KERNEL, FETCH, 0x11,
		"SMEP: no supervisor fetches from user-mode addresses"},
	{P, P | US, {.smep = 1}, KERNEL, FETCH, DONE,
		"supervisor-mode addresses are exempt"},
	{P | US, P | US, {.smap = 1}, KERNEL, READ, 0x1,
		"SMAP: no supervisor data accesses to user-mode addresses"},
	{P | US, P | US, {.smap = 1, .ac = 1}, KERNEL, READ, DONE,
		"... unless AC = 1 and they are explicit"},
	{P | US, P | US, {.smap = 1, .ac = 1}, IMPLICIT, READ, 0x1,
		"... for implicit ones AC does not matter"},
	{P | US, P | US, {.smap = 1}, KERNEL, FETCH, DONE,
		"SMAP does not stop fetches"},
	{P | US | RW, P | US | KEY, {.pke = 1, .pkru = AD}, USER, READ, 0x25,
		"4.6.2: AD stops data accesses"},
	{P | US | RW, P | US | KEY, {.pke = 1, .pkru = AD}, KERNEL, READ, 0x21,
		"... of a supervisor, too, WP or not"},
	{P | US | RW, P | US | KEY, {.pke = 1, .pkru = AD}, USER, FETCH, DONE,
		"... not fetches"},
	{P | RW, P | US | KEY, {.pke = 1, .pkru = AD}, KERNEL, READ, DONE,
		"... not at supervisor-mode addresses"},
	{P | US | RW, P | US | KEY, {.pkru = AD}, USER, READ, DONE,
		"... nothing without PKE"},
	{P | US | RW, P | US | RW | KEY, {.pke = 1, .pkru = WD}, USER, WRITE, 0x27,
		"WD stops a user's writes"},
	{P | US | RW, P | US | RW | KEY, {.pke = 1, .pkru = WD}, KERNEL, WRITE, DONE,
		"... a supervisor's only with WP"},
	{P | US | RW, P | US | RW | KEY, {.pke = 1, .wp = 1, .pkru = WD}, KERNEL, WRITE, 0x23,
		"... (with it)"},
	{P | US | KEY, P | US, {.pke = 1, .pkru = AD}, USER, READ, DONE,
		"the key of an upper entry is none"},
	{P | US, P | US | KEY, {.pke = 1, .pkru = WD}, USER, WRITE, 0x27,
		"4.7: PK is set beside another reason"},
	{P, RW, {0}, USER, WRITE, 0x6,
		"P = 0 if an entry's P flag was 0, whatever forbids the access"},
	{P, 0, {.smep = 1}, USER, FETCH, 0x14,
		"I/D is set where SMEP or NXE is"},
	{P, 0, {0}, USER, FETCH, 0x4,
		"... else not"},
	{P, 0, {0}, IMPLICIT, WRITE, 0x2,
		"U/S is clear for implicit accesses"},
	{P | SDM_PS, P, {0}, KERNEL, READ, 0x9,
		"RSVD goes with P"},
	{P, SDM_PS | XD, {0}, KERNEL, READ, 0x0,
		"reserved bits of an entry that is not present are not looked at"},
};
/* clang-format on */

TEST(sdm_paging, sentences)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(sentences); i++) {
		uint64_t entry[SDM_LEVELS] = {0, sentences[i].pte, P | RW | US, P | RW | US,
					      sentences[i].pml4e};
		struct sdm_access access = {0x123456789abc, sentences[i].kind, sentences[i].mode};
		struct sdm_cpu cpu = sentences[i].cpu;
		struct sdm_result result;
		uint32_t got;

		cpu.maxphyaddr = 46;
		sdm_access(&cpu, entry, &access, &result);
		got = result.outcome == SDM_DONE	 ? (uint32_t)DONE
		      : result.outcome == SDM_PAGE_FAULT ? result.error_code
							 : (uint32_t)GP;
		if (got != sentences[i].want)
			fail("\"%s\": 0x%x, not 0x%x", sentences[i].says, got, sentences[i].want);
	}
}

/* 4.5.4, 4.8: where the access goes, and what it leaves in the entries. */
TEST(sdm_paging, translation_and_marks)
{
	const uint64_t all = P | RW | US, va = 0x123456789abc;
	struct sdm_cpu cpu = {.maxphyaddr = 46, .gigabyte_pages = true};
	struct sdm_access access = {.address = va, .kind = SDM_WRITE};
	uint64_t entry[SDM_LEVELS] = {0, 0x5000 | all, all, all, all};
	struct sdm_result result;

	sdm_access(&cpu, entry, &access, &result);
	expect_eq(result.physical, 0x5abc);
	expect_eq(result.leaf, SDM_PTE);
	expect_eq(result.sets[SDM_PTE], SDM_A | SDM_D);
	expect_eq(result.sets[SDM_PDE], SDM_A);
	expect_eq(result.sets[SDM_PML4E], SDM_A);

	entry[SDM_PDE] = 0x4000000 | all | SDM_PS | 1 << 12;
	sdm_access(&cpu, entry, &access, &result);
	expect_eq(result.physical, 0x4000000 | (va & 0x1fffff));
	expect_eq(result.sets[SDM_PDE], SDM_A | SDM_D);
	expect_eq(result.sets[SDM_PTE], 0);

	entry[SDM_PDPTE] = 0x80000000 | all | SDM_PS;
	sdm_access(&cpu, entry, &access, &result);
	expect_eq(result.physical, 0x80000000 | (va & 0x3fffffff));
	cpu.gigabyte_pages = false;
	sdm_access(&cpu, entry, &access, &result);
	expect_eq(result.error_code, SDM_PF_P | SDM_PF_WR | SDM_PF_US | SDM_PF_RSVD);
	expect_eq(result.sets[SDM_PML4E], 0);
	expect_eq(result.may_set[SDM_PML4E], SDM_A);
	expect_eq(result.may_set[SDM_PDPTE], 0);

	cpu.cr3 = 0x3fffdeadbabc;
	expect_eq(sdm_root(&cpu), 0x3fffdeadb000);
	expect_eq(sdm_pcid(&cpu), 0);
	cpu.pcide = true;
	expect_eq(sdm_pcid(&cpu), 0xabc);

	access.address |= 1ull << 47;
	sdm_access(&cpu, entry, &access, &result);
	expect_eq(result.outcome, SDM_NOT_CANONICAL);
}

/* Every family and every outcome is there, and a number is always the same case. */
TEST(sdm_paging, cases)
{
	const struct paging_env env = {.maxphyaddr = 46, .gigabyte_pages = true};
	uint64_t count = paging_cases_count(), legal = 0, outcomes[3] = {0}, codes = 0;
	unsigned int families = 0;
	const char *family = "";

	for (uint64_t i = 0; i < count; i++) {
		struct paging_case c, again;
		struct sdm_result result;

		if (!paging_case_get(i, &env, &c))
			continue;
		expect(paging_case_get(i, &env, &again));
		expect(!memcmp(c.entry, again.entry, sizeof(c.entry)));
		sdm_access(&c.cpu, c.entry, &c.access, &result);
		legal++;
		outcomes[result.outcome]++;
		if (result.outcome == SDM_PAGE_FAULT)
			codes |= 1ull << result.error_code;
		if (strcmp(c.family, family))
			families++;
		family = c.family;
	}
	expect_ge(legal, 1500000);
	expect_eq(families, 8);
	expect_ge(outcomes[SDM_DONE], 400000);
	expect_ge(outcomes[SDM_PAGE_FAULT], 400000);
	expect_ge(outcomes[SDM_NOT_CANONICAL], 1000);
	/* All error codes that there are: P, W/R, U/S, I/D free; RSVD and PK as the manual has
	 * them. */
	expect_eq(codes, 0xaa2233aaff);
}
