/* SPDX-License-Identifier: 0BSD */
/*
 * Page-table helpers. Entries are volatile: the walker reads them and sets their A and D bits while
 * the program looks on.
 */
#include <stddef.h>

#include "mem.h"
#include "paging.h"
#include "report.h"

static uint64_t free_start, free_end;

void paging_init(const struct boot_info *boot)
{
	free_start = boot->image_end;
	free_end = boot->reserved_start;
}

uint64_t alloc_page(void)
{
	uint64_t gpa = free_start;

	check(free_end - free_start >= PAGE_SIZE, "out of RAM at gpa 0x%lx", free_end);
	free_start += PAGE_SIZE;
	memset(direct_map(gpa), 0, PAGE_SIZE);
	return gpa;
}

volatile uint64_t *pt_entry(uint64_t root, uint64_t gva, int level)
{
	uint64_t table = root & PTE_ADDR;

	for (int l = 4; l > level; l--) {
		volatile uint64_t *entries = direct_map(table);
		uint64_t entry = entries[pt_index(gva, l)];

		if (!(entry & PTE_P))
			return NULL;
		table = entry & PTE_ADDR;
	}
	return (volatile uint64_t *)direct_map(table) + pt_index(gva, level);
}

volatile uint64_t *pt_make_entry(uint64_t root, uint64_t gva, int level)
{
	for (int l = 4; l > level; l--) {
		volatile uint64_t *entry = pt_entry(root, gva, l);

		if (!(*entry & PTE_P))
			*entry = alloc_page() | PTE_P | PTE_W;
	}
	return pt_entry(root, gva, level);
}

void map_page(uint64_t root, uint64_t gva, uint64_t gpa, uint64_t flags)
{
	*pt_make_entry(root, gva, 1) = gpa | flags | PTE_P;
}

uint64_t clone_root(uint64_t root)
{
	uint64_t clone = alloc_page();

	memcpy(direct_map(clone), direct_map(root & PTE_ADDR), PAGE_SIZE);
	return clone;
}
