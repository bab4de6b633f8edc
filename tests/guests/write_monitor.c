/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes to the monitor's PML4 slot: the page with the number given as seed. Killed. */
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	*(volatile uint64_t *)(BOOT_LINK_MAX + boot->seed * PAGE_SIZE) = 0;
	return 3;
}
