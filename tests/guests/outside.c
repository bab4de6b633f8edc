/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Linked to a physical address that no machine of the tests has: not to be loaded, never run. */
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	return 0;
}
