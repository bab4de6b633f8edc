/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads where its tables map nothing: its own fault, which it cannot handle. Killed. */
#include "guests/lib/report.h"

#define NOWHERE 0x5000deadb000ul

int main(const struct boot_info *boot)
{
	boot_check(boot);
	return *(volatile uint8_t *)NOWHERE & 0;
}
