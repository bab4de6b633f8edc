/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads from the monitor's PML4 slot, which its own tables leave empty: the page with the number
 * given as seed. Killed.
 */
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	uint64_t gva;

	boot_check(boot);
	gva = BOOT_LINK_MAX + boot->seed * PAGE_SIZE;
	printf("touch_monitor: 0x%lx holds 0x%lx\n", gva, *(volatile uint64_t *)gva);
	return 3;
}
