/* SPDX-License-Identifier: 0BSD */
/*
 * A guest's own page tables, reached through the loader's map of all RAM (boot.h). Four levels, 4
 * KiB pages.
 *
 * Nothing here invalidates: when an edit needs INVLPG or a CR3 load is the caller's to know. An
 * entry that was not present needs none.
 */
#ifndef GUESTS_LIB_PAGING_H
#define GUESTS_LIB_PAGING_H

#include <stdint.h>

#include "boot.h"

#define PAGE_SIZE      0x1000ul
#define ENTRIES_PER_PT 512

#define PTE_P	 (1ul << 0)
#define PTE_W	 (1ul << 1)
#define PTE_A	 (1ul << 5)
#define PTE_D	 (1ul << 6)
#define PTE_ADDR 0x000ffffffffff000ul

/* A page table is named by its gpa; a whole tree of them by that of its root, as in CR3. */

static inline void *direct_map(uint64_t gpa)
{
	return (void *)(BOOT_DIRECT_MAP + gpa);
}

/* Which entry of a table of @level translates @gva: level 4 for a root, 1 for a table of pages. */
static inline unsigned int pt_index(uint64_t gva, int level)
{
	return (gva >> (3 + 9 * level)) & (ENTRIES_PER_PT - 1);
}

/* What one such entry spans. */
static inline uint64_t pt_span(int level)
{
	return 1ul << (3 + 9 * level);
}

/* Hand out RAM between the image and what the loader left at the end of RAM. Call this first. */
void paging_init(const struct boot_info *boot);

/* A zeroed page, never given back. Its gpa; the guest fails when RAM is used up. */
uint64_t alloc_page(void);

/* The entry for @gva in the table of @level, or NULL where a table above it is missing. */
volatile uint64_t *pt_entry(uint64_t root, uint64_t gva, int level);

/* The same; missing tables are made. */
volatile uint64_t *pt_make_entry(uint64_t root, uint64_t gva, int level);

/* Set @gva's PTE to @gpa, present, with @flags. */
void map_page(uint64_t root, uint64_t gva, uint64_t gpa, uint64_t flags);

/* A new root with the entries of @root: both share all tables below. */
uint64_t clone_root(uint64_t root);

#endif
