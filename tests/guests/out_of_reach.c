/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Maps a page of its own where not every engine's CPUs have addresses, and uses it: below the first
 * that a process of the host's may have, or with a seed other than 0 in the upper half. Exit code 0
 * if it is there; killed where it cannot be, with a reason that says so.
 */
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define LOW  0x8000ul
#define HIGH 0xffffc00000000000ul

int main(const struct boot_info *boot)
{
	uint64_t gva = boot->seed ? HIGH : LOW;
	uint64_t gpa;

	boot_check(boot);
	paging_init(boot);
	gpa = alloc_page();
	map_page(read_cr3() & PTE_ADDR, gva, gpa, PTE_W);
	*(volatile uint64_t *)gva = 0x1122334455667788;
	return *(volatile uint64_t *)(BOOT_DIRECT_MAP + gpa) != 0x1122334455667788;
}
