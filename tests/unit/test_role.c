/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Views and their rights, by the text of the SDM (vol. 3, 4.6.1 and 4.6.2): a case for each of its
 * sentences. All of them together are compared with a model elsewhere.
 */
#include "shadow/shadow_internal.h"
#include "tests/support/test.h"

#define R ACC_READ
#define W ACC_WRITE
#define X ACC_EXEC
#define U ACC_USER

#define KEY	3
#define PKRU_AD (1u << (2 * KEY))
#define PKRU_WD (2u << (2 * KEY))

static const struct guest_cpu kernel = {
	.cr0 = GUEST_CR0_PG | GUEST_CR0_WP,
	.cr4 = GUEST_CR4_PAE,
	.efer = GUEST_EFER_NXE,
	.maxphyaddr = 52,
};

static unsigned int rights(const struct guest_cpu *cpu, unsigned int access)
{
	return view_rights(guest_view(cpu, false), access, KEY);
}

TEST(role, supervisor_with_write_protection)
{
	expect_eq(rights(&kernel, 0), R);
	expect_eq(rights(&kernel, W), R | W);
	expect_eq(rights(&kernel, X), R | X);
	expect_eq(rights(&kernel, U), R);
	expect_eq(rights(&kernel, U | W | X), R | W | X);
}

TEST(role, supervisor_without_write_protection)
{
	struct guest_cpu cpu = kernel;

	cpu.cr0 &= ~GUEST_CR0_WP;
	expect_eq(rights(&cpu, 0), R | W);
	expect_eq(rights(&cpu, U), R | W);
	expect_eq(rights(&cpu, U | X), R | W | X);
}

TEST(role, user)
{
	struct guest_cpu cpu = kernel;

	cpu.user = true;
	expect_eq(rights(&cpu, W | X), 0);
	expect_eq(rights(&cpu, U), R);
	expect_eq(rights(&cpu, U | W), R | W);
	expect_eq(rights(&cpu, U | X), R | X);
}

TEST(role, smep)
{
	struct guest_cpu cpu = kernel;

	cpu.cr4 |= GUEST_CR4_SMEP;
	expect_eq(rights(&cpu, W | X), R | W | X);
	expect_eq(rights(&cpu, U | W | X), R | W);
}

TEST(role, smap_and_ac)
{
	struct guest_cpu cpu = kernel;

	cpu.cr4 |= GUEST_CR4_SMAP;
	expect_eq(rights(&cpu, W | X), R | W | X);
	expect_eq(rights(&cpu, U | W | X), X);
	cpu.cr0 &= ~GUEST_CR0_WP;
	expect_eq(rights(&cpu, U), 0);
	cpu.ac = true;
	expect_eq(rights(&cpu, U), R | W);
	/* Implicit accesses have no AC, and are a supervisor's at any privilege. */
	expect_eq(view_rights(guest_view(&cpu, true), U | W, KEY), 0);
	cpu.user = true;
	expect_eq(view_rights(guest_view(&cpu, true), U | W, KEY), 0);
	expect_eq(view_rights(guest_view(&cpu, true), 0, KEY), R | W);
}

TEST(role, protection_keys)
{
	struct guest_cpu cpu = kernel;

	cpu.pkru = PKRU_AD;
	expect_eq(rights(&cpu, U | W | X), R | W | X);
	cpu.cr4 |= GUEST_CR4_PKE;
	/* Users' pages alone have keys, and fetches ask for none. */
	expect_eq(rights(&cpu, W | X), R | W | X);
	expect_eq(rights(&cpu, U | W | X), X);
	expect_eq(view_rights(guest_view(&cpu, false), U | W | X, KEY + 1), R | W | X);
	cpu.pkru = PKRU_WD;
	expect_eq(rights(&cpu, U | W | X), R | X);
	/* A supervisor without write protection is bound by AD, not by WD. */
	cpu.cr0 &= ~GUEST_CR0_WP;
	expect_eq(rights(&cpu, U | X), R | W | X);
	cpu.pkru = PKRU_AD;
	expect_eq(rights(&cpu, U | X), X);
	/* A user is by both. */
	cpu.pkru = PKRU_WD;
	cpu.user = true;
	expect_eq(rights(&cpu, U | W | X), R | X);
	/* The last key has the last bits. */
	cpu.pkru = 1u << 30;
	expect_eq(view_rights(guest_view(&cpu, false), U | W | X, 15), X);
}

