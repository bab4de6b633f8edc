/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loads a root outside its RAM: every access faults from there on, the next fetch first. Killed. */
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	write_cr3(boot->ram_size + 0x123000);
	return 3;
}
