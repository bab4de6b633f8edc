/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Views: what the accesses of a virtual CPU may do (SDM vol. 3, 4.6), in one place. The walk asks
 * for its verdict, the fault path for the rights of the leaf that it makes.
 *
 * Guest kernel and guest user both run at CPL3, where one entry grants the same to both. So each
 * shadow table belongs to one view, and a vCPU runs on a root of the view that it is in: its
 * privilege, and the protections that bind it. A leaf grants what the accesses of its view may do,
 * no more, and no less than an entry can say: one that grants execution and not reading does not
 * exist, so nothing is mapped there (RET_PF_EXEC_ONLY).
 *
 * The view is normal: what has no say is always the same. A user's accesses are bound by write
 * protection whatever CR0.WP is, and not by SMEP and SMAP. So views that may do the same share
 * their tables.
 *
 * Pure functions; no locks.
 */
#include "shadow/shadow_internal.h"

#define PKRU_BITS 2
#define PKRU_AD	  (1u << 0)
#define PKRU_WD	  (1u << 1)

struct shadow_role guest_view(const struct guest_cpu *cpu, bool implicit)
{
	bool user = cpu->user && !implicit;
	bool pke = cpu->cr4 & GUEST_CR4_PKE;

	return (struct shadow_role){
		.user = user,
		.wp = user || (cpu->cr0 & GUEST_CR0_WP),
		.nxe = !!(cpu->efer & GUEST_EFER_NXE),
		.smep = !user && (cpu->cr4 & GUEST_CR4_SMEP),
		.smap = !user && (cpu->cr4 & GUEST_CR4_SMAP) && (implicit || !cpu->ac),
		.pke = pke,
		.maxphyaddr = cpu->maxphyaddr,
		.pkru = pke ? cpu->pkru : 0,
	};
}

unsigned int view_pkey_denies(struct shadow_role view, unsigned int access, unsigned int pkey)
{
	unsigned int pkru = view.pkru >> (PKRU_BITS * pkey);

	if (!view.pke || !(access & ACC_USER))
		return 0;
	if (pkru & PKRU_AD)
		return ACC_READ | ACC_WRITE;
	return (pkru & PKRU_WD) && view.wp ? ACC_WRITE : 0;
}

unsigned int view_rights(struct shadow_role view, unsigned int access, unsigned int pkey)
{
	unsigned int rights = ACC_READ | (access & ACC_EXEC);

	if ((access & ACC_WRITE) || !view.wp)
		rights |= ACC_WRITE;
	if (!(access & ACC_USER))
		return view.user ? 0 : rights;
	if (view.smep)
		rights &= ~ACC_EXEC;
	if (view.smap)
		rights &= ~(ACC_READ | ACC_WRITE);
	return rights & ~view_pkey_denies(view, access, pkey);
}

unsigned int leaf_rights(struct shadow_role view, unsigned int access, unsigned int pkey,
			 bool dirty)
{
	unsigned int rights = view_rights(view, access, pkey);

	return dirty ? rights : rights & ~ACC_WRITE;
}

/* Below a table of the guest's, pages may have lost U, by which a supervisor gains, and have any
 * key.
 */
unsigned int role_rights(struct shadow_role role)
{
	unsigned int access = role.access;

	if (role.direct)
		return leaf_rights(role, access, role.pkey, role.dirty);
	role.pke = 0;
	return view_rights(role, access, 0) | view_rights(role, access & ~ACC_USER, 0);
}
