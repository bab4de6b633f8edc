/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Loops for ever and polls nothing: only the VMM can end it. */
#include "guests/lib/report.h"

int main(const struct boot_info *boot)
{
	boot_check(boot);
	for (;;)
		barrier();
}
