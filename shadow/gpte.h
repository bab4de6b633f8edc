/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's own entries, and what one says by itself (SDM vol. 3, 4.5). What it says together
 * with those above it, and to whom, is in guest_walk.c and role.c.
 */
#ifndef SHADOW_GPTE_H
#define SHADOW_GPTE_H

#include <gnomon/shadow.h>

#include "shadow/spte.h"

#define GPTE_PRESENT	(1UL << 0)
#define GPTE_WRITE	(1UL << 1)
#define GPTE_USER	(1UL << 2)
#define GPTE_ACCESSED	(1UL << 5)
#define GPTE_DIRTY	(1UL << 6)
#define GPTE_PS		(1UL << 7) /* levels 2 and 3: a page; at level 1 it is PAT, which has no say */
#define GPTE_GLOBAL	(1UL << 8)
#define GPTE_PKEY_SHIFT 59 /* of a leaf; ignored without CR4.PKE */
#define GPTE_PKEY_MASK	15
#define GPTE_NX		(1UL << 63)
#define GPTE_ADDR_MASK	0x000ffffffffff000UL
#define GPTE_LARGE_PAT	(1UL << 12) /* of a large page: the lowest bit of its address field */
#define LARGEST_PAGE	3	    /* the level of 1 GiB pages */

#define CR3_PCID_MASK 0xfffUL

/* What CR3 names. */
static inline gfn_t guest_root_gfn(const struct guest_cpu *cpu)
{
	return (cpu->cr3 & GPTE_ADDR_MASK) >> PAGE_SHIFT;
}

/* Without PCIDE the low bits of CR3 are of no interest, and all translations have PCID 0. */
static inline unsigned int guest_pcid(const struct guest_cpu *cpu)
{
	return cpu->cr4 & GUEST_CR4_PCIDE ? cpu->cr3 & CR3_PCID_MASK : 0;
}

/* Of a page that an entry of @level maps. */
static inline uint64_t guest_page_size(int level)
{
	return table_pages(level - 1) << PAGE_SHIFT;
}

static inline unsigned int gpte_access(uint64_t gpte)
{
	return (gpte & GPTE_WRITE ? ACC_WRITE : 0) | (gpte & GPTE_USER ? ACC_USER : 0) |
	       (gpte & GPTE_NX ? 0 : ACC_EXEC);
}

static inline bool gpte_is_leaf(uint64_t gpte, int level)
{
	return level == 1 || (level <= LARGEST_PAGE && (gpte & GPTE_PS));
}

/* Of what @gpte names: the next table, or the first 4 KiB of the page. */
static inline gfn_t gpte_gfn(uint64_t gpte, int level)
{
	gpa_t gpa = gpte & GPTE_ADDR_MASK;

	if (gpte_is_leaf(gpte, level))
		gpa &= ~(guest_page_size(level) - 1);
	return gpa >> PAGE_SHIFT;
}

static inline unsigned int gpte_pkey(uint64_t gpte)
{
	return (gpte >> GPTE_PKEY_SHIFT) & GPTE_PKEY_MASK;
}

/* The bits that @gpte, which is present, must not have. */
static inline uint64_t gpte_reserved(uint64_t gpte, int level, unsigned int maxphyaddr, bool nxe)
{
	uint64_t reserved = GPTE_ADDR_MASK & ~((1UL << maxphyaddr) - 1);

	if (!nxe)
		reserved |= GPTE_NX;
	if (level > LARGEST_PAGE)
		reserved |= GPTE_PS;
	else if (level > 1 && (gpte & GPTE_PS))
		reserved |= GPTE_ADDR_MASK & ~GPTE_LARGE_PAT & (guest_page_size(level) - 1);
	return reserved;
}

#endif
