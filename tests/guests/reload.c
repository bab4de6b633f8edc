/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loads CR3 again and again, and uses the same pages after each, of which it edits one before. All
 * others may stay where they are: the test counts how many did.
 */
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define PAGES 256
#define LOADS 64
#define BASE  0x10000000000ul

int main(const struct boot_info *boot)
{
	uint64_t root, frame[2];

	boot_check(boot);
	paging_init(boot);
	root = read_cr3() & PTE_ADDR;
	for (uint64_t i = 0; i < 2; i++) {
		frame[i] = alloc_page();
		*(volatile uint64_t *)direct_map(frame[i]) = i;
	}
	for (uint64_t i = 0; i < PAGES; i++)
		map_page(root, BASE + i * PAGE_SIZE, frame[0], PTE_W);
	for (uint64_t load = 0; load < LOADS; load++) {
		map_page(root, BASE + load * PAGE_SIZE, frame[1], PTE_W);
		write_cr3(root);
		for (uint64_t i = 0; i < PAGES; i++) {
			uint64_t found = *(volatile uint64_t *)(BASE + i * PAGE_SIZE);

			check(found == (i <= load), "after load %lu page %lu leads to frame %lu",
			      load, i, found);
		}
	}
	printf("reload: %d CR3 loads, %d pages\n", LOADS, PAGES);
	return 0;
}
