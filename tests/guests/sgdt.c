/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SGDT would show the monitor's table. With UMIP it faults: killed. On a CPU without UMIP it runs,
 * and nothing can be done about it: then the exit code is 3, and a test that finds `gnomon doctor`
 * announcing UMIP knows better. Where a guest is a process of the host's there is no monitor, and
 * SGDT always runs.
 */
#include "guests/lib/console.h"
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) gdtr = {0};

	boot_check(boot);
	__asm__ volatile("sgdt %0" : "=m"(gdtr));
	printf("sgdt: the GDT is at 0x%lx\n", gdtr.base);
	return 3;
}
