/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jumps into the monitor's PML4 slot, where its entry stubs are: to the page with the number given
 * as seed. A fetch is an access like any other. Killed.
 */
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	((void (*)(void))(BOOT_LINK_MAX + boot->seed * PAGE_SIZE))();
	return 3;
}
