/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Maps the monitor's PML4 slot in its own tables, the page with the number given as seed to one of
 * its own pages, and reads there. The slot is not a guest's to map: it is killed, and in no case
 * sees what the monitor has there, nor takes it from the monitor.
 */
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	uint64_t root, gva;

	boot_check(boot);
	paging_init(boot);
	root = read_cr3() & PTE_ADDR;
	gva = BOOT_LINK_MAX + boot->seed * PAGE_SIZE;
	map_page(root, gva, alloc_page(), PTE_W);
	invlpg(gva);
	write_cr3(root);
	puts("map_monitor: mapped\n"); /* which the monitor is needed for */

	printf("map_monitor: 0x%lx holds 0x%lx\n", gva, *(volatile uint64_t *)gva);
	return 3;
}
