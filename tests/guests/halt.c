/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waits for an interrupt that cannot come. */
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	for (;;)
		hlt();
}
