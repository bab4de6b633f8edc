/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest guest: it shows that a program runs, knows its memory and can speak. By the time the
 * line is out, the shadow MMU has resolved a fault for each page that was touched on the way (code,
 * strings, data, stack, boot_info), and the VMM has emulated an OUT for each letter.
 */
#include "guests/lib/console.h"
#include "guests/lib/report.h"

static void print_size(uint64_t bytes)
{
	if (bytes % (1 << 20) == 0)
		printf("%luM", bytes >> 20);
	else
		printf("%luK", bytes >> 10);
}

int main(const struct boot_info *boot)
{
	boot_check(boot);

	puts("hello from a guest on shadow page tables (RAM ");
	print_size(boot->ram_size);
	printf(", image at gpa 0x%lx-0x%lx, root at 0x%lx)\n", boot->image_start,
	       boot->image_end - 1, read_cr3());
	return 0;
}
