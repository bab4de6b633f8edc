/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The address words, fixed once for the whole project (docs/glossary.md).
 *
 *   gva --guest page tables--> gpa --memslots--> hva --primary page table--> pfn
 *
 * An hva is an address in a simulated host address space (struct mm_struct), never in our own
 * process. A pfn names a frame of the machine: frame n lives at offset n << 12 of the machine's
 * memfd (gnomon/phys.h).
 */
#ifndef GNOMON_TYPES_H
#define GNOMON_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gva_t;
typedef uint64_t gpa_t;
typedef uint64_t gfn_t;
typedef uint64_t hva_t;
typedef uint64_t pfn_t;

/* Other headers have these, too: <sys/user.h>, or <limits.h> of some C libraries. */
#ifndef PAGE_SHIFT
#define PAGE_SHIFT 12
#endif
#ifndef PAGE_SIZE
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#endif
#ifndef PAGE_MASK
#define PAGE_MASK (~(PAGE_SIZE - 1))
#endif
#if PAGE_SHIFT != 12 || PAGE_SIZE != 4096
#error "gnomon's pages have 4096 bytes, and somebody defined PAGE_SIZE or PAGE_SHIFT otherwise"
#endif

#define PAGE_ALIGN(x)	((((uint64_t)(x)) + PAGE_SIZE - 1) & PAGE_MASK)
#define PAGE_ALIGNED(x) ((((uint64_t)(x)) & (PAGE_SIZE - 1)) == 0)

#define INVALID_PFN (~(pfn_t)0)
#define INVALID_GFN (~(gfn_t)0)
#define INVALID_HVA (~(hva_t)0)

/* hvas are the low canonical half, as a Linux process sees it. */
#define HVA_MAX (1UL << 47)

#endif