/* What has no say does not tell views apart; what has one does. */
TEST(role, views_are_normal)
{
	const struct guest_cpu user = {.user = true, .maxphyaddr = 52};
	struct guest_cpu cpu = user;

	cpu.cr0 = GUEST_CR0_WP;
	cpu.cr4 = GUEST_CR4_SMEP | GUEST_CR4_SMAP | GUEST_CR4_PGE | GUEST_CR4_PCIDE;
	cpu.ac = true;
	cpu.pkru = 0x55555555;
	cpu.cr3 = 0x1000;
	expect_eq(guest_view(&cpu, false).word, guest_view(&user, false).word);

	cpu.cr4 = GUEST_CR4_PKE;
	expect_ne(guest_view(&cpu, false).word, guest_view(&user, false).word);
	cpu = user;
	cpu.efer = GUEST_EFER_NXE;
	expect_ne(guest_view(&cpu, false).word, guest_view(&user, false).word);
	cpu = user;
	cpu.maxphyaddr = 46;
	expect_ne(guest_view(&cpu, false).word, guest_view(&user, false).word);
	cpu = user;
	cpu.user = false;
	expect_ne(guest_view(&cpu, false).word, guest_view(&user, false).word);
	expect_eq(guest_view(&cpu, false).word, guest_view(&user, true).word);

	cpu = kernel;
	cpu.cr4 |= GUEST_CR4_SMAP;
	cpu.ac = true;
	expect_eq(guest_view(&cpu, false).word, guest_view(&kernel, false).word);
	expect_ne(guest_view(&cpu, true).word, guest_view(&kernel, true).word);
}

TEST(role, clean_leaves_are_not_writable)
{
	struct guest_cpu cpu = kernel;

	expect_eq(leaf_rights(guest_view(&cpu, false), W | X, 0, true), R | W | X);
	expect_eq(leaf_rights(guest_view(&cpu, false), W | X, 0, false), R | X);
	cpu.cr0 &= ~GUEST_CR0_WP;
	expect_eq(leaf_rights(guest_view(&cpu, false), 0, 0, false), R);
}

/* No leaf below a table has more than the audit is told, and some leaf has each of those rights. */
TEST(role, the_most_that_a_table_may_grant)
{
	static const uint64_t cr4s[] = {0, GUEST_CR4_SMEP, GUEST_CR4_SMAP, GUEST_CR4_PKE,
					GUEST_CR4_SMEP | GUEST_CR4_SMAP | GUEST_CR4_PKE};

	for (unsigned int i = 0; i < 5 * 4 * 8; i++) {
		struct guest_cpu cpu = kernel;
		struct shadow_role role;
		unsigned int found = 0;

		cpu.cr4 |= cr4s[i % 5];
		cpu.user = i / 5 % 2;
		cpu.cr0 = i / 10 % 2 ? GUEST_CR0_WP : 0;
		cpu.pkru = PKRU_AD;
		role = guest_view(&cpu, false);
		role.access = i / 20;
		for (unsigned int access = 0; access <= ACC_ALL; access++) {
			if (!(access & ~role.access))
				found |= view_rights(role, access, KEY) |
					 view_rights(role, access, 0);
		}
		expect_eq(role_rights(role), found);
	}
}

/* Of the pieces of a large page all is known: a clean one is not writable, and all have one key. */
TEST(role, what_pieces_of_a_large_page_may_grant)
{
	for (unsigned int i = 0; i < 2 * 2; i++) {
		struct guest_cpu cpu = kernel;
		struct shadow_role role;

		cpu.cr4 |= GUEST_CR4_PKE;
		cpu.pkru = PKRU_AD;
		role = guest_view(&cpu, false);
		role.direct = 1;
		role.access = ACC_ALL;
		role.dirty = i % 2;
		role.pkey = i / 2 ? KEY : 0;
		expect_eq(role_rights(role), leaf_rights(role, ACC_ALL, role.pkey, role.dirty));
		expect_eq(!(role_rights(role) & W), !role.dirty || role.pkey);
	}
}
