/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks for the monitor through a self-map: the root as a table of its own, where the root's slot
 * for the monitor turns up one level lower. A shadow table that serves as a root must not serve
 * there as well. What the guest's tables map to that address is nothing: killed.
 */
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define SLOT 6ul

int main(const struct boot_info *boot)
{
	uint64_t root, gva;

	boot_check(boot);
	root = read_cr3() & PTE_ADDR;
	gva = SLOT << 39 | (BOOT_LINK_MAX >> 9);
	*pt_entry(root, gva, 4) = root | PTE_P | PTE_W;
	check(pt_entry(root, gva, 3) == pt_entry(root, BOOT_LINK_MAX, 4),
	      "the self-map does not lead to the root");
	puts("selfmap: mapped\n");

	printf("0x%lx: 0x%lx\n", gva, *(volatile uint64_t *)gva);
	return 3;
}
