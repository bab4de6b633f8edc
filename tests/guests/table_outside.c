/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page tables that point out of RAM: to a frame number far beyond it. If the VMM took it for a
 * frame of the machine, the guest would see a neighbour's memory. Killed.
 */
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define WINDOW 0x10000000000ul

int main(const struct boot_info *boot)
{
	boot_check(boot);
	paging_init(boot);
	map_page(read_cr3(), WINDOW, boot->ram_size,
		 PTE_W); /* the first page that it does not have */
	puts("table_outside: mapped\n");
	printf("0x%lx\n", *(volatile uint64_t *)WINDOW);
	return 3;
}
